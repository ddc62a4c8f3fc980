"""The smallest run that is a run: made frames of 64x80 pixels, an encoder of four channels, six steps."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from boresight.run.config import PointSettings
from boresight.run.point import POINT
from boresight.run.recipe import Recipe
from boresight.run.record import RunFolder

TINY = {
    "data.preset": "easy",
    "data.height": 64,
    "data.width": 80,
    "data.frames": 8,
    "data.val_frames": 4,
    "data.test_frames": 4,
    "augment.crop": 32,
    "encoder.widths": (4, 4, 4, 4),
    "encoder.channels": 4,
    "train.steps": 6,
    "train.batch": 2,
    "train.warmup": 2,
    "train.validate_every": 3,
    "train.checkpoint_every": 2,
    "train.threads": 1,
}


def changed(settings: PointSettings, keys: dict[str, Any]) -> PointSettings:
    """The settings with some keys (``group.name``) replaced."""
    for key, value in keys.items():
        group, name = key.split(".")
        settings = replace(settings, **{group: replace(getattr(settings, group), **{name: value})})
    return settings


@pytest.fixture(scope="session")
def tiny() -> Callable[..., PointSettings]:
    """``tiny({"train.steps": 3})``: the tiny settings with these keys."""
    return lambda keys=None: changed(PointSettings(), TINY | (keys or {}))


@pytest.fixture(scope="session")
def arguments() -> Callable[..., list[str]]:
    """The same for the command line."""

    def words(keys: dict[str, Any] | None = None) -> list[str]:
        pairs = (TINY | (keys or {})).items()
        return [f"--{k}={list(v) if isinstance(v, tuple) else v}" for k, v in pairs]

    return words


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory) -> RunFolder:
    """A finished tiny run. Look at it, do not touch it."""
    from boresight.run.point import POINT
    from boresight.run.train import train

    run = RunFolder(tmp_path_factory.mktemp("runs") / "trained")
    train(POINT, tiny(), run.root, quiet=True)
    return run


@pytest.fixture(scope="session")
def loud(trained, tmp_path_factory) -> RunFolder:
    """The tiny run with scores all over [0, 1]: their order does not hang on the last digits. Do not touch it."""
    from boresight.run.checkpoint import load_checkpoint, save_checkpoint

    run = RunFolder(shutil.copytree(trained.root, tmp_path_factory.mktemp("runs") / "loud"))
    path = run.checkpoints / "last.safetensors"
    checkpoint = load_checkpoint(path)
    loud = {"head.score.2.weight": 4000.0, "head.score.2.bias": 0.0}
    weights = {k: v * loud.get(k, 1.0) for k, v in checkpoint.weights.items()}
    save_checkpoint(path, replace(checkpoint, weights=weights))
    return run


@pytest.fixture(scope="session")
def exported(loud, tmp_path_factory) -> Path:
    """It as an ONNX file."""
    from boresight.run.export import export_run

    out = tmp_path_factory.mktemp("exported") / "point.onnx"
    export_run(loud, out=out)
    return out


@pytest.fixture
def copied(trained, tmp_path) -> RunFolder:
    """A copy of the finished run, to be spoilt."""

    return RunFolder(Path(shutil.copytree(trained.root, tmp_path / "copied")))


@pytest.fixture
def leftovers() -> Callable[[Path], list[Path]]:
    """What should not lie in a folder when everything is done: pieces of files."""
    return lambda folder: sorted(p for p in folder.rglob("*") if ".partial" in p.name)


def without_batch_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(1, child.num_features))
        else:
            without_batch_norm(child)
    return module


@pytest.fixture(scope="session")
def unbatched() -> Recipe:
    """The point recipe without batch statistics: those depend on how a batch is cut, a frame's own do not."""
    return replace(POINT, build=lambda settings, classes: without_batch_norm(POINT.build(settings, classes)))


TINY_TEXT = {
    "data.kinds": ("vehicle", "storage tank"),
    "data.colours": ("yellow", "black"),
    "data.height": 80,
    "data.width": 80,
    "data.frames": 6,
    "data.val_frames": 2,
    "data.test_frames": 4,
    "clip.window": 64,
    "encoder.widths": (4, 6, 8, 8),
    "encoder.channels": 8,
    "head.width": 8,
    "head.embed": 8,
    "head.depth": 1,
    "train.steps": 6,
    "train.batch": 2,
    "train.warmup": 1,
    "train.validate_every": 3,
    "train.checkpoint_every": 2,
    "train.threads": 1,
}
"""Made scenes of 80 pixels: the smallest that has room for a storage tank. Each colour is held out for one kind."""


@pytest.fixture(scope="session")
def tiny_text() -> Callable[..., Any]:
    """``tiny_text({"train.steps": 3}, kind=LocaliseSettings)``: settings of a tiny run of boxes."""
    from boresight.run.config_text import TextSettings

    return lambda keys=None, kind=TextSettings: changed(kind(), TINY_TEXT | (keys or {}))


@pytest.fixture(scope="session")
def loaded_clip() -> Any:
    """The encoder that comes with the package, read from its file once."""
    from boresight.features.clip_load import load_clip

    return load_clip("boresight-aerial")


@contextmanager
def reading(clip: Any) -> Iterator[None]:
    """Within, whatever loads an encoder gets this one. (Not for the session: other tests want the real loader.)"""
    from boresight.run import text_parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_parts, "load_clip", lambda name, weights=None, **more: clip)
        yield


@pytest.fixture(scope="module")
def one_clip(loaded_clip) -> Iterator[Any]:
    """The shipped encoder, loaded once for all runs of these tests."""
    with reading(loaded_clip):
        yield loaded_clip


@pytest.fixture(scope="session")
def trained_text(tiny_text, loaded_clip, tmp_path_factory) -> RunFolder:
    """A finished tiny run of `text`. Look at it, do not touch it."""
    from boresight.run.text import TEXT
    from boresight.run.train import train

    run = RunFolder(tmp_path_factory.mktemp("runs") / "text")
    with reading(loaded_clip):
        train(TEXT, tiny_text(), run.root, quiet=True)
    return run


@pytest.fixture(scope="session")
def trained_localise(tiny_text, loaded_clip, tmp_path_factory) -> RunFolder:
    """A finished tiny run of `localise`. Look at it, do not touch it."""
    from boresight.run.config_text import LocaliseSettings
    from boresight.run.localise import LOCALISE
    from boresight.run.train import train

    run = RunFolder(tmp_path_factory.mktemp("runs") / "localise")
    with reading(loaded_clip):
        train(LOCALISE, tiny_text(kind=LocaliseSettings), run.root, quiet=True)
    return run


@pytest.fixture
def in_parts() -> Callable[[], AbstractContextManager[list[range]]]:
    """Within, frames are judged in three parts, as three processes would; the parts are told."""

    @contextmanager
    def judged_in_parts() -> Iterator[list[range]]:
        from boresight.run import localise, processes, refine_examine

        parts: list[range] = []

        def shared(count: int, work: Callable[[range], list[Any]]) -> list[Any]:
            cuts = [count * k // 3 for k in range(4)]
            parts.extend(range(a, b) for a, b in pairwise(cuts))
            return [pickle.loads(pickle.dumps(one)) for a, b in pairwise(cuts) for one in work(range(a, b))]

        with pytest.MonkeyPatch.context() as patch:
            for module in (localise, processes, refine_examine):
                patch.setattr(module, "shared", shared)
            yield parts

    return judged_in_parts
