"""A step replayed as CUDA graphs is the plain step, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genomamba.data.datasets import Batch
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.cuda_graph import MOST_TOKENS, GraphedLoss
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.pretrain import PretrainTask
from genomamba.tasks.time_budget import whole_step


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("mixer", "parts", "random"),
    [
        ("mamba", 1, 0.0),
        ("mamba2", 1, 0.0),
        ("attention", 1, 0.0),
        ("mamba", 3, 0.0),
        ("mamba", 1, 0.3),
        ("mamba", 3, 0.3),
    ],
)
def test_three_steps_are_those_of_the_plain_call(mixer: str, parts: int, random: float) -> None:
    config = ModelConfig(d_model=64, n_layer=2, layers=mixer, headdim=32, dropout=random, drop_path=random)

    def train(graph: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = CausalLM(config).cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

        def plain(ids: Tensor, weight: Tensor) -> Tensor:
            return -(weight * model.log_likelihood(ids)).sum()

        loss = GraphedLoss(plain, model, adds_up=parts > 1) if graph else plain
        seen = []
        for step in range(3):
            optimizer.zero_grad(set_to_none=True)
            for part in range(parts):
                generator = torch.Generator().manual_seed(parts * step + part)
                ids = torch.randint(7, 11, (4, 200), generator=generator).cuda()
                with torch.autocast("cuda", torch.bfloat16):
                    value = loss(ids, torch.ones(4, 199, device="cuda"))
                value.backward()
                seen.append(value.detach().clone())
            optimizer.step()
        # Another shape takes the plain way, from where the numbers now are.
        seen.append(loss(ids[:, :50], torch.ones(4, 49, device="cuda")).detach())
        return [*seen, *(p.detach() for p in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("parts", [1, 2])
def test_steps_on_windows_that_grow_are_those_without_graphs(parts: int) -> None:
    def train(graph: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = CausalLM(ModelConfig(d_model=32, n_layer=2, dropout=0.2))
        sizes = {"batch_size": 2, "window": 256, "accumulate": parts, "cuda_graph": graph}
        task = PretrainTask(model, OptimizerConfig(), 8, **sizes).cuda().train()
        task.graph_short_steps(torch.device("cuda"))
        optimizer, _ = make_optimizer(model, task.optimizer_config, 8)
        seen = []
        for step, rows in enumerate((8, 8, 4, 4, 2, 2)):
            generator = torch.Generator().manual_seed(step)
            ids = torch.randint(7, 11, (rows, 512 // rows), dtype=torch.uint8, generator=generator)
            batch = Batch(ids, torch.ones(ids.shape), []).to(torch.device("cuda"))
            seen.append(whole_step(task, optimizer, batch, torch.device("cuda"), "bf16-mixed"))
        return [*seen, *(p.detach() for p in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))


@pytest.mark.parametrize("adds_up", [False, True])
def test_windows_of_another_length_are_captured_anew(monkeypatch: pytest.MonkeyPatch, adds_up: bool) -> None:
    model = nn.Linear(1, 1)
    captured: list[torch.Size] = []

    def capture(module: nn.Module, inputs: tuple[Tensor, Tensor]) -> Callable[..., Tensor]:
        assert not model.weight._backward_hooks  # they would be captured too
        captured.append(inputs[0].shape)
        torch.rand(3)  # as dropout does
        return lambda ids, weight: module(ids, weight) + 100

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    loss = GraphedLoss(lambda ids, weight: (model.weight * ids * weight).sum(), model, adds_up=adds_up)
    random = torch.get_rng_state()
    short, odd, long = torch.ones(4, 8), torch.ones(3, 8), torch.ones(2, 16)
    seen = []
    for ids, renews in ((short, True), (odd, False), (short, True), (long, True), (long, True)):
        if renews:
            loss.renew_for(ids)
        seen.append(loss(ids, ids).item() > 50)
    assert seen == [True, False, True, True, True]  # odd ones are not replayed
    assert captured == [short.shape, long.shape]
    assert torch.equal(torch.get_rng_state(), random)
    assert len(model.weight._backward_hooks or ()) == adds_up


@pytest.mark.parametrize(
    ("batch_size", "given", "graphed"), [(256, {}, True), (257, {}, False), (2, {"cuda_graph": False}, False)]
)
def test_short_steps_become_graphs_where_wanted(batch_size: int, given: dict[str, bool], graphed: bool) -> None:
    model = CausalLM(ModelConfig(d_model=8, n_layer=1, dropout=0.1, drop_path=0.1))
    task = PretrainTask(model, OptimizerConfig(), 8, batch_size=batch_size, window=MOST_TOKENS // 256, **given)
    task.graph_short_steps(torch.device("cpu"))
    assert task._graphed is None
    task.graph_short_steps(torch.device("cuda"))  # nothing is captured before the first step
    assert (task._graphed is not None) == graphed
