"""What does not protect: rows of the first layer held back, and unknown weights of the samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from random import Random

import flint

from exan_verify.core.network import Array
from exan_verify.exact.linalg import rank, rational_roots
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


@dataclass(frozen=True, kw_only=True)
class OneInput:
    """One sample with one input under mse in a network of one hidden layer, of which dW_1 alone is sent."""

    weights: Array
    """w_j, b_j and the outgoing weights of neuron j, (n, 2 + K)."""
    offsets: Array
    x: int
    label: int
    rows: Array
    """What was sent, (n,)."""


def single_inputs(seed: int) -> Iterator[OneInput]:
    """Samples that satisfy the hypotheses: every neuron is reached by the loss vector, the live ones show it,
    and no other scale solves the equations of both logits.
    """
    return drawn("weights alone", seed, _draw_input)


def _draw_input(rng: Random) -> OneInput | None:
    neurons = rng.randint(3, 5)
    weights = exact([[rng.randint(-3, 3) for _ in range(4)] for _ in range(neurons)])
    offsets, x, label = exact([rng.randint(-2, 2), rng.randint(-2, 2)]), rng.randint(-3, 3), rng.randint(0, 1)
    pieces = _pieces(weights, offsets, Fraction(x))
    f, s = pieces.logits(x), pieces.slopes * x
    if not x or not all(s):
        return None
    g = f - exact([int(k == label) for k in range(2)])
    reached = all(sum(out * v for out, v in zip(row[2:], g, strict=True)) for row in weights)
    live = weights[pieces.active][:, 2:]
    if not reached or not len(live) or rank(live) < 2:
        return None
    own = [-v / slope for v, slope in zip(g, s, strict=True)]  # the other root in each logit
    other = exact([int(k != label) for k in range(2)])
    quadratics = [(s[k], f[k] - s[k] - other[k], -g[k]) for k in range(2)]
    (a, b, c), (p, q, r) = quadratics
    slope, value = p * b - a * q, p * c - a * r  # without c^2
    if own[0] == own[1] or not slope or a * value**2 - b * value * slope + c * slope**2 == 0:
        return None
    rows = exact([v.at(x) for v in pieces.entries(label)])
    return OneInput(weights=weights, offsets=offsets, x=x, label=label, rows=rows)


@dataclass(frozen=True, kw_only=True)
class _Pieces:
    """The network around a point: logits and entries of dW_1 as polynomials in x."""

    active: Array
    slopes: Array
    shifts: Array
    outgoing: Array

    def logits(self, x: Fraction | int) -> Array:
        """(K,), of the input x of one number."""
        found: Array = self.slopes * x + self.shifts
        return found

    def entries(self, label: int) -> list[_Quadratic]:
        """``delta_j x`` up to the factor 2."""
        found = []
        for live, out in zip(self.active, self.outgoing, strict=True):
            square = sum(w * s for w, s in zip(out, self.slopes, strict=True))
            linear = sum(
                w * (v - int(k == label)) for k, (w, v) in enumerate(zip(out, self.shifts, strict=True))
            )
            found.append(_Quadratic(square=square * bool(live), linear=linear * bool(live)))
        return found


@dataclass(frozen=True, kw_only=True)
class _Quadratic:
    square: Fraction
    linear: Fraction

    def at(self, x: Fraction | int) -> Fraction:
        return self.square * x * x + self.linear * x


def _pieces(weights: Array, offsets: Array, x: Fraction) -> _Pieces:
    active = weights[:, 0] * x + weights[:, 1] > 0
    kept = weights * active.astype(int)[:, None]
    return _Pieces(
        active=active,
        slopes=(kept[:, :1] * weights[:, 2:]).sum(axis=0),
        shifts=(kept[:, 1:2] * weights[:, 2:]).sum(axis=0) + offsets,
        outgoing=weights[:, 2:],
    )


def only_this_input(given: OneInput) -> bool:
    """Over all pieces between kinks, the kinks and both labels: no other x' has these rows of dW_1."""
    kinks = sorted({-row[1] / row[0] for row in given.weights if row[0]})
    ends = [None, *kinks, None]
    places = [*pairwise(ends), *((kink, kink) for kink in kinks)]
    found: set[tuple[Fraction | int | None, int]] = set()
    for low, high in places:
        around = [end for end in (low, high) if end is not None] or [Fraction(0)]
        middle = sum(around, Fraction(0)) / len(around) + (high is None) - (low is None)
        pieces = _pieces(given.weights, given.offsets, middle)
        for label in range(2):
            entries = pieces.entries(label)
            for x in _common_roots(entries, given.rows):
                if x is None or x == low == high or ((low is None or x > low) and (high is None or x < high)):
                    found.add((x, label))
    own: set[tuple[Fraction | int | None, int]] = {(given.x, given.label)}
    return found == own


