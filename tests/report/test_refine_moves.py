"""Pictures of moves: which boxes are chosen, in which order, what is drawn and what is written below."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boresight.core.types import Scene
from boresight.report.refine_moves import CROPS, KINDS, SIDES, caption, gallery, move_picture

GAINS, HARM, KEPT = KINDS
SCENE = Scene(
    torch.zeros(3, 64, 64),
    "s0",
    0,
    boxes=torch.tensor([[10.0, 10.0, 30.0, 30.0], [40.0, 40.0, 60.0, 60.0]]),
    labels=torch.tensor([0, 0]),
)
BOXES = {"coarse": (12.0, 12.0, 34.0, 32.0), "moved": (10.0, 11.0, 31.0, 30.0)}


class Two:
    """One scene twice, under the names ``s0`` and ``s1``; counts how often it is read."""

    names = ("s0", "s1")

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Scene:
        self.read += 1
        return SCENE


def row(before: float, moved: float, *, replaced: bool = True, **more: Any) -> dict[str, Any]:
    """A box of the first object, as ``matches.parquet`` has it."""
    told = {"image": "s0", "class": "ship", "object": 0, "replaced": replaced, "confidence": 0.75}
    told |= {"iou_before": before, "iou_moved": moved, "iou_after": moved if replaced else before}
    told |= {"expected_before": 0.5, "expected_moved": 0.5}
    ends = BOXES | {"refined": BOXES["moved" if replaced else "coarse"]}
    for kind, box in ends.items():
        told |= {f"{kind}_{side}": v for side, v in zip(SIDES, box, strict=True)}
    return told | more


ROWS = [
    row(0.5, 0.6),
    row(0.2, 0.9),
    row(0.9, 0.8),
    row(0.9, 0.4),
    row(0.3, 0.7, replaced=False),
    row(0.3, 0.8, replaced=False),
    row(0.8, 0.2, replaced=False),
    row(0.7, 0.7),
]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (GAINS, ["IoU 0.20 → 0.90", "IoU 0.50 → 0.60"]),
        (HARM, ["IoU 0.90 → 0.40", "IoU 0.90 → 0.80"]),
        (KEPT, ["kept at 0.30, not 0.80", "kept at 0.30, not 0.70"]),
    ],
    ids=lambda v: getattr(v, "title", ""),
)
def test_each_gallery_has_its_own_boxes_the_furthest_first(kind, told):
    found = gallery(ROWS, Two(), kind)
    assert [p.caption[1] for p in found.pictures] == told
    assert found.note == "2 of 2 shown."


def test_a_change_by_rounding_is_none():
    assert gallery([row(0.5, 0.5 + 1e-9)], Two(), GAINS).note == "None."


def test_the_box_that_was_emitted_is_drawn_over_the_coarse_one_and_the_truth():
    marks = {m.kind: m.box for m in move_picture(SCENE, row(0.5, 0.7)).marks}
    assert marks == {"truth": (10.0, 10.0, 30.0, 30.0), "coarse": BOXES["coarse"], "refined": BOXES["moved"]}
    assert list(marks) == ["truth", "coarse", "refined"]


def test_a_box_that_was_kept_shows_where_it_would_have_gone_in_another_look():
    picture = move_picture(SCENE, row(0.5, 0.7, replaced=False))
    assert {m.kind: m.box for m in picture.marks}["offered"] == BOXES["moved"]
    assert "refined" not in {m.kind for m in picture.marks}
    assert picture.marks[-1].text == "after, had it been replaced"


def test_a_caption_says_how_sure_the_refiner_is_only_where_it_knows():
    assert caption(SCENE, row(0.5, 0.7)) == ("ship", "IoU 0.50 → 0.70", "sure 0.75", "s0")
    assert caption(SCENE, row(0.5, 0.7, expected_moved=None)) == ("ship", "IoU 0.50 → 0.70", "s0")


def test_a_gallery_has_an_end_and_reads_no_more_images_than_it_shows():
    frames = Two()
    found = gallery([row(0.1, 0.2)] * (CROPS + 3), frames, GAINS)
    assert (len(found.pictures), found.note, frames.read) == (CROPS, f"{CROPS} of {CROPS + 3} shown.", CROPS)


def test_boxes_whose_image_or_object_is_gone_are_said_to_be():
    rows = [row(0.1, 0.9, image="gone"), row(0.1, 0.8, object=2), row(0.1, 0.7, object=1)]
    found = gallery(rows, Two(), GAINS)
    assert [p.caption[1] for p in found.pictures] == ["IoU 0.10 → 0.70"]
    assert found.note == "1 of 3 shown; 2 passed over, whose image or object is not in this data set any more."
