"""A table of a training as arrays: what is there, what is missing, and what is no number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boresight.diagnose.steps import NotFinite, StepLog, Steps, Validation, middle

ROWS = [
    {"step": 1, "epoch": 0, "loss": 3.0, "loss_cls": 2.0, "loss_l1": 1.0, "gradient_norm": 4.0, "val_f1": None},
    {"step": 2, "epoch": 0, "loss": 2.0, "loss_cls": 1.5, "loss_l1": 0.5, "gradient_norm": None, "val_f1": None},
    {"step": 3, "epoch": 1, "loss": 1.0, "loss_cls": 0.5, "loss_l1": 0.5, "gradient_norm": 2.0, "val_f1": 0.4}
    | {"val_threshold": 0.2, "val_f1_at_half": 0.1, "unknown": 7.0},
]


def test_columns_are_arrays():
    steps = Steps.of(ROWS, "f1")
    assert len(steps) == 3
    assert steps.step.tolist() == [1, 2, 3]
    assert steps.loss is not None
    assert steps.loss.tolist() == [3, 2, 1]
    assert {t.name: t.values.tolist() for t in steps.terms} == {"cls": [2, 1.5, 0.5], "l1": [1, 0.5, 0.5]}
    assert [t.of_scores for t in steps.terms] == [True, False]
    assert steps.gradient_norm is not None
    assert np.isnan(steps.gradient_norm).tolist() == [False, True, False]
    assert steps.time_data is None
    assert steps.feature_hits is None


def test_judgements_are_read_from_their_rows():
    assert Steps.of(ROWS, "f1").validations == (Validation(3, 0.4, 0.2, 0.1),)
    assert Steps.of(ROWS, "ap50").validations == (Validation(3, None, 0.2, 0.1),)
    assert Steps.of([{"step": 1, "loss": 1.0}], "f1").validations == ()


def test_what_is_no_number_is_named_and_what_is_missing_is_not():
    rows = [{"step": 1, "loss_cls": 1.0, "gradient_norm": None}, {"step": 2, "loss_cls": math.inf}]
    assert Steps.of(rows).not_finite == (NotFinite(2, "loss_cls", math.inf),)


def test_the_loss_is_the_sum_of_its_terms_where_it_is_not_recorded():
    loss = Steps.of([{"step": 1, "loss_a": 1.0, "loss_b": 2.0}]).loss
    assert loss is not None
    assert loss.tolist() == [3.0]


def test_columns_that_begin_late_or_end_early_are_filled_up():
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "feature_hits": 3.0}, {"step": 3, "loss": 2.0, "feature_hits": 4.0}]
    steps = Steps.of(rows)
    assert steps.loss is not None
    assert steps.feature_hits is not None
    assert np.isnan(steps.loss).tolist() == [False, True, False]
    assert np.isnan(steps.feature_hits).tolist() == [True, False, False]


def test_a_log_can_go_on_after_it_was_looked_at():
    log = StepLog("f1")
    for row in ROWS[:2]:
        log.add(row)
    before = log.view()
    log.add(ROWS[2])
    log.judged(ROWS[2])
    assert len(before) == 2
    after = log.view()
    assert after.step.tolist() == Steps.of(ROWS, "f1").step.tolist()
    assert after.validations == Steps.of(ROWS, "f1").validations


def test_steps_without_a_number_are_counted():
    assert Steps.of([{"loss": 1.0}, {"loss": 2.0}]).step.tolist() == [1, 2]


@pytest.mark.parametrize(("values", "expected"), [([3.0, 1.0, 2.0], 2.0), ([math.nan, 5.0], 5.0)])
def test_the_middle_of_what_is_known(values, expected):
    assert middle(np.array(values)) == expected


def test_nothing_has_no_middle():
    assert math.isnan(middle(np.array([math.nan])))
