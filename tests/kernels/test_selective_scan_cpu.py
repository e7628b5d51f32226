"""The CPU scan against the equations in fp64, and the laws that it promises."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_cases import PER_TOKEN, Values, assert_agree, assert_same_bits, direction, draw, marks, piece, results, scan
from torch import Tensor
from torch.autograd import gradcheck

from genomamba.errors import KernelUnavailableError

BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
EITHER_IMPL = pytest.mark.parametrize("impl", ["cpu", "reference"])

# length, channels, states; which of z, D, dt_bias (b), softplus (s), initial state (h), resets (r), reverse (<).
CASES = [
    (1, 1, 1, "z"),
    (1, 3, 16, "Dbshr"),
    (1, 5, 4, "zbh<r"),
    (2, 5, 4, "zDbs<"),
    (2, 1, 16, "hr"),
    (3, 3, 1, "zDbshr<"),
    (3, 67, 4, ""),
    (63, 7, 4, "Ds<h"),
    (63, 1, 16, "zsr"),
    (64, 3, 1, "bshr<"),
    (64, 65, 16, "zDbs"),
    (65, 5, 16, "zDbshr"),
    (65, 129, 1, "zDbshr<"),
    (9, 1100, 2, "zDbshr"),
    (1000, 3, 16, "zDbshr"),
    (1000, 1, 4, "zs<"),
    (1000, 5, 1, "Dbsh"),
]


def case(length: int, channels: int, states: int, flags: str, batch: int = 2) -> tuple[Values, dict[str, Any]]:
    values = draw(
        batch,
        length,
        channels,
        states,
        z="z" in flags,
        D="D" in flags,
        dt_bias="b" in flags,
        initial_state="h" in flags,
    )
    softplus = "s" in flags
    if not softplus:
        values["dt"] = values["dt"].abs()
        if "b" in flags:
            values["dt_bias"] = values["dt_bias"].abs()
    reset = marks(batch, length) if "r" in flags else None
    return values, {"dt_softplus": softplus, "reset": reset, "reverse": "<" in flags}


@pytest.mark.parametrize(("length", "channels", "states", "flags"), CASES)
def test_values_and_every_gradient_agree(length: int, channels: int, states: int, flags: str) -> None:
    values, options = case(length, channels, states, flags, batch=1 if length == 1000 else 2)
    expected = results(values, impl="reference", dtype=torch.float64, **options)
    assert_agree(results(values, **options), expected)
    # 1e-9: above 20 the slope of softplus is 1 by convention here, and 1 - 2e-9 there.
    assert_agree(results(values, dtype=torch.float64, **options), expected, tolerance=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    length=st.integers(1, 70),
    channels=st.integers(1, 70),
    states=st.sampled_from([1, 2, 4, 16, 17]),
    flags=st.sets(st.sampled_from("zDbshr<")).map("".join),
)
def test_any_flags_agree(length: int, channels: int, states: int, flags: str) -> None:
    values, options = case(length, channels, states, flags)
    assert_agree(results(values, **options), results(values, impl="reference", dtype=torch.float64, **options))


def test_steep_and_flat_softplus() -> None:
    values = draw(1, 9, 1, 4, dt_bias=False)
    values["dt"] = torch.tensor([-40, -17, -15, 0, 19.999, 20, 20.001, 80, 100]).double()[None, :, None]
    expected = results(values, impl="reference", dtype=torch.float64)
    found = results(values)
    assert_agree(found, expected)
    torch.testing.assert_close(found["d dt"].double(), expected["d dt"], rtol=3e-5, atol=0)


@BOTH_WAYS
@pytest.mark.parametrize("cuts", [[1], [31, 33], [5, 5, 6, 40, 69]])
def test_segments_give_what_the_whole_gives(cuts: list[int], reverse: bool) -> None:
    values, reset = draw(2, 70, 5, 4), marks(2, 70)
    edges = [0, *cuts, 70]
    spans = list(itertools.pairwise(edges))

    def in_segments(given: Values) -> tuple[Tensor, Tensor]:
        state, ys = given["initial_state"], []
        for start, end in reversed(spans) if reverse else spans:
            segment = piece(given, start, end) | {"initial_state": state}
            y, state = scan(segment, reset=reset[:, start:end], reverse=reverse)
            ys.append(y)
        return torch.cat(ys[::-1] if reverse else ys, dim=1), state

    whole, segments = results(values, reset=reset, reverse=reverse), results(values, in_segments)
    assert_same_bits(segments, {name: whole[name] for name in ("y", "final_state")})
    assert_agree(segments, whole)
    whole = results(values, dtype=torch.float64, reset=reset, reverse=reverse)
    assert_agree(results(values, in_segments, dtype=torch.float64), whole, tolerance=1e-12)


@BOTH_WAYS
def test_packed_gives_what_unpacked_gives(reverse: bool) -> None:
    edges = [0, 1, 4, 40, 75]
    values = draw(1, edges[-1], 5, 4, initial_state=False)
    reset = torch.zeros(1, edges[-1], dtype=torch.bool)
    reset[0, edges[:-1]] = True

    def unpacked(given: Values) -> tuple[Tensor, Tensor]:
        pairs = [scan(piece(given, start, end), reverse=reverse) for start, end in itertools.pairwise(edges)]
        return torch.cat([y for y, _ in pairs], dim=1), pairs[0 if reverse else -1][1]

    packed, apart = results(values, reset=reset, reverse=reverse), results(values, unpacked)
    if reverse:  # the wall before the first token shuts the final state out
        no_final = (direction(packed["y"], 1), torch.zeros_like(packed["final_state"]))
        apart = results(values, unpacked, along=no_final) | {"final_state": torch.zeros_like(packed["final_state"])}
    assert_same_bits(packed, {name: apart[name] for name in ("y", "final_state")})
    assert_agree(packed, apart)


@BOTH_WAYS
def test_gradcheck(reverse: bool) -> None:
    values = {name: v.requires_grad_() for name, v in draw(2, 5, 3, 2).items()}
    reset = marks(2, 5)

    def run(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return scan(dict(zip(values, tensors, strict=True)), reset=reset, reverse=reverse)

    assert gradcheck(run, tuple(values.values()))


def test_second_derivatives_are_refused() -> None:
    values = {name: v.requires_grad_() for name, v in draw(1, 3, 2, 2).items()}
    y, _ = scan(values)
    with pytest.raises(KernelUnavailableError, match="second derivatives"):
        torch.autograd.grad(y.sum(), values["u"], create_graph=True)


def test_reverse_is_a_flip() -> None:
    values, reset = draw(2, 70, 5, 4), marks(2, 70)
    # A mark is a wall before its token; seen from the other end, before the token that was its predecessor.
    seen = torch.zeros_like(reset)
    seen[:, 1:] = reset[:, 1:].flip(1)

    def flipped(given: Values) -> tuple[Tensor, Tensor]:
        y, final = scan({k: v.flip(1) if k in PER_TOKEN else v for k, v in given.items()}, reset=seen)
        # The wall before the first token comes last, and shuts the final state out.
        return y.flip(1), torch.where(reset[:, 0, None, None], torch.zeros_like(final), final)

    assert_same_bits(results(values, reset=reset, reverse=True), results(values, flipped))
    assert_agree(results(values, reset=reset, reverse=True), results(values, flipped))


@BOTH_WAYS
@EITHER_IMPL
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nothing_crosses_a_wall_or_a_row(poison: float, impl: str, reverse: bool) -> None:
    values = draw(2, 40, 5, 4)
    reset = torch.zeros(2, 40, dtype=torch.bool)
    reset[:, 20] = True
    sick, well = (slice(20, 40), slice(0, 20)) if reverse else (slice(0, 20), slice(20, 40))
    spoilt = {name: v.clone() for name, v in values.items()}
    for name in PER_TOKEN:
        spoilt[name][0, sick] = poison
    spoilt["initial_state"][0] = poison

    def per_token(values: Values, poison_gradient: bool) -> Values:
        """y and the gradients of row 0 on the well side, and of row 1 everywhere."""
        given = {name: v.float().requires_grad_() for name, v in values.items()}
        y, final = scan(given, impl=impl, reset=reset, reverse=reverse)
        gy, g_final = direction(y, 1), direction(final, 2)
        if poison_gradient:
            gy[0, sick] = poison
        found = torch.autograd.grad((y, final), [given[name] for name in PER_TOKEN], (gy, g_final))
        named = {"y": y.detach()} | {f"d {name}": g for name, g in zip(PER_TOKEN, found, strict=True)}
        return {f"{k} well": v[0, well] for k, v in named.items()} | {f"{k} row": v[1] for k, v in named.items()}

    expected = per_token(values, poison_gradient=False)
    assert all(v.isfinite().all() for v in expected.values())
    assert_same_bits(per_token(spoilt, poison_gradient=False), expected)
    assert_same_bits(per_token(spoilt, poison_gradient=True), expected)


@BOTH_WAYS
def test_a_gradient_does_not_cross_a_wall(reverse: bool) -> None:
    values = draw(1, 40, 5, 4)
    reset = torch.zeros(1, 40, dtype=torch.bool)
    reset[:, 20] = True
    later, earlier = (slice(0, 20), slice(20, 40)) if reverse else (slice(20, 40), slice(0, 20))
    given = {name: v.float().requires_grad_() for name, v in values.items()}
    y, final = scan(given, reset=reset, reverse=reverse)
    gy = direction(y, 1)
    gy[:, later] = float("nan")
    (poisoned,) = torch.autograd.grad((y, final), given["u"], (gy, torch.full_like(final, float("nan"))))
    assert poisoned[:, earlier].isfinite().all()
    assert poisoned[:, later].isnan().all()


def test_nan_spreads_to_all_that_depends_on_it() -> None:
    values = {name: v.float() for name, v in draw(1, 40, 3, 4).items()}
    values["u"][0, 17, 1] = float("nan")
    y, final = scan(values)
    assert y[0, 17:, 1].isnan().all()
    assert final[0, 1].isnan().all()
    assert y[0, :17].isfinite().all()
    assert y[0, :, ::2].isfinite().all()


def test_same_bits_every_time_on_any_number_of_threads() -> None:
    values, reset = draw(3, 70, 200, 4), marks(3, 70)
    expected = results(values, reset=reset)
    assert_same_bits(results(values, reset=reset), expected)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert_same_bits(results(values, reset=reset), expected)
    finally:
        torch.set_num_threads(threads)


def test_batch_neighbours_change_no_bit() -> None:
    values, reset = draw(3, 70, 70, 4), marks(3, 70)
    together = results(values, reset=reset)
    along = direction(together["y"], 1), direction(together["final_state"], 2)
    shared = ("A", "D", "dt_bias")
    for b in range(3):
        row = {name: v if name in shared else v[b : b + 1] for name, v in values.items()}
        alone = results(row, reset=reset[b : b + 1], along=(along[0][b : b + 1], along[1][b : b + 1]))
        own = {name: v[b : b + 1] for name, v in together.items() if name.removeprefix("d ") not in shared}
        assert len(own) == 8
        assert_same_bits(alone, own)


@BOTH_WAYS
def test_the_future_changes_no_bit(reverse: bool) -> None:
    values = {name: v.float() for name, v in draw(2, 70, 5, 4).items()}
    y, _ = scan(values, reverse=reverse)
    for t in (1, 32, 33, 69):
        past, future = (slice(t, None), slice(0, t)) if reverse else (slice(0, t), slice(t, None))
        other = {name: v.clone() for name, v in values.items()}
        for name in PER_TOKEN:
            other[name][:, future] += 1
        changed, _ = scan(other, reverse=reverse)
        assert torch.equal(changed[:, past], y[:, past])
        assert not torch.equal(changed[:, future], y[:, future])


def test_strided_and_expanded_inputs() -> None:
    values = draw(2, 33, 6, 4)
    values["dt_bias"] = values["dt_bias"][:1].expand(6).clone()
    values["z"] = values["z"][:, :1].expand(2, 33, 6).clone()
    values["C"] = values["C"][:1].expand(2, 33, 4).clone()

    def run(given: Values) -> tuple[Tensor, Tensor]:
        inner = torch.cat([given["u"], given["dt"]], dim=2)
        return scan(
            given
            | {
                "u": inner[..., :6],
                "dt": inner[..., 6:],
                "A": given["A"].T.contiguous().T,
                "B": given["B"].transpose(1, 2).contiguous().transpose(1, 2),
                "C": given["C"][:1].expand(2, 33, 4),
                "z": given["z"][:, :1].expand(2, 33, 6),
                "dt_bias": given["dt_bias"][:1].expand(6),
            }
        )

    plain, strided = results(values), results(values, run)
    alike = ("y", "final_state", "d u", "d dt", "d A", "d B", "d D", "d initial_state")
    assert_same_bits(strided, {name: plain[name] for name in alike})
    assert_agree({"C": strided["d C"][0]}, {"C": plain["d C"].sum(0)})
    assert_agree({"z": strided["d z"][:, 0]}, {"z": plain["d z"].sum(1)})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_fp32_within(dtype: torch.dtype) -> None:
    values = {name: v.to(dtype).double() for name, v in draw(2, 33, 5, 4).items()}
    found = results(values, dtype=dtype)
    assert found["final_state"].dtype == torch.float32
    along = direction(found["y"], 1).to(dtype), direction(found["final_state"], 2)
    expected = results(values, along=along)
    rounded = {name: v if name == "final_state" else v.to(dtype) for name, v in expected.items()}
    assert_same_bits(found, rounded)


@pytest.mark.parametrize("shape", [(0, 5, 3, 2), (2, 0, 3, 2), (0, 0, 3, 2), (2, 5, 0, 2)])
def test_nothing_to_scan(shape: tuple[int, int, int, int]) -> None:
    values = draw(*shape)
    found = results(values)
    assert found["y"].shape == shape[:3]
    assert torch.equal(found["final_state"].double(), values["initial_state"])
    assert found["d A"].shape == values["A"].shape
    assert not found["d A"].any()


def test_concurrent_calls() -> None:
    cases = [draw(2, 70, 130, 4, seed=seed) for seed in range(4)]
    expected = [results(values) for values in cases]
    found: list[Values] = [{} for _ in cases]

    def work(i: int) -> None:
        for _ in range(3):
            found[i] = results(cases[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


FORK = """
import os, torch
from genomamba.kernels import causal_conv1d, selective_scan
torch.set_num_threads(2)
x, A, B = torch.randn(2, 70, 130), -torch.rand(130, 4), torch.randn(2, 70, 4)
run = lambda: selective_scan(causal_conv1d(x, torch.ones(130, 4), silu=True, impl="cpu"), x, A, B, B, impl="cpu")
expected = run()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(run(), expected) else 1)
_, status = os.waitpid(child, 0)
assert torch.equal(run(), expected)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_use_after_fork() -> None:
    # In a process of its own: pytest's has threads of other kinds, and Python warns of forking those.
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=120)


