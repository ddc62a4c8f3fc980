from __future__ import annotations

import torch

from boresight.heads.learned_queries import LearnedQueries


def test_a_fresh_one_changes_nothing_and_can_learn():
    learned, text = LearnedQueries(2, 3), torch.randn(3, 3)
    out = learned(text, torch.tensor([1, -1, 0]))
    assert torch.equal(out, text)
    out.square().sum().backward()
    assert (learned.own.grad.abs().sum(1) > 0).all()


def test_a_query_gets_its_own_vector_wherever_it_stands_and_an_unknown_one_none():
    learned, text = LearnedQueries(2, 3), torch.randn(4, 3)
    with torch.no_grad():
        learned.own.copy_(torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]))
    before = text.clone()
    added = learned(text, torch.tensor([1, -1, 0, 1])) - text
    wanted = torch.tensor([[10.0, 20.0, 30.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    assert torch.allclose(added, wanted, atol=1e-5)
    assert torch.equal(text, before)
