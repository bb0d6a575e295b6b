"""Forward and backward passes over a problem's layers, and how far rounding moves them.

Notation of docs/theory.md section 1; samples are rows here. Rounding is followed by norms, as independent
errors (probabilistic rounding analysis, Higham and Mary 2019): an estimate to scale tolerances with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.arrays import PerLayer
from exan_verify.numeric.problem.activations import Piecewise
from exan_verify.numeric.problem.losses import loss_vector_error
from exan_verify.numeric.problem.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """A forward pass of m samples: ``hidden[k]`` (m, n_k) with hidden[0] = x, ``logits`` (m, K), and
    ``pre[k]`` (m, n_{k+1}) the pre-activations of hidden layer k + 1, which ``activations[k]`` follows."""

    hidden: tuple[Tensor, ...]
    pre: tuple[Tensor, ...]
    logits: Tensor
    activations: tuple[Piecewise, ...]

    @property
    def patterns(self) -> PerLayer[Tensor]:
        """Which hidden neurons are active (ReLU: z > 0), per hidden layer."""
        return PerLayer(phi.active(z) for phi, z in zip(self.activations, self.pre, strict=True))

    @property
    def slopes(self) -> PerLayer[Tensor]:
        """The derivatives of the activations, per hidden layer, that deltas are multiplied by."""
        patterns = zip(self.activations, self.patterns, strict=True)
        return PerLayer(phi.passed(active) for phi, active in patterns)

    def select(self, chosen: Tensor) -> Trace:
        """The pass of the ``chosen`` samples alone: a mask (m,), or indices."""
        return Trace(
            hidden=tuple(h[chosen] for h in self.hidden),
            pre=tuple(z[chosen] for z in self.pre),
            logits=self.logits[chosen],
            activations=self.activations,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounding:
    """Estimated errors, L2 norms per sample: ``pre`` per hidden layer, ``deltas`` per layer, each (m,);
    ``gradients``: one number per layer, Frobenius norm on [dW | db]."""

    pre: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    gradients: tuple[float, ...]


def forward(problem: Problem, x: Float[Tensor, "m d"]) -> Trace:
    """Run the network at ``x``."""
    hidden, pre = [x], []
    for layer in problem.layers[:-1]:
        pre.append(layer.forward(hidden[-1]))
        hidden.append(layer.activation.values(pre[-1]))
    return Trace(
        hidden=tuple(hidden),
        pre=tuple(pre),
        logits=problem.layers[-1].forward(hidden[-1]),
        activations=tuple(layer.activation for layer in problem.layers[:-1]),
    )


def backward(problem: Problem, trace: Trace, g: Float[Tensor, "m K"]) -> tuple[Tensor, ...]:
    """The deltas of every layer, first to last, for the loss vectors ``g``."""
    deltas = [g]
    for layer, slopes in zip(reversed(problem.layers[1:]), reversed(trace.slopes), strict=True):
        deltas.append(layer.backward(deltas[-1]) * slopes)
    return tuple(reversed(deltas))


def delta_spans(
    problem: Problem, trace: Trace, sure: tuple[Bool[Tensor, "m n"], ...] | None = None
) -> Float[Tensor, "m n1 K"]:
    """Per sample the map from loss vectors to first-layer deltas, D_1 W_2^T D_2 ... W_L^T.

    Every hidden neuron that is not ``sure`` gets a column of its own instead of an entry in D: its delta may
    be anything. Columns are padded with zeros to the same number for all samples. Rows of neurons that the
    first layer's gradient has no row of are zero, as in its column space.
    """
    identity = torch.eye(problem.classes, dtype=torch.float64, device=problem.device)
    spans = identity.expand(trace.logits.shape[0], -1, -1)
    certain = [None] * len(trace.pre) if sure is None else sure[::-1]
    for layer, slopes, kept in zip(problem.layers[:0:-1], trace.slopes[::-1], certain, strict=True):
        spans = layer.backward(spans) * slopes[:, None, :]
        if kept is not None and not bool(kept.all()):
            spans = torch.cat([spans * kept[:, None, :], _unit_rows(~kept)], dim=1)
    return problem.layers[0].sent(spans).mT


def _unit_rows(marked: Bool[Tensor, "m n"]) -> Float[Tensor, "m r n"]:
    """One unit row for every marked neuron, padded with zero rows."""
    most = int(marked.sum(dim=1).max())
    order = marked.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    chosen = torch.gather(marked, 1, order)
    return torch.nn.functional.one_hot(order, marked.shape[1]).double() * chosen[:, :, None]


def gradient_error(problem: Problem, trace: Trace, deltas: tuple[Tensor, ...]) -> list[float]:
    """Frobenius distance, per layer, between [dW | db], as far as given, and that of the samples."""
    errors = []
    for layer, h, delta in zip(problem.layers, trace.hidden, deltas, strict=True):
        missed = layer.d_bias - delta.sum(dim=0)
        if layer.bias_rows is not None:
            missed = missed * layer.bias_rows
        squared = float(missed.square().sum()) if layer.bias_given else 0.0
        if not layer.weight_given:
            errors.append(math.sqrt(squared))
            continue
        step = max(1, (1 << 22) // layer.shape[1])
        for start in range(0, layer.shape[0], step):
            rows = slice(start, start + step)
            shown = delta[:, rows] if layer.weight_rows is None else delta[:, rows] * layer.weight_rows[rows]
            squared += float(torch.addmm(layer.d_weight[rows].double(), shown.T, h, alpha=-1).square().sum())
        errors.append(math.sqrt(squared))
    return errors


def gradient_norms(problem: Problem) -> list[float]:
    """Frobenius norm of each layer's [dW | db], as far as given."""
    return [
        math.hypot(
            float(torch.linalg.vector_norm(layer.d_weight)) if layer.weight_given else 0.0,
            float(layer.d_bias.norm()) if layer.bias_given else 0.0,
        )
        for layer in problem.layers
    ]


