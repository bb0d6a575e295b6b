"""Statements about the security boundary: stated, proved or refuted by machine (docs/theory.md)."""
