"""Gradients of which tensors are missing (docs/theory.md Appendix G)."""
