"""The short convolution: the reference against torch's, the CPU one against the reference, and their laws."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_cases import Values, assert_agree, assert_same_bits, direction, marks
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from genomamba.errors import KernelUnavailableError
from genomamba.kernels import causal_conv1d

BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
# The reference is torch's own SiLU, whose last bits depend on where in memory a value lies.
EITHER_IMPL = pytest.mark.parametrize("impl", ["cpu", "reference"])
EXACT = {"cpu": ("y", "final_state"), "reference": ("final_state",)}


def draw(
    batch: int, length: int, channels: int, taps: int, *, bias: bool = True, state: bool = True, seed: int = 0
) -> Values:
    """fp64 inputs whose values fp32 holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"x": (batch, length, channels), "weight": (channels, taps)}
    if bias:
        shapes["bias"] = (channels,)
    if state:
        shapes["initial_state"] = (batch, taps - 1, channels)
    return {name: torch.randn(shape, generator=generator).double() for name, shape in shapes.items()}


def convolve(values: Values, *, impl: str = "cpu", **flags: Any) -> tuple[Tensor, Tensor]:
    flags.setdefault("silu", True)
    return causal_conv1d(**values, return_final_state=True, impl=impl, **flags)  # type: ignore[arg-type, return-value]


def results(
    values: Values,
    run: Any = None,
    *,
    dtype: torch.dtype = torch.float32,
    along: tuple[Tensor, Tensor] | None = None,
    **flags: Any,
) -> Values:
    """y, the final state, and under ``d <name>`` every gradient, taken along given or fixed directions."""
    given = {name: v.detach().to(dtype).requires_grad_() for name, v in values.items()}
    y, final = run(given) if run else convolve(given, **flags)
    gy, g_final = along or (direction(y, 1), direction(final, 2))
    loss = (y * gy.to(y)).sum() + (final * g_final.to(final)).sum()
    gradients = torch.autograd.grad(loss, list(given.values()), allow_unused=True, materialize_grads=True)
    found = {"y": y.detach(), "final_state": final.detach()}
    return found | {f"d {name}": g for name, g in zip(given, gradients, strict=True)}


@EITHER_IMPL
@pytest.mark.parametrize("taps", [1, 2, 4])
def test_agrees_with_torch(taps: int, impl: str) -> None:
    values = draw(2, 9, 3, taps)
    y, _ = convolve(values, impl=impl)
    padded = torch.cat([values["initial_state"], values["x"]], dim=1).mT
    expected = F.silu(F.conv1d(padded, values["weight"][:, None], values["bias"], groups=3)).mT
    torch.testing.assert_close(y, expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    length=st.sampled_from([1, 2, 3, 63, 64, 65, 130]),
    channels=st.sampled_from([1, 3, 64, 67]),
    taps=st.integers(1, 5),
    flags=st.sets(st.sampled_from("bsir<")).map("".join),
)
def test_values_and_every_gradient_agree(length: int, channels: int, taps: int, flags: str) -> None:
    values = draw(2, length, channels, taps, bias="b" in flags, state="i" in flags)
    reset = marks(2, length, every=4) if "r" in flags else None
    options: dict[str, Any] = {"silu": "s" in flags, "reset": reset, "reverse": "<" in flags}
    expected = results(values, impl="reference", dtype=torch.float64, **options)
    assert_agree(results(values, **options), expected)
    assert_agree(results(values, dtype=torch.float64, **options), expected, tolerance=1e-12)


def test_long_enough_for_spans_of_several_chunks() -> None:
    values, reset = draw(1, 2100, 2, 4), marks(1, 2100)
    assert_agree(results(values, reset=reset), results(values, impl="reference", dtype=torch.float64, reset=reset))


