"""Joint diagonalisation of the q q^T blocks of a lifted null space (docs/theory.md C3, C2).

Two random combinations S_a, S_b of the blocks are Q diag(a) Q^T and Q diag(b) Q^T: the eigenvectors of
S_a S_b^{-1} are the q_m. Samples that share a pattern mix within their group only.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.methods.equations import LiftedNullSpace


def pencil_starts(
    null_space: LiftedNullSpace, *, tries: int, generator: torch.Generator
) -> Iterator[tuple[Float[Tensor, "M M"], Float[Tensor, "K M"]]]:
    """Yield up to ``tries`` sets of M candidates (q, p), one per random pencil; columns are candidates.

    Clustered eigenvalues spoil some vectors of one pencil but, with fresh combinations, others of the next.
    """
    for _ in range(tries):
        s_a, z_a = _combination(null_space, generator)
        s_b, _ = _combination(null_space, generator)
        solved, failed = torch.linalg.solve_ex(s_b.T, s_a.T)
        if int(failed) or not bool(torch.isfinite(solved).all()):
            continue
        vectors = torch.linalg.eig(solved.T)[1].real
        q = vectors / vectors.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
        # S_a = Q diag(a) Q^T and Z_a = Q diag(a) [p]^T give the p_m that belong to q_m
        dual = torch.linalg.pinv(q)
        weights = torch.einsum("mi,ij,mj->m", dual, s_a, dual)
        safe = torch.where(weights.abs() > 1e-300, weights, torch.ones_like(weights))
        yield q, (dual @ z_a / safe[:, None]).T


def _combination(null_space: LiftedNullSpace, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    size = null_space.squares.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    weights = (
        torch.randn(null_space.dimension, dtype=torch.float64, generator=generator).to(size.device) / size
    )
    return torch.einsum("d,dij->ij", weights, null_space.squares), torch.einsum(
        "d,dik->ik", weights, null_space.mixed
    )
