"""Does the implementation that `auto` chooses on a device agree with the equations?"""

from __future__ import annotations

import torch
from torch import Tensor

from genomamba.kernels.selective_scan.api import resolve_impl, selective_scan

TOLERANCE = 1e-5  # relative, fp32


def disagreement(device: torch.device) -> tuple[str, float]:
    """Runs a small case, forward and backward, on ``device`` and in fp64 by the reference.

    Returns:
        the implementation's name, and the largest ‖x - reference‖ / ‖reference‖ over the output, the final
        state and every gradient.
    """
    impl = resolve_impl("auto", device)
    generator = torch.Generator().manual_seed(0)
    batch, length, channels, states = 2, 130, 33, 16

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sequence, projection = (batch, length, channels), (batch, length, states)
    names = ("u", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state")
    values = (
        draw(*sequence), draw(*sequence), -draw(channels, states).exp(), draw(*projection), draw(*projection),
        draw(channels), draw(*sequence), draw(channels) - 3, draw(batch, channels, states),
    )  # fmt: skip

    def results(dtype: torch.dtype, where: torch.device, impl: str) -> list[Tensor]:
        given = {name: v.to(where, dtype).requires_grad_() for name, v in zip(names, values, strict=True)}
        y, final = selective_scan(**given, dt_softplus=True, return_final_state=True, impl=impl)  # type: ignore[arg-type]
        gradients = torch.autograd.grad(y.square().sum() + final.square().sum(), list(given.values()))
        return [x.detach().double().cpu() for x in (y, final, *gradients)]

    expected = results(torch.float64, torch.device("cpu"), "reference")
    found = results(torch.float32, device, impl)
    errors = [float((x - e).norm() / e.norm()) for x, e in zip(found, expected, strict=True)]
    return impl, max(errors)
