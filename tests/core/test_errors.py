from __future__ import annotations

import pytest

from boresight.core.errors import UserError, did_you_mean


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
