"""Score losses: by hand on a cell or two, against the published formulas, gradients, extremes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.losses import classification as c

LOSSES = {
    "bce": c.bce,
    "weighted_bce": c.weighted_bce(50.0),
    "focal": c.focal(),
    "penalty_reduced_focal": c.penalty_reduced_focal(),
    "quality_focal": c.quality_focal(),
    "varifocal": c.varifocal(),
    "matchability": c.matchability(),
    "ohem": c.ohem(2.0, floor=2),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
LOGIT_3 = math.log(3)  # sigmoid 3/4


def cells(logits, score, positive):
    return torch.tensor(logits).double(), torch.tensor(score).double(), torch.tensor(positive)


def maps(seed=0, shape=(2, 1, 4, 5)):
    """Random logits, a soft label below 1 everywhere, and a mask of positives."""
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=random, dtype=torch.float64)
    score = 0.95 * torch.rand(shape, generator=random, dtype=torch.float64)
    return logits, score, torch.rand(shape, generator=random) < 0.2


# ---------------------------------------------------------------- by hand


def test_bce_by_hand():
    """p = 3/4: a target of 1 costs -log 3/4, of 0 costs -log 1/4, of 1/2 the mean."""
    loss = c.bce(*cells([LOGIT_3] * 3, [1.0, 0.0, 0.5], [True, False, False]))
    assert loss.tolist() == pytest.approx([math.log(4 / 3), math.log(4), (math.log(4 / 3) + math.log(4)) / 2])


def test_weighted_bce_by_hand():
    """Only the part of the label that says "target" is weighted."""
    loss = c.weighted_bce(10.0)(*cells([LOGIT_3] * 3, [1.0, 0.0, 0.5], [True, False, False]))
    assert loss.tolist() == pytest.approx([10 * math.log(4 / 3), math.log(4), 5 * math.log(4 / 3) + math.log(4) / 2])


def test_focal_by_hand():
    loss = c.focal(0.25, 2.0)(*cells([LOGIT_3] * 2, [1.0, 0.0], [True, False]))
    assert loss.tolist() == pytest.approx([0.25 * (1 / 16) * math.log(4 / 3), 0.75 * (9 / 16) * math.log(4)])


def test_penalty_reduced_focal_by_hand():
    """A negative beside a target (y = 1/2) counts 1/16 of one far away."""
    loss = c.penalty_reduced_focal()(*cells([LOGIT_3] * 3, [1.0, 0.0, 0.5], [True, False, False]))
    far = (9 / 16) * math.log(4)
    assert loss.tolist() == pytest.approx([(1 / 16) * math.log(4 / 3), far, far / 16])


def test_quality_focal_by_hand():
    loss = c.quality_focal(2.0)(*cells([LOGIT_3] * 2, [1.0, 0.75], [True, False]))
    assert loss.tolist() == pytest.approx([(1 / 16) * math.log(4 / 3), 0.0])


def test_varifocal_by_hand():
    """Targets of 1 and 1/2 weigh themselves; a negative is focal; a positive that boxes nothing costs nothing."""
    positive = [True, True, False, True]
    loss = c.varifocal(0.75, 2.0)(*cells([LOGIT_3] * 4, [1.0, 0.5, 0.0, 0.0], positive))
    half = 0.5 * (math.log(4 / 3) + math.log(4)) / 2
    assert loss.tolist() == pytest.approx([math.log(4 / 3), half, 0.75 * (9 / 16) * math.log(4), 0.0])


def test_matchability_by_hand():
    """IoU 1/4 to the power 1.5 is a target of 1/8, and it is pushed there at full weight."""
    loss = c.matchability(1.5)(*cells([LOGIT_3] * 3, [1.0, 0.25**1.5, 0.0], [True, True, False]))
    eighth = math.log(4 / 3) / 8 + math.log(4) * 7 / 8
    assert loss.tolist() == pytest.approx([math.log(4 / 3), eighth, 0.75**1.5 * math.log(4)])


@pytest.mark.parametrize("loss", [c.varifocal(), c.matchability()], ids=["varifocal", "matchability"])
def test_the_share_of_the_target_is_what_is_weighted(loss):
    """Weight 3 on a hard positive triples it, and leaves negatives alone."""
    given = cells([LOGIT_3] * 2, [1.0, 0.0], [True, False])
    plain, heavy = loss(*given), loss(*given, 3.0)
    assert heavy.tolist() == pytest.approx([3 * float(plain[0]), float(plain[1])])


def test_ohem_by_hand():
    """One positive, ratio 2: the two hardest of four negatives are kept."""
    logits = [0.0, 1.0, 3.0, 2.0, -1.0]
    loss = c.ohem(2.0, floor=0)(*cells(logits, [1.0, 0, 0, 0, 0], [True, False, False, False, False]))
    want = [math.log(2), 0, math.log1p(math.exp(3)), math.log1p(math.exp(2)), 0]
    assert loss.tolist() == pytest.approx(want)


# ---------------------------------------------------------------- what each becomes at its limits


@given(st.integers(0, 50))
def test_focal_without_focus_is_half_the_cross_entropy(seed):
    logits, _, positive = maps(seed)
    hard = positive.double()
    assert torch.allclose(c.focal(0.5, 0.0)(logits, hard, positive), 0.5 * c.bce(logits, hard, positive))


@given(st.integers(0, 50))
def test_quality_focal_without_focus_is_the_cross_entropy(seed):
    logits, score, positive = maps(seed)
    assert torch.equal(c.quality_focal(0.0)(logits, score, positive), c.bce(logits, score, positive))


@given(st.integers(0, 50))
def test_weight_one_is_the_cross_entropy(seed):
    logits, score, positive = maps(seed)
    assert torch.allclose(c.weighted_bce(1.0)(logits, score, positive), c.bce(logits, score, positive))


@given(st.integers(0, 50))
def test_penalty_reduced_focal_is_cornernet_s_equation(seed):
    """Law & Deng 2018, eq. 1, cell by cell, with the mask in the place of ``y == 1``."""
    logits, score, positive = maps(seed, (1, 1, 2, 4))
    loss = c.penalty_reduced_focal(2.0, 4.0)(logits, score, positive).flatten().tolist()
    for have, x, y, own in zip(loss, logits.flatten(), score.flatten(), positive.flatten(), strict=True):
        p, y = 1 / (1 + math.exp(-float(x))), float(y)
        want = -((1 - p) ** 2) * math.log(p) if own else -((1 - y) ** 4) * p**2 * math.log(1 - p)
        assert have == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("name", ["focal", "penalty_reduced_focal", "ohem"])
def test_positives_come_from_the_mask_not_from_a_score_of_one(name):
    """The trap: a sub-pixel label peaks at .68. Its own cell must be pulled up as hard as a whole one."""
    logits = torch.full((4,), -4.0, dtype=torch.float64, requires_grad=True)
    score = torch.tensor(
        [0.1, 0.68, 1.0, 0.0], dtype=torch.float64
    )  # a score of 1 that is no positive stays a negative
    positive = torch.tensor([False, True, False, False])
    LOSSES[name](logits, score, positive).sum().backward()
    assert logits.grad[1] < 0
    if name != "ohem":
        assert logits.grad[2] >= 0
        whole = LOSSES[name](logits.detach(), torch.ones(4, dtype=torch.float64), positive)[1]
        assert LOSSES[name](logits.detach(), score, positive)[1] == whole


# ---------------------------------------------------------------- OHEM


@given(st.integers(0, 30), st.integers(0, 6), st.sampled_from([0.0, 1.0, 3.0]), st.integers(0, 12))
def test_ohem_keeps_the_positives_and_the_hardest_negatives(seed, positives, ratio, floor):
    logits, _, _ = maps(seed)
    random = torch.Generator().manual_seed(seed)
    positive = torch.zeros(40, dtype=torch.bool)
    positive[torch.randperm(40, generator=random)[:positives]] = True
    positive = positive.view_as(logits)
    cell = c.bce(logits, positive.double(), positive)
    loss = c.ohem(ratio, floor=floor)(logits, positive.double(), positive)
    kept = loss > 0
    assert torch.equal(loss[kept], cell[kept])
    assert bool(kept[positive].all())
    wanted = min(max(int(ratio * positives), floor), 40 - positives)
    assert int((kept & ~positive).sum()) == wanted
    hardest = cell[~positive].sort(descending=True).values[:wanted]
    assert torch.equal(loss[~positive & kept].sort(descending=True).values, hardest)


def test_ohem_takes_exactly_as_many_of_equal_negatives():
    positive = torch.tensor([True] + [False] * 20)
    loss = c.ohem(3.0, floor=0)(torch.zeros(21), positive.float(), positive)
    assert int((loss > 0).sum()) == 4


def test_ohem_of_an_empty_map_teaches_the_background():
    loss = c.ohem(3.0, floor=5)(torch.linspace(-1, 1, 20), torch.zeros(20), torch.zeros(20, dtype=torch.bool))
    assert (loss > 0).nonzero().flatten().tolist() == [15, 16, 17, 18, 19]


# ---------------------------------------------------------------- every loss


@each_loss
def test_the_gradient_is_that_of_the_loss(loss):
    logits, score, positive = maps(3)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, score, positive).sum(), (logits,))


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_give_finite_values_and_gradients(loss, dtype):
    logits = torch.tensor([-50.0, 50.0, -50.0, 50.0, -50.0, 50.0, 0.0], dtype=dtype, requires_grad=True)
    score = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.5, 0.5, 0.3], dtype=dtype)
    value = loss(logits, score, torch.tensor([True, True] + [False] * 5))
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()
    assert value[0] > 10  # a target scored e-50 costs what it should (focal: a quarter of 50)
    assert value[3] > 10  # and so does a false alarm


@each_loss
def test_a_map_without_positives_pushes_down_only(loss):
    logits = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(logits, torch.zeros_like(logits), torch.zeros_like(logits, dtype=torch.bool))
    value.sum().backward()
    assert value.isfinite().all()
    assert (logits.grad >= 0).all()
    assert (logits.grad > 0).any()


@each_loss
def test_shape_is_kept_and_inputs_are_not_written_to(loss):
    logits, score, positive = maps(5)
    before = logits.clone(), score.clone(), positive.clone()
    assert loss(logits, score, positive).shape == logits.shape
    assert all(torch.equal(a, b) for a, b in zip(before, (logits, score, positive), strict=True))
    assert loss(*(t[:0] for t in (logits, score, positive))).shape == (0, 1, 4, 5)


@each_loss
@given(st.integers(0, 20))
def test_no_loss_is_negative_and_a_perfect_answer_costs_little(loss, seed):
    logits, score, positive = maps(seed)
    assert (loss(logits, score, positive) >= 0).all()
    hard = positive.double()
    assert loss(40 * (2 * hard - 1), hard, positive).sum() < 1e-9
