"""The visual towers of open_clip, read block by block at any input size; nothing is ever written into them.

open_clip's own forward accepts one image size only. Here the positions are interpolated (bilinear, as the reference
code of CLIP Surgery does) into a new tensor for every call, and the parameters stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boresight.core.errors import UserError
from boresight.features import dense_methods


class TowerOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        aligned: ``[B, D, h, w]`` text-aligned features, unit vectors (with several layers: the mean of unit vectors).
        layers: ``[B, K, h, w]`` raw intermediate features, one layer after the other (K is 0 when none was asked for).
        pooled: ``[B, D]`` unit vectors, the image embedding that the model was trained to give.
    """

    aligned: Tensor
    layers: Tensor
    pooled: Tensor


class Tower(Protocol):
    """What :class:`boresight.features.clip.FrozenClip` asks of a visual tower.

    Attributes:
        patch: pixels a cell.
        width: channels of one raw layer (of the last one where they differ).
        dim: channels of the text-aligned space.
        depth: number of layers that can be asked for: 1 is the last, ``depth`` the first.
    """

    patch: int
    width: int
    dim: int
    depth: int

    def channels(self, layers: Sequence[int]) -> int:
        """Channels of these raw layers together."""
        ...

    def dense(
        self, pixels: Tensor, method: str | dense_methods.Method, average: int, layers: Sequence[int]
    ) -> TowerOutput:
        """``[B, 3, H, W]`` normalised pixels, sides multiples of ``patch``, to features on the grid of cells."""
        ...


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """Scale to unit length along ``dim``."""
    return F.normalize(x, dim=dim)


def interpolated_positions(positions: Tensor, native: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Positions ``[1 + P, D]`` of a native grid at another one, ``[1 + h * w, D]``; the class token keeps its own."""
    if not torch.compiler.is_exporting() and grid == native:  # an exported program is not made for one grid
        return positions
    first, rest = positions[:1], positions[1:]
    image = rest.T.reshape(1, -1, *native)
    image = F.interpolate(image, size=grid, mode="bilinear", align_corners=False)
    return torch.cat((first, image.flatten(2)[0].T))


def _wanted(layers: Sequence[int], depth: int) -> list[int]:
    """Turn layers counted from the end (1 is the last) into 0..depth-1."""
    bad = [i for i in layers if not 1 <= i <= depth]
    if bad:
        raise UserError(f"layers={tuple(layers)}: this encoder has layers 1 (the last) to {depth}, not {bad[0]}")
    return [depth - i for i in layers]


class VitTower:
    """A vision transformer of open_clip with standard blocks (``[B, 1 + P, width]``, batch first)."""

    def __init__(self, visual: Any) -> None:
        if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg"):
            raise UserError(
                "this visual tower pools by attention (as CoCa does), its cells are not aligned with text:"
                " use a model that pools by token or average"
            )
        if not all(isinstance(b.attn, nn.MultiheadAttention) for b in visual.transformer.resblocks):
            raise UserError(
                "this visual tower has custom attention blocks, for which no class map is defined: use a plain ViT"
            )
        if visual.patch_size[0] != visual.patch_size[1]:
            raise UserError(f"this visual tower has patches of {visual.patch_size}: only square ones are supported")
        self.visual = visual
        self.blocks = list(visual.transformer.resblocks)
        self.patch = int(visual.patch_size[0])
        self.width = int(visual.conv1.out_channels)
        self.dim = int(visual.output_dim)
        self.depth = len(self.blocks)

    def channels(self, layers: Sequence[int]) -> int:
        """Channels of these raw layers together."""
        return self.width * len(_wanted(layers, self.depth))

    def stream(self, pixels: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """The original path (input of every block, output of the last, each ``[B, 1 + P, width]``) and the grid."""
        v = self.visual
        x = v.conv1(pixels)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat((v.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x), dim=1)
        x = v.ln_pre(x + interpolated_positions(v.positional_embedding, v.grid_size, grid).to(x.dtype))
        stream = [x]
        for block in self.blocks:
            stream.append(block(stream[-1]))
        return stream, grid

    def qkv(self, block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, key and value ``[B, heads, N, d]`` of tokens ``x [B, N, width]`` in ``block``, and ``ln_1(x)``."""
        h = block.ln_1(x)
        parts = F.linear(h, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (p.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for p in parts)
        return q, k, v, h

    def attended(self, block: Any, mixed: Tensor) -> Tensor:
        """Mixed values ``[B, heads, N, d]`` through the block's output projection: ``[B, N, width]``."""
        return block.ls_1(block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))

    def aligned(self, tokens: Tensor) -> Tensor:
        """Tokens ``[B, N, width]`` as unit vectors beside the texts: ``[B, N, dim]``."""
        return unit(self.visual.ln_post(tokens) @ self.visual.proj)

    def pooled(self, last: Tensor) -> Tensor:
        """The model's own image embedding ``[B, dim]`` from the output of the last block."""
        v = self.visual
        x = last if v.final_ln_after_pool else v.ln_post(last)
        x = x[:, 0] if v.pool_type == "tok" else x[:, 1:].mean(dim=1)
        return unit((v.ln_post(x) if v.final_ln_after_pool else x) @ v.proj)

    def dense(
        self, pixels: Tensor, method: str | dense_methods.Method, average: int, layers: Sequence[int]
    ) -> TowerOutput:
        """See :class:`Tower`. ``average`` layers from the last are averaged (:func:`dense_methods.multi_layer`)."""
        chosen = dense_methods.method(method) if isinstance(method, str) else method
        chosen = chosen if average == 1 else dense_methods.multi_layer(chosen, average)
        stream, grid = self.stream(pixels)
        raw = [stream[i + 1][:, 1:] for i in _wanted(layers, self.depth)]
        wide = torch.cat(raw, dim=-1) if raw else pixels.new_zeros(pixels.shape[0], grid[0] * grid[1], 0)
        return TowerOutput(
            aligned=_as_map(chosen(self, stream, grid)[:, 1:], grid),
            layers=_as_map(wide, grid),
            pooled=self.pooled(stream[-1]),
        )


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, grid).contiguous()


