"""Places on the earth: which files have any, what a box becomes, and what is said where rasterio is missing."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from boresight.core.errors import UserError
from boresight.core.types import Detections
from boresight.run.geo import geojson, has_transform, write_places

SCALE, TIE, MATRIX = 33550, 33922, 34264
FOUND = Detections(
    torch.tensor([[2.0, 4.0, 10.0, 8.0], [0.0, 0.0, 1.0, 1.0]]),
    torch.tensor([0.91234567, 0.5]),
    torch.tensor([1, 0]),
    torch.tensor([3, 0]),
)


def tiff(path, tags=()):
    """A small TIFF with georeference tags."""
    about = ImageFileDirectory_v2()
    for tag in tags:
        about.tagtype[tag] = 12
        about[tag] = (1.0,) * {SCALE: 3, TIE: 6, MATRIX: 16}[tag]
    Image.new("RGB", (16, 16)).save(path, tiffinfo=about)
    return path


@pytest.fixture
def rasterio(monkeypatch):
    """A stand-in: 2 m a pixel, north up, from (500, 900); degrees are metres / 100."""
    asked = []

    class Affine:
        def __mul__(self, xy):
            return 500 + 2 * xy[0], 900 - 2 * xy[1]

    class File(SimpleNamespace):
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

    def transform(source, target, xs, ys):
        asked.append((source, target))
        return [x / 100 for x in xs], [y / 100 for y in ys]

    file = File(transform=Affine(), crs="EPSG:32631")
    module, warp = ModuleType("rasterio"), ModuleType("rasterio.warp")
    module.open, module.warp, module.file, module.asked = lambda path, driver: file, warp, file, asked
    module.Env = lambda **limits: nullcontext()
    errors = ModuleType("rasterio.errors")
    errors.NotGeoreferencedWarning = UserWarning
    module.errors = errors
    monkeypatch.setitem(sys.modules, "rasterio.errors", errors)
    warp.transform = transform
    monkeypatch.setitem(sys.modules, "rasterio", module)
    monkeypatch.setitem(sys.modules, "rasterio.warp", warp)
    return module


@pytest.mark.parametrize("tags", [(SCALE, TIE), (MATRIX,)])
def test_a_georeference_is_told_from_the_tags(tmp_path, tags):
    assert has_transform(tiff(tmp_path / "a.TIF", tags))


def test_what_has_no_georeference_gives_nothing(tmp_path, rasterio):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    for path in (tiff(tmp_path / "plain.tif"), tmp_path / "a.png"):
        assert not has_transform(path)
        assert geojson(path, FOUND, ("a", "b")) is None


def test_a_real_geotiff(tmp_path):
    """Written and read by rasterio itself: where the equator meets the middle of UTM zone 33, at 15 degrees east."""
    import rasterio

    path = tmp_path / "scene.tif"
    place = rasterio.Affine(10, 0, 500_000 - 80, 0, -10, 80)  # 16 x 16 pixels of 10 m around (500000, 0)
    with rasterio.open(path, "w", "GTiff", 16, 16, 3, "EPSG:32633", place, "uint8") as file:
        file.write(torch.zeros(3, 16, 16, dtype=torch.uint8).numpy())
    assert has_transform(path)
    quarter = Detections(torch.tensor([[8.0, 0.0, 16.0, 8.0]]), torch.ones(1), torch.tensor([0]), torch.tensor([0]))
    (found,) = geojson(path, quarter, ("ship",))["features"]
    (ring,) = found["geometry"]["coordinates"]
    # its lower left corner is the meeting point; 80 m are 80 / 111,319.49 degrees of longitude there (scale 0.9996)
    assert ring[0] == pytest.approx([15.0, 0.0], abs=1e-9)
    assert ring[2] == pytest.approx([15 + 80 / 0.9996 / 111_319.49, 80 / 0.9996 / 110_574.3], abs=1e-8)


def test_points_become_points(tmp_path, rasterio):
    """Beside a box in one answer, at the place that the box's corner has there."""
    boxes = torch.tensor([[2.0, 4.0, 2.0, 4.0], [2.0, 4.0, 10.0, 8.0]])
    found = Detections(boxes, torch.tensor([0.9123456, 0.5]), torch.tensor([1, 0]), torch.tensor([-1, -1]))
    point, box = geojson(tiff(tmp_path / "a.tif", (SCALE, TIE)), found, ("ship", "dot"))["features"]
    assert point["properties"] == {"class": "dot", "score": 0.912346, "point_px": [2.0, 4.0]}
    assert point["geometry"]["type"] == "Point"
    assert point["geometry"]["coordinates"] == box["geometry"]["coordinates"][0][3]
    path = write_places(tmp_path / "a.tif", found, ("ship", "dot"), tmp_path / "found.json", "1-a")
    assert path == tmp_path / "found-1-a.geojson"
    assert json.loads(path.read_text())["features"] == [point, box]


