"""Enumeration of neuron states (docs/theory.md 3.3): ``engine``, ``search``, ``subspaces``, ``tasks``."""

from exan_verify.decide.enumeration.engine import decide

__all__ = ["decide"]
