"""The image browser in a browser: an installed Chromium opens pages from disk, and everything in them is used.

Chromium is driven over a pipe in the words of its DevTools protocol, so that nothing has to be installed beside it.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.core.types import Detections, Scene
from boresight.diagnose.audit import audit
from boresight.diagnose.diagnosis import diagnose
from boresight.evaluate.box_match import box_table
from boresight.evaluate.box_threshold import per_image_counts
from boresight.evaluate.rows import match_table
from boresight.report import browser
from boresight.report.cell_maps import CellMaps
from boresight.report.compact import cell_picture
from boresight.report.html import write_report
from boresight.run.boxes import box_splits
from boresight.run.config import DataSettings, PointSettings
from boresight.run.config_text import BoxDataSettings, TextSettings
from boresight.run.frames import point_splits
from boresight.run.parse import nested
from boresight.run.point import COLUMNS as POINT_COLUMNS
from boresight.run.point import judge, match_rows
from boresight.run.record import RunFolder, read_parquet, write_json, write_parquet, write_text, write_yaml
from boresight.run.results import box_results, detection_rows, point_results
from boresight.run.text import COLUMNS, box_rows


def beside(name: str, file: Path) -> Any:
    """A module that lies among the tests."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


grid = beside("diagnose_grid", Path(__file__).parents[1] / "diagnose" / "grid.py")
refining = beside("report_refine_page", Path(__file__).with_name("test_refine_page.py"))

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0
LAUNCH = """
import fcntl, os, sys
hears, speaks = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(hears, 3)
os.dup2(speaks, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """A headless Chromium, spoken to over a pipe: file descriptors 3 (we write) and 4 (it answers)."""

    def __init__(self, executable: str, profile: Path) -> None:
        theirs, self._write = os.pipe()
        self._read, their_answer = os.pipe()

        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")
        quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio")
        own = ("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank")
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(theirs), str(their_answer), executable, *flags, *quiet, *own],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs, their_answer),
        )
        os.close(theirs)
        os.close(their_answer)
        self._number, self._buffer = 0, b""
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **given: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what happens meanwhile goes to ``events``."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": given}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear(method)
            if heard.get("id") == self._number:
                assert "error" not in heard, f"{method}: {heard['error']}"
                return heard["result"]
            self.events.append(heard)

    def _hear(self, method: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            assert part, f"Chromium does not answer {method} (exit status {self.process.poll()})"
            self._buffer += part
        heard, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(heard)
        return answer

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)
        os.close(self._write)
        os.close(self._read)


class Page:
    """One page of it. ``problems`` are console errors, exceptions, refused scripts and anything that was loaded."""

    def __init__(self, chromium: Chromium, file: Path, width: int, *, dark: bool = False) -> None:
        self.chromium = chromium
        target = chromium.ask("Target.createTarget", url="about:blank")["targetId"]
        self.target = target
        self.session = chromium.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=file.resolve().as_uri())
        self.until("document.readyState === 'complete'")

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        return self.chromium.ask(method, self.session, **given)

    def __call__(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Two frames later everything that was asked for is drawn."""
        self("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def key(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.settle()

    def choose(self, select: str, text: str) -> None:
        """Choose what is called ``text`` in a select."""
        self(
            f"(() => {{ const s = document.getElementById('{select}');"
            f" s.value = [...s.options].find(o => o.textContent === {json.dumps(text)}).value;"
            " s.dispatchEvent(new Event('change')); })()"
        )
        self.settle()

    def threshold(self, value: float) -> None:
        """Type a threshold."""
        self(
            f"(() => {{ const n = document.getElementById('b-threshold-value'); n.value = '{value!r}';"
            " n.dispatchEvent(new Event('change')); })()"
        )
        self.settle()

    def slide(self, position: int) -> None:
        """Move the slider."""
        self(
            f"(() => {{ const s = document.getElementById('b-threshold'); s.value = '{position}';"
            " s.dispatchEvent(new Event('input')); })()"
        )
        self.settle()

    def figure(self, name: str) -> str:
        """A figure of the panel of counts."""
        told: str = self(f"document.querySelector('#b-counts [data-figure={name}] b').textContent")
        return told

    def listed(self) -> list[str]:
        """The names in the list."""
        told: list[str] = self("[...document.querySelectorAll('#b-list b')].map(b => b.textContent)")
        return told

    def current(self) -> str:
        """The image that is looked at."""
        told: str = self("document.querySelector('#b-list [aria-selected=true] b').textContent")
        return told

    def ink(self) -> str:
        """What is drawn on the canvas."""
        told: str = self("document.getElementById('b-canvas').toDataURL()")
        return told

    @property
    def problems(self) -> list[str]:
        """What went wrong, and what was loaded beside the page itself."""
        found = []
        for event in self.chromium.events:
            if event.get("sessionId") != self.session:
                continue
            method, told = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(str(told["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled":
                found.append(f"console.{told['type']}: {told['args']}")
            elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                found.append(told["entry"]["text"])
            elif method == "Page.javascriptDialogOpening":
                found.append(f"a dialog: {told['message']}")
            elif method == "Network.requestWillBeSent" and told["type"] != "Document":
                url = told["request"]["url"]
                found += [] if url.startswith("data:") else [f"loaded {url[:80]}"]
        return found

    def shot(self, file: Path, *, whole: bool = False) -> None:
        """Keep a picture of what is seen, or of the whole page."""
        told = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(told["data"]))

    def close(self) -> None:
        """Close it."""
        self.chromium.ask("Target.closeTarget", targetId=self.target)


EVIL = "</script><img src=x onerror=alert(1)>"
NAMES_OF_IMAGES = [f"{k}-<i>&amp;{EVIL.replace('/', '')}.png" if k == 3 else f"image-{k}.png" for k in range(8)]
CLASSES = (EVIL, "boat", "car")
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Chromium]:
    """A running Chromium, or a skip."""
    executable = os.environ.get("BORESIGHT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium is installed (BORESIGHT_CHROMIUM may name one), so no page can be opened")
    running = Chromium(executable, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    """Where screenshots go: the folder that BORESIGHT_SCREENSHOTS names."""
    named = os.environ.get("BORESIGHT_SCREENSHOTS")
    return Path(named).resolve() if named else tmp_path_factory.mktemp("shots")


@pytest.fixture
def opened(chromium) -> Iterator[Any]:
    """``opened(file, width, dark=)``: a page; at the end none may have had a problem."""
    pages: list[Page] = []

    def make(file: Path, width: int = 1400, *, dark: bool = False) -> Page:
        pages.append(Page(chromium, file, width, dark=dark))
        return pages[-1]

    yield make
    problems = [p for page in pages for p in page.problems]
    for page in pages:
        page.close()
    assert problems == []


# --- a run of each kind, written by hand -----------------------------------------------------------------------------


def write_coco(root: Path, rng: np.random.Generator) -> None:
    """Eight images with up to three boxes each in the form of COCO; image 7 is empty."""
    images, annotations = [], []
    for k, name in enumerate(NAMES_OF_IMAGES):
        pixels = rng.integers(0, 60, (60, 80, 3), dtype=np.uint8)
        for j in range(0 if k == 7 else 1 + k % 3):
            x, y, label = 4 + 25 * j, 6 + 5 * (k % 4), (k + j) % 3
            pixels[y : y + 18, x : x + 20] = 255 * np.eye(3, dtype=np.uint8)[label]
            number = len(annotations) + 1
            own = {"id": number, "image_id": k + 1, "category_id": label + 1, "bbox": [x, y, 20, 18]}
            annotations.append(own | {"area": 360, "iscrowd": 0})
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "images" / name)
        images.append({"id": k + 1, "file_name": name, "width": 80, "height": 60})
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    content = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "all.json").write_text(content, encoding="utf-8")
    for split in ("train", "val", "test"):
        (root / f"{split}.json").write_text(content, encoding="utf-8")


def guesses(scenes: list[Scene], rng: np.random.Generator) -> list[Detections]:
    """Boxes around the truth, some of a wrong class, and some anywhere, best first."""
    found = []
    for scene in scenes:
        truth, labels = scene.boxes.repeat_interleave(3, 0), scene.labels.repeat_interleave(3)
        moved = truth + torch.from_numpy(rng.normal(0, 3, truth.shape)).float()
        corner = torch.from_numpy(rng.uniform(0, 40, (4, 2))).float()
        boxes = torch.cat((moved, torch.cat((corner, corner + 15), 1)))
        label = torch.cat((labels, torch.arange(4) % 3))
        wrong = torch.from_numpy(rng.uniform(size=len(label)) < 0.2)
        label = torch.where(wrong, (label + 1) % 3, label)
        score = torch.from_numpy(rng.beta(1, 2, len(boxes))).float()
        order = score.argsort(descending=True)
        cell = torch.arange(len(boxes)) * 7
        found.append(Detections(boxes[order].clamp(0, 60), score[order], label[order], cell))
    return found


def emission_rows(scenes: list[Scene], found: list[Detections]) -> list[dict[str, Any]]:
    """What a diagnosis would say: cells take turns at being supervised, and two boxes drive better ones out."""
    rows = []
    for k, (scene, own) in enumerate(zip(scenes, found, strict=True)):
        for i, (box, score, label, cell) in enumerate(
            zip(own.boxes.tolist(), own.scores.tolist(), own.labels.tolist(), own.cell.tolist(), strict=True)
        ):
            row: dict[str, Any] = {"image": scene.name, "image_id": scene.image_id, "cell": cell, "level": 0}
            row |= dict(zip(("x0", "y0", "x1", "y1"), box, strict=True)) | {"score": score, "class": CLASSES[label]}
            row |= {
                "bucket": "inside" if k == 4 and i == 0 else "background" if i % 2 else "supervised",
                "kind": "false",
            }
            row |= {"iou": 0.0, "own_iou": 0.2, "object": -1}
            if i == 0 and k in (2, 5):
                row |= {"displaced_iou": 0.2 + 0.1 * k, "displaced_score": 0.1}
                row |= {f"displaced_{side}": 1.0 for side in ("x0", "y0", "x1", "y1")}
            rows.append(row)
    return rows


@dataclass(frozen=True)
class Known:
    """A page, and what it was made from."""

    page: Path
    scenes: list[Scene]
    found: list[Detections]


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Known:
    """The page of a run of `text` that was judged and diagnosed on eight images."""
    root, rng = tmp_path_factory.mktemp("words"), np.random.default_rng(0)
    write_coco(root / "data", rng)
    data = BoxDataSettings(source="coco", root=str(root / "data"), train="train", val="val", test="test")
    settings = TextSettings(data=data)
    splits = box_splits(data, "test")
    scenes = [splits.test[i] for i in range(len(splits.test))]
    assert [s.name for s in scenes] == NAMES_OF_IMAGES
    found = guesses(scenes, rng)
    run = RunFolder(root / "run")
    counts = per_image_counts(scenes, found, THRESHOLD)
    per_class = {name: {"n": 4, "ap": 0.2, "ap50": 0.4} for name in CLASSES}
    told = {"split": "test", "frames": 8, "images": 8, "truths": 13, "threshold": THRESHOLD, "per_class": per_class}
    told |= {"per_image": dict(zip(("tp", "fp", "fn"), counts.T.tolist(), strict=True))}
    write_yaml(run.config, nested(settings))
    write_json(run.evaluation, told)
    write_json(run.done, {"parameters": 1})
    write_parquet(run.metrics, [{"step": 1, "loss_cls": 1.0}])
    write_parquet(run.matches, box_rows(CLASSES, scenes, found, THRESHOLD), COLUMNS)
    write_text(run.predictions, json.dumps(box_results([s.image_id for s in scenes], found, 0.0, range(1, 4))))
    said = diagnose(audit(grid.Made("class"), grid.made_scenes(40)), replicates=20).to_dict()
    write_json(run.diagnosis, said | {"detector": "text", "split": "test", "images": 8, "remedies": []})
    write_parquet(run.emissions, emission_rows(scenes, found))
    objects = [{"image": s.name, "object": 0, "regret": 0.1 * (k % 4)} for k, s in enumerate(scenes[:7])]
    write_parquet(run.objects, objects)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser, "cell_maps", made_maps)
        return Known(write_report([run], root / "report.html"), scenes, found)


