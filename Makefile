# The few commands of this project. Another environment: `make test VENV=path/to/venv`.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup check test bench docs

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(BIN)/python  ## make the environment and install the project with its test tools, versions as in constraints.txt
	$(BIN)/pip install -e ".[test]" -c constraints.txt

check:  ## formatting, lint and types; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test:  ## the whole suite: CPU, offline, warnings are errors
	$(BIN)/pytest

bench:  ## every benchmark that needs neither a GPU nor hours, side by side with its peers in one run
	$(BIN)/pip install -q -e ".[bench]" -c constraints.txt
	@for name in all store health memory step; do echo "== $$name" && $(BIN)/python "benchmarks/$$name.py" || exit 1; done

docs: $(BIN)/python  ## the site of the documentation in build/docs/site, warnings are errors
	$(BIN)/pip install -q -e ".[docs]" -c constraints.txt
	$(BIN)/python docs/make_site.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
