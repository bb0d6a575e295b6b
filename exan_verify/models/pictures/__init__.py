"""Convolutional models: their layers, what is built on them, and what their pictures are."""
