from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import boresight
from boresight.core.device import sent
from boresight.core.types import Detections


class Spy(torch.Tensor):
    """Remembers with which arguments it was sent where."""

    asked: list[bool] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to:
            cls.asked.append(bool((kwargs or {}).get("non_blocking", False)))
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize(("device", "waits"), [("cpu", True), (torch.device("cpu"), True), ("meta", False)])
def test_only_the_way_to_the_cpu_is_waited_for(device, waits):
    """A copy to the CPU that is not waited for is read before it arrives: rubbish on a GPU, and no error."""
    Spy.asked = []
    assert sent(torch.ones(2).as_subclass(Spy), device).device == torch.device(device)
    assert Spy.asked == [not waits]


def test_what_passes_between_folders_is_sent_so():
    Spy.asked = []
    spied = [torch.ones(shape).as_subclass(Spy) for shape in ((1, 4), (1,))]
    Detections(spied[0], spied[1], torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)).to("cpu")
    assert Spy.asked == [False, False]


def test_nobody_else_sends_without_waiting():
    source = Path(boresight.__file__).parent
    loose = [p for p in source.rglob("*.py") if re.search(r"non_blocking\s*=\s*True", p.read_text(encoding="utf-8"))]
    assert not loose
