"""What loading an image consists of: reading it, and each change that a training view makes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from boresight.diagnose.probe import Cost
from boresight.run.recipe import Recipe, Splits

ROUNDS = 3
"""Readings of each time; the least is taken."""


def load_costs(kind: Recipe, settings: Any, splits: Splits, *, count: int = 8) -> tuple[Cost, ...]:
    """Seconds an image of reading it (from memory where it is kept), of every change of ``augment``, and of the rest.

    A change costs what a view costs less when the change is off.
    """
    order = list(splits.order)[:count]

    def timed(view: Callable[..., Any]) -> float:
        return min(_seconds(view, splits, order, settings.train.seed) for _ in range(ROUNDS)) / max(1, len(order))

    reading = timed(lambda frames, i, rng: frames[i])
    whole = timed(kind.view(settings))
    costs = [Cost("reading", reading, {"data.cache_mb": 4096})]
    for field in fields(settings.augment):
        off = _off(getattr(settings.augment, field.name))
        if off is not None:
            without = replace(settings, augment=replace(settings.augment, **{field.name: off}))
            key = f"augment.{field.name}"
            costs.append(Cost(key, whole - timed(kind.view(without)), {key: off}))
    known = sum(max(0.0, c.seconds) for c in costs)
    return (
        *(replace(c, seconds=max(0.0, c.seconds)) for c in costs),
        Cost("cutting the view", max(0.0, whole - known)),
    )


def _seconds(view: Callable[..., Any], splits: Splits, order: list[int], seed: int) -> float:
    began = time.perf_counter()
    for place, index in enumerate(order):
        view(splits.train, index, np.random.default_rng([seed, 2, place]))
    return time.perf_counter() - began


def _off(value: Any) -> Any:
    """What switches a change off; None where nothing does, or where it is off."""
    if isinstance(value, bool):
        return False if value else None
    return 0.0 if isinstance(value, float) and value else None
