"""Looks at the images of a run for the rules of training health: nothing is trained, and no detector is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from boresight.core.emission import Missing
from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.diagnose.images import Images, Leak, Repeats
from boresight.diagnose.measure_images import leak_of, pixels_of, repeats_of
from boresight.diagnose.measure_truth import forms_of, placed_of
from boresight.features.image_hash import image_key
from boresight.run.order import Views
from boresight.run.recipe import Frames, Splits

T = TypeVar("T")

PLACED = 32
"""Images of a split, and training views, beside which labels are looked at."""
HASHED = 256
"""Training images that are compared with validation images, besides those of the same name."""
VIEWED, EPOCHS = 4, 3
"""Images of which a view is made in each of so many epochs."""


def looked_at(splits: Splits, views: Views, *, first: int) -> Images:
    """All answers; one that fails is `Missing` with the error's first line.

    Args:
        splits: of the run.
        views: training views by position.
        first: so many images of each split are looked at.
    """
    frames = {"train": _some(splits.train, first), "val": _some(splits.val, first)}
    count = min(PLACED, len(views.order))
    seen = _answer(lambda: [views[i] for i in range(count)])
    changed = {} if isinstance(seen, Missing) else {"views": seen}
    return Images(
        pixels=_answer(lambda: pixels_of(frames | changed)),
        labels=_answer(lambda: forms_of(frames)),
        placed=_answer(lambda: placed_of({k: v[:PLACED] for k, v in (frames | changed).items()})),
        leak=_answer(lambda: shared(splits, first)),
        repeats=_answer(lambda: repeated(views)),
    )


def _answer(question: Callable[[], T | Missing]) -> T | Missing:
    try:
        return question()
    except (ValueError, RuntimeError, UserError) as error:
        return Missing(f"looking at it failed: {str(error).splitlines()[0]}")


def _some(frames: Frames, first: int) -> list[Scene]:
    return [frames[i] for i in range(min(first, len(frames)))]


def shared(splits: Splits, first: int) -> Leak | Missing:
    """Validation images that are training images too, by the hashes of their pixels."""
    names = splits.val.names
    val = {names[i]: image_key(splits.val[i].image) for i in range(min(first, len(splits.val)))}
    alike = [i for i, name in enumerate(splits.train.names) if name in val and i >= HASHED]
    chosen = [*range(min(HASHED, len(splits.train))), *alike]
    train = {str(i): image_key(splits.train[i].image) for i in chosen}
    return leak_of(train, val)


def repeated(views: Views) -> Repeats | Missing:
    """Whether an image's views differ from epoch to epoch."""
    epoch = len(views.order)
    chosen = list(dict.fromkeys(views.order))[:VIEWED]
    places = {
        index: [p for e in range(EPOCHS) for p in range(e * epoch, (e + 1) * epoch) if views.entry(p) == index]
        for index in chosen
    }
    return repeats_of([[views[p] for p in at[:EPOCHS]] for at in places.values()])
