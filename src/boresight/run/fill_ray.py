"""Fills a feature store by a Ray Data job: batches of files to actors, each with an encoder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boresight.core.errors import UserError
from boresight.run.config_refine import FeatureSettings
from boresight.run.fill import Filled, Filler

BATCH = 64
"""Files that an actor takes at a time."""


class _Actor:
    """Takes batches of files."""

    def __init__(self, settings: FeatureSettings, skip: bool) -> None:
        self.filler = Filler(settings, skip=skip)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        done = self.filler.take([Path(str(file)) for file in batch["file"]])
        self.filler.store.close()
        row = {"images": [done.images], "computed": [done.computed], "decoded": [done.decoded]}
        return {k: np.array(v) for k, v in row.items()} | {"skipped": np.array(["\n".join(done.skipped)], dtype=object)}


def fill_with_ray(
    files: Sequence[Path], settings: FeatureSettings, *, skip: bool = False, quiet: bool = False
) -> list[Filled]:
    """See :func:`boresight.run.fill.fill`. The store's folder must be one that all machines see.

    Raises UserError where Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--engine ray: Ray is not installed: pip install 'boresight[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = not quiet
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    actors = max(1, int(ray.cluster_resources()["GPU" if gpus else "CPU"]))
    absolute: list[dict[str, Any]] = [{"file": str(file.absolute())} for file in files]
    rows = (
        ray.data.from_items(absolute, override_num_blocks=max(1, -(-len(files) // BATCH)))
        .map_batches(
            _Actor,
            fn_constructor_args=(settings, skip),
            batch_size=BATCH,
            concurrency=(1, min(actors, -(-len(files) // BATCH))),
            num_gpus=gpus,
        )
        .take_all()
    )
    return [
        Filled(int(r["images"]), int(r["computed"]), int(r["decoded"]), tuple(filter(None, r["skipped"].split("\n"))))
        for r in rows
    ]
