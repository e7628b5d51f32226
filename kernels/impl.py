"""Who computes an operator: the choice that every operator's door offers."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor

from genomamba.errors import KernelUnavailableError

Impl = Literal["auto", "reference", "cpu", "triton"]
Chosen = Literal["reference", "cpu", "triton"]

logger = logging.getLogger(__name__)

_FAST: dict[str, tuple[Chosen, str]] = {"cuda": ("triton", "triton"), "cpu": ("cpu", "numba")}
# Looked up once: torch.compile does not trace the search for a package.
_INSTALLED = {package: importlib.util.find_spec(package) is not None for package in ("torch", "triton", "numba")}
EVERY: tuple[Chosen, ...] = get_args(Chosen)


def resolve_impl(
    impl: Impl, device: torch.device, has: tuple[Chosen, ...] = EVERY, given: Iterable[Tensor | None] = ()
) -> Chosen:
    """The implementation that ``impl`` means on ``device``.

    ``auto`` takes the device's fast implementation and logs its choice at debug level. Where the
    package that it needs is not installed, it takes the reference and warns; so it does, without a
    warning, on devices for which the operator has no fast implementation, and for fp64 on a GPU,
    since Triton's kernels compute in fp32.

    Args:
        impl: what was asked for.
        device: where the tensors are.
        has: the implementations that the operator has.
        given: the inputs whose dtypes count.

    Raises:
        KernelUnavailableError: an explicit choice that cannot run there; it is never replaced silently.
        ValueError: ``impl`` is not one of the four names.
    """
    if impl not in get_args(Impl):
        raise ValueError(f"impl={impl!r}: expected one of {', '.join(get_args(Impl))}")
    if impl == "auto":
        chosen, package = _FAST.get(device.type, ("reference", "torch"))
        wide = chosen == "triton" and any(t is not None and t.dtype == torch.float64 for t in given)
        if chosen not in has or wide:
            chosen, package = "reference", "torch"
        if not _INSTALLED[package]:
            logger.warning("impl=auto runs the slow reference on %s: install %s for the fast one", device, package)
            return "reference"
        logger.debug("impl=auto runs %s on %s", chosen, device)
        return chosen
    if impl not in has:
        raise KernelUnavailableError(f"impl={impl!r}: this operator has {', '.join(has)}; choose one or impl='auto'")
    if impl == "cpu" and device.type != "cpu":
        raise KernelUnavailableError(
            f"impl='cpu': the tensors are on {device}; move them to the CPU or use impl='auto'"
        )
    for name, package in _FAST.values():
        if impl == name and not _INSTALLED[package]:
            raise KernelUnavailableError(f"impl={impl!r}: the package {package} is not installed; install it")
    return impl
