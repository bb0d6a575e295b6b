"""Evidence about all batches whose gradient lies within a tolerance (docs/theory.md Appendix T)."""
