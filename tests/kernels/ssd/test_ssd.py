"""Mamba-2's scan: the matrix form against the equations, split anywhere, walled anywhere, in both directions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.kernels.selective_scan import selective_scan
from genomamba.kernels.ssd import ssd
from genomamba.kernels.ssd.chunked import ssd_chunked
from genomamba.kernels.ssd.reference import ssd_reference


def inputs(batch: int, length: int, heads: int, width: int, groups: int, states: int, dtype: torch.dtype) -> dict:
    return {
        "x": torch.randn(batch, length, heads, width, dtype=dtype),
        "dt": torch.randn(batch, length, heads, dtype=dtype),
        "A": -torch.rand(heads, dtype=dtype) * 4 - 0.1,
        "B": torch.randn(batch, length, groups, states, dtype=dtype),
        "C": torch.randn(batch, length, groups, states, dtype=dtype),
        "D": torch.randn(heads, dtype=dtype),
        "dt_bias": torch.randn(heads, dtype=dtype),
        "initial_state": torch.randn(batch, heads, width, states, dtype=dtype),
    }


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(0, 150),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 3), (2, 1)]),
    reverse=st.booleans(),
    walls=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_matrix_form_equals_the_equations_in_values_and_gradients(
    length: int, heads: tuple[int, int], reverse: bool, walls: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    given_ = inputs(2, length, heads[0], 3, heads[1], 5, torch.float64)
    reset = torch.rand(2, length) < 0.05 if walls else None
    leaves = {name: t.requires_grad_() for name, t in given_.items()}
    results = []
    for impl in ("reference", "chunked"):
        y, h = ssd(**leaves, reset=reset, reverse=reverse, dt_softplus=True, return_final_state=True, impl=impl)
        loss = (y * y.detach().cos()).sum() + (h * h.detach().sin()).sum()
        results.append((y, h, *torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_fp32_keeps_the_digits_of_small_steps_behind_large_ones() -> None:
    given_ = inputs(1, 64, 1, 2, 1, 4, torch.float32)
    del given_["dt_bias"], given_["initial_state"]
    given_["A"] = torch.tensor([-16.0])
    given_["dt"] = torch.full((1, 64, 1), 1e-3)
    given_["dt"][:, :8] = 300.0
    exact = ssd(**{name: t.double() for name, t in given_.items()}, impl="reference")
    assert isinstance(exact, torch.Tensor)
    mine = ssd(**given_)
    assert isinstance(mine, torch.Tensor)
    error = (mine.double() - exact)[:, 8:].abs().max() / exact[:, 8:].abs().max()
    assert error < 1e-6


@pytest.mark.parametrize("cuts", [(1, 2, 3), (64,), (63, 65), (7, 70, 128)])
@pytest.mark.parametrize("reverse", [False, True])
def test_any_split_gives_what_the_whole_gives(cuts: tuple[int, ...], reverse: bool) -> None:
    given_ = inputs(2, 140, 4, 3, 2, 5, torch.float32)
    reset = torch.zeros(2, 140, dtype=torch.bool)
    reset[0, 64] = reset[1, 100] = True
    state = given_.pop("initial_state")
    along = {name: given_.pop(name) for name in ("x", "dt", "B", "C")}
    whole, last = ssd(**along, **given_, reset=reset, initial_state=state, reverse=reverse, return_final_state=True)
    spans = list(zip((0, *cuts), (*cuts, 140), strict=True))
    pieces = {}
    for start, end in reversed(spans) if reverse else spans:
        part = {name: t[:, start:end] for name, t in along.items()}
        pieces[start], state = ssd(
            **part, **given_, reset=reset[:, start:end], initial_state=state, reverse=reverse, return_final_state=True
        )
    torch.testing.assert_close(torch.cat([pieces[start] for start, _ in spans], 1), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-4)


def test_with_one_channel_per_head_it_is_the_selective_scan() -> None:
    given_ = inputs(2, 90, 6, 1, 1, 4, torch.float64)
    y = ssd(**given_, dt_softplus=True)
    same = selective_scan(
        given_["x"].squeeze(-1),
        given_["dt"],
        given_["A"][:, None].expand(6, 4),
        given_["B"].squeeze(2),
        given_["C"].squeeze(2),
        given_["D"],
        dt_bias=given_["dt_bias"],
        initial_state=given_["initial_state"].squeeze(2),
        dt_softplus=True,
        impl="reference",
    )
    assert isinstance(y, torch.Tensor)
    torch.testing.assert_close(y.squeeze(-1), same, rtol=1e-10, atol=1e-10)


def test_step_sizes_are_clamped_and_skip_weights_may_be_per_channel() -> None:
    given_ = inputs(1, 20, 2, 3, 1, 4, torch.float64)
    given_["D"] = torch.randn(2, 3, dtype=torch.float64)
    limited = ssd(**given_, dt_softplus=True, dt_limit=(0.5, 1.0))
    step = torch.nn.functional.softplus(given_["dt"] + given_["dt_bias"]).clamp(0.5, 1.0)
    h = given_["initial_state"][0]
    for t in range(20):
        x, b, c = given_["x"][0, t], given_["B"][0, t, 0], given_["C"][0, t, 0]
        h = torch.exp(step[0, t] * given_["A"])[:, None, None] * h + (step[0, t, :, None] * x)[..., None] * b
        assert isinstance(limited, torch.Tensor)
        torch.testing.assert_close(limited[0, t], h @ c + given_["D"] * x)


def test_chunk_size_changes_nothing() -> None:
    given_ = inputs(1, 50, 2, 3, 1, 4, torch.float64)
    args = (given_["x"], given_["dt"].exp(), given_["A"], given_["B"], given_["C"], None, None, False)
    expected, _ = ssd_reference(*args)
    for chunk in (1, 7, 50, 64):
        torch.testing.assert_close(ssd_chunked(*args, chunk=chunk)[0], expected, rtol=1e-9, atol=1e-9)


def test_autocast_leaves_state_and_products_in_fp32() -> None:
    given_ = inputs(1, 50, 2, 3, 1, 4, torch.float32)
    y, h = ssd(**given_, dt_softplus=True, return_final_state=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y_cast, h_cast = ssd(**given_, dt_softplus=True, return_final_state=True)
    assert torch.equal(y, y_cast)
    assert torch.equal(h, h_cast)


def test_shapes_that_do_not_fit_are_named() -> None:
    given_ = inputs(1, 5, 4, 3, 2, 4, torch.float32)
    with pytest.raises(ValueError, match=r"dt has shape \(1, 5, 3\); x and B ask for \(1, 5, 4\)"):
        ssd(**{**given_, "dt": given_["dt"][..., :3]})
    with pytest.raises(ValueError, match="G dividing H"):
        ssd(**{**given_, "B": torch.zeros(1, 5, 3, 4)})
