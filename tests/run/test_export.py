"""Exported files say what the detector says, on any size and number of images, and run without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from boresight.cli import main
from boresight.core.errors import Failure, UserError
from boresight.run import export as export_module
from boresight.run import export_check
from boresight.run.checkpoint import load_checkpoint, save_checkpoint
from boresight.run.export import export_run
from boresight.run.export_check import Difference
from boresight.run.onnx_model import OnnxModel, find_points
from boresight.run.parse import nested
from boresight.run.point import POINT
from boresight.run.predict import load_trained
from boresight.run.record import RunFolder


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """Frames on disk: 8 and 16 bits, gray and colour, of sizes that are multiples of nothing."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for name, shape, kind in [("a", (64, 80), np.uint8), ("b", (51, 77), np.uint16), ("c", (40, 61, 3), np.uint8)]:
        noise = rng.normal(100, 8, shape)
        noise[20:22, 30:32] += 90
        Image.fromarray(noise.clip(0, 255).astype(kind)).save(folder / f"{name}.png")
    return folder


def rows(file: Path) -> list[dict]:
    return json.loads(file.read_text())


def same_rows(one: list[dict], other: list[dict], key: str) -> None:
    assert [(r["image_id"], r["category_id"]) for r in one] == [(r["image_id"], r["category_id"]) for r in other]
    assert len({round(r["score"], 2) for r in one}) > 10
    np.testing.assert_allclose([r["score"] for r in one], [r["score"] for r in other], atol=1e-5)
    np.testing.assert_allclose([r[key] for r in one], [r[key] for r in other], atol=1e-3)


def test_the_file_says_what_it_is(exported, loud):
    about = OnnxModel.open(exported).about
    checkpoint = load_trained(loud).checkpoint
    assert about["system"] == "point"
    assert about["classes"] == list(checkpoint.classes)
    assert about["threshold"] == checkpoint.threshold
    assert about["stride"] == 4.0
    assert about["decode"] == {"top_k": 100, "refine": "offset", "window": 3}
    assert about["settings"]["encoder"]["channels"] == 4
    assert len(about["checkpoint"]["sha256"]) == 64
    assert about["check"]["score"] <= about["check"]["score_limit"] == 1e-4
    assert about["check"]["sizes"] == ["80x64", "61x55"]
    onnx.checker.check_model(onnx.load(exported))
    shapes = {v.name: v.shape for v in (*OnnxModel.open(exported).session.get_inputs(),)}
    assert shapes == {"image": ["batch", 1, "height", "width"], "level": ["batch"], "spread": ["batch"]}


@pytest.mark.parametrize("shape", [(1, 64, 80), (3, 33, 47), (2, 128, 96), (1, 16, 20)])
def test_any_size_and_number_of_frames(exported, loud, shape):
    from boresight.core.types import Scene

    count, height, width = shape
    image = torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(0)) * 200
    found = OnnxModel.open(exported).run(
        image=image.numpy(),
        level=np.full(count, 90.0, dtype=np.float32),
        spread=np.full(count, 40.0, dtype=np.float32),
    )
    with torch.no_grad():
        wanted = load_trained(loud).detector([Scene(i, "a", level=90.0, spread=40.0) for i in image])
    np.testing.assert_allclose(found["scores"], wanted.logits.sigmoid().numpy(), atol=1e-5)
    np.testing.assert_allclose(found["boxes"], wanted.boxes[:, :1].numpy(), atol=1e-3)


def test_predict_gives_what_the_run_gives(exported, loud, frames, tmp_path, capsys):
    arguments = [str(frames), "--threshold", "0.5", "--quiet", "--json"]
    told = []
    for model, name in ((str(loud.root), "run"), (str(exported), "file")):
        out = tmp_path / name / "found.json"
        assert main(["predict", model, *arguments, "--out", str(out), "--overlays", str(tmp_path / name / "o")]) == 0
        told.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert told[0].keys() == told[1].keys()
    assert told[0]["detections"] == told[1]["detections"] > 0
    same_rows(rows(tmp_path / "run" / "found.json"), rows(tmp_path / "file" / "found.json"), "point")
    head, *lines = (tmp_path / "file" / "found.csv").read_text().splitlines()
    assert head == "image,x,y,score,class"
    assert len(lines) == told[0]["detections"]
    for name in "abc":
        one, other = (np.asarray(Image.open(tmp_path / w / "o" / f"{name}.png"), int) for w in ("run", "file"))
        assert np.abs(one - other).max() <= 1


def test_torch_is_never_imported(exported, frames, tmp_path):
    arguments = [
        "predict",
        str(exported),
        str(frames),
        "--threshold",
        "0",
        "--quiet",
        "--out",
        str(tmp_path / "a.json"),
    ]
    program = (
        "import sys\n"
        "from boresight.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        "loaded = [m for m in sys.modules if m.split('.')[0] in ('torch', 'torchvision', 'boresight.detectors')]\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "a.json")) > 0


