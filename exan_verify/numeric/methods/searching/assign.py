"""The `assign` method: every neuron is assigned to one of its two hyperplanes, sample by sample.

Lifting needs about M^2 / 2 neurons; this needs a few times M. Many candidates at once go through the
difference map, each from a guessed loss vector; where it arrives, the pattern is exact, and polishing on the
candidate's own equations gives it to rounding. A sample satisfies all n equations; with n well above M + K'
no stranger does. docs/theory.md section 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.errors import RangeError
from exan_verify.numeric.methods.equations import LayerEquations, layer_equations, too_many
from exan_verify.numeric.methods.searching.difference_map import Candidates, difference_map
from exan_verify.numeric.methods.searching.guesses import active_value_guesses
from exan_verify.numeric.methods.separate import (
    Separated,
    Span,
    copies,
    noise_sine,
    separate,
    signs_of,
)
from exan_verify.numeric.problem.downward import descend, solve_inputs
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Finding, LayerSummary
from exan_verify.numeric.problem.spectrum import ColumnSpace

REACH = 1.5
"""Neurons per unknown M + K' below which no search is tried; success ends between 2 and 2.5."""

_CANDIDATES = (128, 640)
"""Fewest and most candidates at a time; between them five per sample."""

_PATIENCE = 10
"""Rounds without a new sample after which the search gives up."""

_FIRST_PATIENCE = 2
"""The same, where several layers are tried before one of them is searched at length."""

_SHARES = ((0.5, 1.0), (0.3, 0.2), (0.1, 0.05))
"""Shares outside of the span of what is known that candidates keep once half of the samples are, each with
the part of the missing samples that a round is expected to find with it, until one has been tried. Larger
shares keep candidates from mixtures of what is known, too, and miss the samples that are nearly such."""

_PRIOR = 2.0
"""So many samples with a neuron active, and as many with it inactive, are counted beside those found."""

_USABLE = 0.3
"""Relative gap above which a candidate is not worth polishing."""

_ALIKE = 0.99
"""Cosine above which two candidates lead to the same sample, as a rule."""


