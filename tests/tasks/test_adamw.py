"""The step that other optimizers share is torch's own, to the bit, and leaves the same state."""

from __future__ import annotations

import pytest
import torch
from torch.optim import AdamW, Optimizer

from genomamba.tasks.shards import ShardedAdamW


@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_steps_are_those_of_torch(fused: bool | None, device: str) -> None:
    def trained(kind: type[AdamW]) -> tuple[list[torch.Tensor], Optimizer]:
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(size, device=device)) for size in ((5, 3), (7,), (2, 2))]
        groups = [{"params": weights[:1], "weight_decay": 0.3}, {"params": weights[1:], "weight_decay": 0.0}]
        optimizer = kind(groups, lr=0.1, betas=(0.8, 0.9), fused=fused)
        for _ in range(4):
            for weight in weights[:2]:  # the last has no gradient
                weight.grad = torch.randn(weight.shape, device=device)
            optimizer.step()
            for group in optimizer.param_groups:
                group["lr"] *= 0.7  # as a schedule does
        return weights, optimizer

    weights, optimizer = trained(ShardedAdamW)
    expected, theirs = trained(AdamW)
    for weight, other in zip(weights, expected, strict=True):
        assert torch.equal(weight, other)
    state, other_state = optimizer.state_dict(), theirs.state_dict()
    assert state["param_groups"] == other_state["param_groups"]
    assert state["state"].keys() == other_state["state"].keys() == {0, 1}
    for number, own in state["state"].items():
        assert own.keys() == other_state["state"][number].keys()
        for name, value in own.items():
            assert torch.equal(value, other_state["state"][number][name])


def test_a_closure_is_called_with_gradients() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = ShardedAdamW([weight], lr=0.1)

    def closure() -> torch.Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 3
    assert weight.detach().tolist() == pytest.approx([0.899] * 3)
