"""Parameter groups and the schedule."""

from __future__ import annotations

import pytest
import torch

from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.optimizer import make_optimizer, parameter_groups


def test_only_matrices_decay() -> None:
    model = CausalLM(ModelConfig(d_model=16, n_layer=1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)].split(".")[-2:][0] + "." + names[id(p)].split(".")[-1] for p in g["params"]}
                       for g in parameter_groups(model, 0.1))  # fmt: skip
    assert decayed == {"in_proj.weight", "conv1d.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight"}
    assert spared == {
        "embedding.weight", "norm.weight", "norm_f.weight", "mixer.A_log", "mixer.D", "conv1d.bias", "dt_proj.bias",
    }  # fmt: skip


def test_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    model = torch.nn.Linear(1, 1)
    optimizer, schedule = make_optimizer(model, OptimizerConfig(lr=1.0, warmup=0.1, final=0.1), steps=100)
    rates = []
    for _ in range(101):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)


def test_the_schedule_of_a_run_that_time_may_end_never_lags_behind_the_clock() -> None:
    model, now = torch.nn.Linear(1, 1), [0.0]
    config = OptimizerConfig(lr=1.0, warmup=0.1, final=0.1)
    optimizer, schedule = make_optimizer(model, config, 100, clock=lambda: now[0])
    rates = []
    for now[0] in (0.0, 0.05, 0.55, 1.5):  # of the time
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert rates == pytest.approx([0.2, 0.6, 0.55, 0.1])