def test_the_settings_travel(trained, tiny, tmp_path):
    """A run that looks for the vertex, in mirrored views, at proposals, keeps that in its file."""
    run = RunFolder(shutil.copytree(trained.root, tmp_path / "run"))
    decode = {"decode.refine": "parabola", "decode.top_k": 5, "decode.window": 5, "decode.mirrors": True}
    settings = tiny(decode | {"head.mode": "coarse_to_fine", "head.proposals": 4, "head.attention": "both"})
    torch.manual_seed(0)
    weights = POINT.build(settings, ("target",)).state_dict()
    weights["head.score.2.weight"] *= 4000
    path = run.checkpoints / "last.safetensors"
    save_checkpoint(path, replace(load_checkpoint(path), weights=weights, settings=nested(settings)))
    told = export_run(run)
    model = OnnxModel.open(told["out"])
    assert model.about["decode"] == {"top_k": 5, "refine": "parabola", "window": 5}
    trained = load_trained(run)
    scene = POINT.frames(trained.settings, "test").test[0]
    with torch.no_grad():
        [wanted] = trained.detector.decode(trained.detector([scene]))
    found = find_points(model, scene.image.numpy())
    assert found.cell.tolist() == wanted.cell.tolist()
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-2)


def test_a_program_of_torch_export(trained, tmp_path):
    told = export_run(trained, form="torch_export", out=tmp_path / "a.pt2")
    about = json.loads((tmp_path / "a.json").read_text())
    assert about["schema_version"] == 1
    assert about["check"] == told["check"]
    assert about["check"]["score"] <= 1e-6
    program = torch.export.load(tmp_path / "a.pt2").module()
    logits, scores, boxes = program(torch.rand(3, 1, 40, 50) * 200, torch.full((3,), 90.0), torch.full((3,), 40.0))
    assert scores.shape == (3, 1, 12, 16)
    torch.testing.assert_close(scores, logits.sigmoid())
    assert boxes.shape == (3, 1, 12, 16, 4)


@pytest.mark.parametrize("form", ["onnx", "torch_export"])
def test_a_graph_that_differs_is_not_left_behind(trained, tmp_path, monkeypatch, form):
    monkeypatch.setattr(export_module, "compared", lambda *a: Difference(4, (), 2e-4, 0.0, 0.0))
    monkeypatch.setattr(export_module, "_program", lambda *a: None)
    for made in ("_onnx", "_torch_export"):
        monkeypatch.setattr(export_module, made, lambda *a: (b"", None))
    with pytest.raises(Failure, match=r"differs from PyTorch: .* scores differ by 2.0e-04 at most \(limit 0.0001\)"):
        export_run(trained, form=form, out=tmp_path / ("a" + export_module.SUFFIX[form]))
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_other_weights(trained, tmp_path, monkeypatch):
    """The comparison is with the detector, not with the graph's own module."""
    real = export_module.graph_of

    def spoilt(*given):
        import copy

        graph = real(*given)
        graph.expected = copy.deepcopy(graph).expected
        with torch.no_grad():
            graph.detector.head.place.bias += 0.01
        return graph

    monkeypatch.setattr(export_module, "graph_of", spoilt)
    with pytest.raises(Failure, match=r"boxes by 1.0e-02 of their side \(limit 0.001; 4.0e-02 px\)"):
        export_run(trained, out=tmp_path / "a.onnx")


def test_what_is_no_number_does_not_fit():
    nan = float("nan")
    assert Difference(1, (), 0.0, 0.0, 0.0).fits
    assert not Difference(1, (), nan, 0.0, 0.0).fits
    assert not Difference(1, (), 0.0, nan, 0.0).fits
    assert not Difference(1, (), 0.0, 2e-3, 0.0).fits


def test_what_torch_cannot_export_is_a_failure_in_one_line(trained, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(torch.export, "export", broken)
    with pytest.raises(Failure, match=r"torch.export cannot export this detector \(no such operator\)"):
        export_run(trained, out=tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_told(trained, exported, frames, tmp_path, capsys):
    def fails(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        return capsys.readouterr().err

    assert "ends in .onnx" in fails("export", str(trained.root), "--out", str(tmp_path / "a.pt"))
    assert "no run here" in fails("export", str(tmp_path))
    assert "--frames 0: must be 1 or more" in fails("export", str(trained.root), "--frames", "0")
    assert "did you mean `onnx`" in fails("export", str(trained.root), "--format", "onx")
    assert "no such file" in fails("predict", str(tmp_path / "none.onnx"), str(frames))
    assert "takes no queries" in fails("predict", str(exported), str(frames), "--queries", "ship")
    assert "no boxes to tighten" in fails("predict", str(exported), str(frames), "--refine", "r.onnx")
    assert "export the other with --which best" in fails("predict", str(exported), str(frames), "--checkpoint", "best")
    (tmp_path / "broken.onnx").write_bytes(exported.read_bytes()[:2000])
    assert "onnxruntime cannot run it" in fails("predict", str(tmp_path / "broken.onnx"), str(frames))
    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    assert "no file of `boresight export`" in fails("predict", str(tmp_path / "foreign.onnx"), str(frames))


def test_a_run_whose_frames_are_gone_is_not_exported_unchecked(trained, tmp_path, monkeypatch):
    def gone(*args):
        raise UserError("DIR: no such data set: correct the path")

    monkeypatch.setattr(export_check, "recipe", lambda name: replace(POINT, frames=gone))
    with pytest.raises(UserError, match=r"no such data set: correct the path .an export is checked on frames"):
        export_run(trained, out=tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
