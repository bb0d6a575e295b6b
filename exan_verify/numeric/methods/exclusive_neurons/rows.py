"""Rows of [dW_1 | db_1] that show one sample alone, and the test that tells it from a mixture.

Which neurons are exclusive is a guess. It is put to the test by the sample's own equations: the deltas that
its activation pattern allows must meet the column space of the gradient, and its label must give the delta
found (docs/theory.md section 5, `peel`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Loss, Reduction
from exan_verify.numeric.methods.separate import SAME, Span, copies, signs_of
from exan_verify.numeric.problem.passes import delta_spans, forward
from exan_verify.numeric.problem.polish import meet
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.remainder import Known
from exan_verify.numeric.problem.spectrum import MINIMAL_GAP, ColumnSpace
from exan_verify.numeric.waiting import proceed

_SOLVED = 0.05
"""Largest sine at which a pattern's deltas meet the column space at all; strangers lie above 0.1."""

_ROUNDING = 16.0
"""Between the sine that noise explains by its norm and the largest that is accepted."""

_CLEAN = 1e3
"""Roundings by which the delta of a sample's label may differ from the one found, from that of its row."""

_ALIKE = (1 - SAME**2) ** 0.5
"""Cosine above which two delta directions of one pattern belong to one sample."""

_CHUNK = 1 << 20
"""Entries of the candidates' delta spans that are worked on at a time."""

_MOST_DEAD = 4
"""Times the rank that a batch may be large where its size is not told: beyond, most samples would be dead."""

