"""Checks motions that a projected first layer hides (docs/theory.md, releases: projected transcript).

With ``W_1 = V B^T`` a batch X + A with ``A B = 0`` has ``W_1 (x_m + a_m) = V B^T x_m``: every pre-activation,
and so every delta, stays, and dV = dW_1 B changes by ``Delta_1 A B = 0``, whatever Delta_1 is. So nothing
that is sent changes, whichever tensors and rows it has and whatever the samples' weights are, and every
sample moves by itself: sample m in at least (its features strictly inside the box) - rank B dimensions. Small
steps along a_m and along -a_m stay in the box, and nothing else bounds them.
"""

from __future__ import annotations

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.certificate import Projected
from exan_verify.core.facts import Facts
from exan_verify.errors import CertificateRejected
from exan_verify.exact.linalg import rank_mod, solve
from exan_verify.exact.rational import RationalMatrix
from exan_verify.kernel.given import Subject, require

MAX_BITS = 1 << 32
"""Of all numbers of V, were they as long as Cramer's rule lets them be: half a gibibyte. With 512 neurons,
rank 256 and numbers of 64 bits it is half of that.
"""


def facts(evidence: Projected, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples that move.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    release = subject.question.release
    if release is None or release.input_basis is None:
        raise CertificateRejected("the release has no input basis")
    basis, weight = release.input_basis, subject.network.layers[0].weight
    seen = basis.shape[1]  # at least the rank
    longest = max(v.numerator.bit_length() + v.denominator.bit_length() for v in fractions(basis).flat)
    require(seen * seen * len(weight) * longest <= MAX_BITS, "the input basis is too large")
    together = np.concatenate([RationalMatrix.of(part).residues() for part in (basis, weight.T)], axis=1)
    # a rank mod p above r is a real rank above r: then W_1 is no V B^T, and V need not be looked for
    factored = rank_mod(together) <= seen and solve(basis, weight.T) is not None
    require(factored, "the first layer's weight is not V B^T for the release's input basis B")
    x = subject.batch.inputs
    inside = np.ones(x.shape, dtype=bool)
    if subject.question.domain is not None:
        lo, hi = subject.question.domain.bounds(x.shape[1])
        inside = (x > lo) & (x < hi)
    each = np.maximum(inside.sum(axis=1) - seen, 0)
    dimension = int(each.sum())
    require(dimension > 0, "no sample has more features that can move than the basis has columns")
    require(
        dimension == evidence.dimension,
        f"the family has dimension {dimension} at least, the certificate says {evidence.dimension}",
    )
    moving = {int(m) for m in np.flatnonzero(each)}
    return Facts(ambiguous=True, free=subject.leaving(moving))
