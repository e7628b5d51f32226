"""The Triton scan against the equations in fp64, and the laws that it promises.

With a GPU it runs there; without one, in Triton's interpreter, where sizes have to be small: every token and
state costs Python time. A chunk has 32 steps at these sizes, a kept state every 4.
"""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scan_cases import Values, assert_agree, assert_same_bits, draw, marks, piece, results, scan
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genomamba.errors import KernelUnavailableError
from genomamba.kernels import selective_scan

pytest.importorskip("triton")
triton_launch = importlib.import_module("genomamba.kernels.selective_scan.triton_launch")
# The interpreter computes with NumPy, which warns where a GPU gives inf or NaN in silence.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# length, channels, states, batch; which of z, D, dt_bias (b), softplus (s), initial state (h), resets (r), reverse (<).
SMALL = [
    (1, 1, 1, 1, "zDbsh"),
    (2, 3, 4, 1, "s<hr"),
    (3, 2, 12, 2, "zbhr"),
    (5, 33, 4, 1, "zDbsh<"),
    (5, 2, 20, 1, "zDbshr"),
    (33, 3, 8, 1, "zDbshr"),
    (65, 1, 2, 1, "zDbshr<"),
]
LARGE = [
    *[(length, 8, 16, 1, "zDbsh") for length in (1, 2, 3, 31, 33, 64, 997)],
    *[(100, channels, 16, 1, "zDbshr") for channels in (1, 96, 100, 2048)],
    *[(301, 40, states, 3, flags) for states in (1, 4, 8, 12, 16, 64) for flags in ("zDbshr", "zDbshr<")],
    (301, 128, 16, 3, "zDbshr<"),
    (10_007, 96, 16, 2, "zDbshr"),
    (10_007, 33, 16, 1, "s<"),
]


def case(length: int, channels: int, states: int, batch: int, flags: str) -> tuple[Values, dict[str, Any]]:
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
    if "s" not in flags:
        values["dt"] = values["dt"].abs() / 4
    reset = marks(batch, length).to(DEVICE) if "r" in flags else None
    return on_device(values), {"dt_softplus": "s" in flags, "reset": reset, "reverse": "<" in flags}


def on_device(values: Values) -> Values:
    return {name: v.to(DEVICE) for name, v in values.items()}


@pytest.mark.parametrize(("length", "channels", "states", "batch", "flags"), SMALL)
def test_agrees_with_the_reference(length: int, channels: int, states: int, batch: int, flags: str) -> None:
    values, options = case(length, channels, states, batch, flags)
    expected = results(values, dtype=torch.float64, impl="reference", **options)
    assert_agree(results(values, impl="triton", **options), expected)


