"""The rest of a batch: the samples that no earlier argument settled, as a problem at the output layer.

Settled samples (distinct, each in every batch with this gradient) contribute the same to every such batch, so
the others' contributions are conserved as a sum: their gradient is known, with the whole batch's divisor.
When their loss vectors are independent and so are the rows of [H_{L-1} 1], both factor one matrix of rank r,
and any other rest has ``H'_{L-1} = Q H_{L-1}``, ``G' = G Q^-1``, ``Q 1 = 1`` (docs/theory.md 3.1 at i = L).
The logits are affine in H_{L-1}, so ``F' = Q F`` whatever the activation patterns are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exan_verify.core.network import Array, Batch
from exan_verify.decide.context import Context
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import Residues, random_residues
from exan_verify.exact.rational import RationalMatrix, residue_product

MAX_JOINT = 400
"""Most unknowns (samples times features) for the joint rank on the way down."""


@dataclass(frozen=True, kw_only=True)
class Rest:
    """The unsettled samples ``members`` of a context: r of them."""

    context: Context
    members: tuple[int, ...]

    @property
    def size(self) -> int:
        """r."""
        return len(self.members)

    @property
    def affine(self) -> bool:
        """Whether ``Q 1 = 1`` is known: the network has biases."""
        return self.context.network.has_bias

    @cached_property
    def batch(self) -> Batch:
        """The members alone."""
        return self.context.batch.select(self.members)

    @cached_property
    def logits(self) -> Array:
        """F (r, K), Fractions."""
        found: Array = self.context.passed.logits[:, list(self.members)].T
        return found

    def features(self, layer: int) -> RationalMatrix:
        """``H_layer^T`` (n_layer, r); layer 0 is the input."""
        whole = self.context.passed.hidden[layer]
        return RationalMatrix(whole.digits[:, :, list(self.members)], whole.denominator)

    def obstacle(self) -> str | None:
        """The first hypothesis that is not proved, or None."""
        depth = self.context.network.depth
        found = rank_mod(self._delta(depth))
        if found < self.size:
            return f"the loss vectors of the {self.size} samples left are shown to have rank {found} only"
        if self._feature_rank() < self.size:
            return f"of the samples left, the features of layer {depth - 1} are not shown to be independent"
        for layer in range(depth - 1, 0, -1):
            if not self._descends(layer):
                return f"of the samples left, layer {layer} does not determine the features below it"
        return None

    def _delta(self, layer: int) -> Residues:
        return self.context.image.delta(layer)[:, list(self.members)]

    def _descends(self, layer: int) -> bool:
        """Whether H_{layer-1} is the only solution of ``Delta [H 1] = [dW db]`` whose forward pass has the
        given z at the active neurons: rank(Delta) = r, or the joint rank of both is full.
        """
        delta = self._delta(layer)
        if rank_mod(delta) == self.size:
            return True
        weight, width = self.context.network.layer(layer).weight, self.features(layer - 1).shape[0]
        if self.size * width > MAX_JOINT:
            return False
        identity = np.eye(width, dtype=np.uint64)
        rows = [np.kron(row.reshape(1, -1), identity) for row in delta if row.any()]
        residues = RationalMatrix.of(weight).residues()
        for k, m in enumerate(self.members):
            active = residues[self.context.passed.pattern(layer)[:, m]]
            rows.append(np.kron(np.eye(self.size, dtype=np.uint64)[[k]], active))
        return rank_mod(np.concatenate(rows)) == self.size * width

    def _feature_rank(self) -> int:
        residues = self.features(self.context.network.depth - 1).residues()
        if self.affine:
            residues = np.concatenate([residues, np.ones((1, self.size), dtype=np.uint64)])
        if len(residues) > 4 * self.size:
            residues = residue_product(random_residues("rest", self.size + 4, len(residues)), residues)
        return rank_mod(residues)


def rest_of(context: Context) -> Rest | None:
    """The samples that are not settled, or None when nothing is left or settled samples are equal."""
    members = tuple(m for m in range(context.samples) if m not in context.settled)
    if not members or not context.batch.select(sorted(context.settled) or [0]).distinct:
        return None
    return Rest(context=context, members=members)
