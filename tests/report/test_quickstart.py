from dataclasses import replace

import pytest

from boresight.core.errors import UserError
from boresight.report.quickstart import WAYS, as_table, explanation, quickstart, quickstart_settings


def figures(half, f1):
    row = {"f1_at_half": half, "f1": f1, "threshold": 0.1, "false_alarms_per_frame": 0.5, "cls_loss": 0.0012}
    return row | {"positive_rate": 1e-3}


def test_the_three_ways_differ_in_label_and_loss_alone():
    soft = quickstart_settings("soft", 3)
    for way in WAYS:
        own = quickstart_settings(way, 3)
        assert replace(own, target=soft.target, loss=soft.loss) == soft
    assert quickstart_settings("hard", 3).loss.per == "cells"
    assert quickstart_settings("hard_focal", 3).loss.per == "objects"
    assert quickstart_settings("hard", 3).train.seed == 3


def test_the_story_is_told_from_the_figures():
    told = explanation({"hard": figures(0.0, 0.6), "hard_focal": figures(0.8, 0.85), "soft": figures(0.9, 0.92)})
    assert "one cell in 1,000" in told
    assert "finds nothing" in told
    assert "its scores only rank" in told
    assert "repair" in told
    assert "+0.90" in told


def test_the_story_does_not_claim_a_repair_that_did_not_happen():
    told = explanation({"hard": figures(0.8, 0.8), "hard_focal": figures(0.8, 0.8), "soft": figures(0.81, 0.82)})
    assert "repair" not in told
    assert "nearly optimal" not in told
    assert "reaches F1 0.80" in told


def test_the_table_shows_a_dash_for_what_is_undefined():
    table = as_table({"hard": figures(None, None), "hard_focal": figures(0.8, 0.8), "soft": figures(0.9, 0.9)})
    assert table.splitlines()[1].split()[1:3] == ["-", "-"]
    assert len({len(line) for line in table.splitlines()}) == 1


def test_a_negative_seed_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="--seed -1"):
        quickstart(tmp_path / "q", seed=-1)
    assert not list(tmp_path.iterdir())
