"""Checks the evidence of samples that are apart (docs/theory.md P.2).

Which neurons are exclusive, and every rank, is recomputed. A neuron that is active for one of the samples
left, a, and for any of those that are isolated already, has Delta_j . q = Delta_ja q_a for every column q
of Q^-1 that is zero at the isolated ones, as all columns are but theirs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exan_verify.core.certificate import Apart
from exan_verify.core.facts import Facts
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import Residues, negate_mod
from exan_verify.exact.rational import product_mod
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.lifting.degree_two import (
    Image,
    check_reduction,
    check_system,
    check_unknowns,
    feature_rank,
    image_at,
    label_told,
    weights_on_unknowns,
)

_Neurons = npt.NDArray[np.intp]


def facts(evidence: Apart, subject: Subject) -> Facts:
    """The samples that the evidence proves to be in every batch with this gradient.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    samples, layer = subject.samples, evidence.layer
    image = image_at(evidence.prime, evidence.point, subject)
    check_reduction(image, layer)
    require(evidence.parametrisation != "single", "one sample is apart from nobody")
    check_unknowns(image, evidence)
    left = _check_isolated(image, evidence)
    alone = set(evidence.isolated)
    if evidence.rest is not None:
        same = (layer, tuple(left), evidence.parametrisation)
        asked = (evidence.rest.layer, evidence.rest.members, evidence.rest.parametrisation)
        require(same == asked, f"samples {left} are left at layer {layer}, not what is lifted")
        require(len(left) > 0, "no sample is left to be lifted")
        check_system(image, evidence.rest, evidence.rest.members)
        alone |= {group[0] for group in evidence.rest.groups if len(group) == 1}
    # 3.4 downward: layer 1 needs nothing, the others every sample and full column ranks below
    require(layer == 1 or len(alone) == samples, "samples are open, and so are the layers below")
    for k in range(1, layer):
        require(rank_mod(image.delta(k)) == samples, f"rank(Delta_{k}) = M is not shown")
    # with every input known and rank [H_{L-1} 1] = M the output layer gives the loss vectors (6.4, step 10)
    depth = subject.network.depth
    whole = len(alone) == samples and feature_rank(image, depth - 1) == samples
    known = depth if whole else layer
    told = tuple(m for m in sorted(alone) if label_told(image, m, _backward(image, known, m)))
    require(told == evidence.determined, f"samples {list(told)} are determined")
    return Facts(determined=frozenset(told))


def _check_isolated(image: Image, evidence: Apart) -> list[int]:
    """Each of ``isolated`` is apart from every sample that is left with it; returns who is left at last."""
    delta, outgoing = image.delta(evidence.layer), weights_on_unknowns(image, evidence)
    pattern = image.subject.passed.pattern(evidence.layer)
    left = list(range(image.subject.samples))
    for a in evidence.isolated:
        require(a in left, f"sample {a} is isolated twice, or there is none")
        exclusive = pattern[:, left].sum(axis=1) == 1
        live = {m: np.flatnonzero(exclusive & pattern[:, m] & (delta[:, m] != 0)) for m in left}
        for b in left:
            if b != a:
                columns = outgoing.shape[1] + 2
                system = _joint(outgoing, delta, (a, live[a]), (b, live[b]))
                require(len(system) >= columns, f"samples {a} and {b} have too few exclusive neurons")
                require(rank_mod(system) == columns, f"samples {a} and {b} are not shown to be apart")
        left.remove(a)
    return left


def _joint(
    outgoing: Residues, delta: Residues, one: tuple[int, _Neurons], two: tuple[int, _Neurons]
) -> Residues:
    """[[W_a, -delta_a, 0], [W_b, 0, -delta_b]]: w_j . u = q_a Delta_ja and w_j . u = q_b Delta_jb."""
    (a, first), (b, second) = one, two
    system = np.zeros((len(first) + len(second), outgoing.shape[1] + 2), dtype=np.uint64)
    system[:, :-2] = outgoing[np.concatenate([first, second])]
    system[: len(first), -2] = negate_mod(delta[first, a])
    system[len(first) :, -1] = negate_mod(delta[second, b])
    return system


def _backward(image: Image, layer: int, m: int) -> Residues:
    """Sample m's map (n, K) from loss vectors to its delta at ``layer``; the identity at the last."""
    back = np.eye(image.subject.network.classes, dtype=np.uint64)
    for k in range(image.subject.network.depth - 1, layer - 1, -1):
        active = image.subject.passed.pattern(k)[:, [m]]
        back = product_mod(image.subject.network.layers[k].weight.T, back) * active
    return back
