"""Exported text-query detectors answer any queries on images of any size as the run does, and run without torch."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.cli import main
from boresight.core.errors import UserError
from boresight.core.found import Found
from boresight.core.grid import cell_centres
from boresight.core.types import DenseOutput, Detections, Scene
from boresight.decode.boxes import BoxDecoder
from boresight.run.checkpoint import load_checkpoint, save_checkpoint
from boresight.run.export import export_run
from boresight.run.onnx_model import OnnxModel, Queries
from boresight.run.predict import load_trained
from boresight.run.predict_onnx import predict_boxes
from boresight.run.record import RunFolder
from boresight.run.tiles import Window
from boresight.run.window_arrays import Seen, detect_windows
from boresight.run.windows import detect_windows as detect_windows_torch

QUERIES = ("ship", "yellow vehicle", "red|crimson roof")


@pytest.fixture(scope="module")
def exported(trained_text, one_clip, tmp_path_factory) -> Path:
    """A tiny run of `text` as an ONNX file, the frozen CLIP inside, with the embeddings of further queries."""
    out = tmp_path_factory.mktemp("exported") / "text.onnx"
    export_run(trained_text, out=out, queries=QUERIES, frames=1)
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Images of odd sizes, one smaller than the encoder's window."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, (height, width) in {"a": (90, 131), "b": (40, 61), "c": (64, 200)}.items():
        small = rng.integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


def test_the_file_holds_what_predict_needs(exported, trained_text, one_clip):
    about = OnnxModel.open(exported).about
    trained = load_trained(trained_text)
    assert about["classes"] == list(trained.checkpoint.classes)
    assert about["queries"]["names"][: len(about["classes"])] == about["classes"]
    assert set(QUERIES) <= set(about["queries"]["names"])
    assert about["features"] == "inside"
    assert about["checkpoint"]["frozen"] == trained.detector.frozen
    assert about["decode"] == {
        **{"threshold": 0.001, "nms": 0.5, "top_k": 100, "before_nms": 1000},
        "trained_reach": about["settings"]["supervise"]["trained_reach"],
    }
    asked = Queries.of(OnnxModel.open(exported))
    np.testing.assert_allclose(asked.inputs["queries"], trained.detector.maps.text.numpy(), atol=1e-6)


@pytest.mark.parametrize("window", ["1024", "64"])
@pytest.mark.parametrize("queries", [None, "ship", "red|crimson roof,yellow vehicle"])
def test_predict_gives_what_the_run_gives(
    exported, trained_text, pictures, one_clip, tmp_path, capsys, window, queries
):
    more = [] if queries is None else ["--queries", queries]
    threshold = ["--threshold", "0.0105"]
    told, files = [], []
    for model in (str(trained_text.root), str(exported)):
        out = tmp_path / str(len(told)) / "found.json"
        arguments = ["predict", model, str(pictures), *threshold, "--window", window, "--out", str(out), *more]
        assert main([*arguments, "--json", "--quiet"]) == 0
        told.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
        files.append(json.loads(out.read_text()))
    assert told[0].keys() == told[1].keys()
    assert told[0]["queries"] == told[1]["queries"]
    one, other = ({(r["image_id"], r["cell"]): r for r in rows} for rows in files)
    assert len(one) > 3
    # a score that lies on the threshold, or an overlap on its limit, may fall to either side
    assert len(one.keys() ^ other.keys()) <= 0.02 * len(one)
    for key in one.keys() & other.keys():
        assert one[key]["category_id"] == other[key]["category_id"]
        assert one[key]["score"] == pytest.approx(other[key]["score"], abs=1e-5)
        np.testing.assert_allclose(one[key]["bbox"], other[key]["bbox"], atol=0.01)


def test_localisation_alone_is_exported_too(trained_localise, pictures, one_clip, tmp_path):
    """Its boxes hang on the query. The graph is checked with one query more, and with one alone."""
    out = tmp_path / "localise.onnx"
    told = export_run(trained_localise, out=out, queries=["ship"], frames=1)
    assert told["system"] == "localise"
    assert main(["predict", str(out), str(pictures), "--queries", "ship", "--out", str(tmp_path / "f.json")]) == 0
    assert {r["category_id"] for r in json.loads((tmp_path / "f.json").read_text())} == {1}


def test_torch_is_never_imported(exported, pictures, tmp_path):
    arguments = ["predict", str(exported), str(pictures / "a.png"), "--window", "64", "--queries", "ship", "--quiet"]
    arguments += ["--threshold", "0", "--out", str(tmp_path / "a.json"), "--overlays", str(tmp_path)]
    program = (
        "import sys\n"
        "from boresight.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        "loaded = [m for m in sys.modules if m.split('.')[0] in ('torch', 'torchvision', 'open_clip')]\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "a.json").read_text())


def test_features_given_answer_the_same(trained_text, one_clip, tmp_path, capsys):
    """The other form, of a run that learned more than the words of its queries."""
    run = _with_learned_queries(trained_text, tmp_path / "run")
    told = export_run(run, out=tmp_path / "a.onnx", features="given", queries=("ship",), frames=1)
    model = OnnxModel.open(told["out"])
    trained = load_trained(run)
    asked = Queries.of(model)
    assert np.abs(asked.inputs["learned"]).max() > 0.1
    assert not Queries.of(model, ("ship",)).inputs["learned"].any()
    image = torch.randint(0, 256, (3, 75, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scene = Scene(image, "a")
    [item] = trained.detector.maps.features([scene])
    frozen = {name: value.numpy() for name, value in item.tensors().items()}
    found = model.run(image=image.float().numpy()[None], **frozen, **asked.inputs)
    with torch.no_grad():
        output = trained.detector([scene])
        wanted = trained.detector.fusion.score(output)
    np.testing.assert_allclose(found["scores"], wanted, atol=1e-5)
    np.testing.assert_allclose(found["boxes"], output.boxes[:, :1], atol=1e-2)
    assert main(["predict", told["out"], str(tmp_path)]) == 2
    assert "needs the features of the frozen encoder" in capsys.readouterr().err


def _with_learned_queries(source: RunFolder, root: Path) -> RunFolder:
    run = RunFolder(shutil.copytree(source.root, root))
    path = run.checkpoints / "last.safetensors"
    checkpoint = load_checkpoint(path)
    settings = {**checkpoint.settings, "head": {**checkpoint.settings["head"], "learn_queries": True}}
    own = torch.randn(len(checkpoint.classes), 64, generator=torch.Generator().manual_seed(0)) * 0.1
    save_checkpoint(path, replace(checkpoint, settings=settings, weights={**checkpoint.weights, "learned.own": own}))
    return run


def test_mistakes_are_told(exported, trained, trained_text, pictures, one_clip, tmp_path, capsys):
    def fails(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        return capsys.readouterr().err

    told = fails("predict", str(exported), str(pictures), "--queries", "shipp")
    assert "query `shipp`: not in" in told
    assert "did you mean `ship`" in told
    assert "export it again with --queries" in told
    assert "which takes no queries" in fails("export", str(trained.root), "--queries", "ship")
    assert "has no frozen encoder" in fails("export", str(trained.root), "--features", "given")
    assert "an empty query" in fails("export", str(trained_text.root), "--queries", "ship,")


def test_a_class_map_that_compares_queries_needs_two(trained_text, one_clip, monkeypatch):
    from boresight.run.export_text import TextGraph

    detector = load_trained(trained_text).detector
    monkeypatch.setattr(detector.maps.features, "method", "surgery")
    with pytest.raises(UserError, match="its graph needs 2 queries; add one with --queries"):
        TextGraph(detector, {"ship": "ship"})


class Drawn(torch.nn.Module):
    """A detector whose boxes and scores follow from the pixels alone, so that windows agree where they overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, scenes):
        [scene] = scenes
        height, width = (-(-s // 16) * 16 for s in scene.size)
        image = torch.zeros(2, height, width)
        image[:, : scene.size[0], : scene.size[1]] = scene.image[:2].float() / 256
        cell = image[:, ::8, ::8]
        centre = cell_centres(height // 8, width // 8, 8.0)
        side = (4 + 30 * cell[0])[..., None]
        boxes = torch.cat((centre - side, centre + side), -1)
        logits = torch.stack((cell[1], 1 - cell[1]))[None].logit(eps=1e-6)
        return DenseOutput(logits, boxes.expand(1, 2, *boxes.shape), 8.0, sizes=(scene.size,))

    def decode(self, output: DenseOutput) -> list[Detections]:
        return BoxDecoder(0.3)(output, output.logits.sigmoid(), output.sizes)


@pytest.mark.parametrize("size", [(100, 260), (64, 64), (33, 70), (200, 50)])
def test_windows_of_arrays_are_those_of_tensors(size):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    detector = Drawn()
    wanted = detect_windows_torch(detector, Scene(image, "a"), window=64, overlap=32, step=16)  # type: ignore[arg-type]

    def detect(part: np.ndarray, place: Window) -> Seen:
        output = detector([Scene(torch.from_numpy(part.copy()), "a")])
        [one] = detector.decode(output)
        found = Found(one.boxes.numpy(), one.scores.numpy(), one.labels.numpy(), one.cell.numpy())
        return Seen(found, tuple(output.logits.shape[1:]), 8.0)

    found = detect_windows(detect, image.numpy(), window=64, overlap=32, step=16)
    assert found.cell.tolist() == wanted.cell.tolist()
    assert len(found) > 20
    np.testing.assert_array_equal(found.boxes, wanted.boxes)


def test_windows_that_do_not_fit_cells_are_refused():
    nothing = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(ValueError, match="do not fit cells of 32 px"):
        detect_windows(
            lambda *part: Seen(nothing, (1, 2, 2), 32), np.zeros((3, 64, 64)), window=64, overlap=16, step=16
        )


class Bright:
    """A file of `text` that pads images to 32 px: a cell's score is its first pixel, its box has 6 px."""

    path, classes, threshold = Path("a.onnx"), ("ship",), 0.3

    def __init__(self) -> None:
        queries = {"names": ["ship"], "dim": 1, "least": 1, "embeddings": base64.b64encode(bytes(4)).decode()}
        decode = {"threshold": 0.3, "nms": 0.5, "top_k": 100, "before_nms": 1000, "trained_reach": 0.0}
        self.about = {"features": "inside", "stride": 8.0, "divisor": 32, "decode": decode, "queries": queries}

    def run(self, image: np.ndarray, queries: np.ndarray) -> dict[str, np.ndarray]:
        _, _, height, width = image.shape
        image = np.pad(image[0, 0], ((0, -height % 32), (0, -width % 32)))[::8, ::8] / 255
        centre = cell_centres(*image.shape, 8.0).numpy()
        return {"scores": image[None, None], "boxes": np.concatenate((centre - 3, centre + 3), -1)[None, None]}


def test_windows_of_a_file_lie_on_its_cells(tmp_path):
    """Cells are numbered as in the map of the whole image, padded as the file pads it."""
    pixels = np.zeros((75, 140, 3), dtype=np.uint8)
    pixels[::24, ::16] = np.arange(130, 238, 3).reshape(4, 9)[..., None]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    cells = []
    for window in (1024, 64):
        predict_boxes(Bright(), [str(tmp_path / "a.png")], tmp_path / "a.json", window=window)
        cells.append([r["cell"] for r in json.loads((tmp_path / "a.json").read_text())])
    assert cells[0] == cells[1]
    assert sorted(cells[0]) == [row * 20 + column for row in (0, 3, 6, 9) for column in range(0, 18, 2)]
