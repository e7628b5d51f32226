"""The Triton convolution and RMSNorm against their equations in fp64; in the interpreter where there is no GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError
from genomamba.kernels.causal_conv1d import causal_conv1d
from genomamba.kernels.rms_norm import rms_norm

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = [(2, 19, 5, 4), (1, 2, 3, 4), (1, 33, 66, 3), (1, 5, 2, 1)]
LARGE = [(3, 1000, 100, 4), (1, 4097, 256, 4), (2, 511, 2048, 3)]


def results(run: Callable[..., tuple[Tensor, Tensor]], values: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Both outputs, then every gradient along fixed directions."""
    given = [v.detach().to(dtype).requires_grad_() for v in values]
    outputs = [o for o in run(*given) if o.requires_grad]
    generator = torch.Generator().manual_seed(9)
    along = [torch.randn(o.shape, generator=generator).to(o) for o in outputs]
    gradients = torch.autograd.grad(outputs, given, along, allow_unused=True, materialize_grads=True)
    return [*(o.detach() for o in outputs), *gradients]


def assert_agree(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        assert (f.double() - e.double()).norm() <= tolerance * e.double().norm()


def check_conv(shape: tuple[int, int, int, int], reverse: bool, resets: bool, state: bool, silu: bool = True) -> None:
    batch, length, channels, taps = shape
    generator = torch.Generator().manual_seed(0)
    sizes = [(batch, length, channels), (channels, taps), (channels,), *([(batch, taps - 1, channels)] * state)]
    values = [torch.randn(size, generator=generator).to(DEVICE) for size in sizes]
    reset = (torch.rand(batch, length, generator=generator) < 0.2).to(DEVICE) if resets else None

    def run(impl: str) -> Callable[..., tuple[Tensor, Tensor]]:
        return lambda x, weight, bias, initial=None: causal_conv1d(  # type: ignore[return-value]
            x,
            weight,
            bias,
            silu=silu,
            initial_state=initial,
            reset=reset,
            reverse=reverse,
            return_final_state=True,
            impl=impl,  # type: ignore[arg-type]
        )

    found = results(run("triton"), values, torch.float32)
    assert_agree(found, results(run("reference"), values, torch.float64))
    again = results(run("triton"), values, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize(("shape", "reverse"), [*itertools.product(SMALL, [False, True])])
def test_convolution_agrees(shape: tuple[int, int, int, int], reverse: bool) -> None:
    check_conv(shape, reverse, resets=True, state=True)


def test_convolution_without_its_options() -> None:
    check_conv(SMALL[0], False, resets=False, state=False, silu=False)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("shape", "reverse", "resets", "state"), [*itertools.product(LARGE, [False, True], [False, True], [False, True])]
)
def test_convolution_agrees_at_size(shape: tuple[int, int, int, int], reverse: bool, resets: bool, state: bool) -> None:
    check_conv(shape, reverse, resets, state)


def test_no_nan_crosses_a_reset_of_the_convolution() -> None:
    x = torch.randn(1, 6, 2, device=DEVICE)
    x[:, :3] = float("nan")
    reset = torch.tensor([[False, False, False, True, False, False]], device=DEVICE)
    y, state = causal_conv1d(
        x, torch.ones(2, 4, device=DEVICE), silu=True, reset=reset, return_final_state=True, impl="triton"
    )
    assert y[:, 3:].isfinite().all()
    assert state.isfinite().all()
    assert y[:, :3].isnan().all()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 20), (5, 8), (1, 1)])
def test_norm_agrees(shape: tuple[int, ...], residual: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [shape, shape[-1:], *([shape] * residual)]
    values = [torch.randn(size, generator=generator).to(DEVICE) for size in sizes]

    def run(impl: str) -> Callable[..., tuple[Tensor, Tensor]]:
        return lambda x, weight, before=None: rms_norm(x, weight, eps=1e-5, residual=before, impl=impl)  # type: ignore[arg-type]

    assert_agree(results(run("triton"), values, torch.float32), results(run("reference"), values, torch.float64))


def test_norm_writes_the_dtypes_it_promises() -> None:
    x = torch.randn(3, 8, dtype=torch.bfloat16, device=DEVICE)
    normed, stream = rms_norm(x, torch.ones(8, device=DEVICE), eps=1e-5, residual=x.float(), impl="triton")
    assert normed.dtype == torch.bfloat16
    assert stream.dtype == torch.float32
    assert torch.equal(stream, 2 * x.float())


@pytest.mark.parametrize("operator", ["convolution", "norm"])
def test_second_backward_fp64_and_cpu_are_refused(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(x: Tensor) -> Tensor:
        if operator == "norm":
            return rms_norm(x, x.new_ones(2), eps=1e-5, impl="triton")[0]
        y = causal_conv1d(x, x.new_ones(2, 2), silu=True, impl="triton")
        assert isinstance(y, Tensor)
        return y

    x = torch.randn(1, 3, 2, device=DEVICE, requires_grad=True)
    (gradient,) = torch.autograd.grad(run(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative; use impl='reference'"):
        gradient.sum().backward()
    with pytest.raises(KernelUnavailableError, match="use impl='reference' for fp64"):
        run(x.double())
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(KernelUnavailableError, match="needs an NVIDIA GPU; move them to 'cuda'"):
        run(x.detach().cpu())


def test_operator_rules() -> None:
    from genomamba.kernels.causal_conv1d.triton import _conv
    from genomamba.kernels.rms_norm.triton import _norm

    x = torch.randn(1, 3, 2, device=DEVICE, requires_grad=True)
    weight = torch.randn(2, 3, device=DEVICE, requires_grad=True)
    gain = torch.randn(2, device=DEVICE, requires_grad=True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(_conv, (x, weight, gain, None, None, True, False), test_utils=tests)
    torch.library.opcheck(_norm, (x, gain, None, 1e-5), test_utils=tests)
