"""The front door for detectors that are not ours: which adapter a model gets.

A detector without an adapter is judged all the same: write a class with ``emit`` and ``supervise``
(:class:`boresight.core.emission.Source`), some thirty lines, as ``docs/diagnose-any-detector.md`` shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boresight.core.emission import Source
from boresight.core.errors import UserError
from boresight.detectors.foreign_model import PROTOCOL


def adapt(model: Any, classes: Sequence[str] = (), labels: Sequence[int] | None = None, **settings: Any) -> Source:
    """Make a source of a live model of torchvision, Ultralytics or transformers.

    Args:
        model: a detector; it stays as it is.
        classes: names, in the order of ``Scene.labels``. Torchvision's models know none and need them; to others, none
            means all that the model has names for.
        labels: the model's label of each class, where they do not simply follow each other.
        settings: of the adapter: :func:`~boresight.detectors.foreign_torchvision.torchvision_source` (none),
            :func:`~boresight.detectors.foreign_yolo.yolo_source` or
            :func:`~boresight.detectors.foreign_detr.detr_source`.

    It goes by the modules in which the model's classes stand, so that no library is imported that has not made it.
    Raises UserError for a model without an adapter, and as the adapters do.
    """
    if _made_by(model, "torchvision.models.detection"):
        from boresight.detectors.foreign_torchvision import torchvision_source

        return torchvision_source(model, classes, labels, **settings)
    if _made_by(model, "ultralytics"):
        from boresight.detectors.foreign_yolo import yolo_source

        return yolo_source(model, classes, labels, **settings)
    if _made_by(model, "transformers"):
        from boresight.detectors.foreign_detr import detr_source

        return detr_source(model, classes, labels, **settings)
    raise UserError(f"{type(model).__module__}.{type(model).__name__} has no adapter: {PROTOCOL}")


def _made_by(model: Any, library: str) -> bool:
    """Whether the class of the model, or one that it derives from, stands in ``library``."""
    homes = (class_.__module__ for class_ in type(model).__mro__)
    return any(home == library or home.startswith(f"{library}.") for home in homes)
