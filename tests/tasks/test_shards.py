"""Two ranks with parts of a model take the steps of one device that has it whole."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.tasks.config import OptimizerConfig
from genomamba.tasks.optimizer import make_optimizer
from genomamba.tasks.pretrain import PretrainTask
from genomamba.tasks.shards import AT_ONCE, ShardedAdamW, clip_sharded, own_parts, shard

CLIP, STEPS = 0.5, 3  # the first norms are several times as large


def small_model() -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(ModelConfig(d_model=8, n_layer=3, d_state=2))


def windows(step: int) -> torch.Tensor:
    return torch.randint(alphabet.A, alphabet.T + 1, (4, 20), generator=torch.Generator().manual_seed(step))


def follow(rank: int, folder: Path, at_once: int, fused: bool) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = small_model()
    shard(model, init_device_mesh("cpu", (2,)), at_once)
    optimizer, _ = make_optimizer(model, OptimizerConfig(lr=0.01, warmup=0), STEPS)
    assert isinstance(optimizer, ShardedAdamW)
    for group in optimizer.param_groups:
        group["fused"] = fused  # as on a GPU
    norms = []
    for step in range(STEPS):
        (-2 * model.log_likelihood(windows(step)[2 * rank : 2 * rank + 2]).sum()).backward()  # ranks are averaged
        norms.append(clip_sharded(model.parameters(), CLIP))
        optimizer.step()
        optimizer.zero_grad()
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    found = {
        "units": sum(isinstance(module, FSDPModule) for module in model.modules()),
        "sharded": all(isinstance(tensor, DTensor) for tensor in (*model.parameters(), *moments)),
        "own": sum(part.numel() for part in own_parts(model.parameters())),
        "norms": torch.stack(norms),
        "weights": get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)),
    }
    torch.save(found, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()
    os._exit(0)  # as our ranks do: a thread of the process group that ends late would abort the interpreter's end


@pytest.mark.parametrize(("at_once", "units", "fused"), [(AT_ONCE, 1, True), (0, 4, False)])
def test_steps_on_parts_are_those_of_one_device(at_once: int, units: int, fused: bool, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=follow, args=(rank, tmp_path, at_once, fused)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=120)
    assert [process.exitcode for process in ranks] == [0, 0]
    found = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]

    model = small_model()
    optimizer, _ = make_optimizer(model, OptimizerConfig(lr=0.01, warmup=0), STEPS)
    assert type(optimizer) is AdamW
    norms = []
    for step in range(STEPS):
        (-model.log_likelihood(windows(step)).sum()).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP))
        optimizer.step()
        optimizer.zero_grad()
    assert min(norms) > 2 * CLIP
    assert sum(one["own"] for one in found) == sum(parameter.numel() for parameter in model.parameters())
    for one in found:
        assert one["units"] == units
        assert one["sharded"]
        torch.testing.assert_close(one["norms"], torch.stack(norms), rtol=1e-5, atol=0)
    for name, weight in found[0]["weights"].items():
        torch.testing.assert_close(weight, model.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def test_gradients_within_the_norm_stay_as_they_are(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        parameter = torch.nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor([3.0, 4.0])
        assert clip_sharded([parameter], 5.1) == 5.0
        assert parameter.grad.tolist() == [3.0, 4.0]
        clip_sharded([parameter], 1.0)
        torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))
    finally:
        distributed.destroy_process_group()


def test_a_sharded_task_clips(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = small_model()
        shard(model, init_device_mesh("cpu", (1,)))
        task = PretrainTask(model, OptimizerConfig(), STEPS, batch_size=4, window=20)
        optimizer, _ = make_optimizer(model, OptimizerConfig(), STEPS)
        (-model.log_likelihood(windows(0)).sum()).backward()
        task.configure_gradient_clipping(optimizer, CLIP)
        parts = own_parts(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
        torch.testing.assert_close(torch.nn.utils.get_total_norm(parts), torch.tensor(CLIP))
    finally:
        distributed.destroy_process_group()
