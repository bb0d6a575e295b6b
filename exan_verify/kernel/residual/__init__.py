"""Evidence about groups that share every pattern (docs/theory.md S5)."""
