"""exan_verify: what a neural network's gradient reveals, decided and certified."""

__version__ = "0.1.0"
