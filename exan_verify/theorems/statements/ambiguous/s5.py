"""S5: a region's samples are decided by a system in their own Q; mostly only permutations solve it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.exact.backprop import forward
from exan_verify.theorems.bounded import three_samples, two_samples
from exan_verify.theorems.bounded.generic_counts import STATED, Case, cases, settled
from exan_verify.theorems.bounded.obligation import Obligation, emptied, verdict
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.counterexamples import antisymmetric_head, parallel_logits
from exan_verify.theorems.support.laboratory import (
    Pair,
    drawn,
    exact,
    in_region,
    integer_network,
    integers,
    mse_batch,
    noticing_nudge,
    real_second,
    region_points,
    same_gradient,
    same_samples,
    spoiled,
)
from exan_verify.theorems.support.shorthands import REFUTES, by_instances, kernel, solver, symbolic, written


@dataclass(frozen=True, kw_only=True)
class Generic:
    """A case of the output system, at a random F."""

    case: Case
    seed: int


def exceptions(_seed: int) -> Iterator[Pair]:
    """The two counterexamples."""
    for example in (parallel_logits(), antisymmetric_head()):
        assert example.second is not None
        yield Pair(network=example.network, first=example.batch, second=example.second)


def one_region_two_batches(pair: Pair) -> bool:
    """All four samples in one region, one gradient, the same labels, other samples."""
    assert isinstance(pair.network, ReluNetwork)
    together = in_region(pair.network, exact([*pair.first.inputs, *pair.second.inputs]))
    return together and same_gradient(pair) and not same_samples(pair) and pair.first.y == pair.second.y


def parallel_pairs(seed: int) -> Iterator[Pair]:
    """Two samples of one region and one logit, y_2 - y_1 = l (f_2 - f_1): the second batch a = 1 - l / 2."""
    return drawn("S5 parallel", seed, _draw_parallel)


def _draw_parallel(rng: Random) -> Pair | None:
    network = integer_network(rng, rng.choice(((1, 3, 1), (2, 4, 1), (2, 3, 3, 1))))
    inputs = region_points(rng, network, 2)
    if inputs is None:
        return None
    logits = forward(network, Batch(inputs=inputs, labels=inputs)).logits[0]
    step = logits[1] - logits[0]
    ratio = Fraction(rng.choice((1, 3, 5, 7, 9, 11, 13)), 8) + Fraction(rng.randint(0, 1), 16)
    if not step or ratio == 1:
        return None
    low = Fraction(rng.randint(-3, 3))
    labels = exact([[low], [low + ratio * step]])
    a = 1 - ratio / 2
    moved = exact([inputs[0] * (1 - a) + inputs[1] * a, inputs[0] * a + inputs[1] * (1 - a)])
    first, second = (mse_batch(network, x, labels) for x in (inputs, moved))
    return noticing_nudge(Pair(network=network, first=first, second=second))


def real_pairs(seed: int) -> Iterator[Pair]:
    """Two or three samples of one region with real labels, against F5's second batch."""
    return drawn("S5 real", seed, _draw_real)


def _draw_real(rng: Random) -> Pair | None:
    network = integer_network(rng, rng.choice(((1, 2, 1), (2, 4, 3), (2, 3, 3, 2))))
    size = rng.choice((2, 3))
    inputs = region_points(rng, network, size)
    if inputs is None:
        return None
    first = mse_batch(network, inputs, integers(rng, size, network.classes))
    second = real_second(network, first, range(size), Fraction(-rng.randint(1, 7), 8))
    return noticing_nudge(Pair(network=network, first=first, second=second))


def same_gradient_elsewhere(pair: Pair) -> bool:
    """One gradient, over Q; another batch."""
    return same_gradient(pair) and not same_samples(pair)


def generic_cases(seed: int) -> Iterator[Generic]:
    """Every admitted multiset of labels at the stated sizes, at a random F."""
    for classes, logits in STATED:
        for case in cases(classes, logits):
            yield Generic(case=case, seed=seed)


def only_permutations(generic: Generic) -> bool:
    """C4 settles the case: the permutations that fix the labels are all solutions, over every extension."""
    return settled(generic.case, generic.seed) is not None


