from __future__ import annotations

import pytest
import torch

from boresight.core.types import DenseOutput
from boresight.decode.fusion import FLOOR, Fusion


def output(logits, **more):
    logits = torch.as_tensor(logits, dtype=torch.float32).reshape(1, 1, 1, -1)
    more = {k: torch.as_tensor(v, dtype=torch.float32).reshape(logits.shape) for k, v in more.items()}
    return DenseOutput(logits, torch.zeros(*logits.shape, 4), 8.0, **more)


def sigmoid(x):
    return torch.as_tensor(x, dtype=torch.float32).sigmoid()


def test_raw_and_learned_are_the_sigmoid():
    given = output([-2.0, 0.0, 3.0], cam=[0.1, 0.2, 0.3])
    for name in ("raw", "learned"):
        assert torch.allclose(Fusion(name).score(given).flatten(), sigmoid([-2.0, 0.0, 3.0]))
        assert torch.equal(Fusion(name).logit(given), given.logits)


def test_product_by_hand():
    given = output([0.0, 0.0], cam=[0.5, 1.0])
    assert Fusion("product").score(given).flatten().tolist() == pytest.approx([0.25, 0.5])


def test_geometric_mean_by_hand():
    given = output([0.0], cam=[0.0625])  # sqrt(0.5 * 0.0625)
    assert float(Fusion("geometric", 0.5).score(given)) == pytest.approx(0.03125**0.5)
    assert float(Fusion("geometric", 0.0).score(given)) == pytest.approx(0.5)
    assert float(Fusion("geometric", 1.0).score(given)) == pytest.approx(0.0625)


def test_quality_and_objectness_multiply():
    given = output([0.0], quality=[0.25], objectness=[0.0])
    assert float(Fusion("raw", quality=1.0).score(given)) == pytest.approx(0.125)
    assert float(Fusion("raw", quality=0.5).score(given)) == pytest.approx(0.25)
    assert float(Fusion("raw", objectness=True).score(given)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "fusion", [Fusion("product"), Fusion("geometric"), Fusion("raw", quality=0.7, objectness=True)]
)
def test_the_logit_is_that_of_the_score(fusion):
    torch.manual_seed(0)
    given = output(torch.randn(50), cam=torch.rand(50), quality=torch.rand(50), objectness=torch.randn(50))
    assert torch.allclose(fusion.logit(given).sigmoid(), fusion.score(given), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradients_stay_finite_at_the_ends(value):
    logits = torch.tensor([-60.0, 0.0, 60.0], requires_grad=True)
    given = output(logits, cam=[value] * 3, quality=[value] * 3)
    for fusion in (Fusion("product"), Fusion("geometric"), Fusion("learned", quality=1.0)):
        (grad,) = torch.autograd.grad(fusion.logit(given).sum(), logits, retain_graph=True)
        assert grad.isfinite().all()
        assert fusion.logit(given).isfinite().all()


def test_a_map_of_zero_counts_as_the_floor():
    assert float(Fusion("product").score(output([20.0], cam=[0.0]))) == pytest.approx(FLOOR, rel=1e-3)


@pytest.mark.parametrize(
    ("fusion", "missing"),
    [
        (Fusion("product"), "class map"),
        (Fusion("raw", quality=1.0), "quality"),
        (Fusion("raw", objectness=True), "objectness"),
    ],
)
def test_a_missing_factor_is_an_error(fusion, missing):
    with pytest.raises(ValueError, match=missing):
        fusion.score(output([0.0]))
