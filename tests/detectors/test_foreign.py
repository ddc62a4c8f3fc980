"""The front door, what the adapters share, and the example of the documentation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from boresight.core.emission import Emission, Source
from boresight.core.errors import UserError
from boresight.core.types import Scene
from boresight.decode.replay import replay
from boresight.detectors.foreign import adapt
from boresight.detectors.foreign_model import above, labels_of, untouched
from boresight.detectors.foreign_scene import rgb, rgb_bytes, trained

GUIDE = Path(__file__).parents[2] / "docs" / "diagnose-any-detector.md"


# ---------------------------------------------------------------- the door


def test_the_door_imports_no_library():
    code = """
import sys
from torch import nn
from boresight.core.errors import UserError
from boresight.detectors.foreign import adapt
try:
    adapt(nn.Linear(1, 1))
except UserError as refusal:
    print(refusal)
print(sorted({"ultralytics", "transformers"} & {m.split(".")[0] for m in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    refusal, loaded = done.stdout.splitlines()
    assert refusal == (
        "torch.nn.modules.linear.Linear has no adapter: give it `emit` and `supervise`: "
        "boresight.core.emission.Source, docs/diagnose-any-detector.md"
    )
    assert loaded == "[]"


@pytest.mark.parametrize(
    ("home", "message"),
    [
        ("torchvision.models.detection.fcos", "is no FCOS, RetinaNet, SSD or Faster R-CNN"),
        ("transformers.models.owlvit", "is none of DetrForObjectDetection"),
        ("torchvision.models.resnet", "has no adapter"),
        ("transformers_of_mine", "has no adapter"),
    ],
)
def test_a_model_goes_by_where_its_class_stands(home, message):
    """A subclass in a module of the user's own is one of the library's all the same."""
    base = type("Base", (nn.Module,), {"__module__": home})
    with pytest.raises(UserError, match=message):
        adapt(type("Mine", (base,), {"__module__": "mine"})(), ["a"])


def test_a_setting_that_an_adapter_does_not_have_is_named(tiny_pyramid):
    from torchvision.models.detection import FCOS

    with pytest.raises(TypeError, match="conf"):
        adapt(FCOS(tiny_pyramid(), 3, min_size=96), ["a", "b", "c"], conf=0.5)


def test_the_door_opens_for_a_subclass(tiny_pyramid):
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    class Mine(FCOS):
        pass

    anchors = AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)
    source: Source = adapt(Mine(tiny_pyramid(), 3, anchor_generator=anchors), ["a", "b", "c"])
    assert source.classes == ("a", "b", "c")


# ---------------------------------------------------------------- what the adapters share


def test_labels_follow_each_other_from_a_start_that_fits():
    names = ["a", "b", "c"]
    assert labels_of(names, None, 3, starts=(0, 1), owner="it") == [0, 1, 2]
    assert labels_of(names, None, 4, starts=(0, 1), owner="it") == [1, 2, 3]
    assert labels_of(names, None, 4, starts=(1,), owner="it") == [1, 2, 3]
    assert labels_of(names, [7, 3, 5], 91, starts=(1,), owner="it") == [7, 3, 5]
    with pytest.raises(UserError, match=r"it knows labels 0..3 and 3 classes are named"):
        labels_of(names, None, 4, starts=(0,), owner="it")
    with pytest.raises(UserError, match=r"it knows labels 1..90, got labels=\[0, 3, 5\]"):
        labels_of(names, [0, 3, 5], 91, starts=(1,), owner="it")
    with pytest.raises(UserError, match=r"it knows labels 0..90, got labels=\[-1, 3, 5\]"):
        labels_of(names, [-1, 3, 5], 91, starts=(0,), owner="it")


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.2, 0.3, 0.5])
def test_over_a_threshold_is_at_least_the_next_number(threshold):
    scores = torch.tensor([threshold], dtype=torch.float32)
    scores = torch.cat((scores, torch.nextafter(scores, torch.tensor(1.0))))
    assert (scores >= above(threshold)).tolist() == (scores > threshold).tolist() == [False, True]


def test_a_model_is_left_alone_when_inference_fails():
    model = nn.Sequential(nn.Dropout(), nn.Linear(1, 1)).train()
    model[1].eval()
    state = torch.get_rng_state()
    seen = []

    def fail():
        with untouched(model):
            seen.extend((model[0].training, torch.is_grad_enabled(), torch.rand(5)))
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert seen[:2] == [False, False]
    assert [m.training for m in model.modules()] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_pixels_are_read_and_not_changed():
    image = torch.tensor([0.0, 127.4, 127.6, 255.0]).expand(3, 1, 4)
    assert rgb(Scene(image, "float"))[0, 0].tolist() == pytest.approx([0, 127.4, 127.6, 255])
    assert rgb_bytes(Scene(image, "float"))[0, 0].tolist() == [0, 127, 128, 255]
    assert rgb_bytes(Scene(image, "float")).dtype == torch.uint8


def test_rows_are_those_of_the_scene():
    pairs = trained(torch.tensor([-1, 1, -2, 0, 1]), torch.tensor([4, 9]), by_prediction=True)
    assert (pairs.cell.tolist(), pairs.object.tolist()) == ([1, 3, 4], [9, 4, 9])
    assert pairs.positive.tolist() == [True] * 3
    assert pairs.by_prediction


# ---------------------------------------------------------------- the example of the documentation


@pytest.fixture
def example():
    """What the one block of Python in the guide leaves behind."""
    (block,) = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    space: dict = {"__name__": "guide"}
    exec(compile(block, str(GUIDE), "exec"), space)
    return space


def test_the_example_emits_and_supervises(example):
    """A network that says "car" with 0.73 at every cell, a box of 16 x 16 about its centre; the picture is 128 x 64."""
    source = example["source"]
    with torch.no_grad():
        source.network.weight.zero_()
        source.network.bias.copy_(torch.tensor([-9.0, 1.0, -9.0, 0.0, 0.0, 16.0, 16.0]))
        source.network.bias[5:].log_()
    boxes = torch.tensor([[0.0, 0, 32, 16], [70, 40, 80, 50]])
    scene = Scene(torch.zeros(3, 64, 128), "sea", boxes=boxes, labels=torch.tensor([1, 0]))
    emission = source.emit(scene)
    assert isinstance(emission, Emission)
    assert (emission.classes, emission.cells) == (3, 16)
    assert emission.centres[[0, 1, 4]].tolist() == [[16, 8], [48, 8], [16, 24]]
    assert float(emission.strides[0]) == pytest.approx((32 * 16) ** 0.5)
    found = replay(emission, source.decoding)
    assert found.labels.tolist() == [1] * 16
    torch.testing.assert_close(found.boxes[0], boxes[0])
    pairs = source.supervise(emission, scene)
    assert (pairs.cell.tolist(), pairs.object.tolist()) == ([0, 10], [0, 1])  # row 2, column 2 of 4 x 4
    assert not pairs.by_prediction


def test_the_example_says_what_is_missing(example):
    source, scene = example["source"], Scene(torch.zeros(3, 64, 64), "sea")
    assert source.supervise(source.emit(scene), scene) == example["Missing"]("sea has no boxes")
