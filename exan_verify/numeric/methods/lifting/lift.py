"""The `lift` method: lifting at the best hidden layer (docs/theory.md 3.2, C1 to C4, Appendix L3).

No initial guess, no exclusive neurons, no sparsity threshold: the null space of the lifted equations is
spanned by the samples, joint diagonalisation separates them, each is polished on its own equations. Degree
two needs about M^2 / 2 neurons; where it lacks some, degree three needs about M^2 / 4, and more time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import torch

from exan_verify.errors import RangeError
from exan_verify.numeric.methods.equations import (
    LayerEquations,
    LiftedNullSpace,
    layer_equations,
    lifted_null_space,
    out_of_range,
    too_many,
)
from exan_verify.numeric.methods.lifting.diagonalise import pencil_starts
from exan_verify.numeric.methods.lifting.lift_cubic import (
    CubicNullSpace,
    cubic_null_space,
    cubic_obstacle,
    cubic_rows,
    cubic_size,
    cubic_starts,
)
from exan_verify.numeric.methods.separate import Separated, separate
from exan_verify.numeric.problem.downward import descend, solve_inputs
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Finding, LayerSummary
from exan_verify.numeric.problem.spectrum import MINIMAL_GAP, ColumnSpace

_ROUNDED = 8.0
"""Relative noise of a gradient, in units of its dtype's rounding, above which rounding does not explain it:
it was 0.6 to 6.2 of rounded gradients, 12 and more where noise of 1e-6 was added to float32."""

_TRIES = 6
"""Random pencils; the first separates all samples in all but badly scaled (trained) networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """Lifting of degree two where that has equations enough, else of degree three.

    ``work``: operations that degree three may take; by default half a minute on one core.
    """

    degrees: tuple[int, ...] = (2, 3)
    work: float = 4e11

    @property
    def name(self) -> str:
        """``lift``."""
        return "lift"

    def find(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        """Candidates from the best layer; further layers are tried while samples are missing.

        Raises :class:`RangeError` when every hidden layer has too few neurons for the batch size, or for
        degree three too many unknowns.
        """
        counted = [layer_equations(problem, spaces, k) for k in range(len(spaces) - 1)]
        usable = [eq for eq in counted if not eq.space.saturated and not eq.mirrored]
        samples = max((eq.samples for eq in usable), default=max(eq.samples for eq in counted))
        refusals = []
        quadratic: list[Lifted] = []
        cubic: Iterator[Lifted] = iter(())
        if 2 in self.degrees:
            refusal = out_of_range(counted, max(samples, problem.question.batch_size or 0))
            refusals += [refusal] if refusal else []
            quadratic = [] if refusal else _quadratic(usable)
        if 3 in self.degrees:
            obstacles = [_cubic_obstacle(eq, self.work) for eq in counted]
            refusals += [f"degree 3: {'; '.join(o for o in obstacles if o)}"] if all(obstacles) else []
            chosen = [eq for eq, obstacle in zip(counted, obstacles, strict=True) if obstacle is None]
            cubic = _cubic(problem, chosen, self.work)
        if len(refusals) == len(self.degrees):
            raise RangeError(
                too_many(problem, samples)
                or f"{'; '.join(refusals)}; use a smaller batch, a wider network, or another method"
            )
        known = {one.equations.index: one for one in quadratic}
        summaries = [_summary(eq, known.get(eq.index)) for eq in counted]
        return _best(problem, spaces, chain(quadratic, cubic), summaries=summaries, samples=samples)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lifted:
    """The null space of a layer's lifted equations, of degree two or three, and starts (q, p) from it."""

    equations: LayerEquations
    null_space: LiftedNullSpace | CubicNullSpace

    @property
    def degree(self) -> int:
        """2 or 3."""
        return 2 if isinstance(self.null_space, LiftedNullSpace) else 3

    @property
    def method(self) -> str:
        """What a finding from it is called."""
        return "lift" if self.degree == 2 else "lift of degree 3"

    @property
    def numbers(self) -> str:
        """How clear the null space is, in words."""
        space = self.null_space
        said = f"null space of dimension {space.dimension}, gap {space.gap:.1e}"
        if isinstance(space, LiftedNullSpace):
            return said
        return f"degree 3, {said}" + ("" if space.settled else ", not converged in the work planned")

    def explained(self, separated: Separated) -> bool:
        """Whether samples and groups make up the whole null space."""
        return separated.null_dimension(self.degree) == self.null_space.dimension

    def separated(self, generator: torch.Generator) -> Separated:
        """Samples, one by one or in groups, from random pencils."""
        space = self.null_space
        starts = (
            pencil_starts(space, tries=_TRIES, generator=generator)
            if isinstance(space, LiftedNullSpace)
            else cubic_starts(space, tries=_TRIES, generator=generator)
        )
        return separate(self.equations, starts)


def _quadratic(usable: list[LayerEquations]) -> list[Lifted]:
    """Degree two where there are equations enough, the best conditioned layer first."""
    lifted = [(eq, lifted_null_space(eq)) for eq in usable if eq.spare >= 0]
    lifted.sort(key=lambda pair: _quality(*pair), reverse=True)
    return [Lifted(equations=equations, null_space=space) for equations, space in lifted]


def _cubic_obstacle(equations: LayerEquations, work: float) -> str | None:
    """Why degree three is not tried at a layer; one with few equations to spare may lack some by rank."""
    where = f"layer {equations.index + 1}"
    if equations.space.saturated:
        return f"{where}: its gradient has full rank"
    if equations.slope is not None:
        return f"{where}: its activation has slopes, for which degree 3 is not made"
    if equations.samples < 2 or equations.spare >= equations.samples:
        return f"{where}: degree 2 has equations enough"
    return cubic_obstacle(equations, work=work)


def _cubic(problem: Problem, chosen: list[LayerEquations], work: float) -> Iterator[Lifted]:
    """Degree three at the chosen layers, the cheapest first, as they are asked for."""
    for equations in sorted(chosen, key=cubic_size):
        space = cubic_null_space(equations, generator=problem.generator(), work=work)
        yield Lifted(equations=equations, null_space=space)


def _best(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    lifted: Iterable[Lifted],
    *,
    summaries: list[LayerSummary],
    samples: int,
) -> Finding:
    """The best finding of what is lifted, in turn, until one has all ``samples``."""
    best = Finding(
        method="lift",
        x=torch.zeros(0, spaces[0].rows.shape[1] - 1, dtype=torch.float64, device=problem.device),
        rest=spaces[0].basis,
        rest_sine=1.0,
        layer=None,
        layers=(),
        reason="no hidden layer shows the rank of its gradient with enough equations to spare",
    )
    for one in lifted:
        found = _at_layer(problem, spaces, one)
        better = found.whole and not (best.whole and found.reason)
        if better or found.x.shape[0] > best.x.shape[0] or best.layer is None:
            best = found
            summaries[one.equations.index] = _summary(one.equations, one)
        if found.whole and found.x.shape[0] == samples and not found.reason:
            break
    return replace(best, layers=tuple(summaries))


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


def _summary(equations: LayerEquations, lifted: Lifted | None) -> LayerSummary:
    space = None if lifted is None else lifted.null_space
    cubic = lifted is not None and lifted.degree == 3
    return LayerSummary(
        index=equations.index + 1,
        rank=equations.samples,
        rank_gap=equations.space.gap,
        equations=cubic_rows(equations) if cubic else equations.neurons,
        unknowns=cubic_size(equations) if cubic else equations.unknowns,
        null_dimension=None if space is None else space.dimension,
        null_gap=None if space is None else space.gap,
        null_smallest=None if space is None else space.smallest,
    )


def _remedy(problem: Problem, lifted: Lifted) -> str:
    """What may help where the null space is not clear, which depends on what blurs it."""
    space = lifted.equations.space
    if space.noise > _ROUNDED * problem.unit_roundoff * float(space.values[0]):
        return "use a smaller batch or a gradient without noise"
    settled = isinstance(lifted.null_space, LiftedNullSpace) or lifted.null_space.settled
    if settled and problem.unit_roundoff > torch.finfo(torch.float64).eps:
        return "use a smaller batch or a float64 gradient"
    return "use a smaller batch or a wider network"


def _at_layer(problem: Problem, spaces: tuple[ColumnSpace, ...], lifted: Lifted) -> Finding:
    equations, null_space = lifted.equations, lifted.null_space
    separated = lifted.separated(problem.generator())
    where = f"layer {equations.index + 1}"
    nothing = Finding(
        method=lifted.method,
        x=torch.zeros(0, spaces[0].rows.shape[1] - 1, dtype=torch.float64, device=problem.device),
        rest=spaces[0].basis,
        rest_sine=1.0,
        layer=equations.index + 1,
        layers=(),
        reason="",
    )
    numbers = lifted.numbers
    if separated.total != equations.samples or not lifted.explained(separated):
        return replace(
            nothing,
            reason=f"{where}: the lifted equations do not separate {equations.samples} samples ({numbers}; "
            f"{separated.total} directions found); {_remedy(problem, lifted)}",
        )
    reason = ""
    if null_space.gap < MINIMAL_GAP:
        # noise beyond the dtype's rounding; candidates solve their own equations, and bounds know the noise
        reason = f"{where}: no clear null space ({numbers}); {_remedy(problem, lifted)}"
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
