"""Tightening a COCO file: what is written, what stays, and the page of what moved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boresight.cli import main
from boresight.core.types import Scene
from boresight.evaluate.refinement import Outcome
from boresight.report import sloppy as sloppy_report
from boresight.report.sloppy import refine_annotations
from boresight.run.outcomes import Tightened
from boresight.run.sloppy import read_sloppy


class MovesLeft:
    """Stands in for a trained refiner: moves every box of more than 10 px by 4 px and says so."""

    classes = ("car",)
    threshold = 0.5

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, scene: Scene, proposals) -> Tightened:
        self.seen.append(scene.name)
        wide = proposals.boxes[:, 2] - proposals.boxes[:, 0] > 10
        moved = proposals.boxes - torch.tensor([4.0, 0.0, 4.0, 0.0])
        boxes = torch.where(wide[:, None], moved, proposals.boxes)
        return Tightened(Outcome(moved, boxes, wide), torch.full((len(wide),), 0.75))


SHAPE = [20, 5, 35, 5, 35, 20]


@pytest.fixture
def data(tmp_path) -> tuple[Path, Path]:
    """Two images, five annotations: three boxes, a crowd and one outside of its image."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(images / name)
    content = {
        "info": {"contributor": "somebody"},
        "images": [{"id": i, "file_name": n, "width": 60, "height": 40} for i, n in ((7, "a.png"), (3, "b.png"))],
        "categories": [{"id": 5, "name": "car"}, {"id": 9, "name": "<ship>"}],
        "annotations": [
            {"id": 11, "image_id": 7, "category_id": 5, "bbox": [10, 10, 20, 10], "area": 200, "note": "mine"},
            {"id": 12, "image_id": 7, "category_id": 9, "bbox": [30, 10, 5, 5], "area": 25},
            {
                "id": 13,
                "image_id": 3,
                "category_id": 5,
                "bbox": [20, 5, 15, 15],
                "segmentation": [[20, 5, 35, 5, 35, 20]],
            },
            {"id": 14, "image_id": 3, "category_id": 5, "bbox": [0, 0, 40, 30], "iscrowd": 1},
            {"id": 15, "image_id": 3, "category_id": 5, "bbox": [100, 100, 20, 10]},
        ],
    }
    file = tmp_path / "coarse.json"
    file.write_text(json.dumps(content))
    (tmp_path / "config.yaml").write_text("detector: refine\n")  # so that the folder is taken for a run
    return file, images


@pytest.fixture
def refined(data, tmp_path, monkeypatch):
    monkeypatch.setattr(sloppy_report.Tightener, "of", lambda run, threshold=None: MovesLeft())
    told = refine_annotations(*data, tmp_path / "tight.json", run=object(), quiet=True)
    return told, json.loads((tmp_path / "tight.json").read_text()), json.loads(data[0].read_text())


def test_boxes_that_were_replaced_keep_what_they_were_and_the_rest_stays(refined):
    told, after, before = refined
    assert (told["boxes"], told["replaced"], told["annotations"]) == (3, 2, 5)
    assert {k: v for k, v in after.items() if k != "annotations"} == {
        k: v for k, v in before.items() if k != "annotations"
    }
    one, two, three, crowd, outside = after["annotations"]
    assert one["bbox"] == [6.0, 10.0, 20.0, 10.0]
    assert one["bbox_before"] == [10, 10, 20, 10]
    assert one["refined"] == 0.75
    assert one["note"] == "mine"
    assert three["bbox"] == [16.0, 5.0, 15.0, 15.0]
    assert "area" not in three  # its area is that of the polygon, which did not move
    assert [two, crowd, outside] == [before["annotations"][i] for i in (1, 3, 4)]


def test_the_page_tells_what_moved(refined, tmp_path):
    text = (tmp_path / "tight.html").read_text()
    assert "2 of 3 boxes of coarse.json were replaced" in text
    assert "2 annotations are crowds or faulty boxes" in text
    assert "&lt;ship&gt;" in text
    assert "<ship>" not in text
    assert text.count('class="b refined"') >= 2
    assert "http://" not in text.replace("http://www.w3.org", "")


@pytest.mark.parametrize("missing", ["file", "folder", "image"])
def test_what_is_not_there_is_named_and_nothing_is_written(data, tmp_path, capsys, monkeypatch, missing):
    file, images = data
    monkeypatch.setattr(sloppy_report.Tightener, "of", lambda run, threshold=None: MovesLeft())
    words = {"file": tmp_path / "none.json", "folder": file, "image": file}
    folder = {"file": images, "folder": tmp_path / "nowhere", "image": images}
    if missing == "image":
        (images / "a.png").unlink()
    out = tmp_path / "tight.json"
    status = main(
        [
            *("refine", "--annotations", str(words[missing]), "--images", str(folder[missing])),
            *("--out", str(out), "--run", str(tmp_path), "--quiet"),
        ]
    )
    assert status == 2
    err = capsys.readouterr().err
    assert {"file": "none.json", "folder": "nowhere", "image": "a.png"}[missing] in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_the_annotations_themselves_are_not_written_over(data, capsys, tmp_path):
    file, images = data
    words = ["refine", "--annotations", str(file), "--images", str(images), "--out", str(file)]
    assert main([*words, "--run", str(tmp_path)]) == 2
    assert "is the file of the annotations itself" in capsys.readouterr().err


def test_two_annotations_of_one_id_are_refused(data, capsys, tmp_path):
    file, images = data
    content = json.loads(file.read_text())
    content["annotations"][1]["id"] = 11
    file.write_text(json.dumps(content))
    with pytest.raises(Exception, match="two annotations have the id 11"):
        read_sloppy(file, images)


def test_a_run_must_be_named(data, capsys, tmp_path):
    file, images = data
    words = ["refine", "--annotations", str(file), "--images", str(images), "--out", str(tmp_path / "x.json")]
    assert main(words) == 2
    assert "--run" in capsys.readouterr().err
    assert main([*words, "--run", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