_AGREE = 1e3
"""Rows of one sample agree to this many roundings; one that does not also shows a sample of tiny delta."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fresh:
    """A sample just found: its input (d,), first-layer delta (n_1,), and the rows that show it alone."""

    x: Tensor
    delta: Tensor
    rows: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """What known samples leave of some rows of [dW_1 | db_1]: neurons ``index`` (r,), the inputs ``x`` (r, d)
    that these show, their bias entries ``bias`` (r,), and the relative rounding ``error`` (r,) of x."""

    index: Tensor
    x: Tensor
    bias: Tensor
    error: Tensor

    def select(self, chosen: Tensor) -> _Rows:
        """Those at the positions ``chosen`` (k,), or where a mask (r,) is true."""
        return _Rows(
            index=self.index[chosen], x=self.x[chosen], bias=self.bias[chosen], error=self.error[chosen]
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Accepted:
    """Rows that pass the test, with the sine and the unit delta direction that go with each, and how many
    times the loss vector of its label it counts, known to ``slack`` relatively."""

    rows: _Rows
    sine: Tensor
    direction: Tensor
    counts: Tensor
    slack: Tensor


def exclusive_samples(problem: Problem, space: ColumnSpace, known: Known, untested: Tensor) -> list[Fresh]:
    """Samples that some row shows alone."""
    step = max(1, _CHUNK // (space.basis.shape[0] * problem.classes))
    live = torch.nonzero(untested & (space.basis.norm(dim=1) > 0))[:, 0]
    tested = [_tested(problem, space, _left(problem, known, index)) for index in torch.split(live, step)]
    if not tested:
        return []
    accepted = _joined(tested)
    # accepted directions solve their equations to rounding: samples near each other differ in their patterns
    directions = _span(accepted.direction.T)
    taken = _span(torch.nn.functional.normalize(known.deltas, dim=1).T)
    left = ~copies(directions, taken, _ALIKE).any(dim=1) & _of_one(problem, space, accepted)
    fresh = []
    while bool(left.any()):
        best = int(torch.where(left, accepted.sine, torch.inf).argmin())
        group = left & copies(directions, _span(accepted.direction[best, :, None]), _ALIKE)[:, 0]
        fresh.append(_sample(accepted, group))
        left &= ~group
    return fresh[: space.rank - known.size]


def _span(directions: Float[Tensor, "n k"]) -> Span:
    """Unit deltas whose patterns are the neurons at which they are not zero."""
    return Span(deltas=directions, signs=signs_of(directions, directions != 0))


def _joined(parts: list[_Accepted]) -> _Accepted:
    return _Accepted(
        rows=_Rows(
            index=torch.cat([part.rows.index for part in parts]),
            x=torch.cat([part.rows.x for part in parts]),
            bias=torch.cat([part.rows.bias for part in parts]),
            error=torch.cat([part.rows.error for part in parts]),
        ),
        sine=torch.cat([part.sine for part in parts]),
        direction=torch.cat([part.direction for part in parts]),
        counts=torch.cat([part.counts for part in parts]),
        slack=torch.cat([part.slack for part in parts]),
    )


def _of_one(problem: Problem, space: ColumnSpace, accepted: _Accepted) -> Bool[Tensor, " r"]:
    """The rows whose loss vectors have the size of one sample's, where nothing else tells them from mixtures.

    A mixture of samples that has the pattern of one has its delta direction too. The label shows that its
    logits are those of no sample, but hinge's loss vectors are the same at all of them. Then what remains is
    their size: 1 / N of a label's where a row is one sample's, and that times 1 + delta_b / delta_a where
    another one shows in it. Where N is not told it is the largest that fits a row, so that copies of a
    sample, which count twice, leave none.
    """
    counts = accepted.counts
    if problem.question.loss is not Loss.HINGE or problem.scale is None or problem.weighted:
        return torch.ones_like(counts, dtype=torch.bool)
    if problem.question.batch_size is None and problem.question.reduction is Reduction.MEAN:
        sizes = torch.arange(_MOST_DEAD * space.rank, space.rank - 1, -1).to(counts)
        fits = (counts[:, None] * sizes / space.rank - 1).abs() <= accepted.slack[:, None]
        seen = torch.nonzero(fits.any(dim=0))[:, 0]
        if not len(seen):
            return torch.zeros_like(counts, dtype=torch.bool)
        return fits[:, int(seen[0])]
    one: Tensor = (counts - 1).abs() <= accepted.slack
    return one


def _left(problem: Problem, known: Known, index: Tensor) -> _Rows:
    layer = problem.layers[0]
    given, bias = layer.d_weight[index].double(), layer.d_bias[index]
    shares = known.deltas[:, index].T
    left, left_bias = given - shares @ known.x, bias - shares.sum(dim=1)
    size = given.norm(dim=1) + bias.abs() + shares.abs() @ (known.x.norm(dim=1) + 1)
    error = problem.unit_roundoff * size + known.error[index]
    shown = left_bias.abs() > 8 * error
    safe = torch.where(shown, left_bias, torch.ones_like(left_bias))
    rows = _Rows(index=index, x=left / safe[:, None], bias=left_bias, error=error / safe.abs())
    return rows.select(shown)


def _tested(problem: Problem, space: ColumnSpace, rows: _Rows) -> _Accepted:
    """The rows whose input's pattern allows exactly one delta in the column space of the gradient."""
    proceed()
    trace = forward(problem, rows.x)
    n = torch.arange(len(rows.index), device=rows.index.device)
    # an exclusive neuron is active at the input that it shows
    own = trace.pre[0][n, rows.index] > 0
    rows, trace = rows.select(own), trace.select(own)
    if not len(rows.index):
        return _Accepted(
            rows=rows,
            sine=rows.bias,
            direction=rows.x.new_zeros(0, space.basis.shape[0]),
            counts=rows.bias,
            slack=rows.bias,
        )
    spans = delta_spans(problem, trace)
    meeting = meet(spans, space.basis)
    sines = torch.cat([meeting.sines, torch.ones_like(meeting.sines[:, :1])], dim=1)
    limit = min(_SOLVED, _ROUNDING * space.noise / float(space.values[space.rank - 1]))
    directions = meeting.deltas[:, :, 0]
    carried = directions.gather(1, rows.index[:, None])[:, 0]
    good = (sines[:, 0] < limit) & (sines[:, 1] > MINIMAL_GAP * limit) & (carried != 0)
    rows, trace, sines, directions = rows.select(good), trace.select(good), sines[good], directions[good]
    deltas = directions * (rows.bias / carried[good])[:, None]
    fit = problem.fit_labels(
        trace.logits, spans[good], deltas, samples=problem.question.batch_size or space.rank
    )
    slack = _CLEAN * (rows.error + limit / sines[:, 1])
    clean = fit.loose <= slack
    return _Accepted(
        rows=rows.select(clean),
        sine=sines[clean, 0],
        direction=directions[clean],
        counts=fit.counts[clean],
        slack=slack[clean],
    )


def _sample(accepted: _Accepted, group: Tensor) -> Fresh:
    """One sample from the rows that show it: those that agree with the row that most agree with."""
    rows, direction = accepted.rows.select(group), accepted.direction[group]
    # not by inner products, which lose half the digits
    distance = torch.cdist(rows.x, rows.x, compute_mode="donot_use_mm_for_euclid_dist")
    explained = _AGREE * (rows.error[:, None] + rows.error) * (1 + rows.x.norm(dim=1))
    agree = distance <= explained
    votes = agree.sum(dim=1) - rows.error / rows.error.max().clamp(min=1e-300) / 2
    best = int(votes.argmax())
    j = rows.index[best]
    return Fresh(
        x=rows.x[best],
        delta=direction[best] * (rows.bias[best] / direction[best, j]),
        rows=rows.index[agree[best]],
    )
