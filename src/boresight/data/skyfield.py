"""Synthetic frames of dim point targets whose truth is known, made electron by electron.

The order is that of a camera: light of the background and of the targets (:mod:`~boresight.data.sky_background`,
:mod:`~boresight.data.sky_target`), photon noise, readout, numbers (:mod:`~boresight.data.sky_sensor`). The knobs are
:class:`~boresight.data.sky_settings.Sky`. The brightness of a target follows from its SNR and the noise where it lies;
no target is dropped for being invisible.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from boresight.core.errors import UserError
from boresight.core.types import Points, Scene, frame_brightness
from boresight.data.sky_background import mean_background
from boresight.data.sky_sensor import expose
from boresight.data.sky_settings import PRESETS, Sky, preset
from boresight.data.sky_target import Optics, flux_of, local_noise, place_targets

__all__ = ["PRESETS", "Sky", "Skyfield", "preset"]


class Skyfield:
    """A sequence of synthetic frames; frame ``i`` is a pure function of the sky, ``seed`` and ``first + i``.

    Background, targets and camera draw from streams of their own: changing a knob of one leaves the draws of the others
    (another ``snr`` keeps the sky, the hot pixels and the places of the targets).

    Args:
        sky: the knobs, e.g. ``preset("default")``.
        count: number of frames.
        seed: from 0.
        first: index of the first frame, from 0: ``Skyfield(sky, count=10, first=90)`` are the last ten of a hundred.

    Raises:
        UserError: a negative count, seed or first.
    """

    def __init__(self, sky: Sky, *, count: int, seed: int = 0, first: int = 0) -> None:
        for name, value in (("count", count), ("seed", seed), ("first", first)):
            if value < 0:
                raise UserError(f"skyfield {name}: {value} must not be negative")
        self.sky, self.count, self.seed, self.first = sky, count, seed, first

    def __len__(self) -> int:
        return self.count

    @property
    def names(self) -> list[str]:
        """The names of all frames, in order; no frame is made."""
        return [self._name(i) for i in range(self.count)]

    def __getitem__(self, i: int) -> Scene:
        """Frame ``i`` of ``0..count - 1``.

        Returns a Scene with ``image [1, H, W]`` float32 in raw ADU and points with ``xy`` (pixel frame), ``snr``,
        ``flux`` (electrons) and ``ignore`` (SNR below ``sky.demand_snr``); ``mask`` is None. Raises ``IndexError`` past
        the end, and ``UserError`` if the targets do not fit into the frame.
        """
        if not 0 <= i < self.count:
            raise IndexError(f"frame {i} of {self.count}")
        index = self.first + i
        streams = np.random.SeedSequence(self.seed, spawn_key=(index,)).spawn(3)
        scene, aim, camera = (np.random.Generator(np.random.SFC64(s)) for s in streams)
        light = mean_background(scene, self.sky)
        points = _add_targets(aim, light, self.sky)
        image = torch.from_numpy(expose(camera, light, self.sky))[None]
        level, spread = frame_brightness(image)
        return Scene(image, self._name(i), index + 1, points, level=level, spread=spread)

    def __iter__(self) -> Iterator[Scene]:
        return (self[i] for i in range(self.count))

    def _name(self, i: int) -> str:
        return f"sky_{self.seed}_{self.first + i:06d}"


def _add_targets(rng: np.random.Generator, light: np.ndarray, sky: Sky) -> Points:
    """Draw a frame's targets and add their electrons to ``light [H, W]`` in place; return their truth."""
    empty, count = rng.random() < sky.empty_share, int(rng.integers(sky.targets[0], sky.targets[1] + 1))
    snr = rng.uniform(*sky.snr, sky.targets[1])[: 0 if empty else count]
    optics = Optics.draw(rng, sky)
    xy = place_targets(rng, len(snr), sky)
    images = [optics.image(x, y, (sky.height, sky.width)) for x, y in xy]
    noise = [local_noise(x, y, light, sky) for x, y in xy]  # before any target is added: background alone
    flux = [flux_of(s, share, n) for s, (_, share), n in zip(snr, images, noise, strict=True)]
    for amount, (window, share) in zip(flux, images, strict=True):
        light[window] += (amount * share).astype(np.float32)
    dim = torch.from_numpy(snr < sky.demand_snr)
    return Points.of(
        torch.from_numpy(xy.astype(np.float32)),
        ignore=dim,
        snr=torch.from_numpy(snr.astype(np.float32)),
        flux=torch.tensor(flux, dtype=torch.float32),
    )
