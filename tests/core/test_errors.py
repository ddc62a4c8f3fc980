from __future__ import annotations

import pytest

from boresight.core.errors import LONGEST_LINE, UserError, did_you_mean


@pytest.mark.parametrize(
    ("word", "neighbour"),
    [("lernig_rate", "learning_rate"), ("epoch", "epochs"), ("sed", "seed"), ("batchsize", "batch_size")],
)
def test_a_misspelt_key_names_its_neighbour(word, neighbour):
    known = ["learning_rate", "epochs", "seed", "batch_size"]
    assert did_you_mean(word, known) == f": did you mean `{neighbour}`?"


def test_the_nearest_of_several_is_named():
    assert did_you_mean("sigma_end", ["sigma_start", "sigma_ends", "sigma"]) == ": did you mean `sigma_ends`?"


@pytest.mark.parametrize("known", [[], ["learning_rate", "epochs"]])
def test_nothing_near_says_nothing(known):
    assert did_you_mean("zzzz", known) == ""


def test_known_words_may_come_from_any_iterable():
    assert did_you_mean("strid", (word for word in ("stride", "level"))) == ": did you mean `stride`?"


def test_the_message_is_printed_as_it_was_given():
    line = f"train.yaml: unknown key `lernig_rate`{did_you_mean('lernig_rate', ['learning_rate'])}"
    assert str(UserError(line)) == "train.yaml: unknown key `lernig_rate`: did you mean `learning_rate`?"


def test_a_user_error_is_not_caught_as_a_value_error():
    assert not issubclass(UserError, (ValueError, OSError, RuntimeError, KeyError))


def test_a_message_is_one_printable_line_whatever_it_names():
    told = str(UserError("a\n\tb \x1b[2J\u202egpj.\ud800 ü"))
    assert told == "a b \\x1b[2J\\u202egpj.\\ud800 ü"
    assert told.encode()


def test_of_a_message_beyond_all_reading_the_middle_is_left_out():
    told = str(UserError("file.json: " + "x" * 10_000_000 + ": remove it"))
    assert len(told) <= LONGEST_LINE
    assert told.startswith("file.json: xxx")
    assert " ... " in told
    assert told.endswith("xxx: remove it")


def test_a_neighbour_of_a_huge_word_is_not_searched_for():
    assert did_you_mean("a" * 1_000_000, ["a" * 1_000_000]) == ""
