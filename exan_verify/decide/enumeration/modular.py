"""Extra subspaces without rational coefficients (docs/theory.md Appendix E, E10): choices refuted mod p.

For cross_entropy and bce the layer's equations have coefficients in Q(T). Subspaces are searched as in
:mod:`.search`, but one by one and with the list of equations of each, so that a leaf is *one* real subspace
whose echelon basis reduces to the leaf's. A sum that is impossible mod p is then impossible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.decide.enumeration.search import Equations, samples_of
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues

Row = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """``basis``: reduced echelon form mod p; ``equations``: (neuron, active) of each cut; ``members``: bits
    of true samples that satisfy them exactly, as in :class:`.subspaces.Subspaces`.
    """

    basis: tuple[Row, ...]
    equations: frozenset[tuple[int, bool]]
    members: int

    @property
    def dimension(self) -> int:
        """Of the real subspace as well: the equations are independent mod p."""
        return len(self.basis)

    @property
    def spanned(self) -> bool:
        """Whether it is a sum of spans of true samples."""
        return self.members.bit_count() == self.dimension


def leaves(equations: Equations, budget: Budget, most: int) -> list[Leaf] | None:
    """The leaves of the search without merging; None when there are more than ``most`` or no budget."""
    variables, everyone = equations.variables, (1 << equations.samples) - 1
    unit = tuple(tuple(int(i == k) for k in range(variables)) for i in range(variables))
    current = [Leaf(basis=unit, equations=frozenset(), members=everyone)]
    for neuron in range(equations.neurons):
        budget.spend(sum(2 * leaf.dimension * variables for leaf in current))
        current = [child for leaf in current for child in _children(equations, neuron, leaf)]
        if len(current) > most or budget.exhausted:
            return None
    return current


def refuted(equations: Equations, found: Sequence[Leaf], truth: Residues, most: int) -> str | None:
    """None when no choice of leaves but true samples and their groups can be a batch; else what stays open.

    ``truth`` (N, M): the columns (e_m, u_m) mod p.
    """
    target = _total(truth)
    choices = combinations_with_replacement(range(len(found)), equations.samples)
    for looked_at, chosen in enumerate(choices):
        if looked_at == most:
            return f"more than {most} choices"
        if _open(equations, [found[k] for k in chosen], Counter(chosen), target):
            return f"a choice of {len(found)} subspaces is not refuted"
    return None


def _open(equations: Equations, chosen: list[Leaf], counts: Counter[int], target: Row) -> bool:
    if any(leaf.dimension < counts[k] for k, leaf in zip(counts, _once(chosen, counts), strict=True)):
        return False
    if all(leaf.spanned and _one_group(equations, leaf) for leaf in chosen):
        return False
    once = _once(chosen, counts)
    rows = [row for leaf in once for row in leaf.basis]
    rank = _rank(rows)
    if rank < _bound(equations, once):
        return True
    if _rank([*rows, target]) > rank or rank < equations.samples:
        return False
    # one solution, and the true samples are one
    return rank < sum(leaf.dimension for leaf in chosen) or not _has_truth(equations, chosen)


def _once(chosen: list[Leaf], counts: Counter[int]) -> list[Leaf]:
    """Every leaf once, in the order of ``counts``."""
    starts = np.cumsum([0, *list(counts.values())[:-1]])
    return [chosen[int(k)] for k in starts]


def _bound(equations: Equations, once: list[Leaf]) -> int:
    """What the real dimension of the sum cannot exceed: common equations cut it, samples count once."""
    common = frozenset.intersection(*(leaf.equations for leaf in once))
    alone = [leaf.members & ~sum(equations.groups) for leaf in once]
    shared = sum(members.bit_count() for members in alone) - _union(alone).bit_count()
    return min(equations.variables - len(common), sum(leaf.dimension for leaf in once) - shared)


def _union(sets: list[int]) -> int:
    total = 0
    for members in sets:
        total |= members
    return total


def _has_truth(equations: Equations, chosen: list[Leaf]) -> bool:
    """Whether the leaves can be given different true samples, each in its leaf."""
    return any(True for _ in _assigned(equations, chosen, 0))


def _assigned(equations: Equations, chosen: list[Leaf], used: int) -> Iterator[int]:
    if not chosen:
        yield used
        return
    whole = [g for g in equations.groups if (chosen[0].members & g).bit_count() == g.bit_count()]
    certain = (chosen[0].members & ~sum(equations.groups)) | sum(whole)
    for m in samples_of(certain & ~used):
        yield from _assigned(equations, chosen[1:], used | 1 << m)


def _one_group(equations: Equations, leaf: Leaf) -> bool:
    """Whether the true samples that span the leaf share a pattern."""
    support = equations.support(leaf.members)
    return support.bit_count() == 1 or support in equations.groups


def _children(equations: Equations, neuron: int, leaf: Leaf) -> Iterator[Leaf]:
    if leaf.dimension == 1 and leaf.spanned:
        yield leaf
        return
    delta = [int(v) for v in equations.delta[neuron]]
    outgoing = [int(v) for v in equations.outgoing[neuron]]
    states = ((*delta, *(0 for _ in outgoing)), (*delta, *(-v for v in outgoing)))
    values = [[_value(state, row) for row in leaf.basis] for state in states]
    if not all(map(any, values)):
        yield leaf
        return
    known = (int(equations.inactive[neuron]), int(equations.active[neuron]))
    for active, column in enumerate(values):
        members = int(equations.kept(np.array([leaf.members], dtype=np.uint64), known[active])[0])
        cut = Leaf(
            basis=_cut(leaf.basis, column),
            equations=leaf.equations | {(neuron, bool(active))},
            members=members,
        )
        if cut.basis and not _empty(equations, cut):
            yield cut


def _empty(equations: Equations, leaf: Leaf) -> bool:
    """Whether q = 0 on the real subspace (step 4)."""
    if any(any(row[: equations.samples]) for row in leaf.basis):
        return False
    inactive = sum(not active for _, active in leaf.equations)
    return equations.small or inactive == equations.samples


def _cut(basis: tuple[Row, ...], values: list[int]) -> tuple[Row, ...]:
    last = max(k for k, v in enumerate(values) if v)
    inverse = pow(values[last], -1, PRIME)
    ratios = [v * inverse % PRIME for v in values]
    return tuple(
        tuple((a - ratios[k] * b) % PRIME for a, b in zip(row, basis[last], strict=True))
        for k, row in enumerate(basis)
        if k != last
    )


def _value(functional: Sequence[int], row: Row) -> int:
    return sum(a * b for a, b in zip(functional, row, strict=True)) % PRIME


def _total(truth: Residues) -> Row:
    return tuple(sum(int(v) for v in row) % PRIME for row in truth)


def _rank(rows: Sequence[Row]) -> int:
    return rank_mod(np.array(rows, dtype=np.uint64))
