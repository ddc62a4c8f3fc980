"""Frozen SAM encoders through Hugging Face transformers: SAM, HQ-SAM (with its first early layer), SAM 2 and EdgeTAM.

How an image is laid into the square that they read is told in :mod:`boresight.features.sam_square`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from boresight.core.errors import UserError
from boresight.features.encoder import fingerprint_of
from boresight.features.frozen_backbones import library_version
from boresight.features.sam_square import DTYPES, MEAN, STD, Precision, SamGeometry, SquareEncoder

__all__ = ["KINDS", "MEAN", "STD", "SamEncoder", "SamGeometry", "check_torchvision", "load_sam", "sam_folder"]

VERSION = 2
"""Raised when the code here computes other features from the same weights."""

Kind = Literal["sam", "sam_hq", "sam2", "edgetam"]
KINDS: dict[str, str] = {"sam": "SamModel", "sam_hq": "SamHQModel", "sam2": "Sam2Model", "edgetam": "EdgeTamModel"}
"""A kind of model to its class in transformers."""

_TYPES: dict[str, Kind] = {
    "sam": "sam",
    "sam_hq": "sam_hq",
    "sam2": "sam2",
    "sam2_video": "sam2",  # what the published checkpoints of SAM 2 say of themselves
    "edgetam": "edgetam",
    "edgetam_video": "edgetam",
}
"""``model_type`` of a configuration to the kind. A video model holds all weights of the one for images."""

_UNUSED: dict[str, tuple[str, ...]] = {
    "sam": ("prompt_encoder", "mask_decoder", "shared_image_embedding"),
    "sam_hq": ("prompt_encoder", "mask_decoder", "shared_image_embedding"),
    "sam2": ("prompt_encoder", "shared_image_embedding"),  # two convolutions of its mask decoder make fine levels
    "edgetam": ("prompt_encoder", "shared_image_embedding"),
}
"""Parts of a model that do not touch its image features: neither kept in memory nor in the fingerprint."""

_NO_PART = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type", "transformers_version")
"""Of a configuration: what does not decide features."""


class SamEncoder(SquareEncoder):
    """The image side of a SAM, HQ-SAM, SAM 2 or EdgeTAM model as an encoder of feature maps.

    Levels, from fine to coarse: SAM gives its embedding (stride 16 of the square); HQ-SAM as well the features of its
    first early layer, before it (of the early layers that the model returns, no other is ever used); SAM 2 and EdgeTAM
    their three.

    Args:
        model: of transformers; it loses the parts that do not touch image features.
        kind: which of them.
        name: as the user gave it.
        early: HQ-SAM: give the early layer as well.
        precision: in which the network computes.
        batch: images of one size that are encoded together.
    """

    def __init__(
        self, model: Any, kind: Kind, *, name: str, early: bool = True, precision: Precision = "fp32", batch: int = 1
    ) -> None:
        import transformers

        self.kind, self.early, self.precision = kind, early and kind == "sam_hq", precision
        self.side = _side(model.config, kind)
        channels, strides = self._levels(model)
        for part in _UNUSED[kind]:
            if hasattr(model, part):
                delattr(model, part)
        about = {
            "transformers": library_version(transformers),
            "kind": kind,
            "vision": fingerprint_of(_deciding(model.config.vision_config.to_dict())),
            "early": self.early,
            "precision": precision,
            "side": self.side,
            "mean": list(MEAN),
            "std": list(STD),
            "attention": str(getattr(model.config, "_attn_implementation", "")),
            "version": VERSION,
        }
        if kind == "edgetam":
            import timm  # its backbone

            about["timm"] = library_version(timm)
        super().__init__(
            model.to(DTYPES[precision]), name=name, about=about, channels=channels, strides=strides, batch=batch
        )

    @property
    def keep_shape(self) -> bool:
        """See :class:`~boresight.features.sam_square.SquareEncoder`."""
        return self.kind in ("sam", "sam_hq")

    def _levels(self, model: Any) -> tuple[list[int], list[float]]:
        """Channels and strides of the levels."""
        vision = model.config.vision_config
        if not self.keep_shape:
            sizes = [int(size[0]) for size in model.backbone_feature_sizes]
            wide = int(vision.fpn_hidden_size)
            return [wide // 8, wide // 4, wide], [self.side / size for size in sizes]
        stride = float(vision.patch_size)
        front = [int(vision.hidden_size)] if self.early else []
        return [*front, int(vision.output_channels)], [stride] * (len(front) + 1)

    def encoded(self, square: Tensor) -> list[Tensor]:
        """See :class:`~boresight.features.sam_square.SquareEncoder`."""
        found = self.module.get_image_embeddings(square)  # type: ignore[operator]
        if not self.keep_shape:
            return list(found)
        if self.kind == "sam":
            return [found]
        embedding, layers = found
        return [layers[0].permute(0, 3, 1, 2), embedding] if self.early else [embedding]


def _side(config: Any, kind: Kind) -> int:
    """Pixels a side of the square; only SAM's own configuration names it in one place."""
    if kind == "edgetam":
        size = config.prompt_encoder_config.image_size
    else:
        vision = config.vision_config
        size = vision.backbone_config.image_size if kind == "sam2" else vision.image_size
    return int(size[0] if isinstance(size, list | tuple) else size)


