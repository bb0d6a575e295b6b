"""``exan bench training``: the attack on what clients send in training, beyond the gradient of one step.

MNIST digits, PyTorch's default initialisation, cross_entropy with reduction mean, float64. The update is the
weights after the local steps minus those before, as autograd makes them. What counts beside recall is that
nothing wrong is found: a sample that is confirmed or consistent must be within its bound of a true one, with
the true label; and that under a rate that is not the true one (``told``, a factor) nothing is confirmed.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exan_verify.api.attack import attack
from exan_verify.bench import suite
from exan_verify.bench.suite import Options, Suite, run_seeds
from exan_verify.data import initialised_network, mnist_batch
from exan_verify.numeric.problem.metrics import score, wrong_claims


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """One row: mini-batches of ``sizes``, gone through ``epochs`` times at rate ``lr``; ``told``: the attack
    is told so many times that rate. With other classes than ten, labels are drawn."""

    sizes: tuple[int, ...]
    epochs: int = 1
    widths: tuple[int, ...] = (784, 512, 10)
    lr: float = 0.1
    told: float = 1.0
    seeds: int | None = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class NormCase(Case):
    """A step with BatchNorm after the first layer, in training mode; ``statistics``: the running ones after
    it are told; ``dtype``: what the step is computed in. Where the mean is not determined, samples less their
    mean are compared."""

    statistics: bool = True
    dtype: torch.dtype = torch.float64


CASES: tuple[Case, ...] = (
    Case(name="M=8 in 4 mini-batches", sizes=(2, 2, 2, 2)),
    Case(name="M=8 in 4 mini-batches, told twice the rate", sizes=(2, 2, 2, 2), told=2.0),
    Case(name="M=9 in mini-batches of 4, 4, 1", sizes=(4, 4, 1)),
    Case(name="784-256-128-10 M=8 in 4 mini-batches", sizes=(2, 2, 2, 2), widths=(784, 256, 128, 10)),
    Case(name="784-1000-100 M=32 in 4 mini-batches", sizes=(8, 8, 8, 8), widths=(784, 1000, 100), seeds=3),
    Case(name="M=8, 2 full steps", sizes=(8,), epochs=2),
    Case(name="M=8, 2 full steps, told 1.1 times the rate", sizes=(8,), epochs=2, told=1.1),
    Case(name="M=8, 5 full steps", sizes=(8,), epochs=5),
    Case(name="M=8, 10 full steps", sizes=(8,), epochs=10, seeds=3),
    Case(name="M=16, 2 full steps", sizes=(16,), epochs=2, seeds=3),
    Case(name="M=8 in 4 mini-batches, twice over", sizes=(2, 2, 2, 2), epochs=2, seeds=3),
    Case(name="M=16 in 4 mini-batches", sizes=(4, 4, 4, 4), seeds=3),
    NormCase(name="BatchNorm, 784-1024-10, M=8", sizes=(8,), widths=(784, 1024, 10)),
    NormCase(
        name="BatchNorm, 784-1024-10, M=8, float32",
        sizes=(8,),
        widths=(784, 1024, 10),
        dtype=torch.float32,
    ),
    NormCase(name="BatchNorm, 784-512-10, M=8, less the mean", sizes=(8,)),
    NormCase(name="BatchNorm, 784-512-10, M=8, no statistics", sizes=(8,), statistics=False, seeds=3),
)
"""The rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One attack: shares and counts of samples, the largest true ``error`` (L-infinity) and ``bound`` among
    those found."""

    recall: float
    confirmed: int
    consistent: int
    candidates: int
    wrong: int
    error: float | None
    bound: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A case over its seeds: ``recall`` and the counts are medians, ``recall_worst`` the lowest, ``wrong``
    the sum (must be 0), ``error`` and ``bound`` the largest."""

    samples: int
    seeds: int
    recall: float
    recall_worst: float
    confirmed: float
    consistent: float
    candidates: float
    wrong: int
    error: float | None
    bound: float | None
    seconds: float


