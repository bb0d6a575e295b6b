"""Statements of one's own: claims, the situations they speak of, and loading them from a file."""
