"""The Triton form of Mamba-2's scan against its equations in fp64; in the interpreter where there is no GPU."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError
from genomamba.kernels.ssd import ssd

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# batch, length, heads, width, groups, states
SMALL = [(2, 130, 4, 5, 2, 3), (1, 64, 2, 16, 1, 16), (3, 7, 3, 20, 3, 17), (1, 65, 1, 1, 1, 1)]
LARGE = [(2, 1000, 8, 64, 1, 64), (1, 4097, 6, 64, 2, 128), (3, 511, 4, 128, 4, 16), (128, 129, 8, 64, 1, 64)]


def inputs(shape: tuple[int, ...]) -> dict[str, Tensor]:
    batch, length, heads, width, groups, states = shape
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(DEVICE)

    return {
        "x": normal(batch, length, heads, width),
        "dt": normal(batch, length, heads) - 1,
        "A": -torch.exp(normal(heads)),
        "B": normal(batch, length, groups, states),
        "C": normal(batch, length, groups, states),
        "D": normal(heads),
        "dt_bias": normal(heads),
        "initial_state": normal(batch, heads, width, states),
    }


def results(
    impl: Literal["reference", "chunked", "triton"], values: dict[str, Tensor], dtype: torch.dtype, **options: Any
) -> dict[str, Tensor]:
    """Outputs, then every gradient along fixed directions; x, dt, B and C in `dtype`, the others in fp32 or wider."""
    wide = torch.promote_types(dtype, torch.float32)
    given = {k: v.to(dtype if k in ("x", "dt", "B", "C") else wide).requires_grad_() for k, v in values.items()}
    y, h = ssd(**given, **options, dt_softplus=True, return_final_state=True, impl=impl)
    generator = torch.Generator().manual_seed(9)
    along = [torch.randn(o.shape, generator=generator).to(o) for o in (y, h)]
    gradients = torch.autograd.grad((y, h), list(given.values()), along)
    return {"y": y.detach(), "h": h.detach(), **dict(zip(given, gradients, strict=True))}


def assert_agree(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, f in found.items():
        e = expected[name].double()
        assert f.shape == e.shape, name
        assert (f.double() - e).norm() <= tolerance * e.norm(), name


def check(shape: tuple[int, ...], reverse: bool, walls: bool) -> None:
    values = inputs(shape)
    reset = torch.rand(shape[:2], generator=torch.Generator().manual_seed(1)) < 0.03 if walls else None
    options = {"reverse": reverse, "reset": None if reset is None else reset.to(DEVICE)}
    exact = "reference" if shape[1] < 200 else "chunked"
    found = results("triton", values, torch.float32, **options)
    assert_agree(found, results(exact, values, torch.float64, **options), 1e-5)
    again = results("triton", values, torch.float32, **options)
    assert all(torch.equal(found[name], again[name]) for name in found)


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("reverse", [False, True])
def test_values_and_gradients_agree(shape: tuple[int, ...], reverse: bool) -> None:
    check(shape, reverse, walls=True)


def test_without_its_options() -> None:
    values = {name: t for name, t in inputs(SMALL[0]).items() if name in ("x", "dt", "A", "B", "C")}
    assert_agree(results("triton", values, torch.float32), results("reference", values, torch.float64), 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize(("reverse", "walls"), [(False, False), (True, False), (False, True), (True, True)])
def test_values_and_gradients_agree_at_size(shape: tuple[int, ...], reverse: bool, walls: bool) -> None:
    check(shape, reverse, walls)


@pytest.mark.parametrize("shape", [SMALL[0], pytest.param(LARGE[0], marks=pytest.mark.gpu)])
def test_16_bit_operands_keep_decays_states_and_sums_in_fp32(shape: tuple[int, ...]) -> None:
    # The interpreter has no products of bf16.
    dtype = torch.bfloat16 if DEVICE.type == "cuda" else torch.float16
    values = {name: t.to(dtype).float() for name, t in inputs(shape).items()}
    exact = "reference" if shape[1] < 200 else "chunked"
    found, expected = results("triton", values, dtype), results(exact, values, torch.float64)
    assert found["h"].dtype == torch.float32
    assert found["y"].dtype == dtype
    assert_agree(found, expected, 8 * torch.finfo(dtype).eps)


def test_small_steps_keep_their_digits_behind_large_ones() -> None:
    values = inputs((1, 64, 1, 2, 1, 4))
    values = {name: values[name] for name in ("x", "dt", "A", "B", "C")}
    values["A"] = torch.full_like(values["A"], -16.0)
    values["dt"] = torch.full_like(values["dt"], 1e-3)
    values["dt"][:, :8] = 300.0
    exact = ssd(**{name: t.double() for name, t in values.items()}, impl="reference")
    mine = ssd(**values, impl="triton")
    assert isinstance(exact, Tensor)
    assert isinstance(mine, Tensor)
    assert (mine.double() - exact)[:, 8:].abs().max() < 1e-6 * exact[:, 8:].abs().max()


@pytest.mark.parametrize("reverse", [False, True])
def test_any_split_gives_what_the_whole_gives(reverse: bool) -> None:
    values = inputs((2, 140, 2, 3, 1, 5))
    reset = torch.zeros(2, 140, dtype=torch.bool, device=DEVICE)
    reset[0, 64] = reset[1, 100] = True
    state = values.pop("initial_state")
    along = {name: values.pop(name) for name in ("x", "dt", "B", "C")}
    options: dict[str, Any] = {
        **values,
        "dt_softplus": True,
        "reverse": reverse,
        "return_final_state": True,
        "impl": "triton",
    }
    whole, last = ssd(**along, **options, reset=reset, initial_state=state)
    spans = [(0, 1), (1, 64), (64, 100), (100, 140)]
    pieces = {}
    for start, end in reversed(spans) if reverse else spans:
        part = {name: t[:, start:end] for name, t in along.items()}
        pieces[start], state = ssd(**part, **options, reset=reset[:, start:end], initial_state=state)
    torch.testing.assert_close(torch.cat([pieces[start] for start, _ in spans], 1), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-4)


def test_no_tokens_leave_the_state_as_it_was() -> None:
    values = inputs((2, 0, 2, 3, 1, 5))
    y, h = ssd(**values, return_final_state=True, impl="triton")
    assert y.shape == (2, 0, 2, 3)
    assert torch.equal(h, values["initial_state"])


def test_second_backward_fp64_and_cpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {name: t.requires_grad_() for name, t in inputs((1, 3, 1, 2, 1, 2)).items()}
    y = ssd(**values, impl="triton")
    assert isinstance(y, Tensor)
    (gradient,) = torch.autograd.grad(y.sum(), values["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative; use impl='chunked'"):
        gradient.sum().backward()
    with pytest.raises(KernelUnavailableError, match="use impl='chunked' for fp64"):
        ssd(**{name: t.double() for name, t in values.items()}, impl="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(KernelUnavailableError, match="needs an NVIDIA GPU; move them to 'cuda'"):
        ssd(**{name: t.cpu() for name, t in values.items()}, impl="triton")


def test_a_state_that_is_too_large_is_refused() -> None:
    values = inputs((1, 2, 1, 128, 1, 128))
    with pytest.raises(KernelUnavailableError, match=r"128 x 128 in torch\.float32 does not fit; use impl='chunked'"):
        ssd(**values, impl="triton")
    assert isinstance(ssd(**values), Tensor)


def test_operator_rules() -> None:
    from genomamba.kernels.ssd.triton import _ssd

    values = {name: t.requires_grad_() for name, t in inputs((1, 5, 2, 3, 1, 2)).items()}
    values["D"] = torch.randn(2, 3, device=DEVICE, requires_grad=True)
    names = ("x", "dt", "A", "B", "C", "D", "initial_state")
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(_ssd, (*(values[name] for name in names), None, False), test_utils=tests)
