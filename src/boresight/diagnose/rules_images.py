"""Rules over images: do training and validation see the same kind of picture, and do they share one?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from boresight.core.emission import Missing
from boresight.diagnose.evidence import Evidence, Labels, SplitLabels
from boresight.diagnose.finding import Finding
from boresight.diagnose.images import Leak, Pixels, Repeats
from boresight.diagnose.plan import Plan
from boresight.diagnose.rule import Rule

SCALE = 4.0
"""Contrast of one split over that of another: by as much no season differs. Of 0..255 and 0..1 it is 255."""
BRIGHTER = 3.0
"""Gap of a channel's means over its standard deviation from image to image. Two real splits differed by 1.2."""
CONTRASTS = 0.5
"""The same over the contrast within an image: made images hardly differ in brightness from one to the next."""
EACH = 8
"""Objects of a class, in either split, from which their colours are compared."""
TELLING = 0.5
"""Squared gap of mean colours over their variances, by which red and blue exchanged must do better or worse."""
TINTED = 4.0
"""Standard errors of the mean of red less blue from which a split has a tint."""
SHARED = 0.1
"""Share of the validation images that are training images too, from which the figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Colours:
    """The pixels of two splits, and their objects' looks where those are known."""

    pixels: tuple[Pixels, ...]
    labels: Labels | Missing


def inputs_differ(pixels: tuple[Pixels, ...], plan: Plan) -> list[Finding] | Missing:
    """Validation, or a training view, is given numbers of another range than the training images."""
    first = next((p for p in pixels if p.name == "train"), None)
    if first is None:
        return Missing("too few training images were looked at")
    return [_other_range(first, other) for other in pixels if other is not first and _differs(first, other)]


def _differs(first: Pixels, other: Pixels) -> bool:
    scale = max(first.contrast, 1e-9) / max(other.contrast, 1e-9)
    return not 1 / SCALE <= scale <= SCALE or _gap(first, other) > 1


def _gap(first: Pixels, other: Pixels) -> float:
    """The largest gap of a channel's means, over what is allowed."""
    gap = np.abs(np.array(first.mean[:-1]) - np.array(other.mean[:-1]))
    between = np.sqrt((np.square(first.between[:-1]) + np.square(other.between[:-1])) / 2)
    return float((gap / np.maximum(BRIGHTER * between, CONTRASTS * first.contrast + 1e-9)).max())


def _other_range(first: Pixels, other: Pixels) -> Finding:
    scale = other.contrast / max(first.contrast, 1e-9)
    far = not 1 / SCALE <= scale <= SCALE
    what = "training views are" if other.name == "views" else f"the images of `{other.name}` are"
    return Finding(
        "inputs-differ",
        "error" if far else "warning",
        f"{what} given in another range than those of `{first.name}`",
        {
            "contrast over that of training": scale,
            "at most": SCALE,
            "gap of the means over the limit": _gap(first, other),
        }
        | {"at most, of that": 1.0, "mean of the first channel": other.mean[0], "in training": first.mean[0]},
        "one pipeline divides by 255, subtracts a mean or clips, and the other does not",
        "read both with one function, and compare one image pixel by pixel",
        {},
        0.95 if far else 0.7,
        "frames of 0..255 where 0..1 was trained",
    )


