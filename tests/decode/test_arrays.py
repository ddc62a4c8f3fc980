"""The numpy decoders give what the torch decoders give: same cells, same order, same boxes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from boresight.core.found import Found
from boresight.core.grid import cell_centre_array, cell_centres
from boresight.core.types import DenseOutput, Detections
from boresight.decode.arrays import decode_boxes, decode_points
from boresight.decode.boxes import BoxDecoder
from boresight.decode.peaks import decode_points as decode_points_torch
from boresight.decode.suppress import best, kept_by_nms
from boresight.detectors.gaussian_point import GaussianPoint


def same(found: Found, wanted: Detections, places: float = 0.0) -> None:
    assert found.cell.tolist() == wanted.cell.tolist()
    assert found.labels.tolist() == wanted.labels.tolist()
    np.testing.assert_array_equal(found.scores, wanted.scores.numpy())
    np.testing.assert_allclose(found.boxes, wanted.boxes.numpy(), rtol=0, atol=places)


def drawn(seed: int, classes: int, rows: int, columns: int, stride: float, *, own_boxes: bool) -> DenseOutput:
    """A raw output of one image with boxes that overlap; a box a cell, or one for each of its classes."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, classes, rows, columns, generator=g) * 3
    k = classes if own_boxes else 1
    side = torch.rand(1, k, rows, columns, 4, generator=g) * 4 * stride - stride / 4
    centre = cell_centres(rows, columns, stride)
    boxes = torch.cat((centre - side[..., :2], centre + side[..., 2:]), -1)
    return DenseOutput(logits, boxes.expand(1, classes, rows, columns, 4), stride)


@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 3),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    cut=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    own=st.booleans(),
    top_k=st.integers(1, 30),
    before=st.integers(1, 200),
    reach=st.sampled_from([0.0, 0.5, 1.5]),
    threshold=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=150)
def test_boxes_of_arrays_are_those_of_tensors(seed, classes, rows, columns, cut, own, top_k, before, reach, threshold):
    output = drawn(seed, classes, rows, columns, 8.0, own_boxes=own)
    size = max(1, rows * 8 - cut[0]), max(1, columns * 8 - cut[1])
    decoder = BoxDecoder(threshold, 0.4, top_k, before, reach)
    score = output.logits.sigmoid()
    [wanted] = decoder(output, score, [size])
    boxes = output.boxes[0].numpy() if own else output.boxes[0, :1].numpy()
    found = decode_boxes(
        score[0].numpy(),
        boxes,
        stride=8.0,
        size=size,
        threshold=threshold,
        nms=0.4,
        top_k=top_k,
        before_nms=before,
        trained_reach=reach,
    )
    same(found, wanted)


@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 2),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    cut=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    refine=st.sampled_from(["offset", "parabola", "none"]),
    window=st.sampled_from([1, 3, 5]),
    top_k=st.integers(1, 30),
)
@settings(max_examples=150)
def test_points_of_arrays_are_those_of_tensors(seed, classes, rows, columns, cut, refine, window, top_k):
    output = drawn(seed, classes, rows, columns, 4.0, own_boxes=False)
    point = output.boxes[..., :2]
    size = max(1, rows * 4 - cut[0]), max(1, columns * 4 - cut[1])
    output = replace(output, boxes=torch.cat((point, point), -1), sizes=(size,))
    detector = GaussianPoint(
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        lambda o: decode_points_torch(o, top_k=top_k, refine=refine, window=window),
    )
    [wanted] = detector.decode(output)
    found = decode_points(
        output.logits[0].numpy(),
        output.logits[0].sigmoid().numpy(),
        output.boxes[0, :1].numpy(),
        stride=4.0,
        size=size,
        top_k=top_k,
        refine=refine,
        window=window,
    )
    same(found, wanted, places=1e-5 if refine == "parabola" else 0.0)


def test_a_plateau_gives_one_peak_its_first_cell():
    logits = np.zeros((1, 3, 4), dtype=np.float32)
    boxes = np.zeros((1, 3, 4, 4), dtype=np.float32)
    found = decode_points(logits, logits + 0.5, boxes, stride=4.0, size=(12, 16))
    assert found.cell.tolist() == [0]


def test_saturated_scores_hide_no_peak():
    """Logits of 30 and 40 are both 1.0 as scores."""
    logits = torch.full((1, 1, 3, 5), -5.0)
    logits[0, 0, 1, 1:3] = torch.tensor([30.0, 40.0])
    scores = logits.sigmoid()[0].numpy()
    found = decode_points(
        logits[0].numpy(), scores, np.zeros((1, 3, 5, 4), dtype=np.float32), stride=4.0, size=(12, 20)
    )
    assert found.cell[0] == 7


def test_an_even_window_is_refused():
    with pytest.raises(ValueError, match="odd"):
        decode_points(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), np.zeros((1, 2, 2, 4)), stride=4, size=(8, 8), window=2)


@given(seed=st.integers(0, 10_000), count=st.integers(0, 60), classes=st.integers(1, 4))
@settings(max_examples=150)
def test_suppression_keeps_what_torchvision_keeps(seed, count, classes):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=g) * 40
    boxes = torch.cat((corner, corner + torch.rand(count, 2, generator=g) * 30), -1)
    scores = (torch.rand(count, generator=g) * 20).round() / 20  # with ties
    labels = torch.randint(classes, (count,), generator=g)
    wanted = batched_nms(boxes, scores, labels, 0.5)
    assert kept_by_nms(boxes.numpy(), scores.numpy(), labels.numpy(), 0.5).tolist() == wanted.tolist()


def test_suppression_of_thousands_keeps_what_torchvision_keeps():
    """Beyond a thousand boxes torchvision takes the classes one by one."""
    g = torch.Generator().manual_seed(0)
    corner = torch.rand(1500, 2, generator=g) * 300
    boxes = torch.cat((corner, corner + 10 + torch.rand(1500, 2, generator=g) * 40), -1)
    scores, labels = torch.rand(1500, generator=g), torch.randint(3, (1500,), generator=g)
    kept = kept_by_nms(boxes.numpy(), scores.numpy(), labels.numpy(), 0.5)
    assert kept.tolist() == batched_nms(boxes, scores, labels, 0.5).tolist()
    assert len(kept) < 1500


def test_the_best_come_in_order_and_the_first_of_equals_first():
    order, values = best(np.array([1.0, 3.0, 2.0, 3.0, 2.0]), 4)
    assert order.tolist() == [1, 3, 2, 4]
    assert values.tolist() == [3.0, 3.0, 2.0, 2.0]


def test_centres_of_arrays_are_those_of_tensors():
    np.testing.assert_array_equal(cell_centre_array(3, 5, 8.0), cell_centres(3, 5, 8.0).numpy())


def test_misshapen_detections_are_refused():
    with pytest.raises(ValueError, match=r"scores must have shape \[2\], got \[1\]"):
        Found(np.zeros((2, 4)), np.zeros(1), np.zeros(2, dtype=int), np.zeros(2, dtype=int))
    with pytest.raises(ValueError, match=r"boxes must have shape \[\*, 4\], got \[2, 3\]"):
        Found(np.zeros((2, 3)), np.zeros(2), np.zeros(2, dtype=int), np.zeros(2, dtype=int))


def test_no_torch_is_needed():
    program = "import sys, boresight.decode.arrays; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
