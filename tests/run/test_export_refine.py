"""Exported refiners move any number of boxes in images of any size as the run does, and are used without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.cli import main
from boresight.core.errors import UserError
from boresight.core.found import Found
from boresight.core.types import Detections, Proposals, Scene
from boresight.features.encoder import FrozenEncoder
from boresight.features.frozen_backbones import ClipEncoder
from boresight.features.roi import ImagePyramid
from boresight.run import feature_parts, text_parts
from boresight.run.checkpoint import Checkpoint, save_checkpoint
from boresight.run.config_refine import RefineSettings
from boresight.run.export import export_run
from boresight.run.export_refine import FrozenGraph
from boresight.run.export_sight import OpenSight
from boresight.run.onnx_model import OnnxModel
from boresight.run.onnx_refine import tighten, tightened_detections
from boresight.run.parse import nested, settings_from
from boresight.run.record import RunFolder, write_yaml
from boresight.run.refine import REFINE
from boresight.run.tighten import Tightener

TINY = {
    "data": {"kinds": ["vehicle"], "colours": ["yellow"], "height": 80, "width": 96, "frames": 3, "val_frames": 3},
    "head": {"grid": 4, "width": 16, "depth": 1, "class_input": True},
}
CLASSES = ("yellow vehicle",)


@pytest.fixture(scope="module", autouse=True)
def one_encoder(loaded_clip):
    """The shipped encoder, read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_parts, "load_encoder", lambda name, weights, **more: ClipEncoder(loaded_clip, (1,)))
        yield


def untrained(root, **groups) -> RunFolder:
    """A run folder whose refiner has random weights, so that boxes move and some are replaced."""
    values = {k: TINY.get(k, {}) | groups.get(k, {}) for k in {*TINY, *groups}}
    settings = settings_from(RefineSettings, values, origin="the test")
    torch.manual_seed(0)
    detector = REFINE.build(settings, CLASSES)
    for name, value in detector.named_parameters():
        if name.endswith(("out.weight", "decide.2.weight")):
            torch.nn.init.normal_(value, std=1.0)
    run = RunFolder(root)
    write_yaml(run.config, nested(settings))
    about = {"threshold": 0.5, "step": 0, "figures": {}, "frozen": detector.frozen}
    save_checkpoint(
        run.checkpoints / "last.safetensors",
        Checkpoint(detector.state_dict(), "refine", nested(settings), CLASSES, **about),  # type: ignore[arg-type]
    )
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return untrained(tmp_path_factory.mktemp("runs") / "refine")


@pytest.fixture(scope="module")
def exported(run) -> OnnxModel:
    """With the frozen encoder inside."""
    return OnnxModel.open(export_run(run, frames=1)["out"])


def boxes_in(size: tuple[int, int], count: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=g) * torch.tensor(size[::-1]) * 0.6
    return torch.cat((corner, corner + 4 + torch.rand(count, 2, generator=g) * 60), -1)


@pytest.mark.parametrize(("size", "count"), [((80, 96), 5), ((61, 150), 1), ((200, 90), 40)])
def test_boxes_end_where_the_run_puts_them(exported, run, size, count):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes, labels = boxes_in(size, count), torch.arange(count) % 2 - 1
    wanted = Tightener.of(run)(Scene(image, "a"), Proposals(boxes, labels, torch.ones(count)))
    found = tighten(exported, image.numpy(), boxes.numpy(), labels.numpy())
    np.testing.assert_allclose(found.confidence, wanted.confidence, atol=1e-4)
    np.testing.assert_array_equal(found.replaced, wanted.outcome.replaced)
    np.testing.assert_allclose(found.boxes, wanted.outcome.boxes, atol=0.05)


