"""Checks that choices of extra subspaces are refuted mod p, for every loss (Appendix E, E10).

A leaf is the list of equations that cut it out, independent mod p: one real subspace, whose echelon basis
reduces to that of the leaf. What is non-zero mod p is non-zero; upper bounds of real dimensions come from
equations and samples that are known exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import flint
import numpy as np

from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.rational import Mask
from exan_verify.kernel.given import require

_MOST = 3000
_MOST_CHOICES = 1 << 15
"""Subspaces at hand, and choices of M of them: seconds each. The engine stops at 3000 and at 20,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """``inactive``, ``active`` (n, N): functionals mod p; ``inactive_for``, ``active_for`` (n, M): samples
    that are known to satisfy them exactly; ``truth`` (N, M): columns (e_m, u_m); ``exact``: dependences among
    the outgoing weights mod p are dependences over Q.
    """

    inactive: Residues
    active: Residues
    inactive_for: Mask
    active_for: Mask
    groups: tuple[tuple[int, ...], ...]
    truth: Residues
    exact: bool

    @property
    def samples(self) -> int:
        """M."""
        return int(self.truth.shape[1])

    @property
    def variables(self) -> int:
        """N = M + K'."""
        return len(self.truth)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    """``basis`` (d, N); ``cuts``: (neuron, active); ``known``: per group, how many dimensions of its span."""

    basis: Residues
    cuts: tuple[tuple[int, bool], ...]
    known: tuple[int, ...]

    @property
    def spanned(self) -> bool:
        return sum(self.known) == len(self.basis)


def check_choices(system: System) -> None:
    """Reject unless every choice of M leaves is refuted, is the true samples, or lies in groups' spans."""
    leaves = _leaves(system)
    target = np.array([sum(int(v) for v in row) % PRIME for row in system.truth], dtype=np.uint64)
    choices = combinations_with_replacement(range(len(leaves)), system.samples)
    for count, chosen in enumerate(choices):
        require(count < _MOST_CHOICES, "too many choices of subspaces")
        counts = Counter(chosen)
        multiple = any(times > len(leaves[k].basis) for k, times in counts.items())
        if not multiple and not all(_in_one_group(leaves[k]) for k in counts):
            once = [leaves[k] for k in counts]
            everyone = [leaves[k] for k in chosen]
            require(_settled(system, once, everyone, target), "a choice of subspaces is not refuted")


def _leaves(system: System) -> list[_Leaf]:
    root = _Leaf(
        basis=np.eye(system.variables, dtype=np.uint64),
        cuts=(),
        known=tuple(len(group) for group in system.groups),
    )
    current = [root]
    for neuron in range(len(system.inactive)):
        current = [child for leaf in current for child in _branched(system, leaf, neuron)]
        require(len(current) <= _MOST, f"more than {_MOST} subspaces")
    return current


def _branched(system: System, leaf: _Leaf, neuron: int) -> list[_Leaf]:
    if len(leaf.basis) == 1 and leaf.spanned:
        return [leaf]
    sides = (
        (False, system.inactive[neuron], system.inactive_for[neuron]),
        (True, system.active[neuron], system.active_for[neuron]),
    )
    if any(_vanishes(functional, leaf.basis) for _, functional, _ in sides):
        return [leaf]
    found = []
    for active, _, satisfied in sides:
        cuts = (*leaf.cuts, (neuron, active))
        basis = _zeros(system, cuts)
        whole = [bool(satisfied[list(group)].all()) for group in system.groups]
        known = tuple(k if w else max(0, k - 1) for k, w in zip(leaf.known, whole, strict=True))
        if not _without_q(system, cuts, basis):
            found.append(_Leaf(basis=basis, cuts=cuts, known=known))
    return found


def _without_q(system: System, cuts: tuple[tuple[int, bool], ...], basis: Residues) -> bool:
    """Whether q = 0 on the real subspace: see :mod:`exan_verify.kernel.lifting.enumeration`."""
    if basis[:, : system.samples].any():
        return False
    inactive = sum(not active for _, active in cuts)
    return len(basis) == 0 or system.exact or inactive == system.samples


def _settled(system: System, once: list[_Leaf], everyone: list[_Leaf], target: Residues) -> bool:
    """Whether no invertible matrix with that sum has its columns there, or only the true samples."""
    rows = np.concatenate([leaf.basis for leaf in once])
    dimension = rank_mod(rows)
    if dimension < _at_most(system, once):
        return False
    # now `dimension` is that of the real sum of the leaves
    if dimension < system.samples or rank_mod(np.concatenate([rows, target[None]])) > dimension:
        return True
    return dimension == sum(len(leaf.basis) for leaf in everyone) and _holds_the_truth(system, everyone)


def _at_most(system: System, once: list[_Leaf]) -> int:
    """Upper bounds of the dimension of the sum: equations of all leaves; samples that several leaves have."""
    common = set(once[0].cuts).intersection(*(leaf.cuts for leaf in once))
    single = [k for k, group in enumerate(system.groups) if len(group) == 1]
    repeated = sum(max(0, sum(leaf.known[k] for leaf in once) - 1) for k in single)
    return min(system.variables - len(common), sum(len(leaf.basis) for leaf in once) - repeated)


def _holds_the_truth(system: System, everyone: list[_Leaf]) -> bool:
    """Whether the true samples fit into the leaves, one each."""
    group_of = {m: k for k, group in enumerate(system.groups) for m in group}
    held = [{m for m, k in group_of.items() if leaf.known[k] == len(system.groups[k])} for leaf in everyone]
    taken: dict[int, int] = {}

    def placed(leaf: int, tried: set[int]) -> bool:
        """Give the leaf a sample; one that is taken when its leaf finds another."""
        for m in held[leaf] - tried:
            tried.add(m)
            if m not in taken or placed(taken[m], tried):
                taken[m] = leaf
                return True
        return False

    return all(placed(leaf, set()) for leaf in range(len(held)))


def _in_one_group(leaf: _Leaf) -> bool:
    return leaf.spanned and sum(known > 0 for known in leaf.known) == 1


def _zeros(system: System, cuts: Sequence[tuple[int, bool]]) -> Residues:
    """The common zeros (d, N) of the named functionals mod p."""
    rows = [(system.active if active else system.inactive)[neuron] for neuron, active in cuts]
    entries = [int(v) for row in rows for v in row]
    basis, nullity = flint.nmod_mat(len(rows), system.variables, entries, PRIME).nullspace()
    columns = [[int(basis[i, k]) for i in range(system.variables)] for k in range(nullity)]
    return np.array(columns, dtype=np.uint64).reshape(nullity, system.variables)


def _vanishes(functional: Residues, basis: Residues) -> bool:
    values = [sum(int(a) * int(b) for a, b in zip(functional, row, strict=True)) % PRIME for row in basis]
    return not any(values)
