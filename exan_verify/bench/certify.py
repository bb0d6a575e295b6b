"""``exan bench certify``: exact verdicts and their certificates, measured.

Every case runs in a process of its own, so that peak memory is its own. Cases come from seeds fixed before
any tuning; networks have PyTorch's default initialisation, random inputs are standard normal.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.decide.pipeline import certify
from exan_verify.errors import InputError
from exan_verify.exact.backprop import gradient
from exan_verify.exclusivity import exclusivity
from exan_verify.kernel import check
from exan_verify.network import Batch, Gradient, Labels, Loss, Reduction, ReluNetwork
from exan_verify.verdict import Verdict

SEEDS = tuple(range(10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row: network widths, batch size, and where network and inputs come from."""

    name: str
    widths: tuple[int, ...]
    samples: int
    data: str = "normal"
    loss: Loss = Loss.CROSS_ENTROPY
    entrance: str = "batch"
    seeds: int = 10


CASES = (
    Case(name="784-512-10 M=8", widths=(784, 512, 10), samples=8),
    Case(name="784-512-10 M=16", widths=(784, 512, 10), samples=16),
    Case(name="784-512-10 M=22", widths=(784, 512, 10), samples=22),
    Case(name="784-512-10 M=20 MNIST, initialised", widths=(784, 512, 10), samples=20, data="mnist"),
    Case(name="784-512-10 M=20 MNIST, trained", widths=(784, 512, 10), samples=20, data="mnist-trained"),
    Case(name="784-1000-10 M=34", widths=(784, 1000, 10), samples=34),
    Case(name="784-512-512-512-10 M=12", widths=(784, 512, 512, 512, 10), samples=12),
    Case(name="3072-1024-512-512-512-512-10 M=16", widths=(3072, 1024, 512, 512, 512, 512, 10), samples=16),
    Case(name="784-1024-64-10 M=16", widths=(784, 1024, 64, 10), samples=16),
    Case(name="3072-2048-10 M=48", widths=(3072, 2048, 10), samples=48, seeds=3),
    Case(name="150528-512-512-10 M=8", widths=(150528, 512, 512, 10), samples=8, seeds=3),
    Case(
        name="20-64-5 M=6 mse, gradient alone",
        widths=(20, 64, 5),
        samples=6,
        data="integers",
        loss=Loss.MSE,
        entrance="gradient",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One case at one seed. Times in seconds, memory in MiB."""

    outcome: str
    determined: int
    without_exan: int
    layer: int | None
    equations: int | None
    unknowns: int | None
    rank: int | None
    certify_seconds: float
    check_seconds: float | None
    recovered: bool | None
    peak_mib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A case over its seeds: medians and worst values."""

    name: str
    samples: int
    seeds: int
    outcomes: dict[str, int]
    checked: int
    without_exan: float
    layer: int | None
    equations: int | None
    unknowns: int | None
    rank: int | None
    certify_median: float
    certify_worst: float
    check_median: float | None
    check_ratio: float | None
    peak_mib: float
    recovered: int | None


def run_certify_bench(
    *,
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] = SEEDS,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Row]:
    """Run the named cases (default: all) and return one :class:`Row` each.

    ``progress(name, done, total)`` is called before every run. Raises :class:`InputError` on an unknown
    name, listing the known ones.
    """
    chosen = [case for case in CASES if rows is None or case.name in rows]
    unknown = set(rows or ()) - {case.name for case in CASES}
    if unknown:
        known = ", ".join(repr(case.name) for case in CASES)
        raise InputError(f"no benchmark row {sorted(unknown)}; the rows are {known}")
    table = []
    for case in chosen:
        used = list(seeds)[: case.seeds]
        runs = []
        for done, seed in enumerate(used):
            if progress is not None:
                progress(case.name, done, len(used))
            runs.append(_isolated(case, seed))
        table.append(_summary(case, runs))
    return table


def run_case(case: Case, seed: int) -> Run:
    """One case at one seed in this process."""
    network, batch = build(case, seed)
    start = time.perf_counter()
    if case.entrance == "gradient":
        given = gradient(network, batch, case.loss, Reduction.MEAN)
        start = time.perf_counter()
        verdict = certify(network, gradient=given, loss=case.loss.value)
    else:
        given = None
        verdict = certify(network, batch=batch, loss=case.loss.value)
    seconds = time.perf_counter() - start
    # the peak of certify itself, before the kernel or the ExAN count add to it
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    state = exclusivity(network, batch, loss=case.loss)
    used = next((a for a in verdict.attempts if a.layer == verdict.layer), None)
    return Run(
        outcome=verdict.outcome.value,
        determined=verdict.determined,
        without_exan=sum(not any(layer[m] for layer in state.counts) for m in range(batch.size)),
        layer=verdict.layer,
        equations=used.equations if used else None,
        unknowns=used.unknowns if used else None,
        rank=used.rank if used else None,
        certify_seconds=seconds,
        check_seconds=_check_seconds(verdict, network, batch, given),
        recovered=None if given is None else _same(verdict.batch, batch),
        peak_mib=peak,
    )


def build(case: Case, seed: int) -> tuple[ReluNetwork, Batch]:
    """Network and batch of a case."""
    rng = np.random.default_rng([seed, *case.widths, case.samples])
    if case.data.startswith("mnist"):
        return _mnist(case, seed, rng)
    if case.data == "integers":
        return _integers(case, rng)
    weights, biases = [], []
    for fan_in, fan_out in zip(case.widths, case.widths[1:], strict=False):
        bound = fan_in**-0.5
        # PyTorch's default: uniform in +-1/sqrt(fan_in), stored in float32
        weights.append((rng.random((fan_out, fan_in), dtype=np.float32) * 2 - 1) * np.float32(bound))
        biases.append((rng.random(fan_out, dtype=np.float32) * 2 - 1) * np.float32(bound))
    network = ReluNetwork.from_arrays(weights, biases)
    x = rng.standard_normal((case.samples, case.widths[0]), dtype=np.float32)
    return network, _batch(case, network, x, rng.integers(0, case.widths[-1], case.samples))


def _mnist(case: Case, seed: int, rng: np.random.Generator) -> tuple[ReluNetwork, Batch]:
    from exan_verify.convert import to_network
    from exan_verify.data import initialised_network, load_mnist, to_inputs, trained_network

    if case.data == "mnist-trained":
        model = trained_network(case.widths, seed=seed)
    else:
        model = initialised_network(case.widths, seed=seed)
    images, labels = load_mnist()
    chosen = rng.choice(len(images), case.samples, replace=False)
    network = to_network(model)
    return network, _batch(case, network, to_inputs(images[chosen]), labels[chosen])


def _integers(case: Case, rng: np.random.Generator) -> tuple[ReluNetwork, Batch]:
    pairs = list(zip(case.widths, case.widths[1:], strict=False))
    network = ReluNetwork.from_arrays(
        [rng.integers(-9, 10, (b, a)) for a, b in pairs], [rng.integers(-9, 10, b) for _, b in pairs]
    )
    raw = rng.integers(-9, 10, (case.samples, case.widths[0]))
    x = [[Fraction(int(v), 7) for v in row] for row in raw]
    return network, _batch(case, network, x, rng.integers(0, case.widths[-1], case.samples))


def _batch(case: Case, network: ReluNetwork, x: object, y: object) -> Batch:
    return Batch.of(x, y, network=network, loss=case.loss, labels=Labels.ONE_HOT)


def _check_seconds(
    verdict: Verdict, network: ReluNetwork, batch: Batch, given: Gradient | None
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


def _isolated(case: Case, seed: int) -> Run:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(run_case, case, seed).result()


def _summary(case: Case, runs: Sequence[Run]) -> Row:
    times = [run.certify_seconds for run in runs]
    checks = [(r.check_seconds, r.certify_seconds) for r in runs if r.check_seconds is not None]
    first = runs[0]
    outcomes: dict[str, int] = {}
    for run in runs:
        outcomes[run.outcome] = outcomes.get(run.outcome, 0) + 1
    recovered = [run.recovered for run in runs if run.recovered is not None]
    return Row(
        name=case.name,
        samples=case.samples,
        seeds=len(runs),
        outcomes=outcomes,
        checked=len(checks),
        without_exan=statistics.median(run.without_exan for run in runs),
        layer=first.layer,
        equations=first.equations,
        unknowns=first.unknowns,
        rank=first.rank,
        certify_median=statistics.median(times),
        certify_worst=max(times),
        check_median=statistics.median(c for c, _ in checks) if checks else None,
        check_ratio=statistics.median(c / t for c, t in checks) if checks else None,
        peak_mib=max(run.peak_mib for run in runs),
        recovered=sum(recovered) if recovered else None,
    )
