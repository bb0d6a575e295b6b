"""What the unknown batch must not be: another batch up to the order of its samples, or one with a sample.

In a cube that holds the known batch itself, the known batch is excluded with a whole ball around it in
which it is proved to be the only solution (:mod:`exan_verify.smt.question.isolate`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, permutations

from exan_verify.core.budget import poll
from exan_verify.smt.question.encode import Encoding, state_names
from exan_verify.smt.question.encoder import Fixed, Sample
from exan_verify.smt.question.isolate import EVERYWHERE
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.replay import ExactBatch, Row, trace
from exan_verify.smt.question.terms import (
    FALSE,
    Formula,
    Poly,
    at_most,
    conj,
    disj,
    distinct,
    equal,
    less,
    negate,
)

MOST_LISTED = 4
"""Up to so many samples, "in no order" is written as one clause per order, which solvers handle best."""


@dataclass(frozen=True, slots=True)
class Known:
    """A batch that has the gradient, with its samples' states (order of ``encode.state_names``) and loss
    vectors; ``facts`` define the generators of irrational coordinates.
    """

    batch: ExactBatch
    states: tuple[tuple[bool, ...], ...]
    vectors: tuple[Row, ...]
    facts: tuple[Formula, ...] = ()

    @property
    def size(self) -> int:
        """M."""
        return len(self.batch.x)


def known(posed: Posed, batch: ExactBatch) -> Known:
    """Run a batch exactly and describe what the solver must know of irrational coordinates."""
    run = trace(posed, batch)
    facts: list[Formula] = []
    for name, root in batch.point.roots.items():
        a = Poly.variable(name)
        value, power = Poly({}), Poly.constant(1)
        for c in root.polynomial:
            value, power = value + power * c, power * a
        facts += [equal(value, 0), less(Poly.constant(root.low), a), less(a, root.high)]
    return Known(batch, tuple(run.states), tuple(run.vectors), tuple(facts))


def placements(posed: Posed, truth: Known, fixed: Fixed) -> Iterator[tuple[int, ...]]:
    """The distinct orders in which the known batch lies in a cube (all of them where nothing is fixed).

    Place by place, so that a cube that the batch does not fit costs no walk over all M! orders.
    """
    names = [state_names(posed, m) for m in range(posed.size)]
    fits = [
        [
            n
            for n in range(truth.size)
            if all(fixed.get(k, bit) == bit for k, bit in zip(names[m], truth.states[n], strict=True))
        ]
        for m in range(posed.size)
    ]
    texts = _sample_texts(truth)

    def extended(order: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        poll()
        if len(order) == truth.size:
            yield order
            return
        tried = set()
        for n in fits[len(order)]:
            if n not in order and texts[n] not in tried:
                tried.add(texts[n])
                yield from extended((*order, n))

    return extended(())


def _sample_texts(truth: Known) -> list[str]:
    """One text per sample, the same for equal samples."""
    return [str(sample) for sample in zip(truth.batch.x, truth.batch.y, strict=True)]


def other_batch(
    posed: Posed,
    encoding: Encoding,
    truth: Known,
    fixed: Fixed,
    *,
    radius: Fraction = Fraction(0),
    reaches: Mapping[tuple[int, ...], Fraction] | None = None,
) -> list[Formula]:
    """The unknown batch is not ``truth`` in any order: with ``radius``, in no order within that distance.

    ``reaches`` gives for a placement the half width of the open cube around it that holds no other
    solution. With radius 0, orders that do not fit the cube's literals need no formula: the state of the
    known batch is not that of the cube.
    """
    if not (radius or fixed) and truth.size > MOST_LISTED:
        return [_some_sample_is_missing(posed, encoding, truth)]
    orders = permutations(range(truth.size)) if radius else placements(posed, truth, fixed)
    found: list[Formula] = []
    for order in orders:
        poll()
        reach = (reaches or {}).get(order, Fraction(0))
        pairs = list(zip(encoding.samples, order, strict=True))
        if reach == EVERYWHERE:
            found.append(FALSE)
        elif reach:
            found.append(disj(_outside(s, truth, n, reach) for s, n in pairs))
        else:
            found.append(disj(_apart(posed, s, truth, n, radius) for s, n in pairs))
    return found


def _some_sample_is_missing(posed: Posed, encoding: Encoding, truth: Known) -> Formula:
    """The same in M^2 parts: two batches of M samples are equal iff every sample of the one, which it has c
    times, occurs at least c times in the other.
    """
    texts = _sample_texts(truth)
    return disj(
        conj(
            disj(_apart(posed, encoding.samples[m], truth, n, Fraction(0)) for m in chosen)
            for chosen in combinations(range(truth.size), texts.count(texts[n]))
        )
        for n in range(truth.size)
        if texts.index(texts[n]) == n
    )


def without_sample(posed: Posed, encoding: Encoding, truth: Known, n: int) -> list[Formula]:
    """No sample of the unknown batch equals sample ``n`` of ``truth``."""
    return [_apart(posed, s, truth, n, Fraction(0)) for s in encoding.samples]


def _outside(sample: Sample, truth: Known, n: int, reach: Fraction) -> Formula:
    """Some input (or entry of the loss vector, where labels are real) is at least ``reach`` away."""
    return disj(
        at_most(v + reach, t) if side else at_most(t + reach, v)
        for v, t in _unknowns(sample, truth, n)
        for side in (True, False)
    )


def _unknowns(sample: Sample, truth: Known, n: int) -> list[tuple[Poly, Poly]]:
    """The sample's independent variables beside their values at sample ``n`` of the known batch."""
    pairs = list(zip(sample.x, truth.batch.x[n], strict=True))
    if sample.labels is None:
        pairs += list(zip(sample.vector, truth.vectors[n], strict=True))
    return pairs


def _apart(posed: Posed, sample: Sample, truth: Known, n: int, radius: Fraction) -> Formula:
    """The sample differs from sample ``n``: in its label, or in an input by more than ``radius``."""
    x, y = truth.batch.x[n], truth.batch.y[n]
    parts = [_further(v, t, radius) for v, t in zip(sample.x, x, strict=True)]
    if sample.labels is None:
        parts += [_further(v, t, radius) for v, t in zip(sample.y, y, strict=True)]
    else:
        assert posed.alphabet is not None
        letter = tuple(v.value for v in y)
        own = [f for f, u in zip(sample.labels, posed.alphabet, strict=True) if u == letter]
        parts += [conj(negate(f) for f in own)]
    return disj(parts)


def _further(value: Poly, reference: Poly, radius: Fraction) -> Formula:
    if not radius:
        return distinct(value, reference)
    return disj([less(reference + radius, value), less(value + radius, reference)])


def values_at(encoding: Encoding, truth: Known, order: Sequence[int]) -> dict[str, Fraction]:
    """The rational values of the inputs' variables (and of real labels' loss vectors) at a placement."""
    values: dict[str, Fraction] = {}
    for sample, n in zip(encoding.samples, order, strict=True):
        for variable, value in _unknowns(sample, truth, n):
            (name,) = variable.variables()
            values[name] = value.value
    return values
