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
from numpy.typing import ArrayLike, NDArray
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
        reach: None: boxes are compared by their IoU. Else they are points (boxes of size zero), and what stands in the
            place of an IoU is ``1 - distance / (2 reach)``: 0.5 at ``reach`` pixels, 0 at twice as many.
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
    reach: float | None = None

    @classmethod
    def of(cls, truth: Sequence[Scene], found: Sequence[Detections], reach: float | None = None) -> BoxSet:
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
            reach=reach,
        )
        made.check_finite()
        return made

    @classmethod
    def of_arrays(
        cls,
        image_id: ArrayLike,
        truth: tuple[ArrayLike, ArrayLike, ArrayLike],
        found: tuple[ArrayLike, ArrayLike, ArrayLike],
        scores: ArrayLike,
        *,
        crowd: ArrayLike | None = None,
        open: ArrayLike | None = None,
    ) -> BoxSet:
        """Gather from whole columns, in any order of images; rows of an image keep their order.

        Args:
            image_id: ``[N]`` the id of every image, by which ties of the score go.
            truth: boxes ``[T, 4]`` xyxy in the pixel frame, the place of each in ``image_id`` (``[T]``), and labels
                ``[T]`` from 0.
            found: the same three of the detections.
            scores: ``[D]``.
            crowd: ``[T]`` bool, truths that excuse and need not be found; None: all count.
            open: ``[D]`` bool, see :class:`BoxSet`; None: every class is labelled exhaustively.

        Raises ``ValueError`` on unequal lengths, images that are not there, boxes turned inside out, and boxes or
        scores that are not finite.
        """
        ids = np.asarray(image_id, np.int64)
        truth_order, truth_box, truth_image, truth_label = _side("truth", truth, len(ids))
        found_order, found_box, found_image, found_label = _side("found", found, len(ids))
        sorted_scores = _beside("scores", scores, found_order, np.float64)
        count = np.bincount(truth_image, minlength=len(ids))
        made = cls(
            images=len(ids),
            truth_box=truth_box,
            truth_image=truth_image,
            truth_object=np.arange(len(truth_image)) - np.repeat(np.cumsum(count) - count, count),
            truth_label=truth_label,
            crowd=_beside("crowd", crowd, truth_order, np.bool_),
            found_box=found_box,
            found_image=found_image,
            found_label=found_label,
            scores=sorted_scores,
            cell=np.full(len(found_image), -1, np.int64),
            open=_beside("open", open, found_order, np.bool_),
            rank=_ranks(sorted_scores, ids[found_image]),
        )
        made.check_finite()
        return made

    def check_finite(self) -> None:
        """Raise ``ValueError``, with the first bad row, unless all boxes and scores are finite."""
        for name in ("truth_box", "found_box", "scores"):
            values = getattr(self, name)
            if not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0, 0])
                raise ValueError(f"{name} holds values that are not finite: row {row} is {values[row].tolist()}")

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

    def rescored(self, scores: Floats) -> BoxSet:
        """The set with other scores ``[D]``; of equal ones the detection that stood first still does."""
        rank = np.empty(len(scores), np.int64)
        rank[np.lexsort((self.rank, -scores))] = np.arange(len(scores))
        return replace(self, scores=scores, rank=rank)

    def above(self, threshold: float) -> BoxSet:
        """The set with the detections of ``score >= threshold`` alone."""
        return self.take(self.scores >= threshold)

    def best(self, limit: int) -> BoxSet:
        """The set with the ``limit`` best detections of each class in each image (COCO takes 100)."""
        among = self.among_best(limit)
        return self if among.all() else self.take(among)

    def among_best(self, limit: int) -> Bools:
        """``[D]`` which detections :meth:`best` keeps."""
        if np.bincount(self.found_image).max(initial=0) <= limit:
            return np.ones(len(self.scores), np.bool_)
        return self.places() < limit

    def places(self) -> Ints:
        """``[D]`` the place of each detection among those of its class and image, best first."""
        order = np.lexsort((self.rank, self.found_label, self.found_image))
        image, label = self.found_image[order], self.found_label[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (image[1:] != image[:-1]) | (label[1:] != label[:-1])
        first = np.flatnonzero(new)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
        return place


def _side(name: str, given: tuple[ArrayLike, ArrayLike, ArrayLike], images: int) -> tuple[Ints, Floats, Ints, Ints]:
    """The order that puts truths or detections image after image, then their boxes, images and labels in it."""
    boxes = np.asarray(given[0], np.float64).reshape(-1, 4)
    image, label = (np.asarray(column, np.int64) for column in given[1:])
    if not len(boxes) == len(image) == len(label):
        raise ValueError(f"{name}: {len(boxes)} boxes, {len(image)} images and {len(label)} labels: one of each a row")
    if len(image) and not 0 <= int(image.min()) <= int(image.max()) < images:
        raise ValueError(f"{name} lies in images {int(image.min())}..{int(image.max())}, but there are {images}")
    if (inside_out := (boxes[:, 2:] < boxes[:, :2]).any(axis=1)).any():
        row = int(inside_out.argmax())
        raise ValueError(f"{name}_box {row} is turned inside out: {boxes[row].tolist()} (xyxy)")
    order = np.argsort(image, kind="stable")
    return order, boxes[order], image[order], label[order]


def _beside(name: str, given: ArrayLike | None, order: Ints, dtype: type) -> NDArray[Any]:
    """A further column in that order; zeros where it is not given."""
    values: NDArray[Any] = np.zeros(len(order), dtype) if given is None else np.asarray(given, dtype)
    if values.shape != order.shape:
        raise ValueError(f"{name} must have shape [{len(order)}], got {list(values.shape)}")
    return values[order]


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
