"""Benchmarks: the cases of ``exan bench``."""
