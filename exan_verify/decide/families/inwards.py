"""Motions that the first layer, or the first two, do not see and that leave faces of the box inwards
(docs/theory.md section 4).

Floating point proposes one motion A with ``A W^T = 0`` and ``E A = 0`` (E: the rows of Delta_1 that are sent)
that goes into the box at as many entries on faces as it can; the kernel shows that an exact one is near it.

Which entries of one feature can leave their faces at all is a linear program of its own, the same for all
features with the same faces. Then a point of a linear space in an orthant is to be found, which alternating
reflections do (J. Douglas, H. H. Rachford, 1956); small problems are one linear program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np

from exan_verify.core.budget import Budget, poll
from exan_verify.core.certificate import Inwards, Unseen
from exan_verify.core.facts import Facts
from exan_verify.decide.context import Context
from exan_verify.decide.second_batch import measured
from exan_verify.exact.backprop import backward_ball
from exan_verify.exact.balls import Floats, midpoints, working_precision
from exan_verify.exact.dyadic import guessed
from exan_verify.exact.lp import guessed_optimum
from exan_verify.exact.modular import PRIME
from exan_verify.exact.rational import Mask
from exan_verify.exact.softmax import loss_vectors_ball

_TOGETHER = 600
"""Entries of a problem that one linear program settles in a second."""

_STEPS = 6000
"""Reflections before a set of features is given up. 96 digits for 784-64-10 take 1400 with what follows:"""

_RELAXED = 1.8
_START = 300.0
"""From 1, and without relaxation, 3750: motions are some hundred times as long as their shortest step."""

_ENOUGH = 0.1
_LOOK = 50
_SETS = 4
"""Sets of features that are tried: halving what lies between the largest that went and the smallest that did
not."""

_HOPELESS = 2.5
"""Of N half-spaces in general position the chance that they share a direction in D dimensions is below one in
a thousand where N > 2.5 D (J. G. Wendel, 1962) for D > 16; a linear program is not asked there."""

_MOST_COEFFICIENTS = 1 << 23
"""Of the second layer's conditions in the steps of the pre-activations: seconds of dense algebra."""

_LONGEST = 1 << 24
"""As the certificate's integers."""

