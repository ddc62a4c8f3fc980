from __future__ import annotations

import math

import pytest
import torch
from accelerate import Accelerator

from boresight.core.errors import Failure
from boresight.core.types import DenseTargets
from boresight.run.logbook import Logbook, LoopState, target_numbers
from boresight.run.record import RunFolder, read_parquet


def targets_of(cells: list[list[int]], labels: list[int], counted: list[bool]) -> DenseTargets:
    """Two classes on a 1 x 3 map; ``cells`` holds, class by class, the object of each cell, -1 for none."""
    matched = torch.tensor(cells).reshape(1, 2, 1, 3)
    return DenseTargets(
        positive=matched >= 0,
        matched=matched,
        score=torch.where(matched >= 0, 0.75, 0.0),
        ignore=torch.zeros(1, 2, 1, 3, dtype=torch.bool),
        objects=torch.zeros(len(labels), 4),
        labels=torch.tensor(labels, dtype=torch.long),
        counted=torch.tensor(counted, dtype=torch.bool),
        normaliser=torch.tensor(float(sum(counted))),
    )


# Objects: 0 (ship) has two cells, 1 (ship) none, 2 (buoy) one, 3 (buoy) is a don't-care with none.
TARGETS = targets_of([[0, 0, -1], [-1, 2, -1]], [0, 0, 1, 1], [True, True, True, False])
NOTHING = targets_of([[-1, -1, -1], [-1, -1, -1]], [], [])


ONE_CHANNEL = DenseTargets(  # as a refiner's: the boxes of object 0 (ship) have two cells, of 1 and 2 (buoys) one each
    positive=torch.tensor([[[[True, True, True, True, False]]]]),
    matched=torch.tensor([[[[0, 0, 1, 2, -1]]]]),
    score=torch.ones(1, 1, 1, 5),
    ignore=torch.zeros(1, 1, 1, 5, dtype=torch.bool),
    objects=torch.zeros(3, 4),
    labels=torch.tensor([0, 1, 1]),
    counted=torch.ones(3, dtype=torch.bool),
    normaliser=torch.tensor(3.0),
)


@pytest.fixture
def log(tmp_path) -> Logbook:
    return Logbook(RunFolder(tmp_path), Accelerator(cpu=True), LoopState(2), ("ship", "buoy"))


def add(log: Logbook, step: int, *losses: float, cls: float = 0.0) -> None:
    """A step of as many passes as there are losses; each has 2 positives."""
    parts = [
        {"loss_place": torch.tensor(v), "loss_cls": torch.tensor(cls), "positives": torch.tensor(2.0)} for v in losses
    ]
    log.add({"step": step, "epoch": 0}, parts, {"gradient_norm": torch.tensor(1.5), "time_data": 0.25})


def test_columns_by_hand():
    numbers = {k: v.item() for k, v in target_numbers(TARGETS).items()}
    assert numbers == {"positives": 3.0, "objects": 3.0, "positive_rate": 0.5, "positive_mass": 2.25}


def test_an_epoch_by_hand(log):
    for targets in (TARGETS, NOTHING, TARGETS):
        log.count(targets)
    log.close_epoch(4)
    ship = {"class": "ship", "positives": 4, "objects": 4, "positives_per_object": 1.0, "objects_with_none": 2}
    buoy = {"class": "buoy", "positives": 2, "objects": 2, "positives_per_object": 1.0, "objects_with_none": 0}
    assert log.target_rows == [{"epoch": 4} | ship, {"epoch": 4} | buoy]
    log.count(ONE_CHANNEL)
    log.close_epoch(4)
    assert [(r["class"], r["positives"], r["objects"]) for r in log.target_rows[2:]] == [("ship", 2, 1), ("buoy", 2, 2)]
    log.count(NOTHING)
    log.close_epoch(5)  # the tally has begun anew
    assert [(r["epoch"], r["positives"], r["objects"]) for r in log.target_rows[4:]] == [(5, 0, 0)] * 2
    assert log.target_rows[4]["positives_per_object"] is None


def test_losses_are_averaged_and_counts_added_over_the_passes(log):
    add(log, 1, 0.25, 0.75, cls=0.125)
    assert log.rows == []  # it waits on the device
    log.flush()
    (row,) = log.rows
    assert row == {
        "step": 1, "epoch": 0, "loss_place": 0.5, "loss_cls": 0.125, "positives": 4.0, "gradient_norm": 1.5,
        "time_data": 0.25, "loss": 0.625,
    }  # fmt: skip
    log.flush()
    assert len(log.rows) == 1


def test_the_recent_loss_and_a_judgement(log):
    assert log.recent_loss() == 0.0
    log.amend({"val_f1": 0.5})  # no row, nothing to say it of
    for step in range(1, 26):
        add(log, step, 100.0 if step <= 5 else float(step))
    log.flush()
    assert log.recent_loss() == pytest.approx(sum(range(6, 26)) / 20)
    log.amend({"val_f1": 0.5})
    assert [row.get("val_f1") for row in log.rows[-2:]] == [None, 0.5]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_its_step(log, value):
    add(log, 1, 0.5)
    add(log, 2, value)
    with pytest.raises(Failure, match=rf"^step 2: loss_place is {value} \(gradient norm 1\.5\); lower train\.learning"):
        log.flush()
    assert log.rows == []


def test_what_was_written_is_taken_up_to_the_state(log):
    """Rows after the state are made again; so is an epoch that the state stands in."""
    for step in (1, 2, 3):
        add(log, step, 0.5)
    log.flush()
    log.close_epoch(0)
    log.close_epoch(1)
    log.write()
    assert [r["step"] for r in read_parquet(log.run.metrics)] == [1, 2, 3]
    again = Logbook(log.run, log.accelerator, LoopState(2), log.classes)
    again.state.step = 2
    again.resume(1)
    assert again.rows == log.rows[:2]
    assert again.target_rows == log.target_rows[:2]
    assert {r["epoch"] for r in again.target_rows} == {0}


def test_writing_keeps_the_tally_of_an_open_epoch(log):
    log.count(TARGETS)
    log.write()
    assert log.state.tally.tolist() == [[2, 1], [2, 1], [1, 0]]
    assert LoopState(2).tally.tolist() == [[0, 0]] * 3


def test_a_state_is_what_it_was(log):
    log.count(TARGETS)
    log.state.step, log.state.best = 7, 0.5
    other = LoopState(2)
    other.load_state_dict(log.state.state_dict())
    assert (other.step, other.best, other.best_step) == (7, 0.5, -1)
    assert torch.equal(other.tally, log.state.tally)
