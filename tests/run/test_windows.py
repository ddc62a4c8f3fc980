"""Large images window by window: where windows lie, which boxes are kept, which cell emitted them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from boresight.core.grid import cell_centres, flat_cell, unravel_cell
from boresight.core.types import DenseOutput, Detections, Scene
from boresight.data.raster import Raster
from boresight.decode.boxes import BoxDecoder
from boresight.run.tiles import spans, starts
from boresight.run.windows import detect_windows, tighten_windows

STRIDE, STEP = 8, 16


# --- where windows lie -----------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.sampled_from([1, 4, 16]), st.integers(0, 50), st.integers(0, 70))
@settings(max_examples=50)
def test_windows_cover_everything_and_overlap(length, step, overlap, more):
    window = overlap + step + more
    begin = starts(length, window, overlap, step)
    end = [min(s + window, length) for s in begin]
    assert begin[0] == 0
    assert end[-1] == length
    assert all(s % step == 0 for s in begin)
    assert all(s < length for s in begin)
    assert begin == sorted(set(begin))
    assert all(before - after >= overlap for before, after in zip(end, begin[1:], strict=False))
    assert begin == [0] or length > window


def test_windows_by_hand():
    assert starts(100, 64, 16, 16) == [0, 48]
    assert starts(200, 64, 16, 16) == [0, 48, 96, 144]
    assert starts(64, 64, 16, 16) == [0]
    assert starts(65, 64, 0, 16) == [0, 16]


@pytest.mark.parametrize(("window", "overlap"), [(64, -1), (64, 64), (64, 49), (8, 0)])
def test_an_overlap_that_leaves_no_step(window, overlap):
    with pytest.raises(ValueError, match=f"overlap {overlap} must lie in 0..{window - 16}"):
        starts(200, window, overlap, 16)


@given(st.integers(1, 400), st.sampled_from([4, 16, 32]), st.integers(0, 70), st.integers(0, 70))
@settings(max_examples=50)
def test_own_parts_cover_everything_once_and_lie_inside_of_what_is_seen(length, step, overlap, more):
    window = overlap + step + more
    parts = spans(length, window, overlap, step)
    assert [p.start for p in parts] == starts(length, window, overlap, step)
    assert (parts[0].first, parts[-1].last) == (0, length)
    assert all(p.last == after.first for p, after in pairwise(parts))
    for p in parts:
        assert p.first % step == 0
        assert p.first < p.last
        assert p.start == 0 or p.first - p.start >= overlap // 2 // step * step
        assert p.end == length or p.end - p.last >= overlap // 2


def test_own_parts_by_hand():
    """Windows see 0..64, 48..112 and 96..160; the last one ends where the image does."""
    assert [(p.start, p.end, p.first, p.last) for p in spans(150, 64, 16, 16)] == [
        (0, 64, 0, 48),
        (48, 112, 48, 96),
        (96, 150, 96, 150),
    ]
    assert [(p.first, p.last) for p in spans(112, 64, 16, 4)] == [(0, 56), (56, 112)]


def test_parts_are_cut_where_they_say():
    scene = Scene(torch.arange(3 * 40 * 70).reshape(3, 40, 70).float(), "a", level=5.0, spread=2.0)
    detector, seen = Painted(1), []
    inner = detector.forward
    detector.forward = lambda scenes: seen.append(scenes[0]) or inner(scenes)
    detect_windows(detector, scene, window=32, overlap=16, step=16)
    corners = [(t, s) for t in (0, 16) for s in (0, 16, 32, 48)]
    for (top, left), part in zip(corners, seen, strict=True):
        assert torch.equal(part.image, scene.image[:, top : top + 32, left : left + 32])
        assert part.name == f"a[{top},{left}]"
        assert (part.level, part.spread) == (5.0, 2.0)
        assert part.boxes is None


# --- what is found ---------------------------------------------------------------------------------------------------


def padded(image, step=STEP):
    h, w = image.shape[-2:]
    return F.pad(image.float(), (0, -w % step, 0, -h % step))


class Painted(nn.Module):
    """Sees the extent of every colour in the image: colour ``k`` of the first channel is an object of class ``k - 1``.

    What is cut is seen with its cut box, and more surely than what is whole: only the rule of borders can drop it.
    """

    def __init__(self, classes: int, stride: int = STRIDE) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))
        self.classes, self.stride = classes, stride

    def forward(self, scenes):
        (scene,) = scenes
        self.image = scene.image[0]
        rows, columns = (n // self.stride for n in padded(scene.image).shape[-2:])
        logits = torch.zeros(1, self.classes, rows, columns)
        return DenseOutput(logits, torch.zeros(*logits.shape, 4), float(self.stride), sizes=(scene.size,))

    def decode(self, output):
        shape = tuple(output.logits.shape[1:])
        boxes, labels, cells = [], [], []
        for k in range(self.classes):
            y, x = (self.image == k + 1).nonzero(as_tuple=True)
            if not len(x):
                continue
            box = [float(x.min()), float(y.min()), float(x.max()) + 1, float(y.max()) + 1]
            row, column = (int((box[i] + box[i + 2]) / 2 // self.stride) for i in (1, 0))
            boxes.append(box)
            labels.append(k)
            cells.append(int(flat_cell(0, torch.tensor(k), torch.tensor(row), torch.tensor(column), shape)))
        boxes = torch.tensor(boxes).reshape(-1, 4)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        found = Detections(boxes, 1 / (1 + area), torch.tensor(labels).long(), torch.tensor(cells).long())
        return [found.select(found.scores.sort(descending=True, stable=True).indices)]


def canvas(size, *boxes) -> Scene:
    image = torch.zeros(3, *size)
    for k, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        image[:, y0:y1, x0:x1] = k
    return Scene(image, "a")


def rows_of(found: Detections):
    columns = (found.labels.tolist(), found.boxes.tolist(), found.cell.tolist())
    return sorted(zip(*columns, strict=True))


@st.composite
def scattered(draw):
    """An image, a window and objects a little shorter than the overlap."""
    size = draw(st.tuples(st.integers(20, 120), st.integers(20, 120)))
    window = draw(st.sampled_from([48, 64, 200]))
    overlap = draw(st.integers(4, window - STEP))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        w, h = (draw(st.integers(1, min(overlap - 3, side))) for side in size[::-1])
        x, y = draw(st.integers(0, size[1] - w)), draw(st.integers(0, size[0] - h))
        boxes.append((x, y, x + w, y + h))
    return size, window, overlap, boxes


@given(scattered())
@settings(max_examples=25)
@example(((64, 150), 64, 32, [(35, 5, 64, 20)]))  # 29 px long, in an overlap of 32
@example(((150, 150), 64, 32, [(40, 40, 68, 68)]))
def test_what_is_shorter_than_the_overlap_is_found_as_if_there_were_no_windows(drawn):
    size, window, overlap, boxes = drawn
    scene, detector = canvas(size, *boxes), Painted(max(1, len(boxes)))
    (want,) = detector.decode(detector([scene]))
    have = detect_windows(detector, scene, window=window, overlap=overlap, step=STEP)
    assert rows_of(have) == rows_of(want)
    assert (have.scores[:-1] >= have.scores[1:]).all()


def test_a_box_that_is_cut_is_left_to_the_neighbour():
    """Windows at 0 and 48; the object reaches from 50 to 70, and the first window sees its left 14 pixels."""
    scene = canvas((64, 112), (50, 10, 70, 20))
    found = detect_windows(Painted(1), scene, window=64, overlap=24, step=STEP)
    assert found.boxes.tolist() == [[50, 10, 70, 20]]
    _, label, row, column = unravel_cell(found.cell, [(1, 8, 14)])
    assert (label.tolist(), row.tolist(), column.tolist()) == ([0], [1], [7])


def test_a_box_too_long_for_the_overlap_is_kept_in_pieces():
    scene = canvas((64, 112), (4, 10, 108, 20))
    found = detect_windows(Painted(1), scene, window=64, overlap=16, step=STEP)
    assert sorted(found.boxes.tolist()) == [[4, 10, 64, 20], [48, 10, 108, 20]]


def test_being_long_does_not_excuse_being_cut_across():
    """40 px long, 10 px high: the border between upper and lower windows is no reason to keep its half."""
    scene = canvas((112, 64), (10, 60, 50, 70))
    found = detect_windows(Painted(1), scene, window=64, overlap=16, step=STEP)
    assert found.boxes.tolist() == [[10, 60, 50, 70]]


def test_a_box_at_the_edge_of_the_image_is_not_cut():
    scene = canvas((112, 112), (0, 0, 6, 6), (106, 106, 112, 112), (0, 106, 6, 112))
    found = detect_windows(Painted(3), scene, window=64, overlap=16, step=STEP)
    assert sorted(found.boxes.tolist()) == [[0, 0, 6, 6], [0, 106, 6, 112], [106, 106, 112, 112]]


def test_doubles_are_suppressed_and_the_best_come_first():
    boxes = [(50, 10, 60, 14), (52, 30, 55, 33), (4, 4, 30, 30), (100, 50, 102, 52)]
    scene, detector = canvas((64, 112), *boxes), Painted(4)
    found = detect_windows(detector, scene, window=64, overlap=32, step=STEP)
    assert found.labels.tolist() == [3, 1, 0, 2]
    best = detect_windows(detector, scene, window=64, overlap=32, step=STEP, top_k=1)
    assert best.labels.tolist() == [3, 1]  # the image is as large as two windows
    surest = detect_windows(detector, scene, window=64, overlap=32, step=STEP, least=float(found.scores[2]))
    assert surest.labels.tolist() == [3, 1, 0]


# --- an image that is read window by window --------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A tiled TIFF with painted objects, and the same as a scene."""
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    scene = canvas((200, 330), (5, 5, 20, 30), (100, 60, 130, 80), (310, 180, 330, 200), (60, 150, 65, 152))
    about = {"driver": "GTiff", "width": 330, "height": 200, "count": 3, "dtype": "uint8"}
    about["transform"] = rasterio.Affine(2, 0, 5, 0, -2, 9)
    with rasterio.open(tmp_path / "a.tif", "w", tiled=True, blockxsize=64, blockysize=64, **about) as out:
        out.write(scene.image.byte().numpy())
    return Raster(tmp_path / "a.tif"), scene


