from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from boresight.heads.text_query import TextQueryHead, prior_bias, squashed


def head(**more):
    torch.manual_seed(0)
    return TextQueryHead(6, 5, 7, **{"width": 8, "embed": 4, "depth": 1} | more)


class Here:
    """Features that lie on the head's grid already."""

    def __init__(self, maps):
        self.maps = maps

    def read(self, layer=None):
        return self.maps if layer is None else layer(self.maps)


def inputs(batch=2, classes=3, rows=4, columns=5):
    random = torch.Generator().manual_seed(1)
    text = F.normalize(torch.randn(classes, 7, generator=random), dim=-1)
    evidence = torch.randn(batch, classes, rows, columns, generator=random)
    return (
        torch.randn(batch, 6, rows, columns, generator=random),
        Here(torch.randn(batch, 5, rows, columns, generator=random)),
        text,
        evidence,
        torch.randn(batch, classes, generator=random),
    )


@pytest.mark.parametrize("box", ["agnostic", "conditioned"])
def test_shapes_and_a_fresh_head(box):
    with torch.no_grad():
        found = head(box=box, learned_fusion=False, prior=0.02, side=6.0, quality=True, objectness=True)(*inputs())
    assert found.logits.shape == (2, 3, 4, 5)
    assert found.boxes.shape == (2, 3, 4, 5, 4)
    assert found.quality.shape == found.objectness.shape == (2, 1, 4, 5)
    assert float(found.logits.sigmoid().mean()) == pytest.approx(0.02, rel=0.1)
    sides = found.boxes[..., 2:] - found.boxes[..., :2]
    assert torch.allclose(sides, torch.tensor(6.0 * 8), rtol=0.25)
    assert prior_bias(0.02) == pytest.approx(torch.logit(torch.tensor(0.02)).item(), rel=1e-5)


def test_agnostic_boxes_are_a_view():
    found = head(box="agnostic")(*inputs())
    assert found.boxes.stride(1) == 0


def test_conditioned_boxes_differ_between_classes():
    found = head(box="conditioned")(*inputs())
    assert (found.boxes[:, 0] - found.boxes[:, 1]).abs().max() > 1e-4


@pytest.mark.parametrize("box", ["agnostic", "conditioned"])
def test_queries_do_not_know_of_each_other(box):
    made, given = head(box=box, quality=True), inputs()
    every = made(*given)
    image, dense, text, evidence, presence = given
    for c in range(3):
        one = made(image, dense, text[c : c + 1], evidence[:, c : c + 1], presence[:, c : c + 1])
        assert torch.allclose(one.logits[:, 0], every.logits[:, c], atol=1e-6)
        assert torch.allclose(one.boxes[:, 0], every.boxes[:, c], atol=1e-4)


def test_an_image_does_not_know_of_its_neighbour():
    made, given = head(), inputs()
    image, dense, text, evidence, presence = given
    one = made(image[:1], Here(dense.maps[:1]), text, evidence[:1], presence[:1])
    assert torch.allclose(one.logits, made(*given).logits[:1], atol=1e-6)


def test_learned_fusion_adds_the_evidence_with_a_weight_of_a_half():
    made = head(learned_fusion=True)
    image, dense, text, evidence, presence = inputs()
    nothing = torch.zeros_like(evidence), torch.zeros_like(presence)
    more = made(image, dense, text, evidence, nothing[1]).logits - made(image, dense, text, *nothing).logits
    assert torch.allclose(more, 0.5 * squashed(evidence), atol=1e-5)
    more = made(image, dense, text, nothing[0], presence).logits - made(image, dense, text, *nothing).logits
    assert torch.allclose(more, (0.5 * squashed(presence))[..., None, None].expand_as(more), atol=1e-5)


def test_without_a_score_the_class_map_speaks():
    made = head(score=False)
    image, dense, text, evidence, presence = inputs()
    assert torch.equal(made(image, dense, text, evidence, presence).logits, evidence)
    assert not any("score" in name or "query" in name for name, _ in made.named_parameters())


def test_gradients_reach_every_parameter():
    made = head(box="conditioned", quality=True, objectness=True)
    found = made(*inputs())
    (found.logits.sum() + found.boxes.square().mean() + found.quality.sum() + found.objectness.sum()).backward()
    for name, p in made.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


def test_boxes_stay_finite_whatever_the_network_says():
    made = head(box="agnostic")
    with torch.no_grad():
        made.edges.bias.fill_(1e4)
    assert made(*inputs()).boxes.isfinite().all()


def test_queries_count_as_much_whatever_the_length_of_their_embedding():
    """A unit vector of many numbers has small ones: classes would be learned the slower, the larger the text tower."""

    def spread(dim):
        torch.manual_seed(0)
        made = TextQueryHead(6, 0, dim, width=8, embed=16, depth=1, learned_fusion=False)
        image = torch.randn(2, 6, 4, 5)
        text = F.normalize(torch.randn(40, dim), dim=-1)
        found = made(image, None, text, torch.zeros(2, 40, 4, 5), torch.zeros(2, 40))
        return float(found.logits.detach().std(1).mean())

    assert spread(512) == pytest.approx(spread(16), rel=0.3)
