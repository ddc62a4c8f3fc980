"""On a GPU every detector answers as on a CPU; without one these tests are skipped."""

from __future__ import annotations

import copy
import importlib.util
import sys
import warnings
from pathlib import Path

import pytest
import torch

_spec = importlib.util.spec_from_file_location("contract", Path(__file__).with_name("test_contract.py"))
assert _spec is not None
assert _spec.loader is not None
contract = sys.modules["contract"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(contract)
CASES, built, scenes_of = contract.CASES, contract.built, contract.scenes_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
every_detector = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(autouse=True)
def _exact():
    """Matrix products in full float32, as on the CPU."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def on_both(case, kind):
    """Detector, output, targets and loss terms, on the CPU and on the GPU, of the same weights and scenes."""
    here = built(case).train()
    for part in here.modules():
        if isinstance(part, torch.nn.Dropout):  # draws on each device otherwise
            part.eval()
    there = copy.deepcopy(here).to("cuda")
    scenes = scenes_of(case, kind)
    made = []
    for detector, device in ((here, "cpu"), (there, "cuda")):
        output = detector([scene.to(torch.device(device)) for scene in scenes])
        targets = detector.assign(output, scenes)  # the loop leaves the labels where they were read
        made.append((detector, output, targets, detector.loss(output, targets)))
    return made


@every_detector
@pytest.mark.parametrize("kind", ["some", "one empty", "all empty"])
def test_loss_and_gradient_are_those_of_the_cpu(case, kind):
    (here, one, a, losses), (there, two, b, same) = on_both(case, kind)
    assert two.logits.device.type == b.positive.device.type == "cuda"
    torch.testing.assert_close(two.logits.cpu(), one.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(two.boxes.cpu(), one.boxes, atol=1e-3, rtol=1e-4)
    assert torch.equal(b.positive.cpu(), a.positive)
    for name, value in losses.items():
        torch.testing.assert_close(same[name].cpu(), value, atol=1e-4, rtol=1e-3)
    for terms in (losses, same):
        torch.stack(list(terms.values())).sum().backward()
    for (name, p), q in zip(here.named_parameters(), there.parameters(), strict=True):
        scale = max(1e-3, float(p.grad.abs().max()))
        assert float((q.grad.cpu() - p.grad).abs().max()) < 1e-2 * scale, name


@every_detector
def test_detections_are_those_of_the_cpu(case):
    (here, one, _, _), (there, _, _, _) = on_both(case, "some")
    moved = one.to(torch.device("cuda"))
    for found, same in zip(here.decode(one), there.decode(moved), strict=True):
        assert torch.equal(found.cell, same.cell.cpu())
        torch.testing.assert_close(same.boxes.cpu(), found.boxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(same.scores.cpu(), found.scores, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", [c for n, c in CASES.items() if "coarse" not in n])  # which proposes by rank: ties
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_gives_finite_losses_near_those_of_float32(case, half):
    detector, scenes = built(case).train().to("cuda"), scenes_of(case, "some")
    moved = [scene.to(torch.device("cuda")) for scene in scenes]
    full = detector(moved)
    with torch.autocast("cuda", half):
        output = detector(moved)
    exact = detector.loss(full, detector.assign(full, scenes))
    terms = detector.loss(output, detector.assign(output, scenes))
    for name, value in terms.items():
        torch.testing.assert_close(value, exact[name], atol=0.05, rtol=0.1)


# a refiner asks how large its boxes are, to choose the pyramid's level: it waits
@pytest.mark.parametrize("case", [c for n, c in CASES.items() if "refine" not in n and "coarse" not in n])
def test_the_step_does_not_wait_for_the_gpu(case):
    """From the scenes on the device to the gradient: no copy back and no wait, which would leave the card idle."""
    detector, labelled = built(case).train().to("cuda"), scenes_of(case, "some")
    scenes = [scene.to(torch.device("cuda")) for scene in labelled]
    # what is made once, a table say, is made before
    output = detector(scenes)
    detector.loss(output, detector.assign(output, labelled))
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            output = detector(scenes)
            terms = detector.loss(output, detector.assign(output, labelled))
            torch.stack(list(terms.values())).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [f"{w.filename.rsplit('/', 1)[-1]}:{w.lineno}" for w in caught if "called a synchroniz" in str(w.message)]
    assert not waits, waits
