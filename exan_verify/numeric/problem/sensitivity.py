"""How the gradient of a batch moves with its inputs and targets, where no activation pattern changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.numeric.problem.passes import Trace
from exan_verify.numeric.problem.problem import Problem


def loss_slope(loss: Loss, logits: Float[Tensor, "m K"], moved: Float[Tensor, "m r K"]) -> Tensor:
    """How the undivided loss vectors change where the logits are ``moved``."""
    if loss is Loss.HINGE:
        return torch.zeros_like(moved)
    if loss is Loss.MSE:
        return 2 * moved
    if loss is Loss.BCE:
        p = logits.sigmoid()[:, None, :]
        return p * (1 - p) * moved
    p = logits.softmax(dim=1)[:, None, :]
    return p * (moved - (p * moved).sum(dim=2, keepdim=True))


def jacobian(
    problem: Problem,
    trace: Trace,
    deltas: tuple[Tensor, ...],
    frame: Float[Tensor, "d r"],
    *,
    divisor: float,
    targets: bool,
    weights: Sequence[float],
) -> Float[Tensor, "m u E"]:
    """Per sample, how the given tensors' entries change with its input along ``frame``, and with its target
    where ``targets`` are unknown; layer by layer times ``weights``.

    Entries of dW_1 are taken along the frame, too: across it only its own loss vector moves them.
    """
    size, free = trace.logits.shape[0], frame.shape[1]
    hidden = (trace.hidden[0] @ frame, *trace.hidden[1:])
    tangents = [torch.eye(free, dtype=frame.dtype, device=frame.device).expand(size, -1, -1)]
    moved = problem.layers[0].forward(frame.T) - problem.layers[0].bias
    moved = moved.expand(size, -1, -1)
    for layer, slopes in zip(problem.layers[1:], trace.slopes, strict=True):
        tangents.append(moved * slopes[:, None, :])
        moved = tangents[-1] @ layer.weight.double().T
    change = loss_slope(problem.question.loss, trace.logits, moved) / divisor
    if targets:
        own = -(2.0 if problem.question.loss is Loss.MSE else 1.0) / divisor
        unit = own * torch.eye(problem.classes, dtype=frame.dtype, device=frame.device)
        change = torch.cat([change, unit.expand(size, -1, -1)], dim=1)
        tangents = [torch.cat([t, t.new_zeros(size, problem.classes, t.shape[2])], dim=1) for t in tangents]
    blocks: list[Tensor] = []
    for k in range(len(problem.layers) - 1, -1, -1):
        layer, h, delta = problem.layers[k], hidden[k], deltas[k]
        if layer.bias_given:
            blocks.append(weights[k] * _of_rows(change, layer.bias_rows))
        if layer.weight_given:
            moving, part = _of_rows(change, layer.weight_rows), _of_rows(delta, layer.weight_rows)
            product = (
                moving[..., None] * h[:, None, None, :] + part[:, None, :, None] * tangents[k][:, :, None, :]
            )
            blocks.append(weights[k] * product.flatten(2))
        if k:
            change = layer.backward(change) * trace.slopes.at(k)[:, None, :]
    return torch.cat(blocks, dim=2)


def residual(
    problem: Problem,
    trace: Trace,
    deltas: tuple[Tensor, ...],
    frame: Float[Tensor, "d r"],
    weights: Sequence[float],
) -> Float[Tensor, " E"]:
    """What the batch leaves of the given tensors, in the order of :func:`jacobian`."""
    blocks: list[Tensor] = []
    for k in range(len(problem.layers) - 1, -1, -1):
        layer, h, delta = problem.layers[k], trace.hidden[k], deltas[k]
        if layer.bias_given:
            blocks.append(weights[k] * _of_rows(layer.d_bias - delta.sum(dim=0), layer.bias_rows))
        if layer.weight_given:
            given = layer.d_weight.double()
            left = (given @ frame - delta.T @ (h @ frame)) if k == 0 else (given - delta.T @ h)
            blocks.append(weights[k] * _of_rows(left.T, layer.weight_rows).T.flatten())
    return torch.cat(blocks)


def _of_rows(values: Float[Tensor, "... n"], rows: Bool[Tensor, " n"] | None) -> Float[Tensor, "... r"]:
    """The entries of ``rows`` alone, None: all."""
    return values if rows is None else values[..., rows]
