"""The page of two COCO files, made by the command: verdict, kinds of error, images, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from boresight.cli import main

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def files(tmp_path):
    """Twenty images of three objects each; some detections are named wrongly, every fifth lies elsewhere."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    images, truth, found = [], [], []
    for i in range(1, 21):
        name = f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "images" / name)
        images.append({"id": i, "file_name": name, "width": 64, "height": 48})
        for k in range(3):
            number, box = len(truth), [4 + 20 * k, 6 + 8 * k, 14, 12]
            truth.append({"id": number, "image_id": i, "category_id": 7 + 2 * (k % 2), "bbox": box, "area": 168})
            said = 7 if number % 4 == 0 else 7 + 2 * (k % 2)
            place = [box[0], box[1] + 20, *box[2:]] if number % 5 == 0 else box
            found.append({"image_id": i, "category_id": said, "bbox": place, "score": 0.3 + 0.01 * (number % 50)})
    categories = [{"id": 9, "name": "car"}, {"id": 7, "name": EVIL}]
    content = {"images": images, "annotations": truth, "categories": categories}
    for name, value in (("gt", content), ("found", found)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    return tmp_path


def run(folder, *more):
    files = ["--annotations", str(folder / "gt.json"), "--predictions", str(folder / "found.json")]
    return main(["diagnose", *files, "--report", str(folder / "page.html"), *more])


def test_the_page_counts_what_the_diagnosis_counts(files):
    out = files / "said.json"
    assert run(files, "--images", str(files / "images"), "--threshold", "0.3", "--out", str(out)) == 0
    said = json.loads(out.read_text())
    html = (files / "page.html").read_text()
    assert f"Verdict: {said['verdict']['word']}" in html
    assert "the object was found before, with a higher score" in html
    assert EVIL not in html
    assert "https://" not in html
    shown = json.loads(html.split('id="browser-data">')[1].split("</script>")[0])
    assert len(shown["images"]) == 20
    marks = [shown["kinds"][mark[6]] for one in shown["sets"][0]["shown"] for mark in one["marks"]]
    assert len(marks) == 60
    assert marks.count("hit") == said["errors"]["hits"] == 44  # 12 lie elsewhere, 5 are named wrongly, one is both
    assert shown["sets"][0]["threshold"] == 0.3


def test_a_threshold_of_zero_is_one(files):
    assert run(files, "--images", str(files / "images"), "--threshold", "0") == 0
    shown = json.loads((files / "page.html").read_text().split('id="browser-data">')[1].split("</script>")[0])
    assert shown["sets"][0]["threshold"] == 0


def test_without_images_the_page_says_so(files):
    assert run(files) == 0
    html = (files / "page.html").read_text()
    assert "The images were not given (`--images DIR`)" in html
    assert "browser-data" not in html


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--images", "nowhere"], "--images nowhere: no such folder"),
        (["--annotations", "a.parquet"], "--report: of tables there is no page"),
    ],
)
def test_what_cannot_be_shown_is_refused(files, capsys, more, told):
    assert run(files, *more) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (files / "page.html").exists()


def test_images_without_a_page_are_refused(files, capsys):
    words = ["--annotations", str(files / "gt.json"), "--predictions", str(files / "found.json")]
    assert main(["diagnose", *words, "--images", str(files / "images")]) == 2
    assert "name it with --report FILE" in capsys.readouterr().err


def test_an_image_that_is_missing_is_named_and_nothing_is_left_behind(files, capsys):
    (files / "images" / "3.png").unlink()
    assert run(files, "--images", str(files / "images"), "--out", str(files / "said.json")) == 2
    assert "3.png" in capsys.readouterr().err
    assert not (files / "page.html").exists()
    assert not (files / "said.json").exists()


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_a_folder_where_a_file_is_wanted_is_refused_before_anything_is_written(files, capsys, option):
    (files / "taken").mkdir()
    assert run(files, "--out", str(files / "said.json"), option, str(files / "taken")) == 2
    assert f"{option} {files / 'taken'}: is a folder; name a file" in capsys.readouterr().err
    assert not (files / "page.html").exists()
    assert not (files / "said.json").exists()