_UNITS = (1, 4, 16, 256)
"""Units of the motion's integers in the smallest step from a face: coarse ones make short certificates."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Problem:
    """``delta`` (r, S): E in floats. ``weight`` (n, d). ``low``, ``high`` (S, d): entries on faces.
    ``active`` (n, S), ``outer`` (K, n) and ``losses`` (K, S): pattern, second weight and Delta_2, None
    without one.
    """

    delta: Floats
    weight: Floats
    low: Mask
    high: Mask
    active: Mask | None
    outer: Floats
    losses: Floats

    @property
    def inside(self) -> Mask:
        """Entries that may move both ways."""
        found: Mask = ~(self.low | self.high)
        return found

    def of(self, features: Any) -> Problem:
        """The same with these features only."""
        return replace(
            self, weight=self.weight[:, features], low=self.low[:, features], high=self.high[:, features]
        )


def found(context: Context, samples: list[int], live: Mask, budget: Budget) -> tuple[Unseen, Facts] | None:
    """Evidence that the kernel admits, with what it shows, or None. ``live`` (n, M): as the kernel counts."""
    problem = _problem(context, samples, live)
    if not (np.isfinite(problem.delta).all() and np.isfinite(problem.losses).all()):
        return None
    for layer, features, motion in _motions(problem, budget):
        for parts in _UNITS:
            rounded = np.rint(motion * parts)
            if np.abs(rounded).max() > _LONGEST:
                break
            integers = rounded.astype(np.int64).tolist()
            evidence = Unseen(
                samples=tuple(samples),
                dimension=0,
                prime=PRIME,
                point=context.image.point,
                inwards=Inwards(
                    layer=layer, features=tuple(map(int, features)), motion=tuple(map(tuple, integers))
                ),
            )
            family = measured(context, evidence)
            if family is not None:
                known = msgspec.structs.replace(evidence, dimension=family.dimension)
                return known, Facts(ambiguous=True, free=family.free)
    return None


def _problem(context: Context, samples: list[int], live: Mask) -> Problem:
    x, domain, network = context.batch.inputs[samples], context.question.domain, context.network
    assert domain is not None
    low, high = domain.bounds(x.shape[1])
    loss, passed = context.question.loss, context.passed
    with working_precision():
        vectors = loss_vectors_ball(loss, passed.logits, context.batch.labels, 1)
        deltas = [midpoints(delta) for delta in backward_ball(network, passed, vectors)]
    first = network.layers[0]
    sent = deltas[0][context.question.sent_weights(first)][: len(live)][:, samples]
    outer: Floats = np.zeros((0, len(first.weight)))
    losses: Floats = np.zeros((0, len(samples)))
    if network.depth > 1:
        outer, losses = guessed(network.layers[1].weight), deltas[1][:, samples]
        if network.depth == 2 and loss.zero_sum:
            outer, losses = outer[:-1] - outer[-1], losses[:-1]
    return Problem(
        delta=sent[live[:, samples].any(axis=1)],
        weight=guessed(first.weight),
        low=x == low,
        high=x == high,
        active=passed.patterns[0][:, samples] if network.depth > 1 else None,
        outer=outer,
        losses=losses,
    )


Motion = tuple[Literal[1, 2], Any, Floats]
"""The layer that does not see it, features and numbers (S, features): 1 at least where it leaves a face, 0
where it stays.
"""


def _motions(problem: Problem, budget: Budget) -> Iterator[Motion]:
    """Floats that may be near motions, those of larger families first."""
    movable = _movable(problem, budget)
    alive = (problem.delta != 0).astype(np.int64) @ movable.astype(np.int64) > 0
    order = np.argsort((~problem.inside).sum(axis=0), kind="stable")
    order = order[(movable.sum(axis=0) > alive.sum(axis=0))[order]]
    for layer in _layers(problem):
        budget.spend(_TOGETHER)
        if movable.size <= _TOGETHER:
            motion = _at_once(problem, layer, budget)
            if motion is None:
                return
            yield layer, np.arange(movable.shape[1]), motion
            continue
        most, least, best = len(order), 0, None  # the first ``least`` of them go
        asked = most
        for _ in range(_SETS):
            if asked <= least or budget.exhausted:
                break
            features = np.sort(order[:asked])
            motion = _reflected(problem.of(features), layer, movable[:, features], budget)
            if motion is None:
                most = asked
            else:
                least, best = asked, (layer, features, motion)
            asked = (least + most) // 2
        if best is None:  # what the first layer does not see the second does not see either
            return
        yield best


def _layers(problem: Problem) -> list[Literal[1, 2]]:
    """Which layers' motions are asked for, those with fewer conditions first."""
    size, neurons, second = len(problem.low), len(problem.weight), len(problem.outer)
    unknowns = (size - len(problem.delta)) * neurons
    if problem.active is None or second * (size + neurons) * unknowns > _MOST_COEFFICIENTS:
        return [1]
    # values and gradient, less what follows from the others (docs/theory.md section 4)
    conditions = second * (size + neurons) - second**2 - neurons
    return [2, 1] if conditions < unknowns else [1]


def _at_once(problem: Problem, layer: int, budget: Budget) -> Floats | None:
    """One linear program for all entries."""
    size, count = problem.low.shape
    budget.spend((size * count) ** 2)
    equations = [np.kron(problem.delta, np.eye(count))]
    if layer == 1:
        equations.append(np.kron(np.eye(size), problem.weight))
    else:  # on the steps of the pre-activations, vec(A W^T)
        table = _second_layer(problem, np.eye(size), np.eye(len(problem.weight)))
        equations.append(table @ np.kron(np.eye(size), problem.weight))
    motion = _widest(np.concatenate(equations), problem.low.reshape(-1), problem.high.reshape(-1))
    return None if motion is None else motion.reshape(size, count)


def _second_layer(problem: Problem, rows: Floats, columns: Floats) -> Floats:
    """Coefficients (equations, q p) of C (q, p), where the pre-activations step by ``rows^T C columns``: the
    second layer's values stay, sample by sample, and its gradient. ``rows`` (q, S), ``columns`` (p, n).
    """
    assert problem.active is not None
    active = problem.active.astype(np.float64)
    values = np.einsum("cj,jm,qm,pj->cmqp", problem.outer, active, rows, columns, optimize=True)
    sums = np.einsum("cm,jm,qm->cjq", problem.losses, active, rows, optimize=True)
    gradient = np.einsum("cjq,pj->cjqp", sums, columns)
    table = np.concatenate([v.reshape(-1, len(rows) * len(columns)) for v in (values, gradient)])
    length = np.linalg.norm(table, axis=1)
    return np.asarray(table[length > 0] / length[length > 0, None])


