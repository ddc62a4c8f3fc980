"""Every point of a run at every threshold, for the image browser: from what ``evaluate`` and ``diagnose`` wrote.

The matcher of points is optimal and not greedy: at a lower threshold a target may go to another detection. A mark
therefore carries what it becomes at each threshold at which it changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from boresight.core.types import Detections, Points
from boresight.evaluate.rows import DetectionRow, match_table
from boresight.report.image_set import (
    ImageSet,
    Mark,
    agreed,
    bare,
    bucket_number,
    displacement_by_image,
    regret_by_image,
)
from boresight.report.judged import Opened, lost, of_same_images, run_sets, stored_threshold
from boresight.report.live import live_points
from boresight.report.reading import FrameStore, RunData
from boresight.run.config import PointSettings

Row = Mapping[str, Any]
Place = tuple[str, float, float]
State = tuple[float, str, int, float | None]


def point_sets(run: RunData, store: FrameStore) -> tuple[list[ImageSet], list[str]]:
    """The frames of a run of `point`, and notes."""
    if not isinstance(run.settings, PointSettings):
        return [], []  # the page says already that the settings cannot be read
    return run_sets(run, store, _of_evaluation, _of_diagnosis)


def _of_evaluation(run: RunData, opened: Opened) -> ImageSet:
    rows: dict[int, list[Row]] = {}
    for row in run.predictions or ():
        rows.setdefault(row["image_id"], []).append(row)
    found = [_detections(rows.get(opened.frames[i].image_id, ())) for i in range(opened.count)]
    emissions, objects = of_same_images(run)
    made = _made(run, opened, found, emissions)
    told = run.evaluation or {}
    stored = {key: told[key] for key in ("tp", "fp", "fn")} if "tp" in told else None
    return replace(
        made, stored=stored, regret=regret_by_image(objects), notes=agreed(made.table, made.threshold, stored)
    )


def _of_diagnosis(run: RunData, opened: Opened) -> ImageSet:
    label = {name: k for k, name in enumerate(opened.classes)}
    rows: dict[str, list[Row]] = {}
    for r in run.emissions:
        if r["class"] in label:
            result = {"point": _centre(r), "score": r["score"], "category_id": label[r["class"]] + 1}
            rows.setdefault(r["image"], []).append(result)
    found = [_detections(rows.get(name, ())) for name in opened.frames.names[: opened.count]]
    return replace(_made(run, opened, found, run.emissions), regret=regret_by_image(run.objects))


def _detections(rows: Sequence[Row]) -> Detections:
    """Of COCO results with their points."""
    xy = torch.tensor([r["point"] for r in rows], dtype=torch.float32).reshape(-1, 2)
    scores = torch.tensor([r["score"] for r in rows], dtype=torch.float32)
    return Detections.at(xy, scores, torch.tensor([r["category_id"] - 1 for r in rows], dtype=torch.long))


def _centre(row: Row) -> tuple[float, float]:
    return (row["x0"] + row["x1"]) / 2, (row["y0"] + row["y1"]) / 2


def _place(image: str, xy: Sequence[float]) -> Place:
    """A key that survives the way from a box to its centre and back."""
    return image, round(float(xy[0]), 2), round(float(xy[1]), 2)


def _made(run: RunData, opened: Opened, found: Sequence[Detections], emissions: Sequence[Row]) -> ImageSet:
    """Match everything; ``emissions`` is what a diagnosis says of these frames."""
    assert isinstance(run.settings, PointSettings)
    tolerance = float((run.evaluation or {}).get("tolerance", run.settings.decode.tolerance))
    threshold = stored_threshold(run)
    scenes = bare(opened.frames, len(found))
    truth = [Points.of([]) if s.points is None else s.points for s in scenes]
    told = {_place(r["image"], _centre(r)): r for r in emissions}
    marks = {
        scene.name: _marks(scene.name, points, own, tolerance, told)
        for scene, points, own in zip(scenes, truth, found, strict=True)
        if len(own)
    }
    return ImageSet(
        run,
        opened.split,
        "points",
        threshold,
        opened.classes,
        opened.frames,
        [s.name for s in scenes],
        live_points(truth, found, len(opened.classes), threshold, tolerance),
        marks,
        {s.name: int((~p.ignore).sum()) for s, p in zip(scenes, truth, strict=True)},
        displacement=displacement_by_image(marks),
    )


def _marks(name: str, points: Points, found: Detections, tolerance: float, told: Mapping[Place, Row]) -> list[Mark]:
    places, scores, labels = found.xy.tolist(), found.scores.tolist(), found.labels.tolist()
    marks = []
    for (x, y), score, label, states in zip(places, scores, labels, states_of(points, found, tolerance), strict=True):
        more = told.get(_place(name, (x, y)), {})
        _, kind, number, fit = states[0]
        bucket = bucket_number(more.get("bucket"))
        marks.append(Mark((x, y, x, y), score, label, kind, fit, number, bucket, lost(more), tuple(states[1:])))
    return marks


def states_of(points: Points, found: Detections, tolerance: float) -> list[list[State]]:
    """What each detection of a frame is, as the threshold falls: ``(score, kind, object, fit)`` from that score down.

    The first state is that at the detection's own score. The fit is the closeness ``1 - distance / (2 tolerance)`` to
    the object that it stands for, None without.
    """
    alone: list[State] = [(s, "false_alarm", -1, None) for s in found.scores.tolist()]
    states = [[state] for state in alone]
    near = np.flatnonzero(_near(points, found, tolerance))
    if not len(near):
        return states
    few = found.select(torch.from_numpy(near))
    for number in near.tolist():
        states[number] = []
    for level in np.unique(few.scores.numpy())[::-1]:
        passed = near[few.scores.numpy() >= level]
        rows, _ = match_table([points], [few], threshold=float(level), tolerance=tolerance)
        for number, row in zip(passed.tolist(), rows, strict=True):
            now = _state(float(level), row, tolerance)
            if not states[number] or states[number][-1][1:] != now[1:]:
                states[number].append(now)
    return states


def _near(points: Points, found: Detections, tolerance: float) -> np.ndarray:
    """Detections that some target could claim or excuse; all others are false alarms at any threshold."""
    if not len(points) or not len(found):
        return np.zeros(len(found), bool)
    away, _ = cKDTree(points.xy.double().numpy()).query(found.xy.double().numpy())
    return np.asarray(away <= tolerance * (1 + 1e-6))


def _state(level: float, row: DetectionRow, tolerance: float) -> State:
    fit = None if row.distance is None else 1 - row.distance / (2 * tolerance)
    return level, row.kind, row.object, fit
