"""Rows of [dW_1 | db_1] that show one sample alone, told by labels where the pattern alone does not tell it.

That is so in narrow layers, where too few neurons tell a sample from a mixture, and in batches whose inputs
are dependent, or nearly, so that the column space of the gradient does not hold, or not show, every delta.

A row taken for exclusive gives its sample's input, and with a label everything else: a forward and a backward
pass give the sample's whole share of the gradient. What tests the guess is the row's own bias entry, which
has to be the delta that the label gives at this neuron (E4: K tries), and what the column and row spaces of
all layers say of its deltas and features. A mixture of samples meets the first by coincidence only: it is
one equation between numbers that know nothing of one another, except for hinge, whose loss vectors may add
up. Once no row shows a new sample, those found are solved for together from all rows that they explain
(own_rows.py), so that errors do not pile up, and what is left is looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.numeric.problem.own_rows import admitted_labels, solve_own_rows
from exan_verify.numeric.problem.passes import Trace, backward, forward, rounding, weight_gains
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.spectrum import ColumnSpace
from exan_verify.numeric.waiting import proceed

_TOLERANCE = 16.0
"""Between the estimate of rounding and the largest deviation that is accepted as rounding."""

_TELLING = 1e-4
"""An equation known no better than this, relatively, tells no sample from a mixture."""

_STRANGE = 1e-6
"""Sine from which a delta, or features, lie outside of a layer's column or row space in any case."""

_SPARE = 8
"""Equations that a mixture would have to meet by coincidence, from which patterns alone tell samples."""

_COINCIDENCES = 1e-2
"""Most rows that may pass by coincidence, expected over all the labels that a round tries."""

_TRIED = 1 << 22
"""Entries of the rows' deltas that are worked on at a time."""

_SHOWN = 1e3
"""Times its rounding that a row's bias entry must be to show an input."""

_NEAR = 1e-4
"""Relative distance from which rows show two samples at once."""

_LARGEST_BATCH = 4096
"""Batch sizes that are read off a mean, where none is told."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Rows with their labels: ``row`` (r,) the row's place, ``x`` (r, d), labels ``y``, first-layer
    ``deltas`` (r, n_1), and the ``divisor`` (r,) of the loss that goes with them."""

    row: Tensor
    x: Tensor
    y: Tensor
    deltas: Tensor
    divisor: Tensor