def weight_gains(problem: Problem) -> list[tuple[float, float]]:
    """Per layer, root-mean-square gains of W and W^T on vectors in general position."""
    gains = []
    for layer in problem.layers:
        norm = float(torch.linalg.vector_norm(layer.weight))
        gains.append((norm / math.sqrt(layer.shape[1]), norm / math.sqrt(layer.shape[0])))
    return gains


def rounding(
    problem: Problem,
    trace: Trace,
    deltas: tuple[Tensor, ...],
    *,
    gains: list[tuple[float, float]],
    input_error: Float[Tensor, " m"],
    unit: float,
    divisor: float,
) -> Rounding:
    """Estimate how far roundoff ``unit`` and inputs off by ``input_error`` (L2) move a pass."""
    pre_errors, hidden_errors = [], [input_error]
    values = [*trace.pre, trace.logits]
    for (gain, _), layer, h, z in zip(gains, problem.layers, trace.hidden, values, strict=True):
        own = unit * (gain * h.norm(dim=1) * math.sqrt(math.log2(layer.shape[1] + 1)) + z.norm(dim=1))
        pre_errors.append(torch.hypot(gain * hidden_errors[-1], own))
        hidden_errors.append(layer.activation.steepest * pre_errors[-1])
    delta_errors = [
        loss_vector_error(problem.question.loss, trace.logits, deltas[-1], pre_errors[-1], unit, divisor)
    ]
    for k in range(len(problem.layers) - 1, 0, -1):
        gain, above = gains[k][1], deltas[k].norm(dim=1)
        own = unit * gain * above * math.sqrt(math.log2(problem.layers[k].shape[0] + 1))
        steepest = problem.layers[k - 1].activation.steepest
        delta_errors.append(steepest * torch.hypot(gain * delta_errors[-1], own))
    delta_errors.reverse()
    products = [
        math.sqrt(
            float((e_d * h1).square().sum() + (n_d * e_h).square().sum() + (unit * n_d * h1).square().sum())
        )
        for e_d, e_h, n_d, h1 in (
            (delta_errors[k], hidden_errors[k], deltas[k].norm(dim=1), trace.hidden[k].norm(dim=1) + 1)
            for k in range(len(deltas))
        )
    ]
    return Rounding(pre=tuple(pre_errors[:-1]), deltas=tuple(delta_errors), gradients=tuple(products))
