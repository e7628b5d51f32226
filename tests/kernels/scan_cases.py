"""Inputs, results and comparisons that the tests of the scan share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genomamba.kernels import selective_scan

TOLERANCE = 1e-5  # relative, fp32

Values = dict[str, Tensor]
PER_TOKEN = ("u", "dt", "B", "C", "z")


def draw(
    batch: int,
    length: int,
    channels: int,
    states: int,
    *,
    z: bool = True,
    D: bool = True,
    dt_bias: bool = True,
    initial_state: bool = True,
    seed: int = 0,
) -> Values:
    """fp64 inputs whose values fp32 holds exactly; dt is raw, between about -6 and 2."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double()

    values = {
        "u": normal(batch, length, channels),
        "dt": normal(batch, length, channels) - 2,
        "A": -normal(channels, states).exp().float().double(),
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
    }
    if D:
        values["D"] = normal(channels)
    if z:
        values["z"] = normal(batch, length, channels)
    if dt_bias:
        values["dt_bias"] = normal(channels)
    if initial_state:
        values["initial_state"] = normal(batch, channels, states)
    return values


def marks(batch: int, length: int, *, every: int = 7, seed: int = 0) -> Tensor:
    """About one mark in ``every`` tokens, with two in a row somewhere."""
    reset = torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) < 1 / every
    reset[:, length // 2 : length // 2 + 2] = True
    return reset


def scan(values: Values, *, impl: str = "cpu", **flags: Any) -> tuple[Tensor, Tensor]:
    flags.setdefault("dt_softplus", True)
    return selective_scan(**values, return_final_state=True, impl=impl, **flags)  # type: ignore[arg-type, return-value]


def piece(values: Values, start: int, end: int) -> Values:
    """The tokens from start to end; what has no tokens is kept."""
    return {name: v[:, start:end] if name in PER_TOKEN else v for name, v in values.items()}


def results(
    values: Values,
    run: Callable[[Values], tuple[Tensor, Tensor]] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    along: tuple[Tensor, Tensor] | None = None,
    **flags: Any,
) -> Values:
    """y, the final state, and under ``d <name>`` every gradient, taken along given or fixed directions."""
    given = {name: v.detach().to(dtype).requires_grad_() for name, v in values.items()}
    y, final = run(given) if run else scan(given, **flags)
    gy, g_final = along or (direction(y, 1), direction(final, 2))
    outputs, directions = [y], [gy.to(y)]
    if final.requires_grad:
        outputs, directions = [y, final], [gy.to(y), g_final.to(final)]
    gradients = torch.autograd.grad(
        outputs, list(given.values()), directions, allow_unused=True, materialize_grads=True
    )
    found = {"y": y.detach(), "final_state": final.detach()}
    return found | {f"d {name}": g for name, g in zip(given, gradients, strict=True)}


def direction(like: Tensor, seed: int) -> Tensor:
    """A fixed direction to take gradients in, the same for every dtype."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def assert_agree(found: Values, expected: Values, tolerance: float = TOLERANCE) -> None:
    """By norm and by the largest entry; where everything expected is zero, nothing but zero will do."""
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        reference = value.double()
        error = found[name].double() - reference
        assert error.isfinite().all(), name
        assert error.norm() <= tolerance * reference.norm(), f"{name}: off by {error.norm() / reference.norm():.1e}"
        if reference.numel():
            assert error.abs().max() <= tolerance * reference.abs().max(), f"{name}: largest error"


def assert_same_bits(found: Values, expected: Values) -> None:
    for name, reference in expected.items():
        assert found[name].dtype == reference.dtype, name
        assert torch.equal(found[name], reference), name
