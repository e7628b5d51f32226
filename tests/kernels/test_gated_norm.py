"""The gated norm in Triton against its equations in fp64; in the interpreter where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError
from genomamba.kernels.gated_norm import gated_norm
from genomamba.kernels.impl import Impl

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def results(impl: Impl, values: tuple[Tensor, ...], dtype: torch.dtype, groups: int, first: bool) -> list[Tensor]:
    p, y, weight = (v.to(dtype).requires_grad_() for v in values)
    z = p[..., 2 : 2 + y.shape[-1]]  # as a slice of a projection
    out = gated_norm(y, z, weight, groups=groups, eps=1e-5, norm_before_gate=first, impl=impl)
    along = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out)
    return [out.detach(), *torch.autograd.grad(out, (p, y, weight), along)]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 5, 12), 1),
        ((1, 3, 12), 3),
        ((2, 1, 7), 1),
        pytest.param((128, 1024, 512), 1, marks=pytest.mark.gpu),
        pytest.param((1, 40001, 1024), 4, marks=pytest.mark.gpu),
    ],
)
def test_values_and_gradients_agree(shape: tuple[int, int, int], groups: int, first: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(*shape[:2], shape[2] + 3), shape, shape[2:]]
    values = tuple(torch.randn(size, generator=generator).to(DEVICE) for size in sizes)
    found = results("triton", values, torch.float32, groups, first)
    for f, e in zip(found, results("reference", values, torch.float64, groups, first), strict=True):
        assert f.shape == e.shape
        assert (f.double() - e).norm() <= 1e-5 * e.norm()
    again = results("triton", values, torch.float32, groups, first)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_each_group_is_normed_by_itself() -> None:
    y, z = torch.randn(1, 2, 6, device=DEVICE), torch.randn(1, 2, 6, device=DEVICE)
    options = {"eps": 1e-5, "norm_before_gate": False}
    both = gated_norm(y, z, y.new_ones(6), groups=2, **options)
    halves = [gated_norm(y[..., h], z[..., h], y.new_ones(3), groups=1, **options) for h in (slice(3), slice(3, 6))]
    torch.testing.assert_close(both, torch.cat(halves, -1))


def test_what_does_not_fit_is_refused() -> None:
    y = torch.randn(1, 2, 6, device=DEVICE, requires_grad=True)
    options = {"eps": 1e-5, "norm_before_gate": True}
    with pytest.raises(ValueError, match="groups=4 dividing D"):
        gated_norm(y, y, y.new_ones(6), groups=4, **options)
    with pytest.raises(KernelUnavailableError, match="use impl='reference' for fp64"):
        gated_norm(y.double(), y, y.new_ones(6), groups=1, impl="triton", **options)
    out = gated_norm(y, y, y.new_ones(6), groups=1, impl="triton", **options)
    (gradient,) = torch.autograd.grad(out.sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()