def channels_exchanged(colours: Colours, plan: Plan) -> list[Finding] | Missing:
    """Validation looks like training with red and blue exchanged: objects of a class, or the images as a whole."""
    known = {p.name: p for p in colours.pixels}
    if "train" not in known or "val" not in known or len(known["train"].mean) != 4:
        return Missing("there are not two splits of RGB images")
    as_is, exchanged = _by_class(colours.labels)
    telling = np.abs(as_is - exchanged) > TELLING
    better = float((exchanged < as_is)[telling].mean()) if telling.any() else None
    tints = [p.mean[-1] / max(p.between[-1] / p.images**0.5, 1e-9) for p in (known["train"], known["val"])]
    tinted = min(abs(t) for t in tints) > TINTED and tints[0] * tints[1] < 0
    if better is None and not min(abs(t) for t in tints) > TINTED:
        return Missing("neither objects nor images have a colour that would tell")
    sure = better is not None and better > 0.75
    if not sure and not (better is None and tinted):
        return []
    return [
        Finding(
            "channels-exchanged",
            "error" if sure else "warning",
            "validation images look like training images with red and blue exchanged",
            {
                "share of classes that look so": better,
                "at most": 0.75,
                "red less blue, training, standard errors": tints[0],
            }
            | {"in validation": tints[1]},
            "one pipeline reads BGR (OpenCV) and the other RGB",
            "convert in one place, when the file is read",
            {},
            0.9 if sure else 0.6,
            "cv2.imread gives BGR",
        )
    ]


def _by_class(labels: Labels | Missing) -> tuple[np.ndarray, np.ndarray]:
    """Of each class the squared gap of its mean colours in the two splits, as it is and with red and blue exchanged."""
    if isinstance(labels, Missing) or len(labels.splits) < 2:
        return np.zeros(0), np.zeros(0)
    first, other = labels.splits[:2]
    both = [k for k in first.looks if _enough(first, k) and _enough(other, k)]
    pairs = [(first.looks[k], other.looks[k]) for k in both if len(first.looks[k].mean) == 5]
    rows = [
        (np.array(a.mean[2:]), np.array(b.mean[2:]), np.square(a.spread[2:]) + np.square(b.spread[2:]))
        for a, b in pairs
    ]
    gaps = [[float((np.square(a - c) / np.maximum(v / 2, 0.05**2)).mean()) for c in (b, b[::-1])] for a, b, v in rows]
    table = np.array(gaps).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _enough(split: SplitLabels, label: int) -> bool:
    return label in split.looks and split.looks[label].n >= EACH


def leak(leak: Leak, plan: Plan) -> list[Finding] | Missing:
    """A validation image is a training image, to the pixel."""
    if not leak.shared:
        return []
    share = leak.shared / leak.judged
    return [
        Finding(
            "split-leak",
            "error" if share > SHARED else "warning",
            f"{leak.shared} of {leak.judged} validation images are training images",
            {"share": share, "at most": 0.0, "for example": leak.example},
            "the list of one split holds files of the other, or a file lies in both folders",
            "split by image (of videos by film) before anything else, and train again",
            {},
            1.0,
            "a validation figure that only rises",
        )
    ]


def views_repeat(repeats: Repeats, plan: Plan) -> list[Finding] | Missing:
    """Training views are changed at random, and come out the same every time."""
    if not plan.augmented:
        return Missing("no change at random is switched on, or it is not known")
    if repeats.images < 3:
        return Missing(f"{repeats.images} images were viewed several times, 3 are needed")
    share = repeats.same / repeats.images
    if share < 0.5:
        return []
    return [
        Finding(
            "views-repeat",
            "warning",
            "an image's training view is the same in every epoch",
            {"share of images with one view only": share, "less than": 0.5, "views of each": repeats.views},
            "the generator is made anew with the same seed for every view, or every worker has the same",
            "seed each view from the run's seed and its position in the training",
            {},
            0.9,
            "NumPy's generator in the workers of a DataLoader: the same numbers in each epoch",
        )
    ]


def _colours(evidence: Evidence) -> Colours | Missing:
    pixels = evidence.images.pixels
    return pixels if isinstance(pixels, Missing) else Colours(pixels, evidence.labels)


IMAGE_RULES = (
    Rule("inputs-differ", lambda e: e.images.pixels, inputs_differ),
    Rule("channels-exchanged", _colours, channels_exchanged),
    Rule("split-leak", lambda e: e.images.leak, leak),
    Rule("views-repeat", lambda e: e.images.repeats, views_repeat),
)
