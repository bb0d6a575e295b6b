"""The laws for as long as one likes: counts, a file for every disagreement, and a state to go on from.

Each law is tried in chunks; what a chunk draws depends on the seed, the law's name and the chunk's number
alone, so that a campaign that is interrupted, resumed or run by more processes tries the same cases.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from exan_verify.core import __version__
from exan_verify.errors import FileError, InputError, unknown
from exan_verify.testing.laws import Law, all_laws
from exan_verify.testing.laws.law import Case, Disagreement, from_record, to_record

SCHEMA = "exan/campaign/1"

CHUNK = 20
"""Instances of a law between two looks at the time; the first of them is always the smallest there is."""

SHRINKING = 30.0
"""Seconds that a disagreement is made smaller: some of them could be for hours."""

_STATE = "campaign.json"


@dataclass(slots=True)
class Count:
    """Of one law: chunks done, instances, what came of them, disagreements (their files), and seconds."""

    chunks: int = 0
    instances: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def open_share(self) -> float:
        """Of the instances, those that end UNKNOWN."""
        left = sum(n for outcome, n in self.outcomes.items() if outcome.split(",")[0] == "unknown")
        return left / max(1, self.instances)


@dataclass(slots=True)
class Campaign:
    """What was tried so far: counts by law, the seed, and the seconds that it took."""

    seed: int
    counts: dict[str, Count]
    seconds: float = 0.0

    @property
    def instances(self) -> int:
        """Of all laws."""
        return sum(count.instances for count in self.counts.values())

    @property
    def wrong(self) -> int:
        """Disagreements found."""
        return sum(len(count.wrong) for count in self.counts.values())

    @property
    def mutants(self) -> int:
        """Mutated certificates that were shown to the kernel."""
        found = self.counts.get("mutants", Count()).outcomes
        return sum(n for outcome, n in found.items() if outcome.endswith(": rejected"))

    def summary(self) -> str:
        """One sentence that can be quoted."""
        mutants = f" and {self.mutants:,} mutated certificates" if self.mutants else ""
        return (
            f"{self.instances:,} instances of {len(self.counts)} laws{mutants}, seed {self.seed}, "
            f"{self.seconds / 60:.1f} minutes, exan-verify {__version__}: {self.wrong} wrong"
        )

    def to_record(self) -> dict[str, Any]:
        """As JSON, schema ``exan/campaign/1``."""
        laws = {
            name: {
                "chunks": count.chunks,
                "instances": count.instances,
                "outcomes": dict(count.outcomes),
                "open_share": count.open_share,
                "wrong": count.wrong,
                "seconds": round(count.seconds, 1),
            }
            for name, count in self.counts.items()
        }
        return {
            "schema": SCHEMA,
            "version": __version__,
            "seed": self.seed,
            "seconds": self.seconds,
            "instances": self.instances,
            "wrong": self.wrong,
            "laws": laws,
            "summary": self.summary(),
        }


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a chunk: ``failure`` is the smallest case of a disagreement; not ``whole`` where the time
    was up before its end."""

    instances: int
    outcomes: Mapping[str, int]
    failure: Mapping[str, Any] | None
    whole: bool
    seconds: float = 0.0


def chosen_laws(names: Sequence[str] = ()) -> dict[str, Law]:
    """The laws of these names, or all. Raises :class:`InputError` for another name."""
    laws = all_laws()
    for name in names:
        if name not in laws:
            raise InputError(unknown("law", name, laws))
    return {name: laws[name] for name in names or laws}


