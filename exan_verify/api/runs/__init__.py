"""Audits of whole training runs: where steps come from, what is kept of each, and what they come to."""
