"""Soft labels: by hand on small maps, against a plain loop, then as properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.core.types import DenseOutput, Points
from boresight.decode.peaks import decode_points, parabola_shift
from boresight.targets.gaussian import (
    Around,
    coarser_targets,
    gaussian_kernel,
    hard_kernel,
    legacy_kernel,
    point_targets,
)
from boresight.targets.schedule import TRUNCATION

SIGMAS = (1.2, 1.0, 0.8)


def render(*frames, classes=1, rows=5, columns=5, stride=4.0, kernel=None, reach=4, **more):
    """Targets of frames given as Points or as lists of (x, y)."""
    points = [f if isinstance(f, Points) else Points.of(f) for f in frames]
    kernel = kernel or gaussian_kernel(1.0, "physical")
    return point_targets(
        points, classes=classes, rows=rows, columns=columns, stride=stride, kernel=kernel, reach=reach, **more
    )


def close(have, want):
    return torch.allclose(have, torch.tensor(want), rtol=0, atol=5e-4)


# ---------------------------------------------------------------- by hand


def test_a_target_on_a_cell_centre_by_hand():
    """Stride 4: x = 10 is the centre of cell 2. exp(-1/2) = .607, exp(-1) = .368, exp(-2) = .135, exp(-5/2) < .1."""
    a, b, c = math.exp(-0.5), math.exp(-1), math.exp(-2)
    want = [[0, 0, c, 0, 0], [0, b, a, b, 0], [c, a, 1, a, c], [0, b, a, b, 0], [0, 0, c, 0, 0]]
    have = render([(10.0, 10.0)])
    assert close(have.score[0, 0], want)
    assert have.positive.nonzero().tolist() == [[0, 0, 2, 2]]
    assert have.objects.tolist() == [[10.0, 10.0, 10.0, 10.0]]
    assert float(have.normaliser) == 1.0
    assert not have.ignore.any()


def test_a_sub_pixel_target_by_hand():
    """x = 11 is u = 2.25; three cells in a row see it at -1.25, -.25 and .75 cells."""
    have = render([(11.0, 2.0)], rows=1, columns=5)
    want = [
        [0.0, math.exp(-(1.25**2) / 2), math.exp(-(0.25**2) / 2), math.exp(-(0.75**2) / 2), math.exp(-(1.75**2) / 2)]
    ]
    assert close(have.score[0, 0], want)


def test_a_corner_target_is_clipped_by_hand():
    """x = y = 2 is the centre of cell (0, 0): only the quarter on the map is left."""
    a, b = math.exp(-0.5), math.exp(-1)
    assert close(render([(2.0, 2.0)], rows=3, columns=2).score[0, 0], [[1, a], [a, b], [math.exp(-2), 0]])


@pytest.mark.parametrize(("at", "cell"), [((0.0, 0.0), (0, 0)), ((12.0, 12.0), (2, 2)), ((12.0, 0.0), (0, 2))])
def test_a_target_on_the_frame_s_border_belongs_to_the_border_cell(at, cell):
    have = render([at], rows=3, columns=3)
    assert have.positive.nonzero().tolist() == [[0, 0, *cell]]
    assert have.score[0, 0][cell] == pytest.approx(math.exp(-0.25), abs=1e-6)  # half a cell off in both directions


def test_a_target_on_a_cell_edge_goes_to_the_higher_cell():
    """x = 4 lies between cells 0 and 1: both see it alike, one of them stands for it."""
    have = render([(4.0, 2.0)], rows=1, columns=3)
    assert close(have.score[0, 0], [[math.exp(-0.125), math.exp(-0.125), math.exp(-1.125)]])
    assert have.positive[0, 0].tolist() == [[False, True, False]]


def test_unit_peak_by_hand():
    """As above, but the cell that stands for the target is 1."""
    have = render([(4.0, 2.0)], rows=1, columns=3, kernel=gaussian_kernel(1.0, "unit"))
    assert close(have.score[0, 0], [[math.exp(-0.125), 1.0, math.exp(-1.125)]])


def test_hard_label_by_hand():
    have = render([(7.9, 4.1)], rows=3, columns=3, kernel=hard_kernel)
    assert have.score[0, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_legacy_table_by_hand():
    """The table stands on whole cells and is the same wherever in its cell the target lies."""
    want = [[0.15, 0.3, 0.15, 0], [0.3, 1, 0.3, 0], [0.15, 0.3, 0.15, 0], [0, 0, 0, 0]]
    for at in [(6.0, 6.0), (4.5, 7.5)]:
        assert close(render([at], rows=4, columns=4, kernel=legacy_kernel).score[0, 0], want)


def test_two_targets_merge_by_maximum_by_hand():
    """Cells 0 and 2 of a row: the cell between them is .607, not twice that."""
    a, c = math.exp(-0.5), math.exp(-2)
    have = render([(2.0, 2.0), (10.0, 2.0)], rows=1, columns=5)
    assert close(have.score[0, 0], [[1, a, 1, a, c]])
    assert have.positive[0, 0].tolist() == [[True, False, True, False, False]]
    assert have.matched[0, 0].tolist() == [[0, 1, 1, 1, -1]]  # the tie in the middle goes further right


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_a_cell_as_near_to_several_targets_learns_the_same_place_in_any_order(order):
    """Cell (1, 1) is as near to each of the four cells around it that hold a target."""
    xy = torch.tensor([(6.0, 2.0), (2.0, 6.0), (10.0, 6.0), (6.0, 10.0)])[order]
    have = render(xy, rows=3, columns=3)
    assert have.objects[have.matched[0, 0, 1, 1], :2].tolist() == [6.0, 10.0]


def test_classes_and_frames_do_not_mix():
    two = Points.of([(2.0, 2.0), (10.0, 10.0)], labels=torch.tensor([0, 1]))
    have = render(two, [], [(10.0, 2.0)], classes=2, rows=3, columns=3, kernel=hard_kernel)
    assert have.positive.nonzero().tolist() == [[0, 0, 0, 0], [0, 1, 2, 2], [2, 0, 0, 2]]
    assert have.matched[have.positive].tolist() == [0, 1, 2]
    assert have.labels.tolist() == [0, 1, 0]


def test_two_targets_in_one_cell_are_one_positive():
    have = render([(9.0, 9.0), (10.5, 10.5)])
    assert int(have.positive.sum()) == 1
    assert int(have.matched[have.positive]) == 1  # the nearer to the centre of the cell
    assert float(have.normaliser) == 2.0
    assert have.positives_per_object().tolist() == [0, 1]


def test_a_cell_s_own_target_wins_over_a_nearer_neighbour():
    """Cell 1 holds u = 1.45; u = .52 rounds to cell 1 too, but u = .49 belongs to cell 0 and may not take cell 1."""
    have = render([((1.49 + 0.5) * 4, 2.0), ((0.55 + 0.5) * 4 - 0.3, 2.0)], rows=1, columns=3)
    assert have.positive[0, 0].tolist() == [[True, True, False]]
    assert have.matched[0, 0].tolist() == [[1, 0, 0]]


# ---------------------------------------------------------------- what the truncation promises


@pytest.mark.parametrize(("sigma", "window"), [(1.2, 5), (1.0, 4), (0.8, 3)])
def test_the_truncation_is_a_tenth_of_the_peak(sigma, window):
    assert math.exp(-(TRUNCATION**2) / 2) == pytest.approx(0.1)
    assert pytest.approx(2.146, abs=5e-4) == TRUNCATION
    at = torch.linspace(0, 4, 4001)
    away = torch.ones(1, 1, 1, dtype=torch.long)
    value = gaussian_kernel(sigma, "physical")(Around(at.view(-1, 1, 1), torch.zeros(1, 1, 1), away, away))[:, 0, 0]
    radius = float(at[value > 0].max())
    assert radius == pytest.approx(2.146 * sigma, abs=2e-3)
    assert math.floor(2 * radius) == window
    assert float(value[value > 0].min()) >= 0.1 - 1e-6


@pytest.mark.parametrize(("sigma", "lowest"), [(0.8, 0.68), (1.0, 0.78), (1.2, 0.84)])
def test_the_physical_peak_is_below_one_and_the_positive_is_still_there(sigma, lowest):
    """The published trap: a loss that looks for ``score == 1`` would find none of these."""
    half = render([(8.0, 8.0)], kernel=gaussian_kernel(sigma, "physical"))
    assert float(half.score.max()) == pytest.approx(math.exp(-0.25 / sigma**2), abs=1e-5)
    assert float(half.score.max()) == pytest.approx(lowest, abs=0.006)
    assert int((half.score == 1).sum()) == 0
    assert int(half.positive.sum()) == 1


@pytest.mark.parametrize("sigma", SIGMAS)
def test_labels_at_real_places_have_no_bias(sigma):
    """Averaged over sub-cell phases the label's centroid is the target; four whole cells would be half a cell off."""
    phase = (torch.arange(24) + 0.5) / 24 - 0.5
    y, x = torch.meshgrid(phase, phase, indexing="ij")
    uv = torch.stack((x, y), -1).reshape(-1, 2) + 5
    kernel = gaussian_kernel(sigma, "physical")
    frames = [Points.of((one[None] + 0.5) * 4) for one in uv]
    have = render(*frames, rows=11, columns=11, kernel=kernel).score[:, 0]
    cells = torch.arange(11.0)
    centroid = torch.stack(((have.sum(1) * cells).sum(1), (have.sum(2) * cells).sum(1)), -1) / have.sum((1, 2))[:, None]
    assert (centroid - uv).mean(0).abs().max() < 1e-3
    assert (centroid - uv).abs().max() < 0.25  # truncation leaves a little, phase by phase
    window = (torch.floor(uv + 0.5) + 0.5 - uv).mean(0)  # the middle of cells n - 1 .. n + 2 around the nearest, n
    assert torch.allclose(window, torch.tensor([0.5, 0.5]), atol=1e-4)


