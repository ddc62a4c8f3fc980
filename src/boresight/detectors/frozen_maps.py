"""What a frozen language-image encoder says of scenes and queries, on the grid of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from boresight.core.errors import UserError
from boresight.core.grid import cell_centres
from boresight.core.types import Scene
from boresight.detectors.detector import Scenes
from boresight.features.calibrate import fit_calibration
from boresight.features.class_maps import min_max, presence
from boresight.features.clip_text import TextEncoder
from boresight.features.dense import DenseFeatures
from boresight.features.frozen import FrozenFeatures
from boresight.features.resample import OnGrid, places_of

MapRule = Literal["calibrated", "min_max"]

ALIKE = 0.95
"""Cosine of two queries above which a head learns to tell them apart very slowly, if at all."""


class Similarity(Protocol):
    """Dense features and text embeddings to a raw class map."""

    def __call__(self, features: DenseFeatures, text: Tensor, *, empty: Tensor) -> Tensor:
        """``[B, D, h, w]`` features, ``[C, D]`` texts and the empty prompt ``[D]`` to ``[B, C, h, w]``."""
        ...


@dataclass(frozen=True, slots=True)
class Maps:
    """The frozen side of a batch, on the detector's grid.

    Attributes:
        cam: ``[B, C, H, W]`` class map in [0, 1].
        evidence: ``[B, C, H, W]`` calibrated logits of the class map.
        presence: ``[B, C]`` calibrated logits of the class in the image.
        dense: features of the layers that the head reads, ``L * width`` channels, not yet read on the grid; or None.
    """

    cam: Tensor
    evidence: Tensor
    presence: Tensor
    dense: OnGrid | None


class FrozenMaps(nn.Module):
    """Queries, class maps and dense features. Nothing in it is trained; the encoder's weights are no part of it.

    Args:
        features: dense features of scenes, computed once an image.
        texts: embeds queries.
        queries: what is asked for, one a class (``a|b``: synonyms).
        similarity: features and texts to a class map.
        map_rule: ``calibrated``: ``sigmoid(a (S - b))``, which knows no other query; ``min_max`` stretches the map of
            each class over [0, 1], so that absent classes peak at 1 as well (the reference).
        frames: scenes on which (a, b) are fitted.
        templates: sentences into which queries are put.
    """

    text: Tensor
    trained: Tensor
    empty: Tensor
    calibration: Tensor

    def __init__(
        self,
        features: FrozenFeatures,
        texts: TextEncoder,
        queries: Sequence[str],
        similarity: Similarity,
        *,
        map_rule: MapRule = "calibrated",
        frames: int = 64,
        templates: Sequence[str],
    ) -> None:
        super().__init__()
        self._features, self._texts = features, texts
        self.similarity, self.map_rule, self.frames, self.templates = similarity, map_rule, frames, tuple(templates)
        self._queries = self._asked = tuple(queries)
        # on the CPU, as all that is built: the encoder may be on a GPU already, for another detector
        self.register_buffer("text", texts.embed(list(queries), templates=self.templates).cpu())
        # which of the queries given here each asked one is: what is learned of them is found again by their words
        self.register_buffer("trained", torch.arange(len(self._queries)), persistent=False)
        self.register_buffer("empty", texts.empty(self.templates).cpu())
        # slope and centre of the class map, slope and centre of the presence; set by `calibrate`
        self.register_buffer("calibration", torch.tensor([10.0, 0.5, 10.0, 0.5]))

    @property
    def fingerprint(self) -> str:
        """Hash of the frozen encoder's weights as they are now."""
        return self._features.clip.measured_fingerprint()

    @property
    def features(self) -> FrozenFeatures:
        """Where dense features come from."""
        return self._features

    def share(self, other: FrozenMaps) -> None:
        """Read features through the other's store from now on: they are computed once for both."""
        self._features, self._texts = other._features, other._texts

    def ask(self, queries: Sequence[str]) -> None:
        """Answer other queries from now on."""
        self.text = self._texts.embed(list(queries), templates=self.templates).to(self.text.device)
        self._asked = tuple(queries)
        place = {query: i for i, query in enumerate(self._queries)}
        self.trained = torch.tensor([place.get(q, -1) for q in queries], device=self.text.device)

    def alike(self, limit: float = ALIKE) -> list[tuple[str, str, float]]:
        """Pairs of asked queries whose embeddings have a cosine above ``limit``, the closest first."""
        one, two = torch.triu_indices(len(self.text), len(self.text), 1)
        cosine, order = (self.text @ self.text.T).cpu()[one, two].sort(descending=True)
        rows = zip(cosine.tolist(), one[order].tolist(), two[order].tolist(), strict=True)
        return [(self._asked[i], self._asked[j], c) for c, i, j in rows if c > limit]

    @torch.no_grad()
    def forward(self, scenes: Sequence[Scene], rows: int, columns: int, stride: float) -> Maps:
        """Class maps and features of scenes (or of views of scenes) at the centres of ``rows x columns`` cells."""
        device = self.text.device
        if self._features.clip.device != device:
            self._features.clip.to(device)
        raw, layers, whole, sizes, maps = [], [], [], [], []
        items = self._features(scenes)
        for scene, item in zip(scenes, items, strict=True):
            raw.append(self.raw(item, self.text)[0])
            layers.append(item.layers[0].float())
            whole.append(presence(item.pooled, self.text)[0])
            sizes.append(scene.view.source.size if scene.view is not None else scene.size)
            maps.append(None if scene.view is None else scene.view.to_source)
        places = places_of(sizes, maps, rows, columns, stride, device)
        return self.on_grid(OnGrid.of(raw, places), OnGrid.of(layers, places), torch.stack(whole))

    def raw(self, item: DenseFeatures, text: Tensor) -> Tensor:
        """``[B, K, h, w]`` float32: raw class maps of the queries, then the stretched ones."""
        raw = self.similarity(item, text, empty=self.empty)
        return (torch.cat((raw, min_max(raw)), dim=1) if self.map_rule == "min_max" else raw).float()

    def on_grid(self, raw: OnGrid, layers: OnGrid, whole: Tensor) -> Maps:
        """What :meth:`raw` gave, and the layers, on the detector's grid.

        ``whole [B, C]`` are cosines of the images with the queries, whose number may stay open.
        """
        a, b, a_all, b_all = self.calibration
        found, cam = raw.read(), None
        if self.map_rule == "min_max":
            found, cam = found.unflatten(1, (2, whole.shape[1])).unbind(1)
        evidence = a * (found - b)
        dense = layers if layers.maps[0].shape[1] else None
        return Maps(evidence.sigmoid() if cam is None else cam, evidence, a_all * (whole - b_all), dense)

    @torch.no_grad()
    def calibrate(self, scenes: Scenes) -> None:
        """Fit slope and centre of map and presence on the first ``frames`` scenes that hold an object.

        Raises UserError where no scene has one: nothing could be fitted, and a map on a wrong scale would be used.
        """
        maps, masks, whole, present, known = [], [], [], [], []
        for i in range(len(scenes)):
            scene = scenes[i]
            if scene.boxes is None or not len(scene.boxes):
                continue
            item = self._features([scene])[0].to(self.text.device)
            raw = self.similarity(item, self.text, empty=self.empty)[0]
            maps.append(raw.cpu())
            masks.append(_inside(scene, tuple(raw.shape)))  # type: ignore[arg-type]
            whole.append(presence(item.pooled, self.text)[0].cpu())
            here = torch.zeros(len(self.text), dtype=torch.bool)
            here[scene.labels] = True
            present.append(here)
            known.append(torch.ones_like(here) if scene.exhaustive is None else scene.exhaustive.cpu())
            if len(maps) == self.frames:
                break
        if not maps:
            raise UserError("the training images hold no object: nothing to calibrate the class map on")
        fit = fit_calibration(maps, masks, torch.stack(whole), torch.stack(present), known=known)
        self.calibration.copy_(torch.tensor([fit.a, fit.b, fit.presence_a, fit.presence_b]))


def _inside(scene: Scene, shape: tuple[int, int, int]) -> Tensor:
    """``[C, h, w]`` bool: cells of the encoder's map whose centre lies in an object of the class."""
    _, rows, columns = shape
    height, width = scene.size
    centre = cell_centres(rows, columns, 1.0) * torch.tensor([width / columns, height / rows])
    mask = torch.zeros(shape, dtype=torch.bool)
    assert scene.boxes is not None
    assert scene.labels is not None
    for box, label in zip(scene.boxes.cpu(), scene.labels.tolist(), strict=True):
        mask[label] |= ((centre >= box[:2]) & (centre <= box[2:])).all(-1)
    return mask
