"""What is found in image files, and what is written about it."""

from __future__ import annotations

import csv
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.cli import main
from boresight.core.errors import UserError
from boresight.core.types import Detections, Scene
from boresight.data.raster import Raster
from boresight.detectors.text_query import TextQuery
from boresight.run import predict_boxes as predict_boxes_module
from boresight.run.boxes import box_splits
from boresight.run.found_boxes import COLOURS, draw, split_queries, write_csv
from boresight.run.predict import load_trained
from boresight.run.predict_boxes import predict_boxes
from boresight.run.record import RunFolder
from boresight.run.windows import detect_windows

pytestmark = pytest.mark.usefixtures("one_clip")


@pytest.fixture(scope="module")
def pictures(tiny_text, tmp_path_factory):
    """Two made scenes, one of them also as gray, and a long one."""
    folder = tmp_path_factory.mktemp("pictures")
    frames = box_splits(tiny_text().data).test
    first, second = (np.moveaxis(frames[i].image.numpy(), 0, -1) for i in range(2))
    Image.fromarray(first).save(folder / "a.png")
    Image.fromarray(second[:61, :47]).save(folder / "b.png")
    Image.fromarray(second[..., 0]).save(folder / "gray.png")
    Image.fromarray(np.concatenate((first, second), axis=1)).save(folder / "long.png")
    return folder


def rows_of(file):
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# --- queries ---------------------------------------------------------------------------------------------------------


def test_queries_are_parted_by_commas():
    assert split_queries("ship, red aircraft ,a|b") == ("ship", "red aircraft", "a|b")
    assert split_queries("ship") == ("ship",)


@pytest.mark.parametrize("text", ["", " ", "ship,", ",ship", "a,,b"])
def test_an_empty_query_is_refused(text):
    with pytest.raises(UserError, match="an empty query; write them like") as caught:
        split_queries(text)
    assert f"`{text}`" in str(caught.value)


# --- predict ---------------------------------------------------------------------------------------------------------