class Assign:
    """Search by the difference map at the hidden layers with enough neurons, the last one first: shortly at
    each until one yields the whole batch, then at length where most was found."""

    name = "assign"

    def find(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        """Candidates from the first layer at which every sample is found.

        Raises :class:`RangeError` when every hidden layer has too few neurons for the batch.
        """
        layers = [_equations(problem, spaces, k) for k in range(len(spaces) - 1)]
        usable = [eq for eq in layers if not eq.space.saturated and _room(eq) >= REACH]
        if not usable:
            excess = too_many(problem, max(eq.samples for eq in layers))
            raise RangeError(excess or _too_narrow(layers))
        # layers at which samples have merged yield least; guesses are best where the next delta is the loss
        # vector, and better the nearer it is
        samples = max(eq.samples for eq in layers)
        usable.sort(key=lambda eq: (eq.samples < samples, eq.index < len(layers) - 1, -_room(eq)))
        patience = _PATIENCE if len(usable) == 1 else _FIRST_PATIENCE
        tried = [_AtLayer.of(problem, spaces, usable[0], patience)]
        for equations in usable[1:]:
            if tried[-1].finding.whole:
                break
            tried.append(_AtLayer.of(problem, spaces, equations, patience))
        tried.sort(key=lambda one: (not one.finding.whole, -one.separated))
        if len(usable) > 1 and not tried[0].finding.whole:
            # what has yielded most already is worth the most
            again: list[_AtLayer] = []
            for one in [one for one in tried if one.separated < one.equations.samples]:
                again.append(_AtLayer.of(problem, spaces, one.equations, _PATIENCE))
                if again[-1].finding.whole:
                    break
            tried = sorted([*again, *tried], key=lambda one: (not one.finding.whole, -one.separated))
        return replace(tried[0].finding, layers=tuple(_summary(eq) for eq in layers))


def _equations(problem: Problem, spaces: tuple[ColumnSpace, ...], index: int) -> LayerEquations:
    """Those with the fewest unknowns that leave room for a search, sound ones if these do."""
    sound = layer_equations(problem, spaces, index)
    return sound if _room(sound) >= REACH else layer_equations(problem, spaces, index, narrowed=True)


class _Search:
    """Rounds of candidates at one layer; what is found already is not handed out again."""

    def __init__(self, problem: Problem, equations: LayerEquations) -> None:
        self.problem, self.equations = problem, equations
        self.generator = problem.generator()
        none = equations.space.basis[:, :0]
        self.known = Span(deltas=none, signs=none)
        self.rounds = 0
        self.worth = {share: (expected, 0) for share, expected in _SHARES}
        self.inverse = torch.linalg.pinv(equations.forward)

    def starts(self, patience: int) -> Iterator[tuple[Float[Tensor, "M m"], Float[Tensor, "K m"]]]:
        """Starts (q, p) for polishing, round by round, until ``patience`` rounds in a row have found
        nothing."""
        basis, idle = self.equations.space.basis, 0
        fewest, most = _CANDIDATES
        count = min(max(5 * self.equations.samples, fewest), most)
        while idle < patience:
            before = self.known.size
            missing = self.equations.samples - before
            guesses = active_value_guesses(self.problem, self.equations.index, count, self.generator)
            equations = self.equations
            # once half are known, most candidates would lead to these again
            apart = max(_SHARES, key=lambda one: self.worth[one[0]])[0] if before >= missing else 0.0
            ends = difference_map(
                basis,
                equations.forward,
                guesses,
                generator=self.generator,
                slope=equations.slope,
                known=self.known.deltas,
                apart=apart,
                likely=self._likely(),
                thorough=idle > 0,
            )
            distinct, crowded = self._ordered(ends)
            self.rounds += 1
            yield self._start(ends, distinct)
            if self.known.size == before:
                # where nothing else is new, what looked like copies may be samples near those that are found
                yield self._start(ends, self._other_patterns(ends, crowded))
            idle = 0 if self.known.size > before else idle + 1
            if apart:
                # of shares that find nothing, the one that was tried least often is next
                tried = self.worth[apart][1] - 1
                self.worth[apart] = ((self.known.size - before) / missing, tried)

    def _likely(self) -> Float[Tensor, " n"]:
        """How often each neuron is active among the samples found: inputs of one kind share much of their
        patterns."""
        active = (self.known.signs > 0).sum(dim=1)
        likely: Tensor = (active + _PRIOR) / (self.known.size + 2 * _PRIOR)
        return likely

    def found(self, known: Span) -> None:
        """Told what is found so far."""
        self.known = known

    def _start(self, ends: Candidates, chosen: Tensor) -> tuple[Float[Tensor, "M m"], Float[Tensor, "K m"]]:
        q = self.equations.space.basis.T @ ends.values[:, chosen].double()
        return q, self.inverse @ ends.active_values[:, chosen].double()

    def _ordered(self, ends: Candidates) -> tuple[Tensor, Tensor]:
        """Indices of usable candidates, best first: one per direction that is new, and those near one of
        these or near what is found, which as a rule lead where that leads."""
        order = ends.gap.argsort()
        order = order[ends.gap[order] < _USABLE]
        unit = torch.nn.functional.normalize(ends.values[:, order], dim=0)
        crowded = ((self.known.deltas.float().T @ unit).abs() > _ALIKE).any(dim=0)
        crowded |= ((unit.T @ unit).abs().tril(-1) > _ALIKE).any(dim=1)
        return order[~crowded], order[crowded]

    def _other_patterns(self, ends: Candidates, crowded: Tensor) -> Tensor:
        """The crowded candidates with a pattern of their own: no sample found and no earlier one has it."""
        unit = torch.nn.functional.normalize(ends.values[:, crowded], dim=0)
        these = Span(deltas=unit, signs=signs_of(unit, ends.active[:, crowded]))
        copy = copies(these, self.known, _ALIKE).any(dim=1)
        copy |= copies(these, these, _ALIKE).tril(-1).any(dim=1)
        return crowded[~copy]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _AtLayer:
    """What a search at one layer came to: its ``finding``, and how many directions were ``separated``."""

    equations: LayerEquations
    finding: Finding
    separated: int

    @classmethod
    def of(
        cls,
        problem: Problem,
        spaces: tuple[ColumnSpace, ...],
        equations: LayerEquations,
        patience: int,
    ) -> _AtLayer:
        """Search until ``patience`` rounds in a row have found nothing."""
        search = _Search(problem, equations)
        separated = separate(
            equations,
            search.starts(patience),
            solved=noise_sine(equations.space),
            found=search.found,
        )
        finding = _finding(problem, spaces, equations, separated, search.rounds)
        return cls(equations=equations, finding=finding, separated=separated.total)


def _finding(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    equations: LayerEquations,
    separated: Separated,
    rounds: int,
) -> Finding:
    where = f"layer {equations.index + 1}"
    nothing = Finding(
        method=Assign.name,
        x=torch.zeros(0, spaces[0].rows.shape[1] - 1, dtype=torch.float64, device=problem.device),
        rest=spaces[0].basis,
        rest_sine=1.0,
        layer=equations.index + 1,
        layers=(),
        reason="",
    )
    if separated.total != equations.samples:
        return replace(
            nothing,
            reason=f"{where}: {separated.total} of {equations.samples} samples found in {rounds} "
            "rounds; an input is known only when all are: try another seed or a smaller batch",
        )
    if equations.index == 0:
        return first_layer(nothing, spaces[0], separated)
    if separated.groups:
        return replace(nothing, reason=f"{where}: samples share their pattern, and are not told apart below")
    x, reason = descend(problem, spaces, equations.index, separated.single)
    if x is None:
        return replace(nothing, reason=reason)
    return replace(nothing, x=x, rest=spaces[0].basis[:, :0])


def first_layer(nothing: Finding, space: ColumnSpace, separated: Separated) -> Finding:
    """``nothing`` with the inputs of all the samples that are separated at the first layer."""
    block = torch.cat([separated.single, *separated.groups], dim=1)
    single = int(separated.single.shape[1])
    sizes = [int(group.shape[1]) for group in separated.groups]
    return replace(
        nothing,
        x=solve_inputs(space, block).values[:single],
        rest=block[:, single:],
        rest_sine=separated.rest_sine,
        reason=f"layer 1: samples share their activation pattern in groups of {sizes}" if sizes else "",
    )


def _room(equations: LayerEquations) -> float:
    """Neurons per unknown."""
    return equations.neurons / max(1, equations.samples + int(equations.forward.shape[1]))


def _summary(equations: LayerEquations) -> LayerSummary:
    return LayerSummary(
        index=equations.index + 1,
        rank=equations.samples,
        rank_gap=equations.space.gap,
        equations=equations.neurons,
        unknowns=equations.samples + int(equations.forward.shape[1]),
    )


def _too_narrow(layers: list[LayerEquations]) -> str:
    described = "; ".join(
        f"layer {eq.index + 1}: {eq.neurons} live neurons for {eq.samples} samples and "
        f"{int(eq.forward.shape[1])} loss directions" + (" (full rank)" if eq.space.saturated else "")
        for eq in layers
    )
    return (
        f"no hidden layer has {REACH:g} neurons per unknown ({described}); "
        "use a smaller batch or a wider network"
    )
