"""Fills a feature store: every image of a folder once, by one process, by several, or by a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.data.image import IMAGE_SUFFIXES
from boresight.data.rgb_image import read_rgb
from boresight.features.cache_remembered import Remembered
from boresight.features.feature_store import Named
from boresight.run.config_refine import FeatureSettings
from boresight.run.feature_parts import disk_store, frozen_encoder
from boresight.run.progress import Progress
from boresight.run.rank import rank_of


@dataclass(frozen=True)
class Filled:
    """What a fill did.

    Attributes:
        images: looked at by this process.
        computed: of them, those whose features were computed here.
        decoded: of them, those whose file had to be read to know what it shows.
        skipped: files that cannot be read, with the reason.
    """

    images: int
    computed: int
    decoded: int
    skipped: tuple[str, ...] = ()


def image_files(source: Path) -> list[Path]:
    """All image files under a folder, or the file itself, in the order of their names.

    Raises UserError where there are none.
    """
    if source.is_file():
        return [source]
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise UserError(f"{source}: no image files there: give a folder of images, or a data set")
    return found


class Filler:
    """An encoder and a store, ready to take images.

    Args:
        settings: of encoder and store, as in a configuration file; ``store_folder`` names the store.
        skip: leave out files that cannot be read, instead of stopping at the first.

    The number of CPU threads is set to 1: with another one the last digits may differ, and items that several processes
    make are to be the same bytes.
    """

    def __init__(self, settings: FeatureSettings, *, skip: bool = False) -> None:
        torch.set_num_threads(1)
        self.skip, self.batch = skip, settings.batch
        self.encoder = frozen_encoder(settings)
        if torch.cuda.is_available():
            self.encoder.to("cuda")
        self.store = disk_store(settings)
        self.store.describe(self.encoder.fingerprint, {"encoder": self.encoder.name, **self.encoder.about})
        self.remembered = Remembered(self.store.folder, self.store.session)

    def take(self, files: Sequence[Path]) -> Filled:
        """Make sure that the features of these files are in the store."""
        images: dict[str, Tensor | Path] = {}
        skipped: list[str] = []
        before, read = self.store.counters.copy(), self.remembered.read
        for file in files:
            try:
                key, image = self.remembered.key(file, read_rgb)
            except UserError as error:
                if not self.skip:
                    raise
                skipped.append(str(error))
                continue
            name = f"{self.encoder.fingerprint}-{key}"
            if name not in self.store:
                images.setdefault(name, file if image is None else image)

        def compute(keys: list[str]) -> list[Named]:
            given = [images[key] for key in keys]
            pixels = [read_rgb(one) if isinstance(one, Path) else one for one in given]
            return [maps.tensors() for maps in self.encoder.encode(pixels)]

        self.store.get_many(list(images), compute, batch=self.batch)
        done = self.store.counters.since(before)
        return Filled(len(files), done.misses, self.remembered.read - read, tuple(skipped))


def share_of(files: Sequence[Path]) -> tuple[list[Path], int, int]:
    """The files of this process, its number and how many there are, as ``torchrun`` and ``accelerate launch`` say."""
    rank, world = rank_of()
    return list(files[rank::world]), rank, world


def fill(
    source: Path, settings: FeatureSettings, *, engine: str = "loop", skip: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Fill the store of ``settings`` with the features of all images under ``source``.

    What is there already is found by its name, size and time of change, without decoding: a fill that was stopped goes
    on where it was. Under ``torchrun`` each process takes its share. ``engine`` ``ray`` gives batches to actors of a
    Ray cluster (of this machine, where there is no other); both engines write the same bytes.

    Returns:
        Counts of images, computed, decoded and skipped; of this process, or of all actors.

    Raises UserError for a folder without images and, unless ``skip``, for the first file that cannot be read.
    """
    if not settings.store_folder:
        raise UserError("--into is missing: name the folder of the feature store")
    files = image_files(source)
    if engine == "ray":
        from boresight.run.fill_ray import fill_with_ray

        parts, rank, world = fill_with_ray(files, settings, skip=skip, quiet=quiet), 0, 1
    else:
        mine, rank, world = share_of(files)
        parts = _in_a_loop(mine, settings, skip=skip, quiet=quiet or rank > 0)
    return {
        "images": sum(p.images for p in parts),
        "computed": sum(p.computed for p in parts),
        "decoded": sum(p.decoded for p in parts),
        "skipped": [words for p in parts for words in p.skipped],
        "engine": engine,
        "rank": rank,
        "processes": world,
        "folder": settings.store_folder,
    }


def _in_a_loop(files: Sequence[Path], settings: FeatureSettings, *, skip: bool, quiet: bool) -> list[Filled]:
    filler, parts = Filler(settings, skip=skip), []
    step = max(16, 4 * settings.batch)
    with Progress(len(files), label="fill", quiet=quiet) as bar:
        for start in range(0, len(files), step):
            parts.append(filler.take(files[start : start + step]))
            bar.step(parts[-1].images)
    filler.store.close()
    return parts
