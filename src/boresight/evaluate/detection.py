"""How good box detections are: the twelve figures of COCO, by class, and what classification alone loses.

The figures come from ``hotcoco``. An undefined one (no truth of that kind) is None, never -1 and never 0.

Classes that are not exhaustively labelled in an image (``Scene.exhaustive``) are judged by the federated rule: an
unmatched detection of such a class is no false alarm there. Two devices do it inside COCO's own rules. Where the image
has no truth of the class, its detections are taken out before the evaluation. Where it has some, the truth gets one
crowd region of the class that covers everything: a detection takes a real object if it can and is excused if not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.core.errors import did_you_mean
from boresight.core.types import Detections, Scene
from boresight.evaluate.box_match import Overlaps, overlaps
from boresight.evaluate.box_set import BoxSet, as_numpy, crowd_of, open_of, truth_of
from boresight.evaluate.pairs import Floats

# Pixels. A region that holds every box of every image.
EVERYWHERE = 1e6
# The order in which pycocotools and hotcoco summarise: (name, precision or recall, IoU, area, detections an image).
SUMMARY = (
    ("ap", "precision", None, 0, 2),
    ("ap50", "precision", 0.5, 0, 2),
    ("ap75", "precision", 0.75, 0, 2),
    ("ap_small", "precision", None, 1, 2),
    ("ap_medium", "precision", None, 2, 2),
    ("ap_large", "precision", None, 3, 2),
    ("ar_1", "recall", None, 0, 0),
    ("ar_10", "recall", None, 0, 1),
    ("ar_100", "recall", None, 0, 2),
    ("ar_small", "recall", None, 1, 2),
    ("ar_medium", "recall", None, 2, 2),
    ("ar_large", "recall", None, 3, 2),
)


@dataclass(frozen=True)
class ClassFigures:
    """AP of one class over IoU .50:.95 and at .50; ``n`` truths that count. None without truth."""

    name: str
    n: int
    ap: float | None
    ap50: float | None


@dataclass(frozen=True)
class CocoFigures:
    """COCO's twelve figures, in [0, 1] or None: AP by IoU and area, AR by detections an image (1, 10, 100) and area.

    Areas are pixels of the scene: small up to 32², medium up to 96², large beyond.
    """

    images: int
    truths: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    per_class: tuple[ClassFigures, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures by name; ``per_class`` maps the class to its own."""
        plain = {k: v for k, v in asdict(self).items() if k != "per_class"}
        own = {c.name: {"n": c.n, "ap": c.ap, "ap50": c.ap50} for c in self.per_class}
        return plain | {"per_class": own}


def coco_dataset(truth: Sequence[Scene], classes: Sequence[str]) -> dict[str, Any]:
    """Return the truth as a COCO data set, as an evaluator must see it; category ``k + 1`` is ``classes[k]``.

    Don't-care boxes become ``iscrowd``. A class that is labelled but not exhaustively so gets a crowd region over
    everything (see the module). Raises ``ValueError`` for an image id used twice, labels that are not in ``classes``
    and scenes whose boxes are unknown.
    """
    twice = [k for k, n in Counter(s.image_id for s in truth).items() if n > 1]
    if twice:
        names = [s.name for s in truth if s.image_id == twice[0]]
        raise ValueError(
            f"image id {twice[0]} belongs to {len(names)} images ({', '.join(names[:3])}): ids must differ"
        )
    annotations: list[dict[str, Any]] = []
    for scene, boxes, labels in zip(truth, *truth_of(truth), strict=True):
        _check_labels(labels, classes, f"scene `{scene.name}`")
        wide, tall = scene.size[1], scene.size[0]
        part = labels[open_of(scene, labels).to(labels.device)].unique()
        all_of_it = [-EVERYWHERE, -EVERYWHERE, wide + EVERYWHERE, tall + EVERYWHERE]
        given = as_numpy([boxes], np.float64).reshape(-1, 4).tolist() + [all_of_it] * len(part)
        crowd = crowd_of(scene).tolist() + [True] * len(part)
        for (x0, y0, x1, y1), label, region in zip(given, labels.tolist() + part.tolist(), crowd, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": scene.image_id,
                    "category_id": label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": int(region),
                }
            )
    return {
        "images": [{"id": s.image_id, "file_name": s.name, "height": s.size[0], "width": s.size[1]} for s in truth],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(classes)],
    }


def coco_results(truth: Sequence[Scene], found: Sequence[Detections], classes: Sequence[str]) -> NDArray[np.float64]:
    """Return the detections as ``[D, 7]`` rows (image id, x, y, width, height, score, category id), image by image.

    ``loadRes`` of pycocotools and ``load_res`` of hotcoco take this array. Detections of classes of which nothing is
    known in their image are left out (see the module). Raises ``ValueError`` for labels that are not in ``classes``.
    """
    boxes = BoxSet.of(truth, found)
    _check_labels(boxes.found_label, classes, "a detection")
    span = len(classes)
    labelled = np.unique(boxes.truth_image * span + boxes.truth_label)
    unknown = boxes.open & ~np.isin(boxes.found_image * span + boxes.found_label, labelled)
    # A box without area overlaps nothing, not even the region that would excuse it.
    unknown |= boxes.open & (boxes.found_box[:, 2:] <= boxes.found_box[:, :2]).any(axis=1)
    ids = np.array([s.image_id for s in truth], np.int64)[boxes.found_image]
    size = boxes.found_box[:, 2:] - boxes.found_box[:, :2]
    rows = (ids, *boxes.found_box[:, :2].T, *size.T, boxes.scores, boxes.found_label + 1)
    return np.stack([np.asarray(r, np.float64) for r in rows], axis=1)[~unknown]


