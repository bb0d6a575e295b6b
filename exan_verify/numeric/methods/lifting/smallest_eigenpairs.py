"""The smallest eigenvalues of a symmetric operator with spectrum in [0, 1], and their vectors, by blocks.

Nothing is stored but blocks of vectors: subspace iteration with a Chebyshev filter (Zhou and Saad 2007),
whose number of products grows with the inverse square root of the eigenvalue behind the block. Where that
would cost what a factorisation does, and the matrix fits, it is factored: shifted Cholesky and inverse
iteration on a block. Shift and rounding are near 1e-13: eigenvalues from about 1e-10 on are told from zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.waiting import proceed

DIRECT = 14336
"""Largest matrix that is factored: two copies take 3 GiB."""

_SMALL = 1024
"""Largest matrix that is factored at once: in less than 0.1 s."""

ROUNDING = 1e-14
"""Eigenvalues below this are zero as far as float64 tells, relative to a spectrum that ends at one."""

_SHIFTS = (1e-13, 1e-11, 1e-9)
"""Added in turn until rounding leaves the matrix positive; the first does up to several thousand unknowns."""

_INVERSE_STEPS = 4
"""Each leaves shift / eigenvalue of what was there: four settle eigenvalues from ten shifts on."""

_SETTLED = 1e-4
"""Angle of the wanted vectors to the invariant subspace at which iteration ends; candidates are polished."""

_SHARPNESS = 3.0
"""Degree of a filter times the root of the eigenvalue it cuts at; one filter then gains a factor of 200."""

_DEGREES = (4, 1000)
"""A filter that cuts lower than the largest degree resolves would hardly filter."""

_LEAST = 4.0
"""Products that it takes at least, times the root of the eigenvalue cut at: fewer allowed would be wasted."""


class Operator(Protocol):
    """What is asked of an operator; ``work``: operations of one product with one vector."""

    @property
    def unknowns(self) -> int:
        """Its size V."""
        ...

    @property
    def work(self) -> float: ...  # noqa: D102

    def apply(self, tensors: Float[Tensor, "V b"]) -> Float[Tensor, "V b"]:
        """The product with a block."""
        ...

    def matrix(self) -> Float[Tensor, "V V"]:
        """The matrix itself."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smallest:
    """``values`` (b,) ascending, ``vectors`` (V, b) orthonormal; ``settled``: the wanted ones have converged;
    ``products``: how many products with a block it took, 0 for a factorisation."""

    values: Tensor
    vectors: Tensor
    settled: bool
    products: int


def smallest(
    operator: Operator, *, wanted: int, generator: torch.Generator, device: torch.device, work: float
) -> Smallest:
    """The ``wanted`` smallest eigenvalues and some more, until ``work`` operations are spent.

    The block has room for more than the wanted ones, and is enlarged when all of it vanishes.
    """
    width = block_width(wanted)
    while True:
        width = min(operator.unknowns, width)
        start = torch.randn(operator.unknowns, width, dtype=torch.float64, generator=generator).to(device)
        found = _best(operator, start, wanted=wanted, work=work)
        full = width == operator.unknowns or width > 3 * wanted + 64
        if not found.settled or full or float(found.values[-1]) > 100 * ROUNDING:
            return found
        width *= 2


def block_width(wanted: int) -> int:
    """Vectors of a block at first: those behind the wanted ones speed up their convergence."""
    return wanted + max(8, wanted // 4)


def _best(operator: Operator, start: Float[Tensor, "V b"], *, wanted: int, work: float) -> Smallest:
    if operator.unknowns <= _SMALL:
        return _direct(operator, start)
    factorisation = operator.unknowns**3 / 3 if operator.unknowns <= DIRECT else torch.inf
    found = _filtered(operator, start, wanted=wanted, work=min(work, factorisation))
    return found if found.settled or factorisation > work else _direct(operator, start)


def _direct(operator: Operator, start: Float[Tensor, "V b"]) -> Smallest:
    matrix = operator.matrix()
    if start.shape[1] == matrix.shape[0]:
        values, vectors = torch.linalg.eigh(matrix)
        return Smallest(values=values, vectors=vectors, settled=True, products=0)
    for shift in _SHIFTS:
        matrix.diagonal().add_(shift)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            break
    del matrix
    block = start
    for _ in range(_INVERSE_STEPS):
        proceed()
        block, _ = torch.linalg.qr(torch.cholesky_solve(block, factor))
    values, vectors, _ = _ritz(operator, block)
    return Smallest(values=values, vectors=vectors, settled=True, products=0)


def _filtered(operator: Operator, start: Float[Tensor, "V b"], *, wanted: int, work: float) -> Smallest:
    products, most = 1, max(1.0, work / (operator.work * start.shape[1]))
    block, _ = torch.linalg.qr(start)
    values, block, image = _ritz(operator, block)
    while True:
        settled = _angle(values, block, image, wanted) < _SETTLED
        cut = max(float(values[-1]), (_SHARPNESS / _DEGREES[1]) ** 2)
        degree = max(_DEGREES[0], int(_SHARPNESS * cut**-0.5))
        if settled or max(products + degree, _LEAST * cut**-0.5) > most:
            return Smallest(values=values, vectors=block, settled=settled, products=products)
        block, _ = torch.linalg.qr(_filter(operator, block, image, cut=cut, degree=degree))
        values, block, image = _ritz(operator, block)
        products += degree


def _ritz(operator: Operator, block: Float[Tensor, "V b"]) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz values and vectors of an orthonormal block, and their images."""
    image = operator.apply(block)
    small = block.T @ image
    values, rotation = torch.linalg.eigh((small + small.T) / 2)
    return values, block @ rotation, image @ rotation


def _angle(values: Tensor, block: Tensor, image: Tensor, wanted: int) -> float:
    """Sine of the angle between the wanted vectors and an invariant subspace (Davis and Kahan), at most.

    The eigenvalue behind them is where the Ritz values jump, as more than the wanted ones may vanish.
    """
    if len(values) <= wanted or float(values[-1]) <= 100 * ROUNDING:
        return 0.0
    clamped = values.clamp(min=ROUNDING)
    place = wanted + int(torch.argmax(clamped[wanted:] / clamped[wanted - 1 : -1]))
    residual = (image[:, :place] - block[:, :place] * values[:place]).norm()
    return float(residual / (values[place] - values[place - 1]).clamp(min=ROUNDING))


def _filter(operator: Operator, block: Tensor, image: Tensor, *, cut: float, degree: int) -> Tensor:
    """The Chebyshev polynomial that is small on [cut, 1] and one at zero, of the operator, times a block."""
    centre, half = (1 + cut) / 2, (1 - cut) / 2
    ratio = first = -half / centre
    before, now = block, (image - centre * block) * (ratio / half)
    for _ in range(degree - 1):
        proceed()
        following = 1 / (2 / first - ratio)
        step = (operator.apply(now) - centre * now) * (2 * following / half)
        before, now, ratio = now, step - (ratio * following) * before, following
    return now
