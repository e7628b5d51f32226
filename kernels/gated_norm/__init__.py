"""RMSNorm of a gated stream: `api.py` is the door, `reference.py` the equations."""

from genomamba.kernels.gated_norm.api import gated_norm

__all__ = ["gated_norm"]
