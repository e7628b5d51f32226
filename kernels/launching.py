"""Launches of Triton kernels that take the processor little time.

For each launch Triton works out from every argument what the kernel must have been compiled for. That takes the
processor longer than a kernel on short sequences takes the GPU, which then waits. Here it is looked up by the arguments
themselves, which are few in training: the same shapes come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

_MOST = 1024  # compiled kernels that are known by their arguments; one that meets more lengths begins anew
_ALIGNED = 16  # bytes; what Triton asks of a pointer
_PLAIN = {Tensor, torch.nn.Parameter, bool, type(None)}


def is_traced(given: Iterable[object]) -> bool:
    """Whether someone must see an operator, not what it does.

    That is a compiler, a mode, a transform, a batch of gradients, or a tensor of a kind of its own among ``given``.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or is_in_torch_dispatch_mode()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(
            type(each) not in _PLAIN or (isinstance(each, Tensor) and torch._C._functorch.is_legacy_batchedtensor(each))
            for each in given
        )
    )


class Kernel:
    """Of a ``@triton.jit`` function whose parameters are tensors, then numbers, then constants.

    Attributes:
        jit: what Triton made of the function.
    """

    def __init__(self, jit: Any) -> None:
        self.jit = jit
        self._constants: list[str] | None = None
        self._known: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}

    def launch(
        self, grid: tuple[int, ...], tensors: Sequence[Tensor], numbers: Sequence[int | float], **constants: Any
    ) -> None:
        """Queues the kernel on the current stream.

        Args:
            grid: programs, along one to three axes.
            tensors: in the order of the parameters, all on one GPU, which is the current one.
            numbers: likewise.
            constants: the others by name, and Triton's options.
        """
        together = 0
        for tensor in tensors:
            together |= tensor.data_ptr()
        key = (
            tensors[0].get_device(),
            together % _ALIGNED == 0,
            *numbers,
            *constants,
            *constants.values(),
            *[tensor.dtype for tensor in tensors],
        )
        found = self._known.get(key)
        if found is None:
            compiled = self.jit[grid](*tensors, *numbers, **constants)
            if compiled is None or together % _ALIGNED:  # in the interpreter, or: which of them is not aligned?
                return
            if len(self._known) == _MOST:
                self._known.clear()
            self._known[key] = compiled, tuple(constants[name] for name in self._names())
            return
        compiled, values = found
        compiled[(*grid, 1, 1)[:3]](*tensors, *numbers, *values)

    def _names(self) -> list[str]:
        """Of the constants, as a compiled kernel takes them, after all the others."""
        if self._constants is None:
            parameters = self.jit.params
            self._constants = [each.name for each in parameters if each.is_constexpr]
            first = len(parameters) - len(self._constants)
            if any(each.is_constexpr for each in parameters[:first]):
                raise TypeError(f"{self.jit.__name__}: constants stand among its other parameters")
        return self._constants
