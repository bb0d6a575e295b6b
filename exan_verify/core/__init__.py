"""Records that every part speaks of: arrays, networks, batches, verdicts, certificates. No mathematics."""

__version__ = "0.2.0"