def test_detections_are_rescored_as_the_run_does(exported, run):
    image = torch.randint(0, 256, (3, 80, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes, scores, labels = boxes_in((80, 96), 12), torch.linspace(0.9, 0.1, 12), torch.arange(12) % 2
    found = Detections(boxes, scores, labels, torch.arange(12))
    names = ("ship", "yellow vehicle")
    wanted = Tightener.of(run).detections(Scene(image, "a"), found, names)
    as_arrays = Found(boxes.numpy(), scores.numpy(), labels.numpy(), np.arange(12))
    got = tightened_detections(exported, image.numpy(), as_arrays, names)
    assert got.cell.tolist() == wanted.cell.tolist()
    assert got.labels.tolist() == wanted.labels.tolist()
    np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-4)
    np.testing.assert_allclose(got.boxes, wanted.boxes, atol=0.05)
    assert np.abs(got.scores - scores.numpy()[got.cell]).max() > 0.01


def test_no_box_and_no_threshold_to_reach(exported):
    image = np.zeros((3, 40, 50), dtype=np.uint8)
    none = tighten(exported, image, np.zeros((0, 4)), np.zeros(0, dtype=int))
    assert none.boxes.shape == (0, 4)
    assert none.expected is not None
    kept = tighten(exported, image, np.array([[3.0, 4, 20, 30]]), np.array([0]), threshold=2.0)
    assert kept.boxes.tolist() == [[3.0, 4, 20, 30]]
    assert not kept.replaced.any()


def test_features_given_as_a_program(run, tmp_path):
    export_run(run, form="torch_export", features="given", out=tmp_path / "a.pt2", frames=1)
    about = json.loads((tmp_path / "a.json").read_text())
    assert about["features"] == "given"
    assert list(about["inputs"]) == ["image", "coarse", "owner", "labels", "extents", "level0"]
    assert about["check"]["score"] <= 1e-5


def test_the_sight_of_a_graph_reads_the_pixels_of_the_pyramid():
    image = torch.randint(0, 256, (1, 3, 201, 155), generator=torch.Generator().manual_seed(0)).float()
    boxes = torch.tensor([[3.0, 4, 9, 12], [10, 20, 90, 70], [0, 0, 155, 201], [-400, -300, 500, 600]])
    sight = OpenSight(image, [], boxes, torch.zeros(4).long(), torch.zeros(4).long())
    wanted = ImagePyramid([image[0]]).grids([boxes], 16)
    torch.testing.assert_close(sight.patches(boxes, 16), wanted, atol=1e-5, rtol=1e-5)
    assert sight.limits.tolist() == [[155, 201, 155, 201]] * 4


def test_an_encoder_without_a_graph_is_told():
    class Other:
        name = "sam:x"

    encoder: FrozenEncoder = Other()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"features.name sam:x: this encoder is not exported; use --features given"):
        FrozenGraph(encoder)


def test_a_model_of_another_kind_is_told(exported):
    image, boxes, labels = np.zeros((3, 40, 50)), np.zeros((1, 4)), np.zeros(1, dtype=int)
    with pytest.raises(UserError, match="holds a `point`"):
        tighten(replace(exported, about=exported.about | {"system": "point"}), image, boxes, labels)
    with pytest.raises(UserError, match="needs frozen features; export the run with --features inside"):
        tighten(replace(exported, about=exported.about | {"features": "given"}), image, boxes, labels)


def test_torch_is_never_imported(exported):
    program = (
        "import sys, numpy as np\n"
        "from boresight.run.onnx_model import OnnxModel\n"
        "from boresight.run.onnx_refine import tighten\n"
        f"model = OnnxModel.open({str(exported.path)!r})\n"
        "found = tighten(model, np.zeros((3, 40, 50)), np.array([[3.0, 4, 20, 30]]), np.array([0]))\n"
        "assert found.boxes.shape == (1, 4)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_predict_refines_with_exported_files(exported, run, trained_text, loaded_clip, tmp_path, capsys, monkeypatch):
    """`predict TEXT.onnx IMAGES --refine REFINE.onnx` gives what both runs give."""
    monkeypatch.setattr(text_parts, "load_clip", lambda name, weights=None, **more: loaded_clip)
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(small).resize((120, 90), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    text = export_run(trained_text, out=tmp_path / "text.onnx", frames=1)["out"]
    files = []
    for model, refiner in ((str(trained_text.root), str(run.root)), (text, str(exported.path))):
        out = tmp_path / f"{len(files)}.json"
        more = ["--refine", refiner, "--refine-threshold", "0", "--threshold", "0.0105", "--out", str(out)]
        assert main(["predict", model, str(tmp_path / "a.png"), *more, "--quiet", "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["refined_by"] == refiner
        files.append({row["cell"]: row for row in json.loads(out.read_text())})
    one, other = files
    assert len(one) > 3
    assert len(one.keys() ^ other.keys()) <= 0.02 * len(one)
    for cell in one.keys() & other.keys():
        assert one[cell]["score"] == pytest.approx(other[cell]["score"], abs=1e-4)
        np.testing.assert_allclose(one[cell]["bbox"], other[cell]["bbox"], atol=0.1)

    def fails(*arguments: str) -> str:
        assert main(["predict", *arguments]) == 2
        return capsys.readouterr().err

    picture = str(tmp_path / "a.png")
    assert "a `refine` finds nothing itself" in fails(str(exported.path), picture)
    assert "holds a `text`; give a file of a run of `refine`" in fails(text, picture, "--refine", text)
    assert "with an exported file give one of a refiner" in fails(text, picture, "--refine", str(run.root))
    assert "nothing is refined" in fails(text, picture, "--refine-threshold", "0.5")
