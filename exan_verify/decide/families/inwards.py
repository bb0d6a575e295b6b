"""Motions that the first layer does not see and that leave faces of the box inwards (docs/theory.md section 4).

Floating point proposes one motion A with ``A W^T = 0`` and ``E A = 0`` (E: the rows of Delta_1 that are sent)
that goes into the box at as many entries on faces as it can; the kernel shows that an exact one is near it.

Which entries of one feature can leave their faces at all is a linear program of its own, and the same for
all features with the same faces. What is left of the problem is to find a point of a linear space in an
orthant, which alternating reflections do (J. Douglas, H. H. Rachford, 1956); small ones are one linear program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import Budget, poll
from exan_verify.core.certificate import Inwards, Unseen
from exan_verify.core.facts import Facts
from exan_verify.decide.context import Context
from exan_verify.decide.second_batch import admitted
from exan_verify.exact.backprop import backward_ball
from exan_verify.exact.balls import Floats, midpoints, working_precision
from exan_verify.exact.dyadic import guessed
from exan_verify.exact.lp import guessed_optimum
from exan_verify.exact.modular import PRIME
from exan_verify.exact.rational import Mask
from exan_verify.exact.softmax import loss_vectors_ball

_TOGETHER = 600
"""Entries of a problem that one linear program settles in a second."""

_STEPS = 4000
"""Reflections before a set of features is given up; those of digits that go need 400 to 2000."""

_LOOK = 50
_SETS = 6
"""Sets of features that are tried: halving what lies between the largest that went and the smallest that did
not."""

_UNITS = (1, 4, 16, 256)
"""Units of the motion's integers in the smallest step from a face: coarse ones make short certificates."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Problem:
    """``delta`` (r, S): E in floats. ``weight`` (n, d). ``low``, ``high`` (S, d): entries on faces."""

    delta: Floats
    weight: Floats
    low: Mask
    high: Mask

    @property
    def inside(self) -> Mask:
        """Entries that may move both ways."""
        found: Mask = ~(self.low | self.high)
        return found

    def of(self, features: Any) -> Problem:
        """The same with these features only."""
        return Problem(
            delta=self.delta,
            weight=self.weight[:, features],
            low=self.low[:, features],
            high=self.high[:, features],
        )


def found(context: Context, samples: list[int], live: Mask, budget: Budget) -> tuple[Unseen, Facts] | None:
    """Evidence that the kernel admits, with what it shows, or None. ``live`` (n, M): as the kernel counts."""
    problem = _problem(context, samples, live)
    for features, motion in _motions(problem, budget):
        for parts in _UNITS:
            integers = np.rint(motion * parts).astype(np.int64)
            evidence = Unseen(
                samples=tuple(samples),
                dimension=_dimension(problem, live[:, samples], features, integers),
                prime=PRIME,
                point=context.image.point,
                inwards=Inwards(
                    features=tuple(map(int, features)), motion=tuple(map(tuple, integers.tolist()))
                ),
            )
            facts = admitted(context, evidence)
            if facts is not None:
                return evidence, facts
    return None


def _problem(context: Context, samples: list[int], live: Mask) -> Problem:
    x, domain = context.batch.inputs[samples], context.question.domain
    assert domain is not None
    low, high = domain.bounds(x.shape[1])
    with working_precision():
        vectors = loss_vectors_ball(context.question.loss, context.passed.logits, context.batch.labels, 1)
        delta = midpoints(backward_ball(context.network, context.passed, vectors)[0])
    first = context.network.layers[0]
    sent = delta[context.question.sent_weights(first)][: len(live)][:, samples]
    return Problem(
        delta=sent[live[:, samples].any(axis=1)], weight=guessed(first.weight), low=x == low, high=x == high
    )


