"""One word on where a detector loses: in the boxes, in the choice among them, or in the class.

The rule of thumb behind it: where the right class is given, accuracy at IoU 0.5 above 70 % means that the boxes are
good and the class is worth a look; under 50 % the boxes are not. It is applied to *skill*, the share of the way from
the chance floor to perfection, because the plain figure over all cells passes 70 % with boxes that have seen nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boresight.evaluate.bootstrap import Interval
from boresight.evaluate.estimate import Estimate

Word = Literal["classification", "localisation", "ranking", "undecided"]

GOOD, POOR = 0.7, 0.5
# Under this many objects an interval by image says too little.
ENOUGH = 200
# A floor above this leaves no room to tell skill from luck.
SATURATED = 0.8
# A loss below this is not worth a word.
WORTH = 0.05


@dataclass(frozen=True)
class Reading:
    """Skill at IoU 0.5 of one rung that is given the class, with the strongest floor it was measured against."""

    rung: str
    skill: Estimate
    floor: float | None


@dataclass(frozen=True)
class Verdict:
    """The word, what decided it, and what would overturn it.

    Attributes:
        word: ``localisation``: the boxes are the trouble; ``ranking``: good boxes are there and the score does not
            choose them; ``classification``: they are chosen once the class is given; ``undecided``.
        reason: why undecided, empty otherwise.
        sentence: the verdict in words, with its figures.
        overturn: what would change it.
        objects: how many there were.
        reading: the rung that speaks for the boxes: the highest skill among the rungs whose floor is not saturated.
        skill: of that rung.
        ranking_gap: its skill less that of the best-scored boxes of the true class.
        classification_gap: the latter less the skill of the predicted class.
    """

    word: Word
    reason: str
    sentence: str
    overturn: str
    objects: int
    reading: str | None
    skill: Estimate
    ranking_gap: Estimate
    classification_gap: Estimate


def speaking(readings: tuple[Reading, ...]) -> Reading | None:
    """The reading of highest skill among those whose floor leaves room; None where there is none."""
    fit = [r for r in readings if r.skill.value is not None and (r.floor is None or r.floor <= SATURATED)]
    return max(fit, key=lambda r: r.skill.value or 0.0, default=None)


@dataclass(frozen=True)
class _Said:
    word: Word
    sentence: str
    overturn: str
    reason: str = ""


def judge(
    objects: int, reading: Reading | None, ranking: Estimate, classification: Estimate, lead: Estimate
) -> Verdict:
    """Apply the rule.

    Args:
        objects: number of objects judged.
        reading: what :func:`speaking` chose.
        ranking, classification: the two gaps, in skill.
        lead: classification gap less ranking gap, paired.
    """
    if objects < ENOUGH:
        said = _undecided(
            f"too few to tell: {objects} objects, {ENOUGH} needed", f"At least {ENOUGH - objects} more objects."
        )
    elif reading is None:
        said = _undecided("no rung leaves room above its chance floor", "Fewer cells, or more varied boxes.")
    elif reading.skill.interval is None:
        said = _undecided("the figures have no interval", "A bootstrap.")
    else:
        said = _decided(reading, reading.skill.interval, ranking, classification, lead)
    return Verdict(
        said.word,
        said.reason,
        said.sentence,
        said.overturn,
        objects,
        None if reading is None else reading.rung,
        Estimate(None, objects, None) if reading is None else reading.skill,
        ranking,
        classification,
    )


def _undecided(why: str, overturn: str) -> _Said:
    return _Said("undecided", f"Undecided: {why}.", overturn, why)


def _decided(
    reading: Reading, interval: Interval, ranking: Estimate, classification: Estimate, lead: Estimate
) -> _Said:
    figures = f"with the class given, skill at IoU 0.5 is {reading.skill} ({reading.rung}, {reading.skill.n} objects)"
    if interval[1] < POOR:
        return _Said(
            "localisation",
            f"Look at localisation: {figures}, under {POOR:.0%}.",
            f"A skill whose interval reaches {POOR:.0%}, at the object's centre or among the best-scored boxes.",
        )
    if interval[0] <= GOOD:
        why = f"{figures}; its interval lies neither under {POOR:.0%} nor over {GOOD:.0%}"
        return _undecided(why, "More objects, or a figure clear of both lines.")
    gaps = f"the score's ranking loses {ranking}, the class {classification}"
    if max(g.value or 0.0 for g in (ranking, classification)) < WORTH:
        return _undecided(f"{figures}; {gaps}: neither is worth {WORTH:.0%}", "Harder data: here every step works.")
    if lead.interval is None or lead.interval[0] <= 0 <= lead.interval[1]:
        return _undecided(
            f"{figures}; {gaps}: too close to call ({lead})", "More images, until the difference leaves out 0."
        )
    word: Word = "classification" if lead.interval[0] > 0 else "ranking"
    other = "ranking" if word == "classification" else "classification"
    return _Said(
        word,
        f"Look at {word}: {figures}; {gaps}.",
        f"A larger loss by {other}, or a skill whose interval falls under {GOOD:.0%}.",
    )
