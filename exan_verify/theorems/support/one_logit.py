"""P1 for one logit: every second batch of a batch whose samples have live ExANs (docs/theory.md P.5).

There Q^-1 = diag(1/g) B diag(g') for an invertible 0/1 matrix B, whose row m is the pattern that all ExANs
of sample m have in the second batch, and g = B g'. So second batches can be listed (:func:`second_batches`),
and for few samples an exact linear program refutes all B but permutations (:func:`feasible_mixings`).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, permutations, product

import numpy as np

from exan_verify.core.network import Array, Batch
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import identity, multiply, rank, solve
from exan_verify.exact.lp import Program, Status
from exan_verify.exact.lp import proved as proved_by
from exan_verify.exact.lp import solve as solve_program
from exan_verify.exact.softmax import loss_vectors
from exan_verify.theorems.support.exclusive_layers import Layered
from exan_verify.theorems.support.laboratory import Pair, exact, same_gradient

Signs = tuple[int, ...]


def mixings(samples: int) -> Iterator[Array]:
    """Invertible 0/1 matrices B (M, M), no permutation, one for each set of columns."""
    columns = [c for c in product((0, 1), repeat=samples) if any(c)]
    for chosen in combinations(columns, samples):
        found = exact(np.array(chosen).T)
        if rank(found) == samples and any(sum(c) > 1 for c in chosen):
            yield found


def second_batches(layer: Layered, labels: Labels = Labels.ONE_HOT) -> Iterator[Batch]:
    """All second batches with mse, one logit, affinely independent inputs, no zero loss vector.

    Every sample must have a live ExAN. ``real`` admits every target, else targets are 0 or 1.
    """
    first = layer.batch
    vectors = loss_vectors(Loss.MSE, forward(layer.network, first).logits, first.labels, 1)
    inputs = exact(first.inputs)
    for mixing in mixings(first.size):
        new = solve(mixing, vectors.T)
        if new is None or not np.all(new != 0):
            continue
        back = multiply(_inverse(mixing * new.T), np.diag(vectors[0]))
        moved = multiply(back, inputs)
        logits = forward(layer.network, Batch(inputs=moved, labels=first.labels)).logits
        targets = exact(logits.T - new / 2)
        if labels is not Labels.REAL and not np.all((targets == 0) | (targets == 1)):
            continue
        second = Batch(inputs=moved, labels=targets)
        if same_gradient(Pair(network=layer.network, first=first, second=second)):
            yield second


def _inverse(matrix: Array) -> Array:
    found = solve(matrix, identity(len(matrix)))
    assert found is not None
    return found


def classes_of_mixings(samples: int) -> list[Array]:
    """One B for each class under permutations of rows and columns."""
    seen: dict[tuple[tuple[int, ...], ...], Array] = {}
    for mixing in mixings(samples):
        rows = mixing.astype(int).tolist()
        key = min(
            tuple(sorted(tuple(row[k] for k in order) for row in rows))
            for order in permutations(range(samples))
        )
        seen.setdefault(key, mixing)
    return list(seen.values())


def feasible_mixings(samples: int, *, sums: bool = True) -> Iterator[tuple[Array, Signs, Signs]]:
    """Classes of B with signs of g and g' for which the patterns, and with ``sums`` also sum g = sum g' (the
    last bias gradient), can be met. Each refusal is an exact linear program with a Farkas proof.
    """
    for mixing in classes_of_mixings(samples):
        back = _inverse(mixing)
        for before, after in product(product((1, -1), repeat=samples), repeat=2):
            if before[0] == 1 and _possible(mixing, back, before, after, sums):
                yield mixing, before, after


def _possible(mixing: Array, back: Array, before: Signs, after: Signs, sums: bool) -> bool:
    samples = len(mixing)
    if sums:
        kept = np.concatenate([np.diag(exact(before)), np.diag(exact(after)) @ back])
        balance = [back.sum(axis=0) - 1]
        if not _solvable(kept, [True] * (2 * samples), balance):
            return False
    moved = np.diag(exact(after)) @ back @ np.diag(exact(before))
    both = np.concatenate([identity(samples), moved])
    return all(
        _solvable(both, [*(k == m for k in range(samples)), *(mixing[m] == 1)]) for m in range(samples)
    )


def _solvable(rows: Array, positive: list[bool], equal: list[Array] | None = None) -> bool:
    """Whether some v has ``rows v > 0`` where ``positive``, ``<= 0`` elsewhere, and ``equal v = 0``.

    The conditions are homogeneous, so > 0 may be read as >= 1.
    """
    count = rows.shape[1]
    program = Program.of(
        [Fraction(0)] * count,
        rows=[list(-row if sign else row) for row, sign in zip(rows, positive, strict=True)],
        bounds=[Fraction(-1) if sign else Fraction(0) for sign in positive],
        equalities=[list(row) for row in equal or []],
        targets=[Fraction(0)] * len(equal or []),
    )
    solution = solve_program(program)
    assert proved_by(program, solution)
    return solution.status is not Status.INFEASIBLE
