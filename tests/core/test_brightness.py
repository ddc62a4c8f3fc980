"""How bright a frame is: as tensors say, and the same in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boresight.core.brightness import brightness, brightness_of_parts
from boresight.core.types import frame_brightness


def test_brightness_is_that_of_scenes() -> None:
    frame = np.random.default_rng(0).integers(0, 65_535, (1, 30, 40)).astype(np.float32)
    np.testing.assert_allclose(brightness(frame), frame_brightness(torch.from_numpy(frame)), rtol=1e-12)
    assert brightness(np.full((1, 2, 2), 7, dtype=np.float32)) == (7.0, 1.0)


@pytest.mark.parametrize("sides", [(16, 16), (7, 40), (1, 1), (100, 100)])
def test_parts_are_as_bright_as_the_whole(sides: tuple[int, int]) -> None:
    """A level far above the spread, where squares of values would lose the digits."""
    frame = np.random.default_rng(0).normal(60_000, 0.5, (1, 30, 40)).astype(np.float32)
    tall, wide = sides
    parts = [frame[:, y : y + tall, x : x + wide] for y in range(0, 30, tall) for x in range(0, 40, wide)]
    np.testing.assert_allclose(brightness_of_parts([*parts, frame[:, :0]]), brightness(frame), rtol=1e-12)


def test_a_constant_frame_in_parts() -> None:
    parts = [np.full((1, 3, 3), 0.1, dtype=np.float32)] * 7
    assert brightness_of_parts(parts) == brightness(np.concatenate(parts)) == (float(np.float32(0.1)), 1.0)
    with pytest.raises(ValueError, match="without pixels"):
        brightness_of_parts([])
