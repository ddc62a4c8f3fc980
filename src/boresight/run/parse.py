"""Reads settings from YAML and from ``--key.sub value`` before torch is imported.

A key that nothing reads is an error that names its neighbour; a value of the wrong type is an error that names key,
value and expected type.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from boresight.core import files
from boresight.core.errors import UserError, did_you_mean
from boresight.run.ranges import check_ranges

S = TypeVar("S")

UNFIT = (LookupError, ArithmeticError, AttributeError)
"""What PyYAML inside of jsonargparse raises for a text that its tag cannot hold (``!!timestamp a``)."""


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """``{"train.steps": 1000, ...}`` of a settings dataclass."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        flat |= flatten(value, f"{prefix}{f.name}.") if dataclasses.is_dataclass(value) else {prefix + f.name: value}
    return flat


def nested(settings: Any) -> dict[str, Any]:
    """The settings as plain nested dicts and lists, for YAML."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else value

    return plain(settings)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over`` put in, group by group."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def build_parser(kind: type, prog: str) -> Any:
    """A jsonargparse parser of every key of the settings dataclass ``kind``, ``--config`` and ``--print_config``."""
    from jsonargparse import ArgumentParser

    # no abbreviations: `--train.step` would be taken for `train.steps`, and a new key could change what it means
    parser = ArgumentParser(prog=prog, exit_on_error=False, default_env=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="a YAML file of settings; later arguments override it")
    parser.add_class_arguments(kind, None, as_positional=False)
    return parser


def parse_settings(kind: type[S], arguments: Sequence[str], *, prog: str = "boresight train") -> S:
    """Read ``kind`` from ``[--config F.yaml] [--key.sub VALUE ...]``.

    Raises:
        UserError: one line that names the file or key, and the remedy.
    """
    parser = build_parser(kind, prog)
    _check_files(kind, arguments)
    _set_recipe(parser, kind, _recipe_named(arguments))
    try:
        parsed = parser.instantiate(parser.parse_args(list(arguments)))
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        raise UserError(_readable(str(error), kind)) from error
    except UNFIT as error:
        given = pairwise(part for word in arguments for part in word.split("=", 1))
        raise UserError(_unfit(dict(given), error)) from error
    settings = kind(**{k: v for k, v in vars(parsed).items() if k != "config"})
    check_ranges(flatten(settings))
    return settings


def _recipe_named(arguments: Sequence[str]) -> str | None:
    """The last ``recipe`` that the arguments give, on the line itself or in a file."""
    named = None
    for word, after in pairwise([*arguments, ""]):
        key, equals, value = word.partition("=")
        value = value if equals else after
        if key == "--recipe":
            named = value
        elif key == "--config" and isinstance(content := read_yaml(value), Mapping):
            named = content.get("recipe", named)
    return named


def _set_recipe(parser: Any, kind: type, name: object) -> None:
    """Make the values of a shipped recipe the parser's defaults; what is given by name still overrides them."""
    known = getattr(kind, "RECIPES", {})
    if isinstance(name, str) and name in known:
        parser.set_defaults(flat_keys(known[name]))


