"""Trained detectors as folders that are handed on: saved, shared on the Hugging Face hub, and loaded again.

A folder holds ``model.safetensors`` (weights, with all that is needed to rebuild the detector in its header),
``config.json`` (the same without the weights, to read) and ``README.md`` (a model card). Nothing in it can run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import ModelHubMixin, snapshot_download

from boresight import __version__
from boresight.core.errors import UserError
from boresight.core.types import Detections, Scene
from boresight.detectors.detector import Detector
from boresight.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from boresight.run.hub_card import card
from boresight.run.parse import merged
from boresight.run.predict import Trained, load_trained, rebuilt
from boresight.run.record import RunFolder, write_text

FORMAT = "boresight-model-1"

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


class Pretrained(ModelHubMixin, library_name="boresight", tags=["boresight"]):  # type: ignore[call-arg]
    """A trained detector that can be handed on.

    Args:
        trained: the detector, its settings, and what its weights came with.
        evaluation: figures of a judged split, which the model card tells.

    Of the mixin: ``save_pretrained(folder)``, ``push_to_hub(repo_id)`` and
    ``from_pretrained(folder or repo_id, revision=..., token=..., cache_dir=..., local_files_only=...)``.
    """

    _hub_mixin_config: ClassVar[dict[str, Any]] = {}  # else the mixin copies the weights to look for JSON in them

    def __init__(self, trained: Trained, evaluation: Mapping[str, Any] | None = None) -> None:
        self.trained, self.evaluation = trained, dict(evaluation or {})

    @classmethod
    def of_run(cls, run: RunFolder | str | Path, which: str = "last") -> Self:
        """The detector of a run folder, with the figures of its last evaluation."""
        run = run if isinstance(run, RunFolder) else RunFolder.existing(run)
        trained = load_trained(run, which)
        figures = json.loads(run.evaluation.read_text(encoding="utf-8")) if run.evaluation.is_file() else {}
        plain = {k: v for k, v in figures.items() if isinstance(v, (int, float, str)) and k != "schema_version"}
        return cls(trained, plain)

    @property
    def detector(self) -> Detector:
        """The module, in inference mode."""
        return self.trained.detector

    @property
    def checkpoint(self) -> Checkpoint:
        """Weights, settings, classes, threshold, figures."""
        return self.trained.checkpoint

    @torch.inference_mode()
    def __call__(self, scenes: Sequence[Scene], threshold: float | None = None) -> list[Detections]:
        """What is found in each scene from the threshold on (default: the one chosen on validation), on the CPU."""
        least = self.checkpoint.threshold if threshold is None else threshold
        device = next(self.detector.parameters()).device
        every = [self.detector.decode(self.detector([scene.to(device)]))[0].to("cpu") for scene in scenes]
        return [found.select(found.scores >= least) for found in every]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **more: Any) -> Self:
        """Load a folder, or a repository of the hub.

        Args:
            pretrained_model_name_or_path: the folder, or ``owner/name``.
            more: of the mixin; and ``expect``, the system that it must be (``point``, ``text``, ...), and ``settings``,
                groups of keys that are other on this machine, say ``{"clip": {"weights": FILE}}``.

        Raises UserError for a folder of something else, a damaged file, another system, and a hub out of reach.
        """
        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            _config(Path(name))
        try:
            return super().from_pretrained(name, **more)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{name}: no folder here, and cannot be had from the hub ({reason})") from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        expect: str | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Self:
        folder = Path(model_id)
        if not folder.is_dir():
            got = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[WEIGHTS, CONFIG],
            )
            folder = Path(got)
        config = _config(folder)
        if expect is not None and config["detector"] != expect:
            raise UserError(f"{model_id}: a model of `{config['detector']}`, not of `{expect}`")
        path = folder / WEIGHTS
        if not path.is_file():
            raise UserError(f"{path}: no such file; a model's folder holds its weights under that name")
        checkpoint = load_checkpoint(path)
        about = json.loads(json.dumps(_about(checkpoint)))
        if wrong := [key for key, value in about.items() if config.get(key) != value]:
            raise UserError(f"{folder}: {CONFIG} and {WEIGHTS} disagree on `{wrong[0]}`; save the model again")
        if settings:
            checkpoint = replace(checkpoint, settings=merged(checkpoint.settings, settings))
        return cls(rebuilt(checkpoint, path), config.get("evaluated"))

    def _save_pretrained(self, save_directory: Path) -> None:
        save_checkpoint(save_directory / WEIGHTS, self.checkpoint)
        about = {"format": FORMAT, "boresight": __version__, **_about(self.checkpoint), "evaluated": self.evaluation}
        write_text(save_directory / CONFIG, json.dumps(about, indent=1, allow_nan=False) + "\n")
        write_text(save_directory / CARD, card(self.checkpoint, self.evaluation))


def _about(checkpoint: Checkpoint) -> dict[str, Any]:
    bare = asdict(replace(checkpoint, weights={}))
    return {key: value for key, value in bare.items() if key != "weights"}


def _config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder; UserError where there is none, or it is none of ours."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"{folder}: no model here ({CONFIG} is missing); `save_pretrained` of a trained detector makes one"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); save the model again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or not isinstance(config.get("detector"), str):
        raise UserError(f"{path}: not a model of this program (it lacks `format`: `{FORMAT}`)")
    return config
