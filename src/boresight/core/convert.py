"""Detections in the forms of other libraries, and back: supervision, torchvision's dicts, COCO.

Boxes stay xyxy in pixels of the original image; COCO's are ``[x, y, width, height]``. The cell that emitted a detection
goes along where the other side can hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from boresight.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from boresight.core.found import Found
    from boresight.core.types import Detections


def to_supervision(found: Detections, classes: Sequence[str] = ()) -> Any:
    """As ``supervision.Detections``; ``data`` holds ``cell`` and, where ``classes`` are given, ``class_name``.

    Raises UserError where supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise UserError("supervision is not installed: pip install 'boresight[supervision]'") from error
    import numpy as np

    labels = found.labels.cpu().numpy().astype(int)
    data: dict[str, Any] = {"cell": found.cell.cpu().numpy()}
    if classes:
        data["class_name"] = np.array([classes[k] for k in labels], dtype=str)
    return supervision.Detections(
        xyxy=found.boxes.detach().cpu().numpy().astype(np.float32).reshape(-1, 4),
        confidence=found.scores.detach().cpu().numpy().astype(np.float32),
        class_id=labels,
        data=data,
    )


def from_supervision(other: Any) -> Detections:
    """From ``supervision.Detections``, in its order: a confidence that it lacks is 1, a class 0, a cell -1."""
    import torch

    from boresight.core.types import Detections

    boxes = torch.as_tensor(other.xyxy, dtype=torch.float32).reshape(-1, 4)
    n = len(boxes)
    scores = torch.ones(n) if other.confidence is None else torch.as_tensor(other.confidence, dtype=torch.float32)
    labels = other.class_id
    cell = other.data.get("cell") if n else None
    return Detections(boxes, scores, _integers(labels, n, 0), _integers(cell, n, -1))


def to_torchvision(found: Detections) -> dict[str, Tensor]:
    """As torchvision's detectors give it: ``boxes``, ``scores``, ``labels``; and ``cell``, which it passes over."""
    return {"boxes": found.boxes, "scores": found.scores, "labels": found.labels, "cell": found.cell}


def from_torchvision(other: Mapping[str, Tensor]) -> Detections:
    """From such a dict, in its order. Raises KeyError for a name that is missing.

    torchvision's own models count the background as label 0; what their labels stand for is the caller's to know.
    """
    from boresight.core.types import Detections

    boxes, labels = other["boxes"].reshape(-1, 4), other["labels"].long()
    cell = other["cell"].long() if "cell" in other else labels.new_full((len(boxes),), -1)
    return Detections(boxes, other["scores"], labels, cell)


def to_coco(
    found: Detections | Found, image_id: int, category_ids: Sequence[int], *, digits: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """COCO results of one image: ``image_id, category_id, bbox, score`` and, beyond COCO, ``cell``.

    Args:
        found: detections; also as arrays.
        image_id: of the image.
        category_ids: the id of every label.
        digits: decimals of coordinates and of scores; None: all.
    """
    columns = (found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.cell.tolist())
    rows = []
    for (x0, y0, x1, y1), score, label, cell in zip(*columns, strict=True):
        box = [x0, y0, x1 - x0, y1 - y0]
        if digits is not None:
            box, score = [round(v, digits[0]) for v in box], round(score, digits[1])
        about = {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        rows.append(about | {"cell": cell})
    return rows


def from_coco(rows: Iterable[Mapping[str, Any]], category_ids: Sequence[int]) -> dict[int, Detections]:
    """Detections of each image of COCO results, best first; those of equal score in their order.

    Raises UserError that names the entry for one that lacks a number or has a category that is not in ``category_ids``.
    """
    import torch

    from boresight.core.types import Detections

    place = {category: k for k, category in enumerate(category_ids)}
    images: dict[int, list[tuple[list[float], float, int, int]]] = {}
    for number, row in enumerate(rows):
        try:
            x, y, width, height = (float(v) for v in row["bbox"])
            image, score, label = int(row["image_id"]), float(row["score"]), place[row["category_id"]]
            cell = int(row.get("cell", -1))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            wanted = "image_id, category_id (a known one), bbox [x, y, width, height] and score"
            raise UserError(f"COCO results: entry {number} lacks a number ({error!r}): it needs {wanted}") from error
        images.setdefault(image, []).append(([x, y, x + width, y + height], score, label, cell))
    made = {}
    for image, entries in images.items():
        boxes, scores, labels, cells = zip(*sorted(entries, key=lambda e: -e[1]), strict=True)
        made[image] = Detections(
            torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), torch.tensor(cells, dtype=torch.long)
        )
    return made


def coco_dataset(
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    found: Sequence[Detections | Found | None],
    classes: Sequence[str],
) -> dict[str, Any]:
    """A whole COCO data set whose annotations are detections, for tools that read no results (CVAT, FiftyOne).

    Args:
        names: file name of each image; ids count from 1.
        sizes: ``(height, width)`` of each in pixels.
        found: what was found in each, None for nothing; ``score`` and ``cell`` are further keys of its annotations.
        classes: names; category ids count from 1.
    """
    images: list[dict[str, Any]] = [
        {"id": i, "file_name": name, "height": h, "width": w}
        for i, (name, (h, w)) in enumerate(zip(names, sizes, strict=True), start=1)
    ]
    rows = [
        row
        for image, one in zip(images, found, strict=True)
        if one is not None
        for row in to_coco(one, image["id"], range(1, len(classes) + 1))
    ]
    annotations = [
        {"id": i, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row} for i, row in enumerate(rows, start=1)
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _integers(values: Any, count: int, default: int) -> Tensor:
    import torch

    if values is None:
        return torch.full((count,), default, dtype=torch.long)
    return torch.as_tensor(values).long().reshape(count)
