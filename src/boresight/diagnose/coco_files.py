"""Truth and detections of any detector, from the two files that every detector can write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boresight.data.coco_columns import read_found, read_truth
from boresight.evaluate.box_set import BoxSet
from boresight.evaluate.pairs import Ints


@dataclass(frozen=True, slots=True)
class CocoFiles:
    """What two COCO files say of ``N`` images.

    Attributes:
        boxes: truth and detections, image by image in the order of the annotations.
        classes: the name of each label, by rising category id.
        category_ids: ``[C]`` of each label.
        image_ids: ``[N]``.
        names: of the images.
        sizes: ``(height, width)`` of each image in pixels, None where the annotations do not state it.
    """

    boxes: BoxSet
    classes: tuple[str, ...]
    category_ids: Ints
    image_ids: Ints
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int] | None, ...]


def coco_files(annotations: Path, predictions: Path) -> CocoFiles:
    """Read COCO annotations and COCO results; images need not be there.

    ``iscrowd`` makes a truth excuse without having to be found. Detections of a class that is not labelled exhaustively
    in their image (``exhaustive_category_ids``, or the keys of LVIS) are excused as well where they find nothing.

    Raises ``UserError``, one line that names file, entry and remedy: see :mod:`~boresight.data.coco_columns`.
    """
    truth = read_truth(annotations)
    found = read_found(predictions, truth)
    known = np.True_ if truth.exhaustive is None else truth.exhaustive[found.image, found.label]
    boxes = BoxSet.of_arrays(
        truth.image_ids,
        (truth.box, truth.image, truth.label),
        (found.box, found.image, found.label),
        found.score,
        crowd=truth.crowd,
        open=np.broadcast_to(~known, found.image.shape),
    )
    return CocoFiles(boxes, truth.classes, truth.category_ids, truth.image_ids, truth.names, truth.sizes)