def test_a_raster_is_seen_as_the_scene_is_and_never_whole(large, monkeypatch):
    raster, scene = large
    want = detect_windows(Painted(4), scene, window=64, overlap=32, step=STEP)
    read, inner = [], Raster.__getitem__

    def part(self, place):
        found = inner(self, place)
        read.append(found.shape)
        return found

    monkeypatch.setattr(Raster, "__getitem__", part)
    have = detect_windows(Painted(4), raster, window=64, overlap=32, step=STEP)
    assert rows_of(have) == rows_of(want)
    assert len(rows_of(want)) == 4
    assert max(rows * columns for _, rows, columns in read) <= 64 * 64


class Shrinks:
    """Takes a pixel off every side, and sees that the box lies on its own part of the image."""

    def detections(self, scene, found, names):
        for (x0, y0, x1, y1), label in zip(found.boxes.int().tolist(), found.labels.tolist(), strict=True):
            assert (scene.image[0, y0:y1, x0:x1] == label + 1).all()
        assert max(scene.size) <= 64 + 30 + 2 * 20  # a square, the longest box and both margins
        return replace(found, boxes=found.boxes + torch.tensor([1.0, 1, -1, -1]))


def test_boxes_of_a_raster_are_tightened_on_parts_of_it(large):
    raster, scene = large
    found = detect_windows(Painted(4), scene, window=64, overlap=32, step=STEP)
    tight = tighten_windows(Shrinks(), raster, found, "abcd", window=64, margin=20)
    assert tight.labels.tolist() == found.labels.tolist()
    assert torch.equal(tight.scores, found.scores)
    assert torch.equal(tight.cell, found.cell)
    assert torch.equal(tight.boxes, found.boxes + torch.tensor([1.0, 1, -1, -1]))
    nothing = found.select(found.scores > 2)
    assert len(tighten_windows(Shrinks(), raster, nothing, "abcd", window=64, margin=20)) == 0