MEMORY = r"""
import re, torch
from pathlib import Path
from genomamba.kernels import selective_scan

def case(length):
    x = torch.randn(1, length, 512, requires_grad=True)
    return x, -torch.rand(512, 16), torch.randn(1, length, 16)

def step(x, A, B):
    selective_scan(x, x, A, B, B, z=x, impl="cpu").sum().backward()

def memory(field):
    return int(re.search(field + r":\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

step(*case(8))
large = case(8192)
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
before = memory("VmRSS")
step(*large)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the high-water mark from /proc")
def test_never_holds_a_tensor_of_all_states() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, timeout=120, capture_output=True, text=True)
    tokens = 8192 * 512 * 4
    # y, its gradient, those of u, dt and z, and their sum in x: 6 arrays of tokens, half of one of kept
    # states, and the parts of dB and dC. One tensor of all states would be 16 such arrays.
    assert 2 * tokens < int(done.stdout) < 10 * tokens


def test_shapes_and_choices_that_do_not_fit() -> None:
    values = {name: v.float() for name, v in draw(1, 3, 2, 2).items()}
    with pytest.raises(ValueError, match="B has shape"):
        scan(values | {"B": values["C"][:, :2]})
    with pytest.raises(ValueError, match="reset has dtype"):
        scan(values, reset=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="impl='fast'"):
        scan(values, impl="fast")
    with pytest.raises(KernelUnavailableError, match="move them to the CPU"):
        scan({name: v.to("meta") for name, v in values.items()})
