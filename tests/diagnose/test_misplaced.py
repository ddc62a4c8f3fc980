"""Boxes that all lie off the same way are told from boxes that are loose each its own way."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from boresight.cli import main
from boresight.core.emission import Missing
from boresight.diagnose.misplaced import Misplaced, finding, misplaced
from boresight.diagnose.of_files import diagnose_boxes
from boresight.evaluate.box_set import BoxSet

COUNT = 120


def boxes(change=lambda shape, rng: shape, noise: float = 0.03, count: int = COUNT) -> BoxSet:
    """Objects of 20 to 60 px, three an image, found with a little noise; ``change`` works on centre, width, height."""
    rng = np.random.default_rng(0)
    size = rng.uniform(20, 60, (count, 2))
    truth = np.hstack((rng.uniform(60, 900, (count, 2)), size))
    found = change(truth + noise * np.hstack((size, size)) * rng.normal(size=(count, 4)), rng)
    image = np.arange(count) // 3

    def corners(shape):
        return np.hstack((shape[:, :2] - shape[:, 2:] / 2, shape[:, :2] + shape[:, 2:] / 2))

    label = np.zeros(count, np.int64)
    ids = np.arange(count // 3)
    return BoxSet.of_arrays(
        ids, (corners(truth), image, label), (corners(found), image, label), rng.uniform(size=count)
    )


def told(change=lambda shape, rng: shape, **more) -> Misplaced:
    found = misplaced(boxes(change, **more), 1)
    assert isinstance(found, Misplaced)
    return found


def shifted(x: float, y: float):
    return lambda shape, rng: shape + np.array([x, y, 0, 0])


def test_a_shift_on_paper():
    """Four pixels to the right and two up, without noise: the mean is the shift, and undone everything fits."""
    found = told(shifted(4.0, -2.0), noise=0.0)
    assert (found.x.value, found.y.value) == (pytest.approx(4.0), pytest.approx(-2.0))
    assert found.x.interval == pytest.approx((4.0, 4.0))
    assert (found.width.value, found.height.value) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.ap75.value + found.gain.value == pytest.approx(1.0)
    assert found.way == "pixels"
    assert found.told
    said = finding(found)
    assert (said.id, said.severity) == ("boxes-misplaced", "warning")
    assert "4 px right" in said.title
    assert "2 px up" in said.title


def test_a_size_on_paper():
    """A fifth too wide and a fifth too low."""
    found = told(lambda shape, rng: shape * [1, 1, 1.25, 0.8], noise=0.0)
    assert (found.width.value, found.height.value) == (pytest.approx(1.25), pytest.approx(0.8))
    assert found.ap75.value + found.gain.value == pytest.approx(1.0)
    assert finding(found).title == "all boxes lie off the same way: 1.25 times as wide, 0.80 times as high"


def test_a_shift_by_a_share_of_the_size():
    """As by half a cell where large objects have large cells."""
    found = told(lambda shape, rng: shape + np.hstack((shape[:, 2:] * 0.15, np.zeros((len(shape), 2)))))
    assert found.way == "shares"
    assert found.share_x.value == pytest.approx(0.15, abs=0.01)
    assert found.told


@pytest.mark.parametrize(
    "change",
    [
        lambda shape, rng: shape,
        shifted(0.4, -0.4),  # a hundredth of an object
        lambda shape, rng: shape + 5 * np.hstack((rng.normal(size=(len(shape), 2)), np.zeros((len(shape), 2)))),
        lambda shape, rng: shape + 6 * np.hstack((rng.choice([-1, 1], (len(shape), 2)), np.zeros((len(shape), 2)))),
    ],
    ids=["well placed", "a little off", "each its own way", "half of them left, half right"],
)
def test_nothing_is_said_of_others(change):
    found = told(change)
    assert not found.told
    assert diagnose_boxes(boxes(change), ["a"], replicates=20).findings == ()


def test_what_undoing_gains_is_measured_by_image():
    found = told(shifted(5.0, 5.0))
    assert found.gain.n == COUNT
    assert found.gain.interval[0] > 0.02
    again = told(shifted(5.0, 5.0))
    assert again == found


def test_what_cannot_be_said():
    assert misplaced(boxes(count=48), 1) == Missing("48 objects were found, 50 are needed for a mean offset")
    assert isinstance(misplaced(boxes(count=51), 1), Misplaced)
    far = misplaced(boxes(shifted(500.0, 0.0)), 1)
    assert far == Missing("0 objects were found, 50 are needed for a mean offset")
    assert isinstance(misplaced(replace(boxes(), reach=3.0), 1), Missing)
    empty = boxes()
    none = np.zeros(0)
    without = BoxSet.of_arrays(
        np.arange(empty.images),
        (empty.truth_box, empty.truth_image, empty.truth_label),
        (np.zeros((0, 4)), none.astype(int), none.astype(int)),
        none,
    )
    assert isinstance(misplaced(without, 1), Missing)


def test_files_say_it_and_fail_a_pipeline(tmp_path, capsys):
    set_ = boxes(shifted(6.0, 0.0), count=240)

    def xywh(box):
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 1000, "height": 1000} for i in range(set_.images)],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [
            {"id": k, "image_id": int(i), "category_id": 1, "bbox": xywh(b), "iscrowd": 0}
            for k, (b, i) in enumerate(zip(set_.truth_box, set_.truth_image, strict=True))
        ],
    }
    found = [
        {"image_id": int(i), "category_id": 1, "bbox": xywh(b), "score": float(s)}
        for b, i, s in zip(set_.found_box, set_.found_image, set_.scores, strict=True)
    ]
    for name, value in (("truth", truth), ("found", found)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    files = ["--annotations", str(tmp_path / "truth.json"), "--predictions", str(tmp_path / "found.json")]
    page = tmp_path / "page.html"
    assert main(["diagnose", *files, "--out", str(tmp_path / "told.json"), "--report", str(page)]) == 0
    assert "warning boxes-misplaced: all boxes lie off the same way: " in capsys.readouterr().out
    kept = json.loads((tmp_path / "told.json").read_text())
    assert [f["id"] for f in kept["findings"]] == ["boxes-misplaced"]
    assert kept["misplaced"]["x"]["value"] == pytest.approx(6.0, abs=0.5)
    assert "all boxes lie off the same way" in page.read_text()
    assert main(["diagnose", *files, "--fail-on", "warning", "--json"]) == 1
