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

from exan_verify.decide.context import Context
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import random_residues
from exan_verify.exact.rational import RationalMatrix, residue_product
from exan_verify.network import Array, Batch


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
        for layer in range(depth, 0, -1):
            found = rank_mod(self.context.image.delta(layer)[:, list(self.members)])
            if found < self.size:
                name = "G" if layer == depth else f"Delta_{layer}"
                return f"rank({name}) of the {self.size} samples left is {found} mod p"
        if self._feature_rank() < self.size:
            return f"the features above hidden layer {depth - 1} of the samples left are dependent mod p"
        return None

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
