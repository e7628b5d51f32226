"""Products rounded as tensor cores round them."""

from __future__ import annotations

import pytest
import torch

from genomamba.kernels.ssd import ssd
from genomamba.kernels.ssd.chunked import _as_tf32


def test_an_operand_keeps_ten_bits_of_fraction_and_its_gradient() -> None:
    x = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-10 + 2**-11, -(1 + 2**-11), 0.0], requires_grad=True)
    y = _as_tf32(x)
    assert y.tolist() == [1.0, 1 + 2**-10, 1 + 2**-10, -1.0, 0.0]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [1] * 5


def test_the_outputs_move_by_parts_in_a_thousand_and_no_more() -> None:
    x, B, C = torch.randn(1, 70, 2, 4), torch.randn(1, 70, 1, 8), torch.randn(1, 70, 1, 8)
    dt, A = torch.rand(1, 70, 2), -torch.rand(2)
    exact, cut = ssd(x, dt, A, B, C), ssd(x, dt, A, B, C, tf32=True)
    assert isinstance(exact, torch.Tensor)
    assert isinstance(cut, torch.Tensor)
    error = (exact - cut).abs().max() / exact.abs().max()
    assert 1e-5 < error < 2e-3


def test_it_is_refused_where_it_means_nothing() -> None:
    x, B, dt, A = torch.randn(1, 5, 1, 2), torch.randn(1, 5, 1, 2), torch.rand(1, 5, 1), -torch.ones(1)
    with pytest.raises(ValueError, match="tf32"):
        ssd(x, dt, A, B, B, tf32=True, impl="reference")
    with pytest.raises(ValueError, match="tf32"):
        ssd(x.double(), dt, A, B, B, tf32=True)
