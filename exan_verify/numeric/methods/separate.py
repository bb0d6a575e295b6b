"""Collect the samples of a layer from starts: polish each on its own equations, keep what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import comb

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.numeric.methods.equations import LayerEquations
from exan_verify.numeric.problem.polish import Meeting, polish
from exan_verify.numeric.problem.spectrum import MINIMAL_GAP, ColumnSpace

SOLVED = 0.05
"""Sine below which a candidate's possible deltas meet the column space at all; strangers lie above 0.1."""

_POLISHED = 1 << 23
"""Entries of the candidates' equations that are worked on at a time."""

SAME = 0.02
"""Sine below which two candidates are the same one, but for those that :func:`copies` tells apart."""

_NOISE_ROOM = 100.0
"""Times the noise's share of the weakest sample that a true sample's sine may have."""

_SUPPORT = 1e-9
"""Entries of a unit delta below this say nothing: where the slope is zero, polishing leaves those of inactive
neurons at zero."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """Unit deltas of one pattern: ``deltas`` (n, s), orthonormal, and ``signs`` (n, s), 1 where a neuron is
    active, -1 where it is not and passes on a slope, 0 where the entry says nothing."""

    deltas: Tensor
    signs: Tensor

    @property
    def size(self) -> int:
        """s."""
        return int(self.deltas.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Separated:
    """Unit delta directions: ``single`` (n, m) of isolated samples, ``groups`` of bases (n, s_k)."""

    single: Tensor
    groups: tuple[Tensor, ...]
    rest_sine: float

    @property
    def total(self) -> int:
        """Directions in all."""
        return int(self.single.shape[1]) + sum(int(g.shape[1]) for g in self.groups)

    def null_dimension(self, degree: int) -> int:
        """What groups of these sizes make of the lifted null space: C2 at degree two, L3 at degree three."""
        sizes = [int(g.shape[1]) for g in self.groups]
        return int(self.single.shape[1]) + sum(s**2 if degree == 2 else comb(s + 2, 3) for s in sizes)


def separate(
    equations: LayerEquations,
    starts: Iterable[tuple[Float[Tensor, "M m"], Float[Tensor, "K m"]]],
    *,
    solved: float = SOLVED,
    found: Callable[[Span], None] | None = None,
) -> Separated:
    """Polish the starts (q, p), columns, and collect samples until there are as many as the layer has.

    ``solved``: the sine below which a candidate is one; ``found`` is told all directions so far after each
    set of starts.
    """
    basis = equations.space.basis
    spans: list[Span] = []
    exact: list[bool] = []
    whole: list[Span] = []
    settled = noise_sine(equations.space)
    sine = 1.0
    known = _together(basis, spans)
    step = max(1, _POLISHED // equations.forward.numel())
    for q, p in (pair for pair in starts if pair[0].shape[1]):
        polished = [
            polish(basis, equations.forward, *portion, equations.slope)
            for portion in zip(torch.split(q, step, dim=1), torch.split(p, step, dim=1), strict=True)
        ]
        for pattern, sines, deltas in _each(polished):
            size = _solutions(sines, solved)
            if not size:
                continue
            chosen, solves = deltas[:, :size], float(sines[size - 1]) <= settled
            span = Span(deltas=chosen, signs=signs_of(chosen, pattern[:, None]))
            kept = _beside(spans, exact, span, settled) if solves else list(range(len(spans)))
            if sum(spans[k].size for k in kept) + size > equations.samples:
                continue
            if _already([spans[k] for k in kept], span, [solves and exact[k] for k in kept], settled):
                continue
            spans = [*(spans[k] for k in kept), span]
            exact = [*(exact[k] for k in kept), solves]
            known = _together(basis, spans)
            if size > 1:
                sine = min(sine, float(sines[size]) if size < len(sines) else 1.0)
        if found is not None:
            found(known)
        if known.size == equations.samples:
            if all(exact):
                break
            # near misses may take the places of samples: others are looked for, and these kept in reserve
            whole = whole or spans
            spans = [span for span, solves in zip(spans, exact, strict=True) if solves]
            exact = [True] * len(spans)
            known = _together(basis, spans)
    spans = whole if whole and known.size < equations.samples else spans
    return Separated(
        single=_together(basis, [span for span in spans if span.size == 1]).deltas,
        groups=tuple(span.deltas for span in spans if span.size > 1),
        rest_sine=sine,
    )


def _each(
    polished: Iterable[tuple[Bool[Tensor, "m n"], Meeting]],
) -> Iterator[tuple[Bool[Tensor, " n"], Float[Tensor, " k"], Float[Tensor, "n k"]]]:
    for patterns, meeting in polished:
        yield from zip(patterns, meeting.sines, meeting.deltas, strict=True)


def _together(basis: Float[Tensor, "n M"], spans: Iterable[Span]) -> Span:
    """All ``spans`` side by side."""
    none = basis[:, :0]
    spans = tuple(spans)
    return Span(
        deltas=torch.cat([none, *(span.deltas for span in spans)], dim=1),
        signs=torch.cat([none, *(span.signs for span in spans)], dim=1),
    )


def signs_of(deltas: Float[Tensor, "n m"], pattern: Bool[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """What unit deltas and their patterns say of every neuron, as in a :class:`Span`."""
    shown = deltas.abs() > _SUPPORT
    signs: Tensor = torch.where(pattern, 1.0, -1.0).to(deltas) * shown
    return signs


def _solutions(sines: Float[Tensor, " k"], solved: float) -> int:
    """How many independent deltas of one pattern lie in the column space: where the sines jump."""
    values = torch.cat([sines.clamp(min=1e-13), sines.new_ones(1)]).clamp(max=1.0)
    jumps = values[1:] / values[:-1]
    place = int(torch.argmax(jumps))
    return place + 1 if float(values[place]) < solved and float(jumps[place]) > MINIMAL_GAP else 0


def _beside(spans: list[Span], exact: list[bool], span: Span, settled: float) -> list[int]:
    """Which spans stay where ``span``, which solves its equations to rounding, is found: a mixture of a group
    that vanishes at one more neuron gives way to the group, and a near miss to the sample that it missed.
    """
    return [
        k
        for k, old in enumerate(spans)
        if not _holds(span, old, settled) and (exact[k] or not _already([old], span, [False], settled))
    ]


def _holds(span: Span, old: Span, settled: float) -> bool:
    """Whether ``span`` is larger than ``old`` and contains it to rounding."""
    if old.size >= span.size:
        return False
    inside = span.deltas @ (span.deltas.T @ old.deltas)
    return float(torch.linalg.matrix_norm(old.deltas - inside, 2)) < settled


def _already(spans: list[Span], span: Span, exact: list[bool], settled: float) -> bool:
    """Whether ``span`` meets a span that is already found; ``exact``: which of these, like this one, solve
    their equations to rounding, so that different patterns make them different samples, but for a mixture of
    a group's samples, which lies in their span to rounding (``settled``)."""
    if not spans:
        return False
    if span.size == 1:
        # one product for all: the nearest point of each span has norm |V^T span|
        cosines = torch.cat([old.deltas for old in spans], dim=1).T @ span.deltas[:, 0]
        squared = torch.stack(
            [part.square().sum() for part in torch.split(cosines, [old.size for old in spans])]
        )
        near = torch.nonzero((1 - squared).clamp(min=0).sqrt() < SAME)[:, 0].tolist()
        return any(
            not exact[k] or _holds(spans[k], span, settled) or bool(copies(span, spans[k])[0].any())
            for k in near
        )
    outside = (span.deltas - old.deltas @ (old.deltas.T @ span.deltas) for old in spans)
    return any(float(torch.linalg.svdvals(rest)[-1]) < SAME for rest in outside)


def noise_sine(space: ColumnSpace) -> float:
    """The sine below which a candidate is a sample: what noise can make of a sample's, with room."""
    return min(SOLVED, max(1e-9, _NOISE_ROOM * space.noise / float(space.values[space.rank - 1])))


def copies(first: Span, second: Span, alike: float = 0.0) -> Bool[Tensor, "a b"]:
    """Which of ``first`` are copies of which of ``second``: unit deltas with a cosine above ``alike`` that
    have the same signs.

    Samples that lie near each other have deltas of nearly one direction; that they differ in a neuron shows.
    """
    a, b = first.signs, second.signs.to(first.signs)
    # |a - b|^2, a whole number: 1 or 4 at every neuron at which the signs differ
    apart = a.square().sum(dim=0)[:, None] + b.square().sum(dim=0) - 2 * (a.T @ b)
    cosines = first.deltas.T @ second.deltas.to(first.deltas)
    same: Tensor = (cosines.abs() > alike) & (apart < 0.5)
    return same
