"""``exan bench attack`` and ``exan bench compare``: our methods beside published ones, on the same batches.

The batches are those of ``bench/attack.py`` and, for the figure of recall against batch size, MNIST digits
at 784-512-10. Our methods are not told the batch size; DLG is, and Inverting Gradients is given the labels
too, as in their papers (rivals/baselines.py). Those two optimise until the time limit or their published
number of steps; ours end by themselves or are stopped, and what they took is in the table. Optimisation
claims nothing: every sample it returns is scored, and none of them counts as a wrong claim. ``published``
(Pan et al., repaired) and ``sample`` (after SPEAR) are published methods too, with our confirmation
(numeric/methods/). ``LT peeling`` and ``tolerance T`` are peeling whose only test is a tolerance, absolute
and relative (rivals/tolerance_peeling.py), told the batch size, and ``SPEAR`` draws until the time limit
(rivals/spear.py): what these accept they claim. Every run has a process of its own, which gives its memory
and ends it when it takes too long.
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

import numpy as np

from exan_verify.bench import suite
from exan_verify.bench.attack import CASES as ATTACK_CASES
from exan_verify.bench.attack import Case, build
from exan_verify.bench.suite import Options, Suite
from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
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
_ENDLESS = 1 << 62
_OTHER_SEED = 1 << 20
"""Random inputs are drawn from the seed: an optimisation that started from it would start at the truth."""

OURS = ("auto", "lift", "assign", "peel", "peel+lift", "sample", "published")
"""What the package's own confirmation stands behind, by name."""

TOLERANCES = {f"tolerance {tolerance:.0e}": tolerance for tolerance in (1e-3, 1e-4, 1e-6)}
"""Peeling that accepts by a relative tolerance, by name."""

BY_SIZE = tuple(
    Case(name=f"M={size}", widths=(784, 512, 10), samples=size, data="mnist", seeds=_MOST_SEEDS)
    for size in SIZES
)
"""What the figure shows."""

_THEIRS = "normal and Glorot"
CASES = (
    *BY_SIZE,
    *(
        replace(case, seeds=_MOST_SEEDS if case.initialisation == _THEIRS else 1, named=True)
        for case in ATTACK_CASES
    ),
)
"""Those of the attack's own table only by name, over the first seed; at the initialisation of Shariati and
Meybodi over three, as their figures are means."""


_CROSS_ENTROPY = Question(loss=Loss.CROSS_ENTROPY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One batch to attack: a model of Linear layers with ReLU between them, inputs (M, d), classes (M,) or
    targets (M, K), the gradient of the ``question`` under the model's names, limit in seconds; ``shape`` of a
    sample, (1, 28, 28) for digits, (d,) for what is no picture; ``box``: where pixels lie, None: anywhere;
    ``device``: where it is attacked; ``told``: our methods are told the batch size, too."""

    model: nn.Sequential
    x: Tensor
    y: Tensor
    gradient: Gradient
    shape: tuple[int, ...]
    seed: int
    limit: float
    question: Question = _CROSS_ENTROPY
    box: tuple[float, float] | None = None
    device: str | None = None
    told: bool = False


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
    limit = SECONDS if options.seconds is None else options.seconds
    jobs = [partial(job_of, case, seed, limit, options.device) for seed in options.seeds]
    yield from compared(case.name, case.samples, jobs, options)


def compared(name: str, samples: int, jobs: Sequence[Callable[[], Job]], options: Options) -> Iterator[Row]:
    """A row per method that is asked for, over ``jobs`` of ``samples`` samples each, which the process of
    each run makes for itself. Raises :class:`InputError` on an unknown method.
    """
    if unknown := sorted(set(options.methods) - set(METHODS)):
        raise InputError(f"no method {unknown}; there are {', '.join(METHODS)}")
    limit = SECONDS if options.seconds is None else options.seconds
    # the optimisations keep their own limit, between two steps
    most = limit + (PATIENCE if options.patience is None else options.patience)
    names = [method for method in METHODS if not options.methods or method in options.methods]
    for place, method in enumerate(names):
        options.tell(f"{name}, {method}", place, len(names))
        yield _summarise(name, samples, method, [_isolated(job, method, most) for job in jobs])


def _isolated(job: Callable[[], Job], method: str, most: float) -> Run:
    """A method on a batch in a process of its own, which is ended after ``most`` seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, job, method), daemon=True)
    start = time.perf_counter()
    process.start()
    there.close()
    try:
        if not here.poll(most):
            return Run(recall=0.0, returned=0, wrong=0, seconds=time.perf_counter() - start, stopped=True)
        run: Run = here.recv()
        return run
    finally:
        process.kill()
        process.join()
        here.close()