def local_update(
    model: nn.Module, x: Tensor, y: Tensor, sizes: Sequence[int], epochs: int, lr: float
) -> dict[str, Tensor]:
    """What a client sends after plain steps of rate ``lr`` on mini-batches of ``sizes`` in order, float64."""
    client = copy.deepcopy(model).double()
    before = {name: p.detach().clone() for name, p in client.named_parameters()}
    optimiser = torch.optim.SGD(client.parameters(), lr=lr)
    for chosen in [*torch.split(torch.arange(len(x)), list(sizes))] * epochs:
        optimiser.zero_grad()
        nn.functional.cross_entropy(client(x[chosen].double()), y[chosen]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return {name: p.detach() - before[name] for name, p in client.named_parameters()}


def measure(case: Case, options: Options) -> Iterator[Row]:
    """The row of a case, on the ``device`` of the options."""

    def run(seed: int) -> Outcome:
        return attacked(case, seed, options.device)

    yield summarise(case, run_seeds(case.name, options, run))


def attacked(case: Case, seed: int, device: str | None = None) -> Outcome:
    """One seed of a case."""
    if isinstance(case, NormCase):
        return attacked_norm(case, seed, device)
    samples, classes = sum(case.sizes), case.widths[-1]
    images, digits = mnist_batch(samples, seed)
    x, y = torch.tensor(images), torch.tensor(digits)
    if classes != 10:
        y = torch.randint(classes, (samples,), generator=torch.Generator().manual_seed(seed))
    model = initialised_network(case.widths, seed=seed)
    update = local_update(model, x, y, case.sizes, case.epochs, case.lr)
    start = time.perf_counter()
    found = attack(
        model,
        update,
        local_steps=case.epochs * len(case.sizes),
        local_batches=case.sizes,
        lr=case.lr * case.told,
        device=device,
    )
    seconds = time.perf_counter() - start
    result = score(found.x, found.y, x, y)
    bounds = [evidence.error_bound for evidence in found.status]
    return Outcome(
        recall=result.recall,
        confirmed=found.count("confirmed"),
        consistent=found.count("consistent"),
        candidates=len(found.candidates),
        wrong=wrong_claims(found.x, found.y, bounds, x, y),
        error=max((one.largest for one in result.samples), default=None),
        bound=max(bounds, default=None),
        seconds=seconds,
    )


def attacked_norm(case: NormCase, seed: int, device: str | None = None) -> Outcome:
    """One seed of a case with BatchNorm."""
    images, digits = mnist_batch(sum(case.sizes), seed)
    x, y = torch.tensor(images).to(case.dtype), torch.tensor(digits)
    first, *rest = initialised_network(case.widths, seed=seed)
    model = nn.Sequential(first, nn.BatchNorm1d(case.widths[1]), *rest).to(case.dtype).train()
    before = {name: b.clone() for name, b in model.named_buffers()}
    nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    gradient = {name: p.grad for name, p in model.named_parameters()}
    after = dict(model.named_buffers()) if case.statistics else None
    start = time.perf_counter()
    found = attack(model, gradient, buffers=before, buffers_after=after, device=device)
    seconds, x = time.perf_counter() - start, x.double()
    values, labels, status, truth = found.x, found.y, found.status, x
    if not len(values) and found.centred is not None:
        values, labels, status = found.centred.values, found.centred.labels, found.centred.status
        truth = x - x.mean(dim=0)
    bounds = [one.error_bound for one in status]
    result = score(values, labels, truth, y)
    return Outcome(
        recall=result.recall,
        confirmed=found.count("confirmed"),
        consistent=len(status),
        candidates=len(found.candidates),
        wrong=wrong_claims(values, labels, bounds, truth, y),
        error=max((one.largest for one in result.samples), default=None),
        bound=max(bounds, default=None),
        seconds=seconds,
    )


def summarise(case: Case, outcomes: Sequence[Outcome]) -> Row:
    """Medians, sums and worst values over the seeds of a case."""
    return Row(
        name=case.name,
        samples=sum(case.sizes),
        seeds=len(outcomes),
        recall=statistics.median(o.recall for o in outcomes),
        recall_worst=min(o.recall for o in outcomes),
        confirmed=statistics.median(o.confirmed for o in outcomes),
        consistent=statistics.median(o.consistent for o in outcomes),
        candidates=statistics.median(o.candidates for o in outcomes),
        wrong=sum(o.wrong for o in outcomes),
        error=max((o.error for o in outcomes if o.error is not None), default=None),
        bound=max((o.bound for o in outcomes if o.bound is not None), default=None),
        seconds=statistics.median(o.seconds for o in outcomes),
    )


SUITE = Suite(
    name="training",
    title="training: updates of several local steps, and steps with BatchNorm in training mode",
    columns=(
        ("update", "name"),
        ("seeds ", "seeds"),
        ("recall ", "recall"),
        ("worst ", "recall_worst"),
        ("confirmed ", "confirmed"),
        ("consistent ", "consistent"),
        ("candidates ", "candidates"),
        ("wrong ", "wrong"),
        ("error ", "error"),
        ("bound ", "bound"),
        ("s ", "seconds"),
    ),
    cases=CASES,
    measure=measure,
    takes=("device",),
)
