"""The source of ``experiments/audit_fastestdet.py``, a detector without an adapter: on paper, and with its weights."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from math import exp
from pathlib import Path

import pytest
import torch
from torchvision.ops import batched_nms

from boresight.core.types import Scene
from boresight.decode.replay import replay


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[2] / "experiments" / "audit_fastestdet.py"
    spec = importlib.util.spec_from_file_location("audit_fastestdet", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def silent(script):
    """A network that says at every cell: objectness 1/2, box offset 0, a quarter of the picture, class 8 (boat) 0.8."""
    network = script.FastestDet()
    share = torch.tensor([0.2 / 79] * 80)
    share[8] = 0.8
    quarter = torch.tensor(0.25).logit()
    for name, bias in (("obj", torch.zeros(1)), ("reg", torch.tensor([0, 0, quarter, quarter])), ("cls", share.log())):
        last = network.detect_head[f"{name}_layers"]["conv5x5"][-1]
        last.weight.data.zero_()
        last.bias.data.copy_(bias)
    return script.FastestDetSource(network, threshold=0.001)


def test_a_cell_on_paper(silent):
    """A picture of 220 x 440: cells are 10 high and 20 wide, and cell (x, y) lies at their corner."""
    emission = silent.emit(Scene(torch.zeros(3, 220, 440), "sea"))
    assert (emission.classes, emission.cells) == (80, 484)
    assert emission.centres[[0, 1, 22]].tolist() == [[0, 0], [20, 0], [0, 10]]
    assert float(emission.strides[0]) == pytest.approx(200**0.5)
    torch.testing.assert_close(emission.boxes[0, 23], torch.tensor([20 - 55, 10 - 27.5, 20 + 55, 10 + 27.5]))
    torch.testing.assert_close(emission.scores[8], torch.full((484,), 0.4))
    assert set(replay(emission, silent.decoding).labels.tolist()) == {8}


def test_the_four_cells_around_a_centre_are_candidates(silent):
    """Centre (45, 45) in cells of 20 x 10 lies in (2, 4): corners (2, 4), (3, 4), (2, 5), (3, 5), a quarter of 20 off.

    Its boxes are as large as the object, so that the nearest corner fits best and the farthest worst.
    """
    boxes = torch.tensor([[45 - 55, 45 - 27.5, 45 + 55, 45 + 27.5]])
    scene = Scene(torch.zeros(3, 220, 440), "sea", boxes=boxes, labels=torch.tensor([8]))
    pairs = silent.supervise(silent.emit(scene), scene)
    assert pairs.by_prediction
    assert sorted(pairs.cell.tolist()) == [4 * 22 + 2, 5 * 22 + 2]
    assert pairs.object.tolist() == [0, 0]


def test_a_cell_is_trained_for_the_object_of_a_class_that_it_fits_best(silent):
    """Three objects; the last is so small that all candidates of the others beat the mean. The first is a crowd."""
    boxes = torch.tensor([[0.0, 0, 9, 9], [15, 30, 75, 60], [-10, 17.5, 100, 72.5], [300, 150, 302, 151]])
    ignore = torch.tensor([True, False, False, False])
    scene = Scene(torch.zeros(3, 220, 440), "sea", boxes=boxes, labels=torch.tensor([8] * 4), ignore=ignore)
    emission = silent.emit(scene)
    pairs = silent.supervise(emission, scene)
    assert sorted(pairs.cell.tolist()) == [90, 91, 112, 113]
    assert pairs.object.tolist() == [2] * 4
    both = silent.supervise(emission, replace(scene, labels=torch.tensor([8, 9, 8, 8])))
    assert sorted(both.cell.tolist()) == sorted([90, 91, 112, 113] * 2)  # of two classes it can be trained for both


def test_no_cell_beyond_the_edge(silent):
    """Both centres lie in the last cell, which is their one candidate; of one class, the better one has it."""
    boxes = torch.tensor([[422.0, 202, 439, 219], [421, 201, 439, 219]])
    scene = Scene(torch.zeros(3, 220, 440), "sea", boxes=boxes, labels=torch.tensor([8, 8]))
    pairs = silent.supervise(silent.emit(scene), scene)
    assert (pairs.cell.tolist(), pairs.object.tolist()) == ([483], [1])


def test_no_object_no_pair(silent):
    scene = Scene(torch.zeros(3, 220, 440), "sea", boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    assert len(silent.supervise(silent.emit(scene), scene).cell) == 0


def test_likeness_on_paper(script):
    """4 x 4 with itself, moved across, moved across and down, and its upper half."""
    others = torch.tensor([[0.0, 0, 4, 4], [1, 0, 5, 4], [1, 1, 5, 5], [0, 0, 4, 2]])
    like = script.likeness(torch.tensor([[0.0, 0, 4, 4]]).expand(4, 4), others)
    want = [
        1.0,
        12 / 20 - (1 - exp(-2 / 5**2)) / 2,  # along an axis: no angle
        9 / 23 - (1 - exp(-1 / 5**2)),  # at 45 degrees: the distances count half
        8 / 16 - (1 - exp(-2 / 4**2) + (1 - exp(-1 / 2)) ** 4) / 2,
    ]
    assert like.tolist() == pytest.approx(want, abs=1e-6)


def test_truth_of_the_data_becomes_truth_of_coco(script):
    boxes, labels = torch.rand(3, 4), torch.tensor([0, 1, 2])
    scene = Scene(torch.zeros(3, 9, 9), "sea", boxes=boxes, labels=labels, exhaustive=torch.tensor([True, True, False]))
    known = script.in_coco(scene, ("aircraft", "dock", "boat"))
    assert [script.COCO[k] for k in known.labels] == ["airplane", "boat"]
    assert torch.equal(known.boxes, boxes[[0, 2]])
    assert [script.COCO[k] for k in known.exhaustive.nonzero()[:, 0]] == ["airplane"]


@pytest.fixture
def published(script, real_data):
    file = real_data / "weights" / "fastestdet-coco.pth"
    if not file.is_file():
        pytest.skip(f"no weights: {file}")
    network = script.FastestDet()
    network.load_state_dict(torch.load(file, "cpu", weights_only=True))
    return script.FastestDetSource(network.train())


def test_its_own_selection_is_replayed(published, scene_of, left_alone):
    assert sum(p.numel() for p in published.network.parameters()) == 244_490
    scene = scene_of(200, 300)
    with left_alone(published.network):
        emission = published.emit(scene)
    found = replay(emission, published.decoding)
    score, label = emission.scores.max(0)  # as the repository selects: the best class of each cell, then NMS by class
    over = score > 0.001
    keep = batched_nms(emission.boxes[0, over], score[over], label[over], 0.45)
    assert len(found) == len(keep) > 10
    assert torch.equal(found.scores, score[over][keep])
    assert torch.equal(found.boxes, emission.boxes[0, over][keep])


def test_its_weights_find_aeroplanes_from_above(script, published, real_data):
    """Written again from names and shapes, the network is the one that was trained: its trained cells fit."""
    folder = real_data / "airbus-dev"
    if not folder.is_dir():
        pytest.skip(f"no images: {folder}")
    data = script.open_boxes(folder, "test")
    scenes = [script.in_coco(data[i], data.classes) for i in range(20)]
    fits = [script.best_fits(published, scene, published.emit(scene)) for scene in scenes]
    trained, inside, background = (torch.cat([f[k] for f in fits]) for k in fits[0])
    assert len(trained) > 20
    assert trained.mean() > 0.5 > inside.mean() > 0.2 > background.mean()
