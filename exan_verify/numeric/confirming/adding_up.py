"""What two methods found of one gradient, as one result: nothing that an earlier method found is thrown
away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from exan_verify.numeric.confirming.confirm import CLAIM_LIMIT, Confirmed
from exan_verify.numeric.problem.passes import backward, forward
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Candidate, Evidence, divided_loss_vectors
from exan_verify.numeric.problem.remainder import without
from exan_verify.numeric.problem.spectrum import ColumnSpace

_LOOKS_THE_SAME = 1e-2
"""Relative distance within which two uncertain inputs may be one sample."""


def added_up(problem: Problem, space: ColumnSpace, more: Confirmed, less: Confirmed) -> Confirmed:
    """``more`` with what only ``less`` found, of a gradient whose first layer has column space ``space``.

    Samples of ``less`` that cannot be in one batch with those of ``more`` become candidates: the batch would
    be too large, the factor of the gradient another one, or removing all of them would not lower the rank by
    as many.
    """
    new = [
        m
        for m, one in enumerate(less.status)
        if _nearest(less.x[m], more.x)
        > one.error_bound + max((s.error_bound for s in more.status), default=0.0)
    ]
    both, candidates = more, list(more.candidates)
    if new:
        x, y = torch.cat([more.x, less.x[new]]), torch.cat([more.y, less.y[new]])
        status = (*more.status, *(less.status[m] for m in new))
        same = (more.scale, more.batch_size) == (less.scale, less.batch_size)
        if same and len(x) <= more.batch_size and _fit_beside(problem, space, more, x, y, status):
            both = replace(more, x=x, y=y, status=status)
        else:
            candidates += [
                Candidate(
                    x=less.x[m],
                    label=less.y[m],
                    error_estimate=less.status[m].error_bound,
                    reason=f"it fits its own equations, but not beside the {len(more.x)} samples found",
                )
                for m in new
            ]
    return replace(both, candidates=distinct(both.x, both.status, (*candidates, *less.candidates)))


def distinct(x: Tensor, status: Sequence[Evidence], candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """``candidates`` without those that are a sample of ``x`` (M', ...) again, and one of those that are one
    sample: that with the smallest error estimate, a label preferred among equals.

    Two inputs count as one nearer than the error at which a sample counts as found, or within their errors as
    stated, up to a hundredth of their size: larger estimates would make one of any two samples.
    """
    bounds = [min(one.error_bound, math.inf) for one in status]
    kept: list[Candidate] = []
    for m in sorted(
        range(len(candidates)), key=lambda m: (_error(candidates[m]), candidates[m].label is None, m)
    ):
        one = candidates[m]
        again = _same(one, x, bounds) if len(bounds) else False
        if not again and kept:
            again = _same(one, torch.stack([c.x for c in kept]), [_error(c) for c in kept])
        if not again:
            kept.append(one)
    places = {id(one): m for m, one in enumerate(candidates)}
    return tuple(sorted(kept, key=lambda one: places[id(one)]))


def _same(candidate: Candidate, others: Tensor, errors: Sequence[float]) -> bool:
    size = float(candidate.x.abs().max())
    within = torch.tensor([_error(candidate) + error for error in errors], dtype=torch.float64)
    within = within.clamp(max=_LOOKS_THE_SAME * size).clamp(min=CLAIM_LIMIT * size)
    apart = (others - candidate.x).abs().flatten(1).amax(dim=1).double()
    return bool((apart <= within.to(apart.device)).any())


def _error(candidate: Candidate) -> float:
    return candidate.error_estimate if math.isfinite(candidate.error_estimate) else math.inf


def _fit_beside(
    problem: Problem,
    space: ColumnSpace,
    found: Confirmed,
    x: Tensor,
    y: Tensor,
    status: Sequence[Evidence],
) -> bool:
    if len(x) >= space.rank:
        return len(x) == space.rank
    trace = forward(problem, x)
    g = divided_loss_vectors(problem, trace.logits, y, status, scale=found.scale, batch_size=found.batch_size)
    if g is None:
        return False
    return not without(space, backward(problem, trace, g)[0], x).saturated


def _nearest(x: Tensor, others: Tensor) -> float:
    return float((others - x).abs().amax(dim=1).min()) if len(others) else float("inf")