@pytest.mark.parametrize("flags", ["zDbshr", "s<"])
def test_one_walk_over_all_chunks_agrees(flags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where rows and channels fill the GPU by themselves: states between chunks are kept on the way."""
    cut = triton_launch.plan

    def in_one(batch: int, length: int, channels: int, states: int) -> Any:
        chosen = cut(batch, length, channels, states)
        assert chosen.n_spans == chosen.n_chunks > 1
        return chosen._replace(span=chosen.chunk * chosen.n_chunks, n_spans=1)

    monkeypatch.setattr(triton_launch, "plan", in_one)
    values, options = case(67, 2, 4, 1, flags)
    expected = results(values, dtype=torch.float64, impl="reference", **options)
    assert_agree(results(values, impl="triton", **options), expected)


@pytest.mark.parametrize(("flags", "length"), [("zDbshr<", 9), ("s", 9), ("zDbsh", 9), ("zDbsh", 72), ("zDsh<", 36)])
def test_steps_between_tokens_that_are_compiled_in_agree(
    flags: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_launch, "_WIDTHS", 1)
    values, options = case(length, 2, 2, 2, flags)

    def run(given: Values) -> tuple[Tensor, Tensor]:
        if "z" in given:  # as half of a projection
            given = given | {"z": torch.cat((given["u"], given["z"]), -1)[..., 2:]}
        assert triton_launch.known_strides(given.get("z"), given["u"], given["dt"]) == (2, 2 if "z" in given else 1)
        return scan(given, impl="triton", **options)

    assert_agree(results(values, run), results(values, dtype=torch.float64, impl="reference", **options))


def test_steps_are_compiled_in_for_the_widths_of_models() -> None:
    wide, narrow = torch.zeros(1, 3, 256), torch.zeros(1, 3, 96)
    assert triton_launch.known_strides(torch.zeros(1, 3, 512)[..., 256:], wide, wide) == (256, 2)
    assert triton_launch.known_strides(None, wide, torch.zeros(1, 3, 512)[..., :256]) == (0, 1)
    assert triton_launch.known_strides(torch.zeros(1, 256, 3).mT, wide) == (0, 1)
    assert triton_launch.known_strides(None, narrow, narrow) == (0, 1)


@pytest.mark.gpu
@pytest.mark.parametrize(("length", "channels", "states", "batch", "flags"), LARGE)
def test_agrees_with_the_reference_at_size(length: int, channels: int, states: int, batch: int, flags: str) -> None:
    values, options = case(length, channels, states, batch, flags)
    expected = results(values, dtype=torch.float64, impl="reference", **options)
    assert_agree(results(values, impl="triton", **options), expected)


@pytest.mark.gpu
def test_agrees_at_a_million_tokens() -> None:
    values = draw(1, 2**20 + 1, 4, 16)
    expected = results(values, dtype=torch.float64, impl="cpu")
    found = results(on_device(values), impl="triton")
    assert_agree({name: v.cpu() for name, v in found.items()}, expected, 2e-5)


def test_any_split_gives_what_the_whole_gives() -> None:
    values, options = case(9, 2, 2, 1, "zDbshr<")
    whole = results(values, impl="triton", **options)

    def in_two(given: Values) -> tuple[Tensor, Tensor]:
        reset = options["reset"]
        later, state = scan(piece(given, 4, 9), impl="triton", dt_softplus=True, reverse=True, reset=reset[:, 4:])
        # The mark on token 4 lies between the pieces: the later one has cut there what it hands on.
        first = piece(given, 0, 4) | {"initial_state": state}
        earlier, state = scan(first, impl="triton", dt_softplus=True, reverse=True, reset=reset[:, :4])
        return torch.cat([earlier, later], 1), state

    assert_agree(results(values, in_two), whole)


def test_reverse_is_the_flip_of_forward() -> None:
    values, _ = case(6, 2, 2, 1, "zDbsh")
    flipped = {name: v.flip(1) if v.dim() == 3 and name != "initial_state" else v for name, v in values.items()}
    y, final = scan(values_in(values, torch.float32), impl="triton", reverse=True)
    y_flipped, final_flipped = scan(values_in(flipped, torch.float32), impl="triton")
    assert_same_bits({"y": y, "h": final}, {"y": y_flipped.flip(1), "h": final_flipped})


def values_in(values: Values, dtype: torch.dtype) -> Values:
    return {name: v.to(dtype) for name, v in values.items()}


@pytest.mark.parametrize("reverse", [False, True])
def test_nothing_crosses_a_reset_or_a_row(reverse: bool) -> None:
    values, _ = case(4, 2, 2, 2, "zDbsh")
    reset = torch.zeros(2, 4, dtype=torch.bool, device=DEVICE)
    reset[:, 2] = True
    clean = results(values, impl="triton", reset=reset, reverse=reverse)
    spoilt = {name: v.clone() for name, v in values.items()}
    rows = slice(0, 2) if not reverse else slice(2, 4)
    others = slice(2, 4) if not reverse else slice(0, 2)
    spoilt["u"][0, rows] = float("nan")
    spoilt["initial_state"][0] = float("inf")
    found = results(spoilt, impl="triton", reset=reset, reverse=reverse)
    for name in ("y", "d u", "d dt", "d B", "d C", "d z"):
        assert torch.equal(found[name][1], clean[name][1]), name
        assert torch.equal(found[name][0, others], clean[name][0, others]), name
    assert not found["y"][0, rows].isfinite().any()
    assert torch.equal(found["final_state"], clean["final_state"])


def test_twice_the_same_bits_whatever_the_neighbours_are() -> None:
    values, options = case(6, 2, 2, 2, "zDbsh")
    first = results(values, impl="triton", **options)
    assert_same_bits(results(values, impl="triton", **options), first)
    other = {name: v.clone() for name, v in values.items()}
    for name in ("u", "dt", "B", "C", "z", "initial_state"):
        other[name][1] *= 2
    found = results(other, impl="triton", **options)
    for name in ("y", "final_state", "d u", "d dt", "d B", "d C", "d z", "d initial_state"):
        assert torch.equal(found[name][0], first[name][0]), name


def test_extreme_steps_and_decays() -> None:
    values, _ = case(6, 2, 2, 1, "zDs")
    values["dt"] = torch.tensor([-40.0, -15, 0, 20 - 1e-3, 20 + 1e-3, 80], dtype=torch.float64, device=DEVICE)
    values["dt"] = values["dt"][None, :, None].expand(1, 6, 2)
    values["A"] = torch.tensor([[-1e-6, -10_000], [-1, -1e-3]], dtype=torch.float64, device=DEVICE)
    expected = results(values, dtype=torch.float64, impl="reference")
    assert_agree(results(values, impl="triton"), expected, 2e-5)


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float16, torch.bfloat16)])
def test_mixed_dtypes_round_only_what_is_written(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    values, _ = case(5, 2, 4, 1, "zDbsh")
    kinds = dict.fromkeys(("u", "z", "B"), dtypes[0]) | dict.fromkeys(("dt", "C"), dtypes[1])
    narrow = {name: v.to(kinds.get(name, torch.float32)) for name, v in values.items()}
    leaves = {name: v.detach().requires_grad_() for name, v in narrow.items()}
    y, final = scan(leaves, impl="triton")
    assert y.dtype == dtypes[0]
    assert final.dtype == torch.float32
    y.float().sum().backward()
    expected = results({name: v.double() for name, v in narrow.items()}, dtype=torch.float64, impl="reference")
    assert_agree({"y": y.detach()}, {"y": expected["y"]}, 2**-8)
    assert_agree({"h": final.detach()}, {"h": expected["final_state"]})
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert leaf.grad.dtype == leaf.dtype, name


def test_views_of_any_stride() -> None:
    values, _ = case(5, 4, 4, 1, "zDbs")
    expected = results(values, impl="triton")
    wide = torch.cat([values["u"], values["z"]], 2).float()
    channel_first = values["dt"].float().transpose(1, 2).contiguous().transpose(1, 2)
    strided = values_in(values, torch.float32) | {"u": wide[..., :4], "z": wide[..., 4:], "dt": channel_first}
    y, final = scan(strided, impl="triton")
    assert_same_bits({"y": y, "final_state": final}, {name: expected[name] for name in ("y", "final_state")})


@pytest.mark.skipif(DEVICE.type == "cuda", reason="memory that is committed when written is the CPU's")
def test_offsets_beyond_32_bits() -> None:
    values = values_in(case(3, 2, 4, 1, "Ds")[0], torch.float32)
    far = torch.from_numpy(np.zeros(2**32 + 2, np.float16)).as_strided((1, 3, 2), (0, 2**31, 1))
    far.copy_(values["u"])
    y, _ = scan(values | {"u": far}, impl="triton")
    expected, _ = scan(values | {"u": values["u"].half()}, impl="triton")
    assert torch.equal(y, expected)


def test_a_second_backward_is_refused() -> None:
    values = {name: v.float().requires_grad_() for name, v in case(2, 1, 1, 1, "s")[0].items()}
    y, _ = scan(values, impl="triton")
    (gradient,) = torch.autograd.grad(y.sum(), values["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative; use impl='reference'"):
        gradient.sum().backward()


def test_fp64_and_too_many_states_are_refused() -> None:
    values, _ = case(1, 1, 1, 1, "s")
    with pytest.raises(KernelUnavailableError, match="computes in fp32; use impl='reference'"):
        scan(values, impl="triton")
    many = values_in(draw(1, 1, 1, 257), torch.float32)
    with pytest.raises(KernelUnavailableError, match="257 states"):
        scan(on_device(many), impl="triton")


def test_without_a_gpu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    values = values_in(draw(1, 1, 1, 1), torch.float32)
    with pytest.raises(KernelUnavailableError, match=r"needs an NVIDIA GPU; move them to 'cuda', or use impl='auto'"):
        scan(values, impl="triton")


def test_nothing_in_nothing_out() -> None:
    values = {name: v.float().to(DEVICE).requires_grad_() for name, v in draw(2, 0, 3, 4).items()}
    y, final = scan(values, impl="triton")
    assert y.shape == (2, 0, 3)
    assert torch.equal(final, values["initial_state"])


@pytest.mark.parametrize("kept", [("z", "D", "dt_bias", "initial_state"), ()])
def test_operator_rules(kept: tuple[str, ...]) -> None:
    from genomamba.kernels.selective_scan.triton import _scan

    values = values_in(case(2, 2, 2, 1, "zDbsh")[0], torch.float32)
    optional = [values[n].requires_grad_() if n in kept else None for n in ("D", "z", "dt_bias", "initial_state")]
    given = [values[name].requires_grad_() for name in ("u", "dt", "A", "B", "C")]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(_scan, (*given, *optional, None, True, False), test_utils=tests)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_traces_whole_with_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a compiler is shown, with gradients; a GPU's own compiler is the next test's."""
    if DEVICE.type == "cpu":  # the interpreter's switch is no tensor, and not to be traced
        monkeypatch.setattr(importlib.import_module("genomamba.kernels.selective_scan.triton"), "check_runnable", any_)
    compiled = torch.compile(
        lambda given: selective_scan(**given, dt_softplus=True, impl="triton"),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    for length in (5, 9):
        given = {n: v.requires_grad_() for n, v in values_in(case(length, 8, 4, 1, "zDbsh")[0], torch.float32).items()}
        both = []
        for run in (compiled, lambda given: selective_scan(**given, dt_softplus=True, impl="triton")):
            y = run(given)
            both.append([y, *torch.autograd.grad(y.square().sum(), list(given.values()))])
        assert all(torch.equal(first, second) for first, second in zip(*both, strict=True))


def any_(*_: Any, **__: Any) -> None:
    """Everything can be run."""


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiles_whole_with_any_length() -> None:
    compiled = torch.compile(
        lambda given: selective_scan(**given, dt_softplus=True, impl="triton"), fullgraph=True, dynamic=True
    )
    for length in (300, 700):
        values, _ = case(length, 64, 16, 1, "zDbsh")
        given = values_in(values, torch.float32)
        assert torch.equal(compiled(given), selective_scan(**given, dt_softplus=True, impl="triton"))


@pytest.mark.gpu
def test_replays_as_a_graph_and_checkpoints() -> None:
    values, _ = case(500, 64, 16, 1, "zDbsh")
    given = {name: v.float().requires_grad_() for name, v in values.items()}

    def step() -> list[Tensor]:
        y = checkpoint(
            lambda u: selective_scan(**(given | {"u": u}), dt_softplus=True), given["u"], use_reentrant=False
        )
        return list(torch.autograd.grad(y.square().sum(), list(given.values())))

    expected = [g.clone() for g in step()]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    for a, b in itertools.zip_longest(found, expected):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kept", [("z", "D", "dt_bias", "initial_state"), ()])
@pytest.mark.parametrize("asked", [("y", "final"), ("y",), ("final",)])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_operator_gives_the_bits_of_the_eager_way(
    kept: tuple[str, ...], asked: tuple[str, ...], reverse: bool
) -> None:
    from genomamba.kernels.selective_scan.triton import _scan, selective_scan_triton

    values = values_in(case(9, 8, 4, 2, "zDbsh")[0], torch.float32)
    reset = marks(2, 9).to(DEVICE) if reverse else None
    names = ("u", "dt", "A", "B", "C", "D", "z", "dt_bias")
    found, ways = [], []
    for way in (_scan, selective_scan_triton):
        own = {n: v.clone().requires_grad_() for n, v in values.items() if n in (*names[:5], *kept)}
        inputs = (*[own.get(n) for n in names], True, own.get("initial_state"), reset, reverse)
        if way is _scan:  # the operator has the flags last
            inputs = (*inputs[:8], *inputs[9:11], inputs[8], inputs[11])
        outputs = dict(zip(("y", "final"), way(*inputs)[:2], strict=True))
        ways.append(type(outputs["y"].grad_fn).__name__)
        gradients = torch.autograd.grad(
            sum(outputs[n].square().sum() for n in asked), list(own.values()), allow_unused=True
        )
        found.append([*outputs.values(), *gradients])
    assert ways[1] == "_EagerScanBackward" != ways[0]
    for first, second in zip(*found, strict=True):
        if first is None or second is None:
            assert all(each is None or not each.any() for each in (first, second))
        else:
            assert torch.equal(first, second)


def test_gradients_come_in_batches() -> None:
    """Of which an operator alone knows what to do."""
    values = values_in(case(5, 8, 4, 1, "zDbs")[0], torch.float32)
    u = values.pop("u").requires_grad_()
    y, _ = scan(values | {"u": u}, dt_softplus=True, impl="triton")
    directions = torch.randn(3, *y.shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    (batched,) = torch.autograd.grad(y, u, directions, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(y, u, each, retain_graph=True)[0] for each in directions]
    torch.testing.assert_close(batched, torch.stack(one_by_one))
