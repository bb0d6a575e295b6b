"""The last Linear layer's gradient without any other: what it says, as an attack that claims accordingly."""

from __future__ import annotations

from dataclasses import replace

import torch

from exan_verify.numeric.methods.one_sample import one_sample
from exan_verify.numeric.missing.last_layer import last_layer
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Attack

_MIXED = "{name} determines features and loss vectors only up to a mixing of the {rank} samples that it shows"


def attack_single_layer(problem: Problem, *, name: str, rectified: bool) -> Attack:
    """Features of a batch of one sample, otherwise none; and what is determined in any case.

    ``problem``: that of the last layer alone, if there are more; ``name``: what the gradient is called in the
    reason; ``rectified``: the features cannot be negative.
    """
    problem = replace(problem, layers=problem.layers[-1:])
    last = last_layer(problem, rectified=rectified)
    one = one_sample(problem, alone=True) if last.rank == 1 else None
    if one is not None:
        return replace(one, last_layer=last)
    labels = (
        torch.zeros(0, dtype=torch.long)
        if problem.classified
        else torch.zeros(0, problem.classes, dtype=torch.float64)
    )
    return Attack(
        x=torch.zeros(0, problem.layers[0].shape[1], dtype=torch.float64, device=problem.device),
        y=labels.to(problem.device),
        status=(),
        gradient_residual=1.0,
        complete=False,
        batch_size=problem.question.batch_size or last.rank,
        batch_size_source="rank" if problem.question.batch_size is None else "given",
        method="single layer",
        layer=None,
        layers=(),
        candidates=(),
        reason=_MIXED.format(name=name, rank=last.rank),
        seconds=0.0,
        last_layer=last,
    )