def made_maps(one: Any, names: Any, **limits: Any) -> tuple[dict[str, CellMaps], str]:
    """Class maps without a detector: a ramp for each of the first two classes, and a target in one corner."""
    ramp = np.linspace(0, 1, 80).reshape(8, 10)
    maps = {0: (cell_picture(ramp), 0.0, 1.0), 1: (cell_picture(ramp.T.copy()), 0.25, 0.5)}
    return {name: CellMaps(8.0, maps, cell_picture(np.eye(8, 10))) for name in names}, ""


@pytest.fixture(scope="module")
def dots(tmp_path_factory) -> Known:
    """The page of a run of `point`: crowded targets, so that a lower threshold gives a target to another detection."""
    root, rng = tmp_path_factory.mktemp("dots"), np.random.default_rng(1)
    data = DataSettings(preset="white", height=96, width=128, frames=2, val_frames=2, test_frames=6)
    settings = PointSettings(data=data)
    frames = point_splits(data, only="test").test
    scenes = [frames[i] for i in range(len(frames))]
    found = []
    for scene in scenes:
        near = scene.points.xy.repeat_interleave(4, 0) + torch.from_numpy(rng.normal(0, 2, (4 * len(scene.points), 2)))
        xy = torch.cat((near.float(), torch.from_numpy(rng.uniform(5, 90, (5, 2))).float()))
        found.append(Detections.at(xy, torch.from_numpy(rng.uniform(size=len(xy))).float().sort(descending=True)[0]))
    truth = [s.points for s in scenes]
    run = RunFolder(root / "run")
    write_yaml(run.config, nested(settings))
    figures = judge(truth, found, scenes, THRESHOLD, settings.decode.tolerance, 0)
    figures["intervals"] = {k: v for k, v in figures["intervals"].items() if v}
    write_json(run.evaluation, {"split": "test", "frames": len(scenes)} | figures)
    rows = detection_rows([s.name for s in scenes], found, 0.0, image_ids=[s.image_id for s in scenes])
    write_text(run.predictions, json.dumps(point_results(rows)))
    write_parquet(run.matches, match_rows(scenes, truth, found, THRESHOLD, settings.decode.tolerance), POINT_COLUMNS)
    return Known(write_report([run], root / "report.html"), scenes, found)


