"""Helpers for tests: Hypothesis strategies of exact networks and batches."""
