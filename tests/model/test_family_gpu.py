"""The family's laws on a GPU, in Triton: step = scan = stream, padding, packing, and the originals' logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_cases import ALL, CAUSAL, bases, build, close
from safetensors.torch import load_file
from torch import Tensor

import genomamba
from genomamba.genome import alphabet
from genomamba.interop.importing import import_model
from genomamba.model.backbone import LanguageModel
from genomamba.model.recurrence import prefill, step, stream

pytestmark = pytest.mark.gpu

GOLDEN = Path(__file__).parents[1] / "golden"
DEVICE = torch.device("cuda")


@pytest.fixture(autouse=True)
def _fp32_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def agree(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def on_gpu(name: str) -> LanguageModel:
    return build(ALL[name]).to(DEVICE)


def some(*shape: int) -> Tensor:
    return bases(*shape).to(DEVICE)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("size", [1, 7, 64, 4096, None])
@torch.no_grad()
def test_streams_equal_the_whole(name: str, size: int | None) -> None:
    model = on_gpu(name)
    ids = some(2, 150 if size in (1, 7) else 4500)
    whole, last = model.backbone(ids)
    state, pieces = None, []
    for chunk in ids.split(size or ids.shape[1], 1):
        piece, state = model.backbone(chunk, state)
        pieces.append(piece)
    agree(torch.cat(pieces, 1), whole)
    close(state, last)
    agree(torch.cat(list(stream(model, ids.split(size or ids.shape[1], 1))), 1), model(ids))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_steps_equal_the_scan(name: str) -> None:
    model, ids = on_gpu(name), some(2, 90)
    at = prefill(model, ids[:, :11])  # type: ignore[arg-type]
    for t in range(11, 90):
        at = step(model, ids[:, t], at.state)  # type: ignore[arg-type]
    whole, last = model.backbone(ids)
    close(at.state, last)
    agree(at.logits, model.lm_head(whole[:, -1]))


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_packing_equals_separate_sequences(name: str) -> None:
    model, first, second = on_gpu(name), some(1, 230), some(1, 381)
    reset = torch.zeros(1, 611, dtype=torch.bool, device=DEVICE)
    reset[0, 230] = True
    packed = model(torch.cat([first, second], 1), reset)
    agree(packed, torch.cat([model(first), model(second)], 1))


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_right_padding_and_batch_neighbours_change_nothing(name: str) -> None:
    model, ids = on_gpu(name), some(1, 310)
    padded = torch.cat([ids, torch.full((1, 160), alphabet.PAD, dtype=torch.uint8, device=DEVICE)], 1)
    batch = torch.cat([some(1, 470), padded, some(1, 470)])
    among = model(batch, length=torch.tensor([470, 310, 400], device=DEVICE))[1:2, :310]
    agree(among, model(ids))


@pytest.mark.parametrize("name", ALL)
def test_values_and_gradients_are_those_of_the_equations(name: str) -> None:
    model, ids = on_gpu(name).train(), some(2, 70)  # cuDNN's GRU has no gradient in evaluation
    exact = build({**ALL[name]})
    exact.load_state_dict(model.state_dict())
    along = torch.randn(*ids.shape, model.config.padded_vocab_size)
    found = model(ids)
    expected = exact.double()(ids.cpu())
    agree(found.detach().cpu(), expected.detach().float())
    mine = torch.autograd.grad(found, list(model.parameters()), along.to(DEVICE))
    theirs = torch.autograd.grad(expected, list(exact.parameters()), along.double())
    for g, e in zip(mine, theirs, strict=True):
        assert (g.cpu().double() - e).norm() <= 1e-3 * e.norm() + 1e-6


@pytest.mark.parametrize("name", ["mamba1", "mamba2", "caduceus_ps", "caduceus_ps_fused"])
@torch.no_grad()
def test_logits_equal_the_originals(name: str) -> None:
    golden = load_file(GOLDEN / f"{name}.safetensors")
    model = genomamba.load_model(GOLDEN / f"{name}.safetensors").to(DEVICE)
    logits = model(golden["__ids"].to(DEVICE)).cpu()
    assert (logits - golden["__logits"]).abs().max() < 1e-4


@torch.no_grad()
def test_mamba2_in_triton_gives_the_originals_exact_logits() -> None:
    """Without the original's rounding, which the kernels have not."""
    path = GOLDEN / "mamba2.safetensors"
    ids = bases(2, 300).long()
    model = import_model(path, ["ssm_cfg.tf32=false"]).model.to(DEVICE)
    exact = import_model(path, impl="reference").model.double()
    assert (model(ids.to(DEVICE)).cpu() - exact(ids).float()).abs().max() < 2e-5
