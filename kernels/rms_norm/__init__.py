"""RMSNorm with the residual addition that precedes it: `api.py` is the door, `reference.py` the equations."""

from genomamba.kernels.rms_norm.api import rms_norm

__all__ = ["rms_norm"]