def test_without_rasterio_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(UserError) as caught:
        geojson(tiff(tmp_path / "a.tif", (SCALE, TIE)), FOUND, ("a", "b"))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "a.tif"))
    assert "pip install 'boresight[geo]'" in message


def test_without_rasterio_a_plain_tiff_is_no_mistake(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert geojson(tiff(tmp_path / "a.tif"), FOUND, ("a", "b")) is None


def test_boxes_become_polygons(tmp_path, rasterio):
    places = geojson(tiff(tmp_path / "a.tif", (SCALE, TIE)), FOUND, ("ship", "red plane"))
    assert places["type"] == "FeatureCollection"
    assert rasterio.asked == [("EPSG:32631", "EPSG:4326")]  # all corners at once
    first, second = places["features"]
    assert first["type"] == "Feature"
    assert first["properties"] == {"query": "red plane", "score": 0.912346, "bbox_px": [2.0, 4.0, 10.0, 8.0]}
    assert second["properties"]["query"] == "ship"
    assert first["geometry"]["type"] == "Polygon"
    (ring,) = first["geometry"]["coordinates"]
    # pixel (2, 4)-(10, 8) is metre (504, 892)-(520, 884); from the lower left, counter-clockwise, closed
    assert ring == [[5.04, 8.84], [5.2, 8.84], [5.2, 8.92], [5.04, 8.92], [5.04, 8.84]]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2
    assert area == pytest.approx(0.16 * 0.08)  # above 0: counter-clockwise


def test_the_transform_of_a_newer_release(tmp_path, rasterio):
    """affine 3 writes ``transform @ point``."""

    class Affine:
        def __matmul__(self, xy):
            return xy[0], -xy[1]

        def __mul__(self, xy):
            raise TypeError("write @")

    rasterio.file.transform = Affine()
    places = geojson(tiff(tmp_path / "a.tif", (MATRIX,)), FOUND.select(torch.tensor([1])), ("ship", "plane"))
    assert places["features"][0]["geometry"]["coordinates"][0][0] == [0.0, -0.01]


def test_nothing_found_is_an_empty_collection(tmp_path, rasterio):
    nothing = FOUND.select(torch.zeros(2, dtype=torch.bool))
    places = geojson(tiff(tmp_path / "a.tif", (MATRIX,)), nothing, ("ship",))
    assert places == {"type": "FeatureCollection", "features": []}


def test_a_transform_without_a_coordinate_system(tmp_path, rasterio):
    rasterio.file.crs = None
    with pytest.raises(UserError, match="no coordinate system") as caught:
        geojson(tiff(tmp_path / "a.tif", (MATRIX,)), FOUND, ("a", "b"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no image", b"II*\0" + bytes(20)])
def test_what_is_no_tiff_has_no_place(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    assert geojson(tmp_path / "a.tif", FOUND, ("a", "b")) is None


def test_a_place_that_is_nowhere_is_refused(tmp_path, rasterio):
    """Far outside of its projection a place has infinite coordinates, which no GeoJSON can hold."""
    rasterio.warp.transform = lambda source, target, xs, ys: ([float("inf")] * len(xs), [0.0] * len(xs))
    with pytest.raises(UserError, match=r"a\.tif: its coordinate system does not reach the box at \(2, 4\)"):
        geojson(tiff(tmp_path / "a.tif", (SCALE, TIE)), FOUND, ("a", "b"))


def test_a_coordinate_system_that_cannot_be_used_is_one_line(tmp_path, rasterio):
    def transform(source, target, xs, ys):
        raise RuntimeError("no operation\nfound")

    rasterio.warp.transform = transform
    with pytest.raises(UserError, match=r"a\.tif: cannot be read \(no operation found\)"):
        geojson(tiff(tmp_path / "a.tif", (SCALE, TIE)), FOUND, ("a", "b"))
