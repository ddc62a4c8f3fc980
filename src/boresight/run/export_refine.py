"""The box refiner as a graph: with its frozen encoder inside, or with the features given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.detectors.box_looks import Looking
from boresight.detectors.box_refiner import BoxRefiner
from boresight.features.clip_graph import ClipGraph
from boresight.features.encoder import FrozenEncoder
from boresight.features.feature_store import MemoryStore
from boresight.features.frozen_backbones import ClipEncoder, SqueezeEncoder, TimmEncoder
from boresight.features.stored_maps import StoredMaps
from boresight.run.config_refine import RefineSettings
from boresight.run.export_graph import Graph, longer_side, whole_cells
from boresight.run.export_sight import Level, OpenSight

LEAST = 8.0
"""Pixels: differences of the edges of smaller boxes are held against this."""


class FrozenGraph(nn.Module):
    """A frozen encoder from images ``[B, 3, H, W]`` in 0..255 to its levels, sizes open.

    Raises UserError for an encoder that has no such form.
    """

    def __init__(self, encoder: FrozenEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        if isinstance(encoder, ClipEncoder):
            size, window = encoder.size or None, encoder.window or None
            self.body: nn.Module = ClipGraph(encoder.clip, size=size, window=window, layers=encoder.layers)
        elif isinstance(encoder, (SqueezeEncoder, TimmEncoder)) and not encoder.size:
            self.body = encoder.module
        else:
            raise UserError(f"features.name {encoder.name}: this encoder is not exported; use --features given")

    def forward(self, image: Tensor) -> list[Level]:
        """See the class."""
        e, (height, width) = self.encoder, image.shape[-2:]
        if isinstance(e, ClipEncoder):
            return [(self.body(image).layers, height, width)]
        if isinstance(e, SqueezeEncoder):
            found = e.stages(image)
        else:
            assert isinstance(e, TimmEncoder)
            found = e.stages(whole_cells(image, 2 ** max(e.levels)))
        return [(level, level.shape[2] * 2**k, level.shape[3] * 2**k) for level, k in zip(found, e.levels, strict=True)]


class RefineGraph(Graph):
    """Images and coarse boxes to boxes and how sure it is that they are better.

    Args:
        detector: trained, in inference mode.
        settings: of the run.
        given: features are inputs.
    """

    def __init__(self, detector: BoxRefiner, settings: RefineSettings, *, given: bool) -> None:
        super().__init__()
        self.detector, self.settings = detector, settings
        encoder = None if detector.features is None else detector.features.encoder
        self.names = settings.head.class_input
        self.judges = isinstance(detector.refiner, Looking)
        self.inputs = {"image": {0: "batch", 2: "height", 3: "width"}, "coarse": {0: "boxes"}, "owner": {0: "boxes"}}
        if self.names:
            self.inputs["labels"] = {0: "boxes"}
        self.frozen: FrozenGraph | None = None
        self.levels = 0 if encoder is None or not given else len(encoder.channels)
        if encoder is not None:
            # a store on disk may keep features rounded: what is checked is the encoder itself
            detector.features = StoredMaps(encoder, MemoryStore(512))
            self.frozen = None if given else FrozenGraph(encoder)
        if self.levels:
            self.inputs["extents"] = {}
            self.inputs |= {f"level{k}": {0: "batch", 2: f"rows{k}", 3: f"columns{k}"} for k in range(self.levels)}
        self.outputs = ("boxes", "scores", *(("quality", "start_quality") if self.judges else ()))

    def forward(self, image: Tensor, coarse: Tensor, owner: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        """``[B, 3, H, W]`` in 0..255, ``[N, 4]`` coarse boxes and ``[N]`` their images to boxes and shares ``[N]``."""
        labels, levels = (more[0], more[1:]) if self.names else (torch.full_like(owner, -1), more)
        maps = [(m, levels[0][k, 0], levels[0][k, 1]) for k, m in enumerate(levels[1:])]
        if self.frozen is not None:
            maps = self.frozen(image)
        sight: Any = OpenSight(image, maps, coarse, labels, owner)
        moves = self.detector.refiner(sight)
        last = moves[-1]
        out = (last.boxes, last.decision.sigmoid())
        if not self.judges:
            return out
        assert last.quality is not None
        assert moves[0].start_quality is not None
        return *out, last.quality.sigmoid(), moves[0].start_quality.sigmoid()

    def feed(self, scenes: Sequence[Scene]) -> tuple[Tensor, ...]:
        """See :class:`Graph`."""
        proposals = [s.proposals for s in scenes if s.proposals is not None]
        count = torch.tensor([len(p) for p in proposals])
        parts = [torch.stack([s.image.float() for s in scenes]), torch.cat([p.boxes.float() for p in proposals])]
        parts.append(torch.arange(len(scenes)).repeat_interleave(count))
        if self.names:
            parts.append(torch.cat([p.labels for p in proposals]))
        if self.levels:
            assert self.detector.features is not None
            maps = self.detector.features(scenes)
            parts.append(maps[0].extents)
            parts += [torch.stack([m.levels[k].float() for m in maps]) for k in range(self.levels)]
        return tuple(parts)

    def expected(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """See :class:`Graph`."""
        output = self.detector(scenes)
        first = (output.coarser or (output,))[0]
        wanted = {"boxes": output.boxes, "scores": output.logits.sigmoid()}
        if self.judges:
            wanted |= {"quality": output.quality, "start_quality": first.start_quality}
        return {
            name: torch.cat([value[i, 0, :count, 0] for i, count in enumerate(output.counts)])
            for name, value in wanted.items()
        }

    def scale(self, expected: dict[str, Tensor]) -> Tensor:
        """The longer side of each box."""
        return longer_side(expected["boxes"], LEAST)

    def about(self) -> dict[str, Any]:
        """See :class:`Graph`."""
        features = "inside" if self.frozen is not None else "given" if self.levels else "none"
        return {"features": features, "named": self.names, "decode": {"rescore": self.settings.decode.rescore}}
