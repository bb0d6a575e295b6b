"""Where a batch stops being determined and recovered: audits over batch sizes, widths or epochs of training.

Every value is a run of its own (:mod:`exan_verify.api.runs.audit_run`): a few networks and batches, drawn by
the seed, certified and attacked.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exan_verify.api.runs.audit_run import audit_run
from exan_verify.api.runs.run_report import SHARES, Totals
from exan_verify.api.runs.steps import Step
from exan_verify.core.arrays import Array, exact_array
from exan_verify.core.question import Question
from exan_verify.errors import FileError, InputError, UsersCode, positive, short, unknown, whole

VALUES = {
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "width": (64, 128, 256, 512),
    "epoch": (0, 1, 2, 4, 8),
}
"""What can be swept over, and the values that are asked where none are given."""

SWEEP_SCHEMA = "exan/sweep/1"
_TRAINING_BATCH = 50
_LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The audits at one ``value``: counts over their samples, and the mean accuracy of their networks on the
    data, None where labels are no classes."""

    value: int
    totals: Totals
    accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a sweep came to: ``points`` in the order of their values; ``batch_size`` of all of them, None
    where it was swept over; ``unfinished``: why values are missing, else empty."""

    over: str
    batch_size: int | None
    repeat: int
    unfinished: str
    points: tuple[Point, ...]

    def to_record(self) -> dict[str, Any]:
        """The sweep as a JSON-able dict of schema ``exan/sweep/1``."""
        return {
            "schema": SWEEP_SCHEMA,
            "over": self.over,
            "batch_size": self.batch_size,
            "repeat": self.repeat,
            "unfinished": self.unfinished,
            "points": [
                {"value": one.value, "accuracy": one.accuracy, **one.totals.to_record()}
                for one in self.points
            ],
        }

    def to_csv(self) -> str:
        """A line for each value: counts of steps and samples, then the shares."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow([self.over, "steps", "samples", "accuracy", *SHARES])
        for one in self.points:
            shares = (one.totals.share(name) for name in SHARES)
            row = [one.value, one.totals.steps, one.totals.samples, one.accuracy, *shares]
            lines.writerow(["" if cell is None else cell for cell in row])
        return text.getvalue()


