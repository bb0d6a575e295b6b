"""The lifted system of degree three as an operator that is never stored (docs/theory.md C4, Appendix L3).

Write v = (q, p) for the N = M + K' unknowns of a hidden layer. A solution's cube is the symmetric tensor
T = v v v, without its p p p part, and an equation (*) times an unknown v_k says something about the slice
T[k] = v_k v v: every slice satisfies the equations of degree two. So the solutions are the symmetric tensors
whose slices, each U numbers (q q, q p), are orthogonal to the row space of the quadratic equations:

    null(S^T P S),    S: tensor -> its N slices,    P: the projector onto that row space, slice by slice.

In coordinates in which S is an isometry, S^T P S has its spectrum in [0, 1], whatever the scale of a neuron's
equation: the squared sines between the symmetric tensors and those with admissible slices. One product costs
two gathers and 4 N U r operations, r = min(n, U - n), without a matrix of n N x V entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exan_verify.numeric.waiting import proceed

_MIXED = 2.0
"""Weight of an entry q_a p_l of a slice: it stands for two entries of a symmetric matrix, as q_a q_b does."""


def cubic_unknowns(samples: int, free: int) -> int:
    """V: the monomials q q q, q q p and q p p for M samples and K' free parameters of the next delta."""
    return (
        comb(samples + 2, 3) + comb(samples + 1, 2) * free + samples * comb(free + 1, 2) if samples > 0 else 0
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slices:
    """S for M = ``samples`` and K' = ``free``: which unknown each entry of a slice is, and with what factor.

    ``entry``, ``factor`` (N, U) give the slices of a tensor; ``place``, ``share`` (3, V) its adjoint, as
    places in the flattened slices (an unknown lies in one, two or three of them; absent ones have share
    zero). ``multiplicity`` (U,): the weight of an entry of a slice; ``pair`` (2, U): its two unknowns.
    """

    samples: int
    free: int
    entry: Int[Tensor, "N U"]
    factor: Float[Tensor, "N U"]
    place: Int[Tensor, "3 V"]
    share: Float[Tensor, "3 V"]
    pair: Int[Tensor, "2 U"]
    multiplicity: Float[Tensor, " U"]

    @property
    def unknowns(self) -> int:
        """V."""
        return int(self.place.shape[1])

    def apply(self, tensors: Float[Tensor, "V b"]) -> Float[Tensor, "N U b"]:
        """S: the slices of tensors in isometric coordinates, entries weighted by the root of their weight."""
        return tensors[self.entry] * self.factor[:, :, None]

    def adjoint(self, slices: Float[Tensor, "N U b"]) -> Float[Tensor, "V b"]:
        """S^T; ``adjoint(apply(t)) == t``."""
        flat = slices.flatten(0, 1)
        total = flat[self.place[0]] * self.share[0, :, None]
        for place, share in zip(self.place[1:], self.share[1:], strict=True):
            total += flat[place] * share[:, None]
        return total


def slices_of(samples: int, free: int, device: torch.device | None = None) -> Slices:
    """The slices of symmetric tensors in M + K' unknowns without their p p p part."""
    size = samples + free
    monomials = torch.combinations(torch.arange(size), 3, with_replacement=True)
    monomials = monomials[monomials[:, 0] < samples]
    codes = _code(monomials, size)
    pair, multiplicity = _pairs(samples, free)
    number = torch.full((size, size), -1)
    number[pair[0], pair[1]] = torch.arange(pair.shape[1])
    place, present = _places(monomials, number)
    shares = present * multiplicity[place % pair.shape[1]]
    # |S T|^2 = sum over the unknowns of their total weight: divided by its root, S is an isometry
    weight = shares.sum(dim=0)
    slots = torch.arange(size)[:, None, None].expand(-1, 1, pair.shape[1])
    triples = torch.cat([slots, pair.expand(size, 2, -1)], dim=1).transpose(1, 2).sort(dim=2).values
    entry = torch.searchsorted(codes, _code(triples, size))
    return Slices(
        samples=samples,
        free=free,
        entry=entry.to(device),
        factor=(multiplicity / weight[entry]).sqrt().to(device),
        place=place.to(device),
        share=(shares / weight).sqrt().to(device),
        pair=pair.to(device),
        multiplicity=multiplicity.to(device),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CubicOperator:
    """S^T P S of one layer: symmetric, its spectrum in [0, 1], its null space the lifted solutions.

    ``rows`` (U, r): an orthonormal basis of the quadratic equations' row space, or where that is smaller, of
    its orthogonal ``complement``.
    """

    slices: Slices
    rows: Float[Tensor, "U r"]
    complement: bool

    @property
    def unknowns(self) -> int:
        """V."""
        return self.slices.unknowns

    @property
    def work(self) -> float:
        """Operations of one product with one vector."""
        size = self.slices.samples + self.slices.free
        # the slices are taken even where there are no rows
        return 4.0 * size * self.rows.shape[0] * max(1, self.rows.shape[1])

    def equations(self, tensors: Float[Tensor, "V b"]) -> Float[Tensor, "N U b"]:
        """P S: what the quadratic equations leave of every slice; zero for solutions."""
        slices = self.slices.apply(tensors)
        inside = self.rows @ (self.rows.T @ slices)
        return slices - inside if self.complement else inside

    def apply(self, tensors: Float[Tensor, "V b"]) -> Float[Tensor, "V b"]:
        """S^T P S for a block of b tensors."""
        return self.slices.adjoint(self.equations(tensors))

    def matrix(self) -> Float[Tensor, "V V"]:
        """S^T P S itself, one slice at a time: N U^2 of the V^2 entries are not zero."""
        projector = self.rows @ self.rows.T
        if self.complement:
            projector = torch.eye(projector.shape[0]).to(projector) - projector
        dense = projector.new_zeros(self.unknowns, self.unknowns)
        for entry, factor in zip(self.slices.entry, self.slices.factor, strict=True):
            proceed()
            # the entries of one slice are different unknowns, so nothing is added twice in one step
            dense[entry[:, None], entry] += factor[:, None] * projector * factor
        return dense


def _code(monomials: Int[Tensor, "*s 3"], size: int) -> Int[Tensor, "*s"]:
    a, b, c = monomials.unbind(-1)
    return (a * size + b) * size + c


def _pairs(samples: int, free: int) -> tuple[Int[Tensor, "2 U"], Float[Tensor, " U"]]:
    """The entries of a slice: q_a q_b with a <= b, then q_a p_l; and their weights."""
    squares = torch.triu_indices(samples, samples)
    mixed = torch.cartesian_prod(torch.arange(samples), torch.arange(free)).reshape(-1, 2).T
    mixed = mixed + torch.tensor([[0], [samples]])
    weights = [
        torch.where(squares[0] == squares[1], 1.0, 2.0).double(),
        torch.full((mixed.shape[1],), _MIXED, dtype=torch.float64),
    ]
    return torch.cat([squares, mixed], dim=1), torch.cat(weights)


def _places(
    monomials: Int[Tensor, "V 3"], number: Int[Tensor, "N N"]
) -> tuple[Int[Tensor, "3 V"], Int[Tensor, "3 V"]]:
    """Where the monomial a b c with a <= b <= c lies in the slices of c, b and a, and whether it does.

    The slice of b is that of c when b = c, that of a is another when a = b; the pair p p is no entry.
    """
    a, b, c = monomials.unbind(1)
    length = int(number.max()) + 1
    pairs = torch.stack([number[a, b], number[a, c], number[b, c]])
    different = torch.stack([torch.ones_like(a, dtype=torch.bool), b != c, a != b])
    present = different & (pairs >= 0)
    place = torch.stack([c, b, a]) * length + pairs
    return torch.where(present, place, 0), present.long()
