"""The `lift` method: quadratic lifting at the best hidden layer (docs/theory.md 3.2, C1 to C3).

No initial guess, no exclusive neurons, no sparsity threshold: the null space of the lifted equations is
spanned by the samples, joint diagonalisation separates them, each is polished on its own equations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.diagonalise import pencil_starts
from exan_verify.numeric.downward import descend, solve_inputs
from exan_verify.numeric.equations import (
    LayerEquations,
    LiftedNullSpace,
    layer_equations,
    lifted_null_space,
    require_range,
)
from exan_verify.numeric.polish import polish
from exan_verify.numeric.problem import Problem
from exan_verify.numeric.records import Finding, LayerSummary
from exan_verify.numeric.spectrum import MINIMAL_GAP, ColumnSpace

_TRIES = 6
"""Random pencils; the first separates all samples in all but badly scaled (trained) networks."""

_SOLVED = 0.05
"""Sine below which a candidate's possible deltas meet the column space at all; strangers lie above 0.1."""

_SAME = 0.02
"""Sine below which two candidates are the same one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Separated:
    """Unit delta directions: ``single`` (n, m) of isolated samples, ``groups`` of bases (n, s_k)."""

    single: Tensor
    groups: tuple[Tensor, ...]
    rest_sine: float

    @property
    def total(self) -> int:
        return int(self.single.shape[1]) + sum(int(g.shape[1]) for g in self.groups)

    @property
    def null_dimension(self) -> int:
        """C2: the sum of squared group sizes."""
        return int(self.single.shape[1]) + sum(int(g.shape[1]) ** 2 for g in self.groups)


class Lift:
    """Quadratic lifting at the hidden layer whose equations are best conditioned."""

    name = "lift"

    def find(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        """Candidates from the best layer; further layers are tried while samples are missing.

        Raises :class:`RangeError` when every hidden layer has too few neurons for the batch size.
        """
        counted = [layer_equations(problem, spaces, k) for k in range(len(spaces) - 1)]
        usable = [eq for eq in counted if not eq.space.saturated]
        samples = max((eq.samples for eq in usable), default=max(eq.samples for eq in counted))
        require_range(counted, max(samples, problem.batch_size or 0))
        lifted = [(eq, lifted_null_space(eq)) for eq in usable if eq.spare >= 0]
        lifted.sort(key=lambda pair: _quality(*pair), reverse=True)
        null_spaces = {equations.index: null_space for equations, null_space in lifted}
        summaries = tuple(_summary(eq, null_spaces.get(eq.index)) for eq in counted)
        best = Finding(
            method=self.name,
            x=torch.zeros(0, spaces[0].rows.shape[1] - 1, dtype=torch.float64, device=problem.device),
            rest=spaces[0].basis,
            rest_sine=1.0,
            layer=None,
            layers=summaries,
            reason="no hidden layer shows the rank of its gradient with enough equations to spare",
        )
        for equations, null_space in lifted:
            found = _at_layer(problem, spaces, equations, null_space)
            found = replace(found, layers=summaries)
            if found.whole or found.x.shape[0] > best.x.shape[0] or best.layer is None:
                best = found
            if found.whole and found.x.shape[0] == samples:
                break
        return best


def _quality(equations: LayerEquations, null_space: LiftedNullSpace) -> float:
    """Smallest non-null singular value times the room between rounding and the weakest sample.

    The first layer, from which nothing has to be solved further down, counts tenfold.
    """
    weakest = float(equations.space.values[equations.samples - 1])
    exact = 1.0 if null_space.dimension == equations.samples else 1e-6
    direct = 1.0 if equations.index == 0 else 0.1
    return equations.samples + direct * exact * null_space.smallest * min(
        1.0, weakest / equations.space.noise
    )


def _summary(equations: LayerEquations, null_space: LiftedNullSpace | None) -> LayerSummary:
    return LayerSummary(
        index=equations.index + 1,
        rank=equations.samples,
        rank_gap=equations.space.gap,
        equations=equations.neurons,
        unknowns=equations.unknowns,
        null_dimension=None if null_space is None else null_space.dimension,
        null_gap=None if null_space is None else null_space.gap,
        null_smallest=None if null_space is None else null_space.smallest,
    )


def _at_layer(
    problem: Problem, spaces: tuple[ColumnSpace, ...], equations: LayerEquations, null_space: LiftedNullSpace
) -> Finding:
    separated = _separate(problem, equations, null_space)
    where = f"layer {equations.index + 1}"
    nothing = Finding(
        method=Lift.name,
        x=torch.zeros(0, spaces[0].rows.shape[1] - 1, dtype=torch.float64, device=problem.device),
        rest=spaces[0].basis,
        rest_sine=1.0,
        layer=equations.index + 1,
        layers=(),
        reason="",
    )
    numbers = f"null space of dimension {null_space.dimension}, gap {null_space.gap:.1e}"
    if separated.total != equations.samples or separated.null_dimension != null_space.dimension:
        return replace(
            nothing,
            reason=f"{where}: the lifted equations do not separate {equations.samples} samples ({numbers}; "
            f"{separated.total} directions found); use a smaller batch or a float64 gradient",
        )
    if null_space.gap < MINIMAL_GAP:
        return replace(nothing, reason=f"{where}: no clear null space ({numbers}); use a float64 gradient")
    reason = ""
    if separated.groups:
        sizes = [int(g.shape[1]) for g in separated.groups]
        reason = f"{where}: samples share their activation pattern in groups of {sizes} ({numbers})"
    if equations.index == 0:
        block = torch.cat([separated.single, *separated.groups], dim=1)
        inputs = solve_inputs(spaces[0], block)
        m = separated.single.shape[1]
        return replace(
            nothing, x=inputs.values[:m], rest=block[:, m:], rest_sine=separated.rest_sine, reason=reason
        )
    if separated.groups:
        return replace(nothing, reason=reason + "; below this layer they cannot be told apart")
    x, reason = descend(problem, spaces, equations.index, separated.single)
    if x is None:
        return replace(nothing, reason=reason)
    return replace(nothing, x=x, rest=spaces[0].basis[:, :0])


def _separate(problem: Problem, equations: LayerEquations, null_space: LiftedNullSpace) -> _Separated:
    basis = equations.space.basis
    spans: list[Tensor] = []
    sine = 1.0
    known = basis[:, :0]
    for q, p in pencil_starts(null_space, tries=_TRIES, generator=problem.generator()):
        _, meeting = polish(basis, equations.forward, q, p)
        for sines, deltas in zip(meeting.sines, meeting.deltas, strict=True):
            size = _solutions(sines)
            if not size or _already(spans, deltas[:, :size]):
                continue
            span = deltas[:, :size]
            extended = torch.cat([known, span], dim=1)
            if extended.shape[1] > equations.samples:
                continue
            spans.append(span)
            known = extended
            if size > 1:
                sine = min(sine, float(sines[size]) if size < len(sines) else 1.0)
        if known.shape[1] == equations.samples:
            break
    single = [span for span in spans if span.shape[1] == 1]
    return _Separated(
        single=torch.cat([basis[:, :0], *single], dim=1),
        groups=tuple(span for span in spans if span.shape[1] > 1),
        rest_sine=sine,
    )


def _solutions(sines: Float[Tensor, " k"]) -> int:
    """How many independent deltas of one pattern lie in the column space: where the sines jump."""
    values = torch.cat([sines.clamp(min=1e-13), sines.new_ones(1)]).clamp(max=1.0)
    jumps = values[1:] / values[:-1]
    place = int(torch.argmax(jumps))
    return place + 1 if float(values[place]) < _SOLVED and float(jumps[place]) > MINIMAL_GAP else 0


def _already(spans: list[Tensor], span: Float[Tensor, "n s"]) -> bool:
    """Whether ``span`` meets a span that is already found."""
    return any(float(torch.linalg.svdvals(span - old @ (old.T @ span))[-1]) < _SAME for old in spans)