@EITHER_IMPL
@BOTH_WAYS
@pytest.mark.parametrize("cuts", [[1], [2, 2, 3, 4], [64, 65, 90]])
def test_segments_give_what_the_whole_gives(cuts: list[int], reverse: bool, impl: str) -> None:
    length = 99 if cuts[-1] > 64 else 6
    values, reset = draw(2, length, 5, 4), marks(2, length, every=4)
    reset[0] = False
    spans = list(itertools.pairwise([0, *cuts, length]))

    def in_segments(given: Values) -> tuple[Tensor, Tensor]:
        state, ys = given["initial_state"], []
        for start, end in reversed(spans) if reverse else spans:
            segment = given | {"x": given["x"][:, start:end], "initial_state": state}
            y, state = convolve(segment, impl=impl, reset=reset[:, start:end], reverse=reverse)
            ys.append(y)
        return torch.cat(ys[::-1] if reverse else ys, dim=1), state

    whole = results(values, impl=impl, reset=reset, reverse=reverse)
    segments = results(values, in_segments)
    assert_same_bits(segments, {name: whole[name] for name in EXACT[impl]})
    assert_agree(segments, whole)


@EITHER_IMPL
@BOTH_WAYS
def test_packed_gives_what_unpacked_gives(reverse: bool, impl: str) -> None:
    edges = [0, 1, 3, 40, 75]
    values = draw(1, edges[-1], 5, 4, state=False)
    reset = torch.zeros(1, edges[-1], dtype=torch.bool)
    reset[0, edges[:-1]] = True

    def unpacked(given: Values) -> tuple[Tensor, Tensor]:
        pairs = [
            convolve(given | {"x": given["x"][:, start:end]}, impl=impl, reverse=reverse)
            for start, end in itertools.pairwise(edges)
        ]
        # In reverse, the wall before the first token shuts the final state out.
        return torch.cat([y for y, _ in pairs], dim=1), torch.zeros(1, 3, 5) if reverse else pairs[-1][1]

    packed = results(values, impl=impl, reset=reset, reverse=reverse)
    apart = results(values, unpacked)
    assert_same_bits(packed, {name: apart[name] for name in EXACT[impl]})
    assert_agree(packed, apart)


@EITHER_IMPL
def test_reverse_is_a_flip(impl: str) -> None:
    values, reset = draw(2, 70, 5, 4), marks(2, 70)
    seen = torch.zeros_like(reset)
    seen[:, 1:] = reset[:, 1:].flip(1)

    def flipped(given: Values) -> tuple[Tensor, Tensor]:
        flips = {name: v.flip(1) if name in ("x", "initial_state") else v for name, v in given.items()}
        y, final = convolve(flips, impl=impl, reset=seen)
        return y.flip(1), torch.where(reset[:, :1, None], torch.zeros_like(final), final).flip(1)

    whole, other = results(values, impl=impl, reset=reset, reverse=True), results(values, flipped)
    assert_same_bits(other, {name: whole[name] for name in EXACT[impl]})
    assert_agree(other, whole)


@BOTH_WAYS
@EITHER_IMPL
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nothing_crosses_a_wall_or_a_row(poison: float, impl: str, reverse: bool) -> None:
    values = draw(2, 40, 5, 4)
    reset = torch.zeros(2, 40, dtype=torch.bool)
    reset[:, 20] = True
    sick, well = (slice(20, 40), slice(0, 20)) if reverse else (slice(0, 20), slice(20, 40))
    spoilt = {name: v.clone() for name, v in values.items()}
    spoilt["x"][0, sick] = poison
    spoilt["initial_state"][0] = poison

    def apart(values: Values, poison_gradient: bool) -> Values:
        given = {name: v.float().requires_grad_() for name, v in values.items()}
        y, final = convolve(given, impl=impl, reset=reset, reverse=reverse)
        gy = direction(y, 1)
        if poison_gradient:
            gy[0, sick] = poison
        (gx,) = torch.autograd.grad((y, final), given["x"], (gy, direction(final, 2)))
        named = {"y": y.detach(), "final": final.detach(), "d x": gx}
        return {f"{k} well": v[0, well if v.shape[1] == 40 else slice(None)] for k, v in named.items()} | {
            f"{k} row": v[1] for k, v in named.items()
        }

    expected = apart(values, poison_gradient=False)
    assert all(v.isfinite().all() for v in expected.values())
    assert_same_bits(apart(spoilt, poison_gradient=False), expected)
    assert_same_bits(apart(spoilt, poison_gradient=True), expected)


