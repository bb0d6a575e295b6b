"""The `lift` method: quadratic lifting at the best hidden layer (docs/theory.md 3.2, C1 to C3).

No initial guess, no exclusive neurons, no sparsity threshold: the null space of the lifted equations is
spanned by the samples, joint diagonalisation separates them, each is polished on its own equations.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from exan_verify.numeric.diagonalise import pencil_starts
from exan_verify.numeric.downward import descend, solve_inputs
from exan_verify.numeric.equations import (
    LayerEquations,
    LiftedNullSpace,
    layer_equations,
    lifted_null_space,
    require_range,
)
from exan_verify.numeric.problem import Problem
from exan_verify.numeric.records import Finding, LayerSummary
from exan_verify.numeric.separate import separate
from exan_verify.numeric.spectrum import MINIMAL_GAP, ColumnSpace

_TRIES = 6
"""Random pencils; the first separates all samples in all but badly scaled (trained) networks."""


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
            better = found.whole and not (best.whole and found.reason)
            if better or found.x.shape[0] > best.x.shape[0] or best.layer is None:
                best = found
            if found.whole and found.x.shape[0] == samples and not found.reason:
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
    separated = separate(equations, pencil_starts(null_space, tries=_TRIES, generator=problem.generator()))
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
    reason = ""
    if null_space.gap < MINIMAL_GAP:
        # noise beyond the dtype's rounding; candidates solve their own equations, and bounds know the noise
        reason = f"{where}: no clear null space ({numbers}); use a float64 gradient without noise"
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
    x, failure = descend(problem, spaces, equations.index, separated.single)
    if x is None:
        return replace(nothing, reason=failure)
    return replace(nothing, x=x, rest=spaces[0].basis[:, :0], reason=reason)
