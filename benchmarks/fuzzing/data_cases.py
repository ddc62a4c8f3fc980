"""Data sets of every form, and images: valid inputs and their readers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boresight.core.errors import UserError

IMAGES = ("images/a.png", "images/b.png", "JPEGImages/a.png", "JPEGImages/b.png")
XML_WORDS = (
    *("<object>", "</object>", "<name>", "<bndbox>", "<xmin>", "<size>", "<!DOCTYPE a>", "<!--", "]]>", "<![CDATA["),
    *('<!DOCTYPE a [<!ENTITY b "cccccccccc"><!ENTITY d "&b;&b;&b;&b;&b;">]>', "&d;", "&#0;", "&#x1F600;", "<?a b?>"),
    '<?xml version="1.0" encoding="utf-16"?>',
    "<a>" * 2000,
)
YAML_WORDS = (
    *("&a", "*a", "<<", ": ", "- ", "? ", "!!python/object/apply:os.system", "!!binary", "!!int", "!!set", "!!omap"),
    *(
        "!!timestamp",
        "2020-13-45",
        "1:1:1:1",
        "|",
        ">",
        "%YAML 9.9",
        "---",
        "...",
        "0o9",
        "0b",
        "[" * 500,
        "{a: " * 500,
    ),
    "&a [*a]",
)


def picture(form: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (12, 8), **more: Any) -> bytes:
    """A small image file of noise."""
    out, rng = io.BytesIO(), np.random.default_rng(0)
    width, height = size
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 60000, (height, width), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).convert(mode)
    image.save(out, form, **more)
    return out.getvalue()


def _both(folder: str) -> dict[str, bytes]:
    return {f"{folder}/a.png": picture(), f"{folder}/b.png": picture()}


def whole(open_: Callable[[bool], Any]) -> None:
    """Open a data set as the audit does, inspect every frame, then as training does, and read every frame."""
    with suppress(UserError):
        frames = open_(True)
        for i in range(len(frames)):
            frames.inspect(i)
    frames = open_(False)
    for i in range(len(frames)):
        frames[i]


def _content() -> dict[str, Any]:
    box = {"image_id": 1, "category_id": 3, "bbox": [1, 1, 4.5, 3], "area": 13.5, "iscrowd": 0}
    polygon = {"image_id": 1, "category_id": 7, "segmentation": [[1, 1, 5, 1, 5, 6]], "iscrowd": 0}
    more = {"group": "photo", "exhaustive_category_ids": [3, 7], "neg_category_ids": [3]}
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 12, "height": 8},
            {"id": 2, "file_name": "b.png", "width": 12, "height": 8, **more},
        ],
        "annotations": [{"id": 1} | box, {"id": 2} | polygon, {"id": 3} | box | {"image_id": 2, "iscrowd": 1}],
        "categories": [{"id": 7, "name": "ship"}, {"id": 3, "name": "car"}],
    }


def coco() -> dict[str, bytes]:
    """Two images, three annotations, a list."""
    content = _content()
    boxes = [{"bbox": [1, 1, 2, 2]} | annotation for annotation in content["annotations"]]
    texts = {"train.json": content, "dots/dots.json": content | {"annotations": boxes}}
    files = {name: json.dumps(value).encode() for name, value in texts.items()}
    return files | {"some.txt": b"a.png\n# b\nb\n", **_both("images")}


def read_coco(folder: Path) -> None:
    """As boxes, as points, as columns, and as a file whose boxes are to be tightened."""
    from boresight.data.boxes import open_boxes
    from boresight.data.coco_columns import read_truth
    from boresight.data.points import open_points
    from boresight.run.sloppy import read_sloppy

    readers: tuple[Callable[[], Any], ...] = (
        lambda: whole(lambda audit: open_boxes(folder, "train", audit=audit)),
        lambda: whole(lambda audit: open_boxes(folder, "some", audit=audit)),
        lambda: whole(lambda audit: open_points(folder / "dots" / "dots.json", audit=audit)),
        lambda: read_truth(folder / "train.json"),
        lambda: read_sloppy(folder / "train.json", folder / "images"),
    )
    in_turn(readers)


def in_turn(readers: tuple[Callable[[], Any], ...]) -> None:
    """Every reader, whatever the others refuse; the last refusal is raised."""
    refusal = None
    for read in readers:
        try:
            read()
        except UserError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def results() -> dict[str, bytes]:
    """Annotations and detections."""
    found = [
        {"image_id": 1, "category_id": 3, "bbox": [1, 1, 4, 3], "score": 0.9},
        {"image_id": 1, "category_id": 7, "bbox": [1.5, 1, 4, 5], "score": 0.5},
        {"image_id": 2, "category_id": 3, "bbox": [0, 0, 4, 3], "score": 0.25},
    ]
    plain = [d | {"category_id": 1} for d in found]
    texts = {"truth.json": _content(), "found.json": found, "plain.json": plain}
    return {name: json.dumps(value).encode() for name, value in texts.items()}


def read_results(folder: Path) -> None:
    """As what is diagnosed, and as coarse boxes of a refiner."""
    from boresight.diagnose.coco_files import coco_files
    from boresight.diagnose.of_files import diagnose_boxes
    from boresight.run import coarse

    def diagnosed() -> None:
        files = coco_files(folder / "truth.json", folder / "found.json")
        diagnose_boxes(files.boxes, files.classes, threshold=0.3, replicates=2)

    in_turn((diagnosed, lambda: coarse.read_results(folder / "plain.json", ["a", "b"])))


def tables() -> dict[str, bytes]:
    """Truth and detections as Parquet."""
    from fuzzing.run_cases import box_rows, written

    truth, found = box_rows()
    return {"annotations.parquet": written(truth), "predictions.parquet": written(found)}


def read_tables(folder: Path) -> None:
    """Diagnose them, two rows at a time."""
    from boresight.data.box_tables import BoxTables
    from boresight.diagnose.of_tables import diagnose_parts

    opened = BoxTables(folder / "annotations.parquet", folder / "predictions.parquet")
    diagnose_parts(opened.images(rows=2), opened.classes, threshold=0.3, replicates=2)


def voc() -> dict[str, bytes]:
    """Two images in VOC's folders."""
    one = (
        "<annotation><filename>a.png</filename><size><width>12</width><height>8</height><depth>3</depth></size>"
        "<object><name>ship</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>6</xmax>"
        "<ymax>5</ymax></bndbox></object><object><name>car</name><difficult>1</difficult><bndbox><xmin>2.5</xmin>"
        "<ymin>1</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
    )
    return {
        "Annotations/a.xml": one.encode(),
        "Annotations/b.xml": b'<?xml version="1.0"?>\n<annotation><filename>b.png</filename></annotation>',
        "ImageSets/Main/train.txt": b"a\nb\n",
        **_both("JPEGImages"),
    }


