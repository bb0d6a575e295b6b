"""Rough guesses of loss vectors and next deltas, to start a search from."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.numeric.problem.problem import Problem


def loss_vector_guesses(problem: Problem, count: int, generator: torch.Generator) -> Float[Tensor, "K m"]:
    """Random undivided loss vectors of the loss's shape, for random labels and logits of any spread."""
    classes = problem.classes
    # the sharpness of the guessed predictions: from nearly uniform to nearly one class
    spread = 4 * torch.rand(1, count, dtype=torch.float64, generator=generator)
    logits = spread * torch.randn(classes, count, dtype=torch.float64, generator=generator)
    label = torch.randint(classes, (count,), generator=generator)
    one_hot = torch.nn.functional.one_hot(label, classes).double().T
    if problem.question.loss is Loss.BCE:
        targets = torch.randint(2, (classes, count), generator=generator).double()
        return (logits.sigmoid() - targets).to(problem.device)
    if problem.question.loss is Loss.MSE:
        return (0.1 * logits - one_hot).to(problem.device)
    if problem.question.loss is Loss.HINGE:
        violated = torch.rand(classes, count, generator=generator) < 0.5 + spread / 8
        wrong = (violated & ~one_hot.bool()).double()
        wrong = torch.where(wrong.sum(dim=0) == 0, 1 - one_hot, wrong)
    else:
        wrong = logits.masked_fill(one_hot.bool(), -torch.inf).softmax(dim=0)
    return (wrong - one_hot * wrong.sum(dim=0)).to(problem.device)


def active_value_guesses(
    problem: Problem, index: int, count: int, generator: torch.Generator
) -> Float[Tensor, "n m"]:
    """What the neurons of hidden layer ``index`` would carry if active: W^T times guessed next deltas.

    The deltas come down from guessed loss vectors through random patterns of the neurons that are active for
    any sample, between half and all of these: in deep networks most neurons above are active for all or none.
    """
    value = loss_vector_guesses(problem, count, generator)
    for k in range(len(problem.layers) - 1, index + 1, -1):
        value = problem.layers[k].backward(value.T).T
        share = 0.5 + 0.5 * torch.rand(1, count, generator=generator)
        alive = problem.layers[k - 1].d_weight.abs().amax(dim=1) > 0
        active = (torch.rand(value.shape, generator=generator) < share) & alive.cpu()[:, None]
        value = value * problem.layers[k - 1].activation.passed(active.T.to(value.device)).T
    return problem.layers[index + 1].backward(value.T).T
