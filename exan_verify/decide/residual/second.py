"""Second batches as evidence: the differences between a batch and another with the same gradient."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.core.certificate import Move, SecondBatch, SparseVector
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array, Batch, to_fraction
from exan_verify.decide.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """``batch`` in the place of ``members``; ``matrix`` Q when its inputs are Q times theirs."""

    members: tuple[int, ...]
    batch: Batch
    matrix: Array | None = None


def evidence_of(context: Context, second: Second) -> SecondBatch:
    """The second batch as moves: mixes where Q is known, else steps."""
    moves: list[Move] = []
    directions: list[SparseVector] = []
    for row, m in enumerate(second.members):
        mix: SparseVector = ((m, "1"),)
        steps: SparseVector = ()
        if second.matrix is not None:
            mix = tuple((k, str(v)) for k, v in zip(second.members, second.matrix[row], strict=True) if v)
        elif step := _difference(second.batch.inputs[row], context.batch.inputs[m]):
            steps = ((len(directions), "1"),)
            directions.append(step)
        moves.append(_move(context.batch.labels[m], second.batch.labels[row], m, mix, steps))
    return SecondBatch(directions=tuple(directions), moves=tuple(moves))


def facts_of(context: Context, second: Second) -> Facts:
    """AMBIGUOUS, and FREE for the samples that the second batch lacks."""
    kept = [m for m in range(context.samples) if m not in set(second.members)]
    present = set(_samples(second.batch)) | set(_samples(context.batch.select(kept)) if kept else ())
    everyone = _samples(context.batch)
    return Facts(ambiguous=True, free=frozenset(m for m, s in enumerate(everyone) if s not in present))


def completed(context: Context, second: Second) -> Batch:
    """The whole second batch, the given one's other samples in their places."""
    setting, members = context.setting, list(second.members)
    inputs, labels = _exact(context.batch.inputs), _exact(context.batch.labels)
    inputs[members] = _exact(second.batch.inputs)
    labels[members] = _exact(second.batch.labels)
    return Batch.of(
        inputs, labels, network=setting.network, loss=setting.question.loss, labels=setting.question.labels
    )


def _move(own: Array, new: Array, m: int, mix: SparseVector, steps: SparseVector) -> Move:
    if np.ndim(own) == 0:
        label = None if int(own) == int(new) else int(new)
        return Move(sample=m, mix=mix, steps=steps, label=label)
    return Move(sample=m, mix=mix, steps=steps, target=_difference(new, own))


def _difference(new: Array, old: Array) -> SparseVector:
    pairs = ((k, to_fraction(a) - to_fraction(b)) for k, (a, b) in enumerate(zip(new, old, strict=True)))
    return tuple((k, str(value)) for k, value in pairs if value)


def _samples(batch: Batch) -> list[tuple[object, object]]:
    return list(zip(batch.x, batch.y, strict=True))


def _exact(array: Array) -> Array:
    out = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        out[index] = Fraction(to_fraction(value))
    return out
