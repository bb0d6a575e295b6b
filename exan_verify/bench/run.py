"""``exan bench run``: the audit of a training run, certification of every step included.

A network of PyTorch's default initialisation is trained on MNIST digits by plain SGD, one batch of 16 after
the other; every step is audited, the model as it was then. Time counts from the first step to the summary,
drawing and training the batches included; the time of its processors says what a busy machine would have
taken alone. Memory is the sum of the peaks of its processes. Every case is audited twice: at once, and up to
the middle and then resumed, which must give the same digest.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from exan_verify.bench import suite
from exan_verify.bench.suite import Options, Suite, isolated, run_seeds

SAMPLES = 16
LEARNING_RATE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """So many ``steps`` of training 784-512-10, audited by ``jobs`` processes, and attacked where it says
    so."""

    steps: int
    jobs: int = 1
    attack: bool = False
    seeds: int | None = 1
    widths: tuple[int, ...] = (784, 512, 10)


CASES = (
    Case(name="50 steps", steps=50),
    Case(name="50 steps, 2 jobs", steps=50, jobs=2),
    Case(name="50 steps, 2 jobs, attacked", steps=50, jobs=2, attack=True),
    Case(name="1000 steps, 2 jobs", steps=1000, jobs=2, named=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A run: ``seconds`` of wall time in all, and ``cpu`` seconds of all its processes together;
    ``determined`` and ``recovered``: shares of its samples; ``resumed``: whether the run that was interrupted
    in the middle has the same digest."""

    steps: int
    jobs: int
    determined: float | None
    recovered: float | None
    seconds: float
    cpu: float
    peak_mib: float
    resumed: bool


def measure(case: Case, options: Options) -> Iterator[Row]:
    """A row for every seed, in a process of its own."""
    yield from run_seeds(case.name, options, partial(isolated, partial(run_case, case)))


def run_case(case: Case, seed: int) -> Row:
    """One run in this process, and again in two parts."""
    from exan_verify.api.runs.audit_run import audit_run

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        asked: dict[str, Any] = {"jobs": case.jobs, "attack": case.attack}
        whole = audit_run(training(case, seed), out=Path(folder) / "whole", **asked)
        seconds = time.perf_counter() - start
        if case.jobs > 1:
            from joblib.externals.loky import get_reusable_executor

            # the system counts what children took at their end; another executor would leave these waiting
            get_reusable_executor(reuse=True).shutdown(wait=True)
        own, others = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        peak = own.ru_maxrss + (case.jobs * others.ru_maxrss if case.jobs > 1 else 0)
        cpu = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
        parts = Path(folder) / "parts"
        audit_run(islice(training(case, seed), case.steps // 2), out=parts, **asked)
        again = audit_run(training(case, seed), out=parts, **asked)
        shares = [whole.all.share(name) for name in ("confirmed", "consistent")]
        return Row(
            name=case.name,
            steps=whole.all.steps,
            jobs=case.jobs,
            determined=whole.all.share("determined"),
            recovered=None if shares[0] is None or shares[1] is None else shares[0] + shares[1],
            seconds=seconds,
            cpu=cpu,
            peak_mib=peak / 1024,
            resumed=again.digest == whole.digest,
        )


def training(case: Case, seed: int) -> Iterator[Any]:
    """The steps of a training run, the accuracy on the digits every tenth step: model and batch as they are
    when the gradient is taken."""
    import torch

    from exan_verify.api.runs.steps import Step
    from exan_verify.data import accuracy, initialised_network, load_mnist, mnist_batch, one_thread, to_inputs

    model = initialised_network(case.widths, seed)
    images, labels = load_mnist()
    some = torch.from_numpy(to_inputs(images[::10])), torch.tensor(labels[::10])
    reached = None
    with one_thread():
        for k in range(case.steps):
            if k % 10 == 0:
                reached = accuracy(model, *some)
            x, y = mnist_batch(SAMPLES, seed + 1000 * k)
            yield Step(model=model, batch=(x, y), accuracy=reached)
            loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.tensor(y))
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.sub_(LEARNING_RATE * gradient)


SUITE = Suite(
    name="run",
    title="run: a training run of 784-512-10, batches of 16 digits, every step certified",
    columns=(
        ("case", "name"),
        ("steps ", "steps"),
        ("jobs ", "jobs"),
        ("determined ", "determined"),
        ("recovered ", "recovered"),
        ("s ", "seconds"),
        ("CPU s ", "cpu"),
        ("peak MiB ", "peak_mib"),
        ("resumed equal", "resumed"),
    ),
    cases=CASES,
    measure=measure,
    measured=("seconds", "cpu", "peak_mib"),
)
