"""Mutation testing of what every verdict rests on: kernel, exact arithmetic, encoders.

``python -m tests.mutants`` breaks the code in one place at a time, in a copy, runs the tests that should
notice, and lists what nobody noticed. ``survivors.json`` explains the mutants that are meant to survive.
"""
