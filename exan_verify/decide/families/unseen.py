"""Motions that a first layer narrower than the batch does not see (docs/theory.md section 4), at any width.

Which samples move is read from the pattern alone. A set S of samples with fewer live neurons than samples has
dependent columns in Delta_1 whatever the values are; the S with the greatest surplus is the part of the
Dulmage-Mendelsohn decomposition that a maximum matching of samples with live neurons leaves short. Of a
release only the neurons count whose row of dW_1 is sent: nothing else of the gradient changes along these
motions.
"""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Unseen
from exan_verify.core.facts import Facts
from exan_verify.core.network import ReluNetwork
from exan_verify.decide.context import Context
from exan_verify.decide.families import inwards
from exan_verify.decide.families.result import Part, joined
from exan_verify.decide.second_batch import admitted
from exan_verify.errors import BudgetExhausted
from exan_verify.exact.modular import PRIME
from exan_verify.exact.rational import Mask


def decide(context: Context, budget: Budget) -> Part:
    """The family ``X + A`` with ``A W_1^T = 0`` and ``Delta_1 A = 0``, by counts."""
    live, inside = _live(context), _inside(context)
    samples = short_of_rows(live)
    parts = [_both_ways(context, samples, live, inside, budget)]
    if samples and not inside[samples].all() and isinstance(context.model, ReluNetwork):
        with suppress(BudgetExhausted):  # what is found already stays
            leaving = inwards.found(context, samples, live, budget)
            parts += [_part(context, *leaving, live)] if leaving is not None else []
    # the larger family first: where both show the same, its evidence is kept
    return joined(sorted(parts, key=lambda part: -(part.dimension or 0)))


def _both_ways(context: Context, samples: list[int], live: Mask, inside: Mask, budget: Budget) -> Part:
    """Motions of what is strictly inside the box."""
    dimension = _dimension(context, samples, live, inside)
    for _ in range(len(samples)):
        budget.spend(len(samples) * inside.shape[1])
        # a sample that few of the features let move costs more equations than it brings motions
        features, seen, _ = _counts(context, samples, live, inside)
        left = [m for m in samples if int(inside[m, features].sum()) >= seen]
        more = _dimension(context, left, live, inside)
        if left == samples or more <= dimension:
            break
        samples, dimension = left, more
    if dimension <= 0:
        return Part(note="")
    evidence = Unseen(samples=tuple(samples), dimension=dimension, prime=PRIME, point=context.image.point)
    facts = admitted(context, evidence)
    return Part(note="") if facts is None else _part(context, evidence, facts, live)


def _part(context: Context, evidence: Unseen, facts: Facts, live: Mask) -> Part:
    """In words."""
    samples, released = list(evidence.samples), context.question.release is not None
    kept, where, who = "every pre-activation", "", "first layer does"
    if evidence.inwards is not msgspec.UNSET:
        where = ", also off the faces of the box"
        if evidence.inwards.layer == 2:
            kept, who = "every value of the second layer", "first two layers do"
    reason = (
        f"the {who} not see some motions of {len(samples)} samples with "
        f"{int(live[:, samples].any(axis=1).sum())} live neurons{' that are sent' if released else ''}"
        f"{where}: "
        f"a family of dimension {evidence.dimension} at least keeps {kept} and "
        f"{'all that is sent' if released else 'the gradient'} (narrow first layer)"
    )
    radii = None
    if context.question.domain is None:
        radii = tuple(None if m in facts.free else Fraction(0) for m in range(context.samples))
    return Part(
        note=reason,
        facts=facts,
        evidence=(evidence,),
        dimension=evidence.dimension,
        radii=radii,
        reason=reason,
    )


def short_of_rows(live: Any) -> list[int]:
    """The columns S (of samples, or pixels) for which |S| exceeds the number of rows with an entry in S by
    the most.

    ``live`` (n, M), a mask or a sparse matrix of one. Every maximum matching leaves the same S: the columns
    that alternating paths reach from unmatched ones.
    """
    from scipy.sparse import csr_matrix  # slow to load: only where it is asked
    from scipy.sparse.csgraph import maximum_bipartite_matching

    entries = csr_matrix(live, dtype=np.int32)
    partner = maximum_bipartite_matching(entries, perm_type="column")  # of each row; -1: none
    reached = np.ones(live.shape[1], dtype=bool)
    reached[partner[partner >= 0]] = False
    while True:
        met = partner[entries @ reached.astype(np.int32) > 0]  # all matched, or one could be augmented
        more = reached.copy()
        more[met] = True
        if (more == reached).all():
            return [int(m) for m in np.flatnonzero(reached)]
        reached = more


def _live(context: Context) -> Mask:
    """Entries of the rows of Delta_1 that are sent, or of rows that span them, that may be non-zero."""
    sent = context.question.sent_weights(context.model.layers[0])
    live = [context.passed.live(k) for k in range(1, context.model.depth)]
    if not live:
        rows = int(sent.sum()) - (context.question.loss.zero_sum and bool(sent.all()))
        return np.ones((rows, context.samples), dtype=bool)
    found = live[0].copy()
    for layer in live[1:]:
        found[:, ~layer.any(axis=0)] = False
    return found[sent]


def _inside(context: Context) -> Mask:
    x = context.batch.inputs
    if context.question.domain is None:
        return np.ones(x.shape, dtype=bool)
    lo, hi = context.question.domain.bounds(x.shape[1])
    found: Mask = (x > lo) & (x < hi)
    return found


def _dimension(context: Context, samples: list[int], live: Mask, inside: Mask) -> int:
    """``sum_k (c_k - r)+ - (|S| - r) n``: a lower bound of the family's dimension where it is positive."""
    features, seen, rank = _counts(context, samples, live, inside)
    surplus = inside[np.ix_(samples, features)].sum(axis=0) - rank
    return int(surplus.sum()) - (len(samples) - rank) * seen


def _counts(context: Context, samples: list[int], live: Mask, inside: Mask) -> tuple[list[int], int, int]:
    """The features that move, and upper bounds of the ranks of W_1 on them and of Delta_1 on ``samples``."""
    neurons = live[:, samples]
    rank = min(int(neurons.any(axis=1).sum()), int(neurons.any(axis=0).sum()))
    features = [int(k) for k in np.flatnonzero(inside[samples].sum(axis=0) > rank)]
    weight = context.model.layers[0].weight[:, features]
    return features, min(int((weight != 0).any(axis=1).sum()), len(features)), rank