def test_nothing_in_any_window():
    found = detect_windows(Painted(2), canvas((64, 150)), window=64, overlap=16, step=STEP)
    assert found.boxes.shape == (0, 4)


def test_windows_must_fit_the_cells():
    with pytest.raises(ValueError, match="multiples of 16 px do not fit cells of 32 px"):
        detect_windows(Painted(1, stride=32), canvas((64, 64)), window=64, overlap=16, step=STEP)


class Network(nn.Module):
    """A convolution: something everywhere."""

    def __init__(self, step: int = STEP) -> None:
        super().__init__()
        self.step = step
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, STRIDE, stride=STRIDE)
        self.decoder = BoxDecoder(0.3, nms=0.5, top_k=50)

    def forward(self, scenes):
        logits = 4 * self.conv(torch.stack([padded(s.image, self.step) for s in scenes]))
        centre = cell_centres(*logits.shape[-2:], STRIDE)
        boxes = torch.cat((centre - 7, centre + 9), dim=-1).expand(*logits.shape, 4)
        return DenseOutput(logits, boxes, float(STRIDE), sizes=tuple(s.size for s in scenes))

    def decode(self, output):
        return self.decoder(output, output.logits.sigmoid(), output.sizes)


@pytest.mark.parametrize("size", [(64, 64), (60, 45), (33, 64)])
def test_one_window_is_plain_detection(size):
    """Down to the cells, where the image is no multiple of anything as well."""
    detector, scene = Network(), Scene(torch.rand(3, *size, generator=torch.Generator().manual_seed(1)), "a")
    with torch.no_grad():
        (want,) = detector.decode(detector([scene]))
    have = detect_windows(detector, scene, window=64, overlap=16, step=STEP)
    assert len(want) > 3
    for name in ("boxes", "scores", "labels", "cell"):
        assert torch.equal(getattr(have, name), getattr(want, name)), name


@pytest.mark.parametrize("step", [16, 32])
def test_cells_of_windows_are_cells_of_the_whole_map(step):
    """The network looks at one cell at a time: whatever a window says, the whole image says in the same cell."""
    detector, scene = Network(step), Scene(torch.rand(3, 100, 150, generator=torch.Generator().manual_seed(1)), "a")
    with torch.no_grad():
        output = detector([scene])
    found = detect_windows(detector, scene, window=64, overlap=24, step=step, top_k=5000)
    _, label, row, column = unravel_cell(found.cell, [tuple(output.logits.shape[1:])])
    assert len(found) > 50
    assert torch.equal(label, found.labels)
    assert torch.allclose(output.logits.sigmoid()[0, label, row, column], found.scores, atol=1e-6)
