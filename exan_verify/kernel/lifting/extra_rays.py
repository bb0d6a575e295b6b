"""Checks "no choice of extra rays is another batch" by searching again (Appendix E, E7 to E10).

Over Q (mse, hinge) a subspace is kept as its equations, in reduced echelon form: every equality is one of
rationals. Mod p: :mod:`.extra_rays_mod`. The certificate says nothing but the layer and the conclusion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement

import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.certificate import Conclusion, ExtraRays
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import backward
from exan_verify.exact.linalg import identity, multiply, nullspace, rank, solve
from exan_verify.exact.modular import Residues, negate_mod
from exan_verify.exact.rational import RationalMatrix, product_mod
from exan_verify.exact.softmax import loss_vectors
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.lifting.degree_two import (
    Image,
    base_weights,
    check_reduction,
    concluded,
    groups_of,
    image_at,
    outgoing_weights,
    unknowns_above,
)
from exan_verify.kernel.lifting.enumeration import MAX_VARIABLES, exact_columns, exact_states, small_minors
from exan_verify.kernel.lifting.extra_rays_mod import System, check_choices
from exan_verify.kernel.lifting.ray_candidates import Candidate, gives_no_other_batch

MAX_VARIABLES_OVER_Q = 12
"""M + K', as for the engine: subspaces over Q are lists of rationals."""

_MOST = 3000
_MOST_CHOICES = 100_000
_MOST_FOLLOWED = 2000
"""Subspaces at hand, choices of M of them, candidates that are followed: seconds each. The engine stops at as
many; of the choices, which it leaves out earlier, at 40,000.
"""

Functional = tuple[Fraction, ...]
Cuts = tuple[Functional, ...]
"""Equations in reduced echelon form: equal for equal subspaces."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _System:
    """The layer's equations: ``delta`` (n, M), ``outgoing`` (n, K'), ``truth`` (N, M): columns (e_m, u_m)."""

    delta: Array
    outgoing: Array
    truth: Array

    @property
    def samples(self) -> int:
        """M."""
        return int(self.delta.shape[1])


def facts(evidence: ExtraRays, subject: Subject) -> Facts:
    """The samples that the evidence proves to be in every batch with this gradient.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    conclusion, layer = evidence.conclusion, evidence.conclusion.layer
    require(conclusion.parametrisation != "single", "enumeration is for more than one sample")
    image = image_at(evidence.prime, evidence.point, subject)
    check_reduction(image, layer)
    most = MAX_VARIABLES_OVER_Q if evidence.exact else MAX_VARIABLES
    fits = subject.samples + unknowns_above(image, conclusion) <= most
    require(fits, "M + K' is too large for a search")
    outgoing = outgoing_weights(image, conclusion)
    groups = groups_of(subject.passed.pattern(layer), tuple(range(subject.samples)))
    require(groups == conclusion.groups, f"the pattern groups of layer {layer} are {groups}")
    if evidence.exact:
        _check_over_q(subject, conclusion)
    else:
        check_choices(_modular(image, conclusion, outgoing))
    return Facts(determined=concluded(image, conclusion))


def _check_over_q(subject: Subject, conclusion: Conclusion) -> None:
    require(subject.question.loss.rational, "only mse and hinge have rational deltas")
    system, deltas = _system(subject, conclusion)
    bases = [_basis(cuts, len(system.truth)) for cuts in _cover(system)]
    for count, columns in enumerate(_candidates(system, bases, conclusion.groups)):
        require(count < _MOST_FOLLOWED, f"more than {_MOST_FOLLOWED} candidates")
        candidate = Candidate(
            layer=conclusion.layer, columns=columns, outgoing=system.outgoing, deltas=deltas
        )
        require(gives_no_other_batch(candidate, subject), "a choice of rays is not refuted")


def _modular(image: Image, conclusion: Conclusion, outgoing: Residues) -> System:
    """The layer's equations mod p, neurons whose deltas are 0 mod p left out."""
    subject, layer = image.subject, conclusion.layer
    delta, above = image.delta(layer), image.delta(layer + 1)
    used = np.flatnonzero(delta.any(axis=1))
    unknowns = above[:-1] if conclusion.parametrisation == "zero_sum" else above
    if conclusion.parametrisation == "column_space":
        unknowns = np.eye(subject.samples, dtype=np.uint64)
    if conclusion.parametrisation == "row_space":
        unknowns = _seen(subject, conclusion, above)
    states = exact_states(subject, layer)
    exact = conclusion.parametrisation != "column_space" and small_minors(subject, conclusion, list(used))
    return System(
        inactive=np.concatenate([delta, np.zeros_like(outgoing)], axis=1)[used],
        active=np.concatenate([delta, negate_mod(outgoing)], axis=1)[used],
        inactive_for=states[0][used],
        active_for=states[1][used],
        groups=conclusion.groups,
        truth=np.concatenate([np.eye(subject.samples, dtype=np.uint64), unknowns]),
        exact=exact,
    )


def _seen(subject: Subject, conclusion: Conclusion, above: Residues) -> Residues:
    """T u mod p with W = W_I T, W_I the independent columns of ``row_space``."""
    weights = base_weights(subject, conclusion.layer)
    seen = solve(exact_columns(subject, conclusion), weights)
    if seen is None:
        raise CertificateRejected("the outgoing weights are outside their row space")
    return product_mod(seen, above[: weights.shape[1]])


