"""The choice of implementation: never silent, never replaced."""

from __future__ import annotations

import logging

import pytest
import torch

from genomamba.errors import KernelUnavailableError
from genomamba.kernels import impl
from genomamba.kernels.impl import resolve_impl


@pytest.mark.parametrize(("device", "chosen"), [("cpu", "cpu"), ("cuda", "triton"), ("meta", "reference")])
def test_auto_follows_the_device(device: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impl, "_INSTALLED", {"torch": True, "triton": True, "numba": True})
    assert resolve_impl("auto", torch.device(device)) == chosen


def test_auto_takes_the_reference_for_fp64_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impl, "_INSTALLED", {"torch": True, "triton": True, "numba": True})
    narrow, wide = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    assert resolve_impl("auto", torch.device("cuda"), given=(narrow, None)) == "triton"
    assert resolve_impl("auto", torch.device("cuda"), given=(narrow, wide)) == "reference"
    assert resolve_impl("auto", torch.device("cpu"), given=(narrow, wide)) == "cpu"
    assert resolve_impl("triton", torch.device("cuda"), given=(narrow, wide)) == "triton"  # refused by the operator


@pytest.mark.parametrize(("device", "package"), [("cpu", "numba"), ("cuda", "triton")])
def test_auto_says_that_it_is_slow(
    device: str, package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(impl._INSTALLED, package, False)
    with caplog.at_level(logging.WARNING):
        assert resolve_impl("auto", torch.device(device)) == "reference"
    assert f"install {package}" in caplog.text
    with pytest.raises(KernelUnavailableError, match=package):
        resolve_impl("cpu" if device == "cpu" else "triton", torch.device(device))


def test_an_explicit_choice_is_obeyed_or_refused() -> None:
    assert resolve_impl("reference", torch.device("cpu")) == "reference"
    with pytest.raises(KernelUnavailableError, match="move them to the CPU"):
        resolve_impl("cpu", torch.device("cuda"))
    with pytest.raises(ValueError, match="expected one of auto, reference, cpu, triton"):
        resolve_impl("fast", torch.device("cpu"))  # type: ignore[arg-type]


def test_an_operator_without_a_fast_implementation_takes_the_reference_and_refuses_the_rest() -> None:
    assert resolve_impl("auto", torch.device("cuda"), ("reference", "cpu")) == "reference"
    with pytest.raises(KernelUnavailableError, match="this operator has reference, cpu"):
        resolve_impl("triton", torch.device("cuda"), ("reference", "cpu"))
