from __future__ import annotations

import pytest
from torch import nn

from boresight.run.config import TrainSettings
from boresight.run.optimise import MovingAverage, optimiser_and_rate, parameter_groups, rate_share

PLAN = {"steps": 12, "warmup": 4, "final": 0.2}


def test_the_rate_by_hand():
    """Quarters up to 1; from step 4 half a cosine over eight steps: 1, half way down at 8, the last share at 12."""
    assert [rate_share(step, **PLAN) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rate_share(8, **PLAN) == pytest.approx(0.6)
    assert rate_share(6, **PLAN) == pytest.approx(0.2 + 0.8 * (1 + 2**-0.5) / 2)
    assert rate_share(12, **PLAN) == pytest.approx(0.2)
    assert rate_share(99, **PLAN) == pytest.approx(0.2)  # a run that is given more steps passes by


def test_the_rate_without_a_warm_up_or_with_nothing_else():
    assert rate_share(0, steps=10, warmup=0, final=0.0) == 1.0
    assert [rate_share(step, steps=2, warmup=2, final=0.5) for step in range(3)] == [0.5, 1.0, 1.0]
    assert rate_share(3, steps=2, warmup=2, final=0.5) == pytest.approx(0.5)


def test_the_optimiser_starts_at_the_first_share():
    settings = TrainSettings(steps=12, warmup=4, final=0.2, learning_rate=0.1, weight_decay=0.3)
    optimiser, rate = optimiser_and_rate(nn.Linear(2, 1), settings)
    seen = []
    for _ in range(5):
        seen.append(rate.get_last_lr()[0])
        optimiser.step()
        rate.step()
    assert seen == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.3, 0.0]


@pytest.mark.parametrize(("updates", "moved"), [(1, 1 - 2 / 11), (1000, 0.1)])  # 1001 / 1010 > 0.9: the decay asked for
def test_the_average_of_weights_starts_short_and_decays(updates, moved):
    model = nn.Linear(1, 1, bias=False)
    average = MovingAverage(model, 0.9)
    nn.init.zeros_(average.module.weight)
    nn.init.ones_(model.weight)
    average.n_averaged.fill_(updates)
    average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(moved)
    assert model.weight.item() == 1.0
    assert int(average.n_averaged) == updates + 1


def test_the_average_has_the_buffers_of_the_model():
    model = nn.BatchNorm1d(1)
    average = MovingAverage(model, 0.9)
    for mean in (2.0, 5.0):
        model.running_mean.fill_(mean)
        average.update_parameters(model)
        assert average.module.running_mean.item() == mean


def test_the_count_of_updates_stays_on_the_cpu():
    average = MovingAverage(nn.Linear(1, 1), 0.9).to("meta")
    assert average.module.weight.device.type == "meta"
    assert average.n_averaged.device.type == "cpu"


def test_the_average_begins_with_the_first_weights():
    model = nn.Linear(1, 1, bias=False)
    average = MovingAverage(model, 0.9)
    seen = []
    for value in (4.0, 8.0):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        seen.append(average.module.weight.item())
    assert seen == pytest.approx([4.0, 2 / 11 * 4.0 + 9 / 11 * 8.0])


def test_biases_and_norms_do_not_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    decaying, free = parameter_groups(model, 0.1)
    assert [tuple(p.shape) for p in decaying["params"]] == [(2, 1, 3, 3)]
    assert len(free["params"]) == 3
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_frozen_weights_are_left_out():
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(model, 0.1)] == [0, 1]
