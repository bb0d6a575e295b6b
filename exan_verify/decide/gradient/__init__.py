"""From a gradient alone: the batch is rebuilt exactly, or refuted (docs/theory.md 3.5)."""
