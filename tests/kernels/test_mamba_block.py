"""A whole block as one operator against the operators that it is made of; in the interpreter without a GPU."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError
from genomamba.kernels.mamba_block import Direction, budget, mamba_block
from genomamba.kernels.selective_scan import cut
from genomamba.model import block
from genomamba.model.backbone import Backbone
from genomamba.model.config import ModelConfig

pytest.importorskip("triton")
slabs = importlib.import_module("genomamba.kernels.mamba_block.slabs").slabs
reading = importlib.import_module("genomamba.kernels.mamba_block.reading")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Weights = dict[str, Tensor | None]


def draw(batch: int, length: int, width: int, states: int, directions: int, options: str) -> tuple[Weights, list]:
    """`options`: r residual, b biases of the projections, c bias of the convolution."""
    generator = torch.Generator().manual_seed(0)
    inner, rank, taps = 2 * width, 3, 4

    def normal(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) / shape[-1] ** 0.5).to(DEVICE)

    shared = {
        "x": normal(batch, length, width),
        "residual": normal(batch, length, width) if "r" in options else None,
        "norm_weight": 1 + normal(width),
        "in_proj": normal(2 * inner, width),
        "in_bias": normal(2 * inner) if "b" in options else None,
        "out_proj": normal(width, inner),
        "out_bias": normal(width) if "b" in options else None,
    }
    readers = [
        Direction(
            conv_weight=normal(inner, taps),
            conv_bias=normal(inner) if "c" in options else None,
            x_proj=normal(rank + 2 * states, inner),
            dt_proj=normal(inner, rank),
            dt_bias=normal(inner),
            A_log=normal(inner, states),
            D=normal(inner),
        )
        for _ in range(directions)
    ]
    return shared, readers


def results(
    shared: Weights,
    readers: list,
    reverse: list[bool],
    reset: Tensor | None,
    dtype: torch.dtype,
    impl: str,
    slab_bytes: int = 2 << 30,
) -> list[Tensor]:
    """Both outputs, then every gradient along fixed directions."""

    def leaf(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().to(dtype).requires_grad_()

    given = {name: leaf(tensor) for name, tensor in shared.items()}
    directions = [Direction(*map(leaf, reader)) for reader in readers]
    out, stream = mamba_block(
        **given,  # type: ignore[arg-type]
        directions=directions,
        reverse=reverse,
        eps=1e-5,
        reset=reset,
        slab_bytes=slab_bytes,
        impl=impl,  # type: ignore[arg-type]
    )
    generator = torch.Generator().manual_seed(9)
    along = [torch.randn(o.shape, generator=generator).to(o) for o in (out, stream)]
    leaves = [t for t in (*given.values(), *(t for d in directions for t in d)) if t is not None]
    return [out.detach(), stream.detach(), *torch.autograd.grad([out, stream], leaves, along)]


def assert_agree(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        assert (f.double() - e.double()).norm() <= tolerance * e.double().norm()


CASES = [([False], "rc"), ([True], "b"), ([False, True], "rbc")]


@pytest.mark.parametrize(("reverse", "options"), CASES)
def test_agrees_with_its_parts(reverse: list[bool], options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reverse[0]:
        monkeypatch.setattr(budget, "_OF_SLAB", 1 << 40)  # everything is computed again
    shared, readers = draw(2, 7, 4, 4, len(reverse), options)
    reset = (torch.rand(2, 7) < 0.3).to(DEVICE) if "r" in options else None
    expected = results(shared, readers, reverse, reset, torch.float64, "reference")
    found = results(shared, readers, reverse, reset, torch.float32, "triton")
    assert_agree(found, expected, 1e-5)
    again = results(shared, readers, reverse, reset, torch.float32, "triton")
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.fixture
def handed_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The dimensions of what each backward scan is given of the forward's states: five where they are fine."""
    dimensions: list[int] = []
    backward = reading.scan_backward

    def spy(dy: Tensor, d_final: Tensor | None, entering: Tensor, *rest: Any) -> Any:
        dimensions.append(entering.dim())
        return backward(dy, d_final, entering, *rest)

    monkeypatch.setattr(reading, "scan_backward", spy)
    return dimensions


