"""Which settings to change for a verdict, for our own systems: each a key that exists, with what speaks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boresight.diagnose.diagnosis import Diagnosis
from boresight.diagnose.verdict import Verdict
from boresight.evaluate.estimate import Drawn
from boresight.run.parse import merged, nested, settings_from


@dataclass(frozen=True)
class Remedy:
    """A change of settings.

    Attributes:
        word: the verdict that it is for.
        change: keys and values.
        why: what it does, and what was measured of it where.
    """

    word: str
    change: dict[str, Any]
    why: str


STUDY = "docs/studies/consistency.md"

TEXT: Sequence[Remedy] = (
    Remedy("threshold", {"decode.threshold": 0.001, "decode.operating": "best_f1"}, "nothing is dropped before the "
           "threshold of the best F1 on the validation images is known"),
    Remedy("duplicates", {"decode.nms": 0.5}, "of two boxes of one class that overlap by half one is dropped"),
    Remedy("classification", {"decode.fusion": "learned", "supervise.emitted": True}, "the class is learned together "
           "with the class map, and the loss sees the score that is emitted"),
    Remedy("classification", {"head.learn_queries": True}, "names that the frozen text encoder does not tell apart "
           "get a vector of their own"),
    Remedy("score", {"assign.score": "tal", "assign.rule": "tal"}, f"the score is trained to be how well the box fits; "
           f"{STUDY}"),
    Remedy("score", {"supervise.quality": 0.5}, f"the box's IoU is predicted and multiplied into the score; {STUDY}"),
    Remedy("assignment", {"assign.rule": "tal", "assign.score": "tal"}, f"every object has cells that are trained for "
           f"it, chosen by what will be emitted; {STUDY}"),
    Remedy("assignment", {"supervise.trained_reach": 1.5}, "only cells as near to their box's centre as trained ones "
           "may speak"),
    Remedy("assignment", {"supervise.inside_boxes": True}, "the boxes of all cells in an object are trained"),
    Remedy("background", {"supervise.objectness": True}, "whether any object is here is trained at every cell, and "
           "multiplied into the score"),
    Remedy("background", {"supervise.emitted": True}, "the score that is emitted is trained at every cell, background "
           "included"),
    Remedy("box", {"loss.giou": 4.0}, "boxes weigh more in the loss"),
    Remedy("box", {"head.stride": 4}, "smaller cells place small boxes more finely"),
)  # fmt: skip


POINT: Sequence[Remedy] = (
    Remedy(
        "score",
        {"target.label": "gaussian", "loss.name": "penalty_reduced_focal", "loss.per": "objects"},
        "soft labels and a loss that is divided by objects: docs/studies/labels.md",
    ),
    Remedy(
        "score", {"decode.mirrors": True}, "the mean of four mirrored views ranks more steadily, at four times the work"
    ),
    Remedy("background", {"augment.positive_share": 0.5}, "half of the crops show background alone"),
    Remedy("background", {"augment.noise": 0.05}, "noise that differs at every step is not learned by heart"),
    Remedy(
        "assignment",
        {"target.label": "gaussian", "target.peak": "unit"},
        "the nearest cell of every target is positive, wherever in it the target lies",
    ),
    Remedy("box", {"head.level": "p2"}, "cells of 4 pixels: docs/studies/levels.md"),
    Remedy("box", {"decode.refine": "offset", "loss.offset": 0.5}, "the place in the cell is learned, and weighs more"),
)

REFINE: Sequence[Remedy] = (
    Remedy("box", {"head.dropout": 0.2}, "few images are learned by heart: channels are left out at random"),
    Remedy("box", {"head.pixels": True}, "the edge is in the pixels"),
    Remedy("box", {"head.steps": 3}, "a third look"),
    Remedy("score", {"decode.decide": "confidence"}, "whether the refined box is the better one is learned itself"),
    Remedy("score", {"loss.decision": 1.0}, "the decision weighs more in the loss"),
    Remedy("threshold", {"decode.harm": 0.1}, "a larger share of good boxes may be harmed for the gain of the others"),
    Remedy("threshold", {"coarse.val_copies": 32}, "the confidence is chosen on more boxes, and held back less"),
)

TABLES: dict[str, Sequence[Remedy]] = {"text": TEXT, "localise": TEXT, "point": POINT, "refine": REFINE}


def remedies(settings: Any, diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """:func:`remedies_for` of a diagnosis of cells; gains are of AP50."""
    return remedies_for(settings, diagnosis.verdict, diagnosis.gains.ap50)


def remedies_for(settings: Any, verdict: Verdict, gains: Mapping[str, Drawn]) -> list[dict[str, Any]]:
    """Changes that are not in force yet and are valid settings, those for the verdict first, then for the runner-up.

    ``expected_at_most`` is what the repair would gain if it made that one thing perfectly true: no remedy does more.
    """
    words = ["duplicates" if verdict.repair == "duplicates" else verdict.word, verdict.runner_up]
    now = nested(settings)
    told = []
    for word in words:
        for remedy in (r for r in TABLES[settings.detector] if r.word == word):
            tree = tree_of(remedy.change)
            if _in_force(now, tree):
                continue
            settings_from(type(settings), merged(now, tree), origin="the remedy")
            gain = gains.get(_ORACLE.get(str(word), str(word)))
            told.append(
                {
                    "word": word,
                    "change": remedy.change,
                    "change_text": ", ".join(f"--{k} {_shown(v)}" for k, v in remedy.change.items()),
                    "why": remedy.why,
                    "expected_at_most": None if gain is None else gain.value,
                }
            )
    return told


_ORACLE = {"classification": "class"}


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def tree_of(change: dict[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` to ``{"a": {"b": 1}}``."""
    tree: dict[str, Any] = {}
    for key, value in change.items():
        group, _, name = key.partition(".")
        tree.setdefault(group, {})[name] = value
    return tree


def _in_force(now: dict[str, Any], tree: dict[str, Any]) -> bool:
    return all(now[group][key] == value for group, keys in tree.items() for key, value in keys.items())
