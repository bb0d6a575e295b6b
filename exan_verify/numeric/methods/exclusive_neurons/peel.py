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
from exan_verify.numeric.methods.equations import check_rectified, layer_summaries, too_many
from exan_verify.numeric.methods.exclusive_neurons.labelled_rows import (
    batch_size_shown,
    is_narrow,
    peel_by_labels,
)
from exan_verify.numeric.methods.exclusive_neurons.rows import Fresh, exclusive_samples
from exan_verify.numeric.methods.lifting.lift import Lift
from exan_verify.numeric.problem.passes import forward
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Finding
from exan_verify.numeric.problem.remainder import Known, all_deltas, without
from exan_verify.numeric.problem.spectrum import ColumnSpace

_STALLED = 0.25
"""Share of the samples from which peeling that ends has met errors rather than a batch it is not made for."""

_FILLED = 0.9
"""Of the features that are not zero throughout: the rank from which inputs are taken to be dependent."""

_ROUNDED = 1e3
"""Roundings, relative to the largest, from which a singular value is none."""

_OUTSIDE = 1e-3
"""Sine at which the delta of a sample that its label gives lies outside the column space."""

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
        """Candidates by peeling, each tested on its own equations before its share is taken out.

        Raises :class:`RangeError` where another activation than ReLU follows a hidden layer.
        """
        check_rectified(problem)
        space = spaces[0]
        known, reason = _nothing(problem), ""
        untested = torch.ones(space.basis.shape[0], dtype=torch.bool, device=problem.device)
        while not space.saturated and known.size < space.rank:
            fresh = exclusive_samples(problem, space, known, untested)
            if not fresh:
                break
            grown = _with(problem, known, fresh)
            untested = (grown.deltas[known.size :] != 0).any(dim=0)
            known = grown
        if is_narrow(problem, space):
            labelled = self._by_labels(problem, spaces, beyond=0)
            if labelled is not None:
                return labelled
        elif known.size < space.rank and (known.size > _STALLED * space.rank or _dependent(problem, space)):
            # errors have piled up, or deltas lie outside the column space: labels know of neither
            labelled = self._by_labels(problem, spaces, beyond=known.size)
            if labelled is not None:
                return labelled
        rest = space.rank - known.size
        if space.saturated:
            reason = too_many(problem, space.rank) or (
                f"the first layer's gradient has full rank {space.rank}, so nothing tells a sample from a "
                "mixture; use a smaller batch or a wider layer"
            )
        elif rest:
            reason = f"{rest} of {space.rank} samples show in no row of what is left alone (a stopping set"
            reason += ", as far as patterns tell: layer 1 is narrow)" if is_narrow(problem, space) else ")"
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

    def _by_labels(self, problem: Problem, spaces: tuple[ColumnSpace, ...], *, beyond: int) -> Finding | None:
        """The samples that rows and labels show, where these are more than ``beyond``."""
        space, told = spaces[0], problem.question.batch_size
        peeled = peel_by_labels(problem, spaces, told or space.rank)
        if peeled is None:
            return None
        size = batch_size_shown(problem, peeled) or told or space.rank
        if told is None and (space.saturated or len(peeled.x) < space.rank):
            # where inputs are dependent, deltas need not lie in the column space, and there are more of them
            free = peel_by_labels(problem, (), len(problem.layers[0].bias))
            shown = None if free is None else batch_size_shown(problem, free)
            if shown is not None and shown > space.rank:
                sized = replace(problem, question=replace(problem.question, batch_size=shown))
                peeled, size = peel_by_labels(sized, spaces, shown) or peeled, shown
        if len(peeled.x) <= beyond:
            return None
        missing = max(0, size - len(peeled.x))
        h = torch.cat([peeled.x, torch.ones_like(peeled.x[:, :1])], dim=1)
        left = torch.linalg.svd(space.rows - (space.basis.T @ peeled.deltas.T) @ h)[0]
        return Finding(
            method=self.name,
            x=peeled.x,
            y=peeled.y,
            errors=peeled.error,
            size=size,
            rest=space.basis @ left[:, : min(missing, space.rank)],
            rest_sine=1.0,
            layer=1,
            layers=layer_summaries(problem, spaces),
            reason=f"no row of what is left of layer 1 shows one of the {missing} other samples alone, "
            "with a label that explains it (a stopping set)"
            if missing
            else "",
            guessed_rows=True,
            final=len(problem.layers) == 2 and _outside(peeled.deltas, space),
        )

    def _rest(
        self, problem: Problem, spaces: tuple[ColumnSpace, ...], known: Known, finding: Finding
    ) -> Finding:
        """The finding with what is left: a span, or samples lifted from it."""
        if known.size == spaces[0].rank:
            return replace(finding, rest=spaces[0].basis[:, :0])
        deltas = all_deltas(problem, known, problem.question.batch_size or spaces[0].rank)
        left = tuple(
            without(space, delta, h)
            for space, delta, h in zip(spaces, deltas, known.trace.hidden, strict=True)
        )
        # what the known samples' errors leave in A tilts the span of the others (bounds.py, step 3)
        tilt = min(1.0, 1 / known.gain)
        finding = replace(finding, rest=left[0].basis, rest_sine=tilt)
        if not self.lift_rest or left[0].saturated:
            return finding
        size = (
            None if problem.question.batch_size is None else max(1, problem.question.batch_size - known.size)
        )
        try:
            lifted = Lift().find(replace(problem, question=replace(problem.question, batch_size=size)), left)
        except RangeError as error:
            return replace(finding, reason=f"{finding.reason}; lifting what is left: {error}")
        return replace(
            finding,
            x=torch.cat([known.x, lifted.x]),
            rest=lifted.rest,
            rest_sine=lifted.rest_sine * tilt,
            reason=f"{finding.reason}; {lifted.reason}" if lifted.reason else "",
        )


def _outside(deltas: Float[Tensor, "p n1"], space: ColumnSpace) -> bool:
    """Whether deltas of samples lie outside the column space, which then does not hold the others either."""
    unit = torch.nn.functional.normalize(deltas, dim=1)
    return bool(((unit - (unit @ space.basis) @ space.basis.T).norm(dim=1) > _OUTSIDE).any())


def _dependent(problem: Problem, space: ColumnSpace) -> bool:
    """Whether the inputs of the batch may be dependent, so that deltas lie outside the column space: the rank
    is less than the number of samples or, beyond rounding, nearly as large as inputs of so many features
    allow."""
    told = problem.question.batch_size
    if told is not None:
        return told > space.rank
    used = int((space.rows.norm(dim=0) > 0).sum())
    return int((space.values > _ROUNDED * problem.unit_roundoff * space.values[0]).sum()) > _FILLED * used


def _nothing(problem: Problem) -> Known:
    x = torch.zeros(0, problem.layers[0].shape[1], dtype=torch.float64, device=problem.device)
    n = problem.layers[0].shape[0]
    none = torch.zeros(0, dtype=torch.long, device=problem.device)
    return Known(
        x=x, trace=forward(problem, x), deltas=x.new_zeros(0, n), rows=none, gain=1.0, error=x.new_zeros(n)
    )


def _with(problem: Problem, known: Known, fresh: list[Fresh]) -> Known:
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
