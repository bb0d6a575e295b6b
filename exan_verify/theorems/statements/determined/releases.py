"""What does not protect: rows of the first layer held back, and unknown weights of the samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from exan_verify.core.network import Array
from exan_verify.exact.linalg import rank
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import drawn, exact
from exan_verify.theorems.support.layer_equations import (
    Layer,
    claiming_singles,
    grouped_patterns,
    random_layer,
)
from exan_verify.theorems.support.shorthands import by_instances, coq, measured, written

SIZES = (((1, 1), 1, 5), ((1, 1), 2, 7), ((2, 1), 2, 9), ((1, 1, 1), 1, 8))
"""(group sizes, K', n): more neurons than lifting needs."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A layer of which some neurons' rows are sent; every sample's delta is times its weight."""

    layer: Layer
    rows: tuple[int, ...]
    weights: Array

    @property
    def received(self) -> Layer:
        """The equations of what is sent: fewer neurons, and c_m u_m in the place of u_m."""
        kept = list(self.rows)
        return Layer(
            patterns=self.layer.patterns[kept],
            outgoing=self.layer.outgoing[kept],
            following=self.layer.following * self.weights,
        )


def masked_layers(seed: int) -> Iterator[Sent]:
    """Rows that reach lifting's rank U - sum s_k^2, the groups being those of the rows sent."""
    return drawn("masked rows", seed, lambda rng: _draw(rng, weighted=False))


def weighted_layers(seed: int) -> Iterator[Sent]:
    """All rows, of samples with different positive weights."""
    return drawn("weights", seed, lambda rng: _draw(rng, weighted=True))


def _draw(rng: Random, *, weighted: bool) -> Sent | None:
    sizes, extra, neurons = rng.choice(SIZES)
    layer = random_layer(rng, grouped_patterns(rng, neurons, sizes), extra, top=9)
    kept = neurons if weighted else rng.randint(neurons - 2, neurons - 1)
    weights = exact([rng.randint(1, 9) if weighted else 1 for _ in range(layer.samples)])
    sent = Sent(layer=layer, rows=tuple(sorted(rng.sample(range(neurons), kept))), weights=weights)
    received = sent.received
    independent = all(rank(received.following[:, list(g)]) == len(g) for g in received.groups)
    full = rank(received.delta) == layer.samples
    return sent if independent and full and _reaches(received) else None


def _reaches(layer: Layer) -> bool:
    return layer.unknowns - layer.rank() == sum(len(group) ** 2 for group in layer.groups)


def only_true_candidates(sent: Sent) -> bool:
    """Over all states of the neurons sent, every candidate has q in one group's span and u = U_group q."""
    received = sent.received
    return all(received.explains(basis, received.groups) for basis in received.branches())


def same_rank_and_candidates(sent: Sent) -> bool:
    """The weights change no rank, and the candidates are the samples with their own weights."""
    plain = replace(sent, weights=sent.weights * 0 + 1).received
    return plain.rank() == sent.received.rank() and only_true_candidates(sent)


def mixed_up(sent: Sent) -> Sent:
    """The same about a layer whose samples are one group and are called many."""
    return _Claiming(layer=sent.layer, rows=sent.rows, weights=sent.weights)


@dataclass(frozen=True, kw_only=True)
class _Claiming(Sent):
    @property
    def received(self) -> Layer:
        return claiming_singles(super().received)


STATEMENTS = (
    Statement(
        name="masked-rows",
        group="releases",
        title="Holding rows of a layer back protects nobody by itself",
        source="docs/theory.md section 9, M3",
        reading="Of [dW_i | db_i] only the rows of some neurons S are sent. If these rows of Delta_i have "
        "rank M, [H_{i-1} 1] has rank M, and the equations of the neurons in S reach the rank U - sum s_k^2 "
        "with the groups of samples that agree on S, every batch with this release contains the samples of "
        "groups of one.",
        quantifiers="all depths, widths, layers, M, group sizes, K', loss vectors, sets S",
        hypotheses=(
            "the network has biases, rank (Delta_i)_S = M and rank [H_{i-1} 1] = M",
            "rank R_S = U - sum s_k^2, s_k the sizes of groups of samples with equal patterns on S",
        ),
        conclusion="Every candidate column of Q^-1 lies in the span of one group; groups of one are "
        "determined.",
        latex=r"\operatorname{rank}R_S=U-\sum_k s_k^2\ \Longrightarrow\ "
        r"q\in\operatorname{span}(\text{one group})",
        standing=Standing.PROVED,
        grounds=(
            written("section 9", "3.1 and 6.4 with the rows that are sent; what other layers must send"),
            coq("groups.v: C2_candidates", "from the rank to the candidates, for any set of equations"),
            measured("784-512-10, M = 16", "264 random rows of 512 reach the rank 264 = U - M"),
        ),
        checks=(
            by_instances(
                "all-states",
                "solves (*) over Q for all states of the neurons sent, of layers whose rows reach the rank",
                instances=masked_layers,
                conclusion=only_true_candidates,
                spoiled=mixed_up,
                count=12,
                said="layers with rows held back have candidates inside groups only",
            ),
        ),
        remark="U - M rows may do, not any: rows on which two samples agree do not tell them apart. Rows of "
        "exclusive neurons are not needed.",
    ),
    Statement(
        name="sample-weights-invisible",
        group="releases",
        title="Unknown positive weights of the samples do not hide the inputs",
        source="docs/theory.md section 9, M5",
        reading="Every sample's part of the gradient is times an unknown positive factor: per-sample "
        "clipping, class weights, unequal accumulation. Lifting's equations are homogeneous in (q, u), so "
        "the rank does not know the factors, and the ones of [H 1] have none: inputs are determined as "
        "without weights. Labels of cross_entropy, bce and hinge follow by signs, and then the factors.",
        quantifiers="all depths, widths, layers, M, K', loss vectors, positive weights",
        hypotheses=("the network has biases", "C1's rank condition for the batch, at any weights"),
        conclusion="Every batch with this gradient, with whatever weights, has the same inputs.",
        latex=r"\Delta'\operatorname{diag}(c')=\Delta\operatorname{diag}(c)\,Q^{-1},\ Q\mathbf 1=\mathbf 1,\ "
        r"\operatorname{rank}R=U-M\ \Longrightarrow\ Q\text{ is a permutation}",
        standing=Standing.PROVED,
        grounds=(
            written("section 9", "the substitution q~ = diag(c) q, and the labels loss by loss"),
            coq("lifting.v: C1_candidates", "from the rank to the candidates, whatever the deltas are"),
        ),
        checks=(
            by_instances(
                "weighted",
                "compares ranks with and without weights, and solves (*) with weights for all states",
                instances=weighted_layers,
                conclusion=same_rank_and_candidates,
                spoiled=mixed_up,
                count=8,
                said="layers with weighted samples have the rank and the candidates of those without",
            ),
        ),
        remark="mse: f - e_0 and f - e_1 are parallel for f = (2, -1), so there the label may hide. Without "
        "biases an input keeps its scale.",
    ),
)