def flat_keys(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"train.steps": 5}`` of ``{"train": {"steps": 5}}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flat_keys(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def settings_from(kind: type[S], values: Mapping[str, Any], *, origin: str) -> S:
    """Read ``kind`` from nested values, as a YAML file holds them; ``origin`` names the file in errors."""
    if not isinstance(values, Mapping):
        raise UserError(f"{origin}: a settings file is a mapping of keys, got {type(values).__name__}")
    check_keys(kind, values, origin)
    parser = build_parser(kind, "boresight")
    _set_recipe(parser, kind, values.get("recipe"))
    try:
        parsed = parser.instantiate(parser.parse_object(dict(values)))
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        raise UserError(f"{origin}: {_readable(str(error), kind)}") from error
    except UNFIT as error:
        raise UserError(f"{origin}: {_unfit(flat_keys(values), error)}") from error
    settings = kind(**{k: v for k, v in vars(parsed).items() if k != "config"})
    try:
        check_ranges(flatten(settings))
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error
    return settings


def read_yaml(path: str | Path) -> Any:
    """Load a YAML file of settings safely; UserError names file and line when it cannot be read."""
    return files.read_yaml(Path(path), "settings")


def _check_files(kind: type, arguments: Sequence[str]) -> None:
    """Check keys of every ``--config`` file ourselves: the parser would not say which file was meant."""
    for i, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name != "--config":
            continue
        path = value if equals else (arguments[i + 1] if i + 1 < len(arguments) else "")
        if not path:
            raise UserError("--config needs a file: --config FILE.yaml")
        settings_from(kind, read_yaml(path), origin=path)


def check_keys(
    kind: type, values: Mapping[str, Any], origin: str, prefix: str = "", whole: Mapping[str, Any] | None = None
) -> None:
    """Raise UserError for the first key of ``values`` that the settings do not have, with its neighbour.

    ``whole`` holds every key of the settings (those of ``kind`` by default), for a key that stands in a wrong group.
    """
    hints = {f.name: f for f in dataclasses.fields(kind)}
    whole = flatten(kind()) if whole is None else whole
    for key, value in values.items():
        if key not in hints:
            near = _elsewhere(str(key), whole) or did_you_mean(str(key), hints)
            raise UserError(f"{origin}: unknown key `{prefix}{key}`{near or '; known: ' + ', '.join(hints)}")
        default = hints[key].default_factory
        inner = default if isinstance(default, type) and dataclasses.is_dataclass(default) else None
        if inner is not None:
            if not isinstance(value, Mapping):
                raise UserError(f"{origin}: `{prefix}{key}` holds keys of its own, got {value!r}")
            check_keys(inner, value, origin, f"{prefix}{key}.", whole)


def _elsewhere(key: str, whole: Mapping[str, Any]) -> str:
    """A hint when the key exists under another group."""
    inside = [k for k in whole if k.rsplit(".", 1)[-1] == key]
    return f": did you mean `{inside[0]}`?" if inside else ""


def _unfit(values: Mapping[str, Any], error: Exception) -> str:
    """The values that hold a YAML tag, which one of them cannot be read by."""
    tagged = [f"`{key.lstrip('-')}` = {value}" for key, value in values.items() if "!!" in str(value)]
    return f"{', '.join(tagged) or 'a value'}: cannot be read ({error}); write the value itself, without a tag"


def _readable(message: str, kind: type) -> str:
    """The parser's message as one line that names key, value, expected type and neighbour."""
    known = list(flatten(kind()))
    if match := re.search(r"unrecognized arguments: (.+)", message):
        word = match.group(1).split()[0]
        key = word.lstrip("-").partition("=")[0]
        near = did_you_mean(key, known) or _elsewhere(key, dict.fromkeys(known))
        return f"unknown argument `{word}`{near or '; `--print_config` shows every key'}"
    if match := re.search(r'[Kk]ey "([^"]+)":\s*(.*)', message, re.DOTALL):
        detail = " ".join(match.group(2).split())
        detail = re.sub(r"<class '([\w.]+)'>", r"\1", detail)
        detail = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", detail).replace("typing.", "")
        value = re.search(r"Got value: (.*)$", detail)
        wanted = re.search(r"Expected an? (.*?)\. Got value", detail)
        if options := re.search(r"Union subtypes Subtypes: \[(.*)\] Errors:.*Given value: (.*)$", detail):
            wanted_any = options.group(1).replace(", NoneType", " or null")
            return f"`{match.group(1)}` = {options.group(2)}: expected {wanted_any}"
        if value and wanted:
            return f"`{match.group(1)}` = {value.group(1)}: expected {wanted.group(1)}"
        return f"`{match.group(1)}`: {detail}"
    if match := re.search(r"does not accept (?:nested key|option) '([^']+)'", message):
        return f"unknown key `{match.group(1)}`{did_you_mean(match.group(1), [k.rsplit('.', 1)[-1] for k in known])}"
    return " ".join(message.split())


def overrides(
    kind: type, groups: Sequence[str], arguments: Sequence[str], options: Sequence[str] = ()
) -> dict[str, dict[str, str]]:
    """``--group.key VALUE`` arguments as ``{"group": {"key": "VALUE"}}``, to be read by :func:`settings_from`.

    UserError for any other argument; ``options`` are words that it may have been meant for.
    """
    makers = {f.name: f.default_factory for f in dataclasses.fields(kind) if f.name in groups}
    known = [f"--{group}.{f.name}" for group, made in makers.items() for f in dataclasses.fields(made)]  # type: ignore[arg-type]
    values: dict[str, dict[str, str]] = {}
    words = iter(arguments)
    for word in words:
        key, equals, value = word.partition("=")
        if key not in known:
            near = did_you_mean(key, [*known, *options]) or "; see --help"
            raise UserError(f"unknown argument `{word}`{near}")
        text = value if equals else next(words, None)
        if text is None:
            raise UserError(f"`{key}` needs a value")
        group, _, name = key.removeprefix("--").partition(".")
        values.setdefault(group, {})[name] = text
    return values
