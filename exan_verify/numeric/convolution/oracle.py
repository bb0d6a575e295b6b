"""The defender's view: the rank deficit of every stage, each as if all above it had been recovered.

An attack stops at the first stage that leaves something open; this says what every single stage would leave,
from the batch itself. After the rank analysis of Zhu and Blaschko (R-GAP, ICLR 2021), for batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.models.pictures.stages import ConvolutionalNetwork, Relu
from exan_verify.numeric.convolution.descend import invert_stage
from exan_verify.numeric.convolution.known import Known
from exan_verify.numeric.convolution.records import StageReport
from exan_verify.numeric.convolution.spread import Spread
from exan_verify.numeric.problem.torch_losses import summed_loss


def stage_deficits(
    network: ConvolutionalNetwork, pictures: Tensor, labels: Tensor, loss: Loss
) -> tuple[StageReport, ...]:
    """One report per stage of the body, first to last, for the batch ``pictures`` (M, C, H, W), ``labels``.

    Outputs of a linear stage are known where the ReLU above it is active, everywhere if there is none;
    deltas are the batch's own, up to the reduction's factor, which changes no rank.
    """
    values, deltas = _passes(network, pictures.double(), labels, loss)
    shapes = network.shapes()
    reports = []
    for k, stage in enumerate(network.body):
        value, delta = values[k + 1], deltas[k + 1]
        readers = [other for other in network.body if k + 1 in other.inputs]
        rectified_above = bool(readers) and all(isinstance(other, Relu) for other in readers)
        known = (value > 0) if rectified_above else torch.ones_like(value, dtype=torch.bool)
        given = Known(
            value=value,
            known=known,
            spread=Spread.even(value.new_zeros(len(value))),
            delta=delta,
            delta_known=torch.ones_like(known),
        )
        below = stage.inputs[0]
        rectified = below > 0 and isinstance(network.body[below - 1], Relu)
        if len(stage.inputs) > 1:
            unknowns = 2 * value.numel()
            note = "only the sum of the two branches is known"
            reports.append(
                StageReport(
                    path=stage.path,
                    kind=stage.kind,
                    unknowns=unknowns,
                    equations=value.numel(),
                    alone=value.numel(),
                    deficit=value.numel(),
                    note=note,
                )
            )
            continue
        d_weight = None
        if k in network.convolutions:
            d_weight = network.convolutions[k].weight_gradient(values[below], delta).sum(dim=0)
        reports.append(invert_stage(stage, given, shapes[below], d_weight, 2.0**-53, rectified)[1])
    return tuple(reports)


def _passes(
    network: ConvolutionalNetwork, pictures: Tensor, labels: Tensor, loss: Loss
) -> tuple[list[Tensor], list[Tensor]]:
    """All values and the derivative of the summed loss by each."""
    with torch.enable_grad():
        values = network.values(pictures.detach().requires_grad_(True))
        total = summed_loss(loss, network.head_logits(values[-1].flatten(1)), labels)
        deltas = torch.autograd.grad(total, values)
    return [value.detach() for value in values], list(deltas)
