"""Muon is torch's, whatever is stacked; what is beside it is torch's AdamW; both are one optimizer."""

from __future__ import annotations

import copy
import io
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from genomamba.errors import ConfigError
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.muon import MuonAdamW, orthogonalised
from genomamba.tasks.optimizer import make_optimizer

MUON = OptimizerConfig(name="muon", lr=1e-2, warmup=0.5)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def small(layers: str = "mamba", n_layer: int = 2, **more: Any) -> ModelConfig:
    return ModelConfig(d_model=16, n_layer=n_layer, d_state=4, layers=layers, headdim=8, **more)


def names(model: nn.Module) -> dict[int | None, set[str]]:
    """What each kind of group trains: names of weights by how they are stacked, None for AdamW's."""
    optimizer, _ = make_optimizer(model, MUON, 10)
    called = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[int | None, set[str]] = {}
    for group in optimizer.param_groups:
        found.setdefault(group["stacked"], set()).update(called[id(p)] for p in group["params"])
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    assert count == sum(map(len, found.values())) == len(called)  # each once
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "stacked"), [((96, 32), 1), ((32, 64), 1), ((128, 32), 2), ((60, 20), 3)])
def test_steps_are_those_of_torchs_muon(shape: tuple[int, int], stacked: int, device: str) -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, device=device)) for _ in range(3)]
    apart = [nn.Parameter(part.clone()) for parameter in ours for part in parameter.detach().chunk(stacked)]
    groups = [{"params": ours, "weight_decay": 0.1, "stacked": stacked}]
    optimizer = MuonAdamW(groups, lr=0.01, betas=(0.9, 0.95), momentum=0.9, fused=False)
    torchs = torch.optim.Muon(apart, lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for number, parameter in enumerate(ours):
            parameter.grad = torch.randn_like(parameter)
            for part, gradient in zip(apart[number * stacked :], parameter.grad.chunk(stacked), strict=False):
                part.grad = gradient.clone()
        before = ours[0].detach().clone()
        optimizer.step()
        torchs.step()
    moved = (ours[0].detach() - before).square().mean().sqrt().item()
    assert 0.001 < moved < 0.004  # about 0.2 learning rates
    for number, parameter in enumerate(ours):
        theirs = torch.cat(apart[number * stacked : (number + 1) * stacked])
        # A product over the stack may add up in another order, which bf16 shows.
        assert (parameter - theirs).square().mean().sqrt().item() < 0.05 * moved


def test_singular_values_become_about_one_and_zero_stays_zero() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 40, 100) * torch.logspace(0, -1.5, 100)
    matrices[2] = 0
    values = torch.linalg.svdvals(orthogonalised(matrices).float())
    assert 0.6 < values[:2].min() < values[:2].max() < 1.25
    assert not values[2].any()


def test_projections_are_muons_and_all_else_is_adamws() -> None:
    found = names(CausalLM(small(n_layer=1, d_mlp=24)))
    prefix = "backbone.layers.0."
    assert found[2] == {prefix + "mixer.in_proj.weight", prefix + "mlp.fc1.weight"}
    assert found[1] == {prefix + f"{name}.weight" for name in ("mixer.x_proj", "mixer.out_proj", "mlp.fc2")}
    found = names(CausalLM(small("mamba2 attention")))
    assert found[3] == {"backbone.layers.1.mixer.in_proj.weight"}
    assert found[1] == {f"backbone.layers.{i}.mixer.{w}.weight" for i, w in ((0, "in_proj"), (0, "out_proj"),
                                                                             (1, "out_proj"))}  # fmt: skip


@pytest.mark.parametrize(("strategy", "tied"), [("add", True), ("add", False), ("concat", True), ("concat", False)])
def test_both_directions(strategy: str, tied: bool) -> None:
    config = small(n_layer=1, bidirectional=True, bidirectional_strategy=strategy, bidirectional_weight_tie=tied)
    model = MaskedLM(config)
    found = names(model)
    weights = {name for name, _ in model.named_parameters()}
    assert found[2] == {name for name in weights if name.endswith("in_proj.weight")}
    assert found[1] == {name for name in weights if name.endswith(("out_proj.weight", "x_proj.weight"))}


def gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_beside_muon_is_adamw_to_the_bit(device: str) -> None:
    torch.manual_seed(0)
    model = CausalLM(small()).to(device)
    other = copy.deepcopy(model)
    pairs = [make_optimizer(model, MUON, 4), make_optimizer(other, OptimizerConfig(lr=1e-2, warmup=0.5), 4)]
    for step in range(3):
        for of, (optimizer, schedule) in zip((model, other), pairs, strict=True):
            gradients(of, step)
            optimizer.step()
            schedule.step()
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs) == (
            not name.endswith(("in_proj.weight", "x_proj.weight", "out_proj.weight"))
        ), name


@pytest.mark.parametrize("device", DEVICES)
def test_goes_on_from_its_saved_state_to_the_bit(device: str) -> None:
    def trained(model: nn.Module, saved: dict[str, Any] | None, steps: range) -> dict[str, Any]:
        optimizer, schedule = make_optimizer(model, MUON, 6)
        if saved is not None:
            optimizer.load_state_dict(saved["optimizer"])
            schedule.load_state_dict(saved["schedule"])
        for step in steps:
            gradients(model, step)
            optimizer.step()
            schedule.step()
        return {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}

    torch.manual_seed(0)
    model = CausalLM(small()).to(device)
    other = copy.deepcopy(model)
    trained(model, None, range(5))
    stream = io.BytesIO()
    torch.save(trained(other, None, range(2)), stream)
    stream.seek(0)
    trained(other, torch.load(stream, map_location="cpu", weights_only=True), range(2, 5))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


class Calls(TorchDispatchMode):
    """Counts operators; those on a list of tensors count once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Tensor:
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_no_more_operators_for_more_layers() -> None:
    counts = []
    for n_layer in (2, 7):
        model = CausalLM(small(n_layer=n_layer))
        optimizer, _ = make_optimizer(model, MUON, 9)
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["stacked"] is not None]
        for step in range(2):  # the first one makes the state
            gradients(model, step)
            with Calls() as calls:
                optimizer.step()
        counts.append(calls.seen)
    assert counts[0] == counts[1]
    assert counts[0]["aten.baddbmm.default"] == 3 * 10  # three shapes, five iterations


def test_what_muon_cannot_do_is_said() -> None:
    model = CausalLM(small())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("proj" not in name)
    with pytest.raises(ConfigError, match=r"optimizer\.name=muon: it is for the blocks' projections, and none is"):
        make_optimizer(model, MUON, 10)
    with pytest.raises(ConfigError, match=r"optimizer\.momentum=1\.5: it must be between 0 and 1"):
        OptimizerConfig(momentum=1.5)
