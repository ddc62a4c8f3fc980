"""Looks at images: what a detector is given of each split, whether two splits share one, and whether views vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from boresight.core.emission import Missing
from boresight.core.types import Scene
from boresight.diagnose.images import Leak, Pixels, Repeats

FEWEST = 4
"""Images of a split from which they are compared with another's."""


def pixels_of(splits: Mapping[str, Sequence[Scene]]) -> tuple[Pixels, ...] | Missing:
    """Brightness and contrast of each split, as a detector is given them. `Missing` with fewer than two splits."""
    found = []
    for name, scenes in splits.items():
        if len(scenes) < FEWEST:
            continue
        looks = torch.stack([_look(scene) for scene in scenes])
        means = looks[:, :-1]
        between = means.std(0, correction=0)
        contrast = float(looks[:, -1].median())
        found.append(Pixels(name, len(scenes), tuple(means.mean(0).tolist()), tuple(between.tolist()), contrast))
    if len(found) < 2:
        return Missing(f"fewer than two splits have {FEWEST} images that were looked at")
    return tuple(found)


def _look(scene: Scene) -> Tensor:
    """``[C + 2]``: the mean of each channel, the first less the last, and the spread of all pixels."""
    image = (scene.image.double() - scene.level) / scene.spread
    means = image.mean((1, 2))
    return torch.cat((means, (means[:1] - means[-1:]), image.std(correction=0)[None]))


def leak_of(train: Mapping[str, str], val: Mapping[str, str]) -> Leak | Missing:
    """Validation images that are training images too; both are names of images to hashes of their pixels."""
    if not train or not val:
        return Missing("one of the splits is empty")
    known = set(train.values())
    shared = [name for name, key in val.items() if key in known]
    return Leak(len(val), len(shared), shared[0] if shared else "")


def repeats_of(views: Sequence[Sequence[Scene]]) -> Repeats | Missing:
    """Whether the views of each image differ; ``views``: for each image those of several epochs."""
    several = [each for each in views if len(each) > 1]
    if not several:
        return Missing("no image was viewed twice")
    same = sum(all(_equal(each[0], other) for other in each[1:]) for each in several)
    return Repeats(len(several), same, min(len(each) for each in several))


def _equal(one: Scene, other: Scene) -> bool:
    """Whether two views show the same pixels, and start from the same coarse boxes where there are some."""
    if one.image.shape != other.image.shape or not torch.equal(one.image, other.image):
        return False
    a, b = one.proposals, other.proposals
    return a is None or b is None or (a.boxes.shape == b.boxes.shape and torch.equal(a.boxes, b.boxes))
