"""Mamba-2 between its projections: `api.py` is the door, `reference.py` the other operators in a row."""

from genomamba.kernels.mamba2_inner.api import Inner, mamba2_inner

__all__ = ["Inner", "mamba2_inner"]
