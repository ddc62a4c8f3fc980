"""The verdict's rule, line by line."""

from __future__ import annotations

import pytest

from boresight.evaluate.estimate import Estimate
from boresight.evaluate.verdict import Reading, judge, speaking


def estimate(x: float, half: float = 0.02) -> Estimate:
    return Estimate(x, 500, (x - half, x + half))


def reading(x: float, half: float = 0.02, floor: float = 0.1, rung: str = "gt_centre") -> Reading:
    return Reading(rung, estimate(x, half), floor)


@pytest.mark.parametrize(
    ("skill", "half", "ranking", "classification", "lead", "word"),
    [
        (0.8, 0.05, 0.1, 0.4, 0.3, "classification"),
        (0.8, 0.05, 0.4, 0.1, -0.3, "ranking"),
        (0.8, 0.05, 0.3, 0.3, 0.01, "undecided"),  # too close to call
        (0.8, 0.05, 0.02, 0.04, 0.1, "undecided"),  # nothing is lost
        (0.8, 0.15, 0.1, 0.4, 0.3, "undecided"),  # the interval reaches below 70 %
        (0.6, 0.02, 0.1, 0.4, 0.3, "undecided"),
        (0.45, 0.1, 0.1, 0.4, 0.3, "undecided"),  # reaches over 50 %
        (0.4, 0.05, 0.1, 0.4, 0.3, "localisation"),
    ],
)
def test_the_rule(skill: float, half: float, ranking: float, classification: float, lead: float, word: str):
    said = judge(500, reading(skill, half), estimate(ranking), estimate(classification), estimate(lead))
    assert said.word == word
    assert (said.reason == "") == (word != "undecided")
    few = judge(199, reading(skill, half), estimate(ranking), estimate(classification), estimate(lead))
    assert few.word == "undecided"
    assert "too few to tell: 199 objects" in few.reason


def test_a_saturated_floor_does_not_speak():
    saturated = reading(0.95, floor=0.9, rung="one_to_one")
    assert speaking((saturated, reading(0.3))) == reading(0.3)
    assert speaking((saturated,)) is None
    assert speaking((reading(0.3), reading(0.6, rung="one_to_one"))).rung == "one_to_one"
    assert judge(500, None, estimate(0), estimate(0), estimate(0)).word == "undecided"
