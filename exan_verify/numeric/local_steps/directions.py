"""The samples' summed deltas at layer 1, up to scale, from the sum of all local steps.

With F = [W_2^T C | N], C the column and N the row space of the second layer's sum, a sample's delta at the
weights of any step is F_j . p at the neurons where it is active (docs/theory.md, Appendix U): exactly where
every sample is in one step and its next deltas are independent. Then lifting and the search of `assign` find
it as they do in a gradient. Where the samples are in several steps this is true but for terms of second order
in the rate, and not at the neurons that are active in some of the steps only, one in ten or more; so the
search goes on by least squares with weights that fall with the misfit, in which these do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.methods.equations import LayerEquations, lifted_null_space, next_directions
from exan_verify.numeric.methods.lifting.diagonalise import pencil_starts
from exan_verify.numeric.methods.searching.difference_map import Candidates, difference_map
from exan_verify.numeric.methods.searching.guesses import active_value_guesses
from exan_verify.numeric.methods.separate import SAME, Span, noise_sine, separate
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.spectrum import ColumnSpace, row_space
from exan_verify.numeric.waiting import proceed

_TRIES = 6
"""Random pencils of lifting."""

_CANDIDATES = (128, 640)
"""Fewest and most candidates at a time; between them five per sample."""

_PATIENCE = 25
"""Rounds without a new sample after which the search gives up."""

_SHARES = (0.1, 0.3, 0.5)
"""Share outside of the span of what is known that candidates keep, once half of the samples are: in turn."""

_REWEIGHTED = 25
"""Rounds of weighted least squares: from the ends of the difference map ten to twenty settle."""

_LEAST_MISFIT = 1e-5
"""Relative misfit of a neuron below which it counts in full."""

_FITS = 0.05
"""Median relative misfit over the neurons of what counts as a sample's delta: five steps of rate 0.1 leave
1e-4, strangers 0.3."""

_RIDGE = 1e-7
"""Of the next deltas' normal equations, relative: where few neurons are active they are singular."""

_INDEPENDENT = 1e-8
"""Columns of F below this share of the largest are combinations of the others."""

