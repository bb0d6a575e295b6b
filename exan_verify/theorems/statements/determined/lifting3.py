"""L3: lifting of degree three, for batches that degree two is short of neurons for."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from random import Random

from exan_verify.exact.linalg import rank
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import drawn
from exan_verify.theorems.support.layer_equations import (
    Counted,
    Layer,
    claiming_singles,
    grouped_patterns,
    one_group_more,
    random_layer,
)
from exan_verify.theorems.support.shorthands import by_instances, coq, measured, written

SIZES = (((1, 1, 1), 1, 5), ((1, 1, 1), 2, 7), ((2, 1, 1), 2, 7), ((2, 1), 2, 5))
"""(group sizes, K', n): too few neurons for degree two, except the last."""

MEASURED = ((2, 1, 1, 1), (3, 1, 1, 1), (4, 1), (2, 2))


def short_layers(seed: int) -> Iterator[Layer]:
    """Layers that reach degree three's rank, most of them short of neurons for degree two."""
    return drawn("L3", seed, _draw_layer)


def _draw_layer(rng: Random) -> Layer | None:
    sizes, extra, neurons = rng.choice(SIZES)
    layer = random_layer(rng, grouped_patterns(rng, neurons, sizes), extra, top=9)
    independent = all(rank(layer.following[:, list(g)]) == len(g) for g in layer.groups)
    if sorted(map(len, layer.groups)) != sorted(sizes) or not independent:
        return None
    return layer if layer.cubic_unknowns - layer.cubic_rank_mod() == _cubes(sizes) else None


def only_group_candidates(layer: Layer) -> bool:
    """Over all 2^n states, every candidate has q in the span of one group and u = U_group q."""
    return all(layer.explains(basis, layer.groups) for basis in layer.branches())


def measured_layers(seed: int) -> Iterator[Counted]:
    """Wide layers, one for each list of group sizes."""
    rng = Random(f"L3 dimensions/{seed}")
    for sizes in MEASURED:
        samples, extra = sum(sizes), max(sizes) + 1
        neurons = 3 * (samples * (samples + 1) // 2 + samples * extra)
        layer = random_layer(rng, grouped_patterns(rng, neurons, sizes), extra)
        yield Counted(layer=layer, sizes=sizes)


def null_space_is_the_cubes(counted: Counted) -> bool:
    """V - rank R3 mod p = sum binom(s_k + 2, 3)."""
    layer = counted.layer
    return layer.cubic_unknowns - layer.cubic_rank_mod() == _cubes(counted.sizes)


def _cubes(sizes: tuple[int, ...]) -> int:
    return sum(comb(size + 2, 3) for size in sizes)


STATEMENTS = (
    Statement(
        name="lifting-degree-3",
        group="L3",
        title="Lifting of degree three: fewer neurons for the same conclusion",
        source="docs/theory.md, Appendix L3",
        reading="Multiply every neuron's product equation by every unknown of q and u; the result is linear "
        "in monomials of degree three, V of them. Its null space is never smaller than the sum of binom(s_k "
        "+ 2, 3) over the groups of samples with equal patterns. When it is no larger, C2's conclusion "
        "holds: every candidate lies in the span of one group.",
        quantifiers="all depths, widths, layers, M, group sizes, K', loss vectors",
        hypotheses=(
            "the network has biases and rank [dW_i | db_i] = M at a hidden layer i",
            "samples of one group share the pattern of layer i",
            "u is written in K' unknowns that cover what any batch can have there (confined)",
            "rank R3 = V - sum binom(s_k + 2, 3), with V = binom(M+2, 3) + binom(M+1, 2) K' + M binom(K'+1, "
            "2)",
        ),
        conclusion="Q is block diagonal up to order, one block per group; groups of one are determined "
        "there.",
        latex=r"\dim\ker R_3\ge\sum_k\tbinom{s_k+2}{3};\qquad \dim\ker R_3=\sum_k\tbinom{s_k+2}{3}\ "
        r"\Longrightarrow\ Q=\Pi\,\operatorname{diag}(Q_1,Q_2,\dots)",
        standing=Standing.PROVED,
        grounds=(
            coq("cubic.v: L3_candidates, L3", "samples with different patterns: dim null(R3) = M is enough"),
            coq(
                "triples.v: L3_group_candidates, L3_groups, card_triples",
                "groups of any sizes: the rank that leaves sum binom(s_k + 2, 3) is enough",
            ),
            coq(
                "triples.v: mixed3_solves, mixed3_independent",
                "so many independent elements of the null space there always are",
            ),
            written("Appendix L3", "the same on paper; each certificate's rank is recomputed by the kernel"),
            measured("this check", "groups (2,1,1,1), (3,1,1,1), (4,1): null dimensions 7, 13, 21"),
        ),
        checks=(
            by_instances(
                "all-states",
                "solves (*) over Q for all 2^n states of the neurons of layers that reach the rank of degree "
                "three: every solution with q != 0 must lie in one group's span",
                instances=short_layers,
                conclusion=only_group_candidates,
                spoiled=claiming_singles,
                count=10,
                said="layers of full cubic rank have candidates inside groups only",
            ),
            by_instances(
                "dimensions",
                "computes dim null(R3) mod p for wide layers with given group sizes, and compares it with "
                "sum binom(s_k + 2, 3)",
                instances=measured_layers,
                conclusion=null_space_is_the_cubes,
                spoiled=one_group_more,
                count=len(MEASURED),
                said="null spaces have dimension sum binom(s_k + 2, 3)",
            ),
        ),
        remark="The range ends where V outgrows n (M + K'): M = 44 at n = 512, K = 10, by count.",
    ),
)
