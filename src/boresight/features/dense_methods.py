"""Ways to read text-aligned features per cell out of a CLIP vision transformer: functions, passed as arguments.

All take the *original path* (:meth:`boresight.features.clip_tower.VitTower.stream`) and compute from it, so they cost
one ordinary pass and a little. In a block, queries ``q``, keys ``k`` and values ``v`` are linear in ``h = ln_1(x)``,
and ``O`` is the output projection. Most methods are the *reduced block*: the last block only, ``z = O(A v)`` without
residual and without feed-forward part, then ``unit(ln_post(z) @ proj)``; they differ in ``A``. Rows and columns of
``A`` are the class token and the cells, the softmax goes over all of them, heads are apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from boresight.features.clip_tower import VitTower

DUAL_PATH_BLOCKS = 6
"""Blocks in which the second path of ``surgery`` and ``gem`` runs (all, in a tower with fewer)."""

SIGMA = 5.0
"""Standard deviation in cells of the neighbourhood that ``naclip`` prefers."""


class Method(Protocol):
    """A way to read features.

    Takes the tower, the original path up to some block (the input of every block and the output of the last, each
    ``[B, 1 + P, width]``) and the grid ``(h, w)`` with ``P = h * w``. Returns ``[B, 1 + P, D]``: unit vectors in the
    space of the texts, the class token first.
    """

    @property
    def __name__(self) -> str: ...

    def __call__(self, tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """See the class."""
        ...


def _self_attention(a: Tensor, v: Tensor) -> Tensor:
    """``softmax(a aᵀ / sqrt d) v``, all ``[B, heads, N, d]``."""
    return F.scaled_dot_product_attention(a, a, v)


def _reduced(tower: VitTower, stream: Sequence[Tensor], mix: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """The reduced block: ``unit(ln_post(O(mix(q, k, v))) @ proj)`` of the last block in ``stream``."""
    block = tower.blocks[len(stream) - 2]
    q, k, v, _ = tower.qkv(block, stream[-2])
    return tower.aligned(tower.attended(block, mix(q, k, v)))


def vanilla(tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """The tokens of the last block as they are."""
    return tower.aligned(stream[-1])


def maskclip(tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """``A = I``: every cell sees itself (Zhou et al. 2022, MaskCLIP)."""
    return _reduced(tower, stream, lambda q, k, v: v)


def clearclip(tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """``A = softmax(q qᵀ / sqrt d)`` (Lan et al. 2024, ClearCLIP)."""
    return _reduced(tower, stream, lambda q, k, v: _self_attention(q, v))


def sclip(tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """``A = softmax(q qᵀ / sqrt d) + softmax(k kᵀ / sqrt d)`` in a whole block, residual and feed-forward part kept.

    Wang et al. 2024, SCLIP.
    """
    block, x = tower.blocks[len(stream) - 2], stream[-2]
    q, k, v, _ = tower.qkv(block, x)
    x = x + tower.attended(block, _self_attention(q, v) + _self_attention(k, v))
    return tower.aligned(x + block.ls_2(block.mlp(block.ln_2(x))))


def neighbourhood(grid: tuple[int, int], device: torch.device) -> Tensor:
    """``[1 + P, 1 + P]`` Gaussian of the distance between cells: 1 at the cell itself, 0 for the class token."""

    def along(cells: int) -> Tensor:
        place = torch.arange(cells, dtype=torch.float32, device=device)
        return torch.exp(-((place[:, None] - place[None]) ** 2) / (2 * SIGMA**2))

    down, across = along(grid[0]), along(grid[1])
    # torch.kron, spelled out: it would fix the grid of an exported program
    return F.pad((down[:, None, :, None] * across[None, :, None, :]).flatten(2).flatten(0, 1), (1, 0, 1, 0))


_kept = lru_cache(maxsize=4)(neighbourhood)


def naclip(tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """``A = softmax(k kᵀ / sqrt d + G)``, ``G`` from :func:`neighbourhood` (Hajimiri et al. 2025, NACLIP)."""
    around = neighbourhood if torch.compiler.is_exporting() else _kept
    bias = around(grid, stream[0].device).to(stream[0].dtype)
    return _reduced(tower, stream, lambda q, k, v: F.scaled_dot_product_attention(k, k, v, attn_mask=bias))


def segearth(tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """``A`` = the sum of the softmaxes of ``q qᵀ``, ``k kᵀ`` and ``v vᵀ`` (Li et al. 2025, SegEarth-OV).

    Its other half, 0.3 times the image's own logits taken off, is done where maps are made
    (:func:`boresight.features.class_maps.similarity`).
    """
    return _reduced(
        tower, stream, lambda q, k, v: _self_attention(q, v) + _self_attention(k, v) + _self_attention(v, v)
    )


def _dual_path(
    tower: VitTower, stream: Sequence[Tensor], mix: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """A second path beside the original: ``y <- y + O(mix(q, k, v, h))`` with ``q, k, v, h`` of the *original* path.

    It starts from the original path before the last ``DUAL_PATH_BLOCKS`` blocks, has no feed-forward part, and
    returns ``y`` before ``ln_post``.
    """
    end = len(stream) - 1
    start = max(0, end - DUAL_PATH_BLOCKS)
    y = stream[start]
    for i in range(start, end):
        y = y + tower.attended(tower.blocks[i], mix(*tower.qkv(tower.blocks[i], stream[i])))
    return y


def surgery(tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Dual path with ``A = softmax(v vᵀ / sqrt d)``; the class token is the original one.

    Li et al. 2023, CLIP Surgery. Its other half, what all queries share taken off, is done where maps are made
    (:func:`boresight.features.class_maps.similarity`).
    """
    y = _dual_path(tower, stream, lambda q, k, v, h: _self_attention(v, v))
    return tower.aligned(torch.cat((stream[-1][:, :1], y[:, 1:]), dim=1))


