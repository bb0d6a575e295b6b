"""Checks the evidence of lifting of degree three (docs/theory.md, Appendix L3).

The products of two linear forms and one unknown are expanded here one by one, with exponents as keys, from
deltas and outgoing weights that are recomputed. Leaving out equations only lowers the rank, so any choice of
neurons is sound.
"""

from __future__ import annotations

from math import comb

import numpy as np

from exan_verify.core.certificate import DegreeThree
from exan_verify.core.facts import Facts
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import Residues, add_mod, multiply_mod, negate_mod
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.lifting.degree_two import (
    check_reduction,
    concluded,
    groups_of,
    image_at,
    outgoing_weights,
    unknowns_above,
)

_MAX_ENTRIES = 1 << 25
"""Entries of R3: 256 MiB, and four times that where its rank is taken."""


def facts(evidence: DegreeThree, subject: Subject) -> Facts:
    """The samples that the evidence proves to be in every batch with this gradient.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    argument, samples = evidence.argument, subject.samples
    image = image_at(evidence.prime, evidence.point, subject)
    check_reduction(image, argument.layer)
    require(argument.parametrisation != "single", "degree three is for more than one sample")
    delta = image.delta(argument.layer)
    first = np.flatnonzero(delta.any(axis=1) & image.sent(argument.layer))[: evidence.neurons]
    require(len(first) == evidence.neurons > 0, "there are fewer neurons with a non-zero delta")
    pattern = subject.passed.pattern(argument.layer)[image.sent(argument.layer)]
    groups = groups_of(pattern, tuple(range(samples)))
    require(groups == argument.groups, f"the pattern groups are {groups}")
    cubes = sum(comb(len(group) + 2, 3) for group in groups)
    variables = samples + unknowns_above(image, argument)
    unknowns = comb(variables + 2, 3) - comb(variables - samples + 2, 3)
    require(unknowns == argument.unknowns, f"V is {unknowns}")
    rows, needed = len(first) * variables, unknowns - cubes
    require(argument.rank == needed, f"dim null(R3) may exceed {cubes} unless rank(R3) = {needed}")
    require(argument.rank <= rows, f"{rows} equations have no rank {argument.rank}")
    require(rows * unknowns <= _MAX_ENTRIES, "the system of degree three is too large")
    matrix = cubic_matrix(delta[first], outgoing_weights(image, argument)[first])
    require(matrix.shape[1] == unknowns, f"V is {matrix.shape[1]}")
    rank = rank_mod(matrix)
    require(rank == argument.rank, f"rank(R3) is {rank} mod p, the certificate says {argument.rank}")
    return Facts(determined=concluded(image, argument))


def cubic_matrix(delta: Residues, outgoing: Residues) -> Residues:
    """R3 mod p: rows ``x (Delta_j . q)(Delta_j . q - w_j . u)`` for each unknown x and neuron j.

    ``delta`` (n, M), ``outgoing`` (n, K'). Columns: products of three unknowns, at least one of them of q.
    """
    neurons, samples = delta.shape
    second = np.concatenate([delta, negate_mod(outgoing)], axis=1)
    variables = second.shape[1]
    columns = _columns(samples, variables)
    matrix = np.zeros((variables * neurons, len(columns)), dtype=np.uint64)
    for a in range(samples):
        for b in range(variables):
            term = multiply_mod(delta[:, a], second[:, b])
            for x in range(variables):
                rows = slice(x * neurons, (x + 1) * neurons)
                k = columns[tuple(sorted((a, b, x)))]
                matrix[rows, k] = add_mod(matrix[rows, k], term)
    return matrix


def _columns(samples: int, variables: int) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for a in range(samples):
        for b in range(a, variables):
            for c in range(b, variables):
                found[a, b, c] = len(found)
    return found
