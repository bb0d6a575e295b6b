"""A second batch inside one region: rational solutions Q of S5's system for a group that shares the pattern.

There the contributions of a group S depend on ``sum_m g^m [x_m; 1]^T`` only (S0), so every Q with ``Q 1 = 1``
and ``Q^T (Q F - Y') = F - Y`` gives X' = Q X with the same gradient while it stays in the region; no rank is
needed. Two samples with f_2 - f_1 parallel to y_2 - y_1 always have one: y_2 - y_1 = l (f_2 - f_1) gives
x_1 + a (x_2 - x_1), x_2 - a (x_2 - x_1) with a = 1 - l / 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.network import Batch
from exan_verify.decide.context import Context
from exan_verify.decide.residual.alphabet import multiset_count, multisets
from exan_verify.decide.residual.candidates import mixed_inputs
from exan_verify.decide.residual.mse import BiasFilter, is_permutation
from exan_verify.decide.residual.points import rational_points
from exan_verify.decide.residual.quadratic import quadrics
from exan_verify.decide.residual.unsettled import Rest
from exan_verify.decide.second_batch import Candidate
from exan_verify.exclusivity import pattern_groups

MAX_PAIRS = 200
"""Pairs of one region that are looked at."""

MAX_LABELS = 500


def second_in_region(context: Context, budget: Budget) -> Candidate | None:
    """The first second batch found among pairs, then small groups, of one region (mse)."""
    for members in _candidates(context):
        if budget.exhausted:
            return None
        found = _second(Rest(context=context, members=members), budget)
        if found is not None:
            return found
    return None


def _candidates(context: Context) -> Iterator[tuple[int, ...]]:
    patterns = context.passed.patterns
    whole = np.concatenate(patterns) if patterns else np.zeros((1, context.samples), dtype=bool)
    free = [tuple(m for m in group if m not in context.settled) for group in pattern_groups(whole)]
    pairs = [pair for group in free for pair in combinations(group, 2)]
    yield from pairs[:MAX_PAIRS]
    yield from (group for group in free if len(group) == 3)


def _second(rest: Rest, budget: Budget) -> Candidate | None:
    if multiset_count(rest) > MAX_LABELS:
        return None
    balanced = BiasFilter(rest)
    for labels in multisets(rest):
        system = None
        if balanced.admits(labels):
            system = quadrics(rest.logits, rest.batch.labels, labels, affine=rest.affine)
        if system is None:
            continue
        budget.spend(len(system.equations) * system.variables**4)
        for point in rational_points(system, rest.context.setting.seed):
            matrix = system.matrix(point)
            batch = None if is_permutation(matrix) else mixed_inputs(rest, matrix, labels)
            if batch is not None and _samples(batch) != _samples(rest.batch):
                return Candidate(members=rest.members, batch=batch, matrix=matrix)
    return None


def _samples(batch: Batch) -> Counter[object]:
    return Counter(zip(batch.x, batch.y, strict=True))
