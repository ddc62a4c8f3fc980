"""Pictures of a report: frames with truth and detections, crops of errors, and what labels look like.

A picture is a small grey PNG at its own resolution (the page enlarges it without smoothing) and marks in its pixel
frame that the page draws over it, so that marks stay sharp at any size.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boresight.core.types import DenseTargets, Points, Scene
from boresight.report.chosen import by_image
from boresight.run.config import PointSettings, TargetSettings
from boresight.run.point import label_kernel, label_schedule
from boresight.run.recipe import Frames
from boresight.targets.gaussian import coarser_targets, point_targets
from boresight.targets.schedule import TRUNCATION

CROP = 64
ZOOM = 32
LEVELS = 32
"""Grey levels of a picture: more would store noise that no eye tells apart."""
LABEL_CELLS = 9
LABEL_PLACE = (4.3, 3.8)
"""Where the target of the label pictures lies, in cells: off every centre, as real targets are."""


@dataclass(frozen=True)
class Mark:
    """A mark at ``(x, y)`` of a picture, in its pixels; ``kind`` decides colour and shape."""

    kind: str
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Picture:
    """A picture and its marks.

    Attributes:
        data: the PNG as a data URI.
        width, height: its pixels.
        marks: drawn over it.
        caption: below it.
        label: for those who cannot see it.
    """

    data: str
    width: int
    height: int
    marks: tuple[Mark, ...] = ()
    caption: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class FrameView:
    """One frame as one run sees it: the whole, and crops ``(left, top)`` of ``ZOOM`` pixels around its targets."""

    key: str
    name: str
    run: str
    width: int
    height: int
    marks: tuple[Mark, ...]
    crops: tuple[tuple[float, float], ...]
    counts: str


@dataclass(frozen=True)
class LabelMap:
    """The label of one target at one moment: ``cells`` are ``(column, row, value)``, ``place`` is the true one."""

    moment: str
    text: str
    cells: tuple[tuple[int, int, float], ...]
    place: tuple[float, float] = LABEL_PLACE


def png(grey: NDArray[np.floating]) -> str:
    """Values in [0, 1], ``[H, W]``, as a grey PNG of ``LEVELS`` levels in a data URI."""
    levels = np.round(np.clip(grey, 0, 1) * (LEVELS - 1)).astype(np.uint8)
    picture = Image.fromarray(levels).convert("P")
    shades = np.linspace(0, 255, LEVELS).round().astype(np.uint8)
    picture.putpalette(np.repeat(shades, 3).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True, bits=5)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def stretched(image: NDArray[np.floating], low: float = 0.5, high: float = 99.9) -> NDArray[np.float64]:
    """An image scaled so that its ``low`` and ``high`` percentiles become 0 and 1; a constant one becomes 0."""
    bottom, top = np.percentile(image, [low, high])
    if not top > bottom:
        return np.zeros(image.shape)
    return np.asarray(np.clip((image - bottom) / (top - bottom), 0, 1), dtype=np.float64)


def window(x: float, y: float, side: int, width: int, height: int) -> tuple[int, int]:
    """``(left, top)`` of a square of ``side`` pixels around a place, moved so that it lies inside the image."""
    left, top = (int(np.floor(v)) - side // 2 for v in (x, y))
    return max(0, min(left, width - side)), max(0, min(top, height - side))


def _grey(scene: Scene) -> NDArray[np.floating]:
    return np.asarray(scene.image.float().mean(0).numpy())


def described(row: Mapping[str, Any]) -> str:
    """A match in words: what it is, its score, its SNR."""
    parts = [str(row["kind"]).replace("_", " ")]
    if row.get("score") is not None:
        parts.append(f"score {row['score']:.3f}")
    if row.get("snr") is not None:
        parts.append(f"SNR {row['snr']:.1f}")
    return ", ".join(parts)


def _match_marks(rows: Sequence[Mapping[str, Any]]) -> list[Mark]:
    return [Mark(r["kind"], r["x"], r["y"], described(r)) for r in rows]


def _truth_marks(points: Points | None) -> list[Mark]:
    if points is None:
        return []
    snr = [None] * len(points) if points.snr is None else points.snr.tolist()
    marks = []
    for (x, y), dim, s in zip(points.xy.tolist(), points.ignore.tolist(), snr, strict=True):
        words = ("don't-care target" if dim else "target") + ("" if s is None else f", SNR {s:.1f}")
        marks.append(Mark("dont_care" if dim else "truth", x, y, words))
    return marks


_COUNTED = (("hit", "hit"), ("missed", "missed"), ("false_alarm", "false alarm"), ("duplicate", "duplicate"))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 or word == "missed" else "s")


def frame_views(scene: Scene, key: str, runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[FrameView]:
    """One view a run, ``(name, its matches in this frame)``."""
    height, width = scene.size
    truth = _truth_marks(scene.points)
    places = [(m.x, m.y) for m in truth][:5]
    views = []
    for name, rows in runs:
        kinds = [r["kind"] for r in rows]
        counts = ", ".join(_counted(kinds.count(k), words) for k, words in _COUNTED if k in kinds) or "nothing found"
        odd = [(r["x"], r["y"]) for r in rows if r["kind"] in ("false_alarm", "duplicate")]
        around = [*places, *odd][:6] if min(height, width) > 2 * ZOOM else []
        crops = tuple(window(x, y, ZOOM, width, height) for x, y in around)
        views.append(FrameView(key, scene.name, name, width, height, (*truth, *_match_marks(rows)), crops, counts))
    return views


def whole_frame(scene: Scene) -> Picture:
    """The frame alone, contrast stretched."""
    height, width = scene.size
    return Picture(png(stretched(_grey(scene))), width, height, label=f"frame {scene.name}")


def error_rows(rows: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """The errors of a kind, worst first: missed targets by falling SNR, false alarms by falling score."""
    if kind == "missed":
        return sorted((r for r in rows if r["kind"] == "missed"), key=lambda r: -(r.get("snr") or 0.0))
    return sorted(
        (r for r in rows if r["kind"] in ("false_alarm", "duplicate")), key=lambda r: -(r.get("score") or 0.0)
    )


def crop_picture(scene: Scene, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Picture:
    """``CROP`` pixels around an error, its own contrast, with everything known of them marked."""
    height, width = scene.size
    side = min(CROP, height, width)
    left, top = window(row["x"], row["y"], side, width, height)
    cut = _grey(scene)[top : top + side, left : left + side]
    marks = [
        Mark(m.kind, m.x - left, m.y - top, m.text)
        for m in (*_truth_marks(scene.points), *_match_marks(rows))
        if left <= m.x <= left + side and top <= m.y <= top + side
    ]
    place = f"x {row['x']:.1f}, y {row['y']:.1f}"
    caption = (str(row["image"]), described(row), place)
    return Picture(png(stretched(cut, 1, 99.95)), side, side, tuple(marks), caption, ", ".join(caption))


def gallery(
    rows: Sequence[Mapping[str, Any]], frames: Frames, kind: str, limit: int = 12
) -> tuple[list[Picture], int, int]:
    """Pictures of the worst errors of a kind, how many there are in all, and how many of those are in no frame here."""
    index = {name: i for i, name in enumerate(frames.names)}
    wanted, groups = error_rows(rows, kind), by_image(rows)
    here = [r for r in wanted if r["image"] in index]
    pictures = [crop_picture(frames[index[r["image"]]], r, groups[r["image"]]) for r in here[:limit]]
    return pictures, len(wanted), len(wanted) - len(here)


def moments(target: TargetSettings) -> list[tuple[float, str]]:
    """The moments of the schedule worth a picture, as (progress, words)."""
    ramp = target.class_weight[0] != target.class_weight[1]
    if target.schedule == "steps" and target.label == "gaussian":
        edges = [0.0, *target.breaks, 1.0]
        return [(a, f"{a:.0%} to {b:.0%} of training") for a, b in pairwise(edges)]
    if (target.schedule == "fixed" or target.label != "gaussian") and not ramp:
        return [(0.0, "all of training")]
    return [(p, words) for p, words in ((0.0, "start"), (0.5, "half of training"), (1.0, "end"))]


def _labelled(
    points: Points, target: TargetSettings, progress: float, rows: int, columns: int, stride: float
) -> DenseTargets:
    sigma = label_schedule(target)(progress).sigma
    return point_targets(
        [points],
        classes=1,
        rows=rows,
        columns=columns,
        stride=stride,
        kernel=label_kernel(target)(sigma),
        reach=int(TRUNCATION * sigma + 0.5) + 1,
        offset_reach=target.offset_reach,
    )


def label_maps(target: TargetSettings) -> list[LabelMap]:
    """What the label of one target looks like at the moments of its schedule, made by the run's own code."""
    u, v = LABEL_PLACE
    maps = []
    for progress, words in moments(target):
        now = label_schedule(target)(progress)
        score = _labelled(Points.of([[u + 0.5, v + 0.5]]), target, progress, LABEL_CELLS, LABEL_CELLS, 1.0).score[0, 0]
        cells = tuple(
            (c, r, float(score[r, c])) for r in range(LABEL_CELLS) for c in range(LABEL_CELLS) if score[r, c] > 0
        )
        shape = (
            f"σ {now.sigma:.3g} cells, window {now.window}" if target.label == "gaussian" else f"{target.label} label"
        )
        text = f"{shape}, positive weight {now.weight:.3g}, sum {float(score.sum()):.2f}"
        maps.append(LabelMap(words, text, cells))
    return maps


