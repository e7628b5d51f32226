"""What a launch finds of what was compiled before. A stand-in takes the place of Triton's function; the kernels' own
tests on a GPU launch them often enough to go this way."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genomamba.kernels import launching
from genomamba.kernels.launching import Kernel


class Jit:
    """Compiles by noting it; what is compiled notes with what it was launched."""

    def __init__(self, *names: str) -> None:
        self.__name__ = "noted"
        self.params = [SimpleNamespace(name=name, is_constexpr=name.isupper()) for name in names]
        self.compiled: list[Any] = []
        self.launched: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def compile(*args: Any, **constants: Any) -> Any:
            self.compiled.append((grid, args, constants))
            return Compiled(self)

        return compile


class Compiled:
    def __init__(self, jit: Jit) -> None:
        self.jit = jit

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        return lambda *args: self.jit.launched.append((grid, args))


def test_the_second_launch_asks_nobody_and_gives_everything_in_its_place() -> None:
    jit = Jit("x", "y", "length", "WIDE", "FLAG")
    kernel = Kernel(jit)
    x, y = torch.zeros(8), torch.zeros(8)
    kernel.launch((3,), (x, y), (8,), FLAG=True, WIDE=4, num_warps=1)
    kernel.launch((5, 2), (y, x), (8,), FLAG=True, WIDE=4, num_warps=1)
    assert len(jit.compiled) == 1
    (grid, args) = jit.launched[0]
    assert grid == (5, 2, 1)
    assert args[0] is y
    assert args[1] is x
    assert args[2:] == (8, 4, True)


def test_what_would_be_compiled_anew_is() -> None:
    jit = Jit("x", "length", "WIDE")
    kernel = Kernel(jit)
    x = torch.zeros(8)
    for tensor, length, wide, warps in (
        (x, 8, 4, 1),
        (x, 1, 4, 1),
        (x, 8, 2, 1),
        (x, 8, 4, 2),
        (x.half(), 8, 4, 1),
    ):
        kernel.launch((1,), (tensor,), (length,), WIDE=wide, num_warps=warps)
    assert len(jit.compiled) == 5
    assert not jit.launched


def test_a_pointer_that_is_not_aligned_is_left_to_triton() -> None:
    jit = Jit("x", "y", "WIDE")
    kernel = Kernel(jit)
    x = torch.zeros(9)
    for pair in ((x[1:], x), (x[1:], x), (x, x[1:])):
        kernel.launch((1,), pair, (), WIDE=4)
    assert len(jit.compiled) == 3
    kernel.launch((1,), (x, x), (), WIDE=4)
    kernel.launch((1,), (x, x), (), WIDE=4)
    assert (len(jit.compiled), len(jit.launched)) == (4, 1)


def test_not_more_is_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_MOST", 2)
    jit = Jit("x", "length", "WIDE")
    kernel = Kernel(jit)
    x = torch.zeros(8)
    for length in (1, 2, 3, 3, 1):
        kernel.launch((1,), (x,), (length,), WIDE=4)
    assert [args[1] for _, args, _ in jit.compiled] == [1, 2, 3, 1]
    assert [args[1] for _, args in jit.launched] == [3]


def test_constants_stand_last() -> None:
    kernel = Kernel(Jit("x", "WIDE", "length"))
    with pytest.raises(TypeError, match="noted: constants stand among its other parameters"):
        kernel.launch((1,), (torch.zeros(8),), (8,), WIDE=4)


@pytest.mark.parametrize(
    "module",
    [
        "selective_scan.triton_forward",
        "selective_scan.triton_rebuild",
        "selective_scan.triton_gradient",
        "rms_norm.triton_kernels",
        "causal_conv1d.triton_kernels",
    ],
)
def test_every_kernel_has_its_parameters_in_this_order(module: str) -> None:
    pytest.importorskip("triton")
    kernels = [each for each in vars(import_module(f"genomamba.kernels.{module}")).values() if isinstance(each, Kernel)]
    assert kernels
    for kernel in kernels:
        parameters = inspect.signature(kernel.jit.fn).parameters.values()
        constant = [parameter.annotation == "tl.constexpr" for parameter in parameters]
        assert constant == sorted(constant)
        assert all(parameter.default is inspect.Parameter.empty for parameter in parameters)
