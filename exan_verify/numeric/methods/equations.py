"""The two hyperplanes of every neuron, and their quadratic lifting (docs/theory.md 3.1, 3.2).

At one hidden layer: delta = P q with P an orthonormal basis of A's column space, u = C p the next delta, and
for every neuron j either P_j . q = 0 or P_j . q = (W C)_j . p. The product of the two is linear in the lifted
unknowns (q q^T, q p^T); its null space is spanned by the samples when C1 holds. Where a neuron that is not
active has the slope s_j, its hyperplane is P_j . q = s_j (W C)_j . p, and the product

    (P_j . q)^2 - (1 + s_j) (P_j . q) (W C)_j . p + s_j ((W C)_j . p)^2

is linear in (q q^T, q p^T, p p^T) (PL1, 3.7).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.errors import RangeError
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import LayerSummary
from exan_verify.numeric.problem.spectrum import MINIMAL_GAP, ColumnSpace
from exan_verify.numeric.waiting import proceed

_GRAM_TRUST = 1e-5
"""Below this sigma_{U-M} / sigma_1 the Gram matrix, which squares it, no longer separates the null space."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerEquations:
    """The equations (*) of hidden layer ``index`` (0 is the first) for the ``space.rank`` samples seen there.

    ``forward`` (n, K') is W_{i+1} transposed times C: the deltas before the activation's derivative are
    ``forward @ p``. ``slope`` (n,): the derivative where a neuron is not active; None: zero everywhere.
    """

    index: int
    space: ColumnSpace
    forward: Tensor
    slope: Tensor | None = None

    @property
    def samples(self) -> int:
        """M as this layer sees it."""
        return self.space.rank

    @property
    def neurons(self) -> int:
        """Neurons that are alive for some sample; the others give no equation."""
        return int((self.space.basis.norm(dim=1) > 0).sum())

    @property
    def unknowns(self) -> int:
        """U = M(M+1)/2 + M K', and K'(K'+1)/2 more where some slope is not zero."""
        return lifted_unknowns(self.samples, int(self.forward.shape[1]), sloped=self.slope is not None)

    @property
    def mirrored(self) -> bool:
        """Whether all slopes are -1, so that the products q p do not occur and the rank stays short."""
        return self.slope is not None and bool((self.slope == -1).all())

    @property
    def spare(self) -> int:
        """Equations beyond the U - M that C1 needs; negative: lifting cannot work here."""
        return self.neurons - (self.unknowns - self.samples)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiftedNullSpace:
    """Null space of the normalised lifted equations R.

    ``squares`` (D, M, M) symmetric blocks q q^T, ``mixed`` (D, M, K') blocks q p^T, of D basis elements.
    ``dimension`` D; ``gap`` sigma_{U-D} / sigma_{U-D+1}; ``smallest`` sigma_{U-D} / sigma_1.
    """

    squares: Tensor
    mixed: Tensor
    dimension: int
    gap: float
    smallest: float


def lifted_unknowns(samples: int, free: int, *, sloped: bool = False) -> int:
    """U = M(M+1)/2 + M K' for M samples and K' free parameters of the next delta, and K'(K'+1)/2 more for a
    layer with slopes."""
    return samples * (samples + 1) // 2 + samples * free + (free * (free + 1) // 2 if sloped else 0)


def layer_equations(
    problem: Problem, spaces: tuple[ColumnSpace, ...], index: int, *, narrowed: bool = False
) -> LayerEquations:
    """Set up (*) at hidden layer ``index`` with the smallest sound parametrisation of u.

    C is the column space of [dW_{i+1} | db_{i+1}] when that has the same rank M, otherwise everything, at the
    last hidden layer the sum-zero vectors for losses that are invariant under adding a constant.

    ``narrowed``: the column space when its rank is smaller, too. It has all deltas if the layer's M values
    are independent, which the gradient does not show: for guesses that are verified by other means.
    """
    space = spaces[index]
    directions = next_directions(problem, spaces, index, space.rank, narrowed=narrowed)
    forward = problem.layers[index].sent(problem.layers[index + 1].backward(directions.T)).T
    slope = problem.layers[index].activation.slope
    return LayerEquations(index=index, space=space, forward=forward.contiguous(), slope=slope)


def next_directions(
    problem: Problem, spaces: tuple[ColumnSpace, ...], index: int, samples: int, *, narrowed: bool = False
) -> Float[Tensor, "n_next K"]:
    """C: a basis of where the deltas above hidden layer ``index`` lie, for ``samples`` samples."""
    above, n_next = spaces[index + 1], problem.layers[index + 1].shape[0]
    last = index == len(problem.layers) - 2
    sum_zero = last and problem.question.loss.zero_sum
    # a layer that is not sent shows rank 0
    told = above.rank == samples or (narrowed and 0 < above.rank < samples)
    if told and above.rank <= (n_next - 1 if sum_zero else n_next):
        return above.basis
    if sum_zero:
        return _sum_zero_basis(n_next).to(problem.device)
    return torch.eye(n_next, dtype=torch.float64, device=problem.device)


def lifted_null_space(equations: LayerEquations, *, exact: bool = False) -> LiftedNullSpace:
    """Null space of R, rows and columns scaled to unit norm (C3), its dimension at the largest gap >= M.

    Uses the Gram matrix where its squared singular values still separate the null space, else (or when
    ``exact``) the SVD.
    """
    proceed()
    matrix, scale = _lifted_matrix(equations)
    if not exact:
        squared, vectors = torch.linalg.eigh(matrix.T @ matrix)
        values = squared.clamp(min=0).sqrt()
        found = _split(equations, values, vectors, scale, floor=1e-8)
        if found.smallest > _GRAM_TRUST:
            return found
    full = (
        matrix
        if matrix.shape[0] >= matrix.shape[1]
        else torch.cat([matrix, matrix.new_zeros(matrix.shape[1] - matrix.shape[0], matrix.shape[1])])
    )
    _, values, vt = torch.linalg.svd(full, full_matrices=False)
    return _split(equations, values.flip(0), vt.flip(0).T, scale, floor=1e-16)


