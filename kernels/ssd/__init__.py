"""State-space duality: `api.py` is the door, `reference.py` the equations, `chunked.py` the matrix form."""

from genomamba.kernels.ssd.api import ssd

__all__ = ["ssd"]
