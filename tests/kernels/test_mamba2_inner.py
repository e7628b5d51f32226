"""Mamba-2 between its projections as one step of autograd, against its operators in fp64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from genomamba.kernels.impl import Impl
from genomamba.kernels.mamba2_inner import Inner, mamba2_inner

pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TENSORS = ("conv_weight", "conv_bias", "dt_bias", "A_log", "skip", "norm_weight")


def results(
    impl: Impl, dtype: torch.dtype, shape: Sequence[int], per_channel: bool, states: bool, **options: Any
) -> list[Tensor]:
    """Outputs, then every gradient along fixed directions."""
    batch, length, heads, headdim, groups, n = shape
    scanned, taps = heads * headdim, 4
    convolved = scanned + 2 * groups * n
    generator = torch.Generator().manual_seed(0)

    def leaf(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(DEVICE, dtype).requires_grad_()

    p = leaf(batch, length, scanned + convolved + heads)
    sizes = [(convolved, taps), (convolved,), (heads,), (heads,), (scanned if per_channel else heads,), (scanned,)]
    tensors = [leaf(*size) for size in sizes]
    inner = Inner(
        **dict(zip(TENSORS, tensors, strict=True)),
        headdim=headdim,
        groups=groups,
        states=n,
        eps=1e-5,
        norm_before_gate=False,
        dt_limit=options.pop("dt_limit", (0.0, float("inf"))),
        chunk=64,
        tf32=False,
    )
    leaves = [p, *tensors]
    if states:
        options |= {"conv_state": leaf(batch, taps - 1, convolved), "scan_state": leaf(batch, heads, headdim, n)}
        leaves += [options["conv_state"], options["scan_state"]]
    outputs = mamba2_inner(p, inner, **options, impl=impl)
    along = [torch.randn(o.shape, generator=generator).to(o) for o in outputs]
    return [*(o.detach() for o in outputs), *torch.autograd.grad(outputs, leaves, along)]


@pytest.mark.parametrize(
    ("shape", "per_channel", "states", "options"),
    [
        ((1, 70, 2, 3, 2, 5), False, False, {}),
        ((1, 66, 2, 5, 1, 3), True, True, {"reverse": True, "dt_limit": (0.1, 1.0)}),
        pytest.param((2, 1025, 8, 64, 1, 64), False, True, {}, marks=pytest.mark.gpu),
        pytest.param((2, 1025, 8, 64, 2, 64), True, False, {"reverse": True}, marks=pytest.mark.gpu),
    ],
)
@pytest.mark.parametrize("walls", [False, True])
def test_values_and_gradients_agree(
    shape: Sequence[int], per_channel: bool, states: bool, options: dict[str, Any], walls: bool
) -> None:
    reset = torch.rand(shape[:2], generator=torch.Generator().manual_seed(1)) < 0.03 if walls else None
    options = {**options, "reset": None if reset is None else reset.to(DEVICE)}
    expected = results("reference", torch.float64, shape, per_channel, states, **options)
    found = results("triton", torch.float32, shape, per_channel, states, **options)
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        assert (f.double() - e).norm() <= 2e-5 * e.norm()
    again = results("triton", torch.float32, shape, per_channel, states, **options)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_nothing_is_kept_but_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        results("triton", torch.float32, (1, 130, 2, 4, 1, 3), False, False)
    assert sum(t.shape[1] == 130 for t in kept if t.dim() > 2) == 1
