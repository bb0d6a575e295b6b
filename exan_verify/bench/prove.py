"""``exan bench prove``: certificates as theorems, written, and checked by coqc alone.

Cases are drawn as those of ``exan bench certify``. Every case and seed runs in a process of its own, so that
coqc's processor time and peak memory are its own; both count the file and the question of what its theorem
rests on. Where coqc or the compiled library is missing, files are written and the rows say what is missing.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from exan_verify.api.certify import certify
from exan_verify.api.prove import prove
from exan_verify.bench import suite
from exan_verify.bench.cases.certify_cases import Case, build
from exan_verify.bench.suite import Options, Suite, isolated, run_seeds
from exan_verify.coq.compiling import compiled
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Loss
from exan_verify.errors import ExanError

MSE = Loss.MSE

CASES = (
    Case(name="4-8-3 M=2 mse, integers", widths=(4, 8, 3), samples=2, data="integers", loss=MSE),
    Case(name="4-16-3 M=2 mse, integers", widths=(4, 16, 3), samples=2, data="integers", loss=MSE),
    Case(name="4-5-3 M=2 hinge, integers", widths=(4, 5, 3), samples=2, data="integers", loss=Loss.HINGE),
    Case(name="16-128-10 M=8 mse", widths=(16, 128, 10), samples=8, loss=MSE),
    Case(name="16-128-10 M=8", widths=(16, 128, 10), samples=8),
    Case(name="64-48-40-10 M=5, three share layer 1", widths=(64, 48, 40, 10), samples=5, data="shared"),
    Case(name="100-40-4 M=8, degree 3", widths=(100, 40, 4), samples=8),
    Case(name="784-512-10 M=16 MNIST, mse", widths=(784, 512, 10), samples=16, data="mnist", loss=MSE),
    Case(name="784-512-10 M=16 MNIST", widths=(784, 512, 10), samples=16, data="mnist"),
    Case(name="784-512-10 M=16, dense inputs", widths=(784, 512, 10), samples=16, named=True),
)
"""The rows; the loss is cross_entropy but where it is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One case at one seed: times in seconds, ``coqc_seconds`` of one processor; ``refused``: why there is no
    file, or coqc did not run."""

    outcome: str
    certify_seconds: float
    write_seconds: float
    kilobytes: float | None
    accepted: bool
    coqc_seconds: float | None
    peak_mib: float | None
    refused: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A case over its seeds: medians, of ``coqc_worst`` and ``peak_mib`` the largest.

    ``files``: how many were written; ``accepted``: how many of these coqc accepts; ``refused``: the reasons
    for which there is no file or coqc did not run.
    """

    samples: int
    seeds: int
    outcomes: dict[str, int]
    files: int
    accepted: int
    certify_seconds: float
    write_seconds: float
    kilobytes: float | None
    coqc_seconds: float | None
    coqc_worst: float | None
    peak_mib: float | None
    refused: tuple[str, ...]


def measure(case: Case, options: Options) -> Iterator[Row]:
    """The row of a case."""
    yield _summary(case, run_seeds(case.name, options, partial(isolated, partial(run_case, case))))


def run_case(case: Case, seed: int) -> Run:
    """One case at one seed, coqc as a child of this process."""
    network, batch = build(case, seed)
    assert isinstance(network, ReluNetwork)
    start = time.perf_counter()
    verdict = certify(network, batch=batch, loss=case.loss)
    certified = time.perf_counter()
    kilobytes = coqc_seconds = peak = refused = None
    try:
        if verdict.certificate is None:
            raise ExanError(verdict.reason)
        text = prove(verdict.certificate, network, batch=batch)
        kilobytes = len(text.encode()) / 1000
    except ExanError as error:
        refused = str(error)
    written = time.perf_counter()
    if kilobytes is not None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "claim.v"
                path.write_text(text)
                compiled(path)
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            coqc_seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        except ExanError as error:
            refused = str(error)
    return Run(
        outcome=verdict.outcome.value,
        certify_seconds=certified - start,
        write_seconds=written - certified,
        kilobytes=kilobytes,
        accepted=coqc_seconds is not None,
        coqc_seconds=coqc_seconds,
        peak_mib=peak,
        refused=refused,
    )


def _summary(case: Case, runs: Sequence[Run]) -> Row:
    kilobytes = [run.kilobytes for run in runs if run.kilobytes is not None]
    spent = [run.coqc_seconds for run in runs if run.coqc_seconds is not None]
    outcomes = [run.outcome for run in runs]
    return Row(
        name=case.name,
        samples=case.samples,
        seeds=len(runs),
        outcomes={outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)},
        files=len(kilobytes),
        accepted=sum(run.accepted for run in runs),
        certify_seconds=statistics.median(run.certify_seconds for run in runs),
        write_seconds=statistics.median(run.write_seconds for run in runs),
        kilobytes=statistics.median(kilobytes) if kilobytes else None,
        coqc_seconds=statistics.median(spent) if spent else None,
        coqc_worst=max(spent, default=None),
        peak_mib=max((run.peak_mib for run in runs if run.peak_mib is not None), default=None),
        refused=tuple(dict.fromkeys(run.refused for run in runs if run.refused is not None)),
    )


SUITE = Suite(
    name="prove",
    title="prove: certificates as theorems, checked by coqc",
    columns=(
        ("case", "name"),
        ("M ", "samples"),
        ("seeds ", "seeds"),
        ("outcomes", "outcomes"),
        ("files ", "files"),
        ("accepted ", "accepted"),
        ("certify s ", "certify_seconds"),
        ("write s ", "write_seconds"),
        ("kB ", "kilobytes"),
        ("coqc CPU s ", "coqc_seconds"),
        ("worst ", "coqc_worst"),
        ("peak MiB ", "peak_mib"),
        ("refused", "refused"),
    ),
    cases=CASES,
    measure=measure,
    unnamed_seeds=1,
)