# ---------------------------------------------------------------- unknown is not negative


def test_a_dont_care_is_ignored_and_no_positive():
    dim = Points.of([(10.0, 10.0)], ignore=torch.tensor([True]))
    have = render(dim)
    assert not have.positive.any()
    assert int((have.matched >= 0).sum()) == 0
    assert not have.score.any()
    assert torch.equal(have.ignore, render([(10.0, 10.0)]).score > 0)
    assert float(have.normaliser) == 0.0
    assert have.counted.tolist() == [False]


def test_a_target_beside_a_dont_care_stays_positive():
    both = Points.of([(10.0, 10.0), (14.0, 10.0), (10.2, 10.0)], ignore=torch.tensor([False, True, True]))
    have, alone = render(both), render([(10.0, 10.0)])
    assert torch.equal(have.positive, alone.positive)
    assert torch.equal(have.score, alone.score)
    assert torch.equal(have.matched, alone.matched)
    assert not (have.ignore & have.positive).any()
    assert have.ignore[0, 0, 2, 3]  # the don't-care's own cell, although the target's label reaches it
    assert not have.ignore[0, 0, 2, 1]  # the far side is the target's
    assert bool(have.ignore[0, 0, 1, 4])  # the far side of the don't-care is unknown all the same


def test_a_positive_too_sharp_to_be_sampled_is_not_ignored():
    """Sigma .2 reaches .43 cells; half a cell off, the target's own cell has score 0 and must still not be unknown."""
    both = Points.of([(8.0, 10.0), (9.9, 10.0)], ignore=torch.tensor([False, True]))
    have = render(both, kernel=gaussian_kernel(0.2, "physical"))
    assert have.positive[0, 0, 2, 2]
    assert not have.ignore[0, 0, 2, 2]


