"""Sequence operators: one folder each. Nothing here knows DNA."""

from genomamba.kernels.selective_scan import selective_scan

__all__ = ["selective_scan"]