def sweep(
    make: Callable[..., Any],
    data: tuple[Any, Any],
    *,
    over: str,
    out: str | Path,
    values: Sequence[int] | None = None,
    batch_size: int = 16,
    repeat: int = 3,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    budget: float | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> SweepReport:
    """Audit and attack ``repeat`` batches for each of ``values``, and count what is determined and recovered.

    ``over``: ``batch`` (sizes), ``width`` or ``epoch``. ``make()`` returns a network, a ``torch.nn.Module``
    of Linear layers with ReLU between them, whose weights are drawn by torch; for ``width`` it is
    ``make(width)``. ``data = (x, y)``: x (N, ...) and its labels, from which batches are drawn, and on which
    networks are trained for ``epoch`` (Adam at 1e-3, batches of 50); that many epochs before the gradient is
    taken. ``out``: a folder with a run for each value, which a later call with the same arguments goes on
    with. ``budget``: seconds for all. ``options``: those of :func:`audit_run` besides.

    Raises :class:`InputError` or a subclass naming what cannot be used, and what :func:`audit_run` raises.
    """
    if over not in VALUES:
        raise InputError(unknown("over", over, list(VALUES)))
    asked = Question.of(loss, reduction, labels)
    chosen = _values(over, VALUES[over] if values is None else values)
    plan = _Plan(
        make=make,
        x=exact_array(data[0], "x"),
        y=exact_array(data[1], "y"),
        question=asked,
        over=over,
        batch_size=whole(batch_size, "batch_size"),
        repeat=whole(repeat, "repeat"),
        seed=whole(seed, "seed", least=0),
    )
    plan.check(max(chosen) if over == "batch" else plan.batch_size)
    folder = Path(out)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be created ({error.strerror}); give another folder") from None
    end = None if budget is None else time.monotonic() + float(positive(budget, "budget"))
    points: list[Point] = []
    unfinished = ""
    for place, value in enumerate(chosen):
        if progress is not None:
            progress(f"{over} {value}, {place} of {len(chosen)} done")
        left = None if end is None else max(end - time.monotonic(), 1e-9)
        found = audit_run(
            plan.steps(value),
            out=folder / f"{over}-{value}",
            loss=loss,
            reduction=reduction,
            labels=labels,
            attack=True,
            budget=left,
            seed=seed,
            **options,
        )
        if found.unfinished:
            unfinished = found.unfinished
            break
        reached = [record.accuracy for record in found.steps() if record.accuracy is not None]
        mean = sum(reached) / len(reached) if reached else None
        points.append(Point(value=value, totals=found.all, accuracy=mean))
    return SweepReport(
        over=over,
        batch_size=None if over == "batch" else plan.batch_size,
        repeat=plan.repeat,
        unfinished=unfinished,
        points=tuple(points),
    )


def _values(over: str, values: Any) -> list[int]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or not len(values):
        raise InputError(f"values={short(values)} cannot be used; give a list of integers")
    least = 0 if over == "epoch" else 1
    return sorted({whole(value, "values", least=least, most=1 << 24) for value in values})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is drawn for a value; networks that are trained go on from one value to the next."""

    make: Callable[..., Any]
    x: Array
    y: Array
    question: Question
    over: str
    batch_size: int
    repeat: int
    seed: int
    trained: dict[int, tuple[Any, int]] = field(default_factory=dict)

    def check(self, largest: int) -> None:
        """Raise :class:`InputError` for data that no batch can be drawn from."""
        if self.x.ndim < 2 or self.y.shape[:1] != self.x.shape[:1]:
            raise InputError(
                f"data has x of shape {self.x.shape} and y of shape {self.y.shape}; give (N, ...) and N "
                "labels"
            )
        if len(self.x) < largest:
            raise InputError(f"data has {len(self.x)} samples for batches of {largest}; give more samples")

    def steps(self, value: int) -> Iterator[Step]:
        """``repeat`` networks, each with a batch."""
        size = value if self.over == "batch" else self.batch_size
        for k in range(self.repeat):
            model = self.network(value, k)
            chosen = np.random.default_rng([self.seed, value, k]).choice(len(self.x), size, replace=False)
            yield Step(
                model=model, batch=(self.x[chosen], self.y[chosen]), step=k, accuracy=self.accuracy(model)
            )

    def network(self, value: int, k: int) -> Any:
        """Network ``k`` for a value, drawn anew, or trained on from the value before."""
        import torch

        if self.over != "epoch" or k not in self.trained:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed + k)
                with UsersCode("making the network raised"):
                    model = self.make(value) if self.over == "width" else self.make()
            if self.over != "epoch":
                return model
            self.trained[k] = model, 0
        model, epochs = self.trained[k]
        for epoch in range(epochs, value):
            self.train(model, [self.seed, k, epoch])
        self.trained[k] = model, value
        return model

    def train(self, model: Any, seed: list[int]) -> None:
        """One epoch over the data; a new Adam for each, so that a sweep can be resumed anywhere."""
        import torch

        from exan_verify.numeric.problem.torch_losses import summed_loss

        if not isinstance(model, torch.nn.Module):
            raise InputError(f"a {type(model).__name__} cannot be trained; make a torch.nn.Module")
        like = next(model.parameters())
        optimiser = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
        order = np.random.default_rng(seed).permutation(len(self.x))
        for start in range(0, len(order), _TRAINING_BATCH):
            chosen = order[start : start + _TRAINING_BATCH]
            x = torch.tensor(np.asarray(self.x[chosen], dtype=np.float64)).to(like)
            y = torch.tensor(np.asarray(self.y[chosen], dtype=np.float64))
            optimiser.zero_grad()
            logits = model(x)
            target = y.long() if y.dim() == 1 else y.to(like)
            mean = summed_loss(self.question.loss, logits, target) / len(chosen)
            mean.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    def accuracy(self, model: Any) -> float | None:
        """The share of the data that the model puts into its class."""
        import torch

        if self.y.ndim != 1 or not isinstance(model, torch.nn.Module):
            return None
        like = next(model.parameters())
        x = torch.tensor(np.asarray(self.x, dtype=np.float64)).to(like)
        with torch.no_grad(), UsersCode("the network's forward pass raised"):
            right = model(x).argmax(1).numpy() == np.asarray(self.y, dtype=np.float64)
        return float(right.mean())