# --- the page in a browser -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (1400, True), (420, False), (420, True)])
@pytest.mark.parametrize("kind", ["words", "dots"])
def test_a_page_opens_without_a_problem(kind, width, dark, request, opened, shots):
    page = opened(request.getfixturevalue(kind).page, width, dark=dark)
    assert page("document.getElementById('browser').hidden") is False
    assert page.current() in page.listed()
    assert page("document.documentElement.scrollWidth <= window.innerWidth")
    page("document.getElementById('images').scrollIntoView()")
    page.settle()
    page.shot(shots / f"{kind}-{width}-{'dark' if dark else 'light'}.png")
    page("window.scrollTo(0, 0)")
    page.shot(shots / f"{kind}-{width}-{'dark' if dark else 'light'}-whole.png", whole=True)
    assert len(list(shots.glob(f"{kind}-{width}-*.png"))) >= 2


def test_the_slider_counts_as_the_evaluation_does(words, opened):
    page = opened(words.page)
    for value in (THRESHOLD, 0.0, 0.05, float(words.found[1].scores[2]), 0.6, 0.999):
        page.threshold(value)
        tp, fp, fn = per_image_counts(words.scenes, words.found, value).sum(0).tolist()
        assert [page.figure(name) for name in ("tp", "fp", "fn")] == [str(tp), str(fp), str(fn)], value
        f1 = 2 * tp / (2 * tp + fp + fn)
        assert page.figure("f1") == f"{f1:.3f}"
    page("document.getElementById('b-stored').click()")
    stored = per_image_counts(words.scenes, words.found, THRESHOLD).sum(0).tolist()
    assert [int(page.figure(name)) for name in ("tp", "fp", "fn")] == stored
    page.slide(1000)
    assert page.figure("tp") == "0"
    page.slide(500)
    tp = int(per_image_counts(words.scenes, words.found, 0.125).sum(0)[0])
    assert page.figure("tp") == str(tp) != "0"


