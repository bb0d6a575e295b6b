"""Checks the evidence of lifting of degree three (docs/theory.md, Appendix L3).

The products of two linear forms and one unknown are expanded here one by one, with sorted factors as keys,
from deltas and outgoing weights that are recomputed. Leaving out equations only lowers the rank, so any
choice of neurons is sound; so is any prime, and the kernel takes its own for this rank (6.3).
"""

from __future__ import annotations

from math import comb

import numpy as np

from exan_verify.core.arrays import Array
from exan_verify.core.certificate import DegreeThree, LayerArgument
from exan_verify.core.facts import Facts
from exan_verify.errors import CertificateRejected
from exan_verify.exact.elimination import PRIMES, floats
from exan_verify.exact.modular import (
    Residues,
    UnsuitablePrimeError,
    add_mod,
    multiply_mod,
    negate_mod,
    point,
)
from exan_verify.exact.softmax import VanishingDenominatorError
from exan_verify.exact.stacked import Stacked, least_memory, require_memory
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.lifting.degree_two import (
    check_reduction,
    check_unknowns,
    concluded,
    groups_of,
    image_at,
    image_in,
    unknowns_above,
    weights_on_unknowns,
)


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
    check_unknowns(image, argument)
    told = concluded(image, argument)
    rank = _rank(subject, argument, first, needed)
    require(rank == needed, f"rank(R3) is {rank} mod p, the certificate says {needed}")
    return Facts(determined=told)


def _rank(subject: Subject, argument: LayerArgument, neurons: Array, needed: int) -> int:
    """The largest rank of R3 that a prime shows. Which prime and point the certificate used plays no part."""
    found = -1
    for prime in PRIMES:
        try:
            require_memory(least_memory(argument.unknowns))
            image = image_in(prime, point(f"kernel/{prime}", prime), subject)
            outgoing = weights_on_unknowns(image, argument)
            system = cubic_system(image.delta(argument.layer)[neurons], outgoing[neurons], prime)
            require(system.columns == argument.unknowns, f"V is {system.columns}")
            found = max(found, system.rank(needed))
        except (VanishingDenominatorError, UnsuitablePrimeError):
            continue
        except MemoryError as error:
            raise CertificateRejected(f"rank(R3) cannot be taken here: {error}") from None
        if found >= needed:
            break
    return found


def cubic_system(delta: Residues, outgoing: Residues, prime: int) -> Stacked:
    """R3 mod p: for each unknown x the rows ``x (Delta_j . q)(Delta_j . q - w_j . u)``, one per neuron j.

    ``delta`` (n, M), ``outgoing`` (n, K'). Columns: products of three unknowns, at least one of them of q,
    by the largest unknown first, then by the next, which decides how much there is to eliminate and nothing
    else.
    """
    neurons, samples = delta.shape
    second = np.concatenate([delta, negate_mod(outgoing, prime)], axis=1)
    variables = second.shape[1]
    products = [(a, b) for b in range(variables) for a in range(min(b + 1, samples))]
    pairs = {product: k for k, product in enumerate(products)}
    block = np.zeros((neurons, len(pairs)), dtype=np.uint64)
    for a in range(samples):
        for b in range(variables):
            k = pairs[min(a, b), max(a, b)]
            block[:, k] = add_mod(block[:, k], multiply_mod(delta[:, a], second[:, b], prime), prime)
    triples = [(a, b, c) for c in range(variables) for b in range(c + 1) for a in range(min(b + 1, samples))]
    column: dict[tuple[int, ...], int] = {triple: k for k, triple in enumerate(triples)}
    places = [[column[tuple(sorted((a, b, x)))] for a, b in pairs] for x in range(variables)]
    return Stacked(block=floats(block, prime), places=np.array(places), columns=len(triples), prime=prime)
