"""Checks that every cube of a question is empty, or holds the given batch alone (docs/theory.md CB14)."""
