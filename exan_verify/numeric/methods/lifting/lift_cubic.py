"""Lifting of degree three, where degree two lacks equations (docs/theory.md C4, Appendix L3).

The null space of the lifted system (:mod:`exan_verify.numeric.methods.lifting.cubic_operator`) is spanned by
the cubes of (q_m, p_m). Contracted with any vector w of the unknowns, every element becomes a combination of
(w . v_m) (q_m q_m^T, q_m p_m^T), which is what degree two has; from there on all is as in degree two. Samples
that share their pattern in groups of s_k give sum binom(s_k + 2, 3) dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, comb, exp

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.methods.equations import LayerEquations, LiftedNullSpace
from exan_verify.numeric.methods.lifting.cubic_operator import (
    CubicOperator,
    Slices,
    cubic_unknowns,
    slices_of,
)
from exan_verify.numeric.methods.lifting.diagonalise import pencil_starts
from exan_verify.numeric.methods.lifting.smallest_eigenpairs import DIRECT, ROUNDING, block_width, smallest

MEMORY = 4 << 30
"""Bytes that the lifted system may take."""

_RANK = 1e-9
"""Relative singular value below which a combination of equations, or of next deltas, is none."""

_FEW_PRODUCTS = 25.0
"""Products with a block that well conditioned systems need, those with more than twice the equations."""

_STEEPNESS = 8.0
"""How fast they become more, exponentially in the share of the equations that is needed. Measured at widths
100 to 512: 25 products at a share of 0.4, 140 at 0.58, 390 at 0.69, 650 at 0.83."""

_NOISE_ROOM = 8.0
"""Times the noise's share of the weakest sample below which a combination of equations is noise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CubicNullSpace:
    """Null space of the lifted system of degree three.

    ``tensors`` (V, D) orthonormal, in the coordinates of ``slices``; ``back`` (K', K~) leads from their next
    deltas to those of the layer's equations. ``dimension`` D; ``gap``: the ratio of the sines behind and
    in the null space; ``smallest``: the sine behind it. ``settled``: found within the work allowed;
    ``products`` of the operator with a block, 0 where it was factored.
    """

    slices: Slices
    tensors: Tensor
    back: Tensor
    dimension: int
    gap: float
    smallest: float
    settled: bool
    products: int

    def contracted(self, weights: Float[Tensor, " N"]) -> LiftedNullSpace:
        """The null space contracted with ``weights``, as one of degree two."""
        layout = self.slices
        slices = torch.einsum("k,kud->du", weights, layout.apply(self.tensors)) / layout.multiplicity.sqrt()
        pairs = comb(layout.samples + 1, 2)
        first, second = layout.pair[:, :pairs]
        squares = slices.new_zeros(self.dimension, layout.samples, layout.samples)
        squares[:, first, second] = slices[:, :pairs]
        squares[:, second, first] = slices[:, :pairs]
        mixed = slices[:, pairs:].reshape(self.dimension, layout.samples, layout.free)
        return LiftedNullSpace(
            squares=squares,
            mixed=mixed @ self.back.T,
            dimension=self.dimension,
            gap=self.gap,
            smallest=self.smallest,
        )


def cubic_size(equations: LayerEquations) -> int:
    """V at this layer."""
    return cubic_unknowns(equations.samples, int(equations.forward.shape[1]))


def cubic_rows(equations: LayerEquations) -> int:
    """n (M + K'), the equations of degree three."""
    return equations.neurons * _size(equations)


def cubic_memory(equations: LayerEquations) -> int:
    """Bytes that the null space takes at this layer, about."""
    size, block, unknowns = _size(equations), block_width(equations.samples), cubic_size(equations)
    pairs = equations.unknowns
    kept = 2 * pairs * equations.neurons + 5 * size * pairs * block + 8 * unknowns * block
    return 8 * (kept + (2 * unknowns**2 + 2 * pairs**2 if unknowns <= DIRECT else 0))


def cubic_obstacle(equations: LayerEquations, *, work: float) -> str | None:
    """Why degree three cannot work at this layer, or None: too few neurons by count, memory, operations."""
    where, memory, expected = f"layer {equations.index + 1}", cubic_memory(equations), _work(equations)
    need = ceil((cubic_size(equations) - equations.samples) / max(1, _size(equations)))
    if need > equations.neurons:
        return f"{where}: {need} neurons needed"
    if memory > MEMORY:
        return f"{where}: {memory / 2**30:.1f} GiB needed, planned for {MEMORY / 2**30:.0f} GiB"
    if expected > work:
        return f"{where}: {expected:.0e} operations needed, planned for {work:.0e}"
    return None


