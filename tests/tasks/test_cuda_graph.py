"""A step replayed as CUDA graphs is the plain step, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.tasks.cuda_graph import MOST_TOKENS, GraphedLoss, worth_a_graph


@pytest.mark.gpu
@pytest.mark.parametrize(("mixer", "parts"), [("mamba", 1), ("mamba2", 1), ("attention", 1), ("mamba", 3)])
def test_three_steps_are_those_of_the_plain_call(mixer: str, parts: int) -> None:
    config = ModelConfig(d_model=64, n_layer=2, layers=mixer, headdim=32)

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
        # Another shape takes the plain way.
        seen.append(loss(ids[:, :50], torch.ones(4, 49, device="cuda")).detach())
        return [*seen, *(p.detach() for p in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))


def test_which_steps_are_worth_it() -> None:
    small = ModelConfig(d_model=8, n_layer=1)
    assert worth_a_graph(CausalLM(small), MOST_TOKENS)
    assert not worth_a_graph(CausalLM(small), MOST_TOKENS + 1)
    assert not worth_a_graph(nn.Sequential(CausalLM(small), nn.Dropout(0.1)), 10)
    assert not worth_a_graph(CausalLM(ModelConfig(d_model=8, n_layer=1, drop_path=0.1)), 10)
