"""The exact arguments: one per file, each gives a verdict or passes on (docs/theory.md sections 3 and 4)."""
