"""What the image browser holds: which images, what each mark is at each threshold, and what has changed since."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from boresight.core.types import Detections, Points
from boresight.evaluate.rows import match_table
from boresight.report.browser import Making, browser, script_json, shares
from boresight.report.image_set import chosen_names
from boresight.report.judged_boxes import box_sets
from boresight.report.judged_points import states_of
from boresight.report.reading import FrameStore, read_run
from boresight.run.boxes import box_splits
from boresight.run.record import read_parquet, write_json, write_parquet, write_text
from boresight.run.results import box_results


@pytest.fixture
def judged(make_text, data):
    """A run of `text` with predictions: what its one image's rows say, and a box below the threshold in each image."""
    run = make_text()
    splits = box_splits(data)
    classes = splits.classes + splits.novel
    below = Detections(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0.1]), torch.tensor([1]), torch.tensor([99]))
    ids = [splits.test[i].image_id for i in range(4)]
    results = box_results(ids, [below] * 4, 0.0, range(1, len(classes) + 1))
    write_text(run.predictions, json.dumps(results))
    # the rows of the fixture share a cell; a detector's never do
    rows = [r | {"cell": k if r["kind"] != "missed" else None} for k, r in enumerate(read_parquet(run.matches))]
    write_parquet(run.matches, rows)
    return run


def sets_of(run):
    return box_sets(read_run(run, "words", 0), FrameStore())


def test_a_set_holds_what_passes_and_what_does_not(judged):
    (made,), notes = sets_of(judged)
    assert notes == []
    assert len(made.names) == 4
    rows = read_parquet(judged.matches)
    image = rows[0]["image"]
    assert sorted(m.score for m in made.marks[image])[0] == pytest.approx(0.1)
    assert len(made.marks[image]) == 1 + sum(r["score"] is not None for r in rows)
    kinds = {m.kind for m in made.marks[image]}
    assert {"hit", "duplicate", "wrong_class", "false_alarm"} <= kinds
    assert sum(m.kind == "hit" for m in made.marks[image]) == 1
    assert all(len(made.marks[n]) == 1 for n in made.names if n != image)


def test_counts_that_are_not_the_stored_ones_are_told(judged):
    told = json.loads(judged.evaluation.read_text())
    (made,), _ = sets_of(judged)
    now = made.table.at(made.threshold)
    counts = {"tp": [int(now["hit"])], "fp": [int(now["false"])], "fn": [0]}
    write_json(judged.evaluation, told | {"per_image": counts})
    assert sets_of(judged)[0][0].notes == []
    counts["fp"] = [77]
    write_json(judged.evaluation, told | {"per_image": counts})
    (made,), _ = sets_of(judged)
    assert "77 false alarms stored" in made.notes[0]
    page = browser([read_run(judged, "words", 0)], FrameStore(), Making())
    assert any("evaluate again" in note for note in page.notes)


def test_a_run_that_was_not_judged_has_nothing_to_browse(make_text):
    run = make_text()  # without predictions.json
    page = browser([read_run(run, "words", 0)], FrameStore(), Making())
    assert page.data is None
    assert "`boresight evaluate` writes what is needed" in page.notes[0]


def test_a_detector_that_is_gone_costs_its_maps_alone(judged):
    page = browser([read_run(judged, "words", 0)], FrameStore(), Making())
    assert page.data is not None
    assert any("no class maps and targets" in note for note in page.notes)


def test_half_of_the_images_are_those_with_the_most_errors(judged):
    (made,), _ = sets_of(judged)
    errors = {n: made.errors(n) for n in made.names}
    assert chosen_names([made], 4) == made.names
    chosen = chosen_names([made], 2)
    assert len(chosen) == 2
    assert max(errors, key=lambda n: errors[n]) in chosen
    assert chosen == [n for n in made.names if n in chosen]


def test_what_each_of_several_data_sets_gets_of_the_images():
    assert shares([24, 120], 200) == [24, 120]
    assert shares([24, 1000], 200) == [24, 176]
    assert shares([1000, 1000], 200) == [100, 100]
    assert shares([5], 3) == [3]


def test_no_character_ends_the_script_element():
    text = script_json({"a": "</script><!--&\u2028"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"a": "</script><!--&\u2028"}


@pytest.mark.parametrize("seed", range(6))
def test_a_point_is_at_each_threshold_what_the_matcher_says(seed):
    rng = np.random.default_rng(seed)
    points = Points.of(torch.from_numpy(rng.uniform(0, 12, (4, 2))).float())
    points = replace(points, ignore=torch.tensor([True, False, False, False]))
    score = torch.from_numpy(rng.permutation(16) / 16).float()
    found = Detections.at(torch.from_numpy(rng.uniform(0, 18, (16, 2))).float(), score)
    states = states_of(points, found, 3.0)
    for threshold in (0.0, 0.2, 0.4, 0.6, 0.8):
        rows, _ = match_table([points], [found], threshold=threshold)
        passed = [i for i, s in enumerate(score.tolist()) if s >= threshold]
        for i, row in zip(passed, rows, strict=True):
            now = [s for s in states[i] if s[0] >= threshold][-1]
            assert now[1:3] == (row.kind, row.object)
            assert (now[3] is None) == (row.distance is None)