def _size(equations: LayerEquations) -> int:
    """N = M + K'."""
    return equations.samples + int(equations.forward.shape[1])


def _work(equations: LayerEquations) -> float:
    """Operations of a null space: of a factorisation, or of the products that its conditioning asks for."""
    pairs, samples, unknowns = equations.unknowns, equations.samples, cubic_size(equations)
    rank = min(equations.neurons, pairs - samples)
    product = 4.0 * _size(equations) * pairs * min(rank, pairs - rank) * block_width(samples)
    share = (unknowns - samples) / cubic_rows(equations)
    iterated = _FEW_PRODUCTS * exp(_STEEPNESS * max(0.0, share - 0.4)) * product
    return min(iterated, unknowns**3 / 3 if unknowns <= DIRECT else iterated)


def cubic_operator(equations: LayerEquations) -> tuple[CubicOperator, Float[Tensor, "K' K~"]]:
    """The lifted system of a layer, and the map (K', K~) from its next deltas to those of the equations.

    The next deltas are taken in coordinates in which what the neurons see of them is isometric, as it is for
    q in the orthonormal basis: so q and p have like sizes. What no neuron sees is left out.
    """
    live = equations.space.basis.norm(dim=1) > 0
    basis = equations.space.basis[live]
    seen, values, directions = torch.linalg.svd(equations.forward[live], full_matrices=False)
    kept = values > _RANK * values[:1]
    slices = slices_of(equations.samples, int(kept.sum()), basis.device)
    rows, complement = _row_space(equations, basis, seen[:, kept], slices)
    operator = CubicOperator(slices=slices, rows=rows, complement=complement)
    return operator, directions[kept].T / values[kept]


def cubic_null_space(equations: LayerEquations, *, generator: torch.Generator, work: float) -> CubicNullSpace:
    """The null space, its dimension at the largest gap from M on, within ``work`` operations."""
    operator, back = cubic_operator(equations)
    found = smallest(operator, wanted=equations.samples, generator=generator, device=back.device, work=work)
    clamped = found.values.clamp(min=ROUNDING)
    size = min(equations.samples, len(clamped) - 1)
    dimension = size + int(torch.argmax(clamped[size:] / clamped[size - 1 : -1]))
    return CubicNullSpace(
        slices=operator.slices,
        tensors=found.vectors[:, :dimension],
        back=back,
        dimension=dimension,
        gap=float(clamped[dimension] / clamped[dimension - 1]) ** 0.5,
        smallest=float(clamped[dimension]) ** 0.5,
        settled=found.settled,
        products=found.products,
    )


def cubic_starts(
    null_space: CubicNullSpace, *, tries: int, generator: torch.Generator
) -> Iterator[tuple[Float[Tensor, "M M"], Float[Tensor, "K M"]]]:
    """Yield up to ``tries`` sets of M candidates (q, p), each from a contraction and a pencil of its own."""
    size = null_space.slices.samples + null_space.slices.free
    for _ in range(tries):
        weights = torch.randn(size, dtype=torch.float64, generator=generator).to(null_space.tensors.device)
        yield from pencil_starts(null_space.contracted(weights), tries=1, generator=generator)


def _row_space(
    equations: LayerEquations, basis: Float[Tensor, "n M"], seen: Float[Tensor, "n K~"], slices: Slices
) -> tuple[Float[Tensor, "U r"], bool]:
    """An orthonormal basis of the quadratic equations in the coordinates of a slice, or of the complement."""
    first, second = slices.pair
    factors = torch.cat([basis, -seen], dim=1)
    weights = slices.multiplicity.sqrt()
    # a coefficient per entry, times the entries a coordinate of q q stands for; q p enters an equation once
    rows = basis[:, first] * factors[:, second] * torch.where(second < slices.samples, weights, 1 / weights)
    share = min(1.0, equations.space.noise / float(equations.space.values[equations.samples - 1]))
    norms = rows.norm(dim=1, keepdim=True)
    # unit rows, but rows made of noise are not blown up
    rows = rows / (norms + share * norms.median())
    _, values, directions = torch.linalg.svd(rows, full_matrices=bool(2 * rows.shape[0] >= rows.shape[1]))
    rank = int((values > max(_RANK, _NOISE_ROOM * share) * values[0]).sum())
    complement = len(directions) == rows.shape[1] and 2 * rank > rows.shape[1]
    return (directions[rank:] if complement else directions[:rank]).T.contiguous(), complement
