"""The selective scan: `api.py` is the door, `reference.py` the equations, the rest is speed."""

from genomamba.kernels.impl import Impl, resolve_impl
from genomamba.kernels.selective_scan.api import selective_scan

__all__ = ["Impl", "resolve_impl", "selective_scan"]
