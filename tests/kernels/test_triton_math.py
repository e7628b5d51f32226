"""What several operators' Triton kernels compute; in the interpreter where there is no GPU."""

from __future__ import annotations

import pytest
import torch

from genomamba.kernels import selective_scan

triton = pytest.importorskip("triton")
tl = triton.language

from genomamba.kernels.mamba_step.triton_kernels import mix_kernel  # noqa: E402
from genomamba.kernels.triton_math import softplus  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@triton.jit
def _softplus_kernel(x, y, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(y + at, softplus(tl.load(x + at)))


def test_softplus_is_that_of_the_equations_at_every_size() -> None:
    ordinary = torch.linspace(-20, 20, 1000)
    x = torch.cat([ordinary, torch.tensor([*range(-104, -80, 1)]), torch.tensor([0.0, -0.0, 1e-30, 88.8, 1e4])])
    x = torch.nn.functional.pad(x, (0, 2048 - x.numel())).to(DEVICE)
    y = torch.empty_like(x)
    _softplus_kernel[(1,)](x, y, SIZE=2048)
    exact = torch.logaddexp(x.double(), torch.zeros_like(x, dtype=torch.float64))
    # exp2's argument is rounded: 2^-24 of |x|, and 2^-26 for log2(e). A GPU takes what is denormal for 0.
    bound = (4e-7 + 8e-8 * x.double().abs()) * exact + 1.2e-38
    assert ((y.double() - exact).abs() <= bound).all()


def test_a_decoded_token_has_the_step_size_of_the_scan_to_the_bit() -> None:
    """Both leave dt · u · B in a state of zero; u is 128, whose SiLU is itself, and B is 1."""
    size = 32
    dt_bias = torch.linspace(-20, 20, size).to(DEVICE)
    dt = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    u, zero = torch.full_like(dt, 128.0), torch.zeros_like(dt)
    picks = torch.zeros(3, size, device=DEVICE)  # the rows that make of u what dt's weights are times, B and C
    picks[:, -1] = 1 / 128
    state, y = zero.clone(), zero.clone()
    mix_kernel[(1, 1)](
        torch.cat([u, zero]), zero.clone(), torch.ones_like(u), u, picks, dt, dt_bias, zero, zero, state, y,
        torch.zeros((), dtype=torch.long, device=DEVICE), 1, 1,
        inner=size, TAPS=1, HAS_BIAS=False, BLOCK=size, CHUNK=size, RANK=1, N=1,
    )  # fmt: skip
    one = torch.ones(1, 1, 1, device=DEVICE)
    _, expected = selective_scan(
        *(u[None, None], dt[None, None], zero[:, None], one, one),
        dt_bias=dt_bias,
        dt_softplus=True,
        return_final_state=True,
        impl="triton",
    )
    assert state.min() > 0
    assert torch.equal(state, expected.flatten())
