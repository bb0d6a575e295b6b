"""Delta directions from a rounded gradient, in floating point (C3): guesses, and nothing rests on them.

The null space of the lifted equations, written in an orthonormal basis of A's column space, is nearly spanned
by (q q^T, q p^T) of the samples; the eigenvectors of S_a S_b^-1 for two random combinations of the q q^T
blocks are the q. Each is then polished on its own equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from exan_verify.decide.tolerance.problem import NotShownError
from exan_verify.exact.balls import Floats

_PENCILS = 12
"""Random combinations tried: one is enough unless eigenvalues cluster (trained networks)."""

_ROUNDS = 8
"""Polishing settles in two or three rounds; a candidate that needs more is lost."""

_SAME = 0.9999
"""Two deltas with a larger cosine are one sample's."""

_SOLVED = 1e-2
"""Candidates above are strangers; true samples stand at about tolerance over singular value."""

_DEPENDENT = 1e-10
"""Directions of a pattern's possible deltas below this relative size are left out."""

_ROUNDING = 1e-6
"""One sample: entries of its delta below this relative size count as zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A unit delta (n,) = basis ``direction``, coordinates (K',) of its next delta, how badly they fit."""

    direction: Floats
    delta: Floats
    following: Floats
    error: float


def candidates(basis: Floats, outgoing: Floats, noise: float, rng: np.random.Generator) -> list[Candidate]:
    """M candidates, or :class:`NotShownError`; ``basis`` (n, M) orthonormal with entries of relative accuracy
    ``noise``, ``outgoing`` (n, K').
    """
    samples = basis.shape[1]
    if samples == 1:
        return [_single(basis, outgoing)]
    squares, mixed = _null_space(basis, outgoing, noise)
    found: list[Candidate] = []
    for _ in range(_PENCILS):
        known = [c.direction for c in found if c.error < _SOLVED]
        for q, p in _pencil(squares, mixed, np.array(known).reshape(-1, samples).T, rng):
            candidate = _polished(basis, outgoing, q, p)
            same = [k for k, old in enumerate(found) if abs(old.delta @ candidate.delta) > _SAME]
            if not same:
                found.append(candidate)
            elif candidate.error < found[same[0]].error:
                found[same[0]] = candidate
        found.sort(key=lambda c: c.error)
        chosen = found[:samples]
        if len(chosen) == samples and chosen[-1].error < _SOLVED:
            return chosen
    raise NotShownError(
        f"the lifted equations separate {sum(c.error < _SOLVED for c in found)} of {samples} samples: "
        "some share their activation pattern, or another batch size fits"
    )


def _single(basis: Floats, outgoing: Floats) -> Candidate:
    """One sample: its delta spans A's columns, and is zero where it is inactive."""
    delta = basis[:, 0]
    active = np.abs(delta) > _ROUNDING * np.abs(delta).max()
    following = np.linalg.lstsq(outgoing[active], delta[active], rcond=None)[0]
    return Candidate(direction=np.ones(1), delta=delta, following=following, error=0.0)


def _null_space(basis: Floats, outgoing: Floats, noise: float) -> tuple[Floats, Floats]:
    """The q q^T blocks (M, M, M) and q p^T blocks (M, M, K') of the last M right singular vectors of R."""
    samples, width = basis.shape[1], outgoing.shape[1]
    pairs = [(a, a) for a in range(samples)] + list(combinations(range(samples), 2))
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    squares = basis[:, first] * basis[:, second] * np.where(first == second, 1.0, 2.0)
    products = -(basis[:, :, None] * outgoing[:, None, :]).reshape(len(basis), -1)
    rows = np.concatenate([squares, products], axis=1)
    if rows.shape[1] - samples > np.count_nonzero(np.any(rows, axis=1)):
        raise NotShownError(
            f"{rows.shape[1] - samples} equations are needed for {samples} samples and "
            f"{np.count_nonzero(np.any(rows, axis=1))} neurons give one each; ask about fewer samples"
        )
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / (sizes + noise * sizes.max())  # a dead neuron's row is noise and must not be scaled up
    lengths = np.maximum(np.linalg.norm(rows, axis=0), 1e-300)
    vectors = np.linalg.svd(rows / lengths)[2][-samples:] / lengths
    blocks = np.zeros((samples, samples, samples))
    blocks[:, first, second] = blocks[:, second, first] = vectors[:, : len(pairs)]
    return blocks, vectors[:, len(pairs) :].reshape(samples, samples, width)


def _pencil(
    squares: Floats, mixed: Floats, known: Floats, rng: np.random.Generator
) -> list[tuple[Floats, Floats]]:
    """Starts (q, p) for the samples that are not among ``known`` (M, k): with Pi the projector that removes
    these, S_a Pi has only the others' q as columns, and (S_a Pi)(S_b Pi)^+ only them as eigenvectors.
    """
    samples, count = known.shape
    weights = rng.normal(size=(2, len(squares))) / np.linalg.norm(squares, axis=(1, 2))
    first, second = np.tensordot(weights, squares, axes=1)
    others = np.linalg.qr(known, mode="complete")[0][:, count:]
    try:
        left, sizes, right = np.linalg.svd(second @ others, full_matrices=False)
        pencil = first @ others @ (right.T / np.maximum(sizes, 1e-300)) @ left.T
        values, vectors = np.linalg.eig(pencil)
        picked = np.argsort(-np.abs(values))[: samples - count]
        directions = np.concatenate([known, vectors[:, picked].real], axis=1)
        dual = np.linalg.inv(directions)
    except np.linalg.LinAlgError:
        return []
    scales = np.einsum("mi,ij,mj->m", dual, first, dual)
    scales = np.where(np.abs(scales) > 1e-300, scales, 1.0)
    following = dual @ np.tensordot(weights[0], mixed, axes=1) / scales[:, None]
    return list(zip(directions.T[count:], following[count:], strict=True))


def _polished(basis: Floats, outgoing: Floats, q: Floats, p: Floats) -> Candidate:
    """Alternate: every neuron takes the nearer of its two hyperplanes (*); then q is the direction in which
    A's column space comes nearest to the deltas of that pattern, and p fits it.
    """
    active = None
    error = 1.0
    for _ in range(_ROUNDS):
        delta = basis @ q
        nearer = np.abs(delta - outgoing @ p) < np.abs(delta)
        if active is not None and np.array_equal(active, nearer):
            break
        active = nearer
        possible, sizes, turned = np.linalg.svd(outgoing * active[:, None], full_matrices=False)
        kept = sizes > _DEPENDENT * sizes[0]
        possible = possible[:, kept]
        outside = basis - possible @ (possible.T @ basis)
        values, vectors = np.linalg.svd(outside, full_matrices=False)[1:]
        q = vectors[-1]
        p = turned[kept].T @ (possible.T @ (basis @ q) / sizes[kept])
        error = float(values[-1] / max(values[-2], 1e-300)) if len(values) > 1 else float(values[-1])
    return Candidate(direction=q, delta=basis @ q, following=p, error=error)