def _widest(equations: Floats, low: Mask, high: Mask) -> Floats | None:
    """A solution of ``equations a = 0`` that leaves as many faces as any: a linear program in a and t, the
    greatest ``sum t`` with ``t <= 1`` and a into the box by t at least.
    """
    faces = np.flatnonzero(low ^ high)
    if not len(faces):
        return None
    count, more = len(low), len(faces)
    signs = np.where(low, 1.0, -1.0)[faces]
    leaving = np.zeros((more, count + more))
    leaving[np.arange(more), faces] = -signs
    leaving[np.arange(more), count + np.arange(more)] = 1
    limits = [(0, 0) if a and b else (None, None) for a, b in zip(low, high, strict=True)] + [(0, 1)] * more
    scale = np.abs(equations).max(axis=1, keepdims=True, initial=0.0)
    answer = guessed_optimum(
        np.concatenate([np.zeros(count), -np.ones(more)]),
        A_ub=leaving,
        b_ub=np.zeros(more),
        A_eq=np.concatenate(
            [equations / np.where(scale > 0, scale, 1), np.zeros((len(equations), more))], axis=1
        ),
        b_eq=np.zeros(len(equations)),
        bounds=limits,
        method="highs",
    )
    if answer.status != 0:
        return None
    motion, gone = answer.x[:count].copy(), answer.x[count:] > 0.5
    motion[faces[~gone]] = 0
    motion[low & high] = 0
    return motion if gone.any() else None


def _movable(problem: Problem, budget: Budget) -> Mask:
    """Entries (S, d) that may move as far as E alone is concerned."""
    found = problem.inside.copy()
    kinds, group = np.unique(np.concatenate([problem.low, problem.high]), axis=1, return_inverse=True)
    size = len(problem.low)
    for number, kind in enumerate(kinds.T):
        poll()
        budget.spend(size**2)
        if budget.exhausted:
            return problem.inside
        if kind.sum() > _HOPELESS * (size - len(problem.delta)) + 16:
            continue
        motion = _widest(problem.delta, kind[:size], kind[size:])
        if motion is not None:
            faces = kind[:size] | kind[size:]
            found[np.ix_(faces & (motion != 0), group.reshape(-1) == number)] = True
    return found


def _reflected(problem: Problem, layer: int, movable: Mask, budget: Budget) -> Floats | None:
    """A motion of ``movable`` entries that is 1 at least into the box where they are on faces, or None.

    The step of Douglas and Rachford for the linear space L and the set C of such motions: ``x + P_C(2 P_L x -
    x) - P_L x``, relaxed; P_L x tends to a point of both where there is one.
    """
    kernel = _kernel(problem.delta)
    left, values, seen = np.linalg.svd(problem.weight, full_matrices=False)
    kept = values > 1e-10 * values.max(initial=0.0)
    left, values, seen = left[:, kept], values[kept], seen[kept]
    faces = movable & ~problem.inside
    signs = np.where(problem.low, 1.0, -1.0)
    state = np.where(faces, _START * signs, 0.0)
    free = np.zeros((0, len(kernel) * len(seen)))  # C = 0: nothing is seen
    if layer == 2:
        # P = kernel^T C (values left^T), C = kernel A seen^T
        held = _range(_second_layer(problem, kernel, values[:, None] * left.T))
        poll()
        free = np.linalg.qr(held.T, mode="complete")[0][:, len(held) :].T.copy()
        budget.spend(held.shape[1] ** 3 // 16)
    work = sum(state.shape) + 2 * len(seen) + 2 * free.size // state.size
    for step in range(_STEPS):
        inner = kernel @ state
        steps = inner @ seen.T
        steps -= ((free @ steps.reshape(-1)) @ free).reshape(steps.shape)
        near = kernel.T @ (inner - steps @ seen)
        if step % _LOOK == 0:
            poll()
            budget.spend(_LOOK * state.size * work // 64)
            if budget.exhausted:
                return None
            least = (signs * near)[faces].min(initial=1.0)
            if least > _ENOUGH and np.abs(near[~movable]).max(initial=0.0) < least / 32:
                return np.where(movable, near / least, 0.0)
        ahead = 2 * near - state
        there = np.where(movable, np.where(faces, signs * np.maximum(signs * ahead, 1), ahead), 0)
        state += _RELAXED * (there - near)
    return None


def _kernel(matrix: Floats) -> Floats:
    """Orthonormal rows that ``matrix`` (r, s) sends to zero."""
    _, values, rows = np.linalg.svd(matrix, full_matrices=True)
    return np.asarray(rows[int((values > 1e-10 * values.max(initial=0.0)).sum()) :])


def _range(matrix: Floats) -> Floats:
    """Orthonormal rows that span those of ``matrix``, but for those that are nearly dependent."""
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    kept = values > 1e-10 * values.max(initial=0.0)
    return np.asarray((vectors[:, kept] / np.sqrt(values[kept])).T @ matrix)