def level_maps(settings: PointSettings, scene: Scene, side: int = 128) -> list[Picture]:
    """A crop of a frame around its first target, and the label of the detecting and every coarser level there."""
    assert scene.points is not None
    height, width = scene.size
    side = min(side, height // 16 * 16, width // 16 * 16)
    known = scene.points.select(~scene.points.ignore)
    x, y = known.xy[0].tolist()
    left, top = (v // 16 * 16 for v in window(x, y, side, width, height))
    marks = tuple(
        Mark("place", px - left, py - top, "true place")
        for px, py in known.xy.tolist()
        if left <= px < left + side and top <= py < top + side
    )
    cut = _grey(scene)[top : top + side, left : left + side]
    pictures = [
        Picture(png(stretched(cut, 1, 99.9)), side, side, marks, ("frame", f"{side}x{side} pixels"), "part of a frame")
    ]
    finest = int(settings.head.level[1:])
    stride = 2**finest
    one_class = Points.of(known.xy)
    fine = _labelled(
        one_class, settings.target, 0.0, -(-height // 16) * 16 // stride, -(-width // 16) * 16 // stride, stride
    )
    for level in range(finest, 5):
        step = 2**level
        score = fine.score if level == finest else coarser_targets(fine, step // stride).score
        part = score[0, 0, top // step : (top + side) // step, left // step : (left + side) // step].numpy()
        role = "emits detections" if level == finest else _role(settings, level)
        caption = (f"P{level}, stride {step}", role)
        pictures.append(Picture(png(part), side, side, marks, caption, f"label at stride {step}"))
    return pictures


def _role(settings: PointSettings, level: int) -> str:
    name, head = f"p{level}", settings.head
    if head.mode != "single" and head.coarse == name:
        return "proposes" if head.mode == "coarse_to_fine" else "fused in"
    return "learned as well" if name in head.auxiliary else "for comparison: not learned"