def read_voc(folder: Path) -> None:
    """Both by list and whole."""
    from boresight.data.voc import voc_boxes

    in_turn(
        (
            lambda: whole(lambda audit: voc_boxes(folder, "train", audit=audit)),
            lambda: whole(lambda audit: voc_boxes(folder, audit=audit)),
        )
    )


def yolo() -> dict[str, bytes]:
    """Two images with labels, by folder and by list."""
    return {
        "data.yaml": b"path: .\ntrain: images\nval: list.txt\nnc: 2\nnames:\n  0: car\n  1: ship\n",
        "list.txt": b"images/a.png\n./images/b.png\n",
        "labels/a.txt": b"0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.9 0.1 0.9 0.8\n",
        "labels/b.txt": b"",
        **_both("images"),
    }


def read_yolo(folder: Path) -> None:
    """Both splits, given as a folder and by the header."""
    from boresight.data.yolo import yolo_boxes

    in_turn(
        (
            lambda: whole(lambda audit: yolo_boxes(folder, "train", audit=audit)),
            lambda: whole(lambda audit: yolo_boxes(folder, "val", audit=audit)),
        )
    )


def points() -> dict[str, bytes]:
    """A table of points, and a folder of masks."""
    mask = np.zeros((8, 12), np.uint8)
    mask[2:4, 5:7] = 255
    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    table = "image,x,y,label,ignore,snr,flux,video\na.png,3.5,2,1,0,4,100,v\na.png,7,7.5,0,1,,,v\nb.png,,,,,,,w\n"
    return {
        "points.csv": table.encode(),
        "splits/some.txt": b"a\n# no\nb\n",
        "masks/a.png": out.getvalue(),
        "masks/b.png": out.getvalue(),
        **_both("images"),
    }


