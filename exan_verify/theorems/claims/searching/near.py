"""Situations near those that meet the hypotheses: what drawn numbers seldom meet, they meet again close by.

A random walk. It starts where most hypotheses hold, in their order; a step changes a few numbers or a label,
and is kept where no fewer hold than before. So it climbs to where all do, and then goes on among them. Where
a predicate only says no, more walks lead through situations with ever more and ever fewer exclusive
neurons, at most two of a sample in each layer, since that is what most hypotheses are about.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import InputError
from exan_verify.exclusivity import exclusivity
from exan_verify.theorems.claims.claim import Claim, Judgement
from exan_verify.theorems.claims.searching.found import Records
from exan_verify.theorems.claims.searching.shrinking import Candidate
from exan_verify.theorems.claims.searching.tally import Tally
from exan_verify.theorems.claims.situation import rational_array

STEPS = 10
"""Steps for each situation that is wanted within the hypotheses."""

POOL = 4
"""Situations that a step of a walk may start from."""

SIGNS = (1, 0, 1, -1)
"""Of each walk: towards more exclusive neurons, fewer, or neither."""


def walk_near(claim: Claim, tally: Tally, *, examples: int, seed: int) -> None:
    """Step from ``tally.nearest`` until ``examples`` situations are within the hypotheses, one contradicts
    the claim, or :data:`STEPS` times as many steps were taken. Deterministic in ``seed``.
    """
    rng = np.random.default_rng(seed)
    walks: list[list[tuple[tuple[int, int], Records]]] = [
        [(_score(claim, held, sign, records), records) for held, records in tally.nearest] for sign in SIGNS
    ]
    for step in range(STEPS * examples if tally.nearest else 0):
        if tally.late() or tally.inside >= examples:
            return
        which = step % len(walks)
        sign, pool = SIGNS[which], walks[which]
        before, start = pool[int(rng.integers(len(pool)))]
        try:
            records = _step(claim, Candidate.of(*start), rng).records(claim)
        except InputError:  # these labels are of no batch
            continue
        if tally.judge(*records) is Judgement.FAILS:
            return
        now = _score(claim, tally.held(*records), sign, records)
        if now >= before:
            best = max(now, *(score for score, _ in pool))
            walks[which] = [one for one in (*pool, (now, records)) if one[0] == best][-POOL:]


def _score(claim: Claim, held: int, sign: int, records: Records) -> tuple[int, int]:
    """Hypotheses that hold; where not all do, exclusive neurons, at most two of a sample in each layer."""
    if not sign or held == len(claim.hypotheses):
        return held, 0
    network, batch = records
    counted = exclusivity(network, batch, loss=claim.question.loss).counts
    return held, sign * sum(min(count, 2) for layer in counted for count in layer)


def _step(claim: Claim, candidate: Candidate, rng: np.random.Generator) -> Candidate:
    """One to three numbers anew, or one label; fixed networks of the claim are not changed."""
    if not rng.integers(8):
        return replace(candidate, y=_relabelled(claim, candidate, rng))
    arrays = [candidate.x] if claim.networks else [*candidate.weights, *candidate.biases, candidate.x]
    made = [array.copy() for array in arrays]
    sizes = np.array([array.size for array in made])
    for _ in range(int(rng.integers(1, 4))):
        array = made[int(rng.choice(len(made), p=sizes / sizes.sum()))].reshape(-1)
        k = int(rng.integers(array.size))
        array[k] = (
            _drawn(rng),
            array[int(rng.integers(array.size))],  # coincidences are what many hypotheses are about
            -array[k],
        )[int(rng.integers(3))]
    if claim.networks:
        return replace(candidate, x=made[0])
    depth = len(candidate.weights)
    return replace(candidate, weights=tuple(made[:depth]), biases=tuple(made[depth:-1]), x=made[-1])


def _relabelled(claim: Claim, candidate: Candidate, rng: np.random.Generator) -> Array:
    """One label anew."""
    y, logits = candidate.y.copy(), len(candidate.weights[-1])
    m, k = int(rng.integers(len(y))), int(rng.integers(logits))
    if y.ndim == 1:
        y[m] = k
    elif claim.question.labels is Labels.REAL:
        y[m, k] = _drawn(rng)
    elif claim.question.loss is Loss.BCE or logits == 1:
        y[m, k] = 1 - y[m, k]
    else:
        y[m] = rational_array(np.eye(logits)[k])
    return y


def _drawn(rng: np.random.Generator) -> Any:
    """A quarter, up to 3."""
    return rational_array(np.array([int(rng.integers(-12, 13)) / 4]))[0]
