"""Quadratic and cubic lifting: one rank that determines samples (docs/theory.md 3.2, Appendix L3)."""