def _common_roots(entries: list[_Quadratic], rows: Array) -> set[Fraction | None]:
    """All x with ``entries(x) = rows``, where they are rational; None stands for any other."""
    common = flint.fmpq_poly([])
    for entry, value in zip(entries, rows, strict=True):
        terms = [-value, entry.linear, entry.square]
        common = common.gcd(flint.fmpq_poly([flint.fmpq(v.numerator, v.denominator) for v in terms]))
    if common == 0:
        return {None}
    coefficients = [Fraction(int(c.p), int(c.q)) for c in common.coeffs()]
    roots: set[Fraction | None] = {root for root, _ in rational_roots(coefficients)}
    if len(coefficients) == 3 and not roots:
        constant, linear, square = coefficients
        return {None} if linear**2 > 4 * constant * square else set()
    return roots


def another_input(given: OneInput) -> OneInput:
    """The same rows, said to be those of the next integer."""
    return replace(given, x=given.x + 1)


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
    Statement(
        name="weights-alone",
        group="releases",
        title="Holding the first bias gradient back protects nobody by itself",
        source="docs/theory.md section 9, M6",
        reading="One hidden layer; of the first layer dW_1 is sent, or rows of it, and db_1 is not. If these "
        "rows and the inputs have rank M and lifting reaches its rank, a scale c of each sample is left: "
        "x' = c x, g' = g / c. Neurons that the loss vector reaches confine c to an interval around 1, and "
        "there the loss has no other solution: under cross_entropy with K >= 3 always, unless the logits of "
        "all other classes change alike along the ray.",
        quantifiers="all widths, M, losses, rows sent, further tensors sent",
        hypotheses=(
            "one hidden layer, rank (Delta_1)_S = M, rank X = M, rank R_S = U - sum s_k^2",
            "no neuron that is not sent, or that the loss vector does not reach, switches in the interval",
            "g(f(c x), y') = g(f(x), y) / c has the solution c = 1 alone in the interval",
        ),
        conclusion="Samples that share their pattern on S with nobody are in every batch with this release.",
        latex=r"\Delta'_S X'=\Delta_S X,\ \operatorname{rank}R_S=U-\sum_k s_k^2\ \Longrightarrow\ x'=c\,x,\ "
        r"g'=g/c,\ c\in I",
        standing=Standing.PROVED,
        grounds=(
            written("section 9", "the scale, the interval, and the equation of each loss"),
            coq("groups.v: C2_candidates", "from the rank to the candidates, for any set of equations"),
            measured("784-512-10, M = 16", "dW_1 alone determines inputs and labels"),
        ),
        checks=(
            by_instances(
                "one-input",
                "goes through all inputs and labels of small networks with one input under mse",
                instances=single_inputs,
                conclusion=only_this_input,
                spoiled=another_input,
                count=25,
                said="samples are the only ones with their rows of dW_1",
            ),
        ),
        remark="With K = 2 and no biases a sample that is classified correctly has a twin (twins-softmax).",
    ),
)
