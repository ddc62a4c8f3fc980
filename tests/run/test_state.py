"""A training state on the disk is read as weights only; what is none is refused in one line."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from boresight.core.errors import UserError
from boresight.run.point import POINT
from boresight.run.record import RunFolder
from boresight.run.train import train


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def state(tiny, tmp_path):
    """The folder of the last state of a run that is not finished."""
    train(POINT, tiny(), tmp_path, quiet=True)
    (tmp_path / "done.json").unlink()
    return RunFolder(tmp_path).states()[-1]


def refused(tiny, state) -> str:
    with pytest.raises(UserError, match="the training state cannot be read") as caught:
        train(POINT, tiny(), state.parents[1], quiet=True)
    line = str(caught.value)
    assert "\n" not in line
    assert str(state) in line
    return line


FILES = ("part-0.pt", "optimizer.bin", "scheduler.bin")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("bare", [True, False])
def test_a_state_runs_no_code(name, bare, state, tiny, tmp_path):
    evil = Evil(tmp_path / "made by a pickle")
    if bare:
        (state / name).write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save({"step": evil}, state / name)
    refused(tiny, state)
    assert not (tmp_path / "made by a pickle").exists()


@pytest.mark.parametrize("name", ["model.safetensors", *FILES])
@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 1000])
def test_a_damaged_state_is_named(name, content, state, tiny):
    (state / name).write_bytes(content)
    refused(tiny, state)


@pytest.mark.parametrize(
    "change",
    [{"step": "6"}, {"tally": torch.zeros(3, 9, dtype=torch.long)}, {"best": None}, {"seconds": torch.ones(1)}],
)
def test_what_the_loop_remembers_is_of_its_kind(change, state, tiny):
    kept = torch.load(state / "part-0.pt", weights_only=True)
    torch.save(kept | change, state / "part-0.pt")
    refused(tiny, state)


def test_a_part_that_is_missing_is_named(state, tiny):
    (state / "part-0.pt").unlink()
    refused(tiny, state)
