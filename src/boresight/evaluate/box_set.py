"""Truth boxes and detections of many images, one after the other: the door through which box tensors come in.

What is known about a class in an image is one of three things. *Exhaustive*: every object is labelled, so that an
unmatched detection is a false alarm. *Labelled in part*: some objects are, and an unmatched detection says nothing.
*Unknown*: none is, and no detection of the class says anything. Detections of the last two are ``open``: they may hit,
and are left out of the count where they do not (the federated rule of LVIS, Gupta et al. 2019, sec. 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boresight.core.types import Detections, Scene
from boresight.evaluate.pairs import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class BoxSet:
    """The truths (``T``) and detections (``D``) of many images, as numpy arrays.

    Attributes:
        images: number of images, those without truth and detections included.
        truth_box, found_box: ``[T, 4]`` and ``[D, 4]`` float64 xyxy, pixel frame.
        truth_image, found_image: the image of each, from 0.
        truth_object: ``[T]`` row of the truth within its image.
        truth_label, found_label: classes.
        crowd: ``[T]`` bool, regions that excuse and need not be found.
        scores: ``[D]`` in the precision they came in.
        cell: ``[D]`` the emitting cell, -1 where unknown.
        open: ``[D]`` bool, detections of a class that is not exhaustively labelled in their image.
        rank: ``[D]`` place in falling order of score; ties go by image id, then as given (as pycocotools sorts).
    """

    images: int
    truth_box: Floats
    truth_image: Ints
    truth_object: Ints
    truth_label: Ints
    crowd: Bools
    found_box: Floats
    found_image: Ints
    found_label: Ints
    scores: Floats
    cell: Ints
    open: Bools
    rank: Ints

    @classmethod
    def of(cls, truth: Sequence[Scene], found: Sequence[Detections]) -> BoxSet:
        """Gather the images; pixels are never read.

        Raises ``ValueError`` on unequal lengths, a scene whose boxes are unknown, and boxes or scores that are not
        finite.
        """
        if len(truth) != len(found):
            raise ValueError(f"truth holds {len(truth)} images and found {len(found)}: they must be the same images")
        boxes, labels = truth_of(truth)
        sizes = [[len(b) for b in boxes], [len(d) for d in found]]
        image = [np.repeat(np.arange(len(truth)), n) for n in sizes]
        scores = as_numpy([d.scores for d in found])
        made = cls(
            images=len(truth),
            truth_box=as_numpy(boxes, np.float64).reshape(-1, 4),
            truth_image=image[0],
            truth_object=np.concatenate([np.arange(n) for n in sizes[0]] or [np.zeros(0, np.int64)]),
            truth_label=as_numpy(labels, np.int64),
            crowd=as_numpy([crowd_of(s) for s in truth], np.bool_),
            found_box=as_numpy([d.boxes for d in found], np.float64).reshape(-1, 4),
            found_image=image[1],
            found_label=as_numpy([d.labels for d in found], np.int64),
            scores=scores,
            cell=as_numpy([d.cell for d in found], np.int64),
            open=as_numpy([open_of(s, d.labels) for s, d in zip(truth, found, strict=True)], np.bool_),
            rank=_ranks(scores, np.array([s.image_id for s in truth], np.int64)[image[1]]),
        )
        for name in ("truth_box", "found_box", "scores"):
            if not np.isfinite(getattr(made, name)).all():
                raise ValueError(f"{name} holds values that are not finite")
        return made

    @property
    def counted(self) -> Bools:
        """``[T]`` truths that must be found."""
        return ~self.crowd

    def take(self, keep: Bools) -> BoxSet:
        """The set with those detections alone."""
        names = ("found_box", "found_image", "found_label", "scores", "cell", "open")
        kept = {name: getattr(self, name)[keep] for name in names}
        rank = np.empty(int(keep.sum()), np.int64)
        rank[np.argsort(self.rank[keep])] = np.arange(len(rank))
        return replace(self, **kept, rank=rank)

    def above(self, threshold: float) -> BoxSet:
        """The set with the detections of ``score >= threshold`` alone."""
        return self.take(self.scores >= threshold)

    def best(self, limit: int) -> BoxSet:
        """The set with the ``limit`` best detections of each class in each image (COCO takes 100)."""
        order = np.lexsort((self.rank, self.found_label, self.found_image))
        group = self.found_image[order] * (1 + self.found_label.max(initial=0)) + self.found_label[order]
        first = np.flatnonzero(np.diff(group, prepend=-1))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
        return self.take(place < limit)


def truth_of(truth: Sequence[Scene]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the boxes and the labels of each scene. Raises ``ValueError`` where they are unknown (not "none")."""
    boxes, labels = [], []
    for scene in truth:
        if scene.boxes is None or scene.labels is None:
            raise ValueError(f"scene `{scene.name}` has no boxes (None): what is unknown cannot be judged")
        boxes.append(scene.boxes)
        labels.append(scene.labels)
    return boxes, labels


def crowd_of(scene: Scene) -> Tensor:
    """``[N]`` bool: the boxes of a scene that do not count."""
    count = 0 if scene.boxes is None else len(scene.boxes)
    return torch.zeros(count, dtype=torch.bool) if scene.ignore is None else scene.ignore.bool()


def open_of(scene: Scene, labels: Tensor) -> Tensor:
    """Bool, one a label: is that class *not* exhaustively labelled in the scene?

    Raises ``ValueError`` for a label beyond ``scene.exhaustive``.
    """
    if scene.exhaustive is None:
        return torch.zeros(len(labels), dtype=torch.bool)
    known = scene.exhaustive.cpu().bool()
    if len(labels) and int(labels.max()) >= len(known):
        raise ValueError(f"scene `{scene.name}`: class {int(labels.max())} is beyond exhaustive [{len(known)}]")
    return ~known[labels.cpu()]


def as_numpy(tensors: Sequence[Tensor], dtype: type | None = None) -> NDArray[Any]:
    """Join tensors along their first axis; half precision becomes float32, everything else keeps its type."""
    half = (torch.bfloat16, torch.float16)
    parts = [t.detach().cpu() for t in tensors]
    arrays = [(t.float() if t.dtype in half else t).numpy() for t in parts]
    joined = np.concatenate(arrays) if arrays else np.zeros(0, np.float32)
    return joined if dtype is None else joined.astype(dtype)


def _ranks(scores: Floats, image_id: Ints) -> Ints:
    order = np.lexsort((np.arange(len(scores)), image_id, -scores))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
