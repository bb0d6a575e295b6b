"""``exan bench attack`` and ``exan bench compare``: our methods beside published ones, on the same batches.

The batches are those of ``bench/attack.py`` and, for the figure of recall against batch size, MNIST digits
at 784-512-10. Our methods are not told the batch size; DLG is, and Inverting Gradients is given the labels
too, as in their papers (bench/baselines.py). Those two optimise until the time limit or their published
number of steps; ours end by themselves or are stopped, and what they took is in the table. Optimisation
claims nothing: every sample it returns is scored, and none of them counts as a wrong claim. ``published``
(Pan et al., repaired) and ``sample`` (SPEAR) are published methods too, with our confirmation
(numeric/methods/). ``tolerance T`` is peeling whose only test is a tolerance T
(bench/tolerance_peeling.py): told the batch size, and what it accepts it claims. Every run has a process of
its own, which gives its memory and ends it when it takes too long.
"""

from __future__ import annotations

import io
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from exan_verify.bench import suite
from exan_verify.bench.attack import CASES as ATTACK_CASES
from exan_verify.bench.attack import Case, build
from exan_verify.bench.suite import Options, Suite
from exan_verify.errors import InputError, RangeError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from exan_verify.bench.robustness import Gradient

SIZES = (1, 2, 4, 8, 16, 20, 32, 64)
SECONDS = 10.0
"""Time limit of an optimisation."""

PATIENCE = 120.0
"""So many seconds after the time of an optimisation any other method is stopped, and counts as finding
nothing."""

_MOST_SEEDS = 3
_OTHER_SEED = 1 << 20
"""Random inputs are drawn from the seed: an optimisation that started from it would start at the truth."""

OURS = ("auto", "lift", "assign", "peel", "peel+lift", "sample", "published")
"""What the package's own confirmation stands behind, by name."""

TOLERANCES = {f"tolerance {tolerance:.0e}": tolerance for tolerance in (1e-3, 1e-4, 1e-6)}
"""Peeling that accepts by a tolerance, by name."""

BY_SIZE = tuple(
    Case(name=f"M={size}", widths=(784, 512, 10), samples=size, data="mnist", seeds=_MOST_SEEDS)
    for size in SIZES
)
"""What the figure shows."""

CASES = (*BY_SIZE, *(replace(case, seeds=1, named=True) for case in ATTACK_CASES))
"""Those of the attack's own table only by name, over the first seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One batch to attack: float32 model, inputs (M, d), classes (M,), the gradient, limit in seconds;
    ``shape`` of a sample, (1, 28, 28) for digits, else (d,); ``device``: where it is attacked."""

    model: nn.Sequential
    x: Tensor
    y: Tensor
    gradient: Gradient
    shape: tuple[int, ...]
    seed: int
    limit: float
    device: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One method on one batch; ``rmse`` to ``labels`` are over the samples returned, None where there are
    none (``psnr`` and ``ssim``: where they are no pictures). ``stopped``: it took too long; ``refused``: the
    batch or the network is out of its range."""

    recall: float
    returned: int
    wrong: int
    seconds: float
    rmse: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    labels: float | None = None
    peak_mib: float | None = None
    stopped: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A method on a case over the seeds: medians, ``recall_worst``, the largest ``peak_mib``, and ``wrong``
    claims of all seeds (None for methods that claim nothing). ``rmse``, ``psnr`` (dB) and ``ssim`` of the
    samples returned; ``stopped``: runs that took too long; ``refused``: batches out of the method's range."""

    method: str
    samples: int
    seeds: int
    recall: float
    recall_worst: float
    wrong: int | None
    rmse: float | None
    psnr: float | None
    ssim: float | None
    labels: float | None
    seconds: float
    peak_mib: float | None
    stopped: int
    refused: int


def measure(case: Case, options: Options) -> Iterator[Row]:
    """A row per method that is asked for.

    ``seconds`` limits every optimisation, default :data:`SECONDS`; ``patience`` seconds beyond that, default
    :data:`PATIENCE`, any other method is stopped. Raises :class:`InputError` on an unknown method.
    """
    if unknown := sorted(set(options.methods) - set(METHODS)):
        raise InputError(f"no method {unknown}; there are {', '.join(METHODS)}")
    limit = SECONDS if options.seconds is None else options.seconds
    patience = PATIENCE if options.patience is None else options.patience
    names = [name for name in METHODS if not options.methods or name in options.methods]
    for place, method in enumerate(names):
        options.tell(f"{case.name}, {method}", place, len(names))
        runs = [_isolated(case, method, seed, limit, patience, options.device) for seed in options.seeds]
        yield _summarise(case, method, runs)


