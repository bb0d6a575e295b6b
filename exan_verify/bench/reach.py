"""``exan bench reach``: where each attack ends, in neurons per unknown.

784-n-10, MNIST digits, mean cross-entropy; batches of growing size, doubled while they come back and then a
fourth root of two apart, until two sizes in a row do not: at PyTorch's default initialisation or trained to
97 %, from float64 and float32 gradients, with ReLU or LeakyReLU 0.01 (initialised only). The attack is told
the batch size and gets ``--seconds`` of processor time for each batch, so that a busy machine ends it no
earlier; cases of more than 256 neurons take long and are run when they are named. M samples of K classes have
M + min(M, K - 1) unknowns in the equations of docs/theory.md 3.1: a column of deltas in M coordinates, and a
loss vector.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from exan_verify.bench import attack, suite
from exan_verify.bench.suite import Options, Suite, isolated, run_seeds
from exan_verify.errors import BudgetExhausted, InputError, RangeError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

METHODS = ("lift", "assign", "peel")
"""What is asked where no method is named; ``auto`` is these in turn."""

CLASSES = 10
SIZES = tuple(dict.fromkeys(round(4 * 2 ** (k / 4)) for k in range(32)))
"""Of the batches, four from one to its double."""

_LEAP = 4
_FAILURES = 2
"""Sizes in a row that do not come back at which it ends: one may have a sample that no method sees."""

_SHOWN = 1e-3
"""RMSE below which a candidate shows a digit, as for those that are found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """A row for every method: ``neurons`` of the hidden layer; ``trained``: to 97 %, else initialised;
    ``dtype``: the gradient's; ``activation``: ReLU or LeakyReLU; ``seconds``: processor time of an attack."""

    neurons: int
    trained: bool
    dtype: str
    activation: str = "ReLU"
    seconds: float = 5.0
    seeds: int | None = 3


