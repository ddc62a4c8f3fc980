from __future__ import annotations

import pytest

from boresight.core.errors import UserError
from boresight.run import engine
from boresight.run.config import TrainSettings
from boresight.run.engine import check_trackers, open_accelerator


def test_a_batch_must_be_a_multiple_of_the_passes(tmp_path):
    with pytest.raises(UserError, match=r"`train\.batch` = 6.*multiple.*= 4"):
        open_accelerator(TrainSettings(batch=6, accumulate=4), tmp_path)
    assert open_accelerator(TrainSettings(batch=8, accumulate=4), tmp_path).gradient_accumulation_steps == 4


def test_trackers_that_are_not_there():
    check_trackers(())
    with pytest.raises(UserError, match=r"`train\.trackers` = wandbb: not known: did you mean `wandb`"):
        check_trackers(["wandbb"])


def test_a_tracker_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(engine, "get_available_trackers", list)
    with pytest.raises(UserError, match=r"`train\.trackers` = wandb: not installed"):
        check_trackers(["wandb"])
