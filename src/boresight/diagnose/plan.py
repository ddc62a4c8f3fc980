"""What a run set out to do, as far as the rules of training health ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings that rules read. None is "not known", which is all that is known of a run of another program.

    Attributes:
        system: name of the recipe.
        score: what the validation's main figure is called.
        steps: optimiser steps planned.
        batch: images a step, of all processes.
        learning_rate: the largest.
        warmup: steps until it is reached.
        clip: largest gradient norm; 0: none.
        ema: decay of the averaged weights; 0: none.
        precision: ``no``, ``bf16`` or ``fp16``.
        score_loss: ``bce`` where the score's loss is plain cross-entropy, else another word.
        per: what the score's loss is divided by.
        prior: the score of a fresh head.
        stride: pixels a cell of the level that emits.
        tolerance: pixels within which a point is right; None where boxes are found.
        places: a point's place inside of its cell is predicted.
        proposals: cells are coarse boxes, so that most of them are positive by design.
        scored: a score is trained.
        weight_decay: of AdamW.
        augmented: training views are changed at random.
        frozen: the encoder is to stay as it is.
        keys: settings that exist, as ``group.name``; a remedy names no other.
    """

    system: str = ""
    score: str = "score"
    steps: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    warmup: int | None = None
    clip: float | None = None
    ema: float | None = None
    precision: str | None = None
    score_loss: str | None = None
    per: Literal["objects", "cells"] | None = None
    prior: float | None = None
    stride: float | None = None
    tolerance: float | None = None
    places: bool = True
    proposals: bool = False
    scored: bool = True
    weight_decay: float | None = None
    augmented: bool | None = None
    frozen: bool = False
    keys: tuple[str, ...] = ()

    def change(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Of the settings to change, those that this run has and for which a value is known."""
        return {key: value for key, value in wanted.items() if key in self.keys and value is not None}
