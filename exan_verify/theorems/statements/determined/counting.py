"""How many neurons the quadratic lifting needs: at least, at best, exactly, at stated sizes, in general."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.decide.context import Context, Setting
from exan_verify.decide.lifting.system import equations, plan
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import rank, rank_mod
from exan_verify.theorems.statement import Check, Example, Progress, Result, Standing, Statement
from exan_verify.theorems.support.example_check import all_met, by_example
from exan_verify.theorems.support.laboratory import deltas, drawn, exact, integers
from exan_verify.theorems.support.layer_equations import Layer, random_layer, random_patterns
from exan_verify.theorems.support.shorthands import (
    NEITHER,
    REFUTES,
    by_instances,
    coq,
    measured,
    symbolic,
    written,
)

STATED = ((2, 1), (2, 3), (3, 2), (4, 3), (4, 9), (6, 4), (8, 9), (12, 9))
"""(M, K') at which exactly U - M neurons with a stated random table of patterns are shown to suffice."""

Table = dict[tuple[int, ...], int]
"""How many neurons have each pattern."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A layer at a random point, and the generic rank that a formula gives for it."""

    layer: Layer
    predicted: int


def needed(samples: int, extra: int) -> int:
    """U - M = M (M - 1) / 2 + M K'."""
    return samples * (samples - 1) // 2 + samples * extra


def generic_rank(table: Table, extra: int, following: Array) -> int:
    """min over sets A of patterns of dim(sum of L_P, P in A) + number of neurons with other patterns.

    L_P is the span over all w of the rows of R with pattern P; rows are linear in w w^T, so K'(K'+1)/2 of
    them with independent w w^T span it.
    """
    spans = {pattern: _spanning_rows(pattern, extra, following) for pattern in table}
    best = sum(table.values())
    for size in range(1, len(table) + 1):
        for chosen in combinations(table, size):
            inside = rank(np.concatenate([spans[p] for p in chosen]))
            best = min(best, inside + sum(n for p, n in table.items() if p not in chosen))
    return best


def _spanning_rows(pattern: tuple[int, ...], extra: int, following: Array) -> Array:
    units = np.eye(extra, dtype=int)
    weights = [*units, *(units[a] + units[b] for a, b in combinations(range(extra), 2))]
    layer = Layer(
        patterns=exact([pattern] * len(weights)), outgoing=exact(np.array(weights)), following=following
    )
    return layer.matrix()


def formula_layers(seed: int) -> Iterator[Measured]:
    """Random tables for M = 2, 3 and K' = 1 to 3, at random points."""
    return drawn("counting formula", seed, _draw_formula)


def _draw_formula(rng: Random) -> Measured | None:
    samples, extra = rng.choice(((2, 1), (2, 2), (2, 3), (3, 1), (3, 2)))
    kinds = [tuple(int(v) for v in row) for row in random_patterns(rng, 3, samples)]
    neurons = [rng.choice(kinds) for _ in range(needed(samples, extra) + rng.randint(-1, 3))]
    layer = random_layer(rng, exact(neurons), extra, top=10**6)
    return Measured(layer=layer, predicted=generic_rank(dict(Counter(neurons)), extra, layer.following))


def rank_is_the_formula(found: Measured) -> bool:
    """rank R over Q at the random point equals the formula."""
    return found.layer.rank() == found.predicted


def off_by_one(found: Measured) -> Measured:
    """The same with a wrong prediction."""
    return replace(found, predicted=found.predicted + 1)


def exclusive_and_pairs(seed: int) -> Iterator[Layer]:
    """K' exclusive neurons per sample, and one neuron for every pair of samples: U - M neurons."""
    rng = Random(f"counting attained/{seed}")
    for samples, extra in ((1, 3), (2, 1), (2, 4), (3, 2), (4, 3), (5, 2), (6, 1)):
        unit = np.eye(samples, dtype=int)
        rows = [unit[m] for m in range(samples) for _ in range(extra)]
        rows += [unit[a] + unit[b] for a, b in combinations(range(samples), 2)]
        yield random_layer(rng, exact(np.array(rows)), extra)


def reaches_with_exactly_enough(layer: Layer) -> bool:
    """n = U - M = rank R."""
    enough = needed(layer.samples, layer.extra)
    return len(layer.patterns) == enough == layer.rank()


def one_neuron_less(layer: Layer) -> Layer:
    """The layer without its last neuron."""
    return replace(layer, patterns=layer.patterns[:-1], outgoing=layer.outgoing[:-1])


def one_sided(seed: int) -> Iterator[Layer]:
    """M = 2, K' = 1: two neurons exclusive to sample 1 and one to sample 2, at random points."""
    table = exact([[1, 0], [1, 0], [0, 1]])
    return drawn("counting neurons", seed, lambda rng: _alive(random_layer(rng, table, 1)))


def _alive(layer: Layer) -> Layer | None:
    return layer if bool(((layer.delta != 0) == (layer.patterns != 0)).all()) else None


def one_sided_network() -> Example:
    """1-3-1 with that table of patterns."""
    network = ReluNetwork.from_arrays([[[1], [2], [-1]], [[1, 1, 1]]], [[0, -1, 0], [0]])
    batch = Batch.of([[1], [-1]], [0, 0], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return Example(
        network=network,
        batch=batch,
        question=Question(loss=Loss.MSE),
        outcome=Outcome.UNIQUE,
        shown=short_of_rank,
        note="Three neurons, three needed, all deltas non-zero, different patterns: rank R = 2. The batch is "
        "UNIQUE all the same, by enumeration: a limit of the method, not of what leaks.",
    )


def enough_neurons_and_short(layer: Layer) -> bool:
    """U - M neurons with non-zero deltas, samples told apart, and rank R < U - M."""
    alive = bool(layer.delta.any(axis=1).all()) and len(layer.groups) == layer.samples
    return alive and len(layer.patterns) == needed(2, 1) and layer.rank() < needed(2, 1)


def short_of_rank(example: Example) -> Result:
    """The same at an example's own gradient (mse, one hidden layer)."""
    layer = layer_of(example)
    enough = needed(layer.samples, layer.extra)
    return all_met(
        {
            f"{len(layer.patterns)} neurons with non-zero deltas, U - M = {enough}, different patterns, "
            f"rank R = {layer.rank()}": enough_neurons_and_short(layer)
        }
    )


def layer_of(example: Example) -> Layer:
    """Patterns, outgoing weights and next deltas of the only hidden layer."""
    return Layer(
        patterns=exact(forward(example.network, example.batch).patterns[0].astype(int)),
        outgoing=exact(example.network.layers[1].weight.T),
        following=deltas(example.network, example.batch)[1],
    )


def with_a_shared_neuron(layer: Layer) -> Layer:
    """The same with the second neuron active for both samples."""
    return replace(layer, patterns=exact([[1, 0], [1, 1], [0, 1]]))


def stated_layers(seed: int) -> Iterator[Layer]:
    """Random tables of exactly U - M neurons at the stated sizes, at a random point."""
    for samples, extra in STATED:
        yield stated_layer(samples, extra, seed)


def stated_layer(samples: int, extra: int, seed: int) -> Layer:
    """The first random table of that size that tells samples apart and reaches the rank, at most 200 tries.

    For (2, 1) that is the table of the three patterns; wide tables nearly always do.
    """
    for attempt in range(200):
        rng = Random(f"counting stated/{samples}/{extra}/{seed}/{attempt}")
        patterns = random_patterns(rng, needed(samples, extra), samples)
        layer = random_layer(rng, patterns, extra, top=10**9)
        if layer.rank_mod() == needed(samples, extra):
            return layer
    return layer


def reaches(layer: Layer) -> bool:
    """rank R mod p = U - M, at this one point."""
    return layer.rank_mod() == needed(layer.samples, layer.extra)


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A network and batch under cross_entropy, whose exact rank at the last hidden layer is asked."""

    network: ReluNetwork
    batch: Batch


def softmax_networks(seed: int) -> Iterator[Masked]:
    """Random networks under cross_entropy with more neurons than U - M."""
    for samples, classes, spare in ((2, 3, 12), (4, 4, 24), (6, 5, 40)):
        rng = Random(f"counting softmax/{samples}/{seed}")
        neurons = needed(samples, classes - 1) + spare
        network = ReluNetwork.from_arrays(
            [integers(rng, neurons, 8, 9), integers(rng, classes, neurons, 3)],
            [integers(rng, 1, neurons, 5)[0], integers(rng, 1, classes, 3)[0]],
        )
        labels = np.array([rng.randrange(classes) for _ in range(samples)])
        inputs = integers(rng, samples, 8, 5) / 8
        batch = Batch.of(inputs, labels, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
        yield Masked(network=network, batch=batch)


def softmax_rank_reached(masked: Masked) -> bool:
    """rank R mod p = U - M for the network's own softmax loss vectors."""
    setting = Setting(
        network=masked.network,
        question=Question(loss=Loss.CROSS_ENTROPY, reduction=Reduction.SUM, labels=Labels.ONE_HOT),
    )
    context = Context(setting=setting, batch=masked.batch)
    asked = plan(context, 1, tuple(range(masked.batch.size)))
    return rank_mod(equations(context, asked)) == needed(masked.batch.size, masked.network.classes - 1)


def equal_samples(masked: Masked) -> Masked:
    """The same with the first sample twice."""
    return replace(masked, batch=masked.batch.select([0, 0, *range(2, masked.batch.size)]))


def random_tables(progress: Progress, seed: int) -> Result:
    """How often a random table of exactly U - M neurons reaches the rank, by size."""
    shares = {}
    for samples, extra in ((2, 2), (4, 2), (6, 2), (8, 2), (8, 4)):
        progress("random tables", samples, 8)
        rng = Random(f"counting open/{samples}/{extra}/{seed}")
        hits = 0
        for _ in range(20):
            table = random_patterns(rng, needed(samples, extra), samples)
            hits += reaches(random_layer(rng, table, extra, top=10**9))
        shares[f"M={samples}, K'={extra}"] = hits / 20
    text = ", ".join(f"{size}: {share:.0%}" for size, share in shares.items())
    return Result(holds=shares["M=8, K'=4"] > 0.5, detail=f"tables that reach the rank: {text}", data=shares)


_GENERIC = (
    "Generic: outside a proper algebraic subset of the space of (w_1, ..., w_n, u_1, ..., u_M) in R^(K'(n + "
    "M)), for a fixed table of patterns, with Delta_jm = w_j . u_m where neuron j is active."
)

STATEMENTS = (
    Statement(
        name="counting-attained",
        group="counting",
        title="U - M neurons are necessary, and can be enough, for every M and K'",
        source="docs/theory.md 3.2 (range of degree 2), section 7",
        reading="R has rank U - M = M(M-1)/2 + M K' only with at least that many neurons with a non-zero "
        "row. With K' neurons exclusive to each sample, whose outgoing weights span R^K' and whose deltas "
        "are not zero, and one neuron for every pair of samples, active for these two only, it has.",
        quantifiers="all M, K'; all weights and deltas that meet the hypotheses",
        hypotheses=(
            "for each sample: K' exclusive neurons with independent w_j and w_j . u_m != 0",
            "for each pair a < b: a neuron active for a and b only, with w_j . u_a != 0 and w_j . u_b != 0",
        ),
        conclusion="rank R = U - M, with exactly U - M neurons; with fewer it never is.",
        latex=r"n=\tbinom M2+MK'\ \text{neurons as stated}\ \Longrightarrow\ \operatorname{rank}R=U-M=n",
        standing=Standing.PROVED,
        grounds=(
            written("section 7, counting", "eliminates q_m u = q_m^2 u_m, then q_a q_b, by hand"),
            coq("lifting.v: card_mono", "U = M(M+1)/2 + M K'"),
        ),
        checks=(
            by_instances(
                "exclusive-and-pairs",
                "computes rank R over Q for such tables, and with one neuron less",
                instances=exclusive_and_pairs,
                conclusion=reaches_with_exactly_enough,
                spoiled=one_neuron_less,
                count=7,
                said="tables of exactly U - M neurons reach the rank",
            ),
        ),
        remark="A repaired version of P1 for one layer: exclusive neurons enough to span, and pairs.",
    ),
    Statement(
        name="counting-formula",
        group="counting",
        title="The generic rank of R for a given table of patterns",
        source="docs/theory.md section 7, counting",
        reading="For a fixed table of patterns the generic rank of R is the minimum, over sets A of "
        "patterns, of the dimension of the sum of L_P (P in A) plus the number of neurons whose pattern is "
        "not in A. L_P is the span of all rows that a neuron of pattern P can have; one pattern alone gives "
        "at most dim L_P = r(2K' - r + 1)/2 with r = min(|P|, K'), so at most K'(K'+1)/2.",
        quantifiers="all M, K', tables of patterns; generic outgoing weights, any next deltas",
        hypotheses=(_GENERIC, "u_1, ..., u_M are fixed in the formula; only w is generic"),
        conclusion="rank R = min over A of dim(sum of L_P over P in A) + number of neurons outside A.",
        latex=r"\operatorname{rank}R=\min_{\mathcal A}\Bigl(\dim\sum_{P\in\mathcal "
        r"A}L_P+\sum_{P\notin\mathcal A}"
        r"n_P\Bigr),\quad \dim L_P=\tfrac{r(2K'-r+1)}2,\ r=\min(|P|,K')",
        standing=Standing.PROVED,
        grounds=(
            written(
                "section 7, counting", "Rado's theorem for points of irreducible varieties that span L_P"
            ),
        ),
        checks=(
            by_instances(
                "tables",
                "compares rank R over Q at random points with the formula, for random tables with few "
                "patterns",
                instances=formula_layers,
                conclusion=rank_is_the_formula,
                spoiled=off_by_one,
                count=40,
                said="random tables have the rank of the formula",
            ),
        ),
        remark="So whether n neurons suffice is decided by how they are spread over patterns, not by n "
        "alone.",
    ),
    Statement(
        name="counting-neurons",
        group="counting",
        title="Counting neurons alone",
        source="docs/theory.md 3.2 ('about U - M <= number of neurons'), section 7",
        reading="M(M-1)/2 + M K' neurons with non-zero deltas suffice generically, if their patterns tell "
        "all samples apart.",
        quantifiers="all M, K', tables of patterns",
        hypotheses=(
            "n >= U - M neurons with non-zero rows",
            "different samples have different patterns",
            _GENERIC,
        ),
        conclusion="rank R = U - M.",
        latex=r"n\ge\tbinom M2+MK'\ \not\Longrightarrow\ \operatorname{rank}R=U-M",
        standing=Standing.REFUTED,
        grounds=(
            symbolic(
                "counting-neurons: its example",
                "M = 2, K' = 1: two neurons exclusive to one sample, one to the other, at its own loss "
                "vectors",
                REFUTES,
            ),
            symbolic("this check", "the same table of patterns at random points", REFUTES),
            written(
                "section 7, counting",
                "one pattern gives at most K'(K'+1)/2 to the rank, whatever the weights",
                REFUTES,
            ),
        ),
        checks=(
            by_instances(
                "one-sided",
                "computes rank R over Q for the smallest such table at random points: 2 of 3",
                instances=one_sided,
                conclusion=enough_neurons_and_short,
                spoiled=with_a_shared_neuron,
                count=10,
                said="layers with U - M neurons miss the rank",
                direction=REFUTES,
            ),
            by_example(
                "its example",
                "computes rank R over Q at the example's own weights and loss vectors: 2 of 3",
                example=one_sided_network,
                judge=short_of_rank,
            ),
        ),
        example=one_sided_network,
        smallest="With M = 1 any K' neurons reach the rank generically; M = 2 and K' = 1 need three neurons: "
        "1-3-1 is the least.",
        remark="Necessary only. Neurons that are active for every sample add at most K'(K'+1)/2 together.",
    ),
    Statement(
        name="counting-sizes",
        group="counting",
        title="U - M neurons with a random table of patterns suffice generically, at stated sizes",
        source="docs/theory.md 3.2, section 7",
        reading="At each stated size (M, K') there is a random table of patterns with exactly U - M neurons "
        "(it is printed by its seed) for which rank R = U - M for generic outgoing weights and next deltas.",
        quantifiers=", ".join(f"(M, K') = {size}" for size in STATED) + "; n = U - M; patterns fixed",
        hypotheses=(_GENERIC,),
        conclusion="rank R = U - M for all (w, u) outside a proper algebraic subset.",
        latex=r"\operatorname{rank}R(w_0,u_0)\bmod p=U-M\ \Longrightarrow\ \operatorname{rank}R(w,u)=U-M\ "
        r"\text{for generic }(w,u)",
        standing=Standing.BOUNDED,
        grounds=(
            symbolic(
                "this check",
                "the rank at one integer point modulo p: a minor that is non-zero there is a non-zero "
                "polynomial",
            ),
            coq("modular.v: rank_mod_ge", "a rank modulo p is enough", bounded=True),
        ),
        checks=(
            by_instances(
                "one-point",
                "computes rank R mod p at one integer point for a random table of exactly U - M neurons",
                instances=stated_layers,
                conclusion=reaches,
                spoiled=one_neuron_less,
                count=len(STATED),
                said="tables of exactly U - M neurons reach the rank at one point",
            ),
            by_instances(
                "softmax",
                "computes rank R mod p for networks under cross_entropy with their own loss vectors",
                instances=softmax_networks,
                conclusion=softmax_rank_reached,
                spoiled=equal_samples,
                count=3,
                said="networks under cross_entropy reach the rank",
            ),
        ),
        remark="For a network's own loss vectors u depends on w. There the variables are all parameters and "
        "inputs, with the patterns fixed as symbols (the masked network): the minors are real-analytic on a "
        "connected space, so one network at which the rank is reached shows it for almost all parameters and "
        "inputs with these patterns. The check `softmax` gives such points for its sizes.",
    ),
    Statement(
        name="counting-generic",
        group="counting",
        title="U - M neurons suffice generically",
        source="docs/theory.md 3.2 (range of degree 2)",
        reading="For patterns drawn independently and uniformly, K' >= 2 fixed and M growing, a table of "
        "exactly U - M neurons reaches rank U - M for generic outgoing weights and next deltas with "
        "probability tending to one.",
        quantifiers="all M, K' >= 2",
        hypotheses=("n = U - M patterns, independent fair coins", _GENERIC),
        conclusion="P(generic rank R = U - M) -> 1.",
        latex=r"\Pr\bigl[\operatorname{rank}R=U-M\ \text{generically}\bigr]\to1\quad(M\to\infty)",
        standing=Standing.OPEN,
        grounds=(measured("this check", "the share of random tables that reach the rank, by size"),),
        checks=(
            Check(
                name="random-tables",
                what="draws random tables of exactly U - M neurons and counts how many reach the rank mod p; "
                "evidence, not a proof",
                run=random_tables,
                direction=NEITHER,
            ),
        ),
        remark="counting-formula turns it into a question about random set systems. Known at the stated "
        "sizes. With K' = 2 and M = 4, 6, 8, 10, 12, 16, 20 a search found 158 of 400, 345 of 400, 394 of "
        "400, 300 of 300, 200 of 200, 100 of 100 and 40 of 40 tables that reach it; nothing speaks against "
        "it, and what a proof lacks is said in section 7 of the theory.",
    ),
)