def antisymmetric(generic: Generic) -> Generic:
    """Two samples, two logits, at a random F whose second logit is minus the first."""
    return replace(generic, case=Case(classes=(0, 1), logits=2, others=(0, 1), antisymmetric=True))


def obligations_of(module_obligations: list[Obligation]) -> Iterator[Obligation]:
    """The obligations themselves: each is what a solver must refute or satisfy."""
    yield from module_obligations


def solver_agrees(obligation: Obligation) -> bool:
    """z3's verdict is the expected one."""
    return verdict(obligation) == obligation.expected


STATEMENTS = (
    Statement(
        name="s5-two-samples",
        group="S5",
        title="Two samples of one region under mse: when there is a second solution",
        source="docs/theory.md section 4, S5; Appendix R5",
        reading="Two samples whose output system is theirs alone (R2: rank G = rank [H_{L-1} 1] = 2), with e "
        "= f_2 - f_1 != 0 and the same labels in the second batch. Besides permutations the system has an "
        "invertible solution if and only if y_2 - y_1 = l e for some l other than 0, 1 and 2 (0 and 2 give "
        "permutations; l = 1 would make the loss vectors equal). It is Q = [[1-a, a], [a, 1-a]] with a = 1 - "
        "l / 2, and for 0 < l < 2, l != 1 it is a second batch in the same region, whatever the ranks.",
        quantifiers="all depths, widths, K, labels",
        hypotheses=(
            "mse, two samples of one region",
            "e != 0",
            "the second batch has the same labels up to order",
            "for 'only permutations': rank G = rank [H_{L-1} 1] = 2 (R2)",
        ),
        conclusion="Without such an l only permutations solve the system; with 0 < l < 2, l != 1 there is a "
        "second batch.",
        latex=r"a\,\bigl(2(1-a)e-(y_2-y_1)\bigr)=0:\quad a\in\{0\}\ \text{or}\ y_2-y_1=2(1-a)\,e",
        standing=Standing.PROVED,
        grounds=(
            written("Appendix R5", "the derivation"),
            solver(
                "s5-two-samples-*.smt2",
                "K = 2 and 3, counts (1,1) and (2), all F at once: no other solution unless parallel",
            ),
        ),
        checks=(
            by_instances(
                "parallel",
                "builds a = 1 - l / 2 for pairs with one logit, where e and y_2 - y_1 are always parallel, "
                "and compares the gradients over Q",
                instances=parallel_pairs,
                conclusion=one_region_two_batches,
                spoiled=spoiled,
                count=20,
                said="parallel pairs have a second batch",
            ),
            by_instances(
                "solver",
                "asks z3 about the output system with symbolic logits, K = 2 and 3",
                instances=lambda _seed: obligations_of(two_samples.obligations()),
                conclusion=solver_agrees,
                spoiled=emptied,
                count=9,
                said="obligations are as expected",
            ),
        ),
        remark="With one logit e and y_2 - y_1 are always parallel: two samples of one region with 0 < l < "
        "2, l != 1, have a second batch.",
    ),
    Statement(
        name="s5-one-hot-counts",
        group="S5",
        title="Generic logits, one-hot labels, small counts: nothing but permutations",
        source="docs/theory.md section 4, S5",
        reading="The output system of two or three samples of one region, mse, one-hot labels with class "
        "counts (1,1), (2), (1,1,1) or (2,1) and at least as many logits as samples: for all logits F "
        "outside a proper algebraic subset, only permutations that fix the labels solve it, whatever "
        "admitted labels the second batch has.",
        quantifiers="counts (1,1), (2) with K = 2, 3 ((1,1) also 4); (1,1,1), (2,1) with K = 3, 4; generic F",
        hypotheses=(
            "mse, one-hot labels; the system is the samples' alone (R2)",
            "F outside the zeros of a non-zero polynomial in its entries, for fixed labels",
        ),
        conclusion="Q^T (Q F - Y') = F - Y with Q 1 = 1 has only permutations as solutions, complex ones "
        "included.",
        latex=r"Q^{\mathsf T}(QF-Y')=F-Y,\ Q\mathbf 1=\mathbf 1\ \Longrightarrow\ Q\in S_r\quad"
        r"\text{for generic }F\in\mathbb R^{r\times K}",
        standing=Standing.BOUNDED,
        grounds=(
            symbolic(
                "exan_verify/theorems/bounded/generic_counts.py",
                "C4's ranks at one random F modulo p, for every multiset of labels: a minor that is non-zero "
                "at one F is a non-zero polynomial in F, so the ranks hold for generic F",
            ),
            solver(
                "s5-three-samples-*.smt2", "one F each for (1,1,1) and (2,1), K = 3: no other real solution"
            ),
        ),
        checks=(
            by_instances(
                "ranks",
                "computes C4's two ranks for every size and every multiset of labels at a random F",
                instances=generic_cases,
                conclusion=only_permutations,
                spoiled=antisymmetric,
                count=sum(1 for classes, logits in STATED for _ in cases(classes, logits)),
                said="cases are settled by C4 at a random F",
            ),
            by_instances(
                "solver",
                "asks z3 about the output system of three samples at one F",
                instances=lambda _seed: obligations_of(three_samples.obligations()),
                conclusion=solver_agrees,
                spoiled=emptied,
                count=4,
                said="obligations are as expected",
            ),
        ),
        remark="Generic over F, the matrix of the group's logits, with labels fixed; nothing is said of a "
        "particular F. The logits of a wide enough network are an arbitrary F; those of a particular head "
        "may never be (s5-always-unique).",
    ),
    Statement(
        name="s5-always-unique",
        group="S5",
        title="The same for every F",
        source="docs/theory.md section 4, S5 ('but not always')",
        reading="Two samples of one region with one-hot labels, class counts (1,1), mse, are UNIQUE.",
        quantifiers="all networks, all logits F",
        hypotheses=("two samples of one region", "mse, one-hot labels (0 and 1 for one logit), counts (1,1)"),
        conclusion="The batch is UNIQUE.",
        latex=r"\forall F:\ Q^{\mathsf T}(QF-Y)=F-Y\ \Longrightarrow\ Q\in S_2\qquad\text{(false)}",
        standing=Standing.REFUTED,
        grounds=(
            kernel("s5-always-unique: its example", "1-1-1: x = 0, 1 against x = 1/4, 3/4", REFUTES),
            kernel(
                "counterexamples.py: antisymmetric_head", "2-3-2 with an antisymmetric head (f, -f)", REFUTES
            ),
        ),
        checks=(
            by_instances(
                "exceptions",
                "replays both counterexamples over Q: one region, one gradient, the same labels, other "
                "inputs",
                instances=exceptions,
                conclusion=one_region_two_batches,
                spoiled=spoiled,
                count=2,
                said="counterexamples replayed",
                direction=REFUTES,
            ),
        ),
        example=parallel_logits,
        smallest="Two samples in a network of one neuron and one logit: none is smaller.",
        remark="The exception is f_2 - f_1 parallel to y_2 - y_1. It has measure zero for a generic head and "
        "is the rule for one logit and for (f, -f).",
    ),
    Statement(
        name="s5-real-labels",
        group="S5",
        title="With real labels, two samples of one region are always AMBIGUOUS",
        source="docs/theory.md section 4, S5; Appendix F5",
        reading="mse with arbitrary real targets: if at least two samples with different inputs share a "
        "region, moving them towards their mean and solving for the targets gives another batch with the "
        "same gradient, whatever stands at its limit.",
        quantifiers="all depths, widths, K, numbers of samples of the region",
        hypotheses=("mse, real labels", "at least two samples of one region with different inputs"),
        conclusion="The batch is AMBIGUOUS, in a family along s in (-1, 0).",
        latex=r"Q=I+s\bigl(I-\tfrac1{|S|}J\bigr),\ -1<s<0:\quad X'=QX,\ G'=GQ^{-1}\ \text{has the same "
        r"gradient}",
        standing=Standing.PROVED,
        grounds=(written("Appendix F5", "regions are convex, Q 1 = 1, det Q = (1 + s)^(|S| - 1) != 0"),),
        checks=(
            by_instances(
                "towards-the-mean",
                "builds the second batch over Q and compares the gradients",
                instances=real_pairs,
                conclusion=same_gradient_elsewhere,
                spoiled=spoiled,
                count=20,
                said="samples of one region with real labels have a second batch",
            ),
        ),
        remark="So label knowledge is what separates s5-one-hot-counts from this.",
    ),
)
