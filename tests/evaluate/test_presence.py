"""Presence: AUC by hand and by counting pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boresight.core.types import Detections, Scene
from boresight.evaluate.presence import best_scores, presence_auc, present_classes


def test_by_hand():
    # Class 0: present .9, .4; absent .5, .1: of four pairs three are in order. Class 1: a tie counts half.
    presence = [[0.9, 0.3], [0.4, 0.3], [0.5, 0.1], [0.1, 0.1]]
    present = [[True, True], [True, False], [False, False], [False, True]]
    found = presence_auc(presence, present)
    # Class 1: present .3, .1; absent .3, .1: pairs .3-.3 half, .3-.1 one, .1-.3 none, .1-.1 half.
    assert found.per_class == (0.75, 0.5)
    assert found.auc == 0.625
    assert found.present == (2, 2)
    assert found.absent == (2, 2)


def test_a_class_that_every_image_or_none_holds_has_no_auc():
    found = presence_auc([[0.9, 0.1, 0.2], [0.2, 0.1, 0.9]], [[True, False, True], [True, False, False]])
    assert found.per_class == (None, None, 0.0)
    assert found.auc == 0.0
    assert presence_auc(np.zeros((0, 2)), np.zeros((0, 2), bool)).per_class == (None, None)
    assert presence_auc(np.zeros((0, 2)), np.zeros((0, 2), bool)).auc is None


def test_what_is_unknown_is_left_out():
    presence, present = np.array([[0.9], [0.8], [0.1]]), np.array([[True], [False], [False]])
    assert presence_auc(presence, present).auc == 1.0
    presence[1] = 1.0
    assert presence_auc(presence, present).auc == 0.5
    assert presence_auc(presence, present, [[True], [False], [True]]).auc == 1.0
    presence[1] = np.nan
    assert presence_auc(presence, present, [[True], [False], [True]]).auc == 1.0
    with pytest.raises(ValueError, match="NaN"):
        presence_auc(presence, present)
    with pytest.raises(ValueError, match=r"\[N, C\]"):
        presence_auc(presence, present[:2])


entry = st.tuples(st.integers(0, 4), st.booleans(), st.booleans())


@given(st.lists(st.tuples(entry, entry, entry), min_size=1, max_size=12))
def test_it_counts_pairs(rows: list):
    table = np.array(rows, dtype=float)
    score, present, known = table[..., 0], table[..., 1] > 0, table[..., 2] > 0
    got = presence_auc(score, present, known)
    for c in range(3):
        high, low = score[present[:, c] & known[:, c], c], score[~present[:, c] & known[:, c], c]
        if len(high) and len(low):
            gap = high[:, None] - low
            assert got.per_class[c] == pytest.approx(((gap > 0) + 0.5 * (gap == 0)).mean())
        else:
            assert got.per_class[c] is None


def test_the_best_score_stands_for_presence():
    found = Detections(
        torch.zeros(3, 4), torch.tensor([0.5, 0.75, 0.25]), torch.tensor([1, 1, 2]), torch.zeros(3).long()
    )
    empty = found.select(torch.zeros(3, dtype=torch.bool))
    assert best_scores([found, empty], 4).tolist() == [[0, 0.75, 0.25, 0], [0, 0, 0, 0]]
    assert best_scores([], 4).shape == (0, 4)
    with pytest.raises(ValueError, match=r"labels 1\.\.2"):
        best_scores([found], 2)


def test_a_labelled_class_is_present_and_an_unexhaustive_one_unknown():
    box, label = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([1])
    crowd, part = torch.tensor([True]), torch.tensor([True, False, False])
    image = torch.zeros(1, 8, 8)
    truth = [
        Scene(image, "all", boxes=box, labels=label, ignore=crowd),
        Scene(image, "some", boxes=box, labels=label, exhaustive=part),
    ]
    present, known = present_classes(truth, 3)
    assert present.tolist() == [[False, True, False]] * 2
    assert known.tolist() == [[True] * 3, [True, True, False]]
