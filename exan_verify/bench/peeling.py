"""``exan bench peeling``: what peeling accepts that is not in the batch, by a tolerance and by our test.

784-512-10 at PyTorch's default initialisation, 32 MNIST digits, mean cross_entropy; the gradient is exact to
the rounding of its dtype. Each seed is another network and another batch. ``tolerance`` is the baseline of
``rivals/tolerance_peeling.py``, which is told the batch size, relative to a row's bias entry, ``LT peeling``
the same with its authors' absolute one; ``peel`` and ``auto`` are the package's own methods.

Cases that begin with *traps*: 784-1000-10 whose first-layer biases were set to trap samples (``traps.py``), B
digits that were not used for that. There our methods are told the batch size, too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from exan_verify.bench import suite
from exan_verify.bench.attack import autograd_gradient
from exan_verify.bench.cases.traps import trap_network
from exan_verify.bench.rivals.tolerance_peeling import PUBLISHED, tolerance_peeling
from exan_verify.bench.suite import Options, Suite, run_seeds
from exan_verify.data import initialised_network, mnist_batch
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.problem.metrics import score, wrong_claims

WIDTHS = (784, 512, 10)
SAMPLES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """One row: ``tolerance`` of the baseline, relative or ``absolute``, or None for the package's ``method``;
    the gradient's dtype; ``traps``: how many digits are sent through a network with traps, 0 for 32 through
    an initialised one."""

    method: str
    dtype: str
    tolerance: float | None = None
    absolute: bool = False
    traps: int = 0


DTYPES = ("float64", "float32")
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
TRAPPED = (256, 400, 512, 700)
TRAP_TOLERANCES = (1e-3, 1e-4, 1e-6)
_PUBLISHED = Case(name="LT peeling, float64", method="", dtype="float64", tolerance=PUBLISHED, absolute=True)

CASES = (
    _PUBLISHED,
    *(
        case
        for dtype in DTYPES
        for case in (
            *(
                Case(name=f"tolerance {t:.0e}, {dtype}", method="", dtype=dtype, tolerance=t)
                for t in TOLERANCES
            ),
            *(Case(name=f"{method}, {dtype}", method=method, dtype=dtype) for method in ("peel", "auto")),
        )
    ),
    *(
        case
        for size in TRAPPED
        for case in (
            replace(_PUBLISHED, name=f"traps B={size}, LT peeling", traps=size, seeds=3),
            *(
                Case(
                    name=f"traps B={size}, tolerance {t:.0e}",
                    method="",
                    dtype="float64",
                    tolerance=t,
                    traps=size,
                    seeds=3,
                )
                for t in TRAP_TOLERANCES
            ),
            *(
                Case(name=f"traps B={size}, {method}", method=method, dtype="float64", traps=size, seeds=3)
                for method in ("peel", "auto")
            ),
        )
    ),
)
"""The rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One batch: its share found with RMSE below 1e-3; samples ``accepted``, and those of them that are
    ``bogus``: no sample of the batch, or with a wrong label, or (ours) beyond their bound."""

    recall: float
    accepted: int
    bogus: int
    bound: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A case over its seeds: ``recall`` median, ``recall_worst``; ``accepted`` and ``bogus`` sums;
    ``spoiled``: batches with a bogus sample; ``bound`` the largest of any claimed sample."""

    seeds: int
    recall: float
    recall_worst: float
    accepted: int
    bogus: int
    spoiled: int
    bound: float | None
    seconds: float


def measure(case: Case, options: Options) -> Iterator[Row]:
    """The row of a case."""
    yield summarise(case.name, run_seeds(case.name, options, partial(run_case, case)))


def run_case(case: Case, seed: int) -> Run:
    """One case at one seed."""
    samples = case.traps or SAMPLES
    if case.traps:
        model, x, y = trap_network(samples, seed)
    else:
        model = initialised_network(WIDTHS, seed=seed)
        images, classes = mnist_batch(samples, seed)
        x, y = torch.tensor(images), torch.tensor(classes)
    gradient = autograd_gradient(model, x, y, case.dtype)
    start = time.perf_counter()
    if case.tolerance is not None:
        found, labels = tolerance_peeling(
            model, gradient, batch_size=samples, tolerance=case.tolerance, absolute=case.absolute
        )
        bounds = None
    else:
        network = to_network(model)
        size = samples if case.traps else None
        attack = run(
            network, gradient, loss="cross_entropy", reduction="mean", batch_size=size, method=case.method
        )
        found, labels = attack.x, attack.y
        bounds = [evidence.error_bound for evidence in attack.status]
    seconds = time.perf_counter() - start
    return Run(
        recall=score(found, labels, x, y).recall,
        accepted=len(found),
        bogus=wrong_claims(found, labels, bounds, x, y),
        bound=max(bounds or [], default=None),
        seconds=seconds,
    )


def summarise(name: str, runs: Sequence[Run]) -> Row:
    """Medians, sums and worst values over the seeds of a case."""
    return Row(
        name=name,
        seeds=len(runs),
        recall=statistics.median(run.recall for run in runs),
        recall_worst=min(run.recall for run in runs),
        accepted=sum(run.accepted for run in runs),
        bogus=sum(run.bogus for run in runs),
        spoiled=sum(run.bogus > 0 for run in runs),
        bound=max((run.bound for run in runs if run.bound is not None), default=None),
        seconds=statistics.median(run.seconds for run in runs),
    )


SUITE = Suite(
    name="peeling",
    title="peeling: what a tolerance accepts that is not in the batch, and what our test accepts",
    columns=(
        ("accepted by", "name"),
        ("seeds ", "seeds"),
        ("recall ", "recall"),
        ("worst ", "recall_worst"),
        ("accepted ", "accepted"),
        ("bogus ", "bogus"),
        ("batches with one ", "spoiled"),
        ("bound ", "bound"),
        ("s ", "seconds"),
    ),
    cases=CASES,
    measure=measure,
)
