"""Figures at every threshold: what a page counts is what the evaluators count, whatever the threshold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from boresight.core.types import Detections, Points, Scene
from boresight.evaluate.box_threshold import per_image_counts
from boresight.evaluate.rows import match_table
from boresight.report import live
from boresight.report.live import live_boxes, live_points, live_table

THRESHOLDS = (0.0, 0.1, 0.25, 0.3, 0.5, 0.77, 0.9, 1.0)


def scenes_and_boxes(seed: int = 0, images: int = 6) -> tuple[list[Scene], list[Detections]]:
    """Images with crowded boxes of three classes, one of them a crowd; scores come in steps, so that many are equal."""
    rng = np.random.default_rng(seed)
    scenes, found = [], []
    for k in range(images):
        corner = torch.from_numpy(rng.uniform(0, 40, (5, 2))).float()
        boxes, labels = torch.cat((corner, corner + 14), 1), torch.from_numpy(rng.integers(0, 3, 5))
        ignore = torch.zeros(5, dtype=torch.bool)
        ignore[0] = True
        scenes.append(Scene(torch.zeros(3, 60, 60), f"s{k}", k, boxes=boxes, labels=labels, ignore=ignore))
        guess = boxes.repeat(4, 1) + torch.from_numpy(rng.normal(0, 2, (20, 4))).float()
        guess = torch.cat((guess[:, :2], torch.maximum(guess[:, 2:], guess[:, :2] + 1)), 1)
        score = torch.from_numpy(rng.integers(0, 12, 20) / 11).float()
        label = torch.where(torch.from_numpy(rng.uniform(size=20) < 0.3), 0, labels.repeat(4))
        found.append(Detections(guess, score, label, torch.arange(20)))
    return scenes, found


def test_boxes_are_counted_as_the_evaluation_counts_them():
    scenes, found = scenes_and_boxes()
    table = live_boxes(scenes, found, 3, 0.3)
    assert table.totals["truths"].sum() == 24
    for threshold in THRESHOLDS:
        tp, fp, fn = per_image_counts(scenes, found, threshold).sum(0).tolist()
        now = table.at(threshold)
        assert (now["hit"], now["false"], 24 - now["hit"]) == (tp, fp, fn)


def test_a_thinned_table_is_exact_where_it_says_so(monkeypatch):
    monkeypatch.setattr(live, "ROWS", 20)
    monkeypatch.setattr(live, "FEWEST_LEVELS", 4)
    scenes, found = scenes_and_boxes(1, images=30)
    threshold = 0.31
    table = live_boxes(scenes, found, 3, threshold)
    assert 0 < len(table.score) <= 60
    assert any(abs(g - threshold) < 1e-6 for g in table.grid)
    assert len(table.grid) >= 4
    for value in table.grid:
        tp, fp, _ = per_image_counts(scenes, found, value).sum(0).tolist()
        now = table.at(value)
        assert (now["hit"], now["false"]) == (tp, fp)
    for label in range(3):
        own = [d.select(d.labels == label) for d in found]
        hits = [table.steps["hit"][(table.label == label) & (table.score >= g)].sum() for g in table.grid[:1]]
        assert hits == [per_image_counts(scenes, own, table.grid[0]).sum(0)[0]]


@pytest.mark.parametrize("seed", range(4))
def test_points_are_counted_as_the_matcher_counts_them(seed):
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(5):
        xy = torch.from_numpy(rng.uniform(0, 14, (5, 2))).float()
        truth.append(Points.of(xy, ignore=torch.tensor([True, False, False, False, False])))
        score = torch.from_numpy(rng.integers(0, 12, 18) / 11).float()
        found.append(Detections.at(torch.from_numpy(rng.uniform(0, 14, (18, 2))).float(), score))
    table = live_points(truth, found, 1, 0.3, 3.0)
    for threshold in THRESHOLDS:
        rows, missed = match_table(truth, found, threshold=threshold)
        kinds = [r.kind for r in rows]
        now = table.at(threshold)
        assert now["hit"] == kinds.count("hit")
        assert now["false"] == kinds.count("false_alarm") + kinds.count("duplicate")
        assert table.totals["truths"].sum() - now["hit"] == len(missed)


def test_a_score_of_single_precision_passes_its_own_decimal():
    score, one = np.array([0.9, 0.3], np.float32), {"hit": np.ones(2, np.int64)}
    table = live_table(score, np.zeros(2, np.int64), one, {"truths": np.array([2])}, 0.5)
    assert [table.at(t)["hit"] for t in (0.9, 0.9000001, 0.3)] == [1, 0, 2]
    told = json.loads(json.dumps(table.to_dict()))
    assert told["score"] == [0.9, 0.3]
    assert np.float32(told["score"][0]) == score[0]


def test_rows_that_change_nothing_are_left_out():
    steps = {"hit": np.array([0, 1, 0]), "false": np.array([0, 0, 1])}
    table = live_table(np.array([0.9, 0.2, 0.5]), np.array([0, 0, 1]), steps, {"truths": np.array([1, 0])}, 0.5)
    assert table.score.tolist() == [0.5, 0.2]
    assert table.label.tolist() == [1, 0]


def test_nothing_found():
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0).long())
    scene = Scene(torch.zeros(3, 8, 8), "s", boxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    table = live_boxes([scene], [none], 2, 0.5)
    assert table.at(0.0) == {"hit": 0.0, "false": 0.0}
    assert table.to_dict()["score"] == []
