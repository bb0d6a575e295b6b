"""The `peel` method: exclusive neurons of the first layer, one sample after the other (docs/theory.md E4).

A neuron that is active for one sample only shows that sample in its row of [dW_1 | db_1]. Taking the sample's
whole share out of the gradient makes neurons exclusive that it shared with one other sample. Which neurons
are exclusive is a guess; it is put to the test by the sample's own equations: the K-dimensional space of
deltas that its activation pattern allows must meet the column space of the gradient, which a mixture of
samples does not (n_1 - M - K conditions too many). Peeling by coincidence within a tolerance alone (Shariati
and Meybodi, arXiv 2609.09659) has no such test. What is handed over is judged once more, all together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.errors import RangeError
from exan_verify.numeric.exclusive import layer_summaries
from exan_verify.numeric.lift import Lift
from exan_verify.numeric.losses import fit_labels
from exan_verify.numeric.passes import delta_spans, forward
from exan_verify.numeric.polish import meet
from exan_verify.numeric.problem import Problem
from exan_verify.numeric.records import Finding
from exan_verify.numeric.remainder import Known, all_deltas, without
from exan_verify.numeric.spectrum import MINIMAL_GAP, ColumnSpace

_SOLVED = 0.05
"""Largest sine at which a pattern's deltas meet the column space at all; strangers lie above 0.1."""

_ROUNDING = 16.0
"""Between the sine that noise explains by its norm and the largest that is accepted."""

_CLEAN = 1e3
"""Roundings by which the delta of a sample's label may differ from the one found, from that of its row."""

_SAME = 0.02
"""Sine below which two delta directions belong to one sample."""

_CHUNK = 1 << 20
"""Entries of the candidates' delta spans that are worked on at a time."""

_AGREE = 1e3
"""Rows of one sample agree to this many roundings; one that does not also shows a sample of tiny delta."""