def _isolated(case: Case, method: str, seed: int, limit: float, patience: float, device: str | None) -> Run:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, case, method, seed, limit, device), daemon=True)
    start = time.perf_counter()
    process.start()
    there.close()
    try:
        # the optimisations keep their own limit, between two steps
        if not here.poll(patience + limit):
            return Run(recall=0.0, returned=0, wrong=0, seconds=time.perf_counter() - start, stopped=True)
        run: Run = here.recv()
        return run
    finally:
        process.kill()
        process.join()
        here.close()


def _send(there: Connection, case: Case, method: str, seed: int, limit: float, device: str | None) -> None:
    run = METHODS[method](replace(job_of(case, seed, limit), device=device))
    there.send(replace(run, peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def job_of(case: Case, seed: int, limit: float) -> Job:
    """The batch of a case at a seed."""
    from exan_verify.bench.attack import autograd_gradient

    model, x, y = build(case, seed)
    gradient = autograd_gradient(model, x, y, case.dtype)
    shape = (1, 28, 28) if case.data.startswith("mnist") else tuple(x.shape[1:])
    return Job(model=model, x=x, y=y, gradient=gradient, shape=shape, seed=seed, limit=limit)


def recall_figure(rows: Sequence[Row]) -> bytes:
    """A PNG file: recall (median over seeds) against batch size, one line per method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    shown = {case.name for case in BY_SIZE}
    rows = [row for row in rows if row.name in shown]
    methods = list(dict.fromkeys(row.method for row in rows))
    for place, method in enumerate(methods):
        own = [row for row in rows if row.method == method]
        sizes, recalls = [row.samples for row in own], [row.recall for row in own]
        # lines that coincide stay visible: later ones are thinner, with a smaller mark
        thin = 1 - place / len(methods)
        axes.plot(
            sizes,
            recalls,
            _line(method),
            marker=_MARKS[place % len(_MARKS)],
            color=f"C{place % 10}" if place < 10 else ("black", "darkgoldenrod")[place % 2],
            linewidth=1 + 3.5 * thin,
            markersize=4 + 6 * thin,
            label=method,
        )
    sizes = sorted({row.samples for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlabel("batch size")
    axes.set_ylabel("recall (RMSE below 1e-3)")
    axes.set_title("784-512-10, MNIST: samples recovered from one gradient", fontsize=10)
    figure.legend(loc="outside right center", fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


_MARKS = "os^vDP*XhdpH"


def _line(method: str) -> str:
    """Solid for the package's own confirmation, dashed for a tolerance, dotted for optimisation."""
    return "-" if method in OURS else "--" if method in TOLERANCES else ":"


def _ours(job: Job, *, method: str) -> Run:
    from exan_verify.models.chain import to_network
    from exan_verify.numeric.attack import run
    from exan_verify.numeric.problem.metrics import wrong_claims

    network = to_network(job.model)
    attacked = partial(run, loss="cross_entropy", reduction="mean", method=method, device=job.device)
    start = time.perf_counter()
    try:
        found = attacked(network, job.gradient)
    except RangeError:
        return _out_of_range(time.perf_counter() - start)
    seconds = time.perf_counter() - start
    bounds = [evidence.error_bound for evidence in found.status]
    wrong = wrong_claims(found.x, found.y, bounds, job.x, job.y)
    return _scored(job, found.x, found.y, seconds, wrong=wrong)


def _tolerance(job: Job, *, tolerance: float) -> Run:
    from exan_verify.bench.tolerance_peeling import tolerance_peeling
    from exan_verify.numeric.problem.metrics import wrong_claims

    if len(job.gradient) != 4:
        return _out_of_range(0.0)
    model, gradient = _placed(job, job.model, job.gradient)
    start = time.perf_counter()
    x, y = tolerance_peeling(model, gradient, batch_size=len(job.x), tolerance=tolerance)
    seconds = time.perf_counter() - start
    return _scored(job, x, y, seconds, wrong=wrong_claims(x, y, None, job.x, job.y))


def _out_of_range(seconds: float) -> Run:
    return Run(recall=0.0, returned=0, wrong=0, seconds=seconds, refused=True)


def _dlg(job: Job) -> Run:
    from exan_verify.bench.baselines import DLG_ITERATIONS, Effort, dlg

    model, gradient = _pictured(job)
    found = dlg(
        model,
        gradient,
        samples=len(job.x),
        shape=job.shape,
        classes=len(list(job.gradient.values())[-1]),
        effort=Effort(iterations=DLG_ITERATIONS, seconds=job.limit, seed=job.seed + _OTHER_SEED),
    )
    return _scored(job, found.x, found.y, found.seconds, wrong=0)


def _inverting_gradients(job: Job) -> Run:
    from exan_verify.bench.baselines import PUBLISHED_ITERATIONS, Effort, inverting_gradients

    model, gradient = _pictured(job)
    found = inverting_gradients(
        model,
        gradient,
        labels=job.y.to(job.device),
        shape=job.shape,
        effort=Effort(iterations=PUBLISHED_ITERATIONS, seconds=job.limit, seed=job.seed + _OTHER_SEED),
        box=(0.0, 1.0) if len(job.shape) > 1 else None,
    )
    return _scored(job, found.x, found.y, found.seconds, wrong=0)


METHODS: Mapping[str, Callable[[Job], Run]] = {
    **{method: partial(_ours, method=method) for method in OURS},
    **{name: partial(_tolerance, tolerance=tolerance) for name, tolerance in TOLERANCES.items()},
    "DLG": _dlg,
    "Inverting Gradients": _inverting_gradients,
}
"""What is compared, by name."""

_CLAIMING = (*OURS, *TOLERANCES)
"""Methods that stand behind what they return."""


def _pictured(job: Job) -> tuple[nn.Sequential, Gradient]:
    """The model for samples of any shape, and the gradient under its names, on the job's device."""
    from torch import nn

    model = nn.Sequential(nn.Flatten(), *job.model)
    names = [name for name, _ in model.named_parameters()]
    return _placed(job, model, dict(zip(names, job.gradient.values(), strict=True)))


def _placed(job: Job, model: nn.Sequential, gradient: Gradient) -> tuple[nn.Sequential, Gradient]:
    if job.device is None:
        return model, gradient
    return model.to(job.device), {name: g.to(job.device) for name, g in gradient.items()}


def _scored(job: Job, x: Tensor, y: Tensor, seconds: float, *, wrong: int) -> Run:
    import torch

    from exan_verify.numeric.problem.metrics import score

    x, y = x.cpu(), y.cpu()
    # a diverged optimisation has no distance to anything
    finite = torch.isfinite(x.flatten(1)).all(dim=1)
    x, y = x[finite], y[finite]
    result = score(x, y, job.x, job.y)
    if not result.samples:
        return Run(recall=result.recall, returned=0, wrong=wrong, seconds=seconds)
    pairs = [(job.x[s.truth], x[s.index]) for s in result.samples]
    psnr, ssim = _likeness(pairs, job.shape)
    return Run(
        recall=result.recall,
        returned=len(x),
        wrong=wrong,
        seconds=seconds,
        rmse=statistics.median(s.rmse for s in result.samples),
        psnr=psnr,
        ssim=ssim,
        labels=result.label_accuracy,
    )


def _likeness(
    pairs: Sequence[tuple[Tensor, Tensor]], shape: tuple[int, ...]
) -> tuple[float | None, float | None]:
    """Median PSNR and SSIM of (true, found) pictures; None where the samples are none."""
    from exan_verify.report.sheets import likeness

    if len(shape) < 3:
        return None, None
    size = shape[1:] if shape[0] == 1 else shape
    alike = [likeness(*(one.double().reshape(size).numpy() for one in pair)) for pair in pairs]
    return statistics.median(one.psnr for one in alike), statistics.median(one.ssim for one in alike)


def _summarise(case: Case, method: str, runs: Sequence[Run]) -> Row:
    return Row(
        name=case.name,
        method=method,
        samples=case.samples,
        seeds=len(runs),
        recall=statistics.median(one.recall for one in runs),
        recall_worst=min(one.recall for one in runs),
        wrong=sum(one.wrong for one in runs) if method in _CLAIMING else None,
        rmse=_median([one.rmse for one in runs]),
        psnr=_median([one.psnr for one in runs]),
        ssim=_median([one.ssim for one in runs]),
        labels=_median([one.labels for one in runs]),
        seconds=statistics.median(one.seconds for one in runs),
        peak_mib=max((one.peak_mib for one in runs if one.peak_mib is not None), default=None),
        stopped=sum(one.stopped for one in runs),
        refused=sum(one.refused for one in runs),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


SUITE = Suite(
    name="compare",
    title="compare: our methods and published ones on the same batches",
    columns=(
        ("batch", "name"),
        ("method", "method"),
        ("seeds ", "seeds"),
        ("recall ", "recall"),
        ("worst ", "recall_worst"),
        ("wrong ", "wrong"),
        ("RMSE ", "rmse"),
        ("PSNR ", "psnr"),
        ("SSIM ", "ssim"),
        ("labels ", "labels"),
        ("s ", "seconds"),
        ("stopped ", "stopped"),
        ("refused ", "refused"),
        ("peak MiB ", "peak_mib"),
    ),
    cases=CASES,
    measure=measure,
    takes=("device", "methods", "patience", "seconds"),
    figure=recall_figure,
)