@BOTH_WAYS
def test_gradcheck(reverse: bool) -> None:
    values = {name: v.requires_grad_() for name, v in draw(2, 6, 3, 3).items()}
    reset = marks(2, 6)

    def run(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return convolve(dict(zip(values, tensors, strict=True)), reset=reset, reverse=reverse)

    assert gradcheck(run, tuple(values.values()))


def test_second_derivatives_are_refused() -> None:
    values = {name: v.requires_grad_() for name, v in draw(1, 3, 2, 2).items()}
    y, _ = convolve(values)
    with pytest.raises(KernelUnavailableError, match="second derivatives"):
        torch.autograd.grad(y.sum(), values["x"], create_graph=True)


def test_same_bits_every_time_on_any_number_of_threads() -> None:
    values, reset = draw(3, 300, 70, 4), marks(3, 300)
    expected = results(values, reset=reset)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 2, 5):
            torch.set_num_threads(count)
            assert_same_bits(results(values, reset=reset), expected)
    finally:
        torch.set_num_threads(threads)


def test_batch_neighbours_change_no_bit() -> None:
    values, reset = draw(3, 70, 70, 4), marks(3, 70)
    together = results(values, reset=reset)
    along = direction(together["y"], 1), direction(together["final_state"], 2)
    for b in range(3):
        row = {name: v[b : b + 1] if v.dim() == 3 else v for name, v in values.items()}
        alone = results(row, reset=reset[b : b + 1], along=(along[0][b : b + 1], along[1][b : b + 1]))
        names = ("y", "final_state", "d x", "d initial_state")
        assert_same_bits(alone, {name: together[name][b : b + 1] for name in names})


def test_strided_inputs() -> None:
    values = draw(2, 33, 6, 4)

    def run(given: Values) -> tuple[Tensor, Tensor]:
        inner = torch.cat([given["x"], given["x"]], dim=2)
        return convolve(given | {"x": inner[..., 6:], "weight": given["weight"].T.contiguous().T})

    plain = results(values)
    assert_same_bits(results(values, run), plain)
    expanded = results({"x": values["x"][:1].mT.contiguous().mT, **{k: values[k] for k in ("weight", "bias")}})
    assert_same_bits(
        expanded, results({k: v[:1] if k == "x" else v for k, v in values.items() if k != "initial_state"})
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_fp32_within(dtype: torch.dtype) -> None:
    values = {name: v.to(dtype).double() for name, v in draw(2, 33, 5, 4).items()}
    along = direction(values["x"], 1).to(dtype), torch.zeros_like(values["initial_state"])
    expected = results(values, along=along)
    rounded = {name: v.to(dtype) for name, v in expected.items()}
    assert_same_bits(results(values, dtype=dtype, along=along), rounded)


@EITHER_IMPL
@BOTH_WAYS
@pytest.mark.parametrize("shape", [(0, 5, 3, 4), (2, 0, 3, 4), (2, 5, 0, 4)])
def test_nothing_to_convolve(shape: tuple[int, int, int, int], reverse: bool, impl: str) -> None:
    values = draw(*shape)
    reset = torch.zeros(shape[:2], dtype=torch.bool)
    found = results(values, impl=impl, reset=reset, reverse=reverse)
    assert found["y"].shape == shape[:3]
    assert found["final_state"].shape == values["initial_state"].shape
    if shape[1] == 0:
        assert torch.equal(found["final_state"].double(), values["initial_state"])


def test_the_final_state_holds_no_more_than_itself() -> None:
    values = {name: v.float() for name, v in draw(2, 33, 6, 4).items()}
    _, final = convolve(values)
    assert final.untyped_storage().nbytes() == final.numel() * 4


def test_shapes_that_do_not_fit() -> None:
    values = {name: v.float() for name, v in draw(1, 5, 3, 4).items()}
    with pytest.raises(ValueError, match="initial_state has shape"):
        convolve(values | {"initial_state": torch.zeros(1, 4, 3)})
    with pytest.raises(ValueError, match="expected \\(B, L, D\\) and \\(D, K\\)"):
        convolve(values | {"x": torch.zeros(1, 3)})
    with pytest.raises(ValueError, match="reset has dtype"):
        convolve(values, reset=torch.zeros(1, 5))
