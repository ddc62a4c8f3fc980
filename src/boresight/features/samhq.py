"""Frozen SAM encoders through Hugging Face transformers: SAM, HQ-SAM (with its first early layer) and SAM 2.

Preprocessing is the models' own, done here in torch: the long side is brought to the model's size and the rest padded
at the bottom and the right (SAM, HQ-SAM), or both sides are (SAM 2, which does not keep the shape). Cells that see
padding alone are cut off; what each map covers of the image is kept beside it to the fraction of a pixel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boresight.core.errors import UserError
from boresight.features.encoder import FeatureMaps
from boresight.features.frozen_backbones import FrozenModule, library_version, split_maps

VERSION = 1
"""Raised when the code here computes other features from the same weights."""

Kind = Literal["sam", "sam_hq", "sam2"]
KINDS: dict[str, str] = {"sam": "SamModel", "sam_hq": "SamHQModel", "sam2": "Sam2Model"}
"""``model_type`` of a configuration to the class in transformers."""

Precision = Literal["fp32", "fp16", "bf16"]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of pixels in [0, 1]: all three models were trained with them."""


@dataclass(frozen=True)
class SamGeometry:
    """Where the pixels of an image lie in the square that a model reads. Both frames count from the outer corner.

    Attributes:
        image: ``(height, width)`` of the image.
        shown: ``(height, width)`` of the image in the square, whole pixels; the rest is padding.
        side: of the square.
    """

    image: tuple[int, int]
    shown: tuple[int, int]
    side: int

    @classmethod
    def of(cls, height: int, width: int, side: int, *, keep_shape: bool) -> SamGeometry:
        """The long side fills the square, or (``keep_shape`` False) both do."""
        if not keep_shape:
            return cls((height, width), (side, side), side)
        scale = side / max(height, width)
        return cls((height, width), (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))), side)

    @property
    def scales(self) -> tuple[float, float]:
        """Square pixels an image pixel, down and across; they differ by the rounding of :attr:`shown`."""
        return self.shown[0] / self.image[0], self.shown[1] / self.image[1]

    def to_input(self, boxes: Tensor) -> Tensor:
        """``[N, 4]`` xyxy boxes of the image in the square."""
        down, across = self.scales
        return boxes * boxes.new_tensor([across, down, across, down])

    def to_image(self, boxes: Tensor) -> Tensor:
        """Inverse of :meth:`to_input`."""
        down, across = self.scales
        return boxes / boxes.new_tensor([across, down, across, down])


class SamEncoder(FrozenModule):
    """A SAM, HQ-SAM or SAM 2 model as an encoder of feature maps.

    Levels, from fine to coarse: SAM gives its embedding (stride 16 of the square); HQ-SAM as well the features of its
    first early layer, before it (of the early layers that the model returns, no other is ever used); SAM 2 its three.

    Args:
        model: of transformers.
        kind: which of the three.
        name: as the user gave it.
        early: HQ-SAM: give the early layer as well.
        precision: in which the network computes.
        batch: images of one size that are encoded together.
    """

    def __init__(
        self, model: Any, kind: Kind, *, name: str, early: bool = True, precision: Precision = "fp32", batch: int = 1
    ) -> None:
        import transformers

        vision = model.config.vision_config
        self.kind, self.early, self.precision = kind, early and kind == "sam_hq", precision
        self.side = int(vision.backbone_config.image_size[0] if kind == "sam2" else vision.image_size)
        channels, strides = self._levels(model)
        about = {
            "transformers": library_version(transformers),
            "kind": kind,
            "early": self.early,
            "precision": precision,
            "side": self.side,
            "mean": list(MEAN),
            "std": list(STD),
            "attention": str(getattr(model.config, "_attn_implementation", "")),
            "version": VERSION,
        }
        super().__init__(
            model.to(_DTYPES[precision]), name=name, about=about, channels=channels, strides=strides, batch=batch
        )

    def _levels(self, model: Any) -> tuple[list[int], list[float]]:
        """Channels and strides of the levels."""
        vision = model.config.vision_config
        if self.kind == "sam2":
            sizes = [int(size[0]) for size in model.backbone_feature_sizes]
            wide = int(vision.fpn_hidden_size)
            return [wide // 8, wide // 4, wide], [self.side / size for size in sizes]
        stride = float(vision.patch_size)
        front = [int(vision.hidden_size)] if self.early else []
        return [*front, int(vision.output_channels)], [stride] * (len(front) + 1)

    def geometry(self, height: int, width: int) -> SamGeometry:
        """Where an image of that size lies in the square."""
        return SamGeometry.of(height, width, self.side, keep_shape=self.kind != "sam2")

    def pixels(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` raw pixels 0..255 to ``[B, 3, side, side]`` as the model wants them, float32."""
        place = self.geometry(*images.shape[-2:])
        x = images.float()
        if place.shown != place.image:
            x = F.interpolate(x, place.shown, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        return F.pad((x / 255 - mean) / std, (0, self.side - place.shown[1], 0, self.side - place.shown[0]))

    def maps(self, pixels: Tensor) -> list[FeatureMaps]:
        """See :class:`FrozenModule`."""
        place = self.geometry(*pixels.shape[-2:])
        levels, extents = [], []
        for level in self._encoded(self.pixels(pixels).to(_DTYPES[self.precision])):
            cells = level.shape[-1]
            rows, columns = (-(-shown * cells // self.side) for shown in place.shown)
            levels.append(level[..., :rows, :columns].float())
            down, across = place.scales
            extents.append((rows * self.side / cells / down, columns * self.side / cells / across))
        return split_maps(levels, extents)

    def _encoded(self, square: Tensor) -> list[Tensor]:
        """``[B, D, h, w]`` of every level, over the whole square."""
        found = self.module.get_image_embeddings(square)  # type: ignore[operator]
        if self.kind == "sam2":
            return list(found)
        if self.kind == "sam":
            return [found]
        embedding, layers = found
        return [layers[0].permute(0, 3, 1, 2), embedding] if self.early else [embedding]


def load_sam(
    name: str, *, revision: str | None = None, early: bool = True, precision: Precision = "fp32", batch: int = 1
) -> SamEncoder:
    """Load and freeze a SAM, HQ-SAM or SAM 2 model.

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
        config = transformers.AutoConfig.from_pretrained(where, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"features.name=sam:{name}: cannot be loaded ({_short(error)}){_offline(folder)}") from error
    kind = str(config.model_type)
    if kind not in KINDS:
        raise UserError(f"features.name=sam:{name}: a model of type `{kind}`; use one of {', '.join(KINDS)}")
    try:
        model, info = getattr(transformers, KINDS[kind]).from_pretrained(
            where, revision=revision, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises whatever its readers do; nothing is loaded in any case
        raise UserError(f"features.name=sam:{name}: cannot be loaded ({_short(error)}){_offline(folder)}") from error
    wrong = [*sorted(info["missing_keys"]), *(str(k[0]) for k in sorted(info["mismatched_keys"]))]
    if wrong:
        raise UserError(
            f"features.name=sam:{name}: {len(wrong)} weights are missing or of another shape, first `{wrong[0]}`; "
            "they would be random: get a whole checkpoint"
        )
    return SamEncoder(model, kind, name=f"sam:{name}", early=early, precision=precision, batch=batch)  # type: ignore[arg-type]


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
        return json.loads((Path(name).expanduser() / "config.json").read_text(encoding="utf-8"))["model_type"] in KINDS
    except (OSError, ValueError, KeyError, TypeError):
        return False
