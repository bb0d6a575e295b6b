"""``exan bench certify``: exact verdicts and their certificates, measured.

Every case runs in a process of its own, so that peak memory is its own. Cases come from seeds fixed before
any tuning; networks have PyTorch's default initialisation, random inputs are standard normal.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.bench import suite
from exan_verify.bench.cases.certify_cases import CASES, Case, build
from exan_verify.bench.suite import Options, Suite, isolated, run_seeds
from exan_verify.core.network import Batch, Gradient, Network, ReluNetwork
from exan_verify.core.question import Box, Reduction
from exan_verify.core.staged import StagedNetwork
from exan_verify.core.verdict import SampleStatus, Verdict
from exan_verify.exact.backprop import gradient
from exan_verify.exclusivity import exclusivity


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One case at one seed. Times in seconds, memory in MiB; ``features``: samples of which these are
    determined and their pixels not decided. ``without_exan``: None where no neuron can be exclusive or there
    are convolutions."""

    outcome: str
    determined: int
    features: int
    without_exan: int | None
    layer: int | None
    equations: int | None
    unknowns: int | None
    rank: int | None
    dimension: int | None
    certify_seconds: float
    check_seconds: float | None
    certificate_kib: float | None
    recovered: bool | None
    peak_mib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A case over its seeds: medians and worst values, of ``determined`` and ``features`` the fewest."""

    samples: int
    seeds: int
    expected: str
    outcomes: dict[str, int]
    checked: int
    certificate_kib: float | None
    determined: int
    features: int
    without_exan: float | None
    layer: int | None
    equations: int | None
    unknowns: int | None
    rank: int | None
    dimension: int | None
    certify_median: float
    certify_worst: float
    check_median: float | None
    check_ratio: float | None
    peak_mib: float
    recovered: int | None


def measure(case: Case, options: Options) -> Iterator[Row]:
    """The row of a case; ``work_limit`` as certify's."""
    run = partial(isolated, partial(run_case, case, work_limit=options.work_limit))
    yield _summary(case, run_seeds(case.name, options, run))


def run_case(case: Case, seed: int, work_limit: int | None = None) -> Run:
    """One case at one seed in this process."""
    network, batch = build(case, seed)
    asked: dict[str, Any] = {"loss": case.loss.value, "work_limit": work_limit}
    if case.boxed:
        asked["domain"] = Box(0, 1)
    start = time.perf_counter()
    given = None
    if case.entrance != "batch":
        assert isinstance(network, Network)
        given = _given(case, network, batch)
        start = time.perf_counter()
        verdict = certify(network, gradient=given, batch_size=case.samples, **asked)
    else:
        verdict = certify(network, batch=batch, engine=case.engine, **asked)
    seconds = time.perf_counter() - start
    # the peak of certify itself, before the kernel or the ExAN count add to it
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    state = exclusivity(network, batch, loss=case.loss) if isinstance(network, ReluNetwork) else None
    # the last attempt at the layer decided: degree three comes after degree two lacked equations
    used = next((a for a in reversed(verdict.attempts) if a.layer == verdict.layer), None)
    return Run(
        outcome=verdict.outcome.value,
        determined=verdict.determined,
        features=sum(status is SampleStatus.FEATURES for status in verdict.samples),
        without_exan=None
        if state is None
        else sum(not any(layer[m] for layer in state.counts) for m in range(batch.size)),
        layer=verdict.layer,
        equations=used.equations if used else None,
        unknowns=used.unknowns if used else None,
        rank=used.rank if used else None,
        dimension=None if verdict.witness is None else verdict.witness.dimension,
        certify_seconds=seconds,
        check_seconds=_check_seconds(verdict, network, batch, given),
        certificate_kib=None if verdict.certificate is None else len(json.dumps(verdict.certificate)) / 1024,
        recovered=_same(verdict.batch, batch) if case.entrance == "gradient" else None,
        peak_mib=peak,
    )


def _given(case: Case, network: Network, batch: Batch) -> Gradient:
    """The batch's exact gradient; for ``changed`` with one entry of the first weight plus 1."""
    exact = gradient(network, batch, case.loss, Reduction.MEAN)
    if case.entrance != "changed":
        return exact
    name = next(iter(exact.tensors))
    array = exact.tensors[name].copy()
    array[0, 0] += 1
    return Gradient(tensors={**exact.tensors, name: array})


def _check_seconds(
    verdict: Verdict, network: Network | StagedNetwork, batch: Batch, given: Gradient | None
) -> float | None:
    if verdict.certificate is None:
        return None
    start = time.perf_counter()
    if given is not None:
        check(verdict.certificate, network, gradient=given)
    else:
        check(verdict.certificate, network, batch=batch)
    return time.perf_counter() - start


def _same(found: Batch | None, batch: Batch) -> bool:
    return found is not None and sorted(zip(found.x, map(str, found.y), strict=True)) == sorted(
        zip(batch.x, map(str, batch.y), strict=True)
    )


def _summary(case: Case, runs: Sequence[Run]) -> Row:
    times = [run.certify_seconds for run in runs]
    checks = [(r.check_seconds, r.certify_seconds) for r in runs if r.check_seconds is not None]
    first = runs[0]
    outcomes: dict[str, int] = {}
    for run in runs:
        outcomes[run.outcome] = outcomes.get(run.outcome, 0) + 1
    recovered = [run.recovered for run in runs if run.recovered is not None]
    alone = [run.without_exan for run in runs if run.without_exan is not None]
    return Row(
        name=case.name,
        samples=case.samples,
        seeds=len(runs),
        expected=case.expected,
        outcomes=outcomes,
        checked=len(checks),
        certificate_kib=max((r.certificate_kib for r in runs if r.certificate_kib is not None), default=None),
        determined=min(run.determined for run in runs),
        features=min(run.features for run in runs),
        without_exan=statistics.median(alone) if alone else None,
        layer=first.layer,
        equations=first.equations,
        unknowns=first.unknowns,
        rank=first.rank,
        dimension=min((r.dimension for r in runs if r.dimension is not None), default=None),
        certify_median=statistics.median(times),
        certify_worst=max(times),
        check_median=statistics.median(c for c, _ in checks) if checks else None,
        check_ratio=statistics.median(c / t for c, t in checks) if checks else None,
        peak_mib=max(run.peak_mib for run in runs),
        recovered=sum(recovered) if recovered else None,
    )


SUITE = Suite(
    name="certify",
    title="certify: exact verdicts and their certificates",
    columns=(
        ("case", "name"),
        ("seeds ", "seeds"),
        ("expected", "expected"),
        ("outcomes", "outcomes"),
        ("checked ", "checked"),
        ("determined ", "determined"),
        ("features ", "features"),
        ("no ExAN ", "without_exan"),
        ("layer ", "layer"),
        ("equations ", "equations"),
        ("U ", "unknowns"),
        ("rank ", "rank"),
        ("dimension ", "dimension"),
        ("s, median ", "certify_median"),
        ("s, worst ", "certify_worst"),
        ("check/certify ", "check_ratio"),
        ("KiB ", "certificate_kib"),
        ("peak MiB ", "peak_mib"),
    ),
    cases=CASES,
    measure=measure,
    takes=("work_limit",),
)