CASES = tuple(
    Case(
        name=f"n={neurons} {'trained' if trained else 'initialised'} {activation} {dtype}",
        neurons=neurons,
        trained=trained,
        dtype=dtype,
        activation=activation,
        seconds=60.0 if neurons > 256 else 5.0,
        named=neurons > 256,
    )
    for neurons in (64, 128, 256, 512, 1000)
    for trained, activation in ((False, "ReLU"), (True, "ReLU"), (False, "LeakyReLU"))
    for dtype in ("float64", "float32")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One method at one seed: the largest batch of which every sample was ``found``, confirmed or consistent,
    and the largest of which every sample was ``shown``, candidates included; 0: none. ``ended``: why the
    size after it was not; ``wrong`` claims in all; ``seconds`` of processor time of the largest found."""

    found: int
    shown: int
    ended: str
    wrong: int
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A case and a method over its seeds: medians of :class:`Run`, and the worst of ``found``.

    ``per_unknown``: neurons for each unknown of the median batch found, ``shown_per_unknown``: of the one
    shown; None where there is none. ``ended``: of the first seed.
    """

    method: str
    neurons: int
    trained: bool
    dtype: str
    activation: str
    seeds: int
    found: int
    found_worst: int
    per_unknown: float | None
    shown: int
    shown_per_unknown: float | None
    wrong: int
    ended: str
    seconds: float | None


def measure(case: Case, options: Options) -> Iterator[Row]:
    """A row for every method of the options, each run in a process of its own.

    Raises :class:`InputError` on a method that there is not.
    """
    methods = tuple(options.methods) or METHODS
    from exan_verify.numeric import attack as numeric

    for method in methods:
        if method != "auto" and method not in numeric.METHODS:
            raise InputError(unknown("method", method, ["auto", *numeric.METHODS]))
    for method in methods:
        seconds = case.seconds if options.seconds is None else options.seconds
        run = partial(isolated, partial(run_case, case, method, seconds))
        yield summarise(case, method, run_seeds(f"{case.name}, {method}", options, run))


def run_case(case: Case, method: str, seconds: float, seed: int, *, sizes: Sequence[int] = SIZES) -> Run:
    """One method on batches of these ``sizes``, until two in a row do not come back."""
    import torch

    from exan_verify.data import mnist_batch

    like = attack.Case(
        name=case.name,
        widths=(784, case.neurons, CLASSES),
        samples=1,
        data="mnist-trained" if case.trained else "mnist",
        activation=case.activation,
    )
    model, _, _ = attack.build(like, seed)
    tried: list[_One] = []

    @cache
    def attacked(samples: int) -> _One:
        images, classes = mnist_batch(samples, seed)
        tried.append(_attacked(case, model, torch.tensor(images), torch.tensor(classes), method, seconds))
        return tried[-1]

    last = _last_back(sizes, lambda samples: attacked(samples).found == samples)
    shown = _last_back(sizes, lambda samples: attacked(samples).shown == samples)
    after = sizes[last + 1 : last + 2]
    return Run(
        found=sizes[last] if last >= 0 else 0,
        shown=sizes[shown] if shown >= 0 else 0,
        ended="".join(f"M={samples}: {attacked(samples).why}" for samples in after),
        wrong=sum(one.wrong for one in tried),
        seconds=attacked(sizes[last]).seconds if last >= 0 else None,
    )


def _last_back(sizes: Sequence[int], back: Callable[[int], bool]) -> int:
    """The place of the last size that came ``back`` before two in a row that do not, -1: none; looked for
    beyond the doubled sizes that all come back."""
    last = place = -1
    for leap in range(0, len(sizes), _LEAP):
        if not back(sizes[leap]):
            break
        last = place = leap
    while place - last < _FAILURES and place + 1 < len(sizes):
        place += 1
        last = place if back(sizes[place]) else last
    return last


@dataclass(frozen=True, slots=True, kw_only=True)
class _One:
    """One attack: how many samples were found and shown, wrong claims, and why there are no more."""

    found: int = 0
    shown: int = 0
    wrong: int = 0
    seconds: float
    why: str


def _attacked(case: Case, model: nn.Sequential, x: Tensor, y: Tensor, method: str, seconds: float) -> _One:
    import torch

    from exan_verify.models.chain import to_any_network
    from exan_verify.numeric.attack import run
    from exan_verify.numeric.problem.metrics import score, wrong_claims

    gradient = attack.autograd_gradient(model, x, y, case.dtype)
    network = to_any_network(model, in_double=case.dtype == "float64")
    start = time.process_time()

    def limited(_what: str, _share: float) -> None:
        if time.process_time() - start > seconds:
            raise BudgetExhausted(f"stopped after {seconds:g} s")

    try:
        found = run(
            network,
            gradient,
            loss="cross_entropy",
            reduction="mean",
            batch_size=len(x),
            method=method,
            progress=limited,
        )
    except (BudgetExhausted, RangeError) as error:
        why = "out of range" if isinstance(error, RangeError) else str(error)
        return _One(seconds=time.process_time() - start, why=why)
    took = time.process_time() - start
    inputs = torch.cat([found.x.double(), found.stacked_candidates()[0].double()])
    # rooted mean of squares of differences, as of the samples found
    nearest = torch.cdist(x.double(), inputs) / x.shape[1] ** 0.5
    shown = int((nearest < _SHOWN).any(dim=1).sum())
    count = round(score(found.x, found.y, x, y).recall * len(x))
    why = f"{count} found and {shown} shown" + (f", stopped after {seconds:g} s" if found.unfinished else "")
    bounds = [one.error_bound for one in found.status]
    wrong = wrong_claims(found.x, found.y, bounds, x, y)
    return _One(found=count, shown=shown, wrong=wrong, seconds=took, why=why)


def summarise(case: Case, method: str, runs: Sequence[Run]) -> Row:
    """Medians and worst values over the runs of a case and a method."""
    found = int(statistics.median_low([run.found for run in runs]))
    shown = int(statistics.median_low([run.shown for run in runs]))
    return Row(
        name=case.name,
        method=method,
        neurons=case.neurons,
        trained=case.trained,
        dtype=case.dtype,
        activation=case.activation,
        seeds=len(runs),
        found=found,
        found_worst=min(run.found for run in runs),
        per_unknown=per_unknown(case.neurons, found),
        shown=shown,
        shown_per_unknown=per_unknown(case.neurons, shown),
        wrong=sum(run.wrong for run in runs),
        ended=runs[0].ended,
        seconds=max((run.seconds for run in runs if run.seconds is not None), default=None),
    )


def per_unknown(neurons: int, samples: int) -> float | None:
    """``neurons`` for each unknown of a batch of ``samples``; None for no sample."""
    return neurons / (samples + min(samples, CLASSES - 1)) if samples else None


def figure(rows: Sequence[Row]) -> bytes:
    """A PNG file: neurons per unknown at which each method ends against neurons, a panel for each dtype."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(9.5, 5.2), dpi=150, layout="constrained")
    dtypes = list(dict.fromkeys(row.dtype for row in rows)) or ["float64"]
    panels = made.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    methods = list(dict.fromkeys(row.method for row in rows))
    neurons = sorted({row.neurons for row in rows})
    for axes, dtype in zip(panels, dtypes, strict=True):
        for method in methods:
            for (trained, activation), (line, mark) in _STYLES.items():
                own = [
                    row
                    for row in rows
                    if (row.method, row.dtype, row.trained, row.activation)
                    == (method, dtype, trained, activation)
                ]
                ends = [(row.neurons, row.per_unknown) for row in own if row.per_unknown is not None]
                state = "trained" if trained else "initialised"
                if own and not ends:
                    # hollow: what candidates show where no batch was found whole
                    ends = [(r.neurons, r.shown_per_unknown) for r in own if r.shown_per_unknown is not None]
                    line, hollow = " ", True
                else:
                    hollow = False
                if ends:
                    axes.plot(
                        *zip(*ends, strict=True),
                        line,
                        marker=mark,
                        markersize=5,
                        fillstyle="none" if hollow else "full",
                        color=f"C{methods.index(method)}",
                        label=f"{method}, {state}, {activation}" + (" (candidates)" if hollow else ""),
                    )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(neurons, [str(count) for count in neurons])
        axes.set_xlim(0.8 * min(neurons, default=64), 1.25 * max(neurons, default=64))
        axes.set_yticks(_TICKS, [str(tick) for tick in _TICKS])
        axes.minorticks_off()
        axes.set_xlabel("neurons")
        axes.set_title(f"{dtype} gradients", fontsize=10)
        axes.grid(visible=True, alpha=0.3)
    panels[0].set_ylabel("neurons per unknown at the largest batch found whole")
    labelled = {
        text: handle
        for axes in panels
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    made.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=3, fontsize=8)
    made.suptitle("Where the attack ends: 784-n-10, MNIST; lower reaches further", fontsize=11)
    stream = io.BytesIO()
    made.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


_STYLES = {(False, "ReLU"): ("-", "o"), (True, "ReLU"): ("--", "s"), (False, "LeakyReLU"): (":", "^")}
_TICKS = (1, 2, 4, 8, 16, 32, 64)

SUITE = Suite(
    name="reach",
    title="reach: where the attack ends, in neurons per unknown",
    columns=(
        ("case", "name"),
        ("method", "method"),
        ("seeds ", "seeds"),
        ("found ", "found"),
        ("worst ", "found_worst"),
        ("neurons per unknown ", "per_unknown"),
        ("shown ", "shown"),
        ("per unknown ", "shown_per_unknown"),
        ("wrong ", "wrong"),
        ("CPU s ", "seconds"),
        ("then", "ended"),
    ),
    cases=CASES,
    measure=measure,
    takes=("seconds", "methods"),
    measured=("seconds",),
    unnamed_seeds=1,
    figure=figure,
)