# ---------------------------------------------------------------- the door


def test_empty_in_empty_out():
    have = render([], [])
    assert have.score.shape == (2, 1, 5, 5)
    assert not have.positive.any()
    assert not have.score.any()
    assert (have.matched == -1).all()
    assert have.objects.shape == (0, 4)
    nothing = render(classes=3)
    assert nothing.score.shape == (0, 3, 5, 5)
    assert coarser_targets(nothing, 2).score.shape == (0, 3, 3, 3)


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_out_of_range_raises(label):
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1"):
        render(Points.of([(2.0, 2.0)], labels=torch.tensor([label])), classes=2)


@pytest.mark.parametrize("at", [(-0.1, 5.0), (5.0, -3.0), (20.1, 5.0), (5.0, 99.0), (math.nan, 5.0), (math.inf, 5.0)])
def test_a_point_off_the_map_raises(at):
    with pytest.raises(ValueError, match="off the map of 20 x 20 px"):
        render([(5.0, 5.0)], [at])


def test_inputs_are_not_written_to():
    points = Points.of([(3.0, 5.0), (9.0, 1.0)], ignore=torch.tensor([False, True]))
    before = (points.xy.clone(), points.labels.clone(), points.ignore.clone())
    fine = render(points)
    kept = (fine.score.clone(), fine.positive.clone(), fine.ignore.clone(), fine.matched.clone())
    coarser_targets(fine, 2)
    assert all(torch.equal(a, b) for a, b in zip(before, (points.xy, points.labels, points.ignore), strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(kept, (fine.score, fine.positive, fine.ignore, fine.matched), strict=True)
    )


# ---------------------------------------------------------------- against a plain loop


@st.composite
def batches(draw):
    """A map and frames of points on it, some twice in one cell, some on exact cell edges."""
    stride = draw(st.sampled_from([2.0, 4.0, 8.0]))
    rows, columns, classes = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    eighth = st.tuples(
        st.integers(0, columns * 8), st.integers(0, rows * 8), st.integers(0, classes - 1), st.booleans()
    )
    frames = draw(st.lists(st.lists(eighth, max_size=6), min_size=1, max_size=3))
    points = [
        Points.of(
            [(x * stride / 8, y * stride / 8) for x, y, _, _ in f],
            labels=torch.tensor([c for *_, c, _ in f], dtype=torch.long),
            ignore=torch.tensor([i for *_, i in f], dtype=torch.bool),
        )
        for f in frames
    ]
    return points, {"classes": classes, "rows": rows, "columns": columns, "stride": stride}


def oracle(points, classes, rows, columns, stride, sigma, unit, offset_reach):
    """Score, positive, the don't-cares' own map and the squared distance of the match, cell by cell."""
    shape = (len(points), classes, rows, columns)
    score, dim, positive = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    best: dict[tuple[int, ...], tuple[bool, float]] = {}
    for b, frame in enumerate(points):
        for (x, y), label, ignored in zip(frame.xy.tolist(), frame.labels.tolist(), frame.ignore.tolist(), strict=True):
            u, v = x / stride - 0.5, y / stride - 0.5
            own = (min(math.floor(u + 0.5), columns - 1), min(math.floor(v + 0.5), rows - 1))
            for j in range(rows):
                for i in range(columns):
                    square = (i - u) ** 2 + (j - v) ** 2
                    value = math.exp(-square / (2 * sigma**2)) if square <= (TRUNCATION * sigma) ** 2 else 0.0
                    value = 1.0 if unit and (i, j) == own else value
                    plane = dim if ignored else score
                    plane[b, label, j, i] = max(float(plane[b, label, j, i]), value)
                    if not ignored and max(abs(i - own[0]), abs(j - own[1])) <= offset_reach:
                        key, rival = (b, label, j, i), ((i, j) == own, -square)
                        best[key] = max(best.get(key, rival), rival)
            if not ignored:
                positive[b, label, own[1], own[0]] = True
    return score, positive, dim, best


@settings(max_examples=60)
@given(batches(), st.sampled_from(SIGMAS), st.booleans(), st.integers(0, 2))
def test_targets_equal_a_plain_loop(batch, sigma, unit, offset_reach):
    points, shape = batch
    kernel = gaussian_kernel(sigma, "unit" if unit else "physical")
    reach = int(TRUNCATION * sigma + 0.5) + 1
    have = point_targets(points, **shape, kernel=kernel, reach=reach, offset_reach=offset_reach)
    score, positive, dim, best = oracle(points, **shape, sigma=sigma, unit=unit, offset_reach=offset_reach)
    assert torch.allclose(have.score, score, rtol=0, atol=1e-5)
    assert torch.equal(have.positive, positive)
    decided = (dim - score).abs() > 1e-5  # equally near to both: rounding decides
    assert torch.equal(have.ignore[decided], ((dim > score) & ~positive)[decided])
    assert {tuple(c) for c in (have.matched >= 0).nonzero().tolist()} == set(best)
    for b, c, j, i in best:
        owner = int(have.matched[b, c, j, i])
        x, y = have.objects[owner, :2].tolist()
        u, v = x / shape["stride"] - 0.5, y / shape["stride"] - 0.5
        assert int(have.labels[owner]) == c
        assert (i - u) ** 2 + (j - v) ** 2 == pytest.approx(-best[b, c, j, i][1], abs=1e-5)


@settings(max_examples=60)
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_points_changes_nothing(batch, random):
    points, shape = batch
    orders = [torch.tensor(random.sample(range(len(p)), len(p)), dtype=torch.long) for p in points]
    kernel = gaussian_kernel(1.0, "physical")
    one = point_targets(points, **shape, kernel=kernel, reach=4)
    two = point_targets([p.select(o) for p, o in zip(points, orders, strict=True)], **shape, kernel=kernel, reach=4)
    for name in ("score", "positive", "ignore"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name

    def place(targets):  # the coordinates each cell must emit; rows of `objects` are named differently, of course
        nowhere = torch.full((1, 4), -1.0)
        return torch.cat((targets.objects, nowhere))[targets.matched]

    assert torch.equal(place(one), place(two))


@settings(max_examples=60)
@given(batches())
def test_one_positive_a_target_less_collisions(batch):
    points, shape = batch
    have = point_targets(points, **shape, kernel=gaussian_kernel(1.0, "physical"), reach=4)
    cells = set()
    for b, frame in enumerate(points):
        for (x, y), c, ignored in zip(frame.xy.tolist(), frame.labels.tolist(), frame.ignore.tolist(), strict=True):
            at = (
                min(int(y // shape["stride"]), shape["rows"] - 1),
                min(int(x // shape["stride"]), shape["columns"] - 1),
            )
            cells |= set() if ignored else {(b, c, *at)}
    assert int(have.positive.sum()) == len(cells)
    assert int(have.counted.sum()) == float(have.normaliser)
    assert (have.matched[have.positive] >= 0).all()
    assert int(have.positives_per_object().sum()) == len(cells)
    assert not (have.positive & have.ignore).any()


@settings(max_examples=30)
@given(batches())
def test_a_batch_is_its_frames_one_by_one(batch):
    points, shape = batch
    kernel = gaussian_kernel(0.8, "unit")
    together = point_targets(points, **shape, kernel=kernel, reach=3)
    alone = [point_targets([p], **shape, kernel=kernel, reach=3) for p in points]
    for name in ("score", "positive", "ignore"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(t, name) for t in alone])), name


# ---------------------------------------------------------------- there and back


@settings(max_examples=40)
@given(
    st.sampled_from([1.0, 2.0, 4.0, 8.0]),
    st.sampled_from(SIGMAS),
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 3), st.floats(0, 0.999), st.floats(0, 0.999)),
        min_size=1,
        max_size=5,
    ),
)
def test_encoded_truth_decodes_back_to_itself(stride, sigma, spots):
    """Targets six cells apart or more; every matched cell emits the exact place. Under 1e-4 px."""
    spots = {(i, j): (f, g) for i, j, f, g in spots}
    xy = torch.tensor([((6 * i + 1 + f) * stride, (6 * j + 1 + g) * stride) for (i, j), (f, g) in spots.items()])
    have = render(xy, rows=24, columns=30, stride=stride, kernel=gaussian_kernel(sigma, "physical"))
    places = torch.cat((have.objects, torch.full((1, 4), -99.0)))[have.matched]
    found = decode_points(DenseOutput(have.score.logit(eps=1e-6), places, stride), min_score=0.5)[0]
    assert len(found) == len(xy)
    assert (torch.cdist(found.xy.double(), xy.double()).min(1).values < 1e-4).all()
    assert (torch.cdist(xy.double(), found.xy.double()).min(1).values < 1e-4).all()


@given(st.floats(-0.49, 0.49), st.floats(-0.49, 0.49), st.sampled_from(SIGMAS))
def test_the_parabola_is_exact_on_a_gaussian(dx, dy, sigma):
    """To 1e-3 cells away from borders, where the label is not cut; 0.99 keeps the logit finite on the peak."""
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    heat = 0.99 * torch.exp(-((x - 4 - dx) ** 2 + (y - 4 - dy) ** 2) / (2 * sigma**2))
    shift = parabola_shift(heat.double().logit()[None, None])[0, 0, 4, 4]
    assert shift.tolist() == pytest.approx([dx, dy], abs=1e-3)


@settings(max_examples=40)
@given(st.floats(9, 27), st.floats(9, 27), st.sampled_from(SIGMAS))
def test_a_physical_label_gives_its_place_by_the_parabola(x, y, sigma):
    """The three cells of each axis are within the truncation, so the cut does not matter: 1e-3 cells."""
    have = render([(x, y)], rows=9, columns=9, kernel=gaussian_kernel(sigma, "physical"))
    logits = (0.999 * have.score).double().logit(eps=1e-9)
    boxes = torch.zeros(*logits.shape, 4, dtype=torch.float64)
    found = decode_points(DenseOutput(logits, boxes, 4.0), refine="parabola", min_score=0.5)[0]
    assert len(found) == 1
    assert found.xy[0].tolist() == pytest.approx([x, y], abs=4e-3)


# ---------------------------------------------------------------- coarser maps


def test_coarser_targets_by_hand():
    """Two targets, factor 2, five cells: the last coarse cell covers one fine cell a side."""
    fine = render([(2.0, 2.0), (18.0, 18.0)], kernel=gaussian_kernel(0.8, "unit"))
    coarse = coarser_targets(fine, 2)
    a, b = math.exp(-0.5 / 0.64), math.exp(-1 / 0.64)
    assert close(coarse.score[0, 0], [[1, 0, 0], [0, b, a], [0, a, 1]])
    assert coarse.positive[0, 0].tolist() == [[True, False, False], [False] * 3, [False, False, True]]
    assert (coarse.matched == -1).all()
    assert float(coarse.normaliser) == 2.0


@settings(max_examples=40)
@given(batches(), st.sampled_from([2, 4]))
def test_coarser_targets_are_a_maximum_over_the_cells_covered(batch, factor):
    points, shape = batch
    fine = point_targets(points, **shape, kernel=gaussian_kernel(1.2, "physical"), reach=4)
    coarse = coarser_targets(fine, factor)
    rows, columns = math.ceil(shape["rows"] / factor), math.ceil(shape["columns"] / factor)
    assert coarse.score.shape == (len(points), shape["classes"], rows, columns)
    for j in range(rows):
        for i in range(columns):
            block = (..., slice(j * factor, (j + 1) * factor), slice(i * factor, (i + 1) * factor))
            assert torch.equal(coarse.score[..., j, i], fine.score[block].amax((-2, -1)))
            assert torch.equal(coarse.positive[..., j, i], fine.positive[block].flatten(-2).any(-1))
            unknown = fine.ignore[block].flatten(-2).any(-1) & (fine.score[block].amax((-2, -1)) == 0)
            assert torch.equal(coarse.ignore[..., j, i], unknown)
    assert not (coarse.positive & coarse.ignore).any()
