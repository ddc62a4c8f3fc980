"""Compares an exported graph with the detector that it was made from, on frames of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.run.export_graph import Graph
from boresight.run.predict import Trained
from boresight.run.recipes import recipe

SCORE_LIMIT = 1e-4
"""Largest difference of a score."""

BOX_LIMIT = 1e-3
"""Largest difference of a coordinate, as a share of the longer side of its box or of the stride, whichever is more."""


@dataclass(frozen=True)
class Check:
    """Scenes on which a graph is checked.

    Attributes:
        singles: one at a time; the first ones are whole frames, the last one is cut to an odd size.
        pair: two of one size.
    """

    singles: tuple[Scene, ...]
    pair: tuple[Scene, Scene]


@dataclass(frozen=True)
class Difference:
    """How far a graph is from PyTorch.

    Attributes:
        frames: frames that were looked at, whole, cut and in pairs.
        sizes: ``width x height`` of what was looked at.
        score: largest difference of a score (and of a predicted quality).
        box: largest difference of a coordinate, as a share (see :data:`BOX_LIMIT`).
        box_pixels: the same in pixels.
    """

    frames: int
    sizes: tuple[str, ...]
    score: float
    box: float
    box_pixels: float

    @property
    def fits(self) -> bool:
        """Whether both are within their limits. NaN is not."""
        return self.score <= SCORE_LIMIT and self.box <= BOX_LIMIT

    def told(self) -> str:
        """In a line."""
        score = f"scores differ by {self.score:.1e} at most (limit {SCORE_LIMIT:g})"
        box = f"boxes by {self.box:.1e} of their side (limit {BOX_LIMIT:g}; {self.box_pixels:.1e} px)"
        return f"on {self.frames} frames of the run {score}, {box}"

    def figures(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "sizes": list(self.sizes), "score_limit": SCORE_LIMIT, "box_limit": BOX_LIMIT}


def scenes_to_check(trained: Trained, count: int) -> Check:
    """The first ``count`` validation frames of a run; UserError where its data are gone."""
    try:
        frames = recipe(trained.checkpoint.detector).frames(trained.settings, "val").val
    except UserError as error:
        raise UserError(f"{error} (an export is checked on frames of the run)") from error
    every = (frames[i] for i in range(len(frames)))
    # a refiner has nothing to do where there is no box, and its graph takes one at least
    scenes = list(islice((s for s in every if s.proposals is None or len(s.proposals)), count))
    if not scenes:
        raise UserError("the validation images hold no box on which the export could be checked; give others")
    first, odd = scenes[0], _cut(scenes[0])
    mate = next((s for s in scenes[1:] if s.size == first.size), first)
    return Check((*scenes, odd), (first, mate))


def _cut(scene: Scene) -> Scene:
    """The scene without its last rows and columns: of a size that is a multiple of nothing."""
    height, width = scene.size
    image = scene.image[:, : max(1, height - height // 8 - 1), : max(1, width - width // 5 - 3)]
    return replace(scene, image=image.contiguous(), view=None)


def compared(graph: Graph, runs: Callable[..., Sequence[Tensor]], check: Check) -> Difference:
    """Run the graph beside the detector on single scenes, on the last of them with few queries, and on the pair."""
    *whole, odd = check.singles
    parts = [_difference(graph, runs, scenes) for scenes in (*((s,) for s in whole), check.pair)]
    with graph.narrowed():
        parts.append(_difference(graph, runs, (odd,)))
    score, box, pixels = torch.tensor(parts, dtype=torch.float64).amax(0).tolist()
    sizes = dict.fromkeys(f"{s.size[1]}x{s.size[0]}" for s in check.singles)
    return Difference(len(check.singles) - 1, tuple(sizes), score, box, pixels)


def _difference(
    graph: Graph, runs: Callable[..., Sequence[Tensor]], scenes: Sequence[Scene]
) -> tuple[float, float, float]:
    expected = graph.expected(scenes)
    got = dict(zip(graph.outputs, runs(*graph.feed(scenes)), strict=True))
    for name, value in expected.items():
        if got[name].shape != value.shape:
            raise ValueError(f"{name} has shape {list(got[name].shape)}, PyTorch gives {list(value.shape)}")
    off = (got["boxes"].double() - expected["boxes"].double()).abs()
    if not off.numel():
        return 0.0, 0.0, 0.0
    shares = [(got[k].double() - v.double()).abs().max() for k, v in expected.items() if k != "boxes"]
    return float(torch.stack(shares).max()), float((off / graph.scale(expected).double()).max()), float(off.max())