def try_chunk(name: str, seed: int, number: int, end: float | None = None) -> Tried:
    """Chunk ``number`` of a law: :data:`CHUNK` cases, drawn by ``seed``, until ``end`` of time.time()."""
    law, start = all_laws()[name], time.time()
    outcomes: Counter[str] = Counter()
    instances = 0
    failed: list[tuple[Case, str]] = []
    late, enough = False, 0.0

    def judge(case: Case) -> None:
        nonlocal instances, late, enough
        if failed and time.monotonic() > enough:
            return
        if late or (end is not None and time.time() > end and not failed):
            late = True
            return
        try:
            found = law.judge(case)
        # a crash is a disagreement as well: a law speaks of what comes back
        except Exception as error:
            enough = enough or time.monotonic() + SHRINKING
            said = str(error) if isinstance(error, Disagreement) else f"{type(error).__name__}: {error}"
            failed.append((case, said))
            raise
        if not failed:
            instances += 1
            outcomes.update(found)

    digest = hashlib.sha256(f"{seed}/{name}/{number}".encode()).digest()
    run = given(law.cases())(judge)
    run = settings(
        max_examples=CHUNK,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(run)
    failure = None
    try:
        seeded(int.from_bytes(digest[:8], "big"))(run)()
    except Exception as error:
        if not failed:  # nothing was drawn: the strategy itself is at fault
            raise InputError(
                f"law {name}: drawing its cases raised {type(error).__name__}: {error}"
            ) from error
        failure = to_record(name, *failed[-1])
        instances += 1
    return Tried(instances, dict(outcomes), failure, not late, time.time() - start)


def run(
    *,
    seed: int = 0,
    laws: Sequence[str] = (),
    seconds: float | None = None,
    instances: int | None = None,
    jobs: int = 1,
    out: str | Path | None = None,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Campaign:
    """Try the ``laws`` (default: all), in turn, for ``seconds`` or until each has that many ``instances``.

    ``out``: a folder for the state and for the cases of disagreements, one JSON file each; with ``resume``
    the state there is gone on from. A law with a disagreement is not tried further. ``tell`` is told how far
    it is.

    Raises :class:`InputError` for a law that there is none of, or a campaign without an end, and
    :class:`FileError` where a state cannot be read or written.
    """
    if seconds is None and instances is None:
        raise InputError("a campaign needs an end: give minutes, or instances per law")
    chosen = chosen_laws(laws)
    folder = None if out is None else Path(out)
    done = Campaign(seed=seed, counts={name: Count() for name in chosen})
    if folder is not None:
        done = _started(folder, done, resume=resume)
    elif resume:
        raise InputError("resume: the state lies in the folder of --out; give it")
    start, before = time.time(), done.seconds
    end = None if seconds is None else start + seconds
    for name, tried in _results(done, list(chosen), instances, end, jobs):
        count = done.counts[name]
        count.chunks += 1
        count.instances += tried.instances
        count.outcomes.update(tried.outcomes)
        count.seconds += tried.seconds
        if tried.failure is not None:
            count.wrong.append(_kept(folder, name, tried.failure))
        done.seconds = before + time.time() - start
        if folder is not None:
            _write(folder / _STATE, done.to_record())
        tell(f"{done.instances} instances, {done.wrong} wrong; last: {name}, {count.instances}")
    done.seconds = before + time.time() - start
    return done


def _results(
    done: Campaign, chosen: Sequence[str], instances: int | None, end: float | None, jobs: int
) -> Iterator[tuple[str, Tried]]:
    """Chunks of the chosen laws, whole ones only: those with the fewest first, and slow laws less often, by
    the root of what a chunk takes. What a chunk tries does not depend on when it comes.
    """

    def wanted(ahead: Mapping[str, int]) -> str | None:
        if end is not None and time.time() > end:
            return None
        left = [
            name
            for name, count in done.counts.items()
            if name in chosen
            and not count.wrong
            and (instances is None or count.instances + CHUNK * ahead.get(name, 0) < instances)
        ]
        return min(left, key=lambda name: _share(done.counts[name], ahead.get(name, 0)), default=None)

    tried = _in_turn(done, wanted, end) if jobs == 1 else _side_by_side(done, wanted, end, jobs)
    # what the end of the time cut is tried again by whoever resumes
    yield from ((name, one) for name, one in tried if one.whole or one.failure is not None)


def _share(count: Count, ahead: int) -> float:
    """What a law has had, its chunks that are on their way included."""
    mean = count.seconds / count.chunks if count.chunks else 0.0
    return (count.chunks + ahead) * math.sqrt(max(mean, 1e-3))


Wanted = Callable[[Mapping[str, int]], str | None]


def _in_turn(done: Campaign, wanted: Wanted, end: float | None) -> Iterator[tuple[str, Tried]]:
    while (name := wanted({})) is not None:
        yield name, try_chunk(name, done.seed, done.counts[name].chunks, end)


def _side_by_side(
    done: Campaign, wanted: Wanted, end: float | None, jobs: int
) -> Iterator[tuple[str, Tried]]:
    """Chunks in processes of their own, handed on in the order of their numbers: the state says how many of
    a law's chunks are done.
    """
    with ProcessPoolExecutor(max_workers=jobs, mp_context=get_context("spawn")) as pool:
        running: dict[Future[Tried], tuple[str, int]] = {}
        kept: dict[tuple[str, int], Tried] = {}
        while True:
            ahead = Counter(name for name, _ in [*running.values(), *kept])
            while len(running) < jobs and (name := wanted(ahead)) is not None:
                number = done.counts[name].chunks + ahead[name]
                running[pool.submit(try_chunk, name, done.seed, number, end)] = name, number
                ahead[name] += 1
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                kept[running.pop(future)] = future.result()
            for name, count in done.counts.items():
                while (name, count.chunks) in kept:
                    tried = kept.pop((name, count.chunks))
                    yield name, tried
                    if not tried.whole and tried.failure is None:
                        break


def _started(folder: Path, fresh: Campaign, *, resume: bool) -> Campaign:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made ({error.strerror}); give another folder") from None
    state = folder / _STATE
    if not state.exists():
        return fresh
    if not resume:
        raise InputError(f"{folder} holds a campaign already; resume it, or give another folder")
    try:
        held = msgspec.json.decode(state.read_bytes())
        counts = {
            name: Count(
                one["chunks"],
                one["instances"],
                Counter(one["outcomes"]),
                list(one["wrong"]),
                float(one["seconds"]),
            )
            for name, one in held["laws"].items()
        }
        found = Campaign(seed=held["seed"], counts=counts, seconds=held["seconds"])
        version = held["version"]
    except (msgspec.DecodeError, OSError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{state}: is no campaign's state ({error}); give another folder") from None
    if found.seed != fresh.seed or version != __version__:
        raise InputError(
            f"{folder} holds a campaign of seed {found.seed} and version {version}; resume it with these, "
            "or give another folder"
        )
    found.counts = {name: found.counts.get(name, Count()) for name in fresh.counts} | found.counts
    return found


def _kept(folder: Path | None, name: str, failure: Mapping[str, Any]) -> str:
    if folder is None:
        return str(failure["says"])
    path = folder / f"case-{name}.json"
    _write(path, failure)
    return path.name


def _write(path: Path, record: Mapping[str, Any]) -> None:
    from exan_verify.api.files import write_atomically
    from exan_verify.api.records import pretty

    write_atomically(path, pretty(record))


def replay(path: str | Path) -> tuple[str, Mapping[str, int]]:
    """The law of a case's file, and what comes of it now.

    Raises :class:`Disagreement` where the law still does not hold of it, and :class:`FileError` where the
    file is no case.
    """
    try:
        record = msgspec.json.decode(Path(path).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise FileError(f"{path}: is no case of a campaign ({error}); give a case-*.json") from None
    name, case = from_record(record)
    laws = all_laws()
    if name not in laws:
        raise FileError(f"{path}: {unknown('law', name, laws)}")
    try:
        return name, laws[name].judge(case)
    except Disagreement:
        raise
    except Exception as error:
        raise Disagreement(f"{type(error).__name__}: {error}") from error
