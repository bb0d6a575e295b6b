"""Checks what averages of samples hide (docs/theory.md, releases: means).

The step is made on the means ``C X`` of fixed groups alone, C (groups, M) with 1/k at a group's k members,
with the label that the members share. So everything that is sent is a function of C X and the labels,
whichever tensors and rows it has and whatever the weights are, and any X' with ``C X' = C X`` inside the
domain has the same release. Feature by feature these X' are a polytope, bounded where the domain is:

* A group that shares no member with another one, k members with sum s in [lo, hi]: all x' in [lo, hi]^k with
  sum s, of dimension k - 1 where ``k lo < s < k hi``, that is where not all members stand on one face. Then
  every member takes more than one value. Members on faces count: they move inwards.
* Groups that share members: ``x' = x + a`` with ``C a = 0`` for small a that are zero at members on a face:
  the null space of C on the other members, exactly over Q.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from exan_verify.core.certificate import Averaged
from exan_verify.core.facts import Facts
from exan_verify.errors import CertificateRejected
from exan_verify.exact.linalg import nullspace
from exan_verify.exact.rational import Mask
from exan_verify.kernel.given import Subject, require

MAX_WORK = 1 << 27
"""Multiplications of all eliminations over Q: groups times members times the fewer of both, for each
different set of members that can move at a feature. Seconds.
"""


def facts(evidence: Averaged, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the members that move.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    release = subject.question.release
    if release is None or release.averages is None:
        raise CertificateRejected("the release has no averages")
    low, high = _off_the_faces(subject)
    dimension, moving, work = 0, set[int](), 0
    for members, groups in _components(release.averages):
        if all(len(group) == len(members) for group in groups):
            somewhere = low[members].any(axis=0) & high[members].any(axis=0)
            features = int(somewhere.sum()) if len(members) > 1 else 0
            dimension += (len(members) - 1) * features
            moving |= set(members) if features else set()
            continue
        sums = np.array([[int(m in group) for m in members] for group in map(set, groups)], dtype=object)
        inside = (low & high)[members]
        for bits, count in Counter(map(tuple, inside.T.tolist())).items():
            free = [k for k, there in enumerate(bits) if there]
            work += sums.size * min(sums.shape)
            require(work <= MAX_WORK, "too many groups share members for an elimination over Q")
            if not free:
                continue
            space = nullspace(sums[:, free])
            dimension += space.shape[1] * count
            moving |= {members[free[k]] for k in np.flatnonzero((space != 0).any(axis=1))}
    require(dimension > 0, "the means leave no member anything to move in")
    require(
        dimension == evidence.dimension,
        f"the means leave {dimension} dimensions at least, the certificate says {evidence.dimension}",
    )
    return Facts(ambiguous=True, free=subject.leaving(moving))


def _off_the_faces(subject: Subject) -> tuple[Mask, Mask]:
    """Which entries (M, d) are above the domain's lower bound, and which below its upper one."""
    x = subject.batch.inputs
    if subject.question.domain is None:
        everywhere: Mask = np.ones(x.shape, dtype=bool)
        return everywhere, everywhere
    lo, hi = subject.question.domain.bounds(x.shape[1])
    return np.asarray(x > lo, dtype=bool), np.asarray(x < hi, dtype=bool)


def _components(averages: tuple[tuple[int, ...], ...]) -> list[tuple[list[int], list[tuple[int, ...]]]]:
    """The samples that groups connect with one another, in their order, with those groups."""
    leader: dict[int, int] = {}

    def found(m: int) -> int:
        while leader.setdefault(m, m) != m:
            leader[m] = leader[leader[m]]
            m = leader[m]
        return m

    for group in averages:
        for m in group:
            leader[found(m)] = found(group[0])
    parts: dict[int, tuple[list[int], list[tuple[int, ...]]]] = {}
    for m in sorted(leader):
        parts.setdefault(found(m), ([], []))[0].append(m)
    for group in averages:
        parts[found(group[0])][1].append(group)
    return list(parts.values())