def _deciding(config: Any) -> Any:
    """A configuration, to the bottom, without what does not decide features."""
    if not isinstance(config, dict):
        return config
    return {str(k): _deciding(v) for k, v in config.items() if k not in _NO_PART}


def load_sam(
    name: str, *, revision: str | None = None, early: bool = True, precision: Precision = "fp32", batch: int = 1
) -> SamEncoder:
    """Load and freeze a SAM, HQ-SAM, SAM 2 or EdgeTAM model.

    Args:
        name: a hub id (``syscv-community/sam-hq-vit-base``), or a folder as ``save_pretrained`` writes it.
        revision: of the hub id.
        early, precision, batch: of :class:`SamEncoder`.

    Raises UserError, one line, for a model that cannot be had, is of another kind, or lacks weights: what is missing
    would be random, and its features would be kept for ever.
    """
    check_torchvision()
    import transformers

    folder = Path(name).expanduser()
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"features.name=sam:{name}: no config.json there; give a folder as save_pretrained writes it")
    where = str(folder) if folder.exists() else name
    try:
        config = transformers.AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)
    except Exception as error:  # as below
        raise UserError(f"features.name=sam:{name}: cannot be loaded ({_short(error)}){_offline(folder)}") from error
    if config.model_type not in _TYPES:
        known = ", ".join(_TYPES)
        raise UserError(f"features.name=sam:{name}: a model of type `{config.model_type}`; use one of {known}")
    kind = _TYPES[config.model_type]
    try:
        model, info = getattr(transformers, KINDS[kind]).from_pretrained(
            where, config=config, revision=revision, output_loading_info=True, dtype=torch.float32, weights_only=True
        )
    except Exception as error:  # transformers raises whatever its readers do; nothing is loaded in any case
        raise UserError(f"features.name=sam:{name}: cannot be loaded ({_short(error)}){_offline(folder)}") from error
    wrong = [*sorted(info["missing_keys"]), *(str(k[0]) for k in sorted(info["mismatched_keys"]))]
    if wrong:
        raise UserError(
            f"features.name=sam:{name}: {len(wrong)} weights are missing or of another shape, first `{wrong[0]}`; "
            "they would be random: get a whole checkpoint"
        )
    return SamEncoder(model, kind, name=f"sam:{name}", early=early, precision=precision, batch=batch)


def check_torchvision() -> None:
    """UserError with the real reason where torchvision cannot be imported: SAM's classes then say something else."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(f"torchvision cannot be imported ({_short(error)}): install the one that fits torch") from error


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _offline(folder: Path) -> str:
    return "" if folder.exists() else "; without a network download it first and give its folder"


def sam_folder(name: str) -> bool:
    """Whether a folder's configuration is that of a SAM."""
    try:
        config = json.loads((Path(name).expanduser() / "config.json").read_text(encoding="utf-8"))
        return config["model_type"] in _TYPES
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
