"""Tolerance: all batches with a gradient near a rounded one, up to a proved radius (Appendix T)."""

from exan_verify.decide.tolerance.asked import within_tolerance

__all__ = ["within_tolerance"]
