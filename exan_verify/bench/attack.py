"""``exan bench attack``: what the numeric attack recovers and claims, measured.

Every case and seed runs in a process of its own, so that peak memory is its own (it includes the autograd
pass that makes the gradient). Seeds were fixed before any tuning; networks have PyTorch's default
initialisation or are trained on MNIST, random inputs are standard normal, the loss is cross_entropy with
reduction mean, and the attack is not told the batch size, unless the case says so.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from exan_verify.bench import suite
from exan_verify.bench.cases.activations import activated
from exan_verify.bench.cases.initialisations import initialised
from exan_verify.bench.suite import Options, Suite, isolated, run_seeds
from exan_verify.core.question import Loss, Reduction

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """One row. ``data``: normal, mnist or mnist-trained; ``dtype``: the gradient's; ``activation``: between
    the layers, one of :data:`exan_verify.bench.cases.activations.OTHERS` or ReLU; ``initialisation``: one of
    :data:`exan_verify.bench.cases.initialisations.OTHERS` or default; ``told``: the attack is told the batch
    size. What takes very long runs only when it is ``named``."""

    widths: tuple[int, ...]
    samples: int
    data: str = "normal"
    dtype: str = "float64"
    activation: str = "ReLU"
    initialisation: str = "default"
    told: bool = False
    seeds: int | None = 10


_MNIST = (784, 512, 10)
_WIDE = (784, 1000, 10)

CASES = (
    Case(name="784-512-10 M=8", widths=_MNIST, samples=8),
    Case(name="784-512-10 M=16", widths=_MNIST, samples=16),
    Case(name="784-512-10 M=22", widths=_MNIST, samples=22),
    Case(name="784-512-10 M=20 MNIST, initialised", widths=_MNIST, samples=20, data="mnist"),
    Case(
        name="784-512-10 M=20 MNIST, initialised, float32",
        widths=_MNIST,
        samples=20,
        data="mnist",
        dtype="float32",
    ),
    Case(name="784-512-10 M=20 MNIST, trained", widths=_MNIST, samples=20, data="mnist-trained"),
    Case(
        name="784-512-10 M=20 MNIST, trained, float32",
        widths=_MNIST,
        samples=20,
        data="mnist-trained",
        dtype="float32",
    ),
    Case(name="784-512-10 M=32 MNIST, initialised", widths=_MNIST, samples=32, data="mnist"),
    Case(name="784-1000-10 M=64 MNIST, initialised", widths=_WIDE, samples=64, data="mnist"),
    Case(name="784-1000-10 M=64 MNIST, trained", widths=_WIDE, samples=64, data="mnist-trained", seeds=3),
    Case(name="784-1000-10 M=128 MNIST, initialised", widths=_WIDE, samples=128, data="mnist", seeds=3),
    Case(name="784-1000-10 M=256 MNIST, initialised", widths=_WIDE, samples=256, data="mnist", seeds=3),
    *(
        Case(
            name=f"784-1000-10 M={samples} MNIST, initialised",
            widths=_WIDE,
            samples=samples,
            data="mnist",
            seeds=1,
            named=True,
        )
        for samples in (320, 400)
    ),
    Case(
        name="784-512-10 M=192 MNIST, initialised",
        widths=_MNIST,
        samples=192,
        data="mnist",
        seeds=3,
        named=True,
    ),
    *(
        Case(
            name=f"784-1000-10 M={samples} MNIST, normal and Glorot",
            widths=_WIDE,
            samples=samples,
            data="mnist",
            initialisation="normal and Glorot",
            told=True,
            seeds=3,
        )
        for samples in (64, 128, 256)
    ),
    Case(
        name="784-1000-10 M=256 MNIST, logits of deviation 5",
        widths=_WIDE,
        samples=256,
        data="mnist",
        initialisation="logits of deviation 5",
        told=True,
        seeds=3,
        named=True,
    ),
    Case(
        name="784-512-512-512-10 M=48 MNIST, initialised",
        widths=(784, 512, 512, 512, 10),
        samples=48,
        data="mnist",
    ),
    *(
        Case(
            name=f"784-{width}x6-10 M={samples} MNIST, initialised",
            widths=(784, *[width] * 6, 10),
            samples=samples,
            data="mnist",
            seeds=3,
            named=samples == 20,
        )
        for width, samples in ((200, 20), (200, 25), (400, 64))
    ),
    Case(name="784-1000-10 M=34", widths=(784, 1000, 10), samples=34),
    Case(name="100-100-4 M=20, degree 3", widths=(100, 100, 4), samples=20),
    Case(
        name="784-128-10 M=14 MNIST, trained, degree 3",
        widths=(784, 128, 10),
        samples=14,
        data="mnist-trained",
        seeds=3,
    ),
    Case(name="784-512-512-512-10 M=12", widths=(784, 512, 512, 512, 10), samples=12),
    Case(name="3072-1024-512-512-512-512-10 M=16", widths=(3072, 1024, 512, 512, 512, 512, 10), samples=16),
    Case(name="784-1024-64-10 M=16", widths=(784, 1024, 64, 10), samples=16),
    Case(name="3072-2048-10 M=48", widths=(3072, 2048, 10), samples=48, seeds=3),
    Case(name="150528-512-512-10 M=8", widths=(150528, 512, 512, 10), samples=8, seeds=3),
    *(
        Case(
            name=f"784-512-10 LeakyReLU M={samples} MNIST",
            widths=_MNIST,
            samples=samples,
            data="mnist",
            activation="LeakyReLU",
        )
        for samples in (16, 22, 64)
    ),
    Case(
        name="784-512-10 LeakyReLU M=20 MNIST, float32",
        widths=_MNIST,
        samples=20,
        data="mnist",
        dtype="float32",
        activation="LeakyReLU",
    ),
    Case(
        name="784-512-10 LeakyReLU of slope -1/2 M=22 MNIST",
        widths=_MNIST,
        samples=22,
        data="mnist",
        activation="LeakyReLU of slope -1/2",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One case at one seed. Times in seconds, memory in MiB; None where nothing was claimed or lifted;
    ``method``: whose candidates were taken."""

    method: str
    recall: float
    claimed: int
    wrong: int
    rmse: float | None
    bound: float | None
    labels_right: float | None
    complete: bool
    residual: float
    seconds: float
    peak_mib: float
    layer: int | None
    equations: int | None
    unknowns: int | None
    gap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A case over its seeds.

    ``recall`` median and ``recall_worst``: share of the batch claimed with RMSE below 1e-3; ``wrong``:
    claimed samples further from the truth than their bound, with a wrong label, or more than the batch has,
    all seeds together (must be 0); ``rmse`` and ``bound``: the worst of any claimed sample;
    ``labels_right``: worst share of claimed labels that are right; ``methods``: in how many runs which
    method's candidates were taken; ``gap``: the smallest sigma_{U-M} / sigma_{U-M+1} of the lifted equations.
    """

    samples: int
    seeds: int
    methods: dict[str, int]
    recall: float
    recall_worst: float
    complete: int
    claimed: int
    wrong: int
    rmse: float | None
    bound: float | None
    labels_right: float | None
    residual: float
    seconds: float
    seconds_worst: float
    peak_mib: float
    layer: int | None
    equations: int | None
    unknowns: int | None
    gap: float | None


def measure(case: Case, options: Options) -> Iterator[Row]:
    """The row of a case, attacked on the ``device`` of the options."""
    run = partial(isolated, partial(run_case, case, device=options.device))
    yield summarise(case, run_seeds(case.name, options, run))


def run_case(case: Case, seed: int, device: str | None = None) -> Run:
    """One case at one seed in this process, attacked on ``device``."""
    from exan_verify.models.chain import to_any_network
    from exan_verify.numeric.attack import run
    from exan_verify.numeric.problem.metrics import score, wrong_claims

    model, x, y = build(case, seed)
    gradient = autograd_gradient(model, x, y, case.dtype)
    network = to_any_network(model, in_double=case.dtype == "float64")
    start = time.perf_counter()
    size = case.samples if case.told else None
    found = run(network, gradient, loss="cross_entropy", reduction="mean", device=device, batch_size=size)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = score(found.x, found.y, x, y)
    bounds = [evidence.error_bound for evidence in found.status]
    used = next((s for s in found.layers if s.index == found.layer), None)
    return Run(
        method=found.method,
        recall=result.recall,
        claimed=len(bounds),
        wrong=wrong_claims(found.x, found.y, bounds, x, y),
        rmse=max((sample.rmse for sample in result.samples), default=None),
        bound=max(bounds, default=None),
        labels_right=result.label_accuracy if bounds else None,
        complete=found.complete,
        residual=found.gradient_residual,
        seconds=seconds,
        peak_mib=peak,
        layer=found.layer,
        equations=used.equations if used else None,
        unknowns=used.unknowns if used else None,
        gap=used.null_gap if used else None,
    )


def build(case: Case, seed: int) -> tuple[torch.nn.Sequential, torch.Tensor, torch.Tensor]:
    """Float32 model, inputs (M, d) and classes (M,) of a case."""
    import torch

    from exan_verify.data import initialised_network, mnist_batch, trained_network

    make = trained_network if case.data == "mnist-trained" else initialised_network
    model = activated(make(case.widths, seed=seed), case.activation)
    if case.data.startswith("mnist"):
        images, classes = mnist_batch(case.samples, seed)
        x = torch.tensor(images)
        return initialised(model, case.initialisation, x, seed), x, torch.tensor(classes)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(case.samples, case.widths[0], generator=generator)
    return model, x, torch.randint(case.widths[-1], (case.samples,), generator=generator)


def autograd_gradient(
    model: torch.nn.Sequential,
    x: torch.Tensor,
    y: torch.Tensor,
    dtype: str,
    *,
    loss: Loss = Loss.CROSS_ENTROPY,
) -> dict[str, torch.Tensor]:
    """Gradient of the mean loss of ``x`` (M, d), computed by autograd in ``dtype`` at the float32 weights."""
    import torch

    from exan_verify.numeric.problem.torch_losses import summed_loss

    precision = getattr(torch, dtype)
    parameters = {n: p.detach().to(precision).requires_grad_(True) for n, p in model.named_parameters()}
    logits = torch.func.functional_call(model, parameters, (x.to(precision),))
    target = y.to(precision) if y.is_floating_point() else y
    mean = summed_loss(loss, logits, target) / loss.divisor(Reduction.MEAN, len(x), logits.shape[1])
    return dict(zip(parameters, torch.autograd.grad(mean, list(parameters.values())), strict=True))


def summarise(case: Case, runs: Sequence[Run]) -> Row:
    """Medians and worst values over the runs of a case."""
    return Row(
        name=case.name,
        samples=case.samples,
        seeds=len(runs),
        methods=dict(Counter(run.method for run in runs)),
        recall=statistics.median(run.recall for run in runs),
        recall_worst=min(run.recall for run in runs),
        complete=sum(run.complete for run in runs),
        claimed=sum(run.claimed for run in runs),
        wrong=sum(run.wrong for run in runs),
        rmse=max((run.rmse for run in runs if run.rmse is not None), default=None),
        bound=max((run.bound for run in runs if run.bound is not None), default=None),
        labels_right=min((r.labels_right for r in runs if r.labels_right is not None), default=None),
        residual=max(run.residual for run in runs),
        seconds=statistics.median(run.seconds for run in runs),
        seconds_worst=max(run.seconds for run in runs),
        peak_mib=max(run.peak_mib for run in runs),
        layer=runs[0].layer,
        equations=runs[0].equations,
        unknowns=runs[0].unknowns,
        gap=min((run.gap for run in runs if run.gap is not None), default=None),
    )


def comparison(cases: Sequence[str], drawn: bool) -> tuple[Suite[Any, Any], Sequence[str]]:
    """The comparison beside this suite, and its cases: those of this one and, for a figure or where none is
    named, those by size."""
    from exan_verify.bench import compare

    by_size = [case.name for case in compare.BY_SIZE] if drawn or not cases else []
    return compare.SUITE, [*by_size, *(cases or (case.name for case in CASES if not case.named))]


SUITE = Suite(
    name="attack",
    title="attack: what is recovered from the gradient alone, and what is claimed",
    columns=(
        ("case", "name"),
        ("seeds ", "seeds"),
        ("method", "methods"),
        ("recall ", "recall"),
        ("worst ", "recall_worst"),
        ("complete ", "complete"),
        ("claimed ", "claimed"),
        ("wrong ", "wrong"),
        ("RMSE ", "rmse"),
        ("bound ", "bound"),
        ("labels ", "labels_right"),
        ("layer ", "layer"),
        ("equations ", "equations"),
        ("U ", "unknowns"),
        ("gap ", "gap"),
        ("s, median ", "seconds"),
        ("s, worst ", "seconds_worst"),
        ("peak MiB ", "peak_mib"),
    ),
    cases=CASES,
    measure=measure,
    takes=("device",),
    beside=comparison,
)
