"""Rules over the time of a step and over what the feature store found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from boresight.core.emission import Missing
from boresight.diagnose.evidence import Evidence
from boresight.diagnose.finding import Finding
from boresight.diagnose.plan import Plan
from boresight.diagnose.probe import Cost
from boresight.diagnose.rule import Rule
from boresight.diagnose.steps import Steps

EARLY = 20
LOADING = 0.5
"""Share of a step's time that may go into loading. Of 208 finished runs, all on CPUs, those of a head of four layers on
stored features had 0.6, all others 0.35 at the most."""
STORED = 0.9
"""Share of images, all of them seen before, that the store should find."""


@dataclass(frozen=True, slots=True)
class Times:
    """Steps with their times, and what loading consists of where that was measured."""

    steps: Steps
    costs: tuple[Cost, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """Steps with what was found in the store, and how many items that has given up for others (None: not known)."""

    steps: Steps
    evicted: int | None


def loader_bound(times: Times, plan: Plan) -> list[Finding] | Missing:
    """Most of a step is spent waiting for images."""
    steps = times.steps
    parts = (steps.time_data, steps.time_forward, steps.time_backward)
    if any(p is None for p in parts) or len(steps) < EARLY:
        return Missing(f"it needs the times of loading, forward and backward pass of {EARLY} steps")
    late = slice(len(steps) // 5, None)  # the first pass over the images fills the memory
    data, forward, backward = (float(np.nansum(p[late])) for p in parts if p is not None)
    share = data / max(data + forward + backward, 1e-12)
    if share <= LOADING:
        return []
    slowest = max(times.costs, key=lambda c: c.seconds, default=None)
    spent = sum(c.seconds for c in times.costs)
    named = {} if slowest is None else {slowest.part: slowest.seconds / max(spent, 1e-12)}
    told = "" if slowest is None else f", most of it `{slowest.part}`"
    spare = {} if slowest is None else slowest.spare
    return [
        Finding(
            "loader-bound",
            "warning",
            f"the step waits for images{told}",
            {"share of loading": share, "at most": LOADING}
            | {f"share of {name} in it": value for name, value in named.items()},
            "images are decoded, cut and changed in the loop, slower than the network trains",
            "load in processes of their own, keep decoded images in memory, or spare the slowest change",
            plan.change({"train.workers": 2, **spare}),
            0.9,
            "YOLOX#1199",
            int(steps.step[-1]),
        )
    ]


def cache_misses(stored: Stored, plan: Plan) -> list[Finding] | Missing:
    """Images that were seen before are computed again."""
    steps = stored.steps
    hits, misses, epoch = steps.feature_hits, steps.feature_misses, steps.epoch
    if hits is None or misses is None or epoch is None:
        return Missing("there is no feature store, or what it found is not recorded")
    later = epoch >= 1
    asked = float(np.nansum(hits[later]) + np.nansum(misses[later]))
    if not asked:
        return Missing("no image was seen twice")
    share = float(np.nansum(hits[later])) / asked
    if share >= STORED:
        return []
    full = bool(stored.evicted)
    unstable = share < 0.1 and not full
    cause = (
        "the store is too small for the images, and gives up what is needed next"
        if full
        else "the key of an image changes: it is made of its path, its time or its view, not of its pixels"
        if unstable
        else "the store is too small, or part of the images has another key every time"
    )
    return [
        Finding(
            "cache-key-unstable" if unstable else "cache-hits-low",
            "warning",
            "features of images that were seen before are computed again",
            {"share found after the first epoch": share, "at least": STORED, "given up": stored.evicted},
            cause,
            "give the store more room" if full else "make the key from the image's pixels and the encoder's identity",
            plan.change({"features.store_mb": 16384, "clip.store_mb": 16384}) if not unstable else {},
            0.9 if full or unstable else 0.7,
            "stores keyed by path, whose hit rate was 0 %",
            int(steps.step[-1]),
        )
    ]


def key_unstable(stored: Stored, plan: Plan) -> list[Finding] | Missing:
    """Of :func:`cache_misses`, what means that no image is ever found again."""
    return _of("cache-key-unstable", cache_misses(stored, plan))


def hits_low(stored: Stored, plan: Plan) -> list[Finding] | Missing:
    """Of :func:`cache_misses`, all else."""
    return _of("cache-hits-low", cache_misses(stored, plan))


def _of(rule: str, found: list[Finding] | Missing) -> list[Finding] | Missing:
    return found if isinstance(found, Missing) else [f for f in found if f.id == rule]


def _times(evidence: Evidence) -> Times | Missing:
    if isinstance(evidence.steps, Missing):
        return evidence.steps
    costs = evidence.probe.costs
    return Times(evidence.steps, () if isinstance(costs, Missing) else costs)


def _stored(evidence: Evidence) -> Stored | Missing:
    if isinstance(evidence.steps, Missing):
        return evidence.steps
    outcome = evidence.outcome
    return Stored(evidence.steps, None if isinstance(outcome, Missing) else outcome.evicted)


SPEED_RULES = (
    Rule("loader-bound", _times, loader_bound),
    Rule("cache-key-unstable", _stored, key_unstable),
    Rule("cache-hits-low", _stored, hits_low),
)