_RESCALED = 0.1
"""Relative change of a delta's size beyond which the joint estimate is not an improvement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peel:
    """Peeling at the first layer; with ``lift_rest``, what peeling leaves is lifted."""

    lift_rest: bool = False

    @property
    def name(self) -> str:
        """``peel``, or ``peel+lift``."""
        return "peel+lift" if self.lift_rest else "peel"

    def find(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        """Candidates by peeling, each tested on its own equations before its share is taken out."""
        space = spaces[0]
        known, reason = _nothing(problem), ""
        untested = torch.ones(space.basis.shape[0], dtype=torch.bool, device=problem.device)
        while not space.saturated and known.size < space.rank:
            fresh = _exclusive(problem, space, known, untested)
            if not fresh:
                break
            grown = _with(problem, known, fresh)
            untested = (grown.deltas[known.size :] != 0).any(dim=0)
            known = grown
        rest = space.rank - known.size
        if space.saturated:
            reason = (
                f"the first layer's gradient has full rank {space.rank}, so nothing tells a sample from a "
                "mixture; use a smaller batch or a wider layer"
            )
        elif rest:
            reason = f"{rest} of {space.rank} samples have no exclusive neuron left (a stopping set)"
        finding = Finding(
            method=self.name,
            x=known.x,
            rest=space.basis,
            rest_sine=1.0,
            layer=1,
            layers=layer_summaries(problem, spaces),
            reason=reason,
            guessed_rows=True,
        )
        if space.saturated or (not known.size and not self.lift_rest):
            return finding
        return self._rest(problem, spaces, known, finding)

    def _rest(
        self, problem: Problem, spaces: tuple[ColumnSpace, ...], known: Known, finding: Finding
    ) -> Finding:
        """The finding with what is left: a span, or samples lifted from it."""
        if known.size == spaces[0].rank:
            return replace(finding, rest=spaces[0].basis[:, :0])
        deltas = all_deltas(problem, known, problem.batch_size or spaces[0].rank)
        left = tuple(
            without(space, delta, h)
            for space, delta, h in zip(spaces, deltas, known.trace.hidden, strict=True)
        )
        # what the known samples' errors leave in A tilts the span of the others (bounds.py, step 3)
        tilt = min(1.0, 1 / known.gain)
        finding = replace(finding, rest=left[0].basis, rest_sine=tilt)
        if not self.lift_rest or left[0].saturated:
            return finding
        size = None if problem.batch_size is None else max(1, problem.batch_size - known.size)
        try:
            lifted = Lift().find(replace(problem, batch_size=size), left)
        except RangeError as error:
            return replace(finding, reason=f"{finding.reason}; lifting what is left: {error}")
        return replace(
            finding,
            x=torch.cat([known.x, lifted.x]),
            rest=lifted.rest,
            rest_sine=lifted.rest_sine * tilt,
            reason=f"{finding.reason}; {lifted.reason}" if lifted.reason else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fresh:
    """A sample just found: its input (d,), first-layer delta (n_1,), and the rows that show it alone."""

    x: Tensor
    delta: Tensor
    rows: Tensor


def _nothing(problem: Problem) -> Known:
    x = torch.zeros(0, problem.layers[0].shape[1], dtype=torch.float64, device=problem.device)
    n = problem.layers[0].shape[0]
    none = torch.zeros(0, dtype=torch.long, device=problem.device)
    return Known(
        x=x, trace=forward(problem, x), deltas=x.new_zeros(0, n), rows=none, gain=1.0, error=x.new_zeros(n)
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """What known samples leave of some rows of [dW_1 | db_1]: neurons ``index`` (r,), the inputs ``x`` (r, d)
    that these show, their bias entries ``bias`` (r,), and the relative rounding ``error`` (r,) of x."""

    index: Tensor
    x: Tensor
    bias: Tensor
    error: Tensor

    def select(self, chosen: Tensor) -> _Rows:
        return _Rows(
            index=self.index[chosen], x=self.x[chosen], bias=self.bias[chosen], error=self.error[chosen]
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Accepted:
    """Rows that pass the test, with the sine and the unit delta direction that go with each."""

    rows: _Rows
    sine: Tensor
    direction: Tensor


def _exclusive(problem: Problem, space: ColumnSpace, known: Known, untested: Tensor) -> list[_Fresh]:
    """Samples that some row shows alone."""
    step = max(1, _CHUNK // (space.basis.shape[0] * problem.classes))
    live = torch.nonzero(untested & (space.basis.norm(dim=1) > 0))[:, 0]
    tested = [_tested(problem, space, _left(problem, known, index)) for index in torch.split(live, step)]
    if not tested:
        return []
    accepted = _joined(tested)
    left = ~_parallel(accepted.direction, torch.nn.functional.normalize(known.deltas, dim=1)).any(dim=1)
    fresh = []
    while bool(left.any()):
        best = int(torch.where(left, accepted.sine, torch.inf).argmin())
        group = left & _parallel(accepted.direction, accepted.direction[best : best + 1])[:, 0]
        fresh.append(_sample(accepted, group))
        left &= ~group
    return fresh[: space.rank - known.size]


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
    )


def _parallel(first: Float[Tensor, "a n"], second: Float[Tensor, "b n"]) -> Tensor:
    same: Tensor = (first @ second.T).abs() > (1 - _SAME**2) ** 0.5
    return same


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
    trace = forward(problem, rows.x)
    n = torch.arange(len(rows.index), device=rows.index.device)
    # an exclusive neuron is active at the input that it shows
    own = trace.pre[0][n, rows.index] > 0
    rows, trace = rows.select(own), trace.select(own)
    if not len(rows.index):
        return _Accepted(rows=rows, sine=rows.bias, direction=rows.x.new_zeros(0, space.basis.shape[0]))
    spans = delta_spans(problem, trace)
    meeting = meet(spans, space.basis)
    sines = torch.cat([meeting.sines, torch.ones_like(meeting.sines[:, :1])], dim=1)
    limit = min(_SOLVED, _ROUNDING * space.noise / float(space.values[space.rank - 1]))
    directions = meeting.deltas[:, :, 0]
    carried = directions.gather(1, rows.index[:, None])[:, 0]
    good = (sines[:, 0] < limit) & (sines[:, 1] > MINIMAL_GAP * limit) & (carried != 0)
    rows, trace, sines, directions = rows.select(good), trace.select(good), sines[good], directions[good]
    deltas = directions * (rows.bias / carried[good])[:, None]
    fit = fit_labels(
        problem.loss,
        trace.logits,
        spans[good],
        deltas,
        divisor=problem.divisor(problem.batch_size or space.rank),
    )
    clean = fit.loose <= _CLEAN * (rows.error + limit / sines[:, 1])
    return _Accepted(rows=rows.select(clean), sine=sines[clean, 0], direction=directions[clean])


def _sample(accepted: _Accepted, group: Tensor) -> _Fresh:
    """One sample from the rows that show it: those that agree with the row that most agree with."""
    rows, direction = accepted.rows.select(group), accepted.direction[group]
    # not by inner products, which lose half the digits
    distance = torch.cdist(rows.x, rows.x, compute_mode="donot_use_mm_for_euclid_dist")
    explained = _AGREE * (rows.error[:, None] + rows.error) * (1 + rows.x.norm(dim=1))
    agree = distance <= explained
    votes = agree.sum(dim=1) - rows.error / rows.error.max().clamp(min=1e-300) / 2
    best = int(votes.argmax())
    j = rows.index[best]
    return _Fresh(
        x=rows.x[best],
        delta=direction[best] * (rows.bias[best] / direction[best, j]),
        rows=rows.index[agree[best]],
    )


def _with(problem: Problem, known: Known, fresh: list[_Fresh]) -> Known:
    """Known and fresh samples estimated again, jointly, from all rows that show known samples only.

    Least squares on [dW_1 | db_1] there, rows scaled to their rounding; block triangular in the order of
    peeling, hence solvable. It keeps rounding from piling up along the cascade. Where the system is too badly
    scaled the estimates stay as they are, and nothing is said about their error (``gain`` infinite).
    """
    deltas = torch.cat([known.deltas, torch.stack([f.delta for f in fresh])])
    x = torch.cat([known.x, torch.stack([f.x for f in fresh])])
    rows = torch.unique(torch.cat([known.rows, *(f.rows for f in fresh)]))
    layer = problem.layers[0]
    given = torch.cat([layer.d_weight[rows].double(), layer.d_bias[rows, None]], dim=1)
    weights = 1 / (deltas[:, rows].abs().T @ (x.norm(dim=1) + 1)).clamp(min=1e-300)
    unit = problem.unit_roundoff
    matrix = weights[:, None] * deltas[:, rows].T
    norms = matrix.norm(dim=0).clamp(min=1e-300)
    inverse = torch.linalg.pinv(matrix / norms) * weights / norms[:, None]
    solved = inverse @ given
    scales = solved[:, -1:]
    if not bool(((scales - 1).abs() < _RESCALED).all()):
        return Known(
            x=x,
            trace=forward(problem, x),
            deltas=deltas,
            rows=rows,
            gain=torch.inf,
            error=unit / weights.min() * torch.ones_like(deltas[0]),
        )
    x, deltas, inverse = solved[:, :-1] / scales, deltas * scales, inverse / scales
    passed_on = deltas.T @ inverse
    return Known(
        x=x,
        trace=forward(problem, x),
        deltas=deltas,
        rows=rows,
        gain=1 + float(torch.linalg.matrix_norm(passed_on, 2)),
        error=unit * (passed_on / weights).norm(dim=1),
    )
