"""Scores against masks: confusion matrices, threshold sweeps, metrics and their tables."""

from wsss_core.evaluate.confusion import Metrics, confusion, metrics
from wsss_core.evaluate.sweep import sweep

__all__ = ["Metrics", "confusion", "metrics", "sweep"]