def read_points(folder: Path) -> None:
    """The table whole and by video, and the masks."""
    from boresight.data.points import sirst
    from boresight.data.tables import csv_points

    table, images = folder / "points.csv", folder / "images"
    in_turn(
        (
            lambda: whole(lambda audit: csv_points(table, images, audit=audit)),
            lambda: whole(lambda audit: csv_points(table, images, split=folder / "splits/some.txt", audit=audit)),
            lambda: whole(lambda audit: sirst(folder, "some", audit=audit)),
        )
    )


def images() -> dict[str, bytes]:
    """An image in every form that is read."""
    deep = {"a.i16.png": picture(mode="I;16"), "a.i16.tif": picture("TIFF", "I;16")}
    plain = {
        "a.png": picture(),
        "a.palette.png": picture(mode="P"),
        "a.jpg": picture("JPEG", exif=_turned()),
        "a.bmp": picture("BMP"),
        "a.tif": picture("TIFF", compression="tiff_deflate"),
        "a.lzw.tif": picture("TIFF", compression="tiff_lzw"),
        "a.webp": picture("WEBP"),
        "a.pgm": picture("PPM", "L"),
        "a.ppm": picture("PPM"),
    }
    return deep | plain


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def read_images(folder: Path) -> None:
    """Every file as frame, as picture and as mask."""
    from boresight.data.image import read_image, read_mask
    from boresight.data.rgb_image import orientation_of, read_rgb

    def picture_and_turn(file: Path) -> None:
        read_rgb(file)
        orientation_of(file)

    files = sorted(folder.iterdir())
    every = tuple((lambda f=f, r=r: r(f)) for f in files for r in (read_image, read_mask))
    in_turn(every + tuple((lambda f=f: picture_and_turn(f)) for f in files if ".i16." not in f.name))


def georeferenced() -> dict[str, bytes]:
    """A tiled TIFF with a place on the earth, by rasterio."""
    import rasterio
    from rasterio.io import MemoryFile
    from rasterio.transform import from_origin

    about = {"driver": "GTiff", "width": 40, "height": 32, "count": 3, "dtype": "uint8", "crs": "EPSG:32631"}
    about |= {"transform": from_origin(500000, 4600000, 2, 2), "tiled": True, "blockxsize": 16, "blockysize": 16}
    with rasterio.Env(), MemoryFile() as memory:
        with memory.open(**about, compress="deflate") as out:
            out.write(np.random.default_rng(0).integers(0, 255, (3, 32, 40), dtype=np.uint8))
        return {"a.tif": memory.read()}


def read_georeferenced(folder: Path) -> None:
    """What is found there as GeoJSON."""
    import torch

    from boresight.core.types import Detections
    from boresight.run.geo import geojson

    box = torch.tensor([[1.0, 2.0, 20.0, 30.0]])
    found = Detections(box, torch.tensor([0.5]), torch.tensor([0]), torch.tensor([0]))
    geojson(folder / "a.tif", found, ["ship"])
