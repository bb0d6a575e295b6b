"""The search split into parts that run in parallel and survive an interruption.

The collection is grown to a size and dealt out into parts by a fixed rule: the same parts under the same
limits at any number of processes, so the same verdict. Finished parts are kept on disk under a name made of
everything that they depend on, and removed when the whole search is done.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from exan_verify.core.budget import Budget
from exan_verify.core.parallel import each
from exan_verify.decide.enumeration.search import (
    Collection,
    Equations,
    Limits,
    Tally,
    advance,
    close,
    search,
    size,
)

WAVE = 4
"""Parts between two looks at the budget."""

_FORMAT = "enumeration/1"


def search_in_parts(equations: Equations, budget: Budget, jobs: int, directory: Path | None = None) -> Tally:
    """The whole search; ``Tally.stopped`` when the budget ran out.

    ``directory``: where finished parts are kept (default: :func:`cache_directory`).
    """
    tally, limits = Tally(), _limits(budget)
    neuron, collection = _grown(equations, limits, tally)
    budget.spend(tally.work)
    if limits.reached(tally):
        tally.stopped = True
        return tally
    if neuron == equations.neurons or not collection:
        close(equations, collection, tally)
        return tally
    parts = _dealt(collection, _rule(equations)[1])
    store = Store.of(equations, directory or cache_directory())
    for start in range(0, len(parts), WAVE):
        if budget.exhausted:
            tally.stopped = True
            break
        limits = _limits(budget)
        wave = {k: parts[k] for k in range(start, min(len(parts), start + WAVE))}
        for found in _run(equations, neuron, wave, limits, jobs, store):
            tally.add(found)
            budget.spend(found.work)
        if tally.stopped:
            break
    else:
        store.clear(len(parts))
    return tally


def cache_directory() -> Path:
    """``exan_verify/enumeration`` below ``XDG_CACHE_HOME`` (default ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exan_verify" / "enumeration"


@dataclass(frozen=True, slots=True)
class Store:
    """Finished parts of one search on disk: one small JSON file each, with counts and sets of samples only.

    A directory that cannot be written stores nothing.
    """

    directory: Path
    name: str

    @classmethod
    def of(cls, equations: Equations, directory: Path) -> Store:
        """The store of a search, named by the content of its equations and the rule of the parts."""
        digest = sha256(f"{_FORMAT}/{_rule(equations)}/{equations.small}/{equations.groups}".encode())
        for array in (equations.delta, equations.outgoing, equations.inactive, equations.active):
            digest.update(f"{array.shape}".encode() + array.tobytes())
        return cls(directory, digest.hexdigest())

    def load(self, part: int) -> Tally | None:
        """A finished part, or None; a damaged file counts as none."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(self._path(part).read_text())
            opened = {int(k): int(v) for k, v in record["open_leaves"].items()}
            leaves = {int(leaf) for leaf in record["leaves"]}
            visited, work, depth = (int(record[k]) for k in ("visited", "work", "depth"))
            return Tally(leaves=leaves, open_leaves=opened, visited=visited, work=work, depth=depth)
        return None

    def save(self, part: int, tally: Tally) -> None:
        """Keep a finished part: written under another name, then renamed."""
        record = asdict(tally) | {"leaves": sorted(tally.leaves)}
        with suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.directory, suffix=".part")
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump(record, file)
                Path(name).replace(self._path(part))
            except BaseException:  # a full disk, or Ctrl-C: no half of a part stays
                Path(name).unlink(missing_ok=True)
                raise

    def clear(self, parts: int) -> None:
        """Remove the parts of a search that is done."""
        for part in range(parts):
            with suppress(OSError):
                self._path(part).unlink(missing_ok=True)

    def _path(self, part: int) -> Path:
        return self.directory / f"{self.name}-{part}.json"


def _rule(equations: Equations) -> tuple[int, int]:
    """How many subspaces are dealt out into how many parts: more for searches that will be longer."""
    parts = 8 << min(5, max(0, (equations.variables - 20) // 2))
    return 2048 * parts if parts <= 32 else 1 << 16, parts


def _grown(equations: Equations, limits: Limits, tally: Tally) -> tuple[int, Collection]:
    """The collection after the first neurons, as many as give enough subspaces to deal out."""
    neuron, collection = 0, equations.whole()
    enough, _ = _rule(equations)
    while collection and neuron < equations.neurons and size(collection) < enough:
        if limits.reached(tally):
            break
        collection = advance(equations, neuron, collection, tally)
        neuron += 1
    return neuron, collection


def _dealt(collection: Collection, count: int) -> list[Collection]:
    parts = []
    for k in range(count):
        batches = (batch.select(slice(k, None, count)) for batch in collection)
        parts.append(tuple(batch for batch in batches if batch.count))
    return [part for part in parts if part]


def _limits(budget: Budget) -> Limits:
    left = budget.seconds_left
    return Limits(work=budget.work_left, until=None if left is None else time.time() + left)


def _run(
    equations: Equations, neuron: int, parts: dict[int, Collection], limits: Limits, jobs: int, store: Store
) -> Iterator[Tally]:
    """The tallies of ``parts``, in any order, from the store or searched; finished ones are stored."""
    known = {k: store.load(k) for k in parts}
    missing = [k for k in parts if known[k] is None]
    yield from (_within(limits, found) for found in known.values() if found is not None)
    searching = partial(_numbered, equations, neuron, limits)
    for k, found in each(searching, ((k, parts[k]) for k in missing), jobs=jobs):
        if not found.stopped:
            store.save(k, found)
        yield _within(limits, found)


def _numbered(
    equations: Equations, neuron: int, limits: Limits, part: tuple[int, Collection]
) -> tuple[int, Tally]:
    number, start = part
    return number, search(equations, neuron, start, limits)


def _within(limits: Limits, found: Tally) -> Tally:
    """A part counts as stopped when it took more than its limit, whether or not it was done by then."""
    found.stopped |= limits.work is not None and found.work > limits.work
    return found