class ResnetTower:
    """A ModifiedResNet of open_clip (RN50 and its kin): cells of 32 pixels, pooled by one attention layer.

    Two methods are defined for it: ``maskclip`` (Zhou et al. 2022: each cell through the value and output projections
    of the pooling layer, without positions) and ``vanilla`` (the pooling layer asked at every cell).
    """

    methods = ("maskclip", "vanilla")

    def __init__(self, visual: Any) -> None:
        self.visual = visual
        self.patch = 32
        self.width = int(visual.attnpool.positional_embedding.shape[1])
        self.dim = int(visual.output_dim)
        self.depth = 5

    def channels(self, layers: Sequence[int]) -> int:
        """Channels of these raw stages together (stem, then the four stages)."""
        widths = (self.width // 32, self.width // 8, self.width // 4, self.width // 2, self.width)
        return sum(widths[i] for i in _wanted(layers, self.depth))

    def _attention(self, x: Tensor) -> Tensor:
        """The pooling layer asked at the mean and at every cell: ``[B, C, h, w]`` to ``[B, 1 + P, dim]``."""
        pool, grid = self.visual.attnpool, (int(x.shape[2]), int(x.shape[3]))
        side = round((len(pool.positional_embedding) - 1) ** 0.5)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat((tokens.mean(dim=1, keepdim=True), tokens), dim=1)
        tokens = tokens + interpolated_positions(pool.positional_embedding, (side, side), grid).to(x.dtype)
        q, k, v = (
            project(tokens).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
            for project in (pool.q_proj, pool.k_proj, pool.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return unit(pool.c_proj(mixed.transpose(1, 2).flatten(2)))

    def dense(
        self, pixels: Tensor, method: str | dense_methods.Method, average: int, layers: Sequence[int]
    ) -> TowerOutput:
        """See :class:`Tower`. Raw stages finer than the grid of cells are averaged onto it."""
        if method not in self.methods:
            name = method if isinstance(method, str) else method.__name__
            raise UserError(f"method={name} needs a vision transformer; this is a ResNet: use one of {self.methods}")
        if average != 1:
            raise UserError(f"average={average}: the layers of a ResNet cannot be averaged, use average=1")
        v, stages = self.visual, []
        x = v.stem(pixels)
        stages.append(x)
        for stage in (v.layer1, v.layer2, v.layer3, v.layer4):
            stages.append(stage(stages[-1]))
        last = stages[-1]
        grid = (int(last.shape[2]), int(last.shape[3]))
        attended = self._attention(last)
        if method == "maskclip":
            cells = unit(v.attnpool.c_proj(v.attnpool.v_proj(last.flatten(2).transpose(1, 2))))
        else:
            cells = attended[:, 1:]
        raw = [F.adaptive_avg_pool2d(stages[i], grid) for i in _wanted(layers, self.depth)]
        return TowerOutput(
            aligned=_as_map(cells, grid),
            layers=torch.cat(raw, dim=1) if raw else last.new_zeros(last.shape[0], 0, *grid),
            pooled=attended[:, 0],
        )


def tower_of(visual: Any) -> Tower:
    """The tower for an open_clip visual module; UserError for one that has no cells aligned with text (timm)."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, VisionTransformer):
        return VitTower(visual)
    if isinstance(visual, ModifiedResNet):
        return ResnetTower(visual)
    raise UserError(
        f"visual towers of type {type(visual).__name__} (timm) have no class maps here:"
        " use an open_clip ViT or ModifiedResNet"
    )
