"""Layers that every sample meets at weights of its own, as where a client takes steps between samples.

Over one local epoch of plain steps sample m takes part in one step, at the weights that the samples of
earlier steps have left, and the sum of all gradients is that of one batch whose samples meet different
weights (docs/theory.md, Appendix U). Such a batch is a :class:`MovedProblem`: row m of whatever goes forward
or backward belongs to sample m, so that it takes all samples or none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.problem.losses import REACH, LabelFit
from exan_verify.numeric.problem.problem import LayerGradient, Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MovedLayer(LayerGradient):
    """A layer that sample m meets with the weights [W | b] - sum_k ``earlier``[m, k] ``taken``_k (h_k, 1)^T.

    ``taken`` (M, n_out): the deltas of the samples times the learning rate; ``inputs`` (M, n_in) their h;
    ``earlier`` (M, M): 1 where sample k's step comes before sample m's, else 0.
    """

    taken: Tensor
    inputs: Tensor
    earlier: Tensor

    def forward(self, h: Float[Tensor, "M in"]) -> Float[Tensor, "M out"]:
        """The pre-activations of every sample at its own weights."""
        shared = (h @ self.inputs.T + 1) * self.earlier
        return LayerGradient.forward(self, h) - shared @ self.taken

    def backward(self, delta: Float[Tensor, "M ... out"]) -> Float[Tensor, "M ... in"]:
        """``W^T delta`` at every sample's own W (out, in)."""
        size = len(self.earlier)
        shared = (delta @ self.taken.T) * self.earlier.view(size, *(1 for _ in delta.shape[2:]), size)
        return LayerGradient.backward(self, delta) - shared @ self.inputs

    def moved_by(self) -> float:
        """How far the weights move on the way, Frobenius norm, at most."""
        return float(self.taken.norm() * torch.hypot(self.inputs.norm(), self.inputs.new_tensor(1.0)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MovedProblem(Problem):
    """A problem of moved layers; ``divisors`` (M,): what the step of each sample divides its loss by."""

    divisors: Tensor

    @property
    def alternatives(self) -> str:
        """What else loss vectors may be that no label explains."""
        return "another learning rate, other local steps, another loss or batch size"

    def divisor(self, samples: int) -> float:  # noqa: ARG002 - the steps say how many samples are averaged
        """What the loss of a sample of the smallest step is divided by."""
        return float(self.divisors.min())

    def loss_vectors(self, logits: Float[Tensor, "M K"], labels: Tensor) -> Float[Tensor, "M K"]:
        """Loss vectors times what a sample's step counts less than the smallest one."""
        return Problem.loss_vectors(self, logits, labels) / self._shares()

    def fit_labels(
        self,
        logits: Float[Tensor, "M K"],
        spans: Float[Tensor, "M n K"],
        deltas: Float[Tensor, "M n"],
        *,
        samples: int,
        loss_vector_hint: Float[Tensor, "M K"] | None = None,
        reach: float = REACH,
    ) -> LabelFit:
        """As :meth:`Problem.fit_labels`, every sample at what its step counts."""
        shares = self._shares()
        fit = Problem.fit_labels(
            self,
            logits,
            spans,
            deltas * shares,
            samples=samples,
            loss_vector_hint=None if loss_vector_hint is None else loss_vector_hint * shares,
            reach=reach,
        )
        return replace(fit, vectors=fit.vectors / shares)

    def _shares(self) -> Float[Tensor, "M 1"]:
        return (self.divisors / self.divisors.min())[:, None]
