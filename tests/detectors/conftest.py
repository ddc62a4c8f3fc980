"""What the tests of other people's detectors share: scenes, models with random weights, and what must not change."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boresight.core.types import Detections, Scene


class TinyPyramid(nn.Module):
    """Strides 8, 16, 32: a few thousand parameters."""

    def __init__(self, channels: int = 32, levels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 7, 8, 3)
        self.down = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(levels - 1))
        self.drop = nn.Dropout(0.5)  # in training mode the output would be another one, and the random state move
        self.out_channels = channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = [self.drop(self.stem(x).relu())]
        for layer in self.down:
            maps.append(layer(maps[-1]).relu())
        return OrderedDict((str(i), m) for i, m in enumerate(maps))


def _scene(height: int = 90, width: int = 130, seed: int = 0, classes: int = 3, count: int = 4) -> Scene:
    draw = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=draw, dtype=torch.uint8)
    side = torch.tensor([width, height] * 2)
    middle, half = torch.rand(count, 2, generator=draw) * 0.6 + 0.2, torch.rand(count, 2, generator=draw) * 0.15 + 0.04
    labels = torch.randint(0, classes, (count,), generator=draw)
    return Scene(image, f"scene {seed}", boxes=torch.cat((middle - half, middle + half), 1) * side, labels=labels)


def _rescaled(model: nn.Module, seed: int = 0, gain: float = 1.0) -> nn.Module:
    """Random weights that let the output vary from cell to cell; the libraries' own are for a start of training."""
    draw = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        fan = p[0].numel() if p.ndim > 1 else 1
        spread = gain * (2 / fan) ** 0.5 if p.ndim > 1 else 0.1
        p.data = torch.randn(p.shape, generator=draw) * spread + (1.0 if p.ndim == 1 and p.data.mean() > 0.9 else 0.0)
    return model


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """The model's modes, values and gradients, and the three random states, are afterwards what they were before."""

    def state() -> tuple[object, ...]:
        values = [v.clone() for v in model.state_dict().values()]
        modes = [m.training for m in model.modules()]
        wanted = [(p.requires_grad, p.grad is None) for p in model.parameters()]
        return values, modes, wanted, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    before = state()
    yield
    after = state()
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))  # type: ignore[call-overload]
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])
    assert before[4:] == after[4:]


def _same(found: Detections, boxes: Tensor, scores: Tensor, labels: Tensor, least: int = 10) -> None:
    """Equal detections, whatever their order among scores that are equal; at least so many, else nothing was tested."""
    assert len(found) == len(scores) >= least
    ours = found.scores.argsort(descending=True, stable=True)
    theirs = scores.argsort(descending=True, stable=True)
    torch.testing.assert_close(found.scores[ours], scores[theirs], rtol=0, atol=1e-4)
    assert torch.equal(found.labels[ours], labels[theirs])
    torch.testing.assert_close(found.boxes[ours], boxes[theirs], rtol=1e-6, atol=1e-4)


@pytest.fixture(scope="session")
def tiny_pyramid() -> type[TinyPyramid]:
    return TinyPyramid


@pytest.fixture(scope="session")
def scene_of() -> Callable[..., Scene]:
    return _scene


@pytest.fixture(scope="session")
def rescaled() -> Callable[..., nn.Module]:
    return _rescaled


@pytest.fixture(scope="session")
def left_alone() -> Callable:
    return _left_alone


@pytest.fixture(scope="session")
def same_detections() -> Callable[..., None]:
    return _same