def test_results_table_and_pictures_agree(trained_text, pictures, tmp_path):
    out = tmp_path / "found.json"
    told = predict_boxes(
        trained_text,
        [str(pictures)],
        out,
        queries=("ship", "yellow vehicle|car"),
        threshold=0.0,
        overlays=tmp_path / "drawn",
    )
    results, rows = json.loads(out.read_text()), rows_of(tmp_path / "found.csv")
    assert told["images"] == 4
    assert told["queries"] == ["ship", "yellow vehicle|car"]
    assert told["threshold"] == 0.0
    assert told["geojson"] == []
    assert len(results) == len(rows) == told["detections"] > 0
    assert list(rows[0]) == ["image", "query", "score", "x0", "y0", "x1", "y1", "cell"]
    number = {"a.png": 1, "b.png": 2, "gray.png": 3, "long.png": 4}
    for row, result in zip(rows, results, strict=True):
        assert result["image_id"] == number[row["image"]]
        assert ("ship", "yellow vehicle|car")[result["category_id"] - 1] == row["query"]
        assert result["score"] == pytest.approx(float(row["score"]), abs=1e-6)
        x0, y0, x1, y1 = (float(row[k]) for k in ("x0", "y0", "x1", "y1"))
        assert result["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=0.02)
        assert result["cell"] == int(row["cell"])
        assert x1 > x0
        assert y1 > y0
    assert sorted(told["overlays"]) == [str(tmp_path / "drawn" / f"{n}.png") for n in ("a", "b", "gray", "long")]
    for path in told["overlays"]:
        with Image.open(path) as drawn, Image.open(pictures / path.rsplit("/", 1)[-1]) as plain:
            assert drawn.size == plain.size


def test_without_queries_the_trained_classes_are_found(trained_text, pictures, tmp_path):
    told = predict_boxes(trained_text, [str(pictures / "a.png")], tmp_path / "found.csv")
    assert told["queries"] == ["yellow vehicle", "black storage tank"]
    assert told["out"] == str(tmp_path / "found.json")
    assert told["csv"] == str(tmp_path / "found.csv")
    assert told["threshold"] == load_trained(trained_text).checkpoint.threshold
    assert all(r["score"] >= told["threshold"] for r in json.loads((tmp_path / "found.json").read_text()))


def test_it_is_the_detector_that_speaks(trained_text, pictures, tmp_path):
    predict_boxes(trained_text, [str(pictures / "b.png")], tmp_path / "a.json", queries=("ship",), threshold=0.0)
    detector = load_trained(trained_text).detector
    detector.ask(("ship",))
    image = torch.from_numpy(np.moveaxis(np.asarray(Image.open(pictures / "b.png")), -1, 0).copy())
    with torch.no_grad():
        (want,) = detector.decode(detector([Scene(image, "b.png")]))
    have = json.loads((tmp_path / "a.json").read_text())
    assert [r["cell"] for r in have] == want.cell.tolist()
    assert [r["score"] for r in have] == pytest.approx(want.scores.tolist(), abs=2e-6)


def test_a_trained_class_is_asked_as_it_was_trained(trained_text, pictures, tmp_path, monkeypatch):
    """By its name, its query and what was learned of it are found again; a free query is taken as it is."""
    asked = []
    monkeypatch.setattr(TextQuery, "ask", lambda self, queries: asked.append(list(queries)))
    trained = load_trained(trained_text)
    data = replace(trained.settings.data, queries=("yellow vehicle=car|truck",))
    trained = replace(trained, settings=replace(trained.settings, data=data))
    monkeypatch.setattr(predict_boxes_module, "load_trained", lambda run, which: trained)
    queries = ("follow-me car", "yellow vehicle")
    told = predict_boxes(trained_text, [str(pictures / "a.png")], tmp_path / "a.json", queries=queries)
    assert told["queries"] == list(queries)
    predict_boxes(trained_text, [str(pictures / "a.png")], tmp_path / "a.json")
    assert asked == [["follow-me car", "car|truck"], ["car|truck", "black storage tank"]]


def test_large_images_are_read_in_windows(trained_text, pictures, tmp_path):
    file = str(pictures / "long.png")
    told = predict_boxes(trained_text, [file], tmp_path / "a.json", queries=("ship",), threshold=0.0, window=64)
    detector = load_trained(trained_text).detector
    detector.ask(("ship",))
    image = torch.from_numpy(np.moveaxis(np.asarray(Image.open(file)), -1, 0).copy())
    want = detect_windows(detector, Scene(image, "long.png"), window=64, overlap=16, step=16)
    assert told["detections"] == len(want)
    assert [r["cell"] for r in json.loads((tmp_path / "a.json").read_text())] == want.cell.tolist()


def test_windows_lie_on_the_cells_of_the_detector(trained_text, pictures, tmp_path, monkeypatch):
    """A detector that pads images to 32 px has windows at multiples of 32, and so many rows of cells."""
    trained = load_trained(trained_text)
    trained.detector.divisor = 32
    monkeypatch.setattr(predict_boxes_module, "load_trained", lambda run, which: trained)
    file, corners = str(pictures / "long.png"), []
    inner = trained.detector.forward
    monkeypatch.setattr(trained.detector, "forward", lambda scenes: corners.append(scenes[0].name) or inner(scenes))
    predict_boxes(trained_text, [file], tmp_path / "a.json", queries=("ship",), threshold=0.0, window=64)
    assert corners == [f"long.png[{top},{left}]" for top in (0, 32) for left in (0, 32, 64, 96)]
    image = torch.from_numpy(np.moveaxis(np.asarray(Image.open(file)), -1, 0).copy())
    want = detect_windows(trained.detector, Scene(image, "long.png"), window=64, overlap=16, step=32)
    assert len(want) > 0
    assert [r["cell"] for r in json.loads((tmp_path / "a.json").read_text())] == want.cell.tolist()


def test_features_of_windows_do_not_pile_up(trained_text, pictures, tmp_path, monkeypatch):
    """No window is seen twice: what is kept in memory of each would grow with the image."""
    trained = load_trained(trained_text)
    monkeypatch.setattr(predict_boxes_module, "load_trained", lambda run, which: trained)
    predict_boxes(trained_text, [str(pictures / "long.png")], tmp_path / "a.json", queries=("ship",), window=64)
    assert trained.detector.store.counters.misses > 4
    assert trained.detector.store.held == 0


def test_nothing_found_leaves_a_header_and_an_empty_list(trained_text, pictures, tmp_path):
    told = predict_boxes(trained_text, [str(pictures / "a.png")], tmp_path / "a.json", threshold=1.0)
    assert told["detections"] == 0
    assert json.loads((tmp_path / "a.json").read_text()) == []
    assert (tmp_path / "a.csv").read_text() == "image,query,score,x0,y0,x1,y1,cell\n"


def test_localisation_can_be_asked_as_well(trained_localise, pictures, tmp_path):
    told = predict_boxes(trained_localise, [str(pictures / "a.png")], tmp_path / "a.json", queries=("ship",))
    assert told["threshold"] == 0.0
    assert told["detections"] > 0


def test_files_of_one_name_are_told_apart(trained_text, pictures, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes((pictures / "b.png").read_bytes())
    told = predict_boxes(
        trained_text, [str(tmp_path / "one"), str(tmp_path / "two")], tmp_path / "a.json", overlays=tmp_path / "drawn"
    )
    assert [p.rsplit("/", 1)[-1] for p in told["overlays"]] == ["1-x.png", "2-x.png"]


@pytest.mark.parametrize("kind", ["gray", "colour"])
def test_images_of_16_bits_are_refused(kind, trained_text, tmp_path):
    """Which part of their range is the picture is not known; training refuses them as well."""
    values = np.full((40, 40), 300, dtype=np.uint16)
    file = tmp_path / "deep.png"
    if kind == "gray":
        Image.fromarray(values).save(file)
    else:
        file.write_bytes(deep_colour(values))
    with pytest.raises(UserError, match="8 bits") as caught:
        predict_boxes(trained_text, [str(file)], tmp_path / "a.json", queries=("ship",))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def deep_colour(values) -> bytes:
    """A PNG of three channels of 16 bits, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape
    pixels = np.repeat(values[..., None], 3, axis=2).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_picture_of_one_bit_is_black_and_white(trained_text, tmp_path):
    """As in training: 0 and 255, not 0 and 1."""
    pattern = np.zeros((40, 40), dtype=np.uint8)
    pattern[10:30, 10:30] = 255
    Image.fromarray(pattern).save(tmp_path / "eight.png")
    Image.fromarray(pattern).convert("1").save(tmp_path / "one.png")
    files = [str(tmp_path / f"{n}.png") for n in ("eight", "one")]
    predict_boxes(trained_text, files, tmp_path / "a.json", queries=("ship",), threshold=0.0)
    rows = json.loads((tmp_path / "a.json").read_text())
    eight, one = ([{**r, "image_id": 0} for r in rows if r["image_id"] == k] for k in (1, 2))
    assert eight
    assert eight == one


def test_places_on_the_earth_go_beside_the_results(trained_text, pictures, tmp_path, monkeypatch):
    from boresight.run import geo as module

    monkeypatch.setattr(module, "geojson", lambda image, found, names: {"n": len(found)} if image.stem == "b" else None)
    told = predict_boxes(trained_text, [str(pictures)], tmp_path / "found.json", threshold=0.0)
    assert told["geojson"] == [str(tmp_path / "found-2-b.geojson")]
    assert json.loads((tmp_path / "found-2-b.geojson").read_text())["n"] > 0


def test_a_run_of_points_takes_no_queries(trained, pictures, tmp_path, capsys):
    words = ["predict", str(trained.root), str(pictures), "--out", str(tmp_path / "a.json")]
    assert main([*words, "--queries", "ship"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--queries" in line
    assert "a run of `point`, which finds points and takes no queries" in line
    with pytest.raises(UserError, match="a run of `point` finds points and takes no queries"):
        predict_boxes(trained, [str(pictures)], tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_a_checkpoint_that_was_never_written(tmp_path, pictures):
    with pytest.raises(UserError, match="no such checkpoint"):
        predict_boxes(RunFolder(tmp_path), [str(pictures)], tmp_path / "a.json")


# --- what is written -------------------------------------------------------------------------------------------------

TWO = Detections(
    torch.tensor([[2.0, 20.0, 12.0, 30.0], [20.25, 2.0, 28.0, 6.0]]),
    torch.tensor([0.75, 0.5]),
    torch.tensor([1, 0]),
    torch.tensor([7, 3]),
)
NOTHING = TWO.select(torch.zeros(2, dtype=torch.bool))


def test_the_table_by_hand(tmp_path):
    write_csv(tmp_path / "a.csv", ["x.png", "y, z.png"], [NOTHING, TWO], ("ship", "red, plane"))
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "image,query,score,x0,y0,x1,y1,cell",
        '"y, z.png","red, plane",0.750000,2.00,20.00,12.00,30.00,7',
        '"y, z.png",ship,0.500000,20.25,2.00,28.00,6.00,3',
    ]


def test_boxes_are_drawn_where_they_are(tmp_path):
    black = np.zeros((3, 40, 40), dtype=np.uint8)
    draw(tmp_path / "a.png", black, TWO, ("ship", "plane"))
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert tuple(picture[25, 2]) == tuple(picture[29, 7]) == COLOURS[1]
    assert tuple(picture[25, 7]) == (0, 0, 0)
    assert tuple(picture[4, 27]) == COLOURS[0]
    assert not picture[35:, 30:].any()
    draw(tmp_path / "b.png", black, NOTHING, ())
    assert not np.asarray(Image.open(tmp_path / "b.png")).any()


def test_a_box_thinner_than_its_line_can_be_drawn(tmp_path):
    thin = Detections(torch.tensor([[5.0, 5.0, 5.5, 5.5]]), torch.ones(1), torch.tensor([0]), torch.tensor([0]))
    draw(tmp_path / "a.png", np.zeros((3, 20, 20), dtype=np.uint8), thin, ("ship",))
    assert np.asarray(Image.open(tmp_path / "a.png")).any()


def test_a_large_tiff_is_read_by_windows_to_the_same_files(trained_text, pictures, tmp_path, monkeypatch):
    """The limit is lowered so far that a small one is large."""
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    pixels = np.moveaxis(np.asarray(Image.open(pictures / "long.png")), -1, 0)
    about = {"driver": "GTiff", "width": pixels.shape[2], "height": pixels.shape[1], "count": 3, "dtype": "uint8"}
    about |= {"crs": "EPSG:32631", "transform": rasterio.Affine(2, 0, 500_000, 0, -2, 4_600_000)}
    with rasterio.open(tmp_path / "long.tif", "w", tiled=True, blockxsize=32, blockysize=32, **about) as out:
        out.write(pixels)
    common = {"threshold": 0.01, "window": 64, "overlays": tmp_path / "pictures"}
    want = predict_boxes(trained_text, [str(tmp_path / "long.tif")], tmp_path / "whole.json", **common)
    drawn = (tmp_path / "pictures" / "long.png").read_bytes()
    monkeypatch.setattr("boresight.data.raster.LARGE", 100)
    monkeypatch.setattr("boresight.run.found_boxes.rgb_pixels", lambda file: pytest.fail("read whole"))
    have = predict_boxes(trained_text, [str(tmp_path / "long.tif")], tmp_path / "parts.json", **common)
    assert have["detections"] == want["detections"] > 0
    for end in (".json", ".csv", "-1-long.geojson"):
        assert (tmp_path / f"parts{end}").read_text() == (tmp_path / f"whole{end}").read_text()
    assert (tmp_path / "pictures" / "long.png").read_bytes() == drawn


def test_the_picture_of_a_large_image_is_a_small_one(tmp_path, monkeypatch):
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    about = {"driver": "GTiff", "width": 80, "height": 40, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=rasterio.Affine(2, 0, 5, 0, -2, 9), **about) as out:
        out.write(np.full((3, 40, 80), 7, np.uint8))
    monkeypatch.setattr("boresight.run.found_boxes.LARGEST_PICTURE", 40)
    found = Detections(torch.tensor([[20.0, 8, 60, 32]]), torch.ones(1), torch.tensor([0]), torch.tensor([0]))
    draw(tmp_path / "a.png", Raster(tmp_path / "a.tif"), found, ["ship"])
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    assert shown.shape == (20, 40, 3)
    assert shown[10, 10].tolist() == shown[10, 29].tolist() == list(COLOURS[0])
    assert shown[10, 5].tolist() == [7, 7, 7]