def labelled_rows(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    neurons: Tensor,
    x: Float[Tensor, "r d"],
    bias: Float[Tensor, " r"],
    error: Float[Tensor, " r"],
    gains: list[tuple[float, float]],
) -> Labelled | None:
    """The rows (``neurons``, inputs ``x`` with relative rounding ``error``, bias entries) that some label
    explains, each with the label that does best, and that fit those ``spaces`` that hold the batch."""
    labels = admitted_labels(problem)
    if labels is None or not len(x):
        return None
    step = max(1, _TRIED // problem.layers[0].shape[0])
    portions = torch.split(torch.arange(len(x), device=x.device), step)
    telling = min(_TELLING, _COINCIDENCES / (len(x) * len(labels)))
    parts = [
        _some_labelled(problem, spaces, labels, neurons[n], x[n], bias[n], error[n], gains, telling)
        for n in portions
    ]
    return Labelled(
        row=torch.cat([n[part.row] for n, part in zip(portions, parts, strict=True)]),
        x=torch.cat([part.x for part in parts]),
        y=torch.cat([part.y for part in parts]),
        deltas=torch.cat([part.deltas for part in parts]),
        divisor=torch.cat([part.divisor for part in parts]),
    )


def _some_labelled(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    labels: Tensor,
    neurons: Tensor,
    x: Tensor,
    bias: Tensor,
    error: Tensor,
    gains: list[tuple[float, float]],
    telling: float,
) -> Labelled:
    proceed()
    trace = forward(problem, x)
    n = torch.arange(len(x), device=x.device)
    size = problem.question.batch_size or max((space.rank for space in spaces), default=0)
    told = problem.question.batch_size is not None or problem.divisor(2) == problem.divisor(1)
    best, chosen = torch.full_like(bias, torch.inf), torch.zeros_like(n)
    shares, divisors = torch.zeros_like(x[:, :1] * problem.layers[0].bias), torch.ones_like(bias)
    for k, label in enumerate(labels):
        vectors = _vectors(problem, trace.logits, label)
        deltas = backward(problem, trace, vectors)
        own = deltas[0][n, neurons]
        safe = torch.where(own == 0, torch.ones_like(own), own)
        if told:
            divisor = torch.full_like(own, problem.divisor(problem.question.batch_size or 1))
        else:
            divisor = _whole(problem, safe / bias)
        misfit = (bias - own / divisor).abs() / bias.abs()
        slack = _slack(problem, trace, deltas, x, error, gains) / own.abs().clamp(min=1e-300)
        good = (own != 0) & (misfit <= slack) & (slack < telling) & (misfit < best)
        for space, delta, h in zip(spaces, deltas, trace.hidden, strict=False):
            if space.rank == size and bool(good.any()):
                good &= _fits(space, delta, h)
        best, chosen = torch.where(good, misfit, best), torch.where(good, k, chosen)
        divisors = torch.where(good, divisor, divisors)
        shares = torch.where(good[:, None], deltas[0] / divisor[:, None], shares)
    kept = torch.nonzero(torch.isfinite(best))[:, 0]
    return Labelled(row=kept, x=x[kept], y=labels[chosen[kept]], deltas=shares[kept], divisor=divisors[kept])


def _vectors(problem: Problem, logits: Float[Tensor, "r K"], label: Tensor) -> Float[Tensor, "r K"]:
    labels = label.expand(len(logits)) if problem.classified else label.expand_as(logits)
    return problem.loss_vectors(logits, labels)


def _whole(problem: Problem, ratio: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
    """The divisor nearest to ``ratio`` that some batch size has."""
    unit = problem.divisor(1)
    nearest: Tensor = unit * (ratio / unit).round().clamp(min=1, max=_LARGEST_BATCH)
    return nearest


def _slack(
    problem: Problem,
    trace: Trace,
    deltas: tuple[Tensor, ...],
    x: Tensor,
    error: Tensor,
    gains: list[tuple[float, float]],
) -> Float[Tensor, " r"]:
    """What rounding of the row, of the passes and of the given entry explains, in the norm of the delta."""
    moved = rounding(
        problem,
        trace,
        deltas,
        gains=gains,
        input_error=error * (1 + x.norm(dim=1)),
        unit=problem.unit_roundoff,
        divisor=1,
    ).deltas[0]
    slack: Tensor = _TOLERANCE * (moved + (error + problem.unit_roundoff) * deltas[0].norm(dim=1))
    return slack


def _fits(space: ColumnSpace, delta: Float[Tensor, "r n"], h: Float[Tensor, "r in"]) -> Bool[Tensor, " r"]:
    """Whether the deltas lie in a layer's column space and the features in its row space, as they do where
    the rank is the batch's size: of fewer dimensions only mixtures show."""
    limit = max(_STRANGE, 100 * space.noise / float(space.values[space.rank - 1]))
    outside = (delta - (delta @ space.basis) @ space.basis.T).norm(dim=1)
    rows = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
    basis = torch.linalg.qr(space.rows.T)[0]
    left = (rows - (rows @ basis) @ basis.T).norm(dim=1)
    good: Tensor = (outside <= limit * delta.norm(dim=1)) & (left <= limit * rows.norm(dim=1))
    return good


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Peeled:
    """Samples peeled by their labels: ``x`` (p, d), ``y``, first-layer ``deltas`` (p, n_1), the relative
    rounding ``error`` (p,) of x, and the ``divisor`` (p,) of the loss that goes with the labels."""

    x: Tensor
    y: Tensor
    deltas: Tensor
    error: Tensor
    divisor: Tensor

    def select(self, chosen: Tensor) -> Peeled:
        """The ``chosen`` samples: a mask (p,), or indices."""
        return Peeled(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})

    def and_also(self, other: Peeled) -> Peeled:
        """These samples and those of ``other``."""
        return Peeled(
            **{
                one.name: torch.cat([getattr(self, one.name), getattr(other, one.name)])
                for one in fields(self)
            }
        )


def batch_size_shown(problem: Problem, peeled: Peeled) -> int | None:
    """The batch size that the divisors of the samples' losses agree on, where they are a mean's."""
    unit = problem.divisor(1)
    if not len(peeled.x) or problem.divisor(2) == unit:
        return None
    if not bool((peeled.divisor == peeled.divisor[0]).all()):
        return None
    return round(float(peeled.divisor[0]) / unit)


def is_narrow(problem: Problem, space: ColumnSpace) -> bool:
    """Whether the first layer has too few neurons to tell a sample from a mixture by its pattern alone."""
    live = int((space.basis.norm(dim=1) > 0).sum())
    free = problem.classes - int(problem.question.loss.zero_sum)
    return space.saturated or live - space.rank - free < _SPARE


def peel_by_labels(problem: Problem, spaces: tuple[ColumnSpace, ...], most: int) -> Peeled | None:
    """Peel the first layer, at most ``most`` samples, or for hinge what more could be; None where labels
    cannot be tried."""
    layer, gains = problem.layers[0], weight_gains(problem)
    labels = admitted_labels(problem)
    if problem.scale is None or problem.weighted:
        return None
    if labels is None or not layer.whole:
        return None
    nowhere = layer.d_weight[:0].double()
    found = _peeled(problem, spaces, labels, most, nowhere, gains)
    if problem.question.loss is not Loss.HINGE or _adds_up(problem, found, most):
        return found
    # loss vectors of hinge add up, so that a row of several samples may pass for one's, and its share, once
    # taken out, hides the others: each that was found is left out in turn, and all that shows is kept
    for one in found.x:
        other = _peeled(problem, spaces, labels, most, one[None], gains)
        apart = torch.cdist(other.x, found.x, compute_mode="donot_use_mm_for_euclid_dist")
        new = (apart > _NEAR * (1 + other.x.norm(dim=1))[:, None]).all(dim=1)
        found = found.and_also(other.select(new))
    return found


def _adds_up(problem: Problem, found: Peeled, most: int) -> bool:
    """Whether what the samples found leave of [dW_1 | db_1] has no larger rank than samples are missing."""
    layer, size = problem.layers[0], len(found.x)
    h = torch.cat([found.x, torch.ones_like(found.x[:, :1])], dim=1)
    given = torch.cat([layer.d_weight.double(), layer.d_bias[:, None]], dim=1)
    values = torch.linalg.svdvals(given - found.deltas.T @ h)
    rounded = problem.unit_roundoff * given.norm() + found.deltas.norm(dim=1) @ (found.error * h.norm(dim=1))
    return int((values > _SHOWN * rounded).sum()) <= most - size


def _peeled(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    labels: Tensor,
    most: int,
    without: Float[Tensor, "k d"],
    gains: list[tuple[float, float]],
) -> Peeled:
    """At most ``most`` samples, none of them near the inputs ``without``."""
    layer = problem.layers[0]
    given, given_bias = layer.d_weight.double(), layer.d_bias
    found = Peeled(
        x=given[:0],
        y=labels[:0],
        deltas=given.new_zeros(0, layer.shape[0]),
        error=given_bias[:0],
        divisor=given_bias[:0],
    )
    rounded = problem.unit_roundoff * (given.norm(dim=1) + given_bias.abs())
    untested, solved = torch.ones_like(given_bias, dtype=torch.bool), 0
    while len(found.x) < most:
        left = given - found.deltas.T @ found.x
        bias = given_bias - found.deltas.sum(dim=0)
        shares = found.deltas.abs().T
        carried = (found.error + problem.unit_roundoff) * (1 + found.x.norm(dim=1))
        error = rounded + shares @ carried
        rows = torch.nonzero(untested & (bias.abs() > _SHOWN * error))[:, 0]
        x, relative = left[rows] / bias[rows, None], error[rows] / bias[rows].abs()
        active = layer.forward(x).gather(1, rows[:, None])[:, 0] > 0
        for one in without:
            active &= (x - one).norm(dim=1) > _NEAR * (1 + one.norm())
        rows, x, relative = rows[active], x[active], relative[active]
        fresh = labelled_rows(problem, spaces, rows, x, bias[rows], relative, gains)
        if fresh is None or not len(fresh.x):
            if solved == len(found.x):
                break
            found, solved = _solved_together(problem, found, gains), len(found.x)
            untested = torch.ones_like(untested)
            continue
        chosen = _distinct(fresh, relative[fresh.row])[: most - len(found.x)]
        new = Peeled(
            x=fresh.x[chosen],
            y=fresh.y[chosen],
            deltas=fresh.deltas[chosen],
            error=relative[fresh.row][chosen],
            divisor=fresh.divisor[chosen],
        )
        found, untested = found.and_also(new), (new.deltas != 0).any(dim=0)
    return found


def _solved_together(problem: Problem, found: Peeled, gains: list[tuple[float, float]]) -> Peeled:
    """The samples found, solved for together, where their labels agree on the size of the batch."""
    if not bool((found.divisor == found.divisor[0]).all()):
        return found
    sizes = 1 + found.x.norm(dim=1)
    own = solve_own_rows(problem, found.x, found.y, found.error * sizes, float(found.divisor[0]), gains)
    known = torch.isfinite(own.error)
    error = torch.where(known, own.error / (1 + own.x.norm(dim=1)), found.error)
    return replace(found, x=own.x, deltas=own.deltas, error=error)


def _distinct(rows: Labelled, error: Float[Tensor, " r"]) -> Tensor:
    """One row for every sample that rows show, the one with the least rounding; samples near each other are
    told apart when the first of them is taken out."""
    left = torch.ones_like(error, dtype=torch.bool)
    chosen: list[int] = []
    while bool(left.any()):
        best = int(torch.where(left, error, torch.inf).argmin())
        chosen.append(best)
        near = (rows.x - rows.x[best]).norm(dim=1) <= _NEAR * (1 + rows.x[best].norm())
        left &= ~near
        left[best] = False
    return torch.tensor(chosen, dtype=torch.long, device=error.device)
