"""Which labels another rest may carry: one list per admitted multiset."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from math import comb

import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Labels
from exan_verify.decide.labels import admitted
from exan_verify.decide.residual.unsettled import Rest


def alphabet(rest: Rest) -> Array:
    """The labels that a sample may carry: targets (n, K), or classes (n,)."""
    return admitted(rest.context.question, rest.batch.labels, rest.context.network.classes)


def multiset_count(rest: Rest) -> int:
    """How many multisets of labels are admitted."""
    if rest.context.question.labels is Labels.KNOWN:
        return 1
    return comb(len(alphabet(rest)) + rest.size - 1, rest.size)


def multisets(rest: Rest) -> Iterator[Array]:
    """One arrangement (r, ...) per admitted multiset; the rest's own comes as the rest has it."""
    own = rest.batch.labels
    if rest.context.question.labels is Labels.KNOWN:
        yield own
        return
    letters = alphabet(rest)
    key = sorted(_index(letters, row) for row in own)
    for chosen in combinations_with_replacement(range(len(letters)), rest.size):
        yield own if list(chosen) == key else letters[list(chosen)]


def _index(letters: Array, row: Array) -> int:
    return next(k for k, letter in enumerate(letters) if np.array_equal(letter, row))
