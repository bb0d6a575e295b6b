"""The last Linear layer's gradient without any other: what it says, as an attack that claims accordingly.

There is no hidden layer whose patterns would tell the samples in the mixture Q apart (last_layer.py), but the
logits of Q H are known, so that the loss vectors have to be those of labels there: K equations per sample for
its M - 1 numbers. Descents from all starts look for batches that meet them; a sample is found where all
that reach one agree on it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from exan_verify.errors import RangeError
from exan_verify.numeric.ask_methods import Candidates, Pursuit, as_whole, column_spaces
from exan_verify.numeric.confirming.confirm import CLAIM_LIMIT, Confirmed
from exan_verify.numeric.confirming.whole_batch import WholeBatch, whole_batch
from exan_verify.numeric.methods.one_sample import one_sample
from exan_verify.numeric.methods.searching.descend import Descend
from exan_verify.numeric.missing.last_layer import last_layer
from exan_verify.numeric.problem.passes import weight_gains
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Attack, Candidate, Finding
from exan_verify.numeric.problem.spectrum import ColumnSpace

_MIXED = "{name} determines features and loss vectors only up to a mixing of the {rank} samples that it shows"

_AGREEING = 4
"""Descents after the first that reach one batch, and no other, until no more are started: one in 32 misses
a batch that is reached as often."""

_SAME = 1e-6
"""Relative distance of inputs from which two descents have reached two batches."""


def attack_single_layer(problem: Problem, *, name: str, rectified: bool) -> Attack:
    """Features of one sample, or of a few whose labels leave one batch; and what is determined in any case.

    ``problem``: that of the last layer alone, if there are more; ``name``: what the gradient is called in the
    reason; ``rectified``: the features cannot be negative.
    """
    problem = replace(problem, layers=problem.layers[-1:])
    last = last_layer(problem, rectified=rectified)
    one = one_sample(problem, alone=True) if last.rank == 1 else None
    if one is not None:
        return replace(one, last_layer=last)
    finding = Finding(
        method="single layer",
        x=torch.zeros(0, problem.layers[0].shape[1], dtype=torch.float64, device=problem.device),
        rest=last.loss_span,
        rest_sine=1.0,
        layer=None,
        layers=(),
        reason=_MIXED.format(name=name, rank=last.rank),
    )
    size = problem.question.batch_size
    labels = (
        torch.zeros(0, dtype=torch.long)
        if problem.classified
        else torch.zeros(0, problem.classes, dtype=torch.float64)
    )
    confirmed = Confirmed(
        x=finding.x,
        y=labels.to(problem.device),
        status=(),
        candidates=(),
        gradient_residual=1.0,
        complete=False,
        batch_size=size or last.rank,
        batch_size_source="rank" if size is None else "given",
        reason=finding.reason,
        scale=problem.scale or 1.0,
    )
    spaces, gains = column_spaces(problem), weight_gains(problem)
    said, found = "descents reached no batch of labelled samples with this gradient", []
    try:
        found = _batches(problem, spaces, rectified=rectified)
    except RangeError as error:
        said = str(error)
    confirmed = replace(confirmed, reason=f"{finding.reason}; {said}")
    if len(found) == 1:
        method = Descend.name
        finding = replace(
            finding, method=method, x=found[0].x, y=found[0].y, rest=finding.rest[:, :0], reason=""
        )
        confirmed = as_whole(problem, finding, confirmed, gains)
    elif found:
        confirmed = replace(
            confirmed,
            reason=f"{finding.reason}; at least {len(found)} batches of labelled samples have this gradient",
            candidates=tuple(
                Candidate(x=x, label=y, error_estimate=float(error), reason="it is in one of several batches")
                for one in found
                for x, y, error in zip(one.x, one.y, one.errors, strict=True)
            ),
        )
    pursuit = Pursuit(
        candidates=Candidates(problem=problem, spaces=spaces, finding=finding), confirmed=confirmed
    )
    return replace(pursuit.attack(), last_layer=last)


def _batches(problem: Problem, spaces: tuple[ColumnSpace, ...], *, rectified: bool) -> list[WholeBatch]:
    """The batches with this gradient that descents reach, each once, as far as their samples are determined:
    two that differ in others only are one."""
    gains = weight_gains(problem)
    found: list[WholeBatch] = []
    again = 0
    for state in Descend().reached(problem, spaces):
        one = whole_batch(problem, state.x, state.y, gains)
        if one is None or (rectified and bool((one.x < -_within(one)[:, None]).any())):
            continue
        if any(_agree(one, other) for other in found):
            again += 1
        else:
            found.append(one)
        if again == _AGREEING and len(found) == 1:
            break
    return found


def _within(one: WholeBatch) -> Tensor:
    return torch.maximum(one.errors, _SAME * one.x.abs().amax(dim=1).clamp(min=1.0))


def _determined(one: WholeBatch) -> Tensor:
    known: Tensor = one.errors <= CLAIM_LIMIT * one.x.abs().amax(dim=1).clamp(min=1.0)
    return known


def _agree(one: WholeBatch, other: WholeBatch) -> bool:
    """Whether the samples of ``one`` that are determined are those of ``other``."""
    apart = (one.x[:, None] - other.x[None]).abs().amax(dim=2)
    same = apart <= _within(one)[:, None] + _within(other)
    return bool(same[_determined(one)][:, _determined(other)].any(dim=1).all())
