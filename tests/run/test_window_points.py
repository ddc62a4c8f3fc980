"""Points in large frames: found by windows as in the whole frame, each once, with the brightness of the whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from boresight.cli import main
from boresight.core.brightness import brightness
from boresight.core.grid import cell_centres, unravel_cell
from boresight.core.types import DenseOutput, Scene
from boresight.decode.peaks import decode_points
from boresight.run import predict as predict_module
from boresight.run.config import PointSettings
from boresight.run.point import point_detector
from boresight.run.windows import detect_peaks

STRIDE, STEP = 4, 16


class Brightest(nn.Module):
    """The score of a cell is its brightest pixel, of raw values in 0..1; it says where that pixel lies."""

    def __init__(self) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))

    def forward(self, scenes):
        (scene,) = scenes
        height, width = scene.size
        image = F.pad(scene.image, (0, -width % STEP, 0, -height % STEP))[None]
        peak, index = F.max_pool2d(image, STRIDE, return_indices=True)
        place = torch.stack((index % image.shape[-1], index // image.shape[-1]), -1) + 0.5
        boxes = torch.cat((place, place), -1)
        return DenseOutput(peak.logit(eps=1e-6), boxes, float(STRIDE), sizes=(scene.size,))

    def decode(self, output):
        return decode_points(output, top_k=50, min_score=0.01)


def found_by_windows(detector, frame, light, **size):
    return detect_peaks(detector, frame, "a", light, reach=1, step=STEP, **size)


@pytest.mark.parametrize("overlap", [32, 48])
def test_every_target_is_told_once_in_its_cell(overlap):
    """On the lines between windows, in what they share, at the edges of the frame; of neighbours the brighter one."""
    rng = np.random.default_rng(overlap)
    frame = np.zeros((1, 150, 203), dtype=np.float32)
    near = (0, 15, 16, 32, 47, 48, 63, 64, 79, 80, 96, 112, 128, 149)
    targets = {(x, y) for y in near for x in (*near, 160, 202) if rng.random() < 0.5}
    for x, y in targets:
        frame[0, y, x] = rng.uniform(0.2, 0.9)
    with torch.no_grad():
        (whole,) = decode_points(Brightest()([Scene(torch.from_numpy(frame), "a")]), top_k=5000, min_score=0.01)
    found = found_by_windows(Brightest(), frame, (0.0, 1.0), window=64, overlap=overlap)
    assert len(whole) > 50
    assert {(int(x), int(y)) for x, y in whole.xy.tolist()} <= targets
    have, want = (
        sorted(zip(d.cell.tolist(), d.boxes.tolist(), d.scores.tolist(), strict=True)) for d in (found, whole)
    )
    assert have == want
    assert (found.scores[:-1] >= found.scores[1:]).all()


class Frightened(Brightest):
    """Sees what is brightest along the borders of whatever it looks at."""

    def forward(self, scenes):
        output = super().forward(scenes)
        output.logits[..., [0, -1], ::2] = 9.0
        output.logits[..., ::2, [0, -1]] = 9.0
        return output


def test_borders_of_windows_do_not_crowd_out_what_is_there():
    """Eleven peaks on each border, and the detector gives fifty of an image."""
    frame = np.zeros((1, 300, 300), dtype=np.float32)
    frame[0, 10:290:20, 10:290:20] = 0.5
    found = found_by_windows(Frightened(), frame, (0.0, 1.0), window=96, overlap=64, least=0.1)
    inside = found.select((found.scores - 0.5).abs() < 1e-3)
    assert len(inside) == 14 * 14
    edge = found.select(found.scores > 0.9).xy
    assert ((edge < 4) | (edge > 296)).any(dim=1).all()


@pytest.fixture(scope="module")
def network():
    """The built-in encoder, as deep as it comes, with chance weights and the statistics of noise; peaks everywhere."""
    torch.manual_seed(0)
    settings = PointSettings()
    encoder = replace(settings.encoder, widths=(4, 4, 4, 4), channels=4)
    detector = point_detector(replace(settings, encoder=encoder), 1)
    with torch.no_grad():
        for _ in range(30):
            detector.emit(torch.randn(1, 1, 128, 128))
        logits, score = detector.eval().emit(torch.randn(1, 1, 128, 128)).logits, detector.head.score["2"]
        score.weight *= 4 / logits.std()
        score.bias.zero_()
    detector.decoder = lambda output: decode_points(output, top_k=5000)
    return detector


@pytest.mark.parametrize("mirrors", [False, True])
def test_peaks_are_those_of_the_whole_frame(network, mirrors):
    """What a window's border does to the features does not reach its own part: scores agree to 1e-5.

    The frame is brighter below: with a brightness of its own each window would see other pixels.
    """
    network.mirrors = mirrors
    noise = np.random.default_rng(0).normal(100, 9, (1, 560, 790)) + np.linspace(0, 30, 560)[:, None]
    noise[0, 250:252, 380:382] += 90
    frame = noise.astype(np.float32)
    light = brightness(frame)
    with torch.no_grad():
        (whole,) = network.decode(network([Scene(torch.from_numpy(frame), "a", level=light[0], spread=light[1])]))
    found = found_by_windows(network, frame, light, window=512, overlap=256)
    assert len(whole) > 500
    assert whole.scores.std() > 0.1
    order, wanted = found.cell.argsort(), whole.cell.argsort()
    assert found.cell[order].tolist() == whole.cell[wanted].tolist()
    torch.testing.assert_close(found.scores[order], whole.scores[wanted], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.boxes[order], whole.boxes[wanted], atol=1e-3, rtol=0)


def test_an_overlap_too_small_for_the_encoder_is_seen(network):
    """The test above can fail: with 32 px around its own part a window sees its border."""
    network.mirrors = False
    frame = np.random.default_rng(0).normal(100, 9, (1, 300, 300)).astype(np.float32)
    light = brightness(frame)
    whole = found_by_windows(network, frame, light, window=304, overlap=0)
    found = found_by_windows(network, frame, light, window=128, overlap=64)
    assert whole.cell.sort().values.tolist() != found.cell.sort().values.tolist()


# --- as the command line does it -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A TIFF of 16 bits, larger than the windows of these tests."""
    frame = np.random.default_rng(0).normal(9000, 300, (150, 230))
    frame[75:77, 111:113] += 4000
    file = tmp_path_factory.mktemp("large") / "a.tif"
    Image.fromarray(frame.astype(np.uint16)).save(file)
    return file


