"""Releases: which part of a gradient leaves the device."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Release, Weights
from exan_verify.errors import InputError, flag, unknown

Item = TypeVar("Item")

KINDS = ("tensors", "rows", "weights")
"""What a drawn release may hold back, or leave unknown."""


def releases(
    network: ReluNetwork, *, kinds: tuple[str, ...] = KINDS, basis: bool = False
) -> st.SearchStrategy[Release]:
    """Releases of the gradient of ``network``: some of its ``tensors`` (one at least), some of their ``rows``
    (one at least each), ``weights`` unknown and positive; what is not in ``kinds`` is sent whole.

    ``basis``: also an input basis (d, r) of full rank, r from 1 to d, a unit triangle of small integers.

    Raises :class:`InputError` for another kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(unknown("kinds", kind, KINDS))
    return _releases(network, tuple(kinds), flag(basis, "basis"))


@st.composite
def _releases(draw: st.DrawFn, network: ReluNetwork, kinds: tuple[str, ...], basis: bool) -> Release:
    arrays = dict(network.parameters())
    names = list(arrays)
    if "tensors" in kinds:
        names = _some(draw, names)
    rows = {}
    if "rows" in kinds:
        for name in names:
            places = list(range(len(arrays[name])))
            if draw(st.booleans()):
                kept = _some(draw, places)
                rows[name] = [place in kept for place in places]
    weights = draw(st.sampled_from(list(Weights))) if "weights" in kinds else Weights.EQUAL
    return Release(
        tensors=names if len(names) < len(arrays) else None,
        rows=rows,
        input_basis=_basis(draw, network.widths[0]) if basis else None,
        weights=weights.value,
    )


def _some(draw: st.DrawFn, items: list[Item]) -> list[Item]:
    """Some of the items, the last where no other is drawn."""
    left_out = draw(st.lists(st.booleans(), min_size=len(items), max_size=len(items)))
    return [item for item, out in zip(items, left_out, strict=True) if not out] or items[-1:]


def _basis(draw: st.DrawFn, features: int) -> list[list[int]]:
    columns = draw(st.integers(1, features))
    size = features * columns
    values = np.array(draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size)))
    values = np.tril(values.reshape(features, columns), -1)
    values[range(columns), range(columns)] = 1
    found: list[list[int]] = values.tolist()
    return found
