"""The short causal convolution: `api.py` is the door, `reference.py` the equations, the rest is speed."""

from genomamba.kernels.causal_conv1d.api import causal_conv1d

__all__ = ["causal_conv1d"]
