"""Decoding: the fused kernels against the model's own step, draws, and what a turn changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genomamba.genome import alphabet
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.model.decoding import FusedDecoder, StepDecoder, blocks_of, can_fuse
from genomamba.model.recurrence import generate, generate_blocks, prefill, step
from genomamba.model.sampling import EVERY_BASE, Sampling

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(layers: str = "mamba", d_model: int = 20, **options: object) -> CausalLM:
    torch.manual_seed(4)
    model = CausalLM(
        ModelConfig(**{"d_model": d_model, "d_state": 5, "layers": layers, "n_layer": len(layers.split()), **options})
    )
    with torch.no_grad():
        model.backbone.embedding.weight.mul_(20)
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval().to(DEVICE)


def bases(*shape: int) -> Tensor:
    return torch.randint(alphabet.A, alphabet.T + 1, shape, device=DEVICE)


@pytest.mark.parametrize("options", [{}, {"d_conv": 3, "conv_bias": False, "dt_rank": 3}, {"d_conv": 1}])
@torch.no_grad()
def test_fused_kernels_give_what_a_step_gives(options: dict[str, object]) -> None:
    model, prompt = build(**options), bases(2, 9)
    at = prefill(model, prompt)
    decoder = FusedDecoder(model, at.logits, at.state, Sampling(), seed=1, stop=())
    for _ in range(5):
        decoder.turn()
        at = step(model, decoder.token, at.state)
        torch.testing.assert_close(decoder.logits, at.logits, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(decoder.carried, at.state, strict=True):
        torch.testing.assert_close(mine.scan, theirs.scan, rtol=1e-4, atol=1e-4)


ROWS, TURNS = (20_000, 3) if DEVICE.type == "cuda" else (120, 2)  # the interpreter takes its time


def frequencies(sampling: Sampling, logits: Tensor) -> Tensor:
    model = build(d_model=8)
    state = prefill(model, bases(1, 3)).state
    decoder = FusedDecoder(model, logits.expand(ROWS, -1).to(DEVICE), state, sampling, seed=7, stop=())
    drawn = []
    for _ in range(TURNS):
        decoder.draw_token()
        drawn.append(decoder.token.clone())
        decoder.number += 1
    return torch.bincount(torch.cat(drawn).cpu(), minlength=16).float() / (ROWS * TURNS)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(temperature=0.5), [0.6849, 0.2466, 0.0616, 0.0068]),
        (Sampling(top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.5), [1, 0, 0, 0]),
        (Sampling(top_p=0.81), [0.5263, 0.3158, 0.1579, 0]),
        (Sampling(temperature=0), [1, 0, 0, 0]),
        (Sampling(temperature=0, allowed=(8, 10)), [0, 1, 0, 0]),
    ],
)
def test_the_kernel_draws_from_the_distribution(sampling: Sampling, expected: list[float]) -> None:
    wanted = torch.tensor(expected, dtype=torch.float32)
    logits = torch.full((1, 16), 9.0)  # of tokens that may not be drawn
    logits[0, 7:11] = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    found = frequencies(sampling, logits)
    assert found.sum() == pytest.approx(1)
    assert found[7:11].sum() == pytest.approx(1)
    torch.testing.assert_close(found[7:11], wanted, rtol=0, atol=2 / (ROWS * TURNS) ** 0.5)
    assert (found[7:11][wanted == 0] == 0).all()


def test_equal_logits_are_ranked_by_id() -> None:
    assert frequencies(Sampling(top_k=1), torch.zeros(1, 16))[7] == 1


@torch.no_grad()
def test_a_seed_fixes_the_tokens_rows_and_turns_differ() -> None:
    model = build(d_model=8)
    at = prefill(model, bases(1, 4).expand(2, 4))

    def tokens(seed: int) -> Tensor:
        decoder = FusedDecoder(model, at.logits, at.state, Sampling(temperature=50), seed, ())
        return torch.cat(list(blocks_of(decoder, 12, 7, graph=False)), 1)

    first = tokens(1)
    assert torch.equal(first, tokens(1))
    assert not torch.equal(first, tokens(2))
    assert not torch.equal(first[0], first[1])
    assert len(set(first[0].tolist())) > 1


def test_which_models_have_kernels() -> None:
    gpu = torch.device("cuda")
    assert can_fuse(build(), gpu)
    assert not can_fuse(build("mamba mamba2", headdim=8), gpu)
    assert not can_fuse(build(d_mlp=8), gpu)
    assert not can_fuse(build(rms_norm=False), gpu)
    assert not can_fuse(build(bias=True), gpu)
    assert not can_fuse(build(vocab_size=100), gpu)
    assert not can_fuse(build(), torch.device("cpu"))


@torch.no_grad()
def test_a_decoder_holds_nothing_of_its_prompt() -> None:
    model = build("mamba mamba2", headdim=8)
    at = prefill(model, bases(2, 300))
    decoder = StepDecoder(model, at.logits, at.state, EVERY_BASE, 0, ())
    held = [b.data_ptr() for b in decoder.buffers()]
    decoder.turn()
    assert [b.data_ptr() for b in decoder.buffers()] == held
    assert all(b.untyped_storage().nbytes() == b.nbytes for b in decoder.buffers())


@pytest.mark.gpu
@pytest.mark.parametrize("layers", ["mamba", "mamba2", "s4d", "gru", "mamba attention"])
def test_graphs_on_a_gpu_take_what_the_whole_sequence_would(layers: str) -> None:
    model, prompt = build(layers, d_model=32, headdim=16), bases(3, 9)
    added = generate(model, prompt, 300, Sampling(temperature=0))
    with torch.no_grad():
        logits = model(torch.cat([prompt, added], 1))[:, 8:-1, alphabet.A : alphabet.T + 1]
    best = logits.amax(-1)
    taken = logits.gather(-1, added.unsqueeze(-1) - alphabet.A).squeeze(-1)
    assert (best - taken).max() < 1e-3  # the two ways round apart, and near ties may fall either way
    assert len(added.unique()) > 1


@pytest.mark.gpu
@pytest.mark.parametrize("layers", ["mamba", "mamba2"])
def test_graphs_on_a_gpu_draw_by_their_seed(layers: str) -> None:
    model, prompt = build(layers, headdim=8), bases(2, 9)
    first = generate(model, prompt, 600, seed=1)
    assert torch.equal(first, generate(model, prompt, 600, seed=1))
    assert not torch.equal(first, generate(model, prompt, 600, seed=2))
    share = torch.bincount(first.flatten(), minlength=12)[alphabet.A : alphabet.T + 1]
    assert share.sum() == first.numel()
    assert not torch.equal(first[:, :300], first[:, 300:])
    stopped = generate(model, prompt, 600, seed=1, stop=[[int(t) for t in first[0, 40:43]]])
    assert stopped.shape[1] <= 600
    assert (stopped[0, 43:] == alphabet.PAD).all()


@pytest.mark.gpu
@pytest.mark.parametrize("layers", ["mamba", "mamba2"])
def test_memory_does_not_grow_with_what_is_generated(layers: str) -> None:
    model, prompt = build(layers, d_model=64, headdim=16), bases(1, 9)
    peaks = []
    for length in (1_000, 1_000, 20_000):
        torch.cuda.reset_peak_memory_stats()
        for block in generate_blocks(model, prompt, length):
            del block
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] == peaks[2]