def _send(there: Connection, job: Callable[[], Job], method: str) -> None:
    run = METHODS[method](job())
    there.send(replace(run, peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def job_of(case: Case, seed: int, limit: float, device: str | None = None) -> Job:
    """The batch of a case at a seed."""
    from exan_verify.bench.attack import autograd_gradient

    model, x, y = build(case, seed)
    gradient = autograd_gradient(model, x, y, case.dtype)
    shape = (1, 28, 28) if case.data.startswith("mnist") else tuple(x.shape[1:])
    return Job(
        model=model,
        x=x,
        y=y,
        gradient=gradient,
        shape=shape,
        seed=seed,
        limit=limit,
        box=(0.0, 1.0) if len(shape) > 1 else None,
        device=device,
        told=case.told,
    )


def own_job(network: ReluNetwork, x: Array, y: Array, question: Question, *, seed: int, limit: float) -> Job:
    """A user's batch, ``x`` (M, ...) with labels ``y``: its float64 gradient on the stored weights, and a
    module of Linear layers with ReLU between them that is the network.

    Raises what ``Batch.of`` raises, naming x or y.
    """
    import torch
    from torch import nn

    from exan_verify.api.attack_own_batch import batch_gradient
    from exan_verify.report.sheets import picture_shape

    batch = Batch.of(x, y, network=network, loss=question.loss, labels=question.labels)
    layers: list[nn.Module] = []
    for layer in network.layers:
        linear = nn.Linear(layer.shape[1], layer.shape[0], bias=layer.bias is not None, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(np.asarray(layer.weight, dtype=np.float64)))
            if layer.bias is not None:
                linear.bias.copy_(torch.tensor(np.asarray(layer.bias, dtype=np.float64)))
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    values = batch_gradient(network, np.asarray(batch.inputs), batch.labels, question).values()
    names = [name for name, _ in model.named_parameters()]
    inputs, labels = np.asarray(batch.inputs, dtype=np.float64), np.asarray(batch.labels, dtype=np.float64)
    picture = picture_shape(np.shape(x))
    inside = inputs.min() >= 0 and inputs.max() <= 1
    return Job(
        model=model,
        x=torch.tensor(inputs),
        y=torch.tensor(labels).long() if question.loss.class_labels else torch.tensor(labels),
        gradient=dict(zip(names, values, strict=True)),
        shape=(inputs.shape[1],) if picture is None else (1, *picture)[-3:],
        seed=seed,
        limit=limit,
        question=question,
        box=(0.0, 1.0) if inside else None,
    )


def methods_figure(rows: Sequence[Row]) -> bytes:
    """A PNG file: one bar per method, the share of one's own batch that it recovers, and what it took."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.2 + 0.32 * len(rows)), dpi=120, layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.barh(place, row.recall, color="#a4262c" if row.method in OURS else "#3a5a8c", height=0.66)
        said = "out of its range" if row.refused else "stopped" if row.stopped else f"{row.seconds:.1f} s"
        wrong = f", {row.wrong} wrong" if row.wrong else ""
        axes.text(row.recall + 0.01, place, f"{row.recall:.0%}, {said}{wrong}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.method for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.28)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel("samples recovered (RMSE below 1e-3); red: with this package's confirmation", fontsize=8)
    axes.set_title(f"{rows[0].name}: {rows[0].samples} samples, one gradient" if rows else "", fontsize=10)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def recall_figure(rows: Sequence[Row]) -> bytes:
    """A PNG file: recall (median over seeds) against batch size, one line per method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.4), dpi=150, layout="constrained")
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
            color=f"C{place % 10}" if place < 10 else _COLOURS[place % len(_COLOURS)],
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
    axes.set_title("784-512-10, MNIST: samples recovered from one gradient", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, fontsize=10)  # below: for narrow screens
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


_MARKS = "os^vDP*XhdpH<>"
_COLOURS = ("black", "darkgoldenrod", "navy", "crimson")


def _line(method: str) -> str:
    """Solid for the package's own confirmation, dashed for another test, dotted for optimisation."""
    return "-" if method in OURS else "--" if method in _CLAIMING else ":"


