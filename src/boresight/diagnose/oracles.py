"""One thing made true on the raw output of an image, then selected as the detector selects: what would be found?

Because the raw output is changed *before* suppression, what follows from a repair counts with it: a box that is made
true suppresses its duplicates, a score that is made true lets the better box survive. On detection files nothing of
this can be known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from boresight.core.emission import Emission, Missing
from boresight.core.types import Detections
from boresight.diagnose.emitted import Seen, trained_slots
from boresight.diagnose.likeness import Likeness
from boresight.diagnose.truth import Truth

FOUND = 0.5
NEAR = 0.1

Oracle = Callable[[Seen, Tensor], Emission | Missing]
"""From an image and the likeness ``[K, N, M]`` of its boxes with its objects to another output."""


def likeness_of_all(seen: Seen, likeness: Likeness) -> Tensor:
    """``[K, N, M]``: every box of an image, cut to it, with every object."""
    boxes = seen.emission.boxes.float()
    cut = clip_boxes_to_image(boxes.flatten(0, 1), seen.emission.size)
    return likeness(cut, seen.truth.boxes).view(*boxes.shape[:2], len(seen.truth))


def _own(seen: Seen, like: Tensor) -> tuple[Tensor, Tensor]:
    """``[C, N]``: likeness with the object of the channel's class that fits best (0 for none), and which."""
    classes, cells = seen.emission.scores.shape
    best, which = torch.zeros(classes, cells), torch.full((classes, cells), -1)
    for label in seen.truth.labels.unique().tolist():
        mine = (seen.truth.labels == label).nonzero()[:, 0]
        best[label], place = like[label if len(like) > 1 else 0][:, mine].max(1)
        which[label] = mine[place]
    return best, which


def true_class(seen: Seen, like: Tensor) -> Emission:
    """A cell whose box fits an object (0.5) speaks for the object's class, with its highest score, and no other."""
    emission, truth = seen.emission, seen.truth
    if not len(truth):
        return emission
    loudest = emission.scores.argmax(0)
    cells = torch.arange(emission.cells)
    speaking = like[loudest if len(like) > 1 else 0, cells]
    fit, object_ = speaking.max(1)
    on = (fit >= FOUND).nonzero()[:, 0]
    scores, label = emission.scores.clone(), truth.labels[object_[on]]
    scores[:, on] = 0.0
    scores[label, on] = emission.scores[loudest[on], on]
    boxes = emission.boxes
    if len(boxes) > 1:
        boxes = boxes.clone()
        boxes[label, on] = emission.boxes[loudest[on], on]
    return replace(emission, scores=scores, boxes=boxes, found=None)


def true_box(seen: Seen, like: Tensor) -> Emission:
    """A slot that has to do with an object of its class emits that object's box.

    Its box overlaps it (0.1), or the cell lies in it: boxes that lie far off, by a wrong scale say, overlap nothing.
    """
    emission, truth = seen.emission, seen.truth
    own, which = _own(seen, like)
    if seen.inside is not None:
        for label in truth.labels.unique().tolist():
            mine = (truth.labels == label).nonzero()[:, 0]
            lies = seen.inside[:, mine].any(1) & (own[label] < NEAR)
            which[label] = torch.where(lies, mine[seen.inside[:, mine].byte().argmax(1)], which[label])
            own[label] = own[label].masked_fill(lies, NEAR)
    boxes = emission.boxes.expand(emission.classes, -1, -1).float().clone()
    on = own >= NEAR
    boxes[on] = truth.boxes[which[on]]
    return replace(emission, boxes=boxes, found=None)


def true_score(seen: Seen, like: Tensor) -> Emission:
    """The loudest score of a cell is how well its box fits the object, of any class, that it fits best.

    The other classes of the cell follow in proportion, so that what a cell takes an object for stays as it is. Cells
    that have nothing to do with an object (0.1) keep their scores.
    """
    emission = seen.emission
    if not len(seen.truth):
        return emission
    loudest = emission.scores.argmax(0)
    cells = torch.arange(emission.cells)
    fit = like[loudest if len(like) > 1 else 0, cells].max(1).values
    top = emission.scores[loudest, cells]
    on = (fit >= NEAR) & (top > 0)
    factor = torch.where(on, fit.to(top) / torch.where(on, top, 1.0), 1.0)
    return replace(emission, scores=(emission.scores * factor).clamp(max=1.0), found=None)


def trained_cells(seen: Seen, like: Tensor) -> Emission | Missing:
    """Only cells that are trained to emit a box may speak."""
    trained = trained_slots(seen, seen.supervision)
    if trained is None:
        assert isinstance(seen.supervision, Missing)
        return seen.supervision
    return replace(seen.emission, scores=seen.emission.scores.masked_fill(~trained, 0.0), found=None)


def inside_cells(seen: Seen, like: Tensor) -> Emission | Missing:
    """Only cells in an object may speak, trained or not: what `trained_cells` is compared with."""
    if seen.inside is None:
        return Missing("cells have no place: inside an object is not told from the background")
    speaks = seen.inside.any(1)
    trained = trained_slots(seen, seen.supervision)
    spoken = speaks[None] if trained is None else speaks | trained
    return replace(seen.emission, scores=seen.emission.scores.masked_fill(~spoken, 0.0), found=None)


def no_background(seen: Seen, like: Tensor) -> Emission:
    """A slot whose box has nothing to do with any object (0.1) is silent."""
    fit = like.max(2).values if len(seen.truth) else like.new_zeros(like.shape[:2])
    return replace(seen.emission, scores=seen.emission.scores.masked_fill(fit < NEAR, 0.0), found=None)


def true_score_everywhere(seen: Seen, like: Tensor) -> Emission:
    """Both: the scores of cells near objects are made true, and what touches no object is silent."""
    return no_background(replace_emission(seen, true_score(seen, like)), like)


def replace_emission(seen: Seen, emission: Emission) -> Seen:
    """The same image with another output."""
    return replace(seen, emission=emission)


def without_duplicates(found: Detections, truth: Truth, likeness: Likeness) -> Detections:
    """Detections, best first, without those of an object that a better one has found already.

    Each takes the object of its class that it fits best of those that are free (0.5), as COCO matches; one that fits a
    taken object and no free one is a duplicate (TIDE, Bolya et al. 2020).
    """
    like = likeness(found.boxes, truth.boxes) * (found.labels[:, None] == truth.labels)
    free, keep = torch.ones(len(truth), dtype=torch.bool), torch.ones(len(found), dtype=torch.bool)
    for i in (like >= FOUND).any(1).nonzero()[:, 0].tolist():
        fit, best = (like[i] * free).max(0)
        keep[i] = fit >= FOUND
        if keep[i]:
            free[best] = False
    return Detections(found.boxes[keep], found.scores[keep], found.labels[keep], found.cell[keep])


ORACLES: dict[str, Oracle] = {
    "class": true_class,
    "box": true_box,
    "near_score": true_score,
    "score_everywhere": true_score_everywhere,
    "trained_cells": trained_cells,
    "inside_cells": inside_cells,
    "background": no_background,
}
"""What is made true, by name."""

OF_SCORES = frozenset({"class", "near_score", "score_everywhere", "background"})
"""Those that put a truth in the place of what the scores say: nothing to ask where they were given."""
