"""Which figures a comparison shows of a system, how they are called and what is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boresight.run.compare import SHARES
from boresight.run.recipes import recipe

IMAGES = "f1_by_seed_and_image"
_CLEAR = "A difference is called clear when its 95 % interval over paired seeds (Student's t) leaves out zero"


@dataclass(frozen=True)
class Figure:
    """A column of the tables: its key in ``comparison.json``, its heading, its digits, and what is better.

    ``drawn``: its differences are drawn as well.
    """

    key: str
    name: str
    digits: int
    higher_is_better: bool
    drawn: bool = True


KNOWN = (
    Figure("f1", "F1", 3, True),
    Figure("f1_at_half", "F1 at 0.5", 3, True, drawn=False),
    Figure("pd_at_0.1_false_alarms_per_frame", "Pd at 0.1 FA/frame", 3, True),
    Figure("rmse", "RMSE, px", 3, False),
    Figure("ap50", "AP50", 3, True),
    Figure("ap", "AP", 3, True, drawn=False),
    Figure("ap50_novel", "AP50, novel", 3, True),
    Figure("classification_accuracy", "Named rightly", 3, True),
    Figure("presence_auc", "Presence AUC", 3, True, drawn=False),
    Figure("mean_iou", "Mean IoU", 3, True),
    Figure("iou_after", "IoU after", 3, True),
    Figure("iou_before", "IoU before", 3, True, drawn=False),
    Figure("iou_all_replaced", "IoU, all replaced", 3, True),
    Figure("improved_share", "Improved", 3, True, drawn=False),
    Figure("harmed_share", "Harmed of > 0.8", 3, False),
)
MONITORS = {"f1": "F1", "ap50": "AP50", "mean_iou": "mean IoU", "iou_after": "IoU after"}
TOO_WIDE = ("pd_at_1_false_alarms_per_frame",)
"""In ``comparison.json`` alone: the table has no room for them."""


@dataclass(frozen=True)
class Columns:
    """The columns of one system.

    Attributes:
        figures: its own in the order of its recipe, the leading one first; then the steps to shares of the monitor.
        monitor: the key of the figure that validation follows in training.
        monitor_name: how it is called.
    """

    figures: tuple[Figure, ...]
    monitor: str
    monitor_name: str

    @classmethod
    def of(cls, comparison: Mapping[str, Any]) -> Columns:
        """The columns of a comparison; one without ``detector`` is of points, the only system when it was written.

        Raises UserError for a system that is not known.
        """
        kind = recipe(comparison.get("detector", "point"))
        known = {f.key: f for f in KNOWN}
        own = [known.get(k) or _plain(k) for k in kind.figures if k not in TOO_WIDE]
        name = MONITORS.get(kind.monitor, kind.monitor.replace("_", " "))
        last = SHARES[-1]
        steps = [
            Figure(f"steps_to_{s:g}_of_final_{kind.monitor}", f"Steps to {s:g} of final {name}", 0, False, s == last)
            for s in SHARES
        ]
        return cls((*own, *steps), kind.monitor, name)

    @property
    def headings(self) -> list[str]:
        """Of the table of means."""
        return ["Variant", *(f.name for f in self.figures)]

    @property
    def difference_headings(self) -> list[str]:
        """Of the table of differences: F1 stands there twice, over seeds and over seeds and images."""
        names: list[str] = []
        for f in self.figures:
            names += [f.name, "F1, over seeds and images"] if f.key == "f1" else [f.name]
        return ["Variant", *names]

    @property
    def rule(self) -> str:
        """When a difference is called clear."""
        if not any(f.key == "f1" for f in self.figures):
            return f"{_CLEAR}."
        return f"{_CLEAR}; for F1 the bootstrap interval over seeds and images must leave it out as well."


def _plain(key: str) -> Figure:
    """A figure that has no words of its own yet: larger is taken to be better."""
    return Figure(key, key.replace("_", " "), 3, True)