def too_many(problem: Problem, rank: int) -> str | None:
    """What a gradient of ``rank`` says where the batch size given is smaller, or None."""
    size = problem.question.batch_size
    if size is None or rank <= size:
        return None
    return (
        f"the gradient shows rank {rank}, and batch_size={size} samples give no more than "
        f"{size}: noise or compression fills it, or the batch is "
        "larger; use the gradient as it was computed, or the true batch size"
    )


def layer_summaries(problem: Problem, spaces: tuple[ColumnSpace, ...]) -> tuple[LayerSummary, ...]:
    """The hidden layers as methods see them that do not lift."""
    counted = [layer_equations(problem, spaces, k) for k in range(len(spaces) - 1)]
    return tuple(
        LayerSummary(
            index=eq.index + 1,
            rank=eq.samples,
            rank_gap=eq.space.gap,
            equations=eq.neurons,
            unknowns=eq.unknowns,
        )
        for eq in counted
    )


def check_rectified(problem: Problem) -> None:
    """Raise :class:`RangeError` where another activation than ReLU follows a hidden layer, for the methods
    that start from exclusive neurons."""
    if not problem.rectified:
        raise RangeError(
            "exclusive neurons, and the attacks by them, are for networks with ReLU in every hidden layer; "
            "use method lift or assign, or auto"
        )


def out_of_range(counted: list[LayerEquations], samples: int) -> str | None:
    """Why no hidden layer has the U - M neurons that degree two needs for ``samples`` samples, or None."""
    described = []
    for eq in counted:
        free = int(eq.forward.shape[1]) if eq.samples == samples else min(eq.forward.shape[1], samples)
        need = lifted_unknowns(samples, free, sloped=eq.slope is not None) - samples
        # a layer without any gradient is not short of neurons; that it shows no sample is said elsewhere
        neurons = eq.neurons if eq.samples else int(eq.forward.shape[0])
        if eq.mirrored:
            described.append(f"layer {eq.index + 1}: slopes of -1, which leave the equations short of rank")
            continue
        if need <= neurons:
            return None
        described.append(f"layer {eq.index + 1}: {neurons} live neurons, {need} equations needed")
    return f"batch size {samples} is beyond degree-2 lifting ({'; '.join(described)})"


def _lifted_matrix(equations: LayerEquations) -> tuple[Float[Tensor, "n U"], Float[Tensor, " U"]]:
    basis, forward, slope = equations.space.basis, equations.forward, equations.slope
    live = basis.norm(dim=1) > 0
    basis, forward = basis[live], forward[live]
    mixed = -(basis[:, :, None] * forward[:, None, :]).flatten(1)
    if slope is None:
        matrix = torch.cat([_squares(basis), mixed], dim=1)
    else:
        below = slope[live, None]
        matrix = torch.cat([_squares(basis), (1 + below) * mixed, below * _squares(forward)], dim=1)
    # unit rows, but rows made of noise are not blown up
    norms = matrix.norm(dim=1, keepdim=True)
    relative_noise = min(1.0, equations.space.noise / float(equations.space.values[equations.samples - 1]))
    matrix /= norms + relative_noise * norms.median()
    scale = matrix.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    return matrix / scale, scale


def _squares(rows: Float[Tensor, "n k"]) -> Float[Tensor, "n k2"]:
    """The coefficients of the entries i <= j of v v^T in (row . v)^2."""
    first, second = torch.triu_indices(rows.shape[1], rows.shape[1]).to(rows.device)
    return rows[:, first] * rows[:, second] * torch.where(first == second, 1.0, 2.0)


def _split(
    equations: LayerEquations, values: Tensor, vectors: Tensor, scale: Tensor, *, floor: float
) -> LiftedNullSpace:
    """Cut at the largest gap of the ascending singular ``values``, at a dimension of at least M."""
    size = equations.samples
    top = float(values[-1])
    clamped = values.clamp(min=floor * top)
    ratios = clamped[size:] / clamped[size - 1 : -1]
    dimension = size if float(ratios[0]) >= MINIMAL_GAP else size + int(torch.argmax(ratios))
    solutions = (vectors[:, :dimension] / scale[:, None]).T
    first, second = torch.triu_indices(size, size)
    pairs, free = len(first), int(equations.forward.shape[1])
    squares = solutions.new_zeros(dimension, size, size)
    squares[:, first, second] = solutions[:, :pairs]
    squares[:, second, first] = solutions[:, :pairs]
    return LiftedNullSpace(
        squares=squares,
        mixed=solutions[:, pairs : pairs + size * free].reshape(dimension, size, free),
        dimension=dimension,
        gap=float(clamped[dimension] / clamped[dimension - 1]),
        smallest=float(values[dimension]) / top,
    )


def _sum_zero_basis(size: int) -> Float[Tensor, "K K1"]:
    """Orthonormal basis of the vectors in R^size whose entries sum to zero (Helmert's)."""
    steps = torch.arange(size, dtype=torch.float64)
    helmert = (torch.ones(size, size, dtype=torch.float64).tril(-1) - torch.diag(steps))[1:]
    basis: Tensor = (helmert / helmert.norm(dim=1, keepdim=True)).T
    return basis