@pytest.mark.parametrize(
    ("reverse", "options", "states", "width", "length"),
    [([False], "rc", 4, 17, 6), ([True], "b", 4, 2, 70), ([False, True], "c", 20, 2, 6)],
)
def test_agrees_where_the_forward_keeps_the_states(
    reverse: list[bool],
    options: str,
    states: int,
    width: int,
    length: int,
    handed_back: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where rows and channels fill the GPU by themselves, in both directions of time; then nothing is rebuilt."""
    monkeypatch.setattr(cut, "_ALONE", 1)
    monkeypatch.setattr(cut, "_WAVE", 1)
    assert cut.plan(1, 70, 4, 4).n_chunks > 1
    shared, readers = draw(3 - len(reverse), length, width, states, len(reverse), options)
    reset = (torch.rand(3 - len(reverse), length) < 0.3).to(DEVICE) if "r" in options else None
    expected = results(shared, readers, reverse, reset, torch.float64, "reference")
    assert_agree(results(shared, readers, reverse, reset, torch.float32, "triton"), expected, 1e-5)
    assert handed_back == [5] * len(reverse)


@pytest.mark.gpu
@pytest.mark.parametrize("reverse", [[False], [False, True]])
def test_agrees_where_rows_fill_the_gpu(
    reverse: list[bool], handed_back: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, readers = draw(128, 300, 128, 16, len(reverse), "rc")
    found = results(shared, readers, reverse, None, torch.float32, "triton")
    again = results(shared, readers, reverse, None, torch.float32, "triton")
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert handed_back == [5] * (2 * len(reverse))
    with torch.autocast(DEVICE.type, torch.bfloat16):
        narrow = results(shared, readers, reverse, None, torch.float32, "triton")
    assert_agree(narrow, found, 3e-2)
    monkeypatch.setattr(budget, "_PLENTY", 1 << 40)
    assert_agree(results(shared, readers, reverse, None, torch.float32, "triton"), found, 1e-5)
    assert handed_back[-1] == 4


@pytest.mark.parametrize(("reverse", "options"), CASES)
def test_slabs_of_any_size_agree(reverse: list[bool], options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """States and inputs pass from slab to slab, and their gradients back; walls lie at and around the edges."""
    monkeypatch.setattr(budget, "_CHUNK", 4)
    shared, readers = draw(2, 14, 2, 4, len(reverse), options)
    reset = torch.zeros(2, 14, dtype=torch.bool, device=DEVICE)
    for row, marks in enumerate(([3, 8], [4, 5, 13])):
        reset[row, marks] = True
    reset = reset if "r" in options else None
    expected = results(shared, readers, reverse, reset, torch.float64, "reference")
    assert_agree(results(shared, readers, reverse, reset, torch.float32, "triton", slab_bytes=1), expected, 1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_slabs_cover_all_tokens_in_reading_order(reverse: bool) -> None:
    for length in range(1, 40):
        found = slabs(length, 8, 3, reverse)
        tokens = [list(range(length))[slab.tokens] for slab in found]
        assert sorted(t for part in tokens for t in part) == list(range(length))
        assert all(0 < len(part) <= 8 + 3 for part in tokens)
        assert tokens == sorted(tokens, reverse=reverse)
        assert found[0].tail is None
        for before, slab in itertools.pairwise(found):
            assert slab.tail is not None
            tail = list(range(length))[slab.tail]
            assert len(tail) == 3
            # All of it lies in the slab that was read just before.
            assert set(tail) <= set(list(range(length))[before.tokens])


@pytest.mark.gpu
@pytest.mark.parametrize(("reverse", "options"), CASES)
def test_agrees_at_size(reverse: list[bool], options: str) -> None:
    shared, readers = draw(3, 2100, 64, 16, len(reverse), options)
    reset = (torch.rand(3, 2100) < 0.01).to(DEVICE)
    expected = results(shared, readers, reverse, reset, torch.float64, "reference")
    # Products of matrices in fp32 proper.
    assert torch.get_float32_matmul_precision() == "highest"
    assert_agree(results(shared, readers, reverse, reset, torch.float32, "triton"), expected, 2e-5)


@pytest.mark.gpu  # the interpreter cuts fp32 off to bf16 where a GPU rounds
def test_autocast_loses_no_more_than_the_parts_do() -> None:
    shared, readers = draw(1, 400, 64, 16, 1, "rc")
    exact = results(shared, readers, [False], None, torch.float64, "reference")
    with torch.autocast(DEVICE.type, torch.bfloat16):
        parts = results(shared, readers, [False], None, torch.float32, "reference")
        found = results(shared, readers, [False], None, torch.float32, "triton")
    assert found[0].dtype == torch.bfloat16
    assert found[1].dtype == torch.float32
    for f, p, e in zip(found, parts, exact, strict=True):
        assert (f.double() - e).norm() <= 1.5 * (p.double() - e).norm() + 1e-3 * e.norm()


def test_keeps_the_stream_and_the_states_that_enter_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the size of the projected input outlives the forward."""
    monkeypatch.setattr(budget, "_OF_SLAB", 1 << 40)
    batch, length, width, states = 1, 40, 4, 4
    shared, readers = draw(batch, length, width, states, 1, "rc")
    given = {name: None if t is None else t.requires_grad_() for name, t in shared.items()}
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        mamba_block(**given, directions=readers, reverse=[False], eps=1e-5, impl="triton")  # type: ignore[arg-type]
    weights = sum(t.numel() for t in (*given.values(), *readers[0]) if t is not None)
    chunks, padded = -(-length // 32), 8
    stream, entering = batch * length * width, batch * chunks * padded * 2 * width
    assert sum(kept) <= weights + stream + entering


@pytest.mark.parametrize("most", [0, 280, 560, 1120])
def test_keeps_what_is_small_and_spends_none_of_it(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rising size: the projection to dt, B and C; the norm; u and dt; the projected input."""
    monkeypatch.setattr(budget, "small_bytes", lambda *_: most)
    length, width, states = 7, 10, 3
    shared, readers = draw(1, length, width, states, 2, "")
    given = {name: None if t is None else t.requires_grad_() for name, t in shared.items()}
    found: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (found.append(t.numel()), t)[1], lambda t: t):
        out, _ = mamba_block(**given, directions=readers, reverse=[False, True], eps=1e-5, impl="triton")  # type: ignore[arg-type]
    rank = readers[0].dt_proj.shape[1]
    sizes = [2 * [length * (rank + 2 * states)], [length * width], 4 * [length * 2 * width], [length * 4 * width]]
    expected = [size for group in sizes for size in group if 4 * size <= most]
    stream = length * width
    assert sorted(n for n in found if n in {x for group in sizes for x in group}) == sorted([*expected, stream])
    leaves = [t for t in given.values() if t is not None]
    first = torch.autograd.grad(out.sum(), leaves, retain_graph=True)
    again = torch.autograd.grad(out.sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_what_it_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, readers = draw(1, 3, 4, 2, 1, "rc")
    out, _ = mamba_block(
        **{name: None if t is None else t.requires_grad_() for name, t in shared.items()},  # type: ignore[arg-type]
        directions=readers,
        reverse=[False],
        eps=1e-5,
        impl="triton",
    )
    x = shared["x"]
    assert x is not None
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
    with pytest.raises(KernelUnavailableError, match="use impl='reference'"):
        results(shared, readers, [False], None, torch.float64, "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(KernelUnavailableError, match="needs an NVIDIA GPU; move them to 'cuda'"):
        mamba_block(
            **{name: None if t is None else t.detach().cpu() for name, t in shared.items()},  # type: ignore[arg-type]
            directions=readers,
            reverse=[False],
            eps=1e-5,
            impl="triton",
        )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_model_that_computes_again_has_the_same_gradients(
    bidirectional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three blocks, kept at every second, in slabs; against each block made of its operators."""
    monkeypatch.setattr(budget, "_CHUNK", 4)
    monkeypatch.setattr(block, "THRIFTY", 1)
    config = ModelConfig(d_model=2, n_layer=3, d_state=2, dt_rank=1, bidirectional=bidirectional)
    ids = torch.randint(7, 11, (1, 9)).to(DEVICE)
    models = [Backbone(config, impl).to(DEVICE) for impl in ("triton", "reference")]
    models[1].load_state_dict(models[0].state_dict())
    models[0].activation_checkpointing = True
    along = torch.randn(1, 9, 2).to(DEVICE)
    found, expected = (
        torch.autograd.grad((model(ids, final_state=False)[0] * along).sum(), list(model.parameters()))
        for model in models
    )
    assert_agree(list(found), list(expected), 1e-5)
