"""From a solver's model to a batch in exact numbers, and whether it may be believed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from typing import Any

from exan_verify.core.budget import poll
from exan_verify.core.network import to_fraction
from exan_verify.errors import RangeError
from exan_verify.smt.cubes import Task, all_literals, build, exclusions
from exan_verify.smt.existence import BallBatch, displaced, prove_existence
from exan_verify.smt.linearise import violated
from exan_verify.smt.portfolio import Batch, Settings
from exan_verify.smt.question.algebraic import Point, Root
from exan_verify.smt.question.difference import placements, values_at
from exan_verify.smt.question.encode import encode
from exan_verify.smt.question.posed import Posed, Vector
from exan_verify.smt.question.replay import (
    ExactBatch,
    Row,
    contains,
    distance_exceeds,
    in_domain,
    labels_admitted,
    matches_target,
    run_forward,
    same_gradient,
)
from exan_verify.smt.question.terms import Poly
from exan_verify.smt.question.transcendental import middle
from exan_verify.smt.second_solver import save_query
from exan_verify.smt.solvers.run import Answer, SolverDisagreementError


def accept_model(task: Task, answer: Answer) -> Task | Batch | None:
    """The batch of a model if it is one as asked for, proved by exact replay or by ball arithmetic.

    For rational losses a model that fails the replay raises :class:`SolverDisagreementError`, the query
    saved. For cross_entropy and bce the constraints are an over-approximation: a model that is no batch
    itself may have one nearby, and otherwise gives a task with more lemmas, or None when none is violated.
    """
    try:
        batch = exact_model(task, answer)
        for candidate in _candidates(task, batch):
            if _admitted(task, candidate) and _has_gradient(task, candidate):
                return candidate
    except RangeError:
        return None
    if task.posed.question.loss.rational:
        path = save_query(build(task).text(), f"{task.name}, model of {answer.solver}", Settings())
        raise SolverDisagreementError(
            f"{answer.solver} gave a model of {task.name} that exact replay refutes; "
            f"the query is saved as {path}"
        )
    lemmas = violated(task, answer)
    return _nearby(task, answer, batch) or (replace(task, lemmas=(*task.lemmas, *lemmas)) if lemmas else None)


MAX_STARTS = 24
"""How many starts along a family are tried."""


def family_member(own: Task) -> BallBatch | None:
    """Another batch in the known batch's own cube, on a family through it, proved to exist; or None.

    For cross_entropy and bce only: there a family's other members are transcendental in general, and no model
    of a solver describes them.
    """
    posed, truth = own.posed, own.others[0]
    if posed.question.tolerance is not None or not posed.target.reference or own.missing is not None:
        return None
    encoding = encode(posed, own.assignment)
    order = next(placements(posed, truth, own.assignment))
    labels = replace(truth.batch, y=tuple(truth.batch.y[n] for n in order))
    forbidden = exclusions(own, encoding)
    for start in islice(displaced(posed, encoding, values_at(encoding, truth, order)), MAX_STARTS):
        poll()
        found = prove_existence(posed, encoding, forbidden, start, labels)
        if found is not None:
            return found
    return None


def _nearby(task: Task, answer: Answer, batch: ExactBatch) -> BallBatch | None:
    """A batch proved to exist near a model of the over-approximation (exact gradients only)."""
    if task.posed.question.tolerance is not None or not task.posed.target.reference:
        return None
    if not task.fixed:  # the whole question: the model says which cube it is in
        names = all_literals(task.posed)
        task = replace(task, fixed=tuple((n, bool(answer.model.get(n, False))) for n in names))
    encoding = encode(task.posed, task.assignment)
    start = {}
    for sample, row in zip(encoding.samples, batch.x, strict=True):
        for variable, value in zip(sample.x, row, strict=True):
            (name,) = variable.variables()
            start[name] = middle(batch.point.ball(value))
    return prove_existence(task.posed, encoding, exclusions(task, encoding), start, batch)


def _candidates(task: Task, batch: ExactBatch) -> Iterator[ExactBatch]:
    """The batch of the model; with a tolerance also one with short rational inputs close to it."""
    yield batch
    if task.posed.question.tolerance is not None:
        x = tuple(tuple(Poly.constant(_short(batch, v)) for v in row) for row in batch.x)
        if batch.rational or task.posed.alphabet is not None:
            yield replace(batch, x=x)


def _short(batch: ExactBatch, value: Poly) -> Fraction:
    return Fraction(round(middle(batch.point.ball(value)) * 2**40), 2**40)


def _admitted(task: Task, batch: ExactBatch) -> bool:
    """Labels, domain, and difference from the batches that are excluded."""
    posed = task.posed
    if not (labels_admitted(posed, batch) and in_domain(posed, batch)):
        return False
    if task.missing is not None:
        other = task.others[0].batch
        return not contains(batch, other.x[task.missing], other.y[task.missing], other.point)
    return all(distance_exceeds(posed, batch, o.batch, task.radius) for o in task.others)


def _has_gradient(task: Task, batch: ExactBatch) -> bool:
    posed = task.posed
    if posed.question.loss.rational or posed.question.tolerance is not None:
        return matches_target(posed, batch)
    return bool(task.others) and bool(same_gradient(posed, batch, task.others[0].batch))


def exact_model(task: Task, answer: Answer) -> ExactBatch:
    """The batch of a model. Variables that the model leaves out may have any value; they get zero."""
    posed = task.posed
    roots: dict[str, Root] = {}
    features = range(posed.network.widths[0])
    x = tuple(
        tuple(_number(answer.model.get(f"x_s{m}_{i}"), roots) for i in features) for m in range(posed.size)
    )
    point = Point(roots)
    y = tuple(_label(task, answer, m, x[m], point, roots) for m in range(posed.size))
    return ExactBatch(x=x, y=y, point=point)


def _label(
    task: Task, answer: Answer, m: int, x: Row, point: Point, roots: dict[str, Root]
) -> tuple[Poly, ...]:
    posed = task.posed
    if posed.alphabet is None:
        logits = run_forward(posed, point, x)
        half = Fraction(posed.divisor, 2)
        vector = [_number(answer.model.get(f"g_s{m}_{k}"), roots) for k in range(len(logits))]
        return tuple(f - g * half for f, g in zip(logits, vector, strict=True))
    return tuple(map(Poly.constant, _chosen(posed, task, answer, m)))


def _chosen(posed: Posed, task: Task, answer: Answer, m: int) -> Vector:
    assert posed.alphabet is not None
    if len(posed.alphabet) == 1:
        return posed.alphabet[0]
    values = {**answer.model, **task.assignment}
    return next(u for c, u in enumerate(posed.alphabet) if values.get(f"label_s{m}_{c}"))


def _number(value: Any, roots: dict[str, Root]) -> Poly:
    """A model's value as an element; equal algebraic numbers get equal generators."""
    if value is None:
        return Poly({})
    if value[0] == "q":
        return Poly.constant(to_fraction(Fraction(value[1])))
    found = Root.of([Fraction(c) for c in value[1]], Fraction(value[2]), Fraction(value[3]))
    if isinstance(found, Fraction):
        return Poly.constant(found)
    name = _root_name(found)
    roots[name] = found
    return Poly.variable(name)


def _root_name(root: Root) -> str:
    """A name that depends on the number alone: its polynomial and its position among the real roots."""
    import sympy  # slow to load: only where an algebraic number comes up

    polynomial = sympy.Poly(root.polynomial[::-1], sympy.Symbol("t"))
    rank = polynomial.count_roots(None, sympy.Rational(root.high.numerator, root.high.denominator))
    digest = hashlib.sha256(str(root.polynomial).encode()).hexdigest()[:8]
    return f"root_{digest}_{rank}"