def _motions(problem: Problem, budget: Budget) -> Iterator[tuple[Any, Floats]]:
    """Features and a motion (S, features) that is 1 at least where it leaves a face, and 0 where it stays."""
    if not np.isfinite(problem.delta).all():
        return
    size, count = problem.low.shape
    if size * count <= _TOGETHER:
        budget.spend((size * count) ** 3)
        equations = np.concatenate(
            [np.kron(np.eye(size), problem.weight), np.kron(problem.delta, np.eye(count))]
        )
        motion = _widest(equations, problem.low.reshape(-1), problem.high.reshape(-1))
        if motion is not None:
            yield np.arange(count), motion.reshape(size, count)
        return
    movable = _movable(problem, budget)
    alive = (problem.delta != 0).astype(np.int64) @ movable.astype(np.int64) > 0
    order = np.argsort((~problem.inside).sum(axis=0), kind="stable")
    order = order[(movable.sum(axis=0) > alive.sum(axis=0))[order]]
    most, least, best = len(order), 0, None  # the first ``least`` of them go
    asked = most
    for _ in range(_SETS):
        if asked <= least or budget.exhausted:
            break
        features = np.sort(order[:asked])
        motion = _reflected(problem.of(features), movable[:, features], budget)
        if motion is None:
            most = asked
        else:
            least, best = asked, (features, motion)
        asked = (least + most) // 2
    if best is not None:
        yield best


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
        budget.spend(size**3)
        if budget.exhausted:
            return problem.inside
        motion = _widest(problem.delta, kind[:size], kind[size:])
        if motion is not None:
            faces = kind[:size] | kind[size:]
            found[np.ix_(faces & (motion != 0), group.reshape(-1) == number)] = True
    return found


def _reflected(problem: Problem, movable: Mask, budget: Budget) -> Floats | None:
    """A motion of ``movable`` entries that is 1 at least into the box where they are on faces, or None.

    The step of Douglas and Rachford for the linear space L and the set C of such motions: ``x + P_C(2 P_L x -
    x) - P_L x``; P_L x tends to a point of both where there is one.
    """
    kernel, seen = _kernel(problem.delta), _row_space(problem.weight)
    projector = kernel.T @ kernel
    faces = movable & ~problem.inside
    signs = np.where(problem.low, 1.0, -1.0)
    state = np.where(faces, signs, 0.0)
    work = sum(state.shape) + len(seen)
    for step in range(_STEPS):
        near = projector @ state
        near -= (near @ seen.T) @ seen
        if step % _LOOK == 0:
            poll()
            budget.spend(_LOOK * state.size * work // 64)
            if budget.exhausted:
                return None
            least = (signs * near)[faces].min(initial=1.0)
            if least > 0.5 and np.abs(near[~movable]).max(initial=0.0) < least / 32:
                return np.where(movable, near / least, 0.0)
        ahead = 2 * near - state
        state += np.where(movable, np.where(faces, signs * np.maximum(signs * ahead, 1), ahead), 0) - near
    return None


def _kernel(matrix: Floats) -> Floats:
    """Orthonormal rows that ``matrix`` (r, s) sends to zero."""
    _, values, rows = np.linalg.svd(matrix, full_matrices=True)
    return np.asarray(rows[int((values > 1e-10 * values.max(initial=0.0)).sum()) :])


def _row_space(matrix: Floats) -> Floats:
    """Orthonormal rows that span those of ``matrix``."""
    _, values, rows = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(rows[values > 1e-10 * values.max(initial=0.0)])


def _dimension(problem: Problem, live: Mask, features: npt.NDArray[np.int64], integers: Any) -> int:
    """What the kernel counts: ``sum_k (c_k - r_k)+ - (S - r) n``, or 1, the motion itself."""
    movable = problem.inside.copy()
    movable[:, features] |= integers != 0
    rows = live[live.any(axis=1)]
    alive = (rows.astype(np.int64) @ movable.astype(np.int64) > 0).sum(axis=0)
    surplus = np.maximum(movable.sum(axis=0) - alive, 0)
    seen = int((problem.weight[:, surplus > 0] != 0).any(axis=1).sum())
    return max(1, int(surplus.sum()) - (len(movable) - len(rows)) * seen)
