"""C2: samples that share a pattern form groups, and another batch mixes within groups only."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from random import Random

from exan_verify.core.network import Array
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import multiply, rank, solve
from exan_verify.exclusivity import pattern_groups
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import (
    Pair,
    connecting,
    deltas,
    drawn,
    exact,
    factorises,
    integer_network,
    integers,
    mse_batch,
    real_second,
    region_points,
    same_gradient,
    spoiled,
)
from exan_verify.theorems.support.layer_equations import (
    Counted,
    Layer,
    claiming_singles,
    grouped_patterns,
    one_group_more,
    random_layer,
)
from exan_verify.theorems.support.shorthands import by_instances, coq, measured

SIZES = (((2, 1), 1, 6), ((2, 1), 2, 8), ((2, 2), 1, 7), ((3,), 1, 4))
"""(group sizes, K', n) for the search over all states."""

MEASURED = ((2, 2, 1, 1), (3, 1, 1, 1), (3, 2, 1), (2, 1), (4, 2))


def grouped_layers(seed: int) -> Iterator[Layer]:
    """Layers with rank R = U - sum s_k^2 and next deltas that are independent inside groups."""
    return drawn("C2", seed, _draw_layer)


def _draw_layer(rng: Random) -> Layer | None:
    sizes, extra, neurons = rng.choice(SIZES)
    extra = max(extra, max(sizes))
    layer = random_layer(rng, grouped_patterns(rng, neurons, sizes), extra, top=9)
    groups = layer.groups
    independent = all(rank(layer.following[:, list(g)]) == len(g) for g in groups)
    if sorted(map(len, groups)) != sorted(sizes) or not independent:
        return None
    return layer if layer.rank() == layer.unknowns - sum(s * s for s in sizes) else None


def only_group_candidates(layer: Layer) -> bool:
    """Over all 2^n states, every candidate has q in the span of one group and u = U_group q."""
    return all(layer.explains(basis, layer.groups) for basis in layer.branches())


def measured_layers(seed: int) -> Iterator[Counted]:
    """Wide layers, one for each list of group sizes."""
    rng = Random(f"C2 dimensions/{seed}")
    for sizes in MEASURED:
        samples = sum(sizes)
        extra = max(sizes) + 1
        neurons = 3 * (samples * (samples + 1) // 2 + samples * extra)
        layer = random_layer(rng, grouped_patterns(rng, neurons, sizes), extra)
        yield Counted(layer=layer, sizes=sizes)


def null_space_is_the_squares(counted: Counted) -> bool:
    """dim null(R) = sum s_k^2, over Q."""
    layer = counted.layer
    return layer.unknowns - layer.rank() == sum(s * s for s in counted.sizes)


def grouped_pairs(seed: int) -> Iterator[Pair]:
    """Second batches that move a group of two and keep a third sample, where C2's rank is reached."""
    return drawn("C2 pairs", seed, _draw_pair)


def _draw_pair(rng: Random) -> Pair | None:
    network = integer_network(rng, (3, 9, 2))
    close = region_points(rng, network, 2)
    if close is None:
        return None
    inputs = exact([*close, *integers(rng, 1, 3, 3)])
    first = mse_batch(network, inputs, integers(rng, 3, 2))
    pair = Pair(
        network=network,
        first=first,
        second=real_second(network, first, (0, 1), Fraction(-rng.randint(1, 7), 8)),
        members=(0, 1),
    )
    pattern = forward(network, first).patterns[0]
    if pattern_groups(pattern) != ((0, 1), (2,)) or not factorises(pair, 1):
        return None
    layer = Layer(
        patterns=exact(pattern.astype(int)),
        outgoing=exact(network.layers[1].weight.T),
        following=deltas(network, first)[1],
    )
    return pair if layer.rank() == layer.unknowns - 5 and same_gradient(pair) else None


def mixes_within_groups(pair: Pair) -> bool:
    """Q^-1 is block diagonal, the single sample is kept, and all three layers' quantities follow it."""
    mixing = connecting(pair, 1)
    if mixing is None or (back := solve(mixing, exact([[1, 0, 0], [0, 1, 0], [0, 0, 1]]))) is None:
        return False
    block = not any((back[0, 2], back[1, 2], back[2, 0], back[2, 1])) and back[2, 2] == 1
    return block and all(_follows(pair, layer, back) for layer in (0, 1))


def _follows(pair: Pair, layer: int, back: Array) -> bool:
    before, after = (deltas(pair.network, b)[layer] for b in (pair.first, pair.second))
    return bool((multiply(before, back) == after).all())


STATEMENTS = (
    Statement(
        name="c2",
        group="C2",
        title="Structure theorem: another batch mixes samples of one pattern only",
        source="docs/theory.md 3.2, C2",
        reading="Let the samples fall into groups of sizes s_1, s_2, ... that share the pattern of layer i. "
        "The null space of R never has fewer than sum s_k^2 dimensions. When it has no more, every "
        "candidate for a column of Q^-1 lies in the span of one group, so Q is block diagonal up to order, "
        "and samples alone in their group have h_{i-1}, delta_i and delta_{i+1} determined.",
        quantifiers="all depths, widths, layers, M, group sizes, K', loss vectors",
        hypotheses=(
            "the network has biases and rank [dW_i | db_i] = M at a hidden layer i",
            "samples of one group share the pattern of layer i",
            "u is written in K' unknowns that cover what any batch can have there (confined)",
            "rank R = U - sum s_k^2, with U = M(M+1)/2 + M K'",
        ),
        conclusion="Q is block diagonal up to order, one block per group; groups of one are determined "
        "there.",
        latex=r"\dim\ker R\ge\sum_k s_k^2;\qquad \dim\ker R=\sum_k s_k^2\ \Longrightarrow\ "
        r"Q=\Pi\,\operatorname{diag}(Q_1,Q_2,\dots),\ Q_k\in\mathbb R^{s_k\times s_k}",
        standing=Standing.PROVED,
        grounds=(
            coq(
                "groups.v: C2_candidates", "every candidate lies in the span of one group, with u = U_group q"
            ),
            coq(
                "groups.v: C2, card_pairs",
                "block diagonal up to order, singletons kept, any number of groups",
            ),
            coq(
                "groups.v: explained_independent, explained_solves",
                "sum s_k^2 independent solutions of R: its null space is never smaller",
            ),
            coq(
                "splits.v: C2_splits",
                "groups that layers above tell apart, in chains of any length: all samples are determined",
            ),
            measured("this check", "groups (2,2,1,1), (3,1,1,1), (3,2,1): null dimensions 10, 12, 14"),
        ),
        checks=(
            by_instances(
                "all-states",
                "solves (*) over Q for all 2^n states of the neurons of layers that reach the rank: every "
                "solution with q != 0 must lie in one group's span",
                instances=grouped_layers,
                conclusion=only_group_candidates,
                spoiled=claiming_singles,
                count=10,
                said="layers with groups have candidates inside groups only",
            ),
            by_instances(
                "dimensions",
                "computes dim null(R) over Q for wide layers with given group sizes, and compares it with "
                "sum s_k^2",
                instances=measured_layers,
                conclusion=null_space_is_the_squares,
                spoiled=one_group_more,
                count=len(MEASURED),
                said="null spaces have dimension sum s_k^2",
            ),
            by_instances(
                "second-batches",
                "takes networks that reach the rank with groups of two and one, a second batch (F5), and "
                "solves for its Q",
                instances=grouped_pairs,
                conclusion=mixes_within_groups,
                spoiled=spoiled,
                count=8,
                said="second batches mix within the group",
            ),
        ),
        remark="This is not uniqueness, not even of the layer: inside a group Q_k is free. What a group "
        "contributes is conserved in layers i and i+1 only. In other layers groups could compensate each "
        "other, so the whole gradient is checked before anything is said of the batch.",
    ),
)