def test_points_are_counted_as_the_evaluation_counts_them(dots, opened):
    page = opened(dots.page)
    truth = [s.points for s in dots.scenes]
    changed = 0
    for value in (THRESHOLD, 0.0, 0.2, 0.5, 0.8):
        page.threshold(value)
        rows, missed = match_table(truth, dots.found, threshold=value)
        false = sum(r.kind in ("false_alarm", "duplicate") for r in rows)
        hits = sum(r.kind == "hit" for r in rows)
        assert [int(page.figure(name)) for name in ("tp", "fp", "fn")] == [hits, false, len(missed)], value
        told = page("[...document.querySelectorAll('#b-list small')].map(s => s.textContent).join(', ')")
        listed = [int(n) for n in re.findall(r"(\d+) hit", told)]
        assert sum(listed) == hits
        changed += hits
    assert changed


def test_a_refiner_is_judged_at_every_confidence(tmp_path, opened, shots):
    run = refining.made(tmp_path / "run")  # every box has a confidence of 0.8
    page = opened(write_report([run], tmp_path / "report.html"))
    rows = read_parquet(run.matches)
    before, moved = (sum(r[f"iou_{k}"] for r in rows) / len(rows) for k in ("before", "moved"))
    assert page.figure("replaced") == str(len(rows))
    assert page.figure("before") == f"{before:.3f}"
    assert page.figure("after") == f"{moved:.3f}" != f"{before:.3f}"
    harmed = sum(r["iou_before"] > 0.8 and r["iou_moved"] < r["iou_before"] for r in rows)
    assert page.figure("harmed") == str(harmed) != "0"
    drawn = page.ink()
    page.shot(shots / "refine-1400-light.png")
    page.key("5")
    assert page.ink() != drawn
    page.threshold(0.9)
    assert (page.figure("replaced"), page.figure("after")) == ("0", f"{before:.3f}")
    page.choose("b-kind", "made worse")
    assert page.listed() == []
    page("document.getElementById('b-stored').click()")
    page.settle()
    worse = {r["image"] for r in rows if r["iou_moved"] < r["iou_before"] - 5e-4}
    assert set(page.listed()) == worse


