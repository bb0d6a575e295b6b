"""Solvers in processes of their own, and the cache of their answers."""