ASSIGN = "assign"
"""How the methods are called that start from draws."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Directions:
    """Unit delta directions ``found`` (n, m), and the ``method`` that found them."""

    found: Tensor
    method: str


def step_equations(problem: Problem, spaces: tuple[ColumnSpace, ...]) -> LayerEquations:
    """(*) at layer 1 for weights that move: the next delta is F p, F orthonormal."""
    directions = next_directions(problem, spaces, 0, spaces[0].rank)
    columns = torch.cat(
        [
            torch.nn.functional.normalize(problem.layers[1].backward(directions.T).T, dim=0),
            row_space(spaces[1])[0],
        ],
        dim=1,
    )
    u, values, _ = torch.linalg.svd(columns, full_matrices=False)
    forward = u[:, values > _INDEPENDENT * values[0]]
    return LayerEquations(index=0, space=spaces[0], forward=forward.contiguous())


def find_directions(problem: Problem, equations: LayerEquations, *, exact: bool) -> Directions:
    """As many directions as the layer shows samples, or as many as are found; ``exact``: by equations that
    hold to rounding, where that gives all."""
    space = equations.space
    if space.rank == 1:
        return Directions(found=space.basis, method="rank one")
    if exact:
        solved = noise_sine(space)
        if equations.spare >= 0:
            null_space = lifted_null_space(equations)
            starts = pencil_starts(null_space, tries=_TRIES, generator=problem.generator())
            separated = separate(equations, starts, solved=solved)
            if separated.total == separated.single.shape[1] == space.rank:
                return Directions(found=separated.single, method="lift")
        search = _Search(problem, equations)
        separated = separate(equations, search.starts(), solved=solved, found=search.found)
        if separated.total == separated.single.shape[1] == space.rank:
            return Directions(found=separated.single, method=ASSIGN)
    search = _Search(problem, equations)
    for q, p in search.starts():
        search.tell(_collected(search.known, equations, *reweighted(equations, q, p)))
        if search.known.shape[1] == space.rank:
            break
    return Directions(found=search.known, method=f"{ASSIGN} by weighted least squares")


class _Search:
    """Rounds of the difference map from guessed loss vectors, until _PATIENCE in a row have found nothing."""

    def __init__(self, problem: Problem, equations: LayerEquations) -> None:
        self.problem, self.equations = problem, equations
        self.generator = problem.generator()
        self.known = equations.space.basis[:, :0]
        self.rounds = 0

    def tell(self, known: Float[Tensor, "n k"]) -> None:
        """Told what is found so far."""
        self.known = known

    def found(self, known: Span) -> None:
        """The same, told by what separates samples."""
        self.known = known.deltas

    def starts(self) -> Iterator[tuple[Float[Tensor, "M m"], Float[Tensor, "K m"]]]:
        """Starts (q, p), round by round, the best first."""
        basis, forward, idle = self.equations.space.basis, self.equations.forward, 0
        fewest, most = _CANDIDATES
        count = min(max(5 * self.equations.samples, fewest), most)
        while idle < _PATIENCE:
            before = self.known.shape[1]
            guesses = active_value_guesses(self.problem, 0, count, self.generator)
            share = _SHARES[self.rounds % len(_SHARES)] if 2 * before >= self.equations.samples else 0.0
            self.rounds += 1
            ends = difference_map(
                basis, forward, guesses, generator=self.generator, known=self.known, apart=share
            )
            kept = self._alive(ends)
            yield (
                basis.T @ ends.values[:, kept].double(),
                forward.T @ ends.active_values[:, kept].double(),
            )
            idle = 0 if self.known.shape[1] > before else idle + 1

    def _alive(self, ends: Candidates) -> Tensor:
        """Those whose delta has not vanished on the way, which is the trivial solution of (*)."""
        order = ends.gap.argsort()
        return order[
            ends.values[:, order].norm(dim=0) > _INDEPENDENT * ends.active_values[:, order].norm(dim=0)
        ]


def reweighted(
    equations: LayerEquations, q: Float[Tensor, "M m"], p: Float[Tensor, "K m"]
) -> tuple[Float[Tensor, "M m"], Float[Tensor, " m"]]:
    """From starts (q, p): unit q that solve (*) at most neurons, and the median relative misfit of each.

    Neuron j takes the nearer of its two hyperplanes and the weight 1 / (misfit^2 + median^2) of a Cauchy
    distribution; then q is the smallest eigenvector of the weighted equations with p eliminated.
    """
    basis, forward = equations.space.basis, equations.forward
    tiny = torch.finfo(torch.float64).tiny
    identity = torch.eye(forward.shape[1], dtype=torch.float64, device=forward.device)
    for last in range(_REWEIGHTED):
        proceed()
        r, s = basis @ q, forward @ p
        active = (r - s).abs() < r.abs()
        size = r.square().mean(dim=0).sqrt().clamp(min=tiny)
        misfit = torch.where(active, r - s, r).abs() / size
        middle = misfit.median(dim=0).values
        if last == _REWEIGHTED - 1:
            break
        weight = 1 / (misfit.square() + middle.clamp(min=_LEAST_MISFIT).square())
        weight = weight / weight.amax(dim=0).clamp(min=tiny)
        own = weight * active
        qq = torch.einsum("nm,na,nb->mab", weight, basis, basis)
        qp = torch.einsum("nm,na,nk->mak", own, basis, forward)
        pp = torch.einsum("nm,nk,nl->mkl", own, forward, forward)
        ridge = _RIDGE * pp.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-6)
        carried = torch.linalg.solve(pp + ridge[:, None, None] * identity, qp.mT)
        left = qq - qp @ carried
        q = torch.linalg.eigh(torch.nan_to_num((left + left.mT) / 2))[1][:, :, 0].T
        p = torch.einsum("mka,am->km", carried, q)
    return q, middle


def _collected(
    known: Float[Tensor, "n k"],
    equations: LayerEquations,
    q: Float[Tensor, "M m"],
    misfit: Float[Tensor, " m"],
) -> Float[Tensor, "n k"]:
    """``known`` with the new directions among those that fit, the best fitting first."""
    unit = equations.space.basis @ q
    for m in misfit.argsort().tolist():
        if not float(misfit[m]) < _FITS or known.shape[1] == equations.samples:
            break
        cosine = (known.T @ unit[:, m]).abs()
        if not bool((cosine > (1 - SAME**2) ** 0.5).any()):
            known = torch.cat([known, unit[:, m : m + 1]], dim=1)
    return known
