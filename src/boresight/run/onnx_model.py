"""An exported detector at work: images to detections with onnxruntime and numpy. Does without torch."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boresight.core.brightness import brightness
from boresight.core.errors import UserError, did_you_mean
from boresight.core.found import Found
from boresight.decode.arrays import decode_boxes, decode_points
from boresight.run.onnx_file import opened, read_about


@dataclass(frozen=True)
class OnnxModel:
    """A file that `boresight export` made.

    Attributes:
        path: the file.
        about: what stands in its properties.
        session: of onnxruntime.
    """

    path: Path
    about: dict[str, Any]
    session: Any

    @classmethod
    def open(cls, path: str | Path) -> OnnxModel:
        """Read a file; UserError where there is none, or it is none of ours."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: no such file; `boresight export RUN` makes one")
        session = opened(str(path), str(path))
        return cls(path, read_about(session, path), session)

    @property
    def system(self) -> str:
        """``point``, ``text`` or ``refine``."""
        return str(self.about["system"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the trained classes."""
        return tuple(self.about["classes"])

    @property
    def threshold(self) -> float:
        """The operating point chosen on the validation images."""
        return float(self.about["threshold"])

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The graph itself: its outputs by name."""
        names = list(self.about["outputs"])
        return dict(zip(names, self.session.run(names, inputs), strict=True))


def find_points(model: OnnxModel, frame: np.ndarray) -> Found:
    """What a model of ``point`` finds in one frame ``[1, H, W]`` of raw values, best first, before any threshold."""
    return peaks(model, *point_maps(model, frame, brightness(frame)), size=frame.shape[1:])


def point_maps(
    model: OnnxModel, part: np.ndarray, light: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``logits``, ``scores`` ``[C, h, w]`` and ``boxes`` of a part ``[1, H, W]`` of a frame with level and spread."""
    level, spread = light
    found = model.run(
        image=part[None].astype(np.float32),
        level=np.array([level], dtype=np.float32),
        spread=np.array([spread], dtype=np.float32),
    )
    return found["logits"][0], found["scores"][0], found["boxes"][0]


def peaks(
    model: OnnxModel, logits: np.ndarray, scores: np.ndarray, boxes: np.ndarray, *, size: tuple[int, ...]
) -> Found:
    """The points of the maps of an image of ``size`` (height, width), as the detector decodes them."""
    height, width = size
    about = model.about
    return decode_points(logits, scores, boxes, stride=about["stride"], size=(height, width), **about["decode"])


@dataclass(frozen=True)
class Queries:
    """What a model of ``text`` is asked for.

    Attributes:
        names: of the queries.
        inputs: of the graph: their embeddings and, of runs that learned more than their words, what was learned.
    """

    names: tuple[str, ...]
    inputs: dict[str, np.ndarray]

    @classmethod
    def of(cls, model: OnnxModel, names: Sequence[str] = ()) -> Queries:
        """Queries by name, the classes of the run when there are none; UserError for one that is not in the file."""
        kept = model.about["queries"]
        known, chosen = list(kept["names"]), tuple(names) or model.classes
        for name in chosen:
            if name not in known:
                near = did_you_mean(name, known) or f" (it knows {', '.join(known)})"
                raise UserError(f"query `{name}`: not in {model.path}{near}; export it again with --queries `{name}`")
        if len(chosen) < kept["least"]:
            raise UserError(f"--queries: the class maps of {model.path} need {kept['least']} queries or more; add one")
        rows = [known.index(name) for name in chosen]
        tables = {"queries": "embeddings", "learned": "learned"}
        packed = {name: kept[key] for name, key in tables.items() if key in kept}
        return cls(chosen, {name: _unpacked(text, kept["dim"])[rows] for name, text in packed.items()})


def _unpacked(text: str, dim: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32).reshape(-1, dim)


def find_boxes(model: OnnxModel, queries: Queries, pixels: np.ndarray) -> tuple[Found, tuple[int, int, int]]:
    """What a model of ``text`` finds in an image ``[3, H, W]`` in 0..255, best first, before any threshold.

    Returns the detections, whose labels index ``queries``, and the shape ``(Q, H, W)`` of the map they come from.
    """
    found = model.run(image=pixels[None].astype(np.float32), **queries.inputs)
    scores, boxes = found["scores"][0], found["boxes"][0]
    size = int(pixels.shape[1]), int(pixels.shape[2])
    about = model.about
    return decode_boxes(scores, boxes, stride=about["stride"], size=size, **about["decode"]), scores.shape