def test_every_image_tells_its_own_counts(words, opened):
    page = opened(words.page)
    counts = dict(
        zip([s.name for s in words.scenes], per_image_counts(words.scenes, words.found, THRESHOLD), strict=True)
    )
    told = page("[...document.querySelectorAll('#b-list small')].map(s => s.textContent)")
    for name, text in zip(page.listed(), told, strict=True):
        tp, fp, fn = counts[name].tolist()
        false = [int(n) for n in re.findall(r"(\d+) (?:false alarm|duplicate|wrong class)", text)]
        assert sum(false) == fp, name
        assert (f"{tp} hit" in text) == (tp > 0), name
        assert (f"{fn} missed" in text) == (fn > 0), name


def test_filters_reduce_the_list(words, opened):
    page = opened(words.page)
    page.choose("b-sort", "as judged")
    assert page.listed() == NAMES_OF_IMAGES
    page.choose("b-class", EVIL)
    rows, _ = box_table(words.scenes, words.found, threshold=THRESHOLD)
    own = {words.scenes[r.image].name for r in rows if r.label == 0}
    own |= {s.name for s in words.scenes if (s.labels == 0).any()}
    assert page.listed() == [n for n in NAMES_OF_IMAGES if n in own] != NAMES_OF_IMAGES
    page.choose("b-kind", "hit")
    hit = {words.scenes[r.image].name for r in rows if r.label == 0 and r.kind == "hit"}
    assert page.listed() == [n for n in NAMES_OF_IMAGES if n in hit] != []
    page("document.getElementById('b-clear').click()")
    page.choose("b-sort", "as judged")
    page.choose("b-bucket", "inside")
    first = words.found[4].scores[0] >= THRESHOLD
    assert page.listed() == ([NAMES_OF_IMAGES[4]] if first else [])
    page.choose("b-bucket", "any cell")
    page.threshold(1.0)
    page.choose("b-kind", "false alarm")
    assert page.listed() == []
    assert page("document.getElementById('b-none').hidden") is False


def test_a_class_has_its_own_counts(words, opened):
    page = opened(words.page)
    page.choose("b-class", "boat")
    rows, missed = box_table(words.scenes, words.found, threshold=THRESHOLD)
    line = page("document.querySelector('#b-counts p:nth-child(2)').textContent")
    hits, lost = sum(r.kind == "hit" and r.label == 1 for r in rows), sum(m.label == 1 for m in missed)
    assert line.startswith(f"boat alone: {hits} hits")
    assert f"{lost} missed" in line
    page("document.getElementById('b-classes').open = true")
    page.settle()
    head = page("document.querySelector('#b-class-table tbody tr').textContent")
    truths = sum(int((s.labels == 0).sum()) for s in words.scenes)
    assert head.startswith(f"{EVIL}{truths}")