def _ours(job: Job, *, method: str) -> Run:
    from exan_verify.models.chain import to_network
    from exan_verify.numeric.attack import run
    from exan_verify.numeric.problem.metrics import wrong_claims

    network = to_network(job.model)
    question = job.question
    attacked = partial(
        run,
        loss=question.loss,
        reduction=question.reduction,
        labels=Labels.REAL if question.labels is Labels.REAL else Labels.ONE_HOT,
        # any real targets explain a gradient, unless their number is known
        batch_size=len(job.x) if job.told or question.labels is Labels.REAL else None,
        method=method,
        device=job.device,
    )
    start = time.perf_counter()
    try:
        found = attacked(network, job.gradient)
    except RangeError:
        return _out_of_range(time.perf_counter() - start)
    seconds = time.perf_counter() - start
    bounds = [evidence.error_bound for evidence in found.status]
    wrong = wrong_claims(found.x, found.y, bounds, job.x, job.y)
    return _scored(job, found.x, found.y, seconds, wrong=wrong)


def _lt_peeling(job: Job) -> Run:
    from exan_verify.bench.rivals.tolerance_peeling import PUBLISHED

    return _tolerance(job, tolerance=PUBLISHED, absolute=True)


def _spear(job: Job) -> Run:
    from exan_verify.bench.rivals.baselines import Effort
    from exan_verify.bench.rivals.spear import spear
    from exan_verify.numeric.problem.metrics import wrong_claims

    if job.question != _CROSS_ENTROPY or len(job.gradient) != 2 * (len(job.model) // 2 + 1):
        return _out_of_range(0.0)
    model, gradient = _placed(job, job.model, job.gradient)
    effort = Effort(iterations=_ENDLESS, seconds=job.limit, seed=job.seed + _OTHER_SEED)
    found = spear(model, gradient, effort=effort)
    return _scored(
        job, found.x, found.y, found.seconds, wrong=wrong_claims(found.x, found.y, None, job.x, job.y)
    )


def _tolerance(job: Job, *, tolerance: float, absolute: bool = False) -> Run:
    from exan_verify.bench.rivals.tolerance_peeling import tolerance_peeling
    from exan_verify.numeric.problem.metrics import wrong_claims

    usual = job.question.loss is Loss.CROSS_ENTROPY and job.question.reduction is Reduction.MEAN
    if len(job.gradient) != 4 or len(job.model) != 3 or not usual:
        return _out_of_range(0.0)
    model, gradient = _placed(job, job.model, job.gradient)
    start = time.perf_counter()
    x, y = tolerance_peeling(model, gradient, batch_size=len(job.x), tolerance=tolerance, absolute=absolute)
    seconds = time.perf_counter() - start
    return _scored(job, x, y, seconds, wrong=wrong_claims(x, y, None, job.x, job.y))


def _out_of_range(seconds: float) -> Run:
    return Run(recall=0.0, returned=0, wrong=0, seconds=seconds, refused=True)


def _dlg(job: Job) -> Run:
    from exan_verify.bench.rivals.baselines import DLG_ITERATIONS, Effort, dlg

    if job.question.loss is Loss.HINGE:  # nothing to optimise along
        return _out_of_range(0.0)
    model, gradient = _pictured(job)
    found = dlg(
        model,
        gradient,
        samples=len(job.x),
        shape=job.shape,
        classes=len(list(job.gradient.values())[-1]),
        question=job.question,
        effort=Effort(iterations=DLG_ITERATIONS, seconds=job.limit, seed=job.seed + _OTHER_SEED),
    )
    return _scored(job, found.x, found.y, found.seconds, wrong=0)


def _inverting_gradients(job: Job) -> Run:
    from exan_verify.bench.rivals.baselines import PUBLISHED_ITERATIONS, Effort, inverting_gradients

    if job.question.loss is Loss.HINGE:
        return _out_of_range(0.0)
    model, gradient = _pictured(job)
    found = inverting_gradients(
        model,
        gradient,
        labels=job.y.to(job.device),
        shape=job.shape,
        question=job.question,
        effort=Effort(iterations=PUBLISHED_ITERATIONS, seconds=job.limit, seed=job.seed + _OTHER_SEED),
        box=job.box,
    )
    return _scored(job, found.x, found.y, found.seconds, wrong=0)


METHODS: Mapping[str, Callable[[Job], Run]] = {
    **{method: partial(_ours, method=method) for method in OURS},
    "LT peeling": _lt_peeling,
    **{name: partial(_tolerance, tolerance=tolerance) for name, tolerance in TOLERANCES.items()},
    "SPEAR": _spear,
    "DLG": _dlg,
    "Inverting Gradients": _inverting_gradients,
}
"""What is compared, by name."""

_CLAIMING = (*OURS, *TOLERANCES, "LT peeling", "SPEAR")
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


def _summarise(name: str, samples: int, method: str, runs: Sequence[Run]) -> Row:
    return Row(
        name=name,
        method=method,
        samples=samples,
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
