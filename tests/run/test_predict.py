from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from boresight.cli import main
from boresight.run.checkpoint import load_checkpoint
from boresight.run.predict import load_trained
from boresight.run.record import RunFolder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The same dim scene as an 8-bit, a 16-bit and an RGB file of odd sizes, and one of noise."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    dim = rng.integers(90, 110, (47, 61)).astype(np.uint8)
    dim[20:22, 30:32] = 255
    Image.fromarray(dim).save(folder / "eight.png")
    Image.fromarray(dim.astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(np.stack([dim] * 3, -1)).save(folder / "colour.png")
    Image.fromarray(rng.integers(0, 255, (33, 5)).astype(np.uint8)).save(folder / "narrow.png")
    return folder


def predict(run: RunFolder, *words: str) -> int:
    return main(["predict", str(run.root), *words, "--quiet"])


def rows_of(file):
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_kind_of_image_is_read(trained, pictures, tmp_path, capsys):
    out = tmp_path / "found.json"
    assert predict(trained, str(pictures), "--out", str(out), "--threshold", "0", "--json") == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["images"] == 4
    assert line["out"] == str(out)
    results, rows = json.loads(out.read_text()), rows_of(tmp_path / "found.csv")
    assert len(results) == len(rows) == line["detections"] > 0
    assert {r["image"] for r in rows} == {"eight.png", "sixteen.png", "colour.png", "narrow.png"}
    assert rows[0].keys() == {"image", "x", "y", "score", "class"}
    assert {r["class"] for r in rows} == {"target"}
    number = {name: i + 1 for i, name in enumerate(sorted({r["image"] for r in rows}))}
    for row, result in zip(rows, results, strict=True):
        assert result["image_id"] == number[row["image"]]
        assert result["point"] == pytest.approx([float(row["x"]), float(row["y"])], abs=1e-3)
        assert result["score"] == pytest.approx(float(row["score"]), abs=1e-6)


def test_bits_and_channels_change_nothing(trained, pictures, tmp_path):
    """Frames are normalised by their own brightness."""
    out = tmp_path / "found.json"
    assert predict(trained, str(pictures), "--out", str(out), "--threshold", "0") == 0
    found = {
        name: [
            (float(r["x"]), float(r["y"]), float(r["score"]))
            for r in rows_of(tmp_path / "found.csv")
            if r["image"] == name
        ]
        for name in ("eight.png", "sixteen.png", "colour.png")
    }
    assert found["eight.png"]
    for name in ("sixteen.png", "colour.png"):
        assert np.array(found[name]) == pytest.approx(np.array(found["eight.png"]), abs=2e-2)


def test_detections_lie_on_cells_of_the_image(trained, pictures, tmp_path):
    assert predict(trained, str(pictures / "narrow.png"), "--out", str(tmp_path / "a.json"), "--threshold", "0") == 0
    rows = rows_of(tmp_path / "a.csv")
    assert rows
    # 5x33 pixels are padded to 16x48 for the encoder; cells of 4 pixels that touch the image end at 8 and 36
    assert all(-2 <= float(r["x"]) <= 8 and -2 <= float(r["y"]) <= 36 for r in rows)


def test_the_threshold_is_the_validated_one_unless_given(trained, pictures, tmp_path, capsys):
    kept = load_checkpoint(trained.checkpoints / "last.safetensors").threshold
    words = [str(pictures / "eight.png"), "--out", str(tmp_path / "a.json"), "--json"]
    assert predict(trained, *words) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["threshold"] == kept
    assert all(r["score"] >= kept for r in json.loads((tmp_path / "a.json").read_text()))
    assert predict(trained, *words, "--threshold", "1") == 0
    assert json.loads((tmp_path / "a.json").read_text()) == []
    assert (tmp_path / "a.csv").read_text().splitlines() == ["image,x,y,score,class"]


def test_nothing_found_is_said(trained, pictures, tmp_path, capsys):
    words = [str(pictures), "--out", str(tmp_path / "a.json")]
    assert predict(trained, *words, "--threshold", "1") == 0
    files = f"{tmp_path / 'a.json'} and {tmp_path / 'a.csv'}"
    said = f"4 images, 0 detections at threshold 1 (--threshold changes it); wrote {files}\n"
    assert capsys.readouterr().out == said
    assert predict(trained, str(pictures / "eight.png"), *words[1:], "--threshold", "1") == 0
    assert capsys.readouterr().out.startswith("1 image, 0 detections")
    assert predict(trained, *words, "--threshold", "0") == 0
    assert capsys.readouterr().out == ""
    assert predict(trained, *words, "--threshold", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["detections"] == 0


@pytest.mark.parametrize("threshold", ["-0.1", "1.5", "nan"])
def test_a_threshold_is_a_share(trained, pictures, threshold, capsys):
    assert predict(trained, str(pictures), f"--threshold={threshold}") == 2
    assert "--threshold" in capsys.readouterr().err


def test_an_out_that_is_a_table(trained, pictures, tmp_path):
    """Both files are kept: the table is not written over the results."""
    assert predict(trained, str(pictures / "eight.png"), "--out", str(tmp_path / "a.csv"), "--threshold", "0") == 0
    assert rows_of(tmp_path / "a.csv")
    assert json.loads((tmp_path / "a.json").read_text())


def test_points_of_a_georeferenced_frame_are_places_on_the_earth(trained, pictures, tmp_path, capsys):
    """By rasterio itself: pixels of 10 m from (500000, 0) of UTM zone 33 on, which is 15 degrees east."""
    import rasterio

    place = rasterio.Affine(10, 0, 500_000, 0, -10, 0)
    pixels = np.array(Image.open(pictures / "eight.png"))
    with rasterio.open(tmp_path / "b.tif", "w", "GTiff", 61, 47, 1, "EPSG:32633", place, "uint8") as file:
        file.write(pixels[None])
    images = [str(pictures / "eight.png"), str(tmp_path / "b.tif")]
    assert predict(trained, *images, "--out", str(tmp_path / "a.json"), "--threshold", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["geojson"] == [str(tmp_path / "a-2-b.geojson")]
    rows = [r for r in rows_of(tmp_path / "a.csv") if r["image"] == "b.tif"]
    features = json.loads((tmp_path / "a-2-b.geojson").read_text())["features"]
    assert len(features) == len(rows) > 0
    for row, feature in zip(rows, features, strict=True):
        assert feature["properties"]["score"] == pytest.approx(float(row["score"]), abs=1e-6)
        east, north = feature["geometry"]["coordinates"]
        assert east == pytest.approx(15 + float(row["x"]) * 10 / 0.9996 / 111_319.49, abs=1e-7)
        assert north == pytest.approx(-float(row["y"]) * 10 / 0.9996 / 110_574.3, abs=1e-7)


def test_overlays(trained, pictures, tmp_path):
    assert (
        predict(
            trained,
            str(pictures),
            "--out",
            str(tmp_path / "a.json"),
            "--overlays",
            str(tmp_path / "seen"),
            "--threshold",
            "0",
        )
        == 0
    )
    drawn = {}
    for file in (tmp_path / "seen").iterdir():
        with Image.open(file) as picture:
            drawn[file.name] = picture.size
    assert drawn == {"eight.png": (61, 47), "sixteen.png": (61, 47), "colour.png": (61, 47), "narrow.png": (5, 33)}
    with Image.open(tmp_path / "seen" / "eight.png") as picture:
        values = np.asarray(picture)
    assert picture.mode == "RGB"
    assert (values == (64, 224, 144)).all(-1).any()


def test_overlays_of_images_that_share_a_name(trained, pictures, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "same.png").write_bytes((pictures / "eight.png").read_bytes())
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "a.json")]
    assert predict(trained, *words, "--overlays", str(tmp_path / "seen")) == 0
    assert len(list((tmp_path / "seen").iterdir())) == 2


@pytest.mark.parametrize(
    ("images", "complaint"), [("empty", "no images there"), ("nowhere", "no such file"), ("*.none", "no images there")]
)
def test_no_images_are_the_users_mistake(trained, tmp_path, images, complaint, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(trained, str(tmp_path / images), "--out", str(tmp_path / "a.json")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
    assert not (tmp_path / "a.json").exists()


def test_a_corrupt_image_is_named_and_nothing_is_written(trained, pictures, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes((pictures / "eight.png").read_bytes()[:200])
    assert predict(trained, str(pictures), str(tmp_path / "broken.png"), "--out", str(tmp_path / "a.json")) == 2
    assert "broken.png" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


def test_a_run_that_is_not_there(tmp_path, capsys):
    assert main(["predict", str(tmp_path / "none"), "x.png"]) == 2
    assert "no run here" in capsys.readouterr().err


def test_an_out_that_cannot_be_written(trained, pictures, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert predict(trained, str(pictures / "eight.png"), "--out", str(tmp_path / "file" / "a.json")) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_overlays_that_cannot_be_written(trained, pictures, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    words = [str(pictures / "eight.png"), "--out", str(tmp_path / "a.json"), "--overlays", str(tmp_path / "file")]
    assert predict(trained, *words) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_trained_detector_is_ready(trained, tiny):
    loaded = load_trained(trained)
    assert not loaded.detector.training
    assert loaded.detector.progress == 1.0
    assert loaded.settings == tiny()