def test_images_are_sorted(words, opened):
    page = opened(words.page)
    page.choose("b-sort", "regret, largest first")
    assert page.listed()[:2] == [NAMES_OF_IMAGES[3], NAMES_OF_IMAGES[2]]
    assert page.listed()[-1] == NAMES_OF_IMAGES[7]
    page.choose("b-sort", "displacement, largest first")
    assert page.listed()[:2] == [NAMES_OF_IMAGES[5], NAMES_OF_IMAGES[2]]
    page.choose("b-sort", "IoU, lowest first")
    rows, _ = box_table(words.scenes, words.found, threshold=THRESHOLD)
    fit = {k: sum(r.iou for r in rows if r.image == k and r.kind == "hit") / (1 + k % 3) for k in range(7)}
    assert page.listed() == [NAMES_OF_IMAGES[k] for k in [*sorted(fit, key=lambda k: (round(fit[k], 3), k)), 7]]
    page.choose("b-sort", "errors, most first")
    errors = per_image_counts(words.scenes, words.found, THRESHOLD)[:, 1:].sum(1)
    assert page.listed()[0] == NAMES_OF_IMAGES[int(errors.argmax())]


def test_keys(words, opened):
    page = opened(words.page)
    names = page.listed()
    assert page.current() == names[0]
    page.key("ArrowRight")
    page.key("ArrowRight")
    assert page.current() == names[2]
    page.key("ArrowLeft")
    assert page.current() == names[1]
    before = page.ink()
    for key in "12346":
        page.key(key)
        assert page.ink() != before, key
        page.key(key)
        assert page.ink() == before, key
    page.key("?")
    assert page("document.getElementById('b-keys').open") is True
    page.key("ArrowRight")
    assert page.current() == names[1]
    page("document.getElementById('b-close').click()")
    value = float(page("document.getElementById('b-threshold-value').value"))
    page.key("]")
    assert float(page("document.getElementById('b-threshold-value').value")) > value
    page("document.getElementById('b-threshold').focus()")
    page.key("ArrowRight")
    assert page.current() == names[1]  # the slider moves, not the list
    page("document.getElementById('b-list').focus()")
    page.key("End")
    assert page.current() == page.listed()[-1]
    page.key("ArrowUp")
    assert page.current() == page.listed()[-2]


def test_zooming_shows_another_part(words, opened):
    page = opened(words.page)
    page.settle()
    before = page.ink()
    page.key("+")
    assert page.ink() != before
    page.key("0")
    assert page.ink() == before


def test_light_and_dark(words, opened):
    def paper(page: Page) -> str:
        told: str = page("getComputedStyle(document.body).backgroundColor")
        return told

    light, dark = opened(words.page), opened(words.page, dark=True)
    assert paper(light) == "rgb(253, 253, 254)"
    assert paper(dark) == "rgb(20, 23, 27)"
    for page in (light, dark):
        before = paper(page)
        page("document.getElementById('theme').click()")
        assert paper(page) != before
        assert {before, paper(page)} == {"rgb(253, 253, 254)", "rgb(20, 23, 27)"}
    dark("document.getElementById('theme').click()")
    dark.ask("Emulation.setEmulatedMedia", media="print")
    assert dark("getComputedStyle(document.documentElement).getPropertyValue('--paper')").strip() == "#fff"
    assert dark("getComputedStyle(document.querySelector('.b-filters')).display") == "none"


def test_names_are_never_markup(words, opened):
    page = opened(words.page)
    page.choose("b-class", EVIL)
    assert page("document.querySelectorAll('[onerror], i').length") == 0
    assert page("document.querySelectorAll('img:not(#b-list img)').length") == 0
    assert NAMES_OF_IMAGES[3] in page.listed()
    text = words.page.read_text(encoding="utf-8")
    assert EVIL not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert page("document.querySelector('#b-counts p:nth-child(2)').textContent").startswith(f"{EVIL} alone")


def test_no_script_but_ours_may_run(words, opened, tmp_path):
    text = words.page.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("</main>", "<script>document.title = 'taken'</script></main>"), encoding="utf-8")
    page = opened(broken)
    assert page("document.title") == "run"
    refused = [p for p in page.problems if "Content Security Policy" in p]
    assert len(refused) == len(page.problems) == 1
    page.chromium.events.clear()
