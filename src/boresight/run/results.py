"""Detections as plain rows, and figures as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from boresight.core.convert import to_coco
from boresight.core.found import Found
from boresight.run.record import coco_results

if TYPE_CHECKING:
    from boresight.core.types import Detections


def detection_rows(
    names: Sequence[str],
    found: Sequence[Detections | Found],
    threshold: float,
    *,
    image_ids: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """A plain row for every detection of at least ``threshold``: image, class, place (pixel frame) and score."""
    rows = []
    for i, (name, detections) in enumerate(zip(names, found, strict=True)):
        for (x, y), score, label in zip(
            detections.xy.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
        ):
            if score >= threshold:
                image_id = image_ids[i] if image_ids else i + 1
                rows.append({"image": name, "image_id": image_id, "category_id": label, "x": x, "y": y, "score": score})
    return rows


def point_results(rows: Sequence[dict[str, Any]], side: float = 3.0) -> list[dict[str, Any]]:
    """COCO results of point rows: ``image_id, category_id, bbox, score`` and ``point``, categories counted from 1."""
    return coco_results(({**row, "category_id": row["category_id"] + 1} for row in rows), side)


def box_results(
    image_ids: Sequence[int], found: Sequence[Detections | Found], threshold: float, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """COCO results of boxes: ``image_id, category_id, bbox [x, y, width, height], score, cell``.

    ``category_ids`` gives the id of every label.
    """
    every: Sequence[Any] = found  # tensors or arrays: they are selected alike
    kept = (d.select(d.scores >= threshold) for d in every)
    return [
        row
        for image_id, d in zip(image_ids, kept, strict=True)
        for row in to_coco(d, image_id, category_ids, digits=(3, 6))
    ]


def shown(figures: dict[str, Any], key: str) -> str:
    """A figure with its interval, for a person."""
    value, interval = figures[key], figures.get("intervals", {}).get(key)
    span = f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return "undefined" if value is None else f"{value:.3f}{span}"
