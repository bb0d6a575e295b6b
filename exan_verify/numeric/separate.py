"""Collect the samples of a layer from starts: polish each on its own equations, keep what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.equations import LayerEquations
from exan_verify.numeric.polish import polish
from exan_verify.numeric.spectrum import MINIMAL_GAP

SOLVED = 0.05
"""Sine below which a candidate's possible deltas meet the column space at all; strangers lie above 0.1."""

_SAME = 0.02
"""Sine below which two candidates are the same one."""


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
    found: Callable[[Float[Tensor, "n k"]], None] | None = None,
) -> Separated:
    """Polish the starts (q, p), columns, and collect samples until there are as many as the layer has.

    ``solved``: the sine below which a candidate is one; ``found`` is told all directions so far after each
    set of starts.
    """
    basis = equations.space.basis
    spans: list[Tensor] = []
    sine = 1.0
    known = basis[:, :0]
    for q, p in starts:
        if not q.shape[1]:
            continue
        _, meeting = polish(basis, equations.forward, q, p)
        for sines, deltas in zip(meeting.sines, meeting.deltas, strict=True):
            size = _solutions(sines, solved)
            if not size or known.shape[1] + size > equations.samples or _already(spans, deltas[:, :size]):
                continue
            spans.append(deltas[:, :size])
            known = torch.cat([known, spans[-1]], dim=1)
            if size > 1:
                sine = min(sine, float(sines[size]) if size < len(sines) else 1.0)
        if found is not None:
            found(known)
        if known.shape[1] == equations.samples:
            break
    single = [span for span in spans if span.shape[1] == 1]
    return Separated(
        single=torch.cat([basis[:, :0], *single], dim=1),
        groups=tuple(span for span in spans if span.shape[1] > 1),
        rest_sine=sine,
    )


def _solutions(sines: Float[Tensor, " k"], solved: float) -> int:
    """How many independent deltas of one pattern lie in the column space: where the sines jump."""
    values = torch.cat([sines.clamp(min=1e-13), sines.new_ones(1)]).clamp(max=1.0)
    jumps = values[1:] / values[:-1]
    place = int(torch.argmax(jumps))
    return place + 1 if float(values[place]) < solved and float(jumps[place]) > MINIMAL_GAP else 0


def _already(spans: list[Tensor], span: Float[Tensor, "n s"]) -> bool:
    """Whether ``span`` meets a span that is already found."""
    if not spans:
        return False
    if span.shape[1] == 1:
        # one product for all: the nearest point of each span has norm |V^T span|
        cosines = torch.cat(spans, dim=1).T @ span[:, 0]
        squared = torch.stack(
            [part.square().sum() for part in torch.split(cosines, [int(v.shape[1]) for v in spans])]
        )
        return bool((1 - squared).clamp(min=0).sqrt().min() < _SAME)
    return any(float(torch.linalg.svdvals(span - old @ (old.T @ span))[-1]) < _SAME for old in spans)
