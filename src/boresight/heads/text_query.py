"""The head for text queries: a score, a box and, where asked for, a quality for every class and cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boresight.core.grid import cell_centres

BoxMode = Literal["agnostic", "conditioned"]

LARGEST = 4096.0
"""Strides: no edge of a box lies farther from its cell."""


@dataclass(frozen=True, slots=True)
class QueryMaps:
    """What the head says, ``B`` images, ``C`` queries, an ``H x W`` map.

    Attributes:
        logits: ``[B, C, H, W]``.
        boxes: ``[B, C, H, W, 4]`` xyxy, pixel frame (``agnostic``: a stride-0 view along C).
        quality: ``[B, 1, H, W]`` logits or None.
        objectness: ``[B, 1, H, W]`` logits or None.
    """

    logits: Tensor
    boxes: Tensor
    quality: Tensor | None
    objectness: Tensor | None


def _norm(channels: int) -> nn.GroupNorm:
    """Group normalisation: it knows no batch, so one process equals several, and one image equals a batch."""
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def _block(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, _norm(outputs), nn.SiLU(inplace=True))


def prior_bias(prior: float) -> float:
    """``-log((1 - prior) / prior)`` (Lin et al. 2017, section 4.1): a fresh head answers ``prior`` everywhere."""
    return -math.log((1 - prior) / prior)


def squashed(evidence: Tensor, limit: float = 4.0) -> Tensor:
    """Evidence within ``+- limit``: a frozen encoder that is very sure must not outweigh what is learned."""
    return limit * torch.tanh(evidence / limit)


class Features(Protocol):
    """Frozen features of source images, to be read on the grid of the head."""

    def read(self, layer: nn.Module | None = None) -> Tensor:
        """``[B, D, H, W]``, after a linear ``layer`` of each cell alone, where there is one."""
        ...


class ScoreBranch(nn.Module):
    """Compares cells with queries, and adds what the frozen encoder says, with a weight learned for every cell."""

    def __init__(self, width: int, text_dim: int, *, embed: int, depth: int, fused: bool, prior: float) -> None:
        super().__init__()
        self.tower = nn.Sequential(*(_block(width, width) for _ in range(depth)))
        self.cell = nn.Conv2d(width, embed, 1)
        self.query = nn.Linear(text_dim, embed)
        self.bias = nn.Parameter(torch.full((), prior_bias(prior)))
        self.gate = nn.Conv2d(width, 2, 1) if fused else None
        nn.init.normal_(self.cell.weight, std=0.01)
        assert self.cell.bias is not None
        nn.init.zeros_(self.cell.bias)  # else a fresh head prefers some queries to others
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            assert self.gate.bias is not None
            nn.init.constant_(self.gate.bias, math.log(math.expm1(0.5)))  # softplus of it is 0.5

    def forward(self, x: Tensor, text: Tensor, evidence: Tensor, presence: Tensor) -> Tensor:
        """``[B, width, H, W]`` and ``C`` queries to logits ``[B, C, H, W]``."""
        x = self.tower(x)
        # not divided by the root of `embed`, as attention is: cells start small, it would only slow them (docs/LOG.md)
        logits = torch.einsum("bdhw,cd->bchw", self.cell(x), self.query(text)) + self.bias
        if self.gate is None:
            return logits
        here, whole = F.softplus(self.gate(x)).unsqueeze(2).unbind(1)
        return logits + here * squashed(evidence) + whole * squashed(presence)[..., None, None]


class TextQueryHead(nn.Module):
    """Reads image features and frozen language-image features, and answers queries given as text embeddings.

    Nothing in it is made for a fixed list of classes: a query enters through its embedding and through its class map,
    so that one that was never trained can be asked.

    Args:
        image_channels: channels of the trainable encoder's map.
        dense_channels: channels of the frozen dense features (all layers together); 0: they are not read.
        text_dim: of the text embeddings.
        width: channels of the head.
        embed: dimensions in which cells and queries are compared.
        depth: blocks of each branch.
        stride: pixels a cell.
        box: ``agnostic``: one box a cell, shared by all classes; ``conditioned``: the box depends on the class, through
            its map and its text.
        learned_fusion: add the calibrated class map to the score inside of the network (its weight is learned, for
            every cell), instead of multiplying afterwards.
        score: whether the score is learned; without, it is the class map's own (to judge localisation alone).
        quality, objectness: whether to emit them.
        prior: the score of a fresh head everywhere.
        side: side of a fresh head's boxes, in strides.
    """

    def __init__(
        self,
        image_channels: int,
        dense_channels: int,
        text_dim: int,
        *,
        width: int = 64,
        embed: int = 64,
        depth: int = 2,
        stride: int = 8,
        box: BoxMode = "agnostic",
        learned_fusion: bool = True,
        score: bool = True,
        quality: bool = False,
        objectness: bool = False,
        prior: float = 0.01,
        side: float = 4.0,
        hidden: int = 16,
    ) -> None:
        super().__init__()
        self.stride, self.box = stride, box
        self.dense = _block(dense_channels, width, 1) if dense_channels else None
        self.merge = _block(image_channels + (width if dense_channels else 0), width)
        self.box_tower = nn.Sequential(*(_block(width, width) for _ in range(depth)))
        self.score: ScoreBranch | None = None
        if score:
            self.score = ScoreBranch(width, text_dim, embed=embed, depth=depth, fused=learned_fusion, prior=prior)
        self.quality = nn.Conv2d(width, 1, 1) if quality else None
        self.objectness = nn.Conv2d(width, 1, 1) if objectness else None
        self.edges = nn.Conv2d(width, 4 if box == "agnostic" else hidden, 1)
        if box == "conditioned":
            self.by_text = nn.Linear(text_dim, hidden)
            self.by_map = nn.Parameter(torch.randn(hidden) * 0.1)
            self.last = nn.Linear(hidden, 4)
        self._start(prior, side)

    def _start(self, prior: float, side: float) -> None:
        """A fresh head answers the prior everywhere, with boxes of ``side`` strides around the cells."""
        last = self.edges if self.box == "agnostic" else self.last
        nn.init.normal_(last.weight, std=0.01)
        assert last.bias is not None
        nn.init.constant_(last.bias, math.log(side / 2))
        if self.objectness is not None:
            nn.init.normal_(self.objectness.weight, std=0.01)
            assert self.objectness.bias is not None
            nn.init.constant_(self.objectness.bias, prior_bias(prior) / 2)

    def forward(
        self, image: Tensor, dense: Features | None, text: Tensor, evidence: Tensor, presence: Tensor
    ) -> QueryMaps:
        """Answer ``C`` queries.

        Args:
            image: ``[B, image_channels, H, W]``.
            dense: frozen features of ``dense_channels``, and where the cells of ``image`` lie in them.
            text: ``[C, text_dim]`` normalised embeddings.
            evidence: ``[B, C, H, W]`` calibrated logits of the class map ("the encoder sees this class here").
            presence: ``[B, C]`` calibrated logits of the class in the whole image.
        """
        # entries of about 1, as of everything else that a layer reads: those of a unit vector of 64 dimensions are 8
        # times smaller, of 512 dimensions 23 times, and classes are then learned more slowly (docs/LOG.md)
        text = text * text.shape[-1] ** 0.5
        x = image
        if self.dense is not None and dense is not None:  # their channels are mixed where there are fewer cells
            x = torch.cat((image, self.dense[1:](dense.read(self.dense[0]))), dim=1)
        x = self.merge(x)
        place = self.box_tower(x)
        logits = evidence if self.score is None else self.score(x, text, evidence, presence)
        return QueryMaps(
            logits,
            self._boxes(place, text, evidence),
            None if self.quality is None else self.quality(place),
            None if self.objectness is None else self.objectness(place),
        )

    def _boxes(self, place: Tensor, text: Tensor, evidence: Tensor) -> Tensor:
        """Distances of the four edges, ``exp`` of what the network says, in strides, turned into boxes."""
        b, c, rows, columns = evidence.shape
        edges = self.edges(place)
        if self.box == "agnostic":
            distances = edges.permute(0, 2, 3, 1).unsqueeze(1)
        else:
            own = edges[:, None] + self.by_text(text)[None, :, :, None, None]
            own = own + self.by_map[:, None, None] * squashed(evidence)[:, :, None]
            distances = self.last(F.silu(own).movedim(2, -1))
        reach = torch.exp(distances.float().clamp(max=math.log(LARGEST))) * self.stride
        centre = cell_centres(rows, columns, self.stride, device=place.device)
        boxes = torch.cat((centre - reach[..., :2], centre + reach[..., 2:]), dim=-1)
        return boxes.expand(b, c, rows, columns, 4)
