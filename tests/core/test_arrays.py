"""Exact arrays and what is kept layer by layer."""

from __future__ import annotations

import pickle

import pytest

from exan_verify.core.arrays import PerLayer


def test_layers_count_from_one_to_the_last():
    kept = PerLayer("abc")
    assert [kept.at(layer) for layer in (1, 2, 3)] == list(kept) == ["a", "b", "c"]
    for layer in (0, -1, -3, 4):
        with pytest.raises(IndexError):
            kept.at(layer)


def test_it_goes_to_other_processes():
    there = pickle.loads(pickle.dumps(PerLayer([1, 2])))
    assert (type(there), there.at(2)) == (PerLayer, 2)