def gem(tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Dual path with the mean over ``p`` in ``{q, k, v}`` of ``softmax(t p̂ p̂ᵀ) v``, ``p̂`` of unit length.

    Before that, ``p̂`` is once replaced by ``softmax(t p̂ p̂ᵀ) p̂``, scaled to unit length again. The temperature ``t`` is
    the mean length of the tokens ``h`` of the image over ``sqrt d``. Bousselham et al. 2024, GEM.
    """

    def mix(q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
        t = (h.norm(dim=-1).mean(dim=-1) / q.shape[-1] ** 0.5)[:, None, None, None]
        total = torch.zeros_like(v)
        for p in (q, k, v):
            p = F.normalize(p, dim=-1)
            p = F.normalize(F.scaled_dot_product_attention(p * t, p, p, scale=1.0), dim=-1)
            total = total + F.scaled_dot_product_attention(p * t, p, v, scale=1.0)
        return total / 3

    return tower.aligned(_dual_path(tower, stream, mix))


_BY_NAME: dict[str, Method] = {
    f.__name__: f for f in (surgery, vanilla, maskclip, clearclip, sclip, naclip, segearth, gem)
}

METHODS: tuple[str, ...] = tuple(_BY_NAME)
"""The names that :func:`method` knows."""

DEFAULT = "naclip"
"""The best measured at patches of 32 pixels."""


def method(name: str) -> Method:
    """The method of this name; UserError names its nearest neighbour."""
    if name not in _BY_NAME:
        near = did_you_mean(name, METHODS) or f": use one of {', '.join(METHODS)}"
        raise UserError(f"method={name}: no such class map{near}")
    return _BY_NAME[name]


def multi_layer(chosen: Method, layers: int) -> Method:
    """``chosen`` applied at each of the last ``layers`` blocks as if it were the last, and averaged.

    Class maps are linear in the features, so the mean of the features gives the mean of the maps (Sun et al. 2024,
    CLIPer, average maps). The result is a mean of unit vectors, shorter where the layers disagree.
    """
    if layers < 1:
        raise UserError(f"average={layers}: at least one layer must be read")

    def averaged(tower: VitTower, stream: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        depth = len(stream) - 1
        if layers > depth:
            raise UserError(f"average={layers}: this encoder has {depth} layers")
        maps = [chosen(tower, stream[: depth + 1 - i], grid) for i in range(layers)]
        return torch.stack(maps).mean(dim=0)

    averaged.__name__ = f"{chosen.__name__}_mean{layers}"
    return averaged
