"""Pictures of what a refiner did to single boxes: the largest gains, the worst harm, and moves that it held back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from boresight.core.types import Scene
from boresight.evaluate.refinement import CHANGED
from boresight.report.box_pictures import BoxPicture
from boresight.report.moved import LEGEND as MOVED
from boresight.report.moved import moved_picture
from boresight.report.reading import FrameStore, RunData
from boresight.run.recipe import Frames

CROPS = 12
LEGEND = (*MOVED, ("offered", "after, had it been replaced"))
SIDES = ("x0", "y0", "x1", "y1")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """Moves of one kind: those that gain more than rounding, the largest gain first."""

    title: str
    gain: Callable[[Row], float]
    belongs: Callable[[Row], bool] = lambda row: True


@dataclass(frozen=True)
class Gallery:
    """Moves of one kind; ``note`` says how many there are."""

    title: str
    note: str
    pictures: list[BoxPicture]


KINDS = (
    Kind("Largest gains", lambda r: r["iou_after"] - r["iou_before"]),
    Kind("Worst harm", lambda r: r["iou_before"] - r["iou_after"]),
    Kind(
        "Kept, and would have gained most",
        lambda r: r["iou_moved"] - r["iou_before"],
        lambda r: not r["replaced"],
    ),
)


def galleries(run: RunData, store: FrameStore) -> tuple[str, list[Gallery]]:
    """A sentence where nothing can be shown, and the galleries of a run."""
    frames = store.frames(run)
    if not run.matches:
        return "No boxes are written: evaluate the run first.", []
    if isinstance(frames, str):
        return frames, []
    rows = [r for r in run.matches if r["object"] >= 0]
    note = "" if rows else "No coarse box stands for an object, so none can be shown."
    return note, [gallery(rows, frames, kind) for kind in KINDS] if rows else []


def gallery(rows: Sequence[Row], frames: Frames, kind: Kind) -> Gallery:
    """The moves of a kind that go furthest, and how many there are."""
    index = {name: i for i, name in enumerate(frames.names)}
    own = sorted((r for r in rows if kind.belongs(r) and kind.gain(r) > CHANGED), key=lambda r: -kind.gain(r))
    pictures: list[BoxPicture] = []
    gone = 0
    for row in own:
        if len(pictures) == CROPS:
            break
        scene = frames[index[row["image"]]] if row["image"] in index else None
        if scene is None or scene.boxes is None or row["object"] >= len(scene.boxes):
            gone += 1
            continue
        pictures.append(move_picture(scene, row))
    note = f"{len(pictures)} of {len(own)} shown" if own else "None"
    if gone:
        note += f"; {gone} passed over, whose image or object is not in this data set any more"
    return Gallery(kind.title, f"{note}.", pictures)


def move_picture(scene: Scene, row: Row) -> BoxPicture:
    """A box before and after with its truth; of a box that was kept, where it would have gone."""
    kept = not row["replaced"]
    coarse, after = ([row[f"{k}_{side}"] for side in SIDES] for k in ("coarse", "moved" if kept else "refined"))
    assert scene.boxes is not None
    truth = scene.boxes[int(row["object"])].tolist()
    picture = moved_picture(scene, coarse, after, caption(scene, row), truth)
    if not kept:
        return picture
    offered = replace(picture.marks[-1], kind="offered", name="would be", text="after, had it been replaced")
    return replace(picture, marks=(*picture.marks[:-1], offered))


def caption(scene: Scene, row: Row) -> tuple[str, ...]:
    """Class, IoU before and after, how sure the refiner is where it says so, and the image."""
    before, moved = row["iou_before"], row["iou_moved"]
    told = f"IoU {before:.2f} → {row['iou_after']:.2f}" if row["replaced"] else f"kept at {before:.2f}, not {moved:.2f}"
    sure = [] if row["expected_moved"] is None else [f"sure {row['confidence']:.2f}"]
    return (str(row["class"]), told, *sure, scene.name)
