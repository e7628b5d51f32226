"""Sequence operators: one folder each. Nothing here knows DNA."""

from genomamba.kernels.causal_conv1d import causal_conv1d
from genomamba.kernels.selective_scan import selective_scan

__all__ = ["causal_conv1d", "selective_scan"]
