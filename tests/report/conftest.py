"""What tests of pages share: a reader of pages, and a run folder of each system that finds boxes, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from boresight.core.types import Scene
from boresight.evaluate.dense_image import DenseImage
from boresight.evaluate.localisation import localise
from boresight.run.boxes import box_splits
from boresight.run.config_text import BoxDataSettings, LocaliseSettings, TextSettings
from boresight.run.parse import nested
from boresight.run.record import RunFolder, write_json, write_parquet, write_yaml
from boresight.run.text import COLUMNS

VOID = {"meta", "link", "br", "image", "use", "path", "rect", "img", "hr", "input"}


class Checker(HTMLParser):
    """Collects tags and ids, and what is opened and never closed (or closed and never opened)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.unlabelled = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.scripts += [given] if tag == "script" else []
        self.links += [given[k] for k in ("href", "src") if k in given]
        self.unlabelled += tag == "svg" and not given.get("aria-label") and given.get("aria-hidden") != "true"
        if tag not in VOID:
            self.open.append(tag)

    @property
    def strange(self) -> list[Any]:
        """Frames, and scripts beside the one of the page and its data."""
        known = [{}, {"type": "application/json", "id": "browser-data"}]
        return [s for s in self.scripts if s not in known] + [t for t in self.tags if t == "iframe"]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="session")
def parsed() -> Callable[[str], Checker]:
    """``parsed(page)``: its tags, ids and links, and what is not closed."""
    return Checker


BOXES = BoxDataSettings(
    frames=2,
    val_frames=2,
    test_frames=4,
    height=128,
    width=128,
    kinds=("ship", "vehicle"),
    colours=("red", "blue", "white"),
)


def place(box: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))


def box_rows(scene: Scene, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row of every kind in one image: its first object is hit, the others are missed."""
    assert scene.boxes is not None
    assert scene.labels is not None
    boxes, names = scene.boxes.tolist(), [classes[k] for k in scene.labels.tolist()]
    base = {"image": scene.name, "image_id": scene.image_id, "cell": 0, "object": -1, "class": names[0]}
    corner = place((2.0, 2.0, 22.0, 12.0))
    other = next(c for c in classes if c != names[0])
    rows = [
        base | place(boxes[0]) | {"score": 0.9, "iou": 1.0, "object": 0, "kind": "hit"},
        base | place(boxes[0]) | {"score": 0.5, "iou": 0.8, "object": 0, "kind": "duplicate"},
        base | place(boxes[0]) | {"score": 0.6, "iou": 0.7, "object": 0, "kind": "wrong_class", "class": other},
        base | corner | {"score": 0.7, "iou": 0.0, "kind": "false_alarm"},
        base | corner | {"score": 0.65, "iou": 0.0, "kind": "false_alarm", "class": other},
        base | corner | {"score": 0.4, "iou": 0.0, "kind": "ignored"},
    ]
    missed = {"cell": None, "score": None, "iou": None, "kind": "missed"}
    lost = zip(boxes[1:], names[1:], strict=True)
    return rows + [base | place(b) | missed | {"object": i, "class": n} for i, (b, n) in enumerate(lost, start=1)]


def figures(classes: tuple[str, ...]) -> dict[str, Any]:
    """Figures as ``evaluate`` writes them for boxes; the first class has no object."""
    own = {name: {"n": 3, "ap": 0.2, "ap50": 0.1 * k} for k, name in enumerate(classes[1:], start=1)}
    return {
        "split": "test",
        "frames": 4,
        "images": 4,
        "truths": 9,
        "threshold": 0.3,
        "ap": 0.2,
        "ap50": 0.4,
        "ap50_base": 0.5,
        "ap50_novel": 0.25,
        "ap50_harmonic": 1 / 3,
        "classification_accuracy": 0.75,
        "classification_objects": 8,
        "presence_auc": None,
        "f1": 0.6,
        "false_alarms_per_image": 1.5,
        "intervals": {"ap50": [0.3, 0.5]},
        "per_class": {classes[0]: {"n": 0, "ap": None, "ap50": None}} | own,
        "frozen": {"clip": "abc"},
    }


def metrics(monitor: str) -> list[dict[str, Any]]:
    return [
        {"step": s, "loss_cls": 1.0 / s, "loss_giou": 0.5, "gradient_norm": 1.0, "learning_rate": 1e-3}
        | {f"val_{monitor}": s / 40 if s % 20 == 0 else None}
        for s in range(1, 41)
    ]


@pytest.fixture(scope="session")
def data() -> BoxDataSettings:
    """Settings of four tiny made scenes."""
    return BOXES


@pytest.fixture(scope="session")
def box_run() -> Callable[..., RunFolder]:
    """``box_run(root, **settings)``: a whole run folder of `text`, or of the ``kind`` given."""

    def make(root: Path, kind: type = TextSettings, **settings: Any) -> RunFolder:
        run = RunFolder(root)
        own = kind(**{"data": BOXES} | settings)
        splits = box_splits(own.data)
        classes = splits.classes + splits.novel
        write_yaml(run.config, nested(own))
        write_json(run.environment, {"python": "3.12"})
        write_parquet(run.metrics, metrics("ap50" if kind is TextSettings else "mean_iou"))
        rows = [
            {"epoch": e, "class": c, "positives": 2 + e, "objects": 1, "positives_per_object": 2.0 + e}
            for e in range(3)
            for c in classes
        ]
        write_parquet(run.targets, rows)
        same = {"clip": "abc"}
        write_json(run.done, {"parameters": 1234, "seconds": 5.0, "frozen": {"before": same, "after": same}})
        write_json(run.evaluation, figures(classes))
        scene = next(s for s in (splits.test[i] for i in range(4)) if s.boxes is not None and len(s.boxes) >= 2)
        write_parquet(run.matches, box_rows(scene, classes), COLUMNS)
        return run

    return make


@pytest.fixture
def make_text(box_run, tmp_path) -> Callable[..., RunFolder]:
    """``make_text(name, **settings)``: such a folder of `text` in the test's own place."""
    return lambda name="words", **settings: box_run(tmp_path / name, **settings)


@pytest.fixture(scope="session")
def localised() -> dict[str, Any]:
    """A localisation report of three tiny images, two classes; every cell boxes the object of its image."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for k in range(3):
        box = torch.tensor([[4.0, 4.0, 20.0, 24.0]]) + 2 * k
        scene = Scene(torch.zeros(3, 32, 32), f"s{k}", k, boxes=box, labels=torch.tensor([k % 2]))
        boxes = box + 2 * torch.rand(2, 4, 4, 4, generator=generator)
        score = torch.rand(2, 4, 4, generator=generator)
        images.append((DenseImage(boxes, score, 8, (32, 32), cam=score, presence=score.amax((1, 2))), scene))
    prior = torch.tensor([[16.0, 20.0]])
    return localise(images, ("ship", "vehicle"), prior, replicates=20).to_dict()


@pytest.fixture
def make_localise(box_run, localised, tmp_path) -> Callable[..., RunFolder]:
    """``make_localise(name)``: a whole run folder of `localise`."""

    def make(name: str = "places", *, report: bool = True) -> RunFolder:
        run: RunFolder = box_run(tmp_path / name, LocaliseSettings)
        classes = ("red ship", "blue ship", "red vehicle")
        told = {"mean_iou": 0.31} | ({"localisation": localised} if report else {})
        write_json(run.evaluation, figures(classes) | told)
        return run

    return make
