"""Pictures that fit into their room, none lost in silence, and maps that say what their cells say."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from boresight.report.compact import PATCH, STEPS, cell_picture, fitting, patches


@pytest.fixture
def noise() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)) for _ in range(6)]


def read(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_pictures_fit_into_their_room(noise):
    rich, longest = fitting(noise, 10_000_000)
    assert (len(rich), longest) == (6, STEPS[0][0])
    poor, less = fitting(noise, 200_000)
    assert len(poor) == 6
    assert sum(map(len, poor)) <= 200_000 < sum(map(len, rich))
    assert max(read(poor[0]).size) == less < longest


def test_what_does_not_fit_at_the_smallest_is_left_out(noise):
    every, longest = fitting(noise, 60_000)
    assert longest == STEPS[-1][0]
    assert 0 < len(every) < 6
    assert sum(map(len, every)) <= 60_000
    assert fitting([], 100) == ([], STEPS[0][0])


def test_a_map_says_what_its_cells_say():
    values = np.array([[0.2, 0.3], [0.4, 0.5]])
    shades = np.asarray(read(cell_picture(values, 0.2, 0.5)).convert("L"))
    assert shades.tolist() == [[0, 85], [170, 255]]
    assert np.asarray(read(cell_picture(np.full((2, 3), 0.7), 0.7, 0.7)).convert("L")).tolist() == [[0] * 3] * 2
    assert np.asarray(read(cell_picture(np.array([[0.0, 1.0]]))).convert("L")).tolist() == [[0, 255]]


def test_patches_lie_inside_and_none_shows_what_another_shows():
    grey = np.random.default_rng(0).integers(0, 255, (96, 128), dtype=np.uint8)
    made = patches(grey, [(1.0, 1.0), (3.0, 3.0), (127.0, 95.0), (60.0, 50.0)])
    assert [(x, y) for x, y, _ in made] == [(0, 0), (128 - PATCH, 96 - PATCH), (40, 30)]
    assert read(made[0][2]).size == (PATCH, PATCH)
    assert read(patches(grey[:20], [(5.0, 5.0)])[0][2]).size == (PATCH, 20)
