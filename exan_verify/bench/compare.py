"""``exan bench compare``: our methods beside published ones, on the same batches.

784-512-10 at PyTorch's default initialisation, MNIST digits, cross_entropy, reduction mean, float64
gradients. Our methods are not told the batch size; DLG is, and Inverting Gradients is given the labels too,
as in their papers (numeric/baselines.py). Those two optimise until the time limit or their published number
of steps; ours end by themselves, and what they took is in the table. Optimisation claims nothing: every
picture it returns is scored, and none of them counts as a wrong claim.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exan_verify.bench.attack import SEEDS, autograd_gradient
from exan_verify.bench.robustness import WIDTHS, Gradient, wrong_claims
from exan_verify.bench.rows import require_known
from exan_verify.convert import to_network
from exan_verify.data import initialised_network, mnist_batch
from exan_verify.errors import RangeError
from exan_verify.numeric.attack import run
from exan_verify.numeric.baselines import dlg, inverting_gradients
from exan_verify.numeric.metrics import score
from exan_verify.report.sheets import likeness

SIZES = (1, 2, 4, 8, 16, 32)
SECONDS = 10.0
"""Time limit of an optimisation."""

_SHAPE = (1, 28, 28)
_MOST_SEEDS = 3
OURS = ("auto", "assign", "peel", "sample")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One batch to attack: float32 model, inputs (M, 784), classes (M,), the gradient, limit in seconds."""

    model: nn.Sequential
    x: Tensor
    y: Tensor
    gradient: Gradient
    seed: int
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One method on one batch; the last five are over the samples returned, None where there are none."""

    recall: float
    returned: int
    wrong: int
    seconds: float
    rmse: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    labels: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A method at a batch size over the seeds: medians, ``recall_worst``, and ``wrong`` claims of all seeds
    (None for methods that claim nothing). ``rmse``, ``psnr`` (dB) and ``ssim`` of the samples returned."""

    name: str
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


def case_names() -> tuple[str, ...]:
    """The names that ``rows`` may have."""
    return tuple(f"M={size}" for size in SIZES)


def run_compare_bench(
    *,
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] = SEEDS,
    progress: Callable[[str, int, int], None] | None = None,
    seconds: float | None = None,
) -> list[Row]:
    """Compare at the named batch sizes, ``M=8`` and so on (default: all), and return a :class:`Row` per size
    and method, over the first three of ``seeds``. ``seconds`` limits every optimisation, default 10.

    ``progress(name, done, total)`` is called before every batch. Raises :class:`InputError` on an unknown
    name, listing the known ones.
    """
    names = {f"M={size}": size for size in SIZES}
    require_known("compare", rows, case_names())
    used = list(seeds)[:_MOST_SEEDS]
    table = []
    for name, size in names.items():
        if rows is not None and name not in rows:
            continue
        jobs = [mnist_job(size, seed, SECONDS if seconds is None else seconds) for seed in used]
        for place, (method, attack) in enumerate(METHODS.items()):
            if progress is not None:
                progress(f"{name}, {method}", place, len(METHODS))
            table.append(_summarise(size, method, [attack(job) for job in jobs]))
    return table


def mnist_job(size: int, seed: int, limit: float) -> Job:
    """The batch of a size and seed."""
    images, classes = mnist_batch(size, seed)
    x, y = torch.tensor(images), torch.tensor(classes)
    model = initialised_network(WIDTHS, seed=seed)
    gradient = autograd_gradient(model, x, y, "float64")
    return Job(model=model, x=x, y=y, gradient=gradient, seed=seed, limit=limit)


def recall_figure(rows: Sequence[Row]) -> bytes:
    """A PNG file: recall (median over seeds) against batch size, one line per method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.subplots()
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        style = "-o" if method in OURS else "--x"
        axes.plot([row.samples for row in own], [row.recall for row in own], style, label=method)
    sizes = sorted({row.samples for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlabel("batch size")
    axes.set_ylabel("recall (RMSE below 1e-3)")
    axes.set_title("784-512-10, MNIST: samples recovered from one gradient", fontsize=10)
    axes.legend(fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _ours(method: str) -> Callable[[Job], Run]:
    def attack(job: Job) -> Run:
        start = time.perf_counter()
        try:
            found = run(
                to_network(job.model), job.gradient, loss="cross_entropy", reduction="mean", method=method
            )
        except RangeError:
            return Run(recall=0.0, returned=0, wrong=0, seconds=time.perf_counter() - start)
        seconds = time.perf_counter() - start
        return _scored(job, found.x, found.y, seconds, wrong=wrong_claims(found, job.x, job.y))

    return attack


def _dlg(job: Job) -> Run:
    model, gradient = _pictured(job)
    found = dlg(
        model,
        gradient,
        samples=len(job.x),
        shape=_SHAPE,
        classes=WIDTHS[-1],
        seconds=job.limit,
        seed=job.seed,
    )
    return _scored(job, found.x, found.y, found.seconds, wrong=0)


def _inverting_gradients(job: Job) -> Run:
    model, gradient = _pictured(job)
    found = inverting_gradients(model, gradient, labels=job.y, shape=_SHAPE, seconds=job.limit, seed=job.seed)
    return _scored(job, found.x, found.y, found.seconds, wrong=0)


METHODS: Mapping[str, Callable[[Job], Run]] = {
    **{method: _ours(method) for method in OURS},
    "DLG": _dlg,
    "Inverting Gradients": _inverting_gradients,
}
"""What is compared, by name."""


def _pictured(job: Job) -> tuple[nn.Sequential, Gradient]:
    """The model for pictures, which total variation needs, and the gradient under its names."""
    model = nn.Sequential(nn.Flatten(), *job.model)
    names = [name for name, _ in model.named_parameters()]
    return model, dict(zip(names, job.gradient.values(), strict=True))


def _scored(job: Job, x: Tensor, y: Tensor, seconds: float, *, wrong: int) -> Run:
    # a diverged optimisation has no distance to anything
    finite = torch.isfinite(x.flatten(1)).all(dim=1)
    x, y = x[finite], y[finite]
    result = score(x, y, job.x, job.y)
    if not result.samples:
        return Run(recall=result.recall, returned=0, wrong=wrong, seconds=seconds)
    alike = [
        likeness(
            job.x[s.truth].double().reshape(_SHAPE[1:]).numpy(),
            x[s.index].double().reshape(_SHAPE[1:]).numpy(),
        )
        for s in result.samples
    ]
    return Run(
        recall=result.recall,
        returned=len(x),
        wrong=wrong,
        seconds=seconds,
        rmse=statistics.median(s.rmse for s in result.samples),
        psnr=statistics.median(one.psnr for one in alike),
        ssim=statistics.median(one.ssim for one in alike),
        labels=result.label_accuracy,
    )


def _summarise(size: int, method: str, runs: Sequence[Run]) -> Row:
    return Row(
        name=f"M={size}",
        method=method,
        samples=size,
        seeds=len(runs),
        recall=statistics.median(one.recall for one in runs),
        recall_worst=min(one.recall for one in runs),
        wrong=sum(one.wrong for one in runs) if method in OURS else None,
        rmse=_median([one.rmse for one in runs]),
        psnr=_median([one.psnr for one in runs]),
        ssim=_median([one.ssim for one in runs]),
        labels=_median([one.labels for one in runs]),
        seconds=statistics.median(one.seconds for one in runs),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
