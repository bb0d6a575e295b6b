"""The search over neuron states (docs/theory.md 3.3 and Appendix E): which subspaces cover every candidate.

All subspaces at hand have been cut with the same first neurons of a fixed order. One step takes the next
neuron: a subspace on which one of its two functionals vanishes mod p is kept whole, which covers both states;
any other is replaced by its two cuts. Large collections are halved and searched one half after the other, so
memory stays bounded; what is cut and in which order never depends on time or on the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

import numpy as np
import numpy.typing as npt

from exan_verify.decide.enumeration.subspaces import Masks, Subspaces, joined, merged
from exan_verify.exact.modular import Residues, add_mod, negate_mod

MAX_ENTRIES = 1 << 22
"""Residues in one collection before it is halved: 32 MiB, some six times that with temporaries."""

Collection = tuple[Subspaces, ...]
"""Subspaces by dimension, one batch each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Equations:
    """The two functionals of every neuron, in the order in which neurons are taken.

    ``delta`` (n, M) and ``outgoing`` (n, K') mod p: inactive means delta . q = 0, active means
    delta . q = outgoing . u. ``inactive`` and ``active`` (n,): the samples for which that equation is known
    to hold exactly, as bits. ``groups``: bits of the samples that share the layer's pattern, groups of two
    and more. ``small``: linear dependences among rows of ``outgoing`` mod p are dependences
    over the rationals.
    """

    delta: Residues
    outgoing: Residues
    inactive: Masks
    active: Masks
    groups: tuple[int, ...]
    small: bool

    @property
    def neurons(self) -> int:
        """n."""
        return len(self.delta)

    @property
    def samples(self) -> int:
        """M."""
        return int(self.delta.shape[1])

    def kept(self, members: Masks, known: int) -> Masks:
        """Bits after a cut that the samples ``known`` satisfy exactly.

        A sample alone is in or out. The bits of a group count dimensions of its span: a cut that not all of
        the group are known to satisfy takes at most one away.
        """
        kept: Masks = members & np.uint64(known)
        for group in self.groups:
            bits = members & np.uint64(group)
            if group & ~known:
                bits &= bits - np.minimum(bits, np.uint64(1))
            kept = (kept & ~np.uint64(group)) | bits
        return kept

    def support(self, members: int) -> int:
        """The samples of every group that has a bit in ``members``."""
        return reduce(or_, (group for group in self.groups if group & members), members)

    @property
    def variables(self) -> int:
        """M + K'."""
        return self.samples + int(self.outgoing.shape[1])

    def whole(self) -> Collection:
        """The whole space, before any neuron."""
        everyone = np.array([(1 << self.samples) - 1], dtype=np.uint64)
        basis = np.eye(self.variables, dtype=np.uint64)[None]
        return (Subspaces(basis, everyone, np.zeros(1, dtype=np.int16)),)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a search found: accepted leaves as sets of samples (bits), open leaves, and what it took.

    ``open_leaves``: leaves whose dimension exceeds their number of samples, by dimension. ``depth``: how many
    neurons were used. ``stopped``: the limit that ended the search early.
    """

    leaves: set[int] = field(default_factory=set)
    open_leaves: dict[int, int] = field(default_factory=dict)
    visited: int = 0
    work: int = 0
    depth: int = 0
    stopped: bool = False

    def add(self, other: Tally) -> None:
        """Add another part's counts."""
        self.leaves |= other.leaves
        for dimension, count in other.open_leaves.items():
            self.open_leaves[dimension] = self.open_leaves.get(dimension, 0) + count
        self.visited += other.visited
        self.work += other.work
        self.depth = max(self.depth, other.depth)
        self.stopped |= other.stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a search stops: ``work`` in modular multiplications, ``until`` in seconds of ``time.time``."""

    work: int | None = None
    until: float | None = None

    def reached(self, tally: Tally) -> bool:
        """Whether the tally exceeds a limit."""
        return (self.work is not None and tally.work > self.work) or (
            self.until is not None and time.time() > self.until
        )


def search(equations: Equations, neuron: int, start: Collection, limits: Limits) -> Tally:
    """Search everything below ``start``, whose subspaces have been cut with the first ``neuron`` neurons."""
    tally = Tally()
    waiting = [(neuron, start)]
    while waiting:
        neuron, collection = waiting.pop()
        if not collection:
            continue
        if neuron == equations.neurons:
            close(equations, collection, tally)
        elif entries(collection) > MAX_ENTRIES and size(collection) > 1:
            waiting += [(neuron, half) for half in halves(collection)]
        elif limits.reached(tally):
            tally.stopped = True
            return tally
        else:
            waiting.append((neuron + 1, advance(equations, neuron, collection, tally)))
    return tally


def advance(equations: Equations, neuron: int, collection: Collection, tally: Tally) -> Collection:
    """The collection after one more neuron; leaves that are a single true sample go to the tally."""
    delta = np.concatenate([equations.delta[neuron], np.zeros_like(equations.outgoing[neuron])])
    outgoing = np.concatenate([np.zeros_like(equations.delta[neuron]), equations.outgoing[neuron]])
    following: dict[int, list[Subspaces]] = {}
    for batch in collection:
        inactive = batch.values(delta)
        active = add_mod(inactive, negate_mod(batch.values(outgoing)))
        uncut = np.logical_not(inactive.any(axis=1) & active.any(axis=1))
        if uncut.any():
            following.setdefault(batch.dimension, []).append(batch.select(uncut))
        if batch.dimension == 1 or uncut.all():
            continue
        parents, chosen = batch.select(~uncut), np.flatnonzero(~uncut)
        states = (
            (inactive[chosen], int(equations.inactive[neuron]), 1),
            (active[chosen], int(equations.active[neuron]), 0),
        )
        for values, known, counted in states:
            children = Subspaces(
                parents.cut(values),
                equations.kept(parents.members, known),
                parents.inactive + np.int16(counted),
            )
            following.setdefault(batch.dimension - 1, []).append(_kept(equations, children, tally))
        tally.visited += 2 * parents.count
        tally.work += 2 * parents.count * batch.dimension * equations.variables
    tally.depth = max(tally.depth, neuron + 1)
    batches = (joined(parts) for parts in following.values())
    return tuple(merged(batch) for batch in batches if batch.count)


def close(equations: Equations, collection: Collection, tally: Tally) -> None:
    """Accept the subspaces whose dimension is the number of their bits; count the others as open."""
    for batch in collection:
        spanned = np.bitwise_count(batch.members) == batch.dimension
        tally.leaves.update(equations.support(int(members)) for members in batch.members[spanned])
        if not spanned.all():
            more = int((~spanned).sum())
            tally.open_leaves[batch.dimension] = tally.open_leaves.get(batch.dimension, 0) + more


def size(collection: Collection) -> int:
    """How many subspaces."""
    return sum(batch.count for batch in collection)


def entries(collection: Collection) -> int:
    """How many residues."""
    return sum(batch.basis.size for batch in collection)


def halves(collection: Collection) -> tuple[Collection, Collection]:
    """Every other subspace, and the rest."""
    parts = (tuple(batch.select(slice(k, None, 2)) for batch in collection) for k in (0, 1))
    first, second = (tuple(batch for batch in part if batch.count) for part in parts)
    return first, second


def _kept(equations: Equations, children: Subspaces, tally: Tally) -> Subspaces:
    """Children without those whose q-part is surely zero and those that are lines in a known span.

    q-part zero mod p, dimension k > 0: the subspace is {q = 0, outgoing . u = 0 for the active neurons used}.
    With M inactive equations, q = 0 follows from them alone; with ``small``, dependences of the active
    rows hold exactly. Otherwise the subspace stays (Appendix E, step 4).
    """
    empty = ~children.basis[:, 0, : equations.samples].any(axis=1)
    if not equations.small:
        empty &= children.inactive == equations.samples
    single = np.zeros(children.count, dtype=bool)
    if children.dimension == 1:
        single = np.bitwise_count(children.members) == 1
        alone = np.unique(children.members[single & ~empty])
        tally.leaves.update(equations.support(int(members)) for members in alone)
    return children.select(~(empty | single))


def ordered(delta: Residues) -> npt.NDArray[np.int64]:
    """The order of neurons, rows of ``delta`` (n, M): few non-zero deltas first, few samples not yet seen.

    Neurons among few samples meet in few subspaces, which merge. The weights are a rule of thumb.
    """
    support = delta != 0
    counts = support.sum(axis=1)
    left = np.ones(len(delta), dtype=bool)
    seen = np.zeros(delta.shape[1], dtype=bool)
    order = []
    for _ in range(len(delta)):
        cost = np.where(left, counts + (support & ~seen).sum(axis=1), len(seen) * 3)
        chosen = int(np.argmin(cost))
        left[chosen] = False
        seen |= support[chosen]
        order.append(chosen)
    return np.array(order, dtype=np.int64)


def masks(table: npt.NDArray[np.bool_]) -> Masks:
    """Rows of a table (n, M) as bits."""
    weights = np.uint64(1) << np.arange(table.shape[1], dtype=np.uint64)
    bits: Masks = (table * weights).sum(axis=1, dtype=np.uint64)
    return bits


def samples_of(members: int) -> tuple[int, ...]:
    """The positions of the bits."""
    return tuple(m for m in range(members.bit_length()) if members >> m & 1)


def components(leaves: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    """Leaves that share samples joined, as sets of samples in the order of their first members."""
    parts: list[int] = []
    for leaf in leaves:
        touching = [part for part in parts if part & leaf]
        parts = [part for part in parts if not part & leaf]
        parts.append(leaf | sum(touching))
    return tuple(sorted(samples_of(part) for part in parts))