def _system(subject: Subject, conclusion: Conclusion) -> tuple[_System, PerLayer[RationalMatrix]]:
    vectors = loss_vectors(
        subject.question.loss, subject.passed.logits, subject.batch.labels, subject.divisor
    )
    deltas = backward(subject.network, subject.passed, vectors)
    layer = conclusion.layer
    delta, above = deltas.at(layer).fractions(), deltas.at(layer + 1).fractions()
    incoming = multiply(subject.network.layers[layer].weight.T, above)
    if conclusion.parametrisation == "column_space":
        outgoing, unknowns = incoming, identity(subject.samples)
    else:
        outgoing = exact_columns(subject, conclusion)
        unknowns = above[:-1] if conclusion.parametrisation == "zero_sum" else above
    if conclusion.parametrisation == "row_space":
        known = solve(outgoing, incoming)
        if known is None:
            raise CertificateRejected("the incoming deltas are outside the row space")
        unknowns = known
    truth = np.concatenate([identity(subject.samples), unknowns])
    return _System(delta=delta, outgoing=outgoing, truth=truth), deltas


def _cover(system: _System) -> list[Cuts]:
    """Subspaces with some q != 0 that hold every candidate; none inside another."""
    current: set[Cuts] = {()}
    unit = np.eye(len(system.truth), dtype=int)[: system.samples]
    q_alone = [tuple(Fraction(int(v)) for v in row) for row in unit]
    nothing = [Fraction(0)] * system.outgoing.shape[1]
    for row, weights in zip(system.delta, system.outgoing, strict=True):
        if not np.any(row):
            continue
        states: tuple[Functional, ...] = ((*row, *nothing), (*row, *(-weights)))
        following: set[Cuts] = set()
        for cuts in current:
            lefts = [_left(state, cuts) for state in states]
            if all(map(any, lefts)):
                wider = (_added(left, cuts) for left in lefts)
                following.update(w for w in wider if any(any(_left(q, w)) for q in q_alone))
            else:
                following.add(cuts)
        current = following
        require(len(current) <= _MOST, f"more than {_MOST} subspaces over Q")
    return [a for a in current if not any(a != b and _inside(a, b) for b in current)]


def _left(functional: Functional, cuts: Cuts) -> Functional:
    """The functional modulo the equations."""
    for cut in cuts:
        factor = functional[_leading(cut)]
        if factor:
            functional = tuple(a - factor * b for a, b in zip(functional, cut, strict=True))
    return functional


def _added(left: Functional, cuts: Cuts) -> Cuts:
    at = _leading(left)
    own = tuple(v / left[at] for v in left)
    cleared = (tuple(a - cut[at] * b for a, b in zip(cut, own, strict=True)) for cut in cuts)
    return tuple(sorted([*cleared, own], key=_leading))


def _leading(functional: Functional) -> int:
    return next(k for k, v in enumerate(functional) if v)


def _inside(small: Cuts, large: Cuts) -> bool:
    return len(large) < len(small) and not any(any(_left(cut, small)) for cut in large)


def _basis(cuts: Cuts, variables: int) -> Array:
    """A basis (N, d) of the zeros of the equations."""
    if not cuts:
        return identity(variables)
    return nullspace(np.array(cuts, dtype=object))


def _candidates(system: _System, bases: list[Array], groups: tuple[tuple[int, ...], ...]) -> Iterator[Array]:
    """The columns (q_k, u_k) (N, M) of every choice that the sum leaves, with at least one extra subspace.

    Rejects when a choice leaves more than one.
    """
    extra = [basis for basis in bases if not _true(system, basis, groups)]
    ordered = extra + [basis for basis in bases if _true(system, basis, groups)]
    total = system.truth.sum(axis=1)
    looked_at = 0
    for first in combinations_with_replacement(range(len(ordered)), system.samples - 1):
        if first[0] >= len(extra):
            break
        looked_at += len(ordered) - first[-1]
        require(looked_at <= _MOST_CHOICES, f"more than {_MOST_CHOICES} choices of subspaces")
        above = nullspace(np.concatenate([ordered[k] for k in first], axis=1).T).T
        target = above @ total
        for k in range(first[-1], len(ordered)):
            if _fits(above @ ordered[k], target):
                yield from _solution(system, [ordered[i] for i in (*first, k)], total)


def _fits(columns: Array, target: Array) -> bool:
    """Whether the target is a combination of the columns."""
    if not np.any(target):
        return True
    if columns.shape[1] > 1:
        return rank(np.concatenate([columns, target[:, None]], axis=1)) == rank(columns)
    at = int(np.flatnonzero(target)[0])
    return bool(columns[at, 0] != 0 and np.all(columns[:, 0] * target[at] == target * columns[at, 0]))


def _solution(system: _System, chosen: list[Array], total: Array) -> Iterator[Array]:
    basis = np.concatenate(chosen, axis=1)
    if rank(basis[: system.samples]) < system.samples:
        return  # no invertible matrix has its columns there
    factors = solve(basis, total[:, None])
    if factors is None:
        raise CertificateRejected("a choice of subspaces leaves more than one candidate")
    ends = np.cumsum([part.shape[1] for part in chosen])
    blocks = np.split(factors[:, 0], ends[:-1])
    yield np.stack([part @ block for part, block in zip(chosen, blocks, strict=True)], axis=1)


def _true(system: _System, basis: Array, groups: tuple[tuple[int, ...], ...]) -> bool:
    """Whether the subspace lies in the span of one group's true samples."""
    q = basis[: system.samples]
    inside = any(not np.any(np.delete(q, list(group), axis=0)) for group in groups)
    return inside and not np.any(multiply(system.truth, q) != basis)