def coco_figures(truth: Sequence[Scene], found: Sequence[Detections], classes: Sequence[str]) -> CocoFigures:
    """Judge the detections of a data set by COCO's rules.

    Args:
        truth, found: one entry an image, in the same order; pixel frame. Pixels of ``truth`` are never read.
        classes: the name of each label.

    Raises ``ValueError`` as :func:`coco_dataset` and :func:`coco_results` do.
    """
    counts = [0] * len(classes)
    data, results = coco_dataset(truth, classes), coco_results(truth, found, classes)
    for entry in data["annotations"]:
        counts[entry["category_id"] - 1] += not entry["iscrowd"]
    tables = _evaluated(data, results) if sum(counts) else _nothing(len(classes))
    per_class = tuple(
        ClassFigures(
            name,
            counts[k],
            _mean(tables["precision"][:, :, k, 0, 2]),
            _mean(_at(tables, "precision", 0.5)[:, :, k, 0, 2]),
        )
        for k, name in enumerate(classes)
    )
    summary = {name: _mean(_at(tables, kind, iou)[..., area, most]) for name, kind, iou, area, most in SUMMARY}
    return CocoFigures(images=len(truth), truths=sum(counts), per_class=per_class, **summary)


def _evaluated(data: dict[str, Any], results: NDArray[np.float64]) -> dict[str, Floats]:
    """Tables of precision ``[T, R, K, A, M]`` and recall ``[T, K, A, M]``, -1 where undefined, and the IoUs."""
    import hotcoco

    truth = hotcoco.COCO(data)
    judge = hotcoco.COCOeval(truth, truth.load_res(results), "bbox")
    judge.evaluate()
    judge.accumulate()
    tables = judge.eval
    if tables is None:
        raise RuntimeError("hotcoco returned no tables after accumulate()")
    return {"precision": tables["precision"], "recall": tables["recall"], "iou": np.asarray(judge.params.iou_thrs)}


def _nothing(classes: int) -> dict[str, Floats]:
    ious = np.linspace(0.5, 0.95, 10)
    return {
        "precision": np.full((10, 101, classes, 4, 3), -1.0),
        "recall": np.full((10, classes, 4, 3), -1.0),
        "iou": ious,
    }


def _at(tables: dict[str, Floats], kind: str, iou: float | None) -> Floats:
    return tables[kind] if iou is None else tables[kind][np.isclose(tables["iou"], iou)]


def _mean(values: Floats) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _check_labels(labels: Any, classes: Sequence[str], owner: str) -> None:
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise ValueError(
            f"{owner} has labels {int(labels.min())}..{int(labels.max())}, but classes holds {len(classes)}"
        )


@dataclass(frozen=True)
class ClassificationAccuracy:
    """Of ``n`` objects that some detection boxes well, ``right`` are named rightly; None for ``n`` = 0."""

    accuracy: float | None
    n: int
    right: int


def classification_accuracy(
    truth: Sequence[Scene], found: Sequence[Detections], iou: float = 0.5
) -> ClassificationAccuracy:
    """Return how often an object that is boxed well, by a detection of any class, is given its right class.

    Of each truth that counts, the best-scored detection with at least this IoU speaks; truths without any are left out.
    A detection may speak for several truths. Raises ``ValueError`` as ``BoxSet.of`` does.
    """
    boxes = BoxSet.of(truth, found)
    every = overlaps(boxes)
    near: Overlaps = every.select(boxes.counted[every.truth] & (every.iou >= iou))
    order = np.lexsort((boxes.rank[near.found], near.truth))
    object_, first = np.unique(near.truth[order], return_index=True)
    right = int((boxes.found_label[near.found[order[first]]] == boxes.truth_label[object_]).sum())
    return ClassificationAccuracy(right / len(object_) if len(object_) else None, len(object_), right)


@dataclass(frozen=True)
class Split:
    """One figure of base and novel classes and their harmonic mean; None where a side has no class with truth."""

    base: float | None
    novel: float | None
    harmonic_mean: float | None


@dataclass(frozen=True)
class BaseNovel:
    """AP and AP50 of the classes that were trained (base) and those that were not (novel), with their numbers."""

    base_classes: int
    novel_classes: int
    ap: Split
    ap50: Split


def base_novel(figures: CocoFigures, novel: Sequence[str]) -> BaseNovel:
    """Split the figures by class; each side is the mean over its classes with truth.

    The harmonic mean is 0 where both sides are 0. Raises ``ValueError`` for a novel name that is no class.
    """
    names = [c.name for c in figures.per_class]
    for name in novel:
        if name not in names:
            raise ValueError(f"novel class `{name}` is no class of these figures{did_you_mean(name, names)}")
    sides = [[c for c in figures.per_class if c.n and (c.name in novel) is new] for new in (False, True)]
    return BaseNovel(len(sides[0]), len(sides[1]), *(_split(sides, kind) for kind in ("ap", "ap50")))


def _split(sides: Sequence[Sequence[ClassFigures]], kind: str) -> Split:
    values = [[v for c in side if (v := getattr(c, kind)) is not None] for side in sides]
    base, novel = (sum(v) / len(v) if v else None for v in values)
    if base is None or novel is None:
        return Split(base, novel, None)
    return Split(base, novel, 2 * base * novel / (base + novel) if base + novel else 0.0)