def results(run, image, out, capsys, *words):
    assert main(["predict", str(run), str(image), "--out", str(out), "--quiet", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1]), json.loads(out.read_text())


def test_the_window_is_that_of_the_option(loud, large, tmp_path, capsys, monkeypatch):
    seen, inner = [], predict_module.detect_peaks

    def looked(*args, **size):
        seen.append(size)
        return inner(*args, **size)

    monkeypatch.setattr(predict_module, "detect_peaks", looked)
    _, whole = results(loud.root, large, tmp_path / "a.json", capsys, "--threshold", "0.3")
    told, parts = results(loud.root, large, tmp_path / "b.json", capsys, "--threshold", "0.3", "--window", "96")
    assert [s["window"] for s in seen] == [1024, 96]
    assert [s["overlap"] for s in seen] == [256, 48]
    assert told["detections"] == len(parts) > 10
    assert len({tuple(row["point"]) for row in parts}) == len(parts)
    _, _, rows, columns = unravel_cell(torch.arange(40 * 60), [(1, 40, 60)])  # 150 x 230 px in whole steps of 16 px
    centre = cell_centres(40, 60, STRIDE)[rows, columns]
    assert all((centre - torch.tensor(row["point"])).abs().amax(-1).min() <= STRIDE for row in parts)
    assert len(whole) > 10


def test_an_exported_file_looks_through_the_same_windows(loud, exported, large, tmp_path, capsys):
    words = ("--threshold", "0.3", "--window", "96")
    _, wanted = results(loud.root, large, tmp_path / "a.json", capsys, *words)
    _, found = results(exported, large, tmp_path / "b.json", capsys, *words)
    assert len(found) == len(wanted) > 10
    np.testing.assert_allclose([r["score"] for r in found], [r["score"] for r in wanted], atol=1e-5)
    np.testing.assert_allclose([r["point"] for r in found], [r["point"] for r in wanted], atol=1e-3)


@pytest.mark.parametrize("form", ["run", "onnx"])
def test_a_large_tiff_is_never_read_whole(loud, exported, large, tmp_path, capsys, monkeypatch, form):
    """The limit is lowered so far that a small one is large: the same points, and a picture."""
    pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    from boresight.data.raster import GrayRaster

    run = exported if form == "onnx" else loud.root
    words = ("--threshold", "0.3", "--window", "96")
    _, wanted = results(run, large, tmp_path / "a.json", capsys, *words, "--overlays", str(tmp_path / "whole"))
    monkeypatch.setattr("boresight.data.raster.LARGE", 100)
    monkeypatch.setattr("boresight.data.raster.SQUARE", 64)
    monkeypatch.setattr("boresight.run.found_points.stored_pixels", lambda file: pytest.fail("read whole"))
    most, inner = [], GrayRaster.__getitem__

    def part(self, place):
        found = inner(self, place)
        most.append(found.size)
        return found

    monkeypatch.setattr(GrayRaster, "__getitem__", part)
    _, found = results(run, large, tmp_path / "b.json", capsys, *words, "--overlays", str(tmp_path / "parts"))
    assert max(most) <= 96 * 96
    assert len(found) == len(wanted) > 10
    np.testing.assert_allclose([r["score"] for r in found], [r["score"] for r in wanted], atol=1e-6)
    np.testing.assert_allclose([r["point"] for r in found], [r["point"] for r in wanted], atol=1e-3)
    one, other = (np.asarray(Image.open(tmp_path / name / "a.png"), int) for name in ("whole", "parts"))
    assert np.abs(one - other).max() <= 1


def test_a_window_too_small_for_the_detector(loud, large, tmp_path, capsys, monkeypatch):
    from boresight.run.predict import load_trained

    trained = load_trained(loud)
    trained.detector.divisor = 64
    monkeypatch.setattr(predict_module, "load_trained", lambda run, which: trained)
    words = ["predict", str(loud.root), str(large), "--out", str(tmp_path / "a.json")]
    assert main([*words, "--window", "64"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--window 64: too small for a detector of steps of 64 px; give 128 or more" in line
    assert not (tmp_path / "a.json").exists()
