"""A Mamba block as one operator that keeps little for the backward: `api.py` is the door."""

from genomamba.kernels.mamba_block.api import Direction, mamba_block

__all__ = ["Direction", "mamba_block"]
