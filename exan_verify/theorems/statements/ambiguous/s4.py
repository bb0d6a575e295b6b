"""S4: the linear space of first-order motions that keep the gradient exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Loss, Reduction
from exan_verify.exact.backprop import forward, gradient
from exan_verify.exact.linalg import identity, multiply, nullspace, rank
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import (
    Pair,
    deltas,
    drawn,
    exact,
    integer_network,
    integers,
    mse_batch,
    noticing_nudge,
    same_gradient,
    same_samples,
    spoiled,
)
from exan_verify.theorems.support.shorthands import by_instances, kernel, written

SHAPES = (((4, 3, 1), 2), ((5, 3, 2), 3), ((4, 3, 3, 1), 2))
"""(widths, M)."""


def motions(network: ReluNetwork, batch: Batch) -> Array:
    """A basis (M d, dim) of the motions with A_m dx_m = 0, sum_m delta_i^m (J_{i-1}^m dx_m)^T = 0. (mse)"""
    size, samples = network.widths[0], batch.size
    found, passed = deltas(network, batch), forward(network, batch)
    maps = [identity(size) for _ in range(samples)]
    rows: list[Array] = []
    for i, layer in enumerate(network.layers):
        rows += [
            np.concatenate([maps[m][k] * found[i][j, m] for m in range(samples)])
            for j in range(len(found[i]))
            for k in range(len(maps[0]))
        ]
        maps = [multiply(exact(layer.weight), one) for one in maps]
        if i + 1 < network.depth:
            maps = [one * passed.patterns[i][:, m : m + 1] for m, one in enumerate(maps)]
    for m, one in enumerate(maps):
        rows += [_placed(row, m, samples) for row in one]
    return nullspace(np.array(rows, dtype=object))


def _placed(row: Array, m: int, samples: int) -> Array:
    out = exact([0] * (len(row) * samples))
    out[m * len(row) : (m + 1) * len(row)] = row
    return out


def moved(seed: int) -> Iterator[Pair]:
    """Batches in several regions, against a small step along a random combination of the motions."""
    return drawn("S4", seed, _draw)


def _draw(rng: Random) -> Pair | None:
    widths, samples = rng.choice(SHAPES)
    network = integer_network(rng, widths)
    first = mse_batch(network, integers(rng, samples, widths[0], 5), integers(rng, samples, widths[-1]))
    passed = forward(network, first)
    if any(z.any() for z in passed.zeros) or (passed.patterns[0] == passed.patterns[0][:, :1]).all():
        return None
    basis = motions(network, first)
    if not basis.shape[1]:
        return None
    step = multiply(basis, integers(rng, basis.shape[1], 1))[:, 0]
    largest = max(abs(v) for v in step)
    if not largest:
        return None
    shift = (step / largest * Fraction(1, 4096)).reshape(first.inputs.shape)
    second = replace(first, inputs=exact(first.inputs) + shift)
    after = forward(network, second).patterns
    same = all((a == b).all() for a, b in zip(passed.patterns, after, strict=True))
    return noticing_nudge(Pair(network=network, first=first, second=second)) if same else None


def same_gradient_elsewhere(pair: Pair) -> bool:
    """One gradient, over Q, and not the same samples."""
    return same_gradient(pair) and not same_samples(pair)


@dataclass(frozen=True, kw_only=True)
class Moving:
    """A batch with no pre-activation zero, and a basis (M d, dim) that is said to span its motions."""

    network: ReluNetwork
    batch: Batch
    basis: Array


def spanned(seed: int) -> Iterator[Moving]:
    """Batches with motions, and the space that the equations give."""
    return drawn("S4 all", seed, _draw_spanned)


def _draw_spanned(rng: Random) -> Moving | None:
    widths, samples = rng.choice(SHAPES)
    network = integer_network(rng, widths)
    batch = mse_batch(network, integers(rng, samples, widths[0], 5), integers(rng, samples, widths[-1]))
    if any(z.any() for z in forward(network, batch).zeros):
        return None
    basis = motions(network, batch)
    return Moving(network=network, batch=batch, basis=basis) if basis.shape[1] else None


def no_other_motion(moving: Moving) -> bool:
    """The basis spans the kernel of X -> (gradient, logits), which is built from moved gradients only."""
    effects = [_effect(moving, k) for k in range(moving.batch.inputs.size)]
    if any(effect is None for effect in effects):
        return False
    seen: Array = np.array(effects, dtype=object).T.copy()
    dimension = moving.basis.shape[1]
    inside = not multiply(seen, moving.basis).any() and rank(moving.basis) == dimension
    return inside and rank(seen) == moving.batch.inputs.size - dimension


def _effect(moving: Moving, k: int) -> Array | None:
    """What moving the k-th input a little changes, with the loss vectors held by the targets; None when a
    pattern changes. (mse)
    """
    network, first = moving.network, moving.batch
    inputs = exact(first.inputs)
    inputs.reshape(-1)[k] += Fraction(1, 2**20)
    before, after = (forward(network, b) for b in (first, replace(first, inputs=inputs)))
    if any((a != b).any() for a, b in zip(before.patterns, after.patterns, strict=True)):
        return None
    change = after.logits - before.logits
    second = replace(first, inputs=inputs, labels=exact(first.labels) + change.T)
    return np.concatenate([_flat(network, second) - _flat(network, first), change.reshape(-1)])


def _flat(network: ReluNetwork, batch: Batch) -> Array:
    """The whole gradient (sum) as one vector."""
    found = gradient(network, batch, Loss.MSE, Reduction.SUM).for_network(network)
    return np.concatenate([exact(array).reshape(-1) for pair in found for array in pair if array is not None])


def one_motion_less(moving: Moving) -> Moving:
    """The space without its first direction: there is another motion."""
    return replace(moving, basis=moving.basis[:, 1:])


STATEMENTS = (
    Statement(
        name="s4",
        group="S4",
        title="The linear space of motions that keep the gradient",
        source="docs/theory.md section 4, S4; Appendix F2",
        reading="All motions of the inputs that change no loss vector to first order (A_m dx_m = 0 for mse "
        "and bce) and with sum_m delta_i^m (J_{i-1}^m dx_m)^T = 0 at every layer form a linear space. Inside "
        "the regions moving along it keeps the gradient exactly, not to first order only; across several "
        "regions as well. With all patterns and loss vectors fixed there are no other motions.",
        quantifiers="all depths, widths, batches, losses (invariant directions as in S2)",
        hypotheses=(
            "the motion lies in the linear space",
            "no pattern (and no margin of hinge) changes on the way",
        ),
        conclusion="The gradient is the same; a non-zero space and no condition at its limit give AMBIGUOUS.",
        latex=r"A_m\,\mathrm dx_m=0,\ \sum_m\delta_i^m(J_{i-1}^m\mathrm dx_m)^{\mathsf T}=0\ \forall i\ "
        r"\Longrightarrow\ \nabla(X+t\,\mathrm dX)=\nabla(X)",
        standing=Standing.PROVED,
        grounds=(
            written("Appendix F2", "with patterns and loss vectors fixed the gradient is affine in X"),
            kernel(
                "families", "each second batch that the engine finds this way is checked by its own gradient"
            ),
        ),
        checks=(
            by_instances(
                "motions",
                "computes the space over Q for batches in several regions (mse), takes a small step along a "
                "random element and compares the gradients",
                instances=moved,
                conclusion=same_gradient_elsewhere,
                spoiled=spoiled,
                count=15,
                said="batches moved along first-order motions have the same gradient",
            ),
            by_instances(
                "no others",
                "moves every input alone, with targets that hold the loss vectors, and compares what neither "
                "gradient nor logits see, over Q, with the space",
                instances=spanned,
                conclusion=no_other_motion,
                spoiled=one_motion_less,
                count=4,
                said="spaces of motions have no other motion beside them",
            ),
        ),
        remark="Families that change loss vectors on the way (S1's orbits) are not in this space.",
    ),
)
