"""``exan bench insecure``: the published insecure boundary, measured on real images.

The published condition (docs/theory.md, P1): every sample has at least two exclusive neurons in the last
hidden layer and at least one in every other. Batches of MNIST digits are *searched for* that satisfy it, or
of which a stated number of samples are short of it (``selecting``), and each is attacked by the published
algorithm (to the letter, and with the repairs E2 and E3), by peeling and by lifting, from its float64
gradient, in a few rows from its float32 gradient. Loss cross_entropy, reduction mean, batch size not told.
Networks: d-512-...-512-K at PyTorch's default initialisation, one per batch, or one trained to 97 %.
Five batches a case take about five minutes on
one core, twenty about eighteen; docs/insecure.md has the table for 20 and reads it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exan_verify.bench import suite
from exan_verify.bench.cases.selecting import Indices, Patterns, Selection, margins, select
from exan_verify.bench.suite import Options, Suite
from exan_verify.errors import RangeError

if TYPE_CHECKING:
    import torch

    from exan_verify.numeric.problem.records import Attack

WIDTH = 512
_RANDOM = 50
"""Random batches for every batch that is searched: how rare is what the search finds?"""

_IN_MEMORY = 24
"""Networks kept with their patterns, which take up to 8 MB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """One row: hidden layers, batch size, and how many of its samples are ``short`` of the condition.

    ``classes``: 10, or 2 (even and odd digits); ``masked``: class 0 never occurs and has a logit so low that
    its probability underflows, so that the first row of dW_L is zero; ``side``: of the images, 28 as they
    are, less in blocks (:func:`digits`); ``dtype``: of the gradient.
    """

    name: str = field(init=False)
    hidden: int
    samples: int
    short: int = 0
    trained: bool = False
    classes: int = 10
    masked: bool = False
    side: int = 28
    dtype: str = "float64"

    @property
    def widths(self) -> tuple[int, ...]:
        """``(d, 512, ..., K)``."""
        return (self.side**2, *[WIDTH] * self.hidden, self.classes)

    def __post_init__(self) -> None:
        state = f"{self.short} short" if self.short else "inside"
        more = ", trained" if self.trained else ", class 0 masked" if self.masked else ""
        more += "" if self.dtype == "float64" else f", {self.dtype}"
        name = f"{'-'.join(map(str, self.widths))} M={self.samples} {state}{more}"
        object.__setattr__(self, "name", name)


_SHORT = {2: (1,), 4: (1,), 8: (1, 4), 16: (1, 8, 16)}
"""Numbers of short samples, by batch size. Hardly any pair has one."""


def _cases() -> Iterator[Case]:
    for hidden in (1, 2, 3):
        for samples in (2, 4, 8, 16, 24, 32):
            for short in (0, *_SHORT.get(samples, ())):
                yield Case(hidden=hidden, samples=samples, short=short)
        yield Case(hidden=hidden, samples=4, trained=True)
    for samples in (4, 16):
        yield Case(hidden=1, samples=samples, side=8)
    yield Case(hidden=1, samples=16, short=8, side=8)
    yield Case(hidden=2, samples=16, side=20)
    yield Case(hidden=1, samples=4, classes=2)
    yield Case(hidden=1, samples=4, masked=True)
    for hidden, samples in ((1, 2), (1, 4), (1, 16), (2, 4)):
        yield Case(hidden=hidden, samples=samples, dtype="float32")


CASES = tuple(_cases())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One batch under one method, as shares of its samples: claimed with RMSE below 1e-3 (``recall``; of
    those that meet the condition, of those that are short, None where there are none), and handed over right
    up to a factor (``scaled``). ``wrong``: claimed samples beyond their bound or with a wrong label;
    ``labels``: the share of claimed labels that are right. ``recall`` is None where the batch is out of the
    method's range.
    """

    recall: float | None
    meeting: float | None
    short: float | None
    wrong: int
    scaled: float
    labels: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A case over its batches: ``batches`` found and ``missing`` ones, mean recalls, and the worst of them.

    ``closest``: exclusive neurons, too few or too many, that the best of the missing ones is off; ``random``:
    the share of random batches that would do. ``letter``: the published text; ``letter_scaled``: the share of
    samples that it hands over up to a factor; ``published``: with the repairs, also among the samples that
    meet the condition and those that are ``short``; ``wrong``: claimed samples beyond their bound or
    with a wrong label, all methods together. Recalls are None without a batch, and where every batch is out
    of the method's range.
    """

    samples: int
    short: int
    batches: int
    missing: int
    closest: int | None
    random: float
    letter: float | None
    letter_scaled: float | None
    published: float | None
    published_worst: float | None
    published_meeting: float | None
    published_short: float | None
    peel: float | None
    peel_worst: float | None
    lift: float | None
    lift_worst: float | None
    labels: float | None
    wrong: int
    seconds: float


METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("letter", {"method": "published", "repairs": False}),
    ("published", {"method": "published"}),
    ("peel", {"method": "peel"}),
    ("lift", {"method": "lift"}),
)


def measure(case: Case, options: Options) -> Iterator[Row]:
    """The row of a case, one batch per seed."""
    start = time.perf_counter()
    trials: dict[str, list[Trial]] = {name: [] for name, _ in METHODS}
    missed: list[int] = []
    drawn: list[float] = []
    for done, seed in enumerate(options.seeds):
        options.tell(case.name, done, len(options.seeds))
        model, shown = network(case, seed)
        drawn.append(_random_share(case, shown, seed))
        chosen = find_batch(case, shown, seed)
        if not chosen.found:
            missed.append(chosen.off)
            continue
        for name, method in METHODS:
            trials[name].append(_trial(case, model, shown, chosen.batch, method))
    seconds = time.perf_counter() - start
    yield summarise(case, trials, missed, random=statistics.fmean(drawn), seconds=seconds)


def network(case: Case, seed: int) -> tuple[torch.nn.Sequential, Patterns]:
    """The float32 network of a case at a seed, and the activation patterns of all embedded images in it."""
    return _network(case.widths, case.side, 0 if case.trained else seed, case.trained, case.masked)


@lru_cache(maxsize=_IN_MEMORY)
def _network(
    widths: tuple[int, ...], side: int, seed: int, trained: bool, masked: bool
) -> tuple[torch.nn.Sequential, Patterns]:
    import torch

    from exan_verify.data import initialised_network, trained_network

    model = (trained_network if trained else initialised_network)(widths, seed=seed)
    last = model[-1]
    if masked and isinstance(last, torch.nn.Linear):
        last.bias.data[0] = -1e4
    return model, patterns(model, digits(side))


@cache
def digits(side: int) -> npt.NDArray[np.float32]:
    """The embedded images as inputs (5000, side^2) in [0, 1]: the means of side x side square blocks, as
    large as fit, of the centre. ``side=28`` is the images, 20 their centre, 8 the means of 3 x 3 pixels."""
    from exan_verify.data import load_mnist, to_inputs

    images = load_mnist()[0]
    block = images.shape[1] // side
    edge = (images.shape[1] - block * side) // 2
    kept = slice(edge, edge + block * side)
    pixels = to_inputs(images[:, kept, kept]).reshape(-1, side, block, side, block)
    means: npt.NDArray[np.float32] = pixels.mean(axis=(2, 4)).reshape(len(images), side**2)
    return means


def patterns(model: torch.nn.Sequential, inputs: npt.NDArray[np.float32]) -> Patterns:
    """The activation patterns of inputs (N, d), in float64."""
    import torch

    h = torch.from_numpy(inputs).double()
    found = []
    with torch.no_grad():
        for layer in [part for part in model if isinstance(part, torch.nn.Linear)][:-1]:
            z = torch.nn.functional.linear(h, layer.weight.double(), layer.bias.double())
            found.append((z > 0).numpy())
            h = z.relu()
    return tuple(found)


def find_batch(case: Case, shown: Patterns, seed: int) -> Selection:
    """The best batch of embedded images for a case, which may not be what was asked for."""
    return select(shown, _allowed(case), case.samples, case.short, _generator(case, seed))


def _random_share(case: Case, shown: Patterns, seed: int) -> float:
    """The share of random batches with exactly as many short samples."""
    rng, allowed = _generator(case, seed), _allowed(case)
    drawn = [rng.choice(allowed, case.samples, replace=False) for _ in range(_RANDOM)]
    return statistics.fmean(int((margins(shown, batch) <= 0).sum()) == case.short for batch in drawn)


def _generator(case: Case, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, case.hidden, case.samples, case.short])


def _allowed(case: Case) -> Indices:
    from exan_verify.data import load_mnist

    labels = load_mnist()[1]
    return np.flatnonzero(labels != 0) if case.masked else np.arange(len(labels))


def _trial(
    case: Case, model: torch.nn.Sequential, shown: Patterns, batch: Indices, options: dict[str, Any]
) -> Trial:
    import torch

    from exan_verify.bench.attack import autograd_gradient
    from exan_verify.data import load_mnist
    from exan_verify.models.chain import to_network
    from exan_verify.numeric.attack import run
    from exan_verify.numeric.problem.metrics import RECOVERED_RMSE, score, wrong_claims

    x = torch.from_numpy(digits(case.side)[batch])
    y = torch.tensor(load_mnist()[1][batch]) % case.classes
    gradient = autograd_gradient(model, x, y, case.dtype)
    try:
        found = run(to_network(model), gradient, loss="cross_entropy", reduction="mean", **options)
    except RangeError:
        return Trial(recall=None, meeting=None, short=None, wrong=0, scaled=0.0, labels=1.0)
    result = score(found.x, found.y, x, y)
    right = np.zeros(len(batch), dtype=bool)
    right[[sample.truth for sample in result.samples if sample.rmse < RECOVERED_RMSE]] = True
    short = margins(shown, batch) <= 0
    return Trial(
        recall=result.recall,
        meeting=_share(right[~short]),
        short=_share(right[short]),
        wrong=wrong_claims(found.x, found.y, [one.error_bound for one in found.status], x, y),
        scaled=_up_to_scale(found, x),
        labels=result.label_accuracy,
    )


def _share(hits: npt.NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _up_to_scale(found: Attack, truth: torch.Tensor) -> float:
    """The share of true samples of which some candidate, claimed or not, is a multiple to RMSE 1e-3."""
    import torch

    from exan_verify.numeric.problem.metrics import RECOVERED_RMSE

    candidates = torch.cat([found.x, *(u.x[None] for u in found.candidates)]).double()
    if not len(candidates):
        return 0.0
    hits = 0
    for x in truth.double():
        factor = (candidates @ x) / candidates.square().sum(dim=1).clamp(min=1e-300)
        off = (factor[:, None] * candidates - x).square().mean(dim=1).sqrt()
        hits += bool((off < RECOVERED_RMSE).any())
    return hits / len(truth)


def summarise(
    case: Case, trials: dict[str, list[Trial]], missed: Sequence[int], *, random: float, seconds: float
) -> Row:
    """Means and worst values over the batches of a case; ``missed``: how far off those are that were not
    found."""

    def known(name: str, what: str = "recall") -> list[float]:
        return [v for trial in trials[name] if (v := getattr(trial, what)) is not None]

    def mean(name: str, what: str = "recall") -> float | None:
        return statistics.fmean(values) if (values := known(name, what)) else None

    every = [trial for some in trials.values() for trial in some]
    return Row(
        name=case.name,
        samples=case.samples,
        short=case.short,
        batches=len(trials["lift"]),
        missing=len(missed),
        closest=min(missed, default=None),
        random=random,
        letter=mean("letter"),
        letter_scaled=mean("letter", "scaled"),
        published=mean("published"),
        published_worst=min(known("published"), default=None),
        published_meeting=mean("published", "meeting"),
        published_short=mean("published", "short"),
        peel=mean("peel"),
        peel_worst=min(known("peel"), default=None),
        lift=mean("lift"),
        lift_worst=min(known("lift"), default=None),
        labels=min((trial.labels for trial in every), default=None),
        wrong=sum(trial.wrong for trial in every),
        seconds=seconds,
    )


SUITE = Suite(
    name="insecure",
    title="insecure: the published condition on real images, satisfied and violated",
    columns=(
        ("case", "name"),
        ("batches ", "batches"),
        ("not found ", "missing"),
        ("off ", "closest"),
        ("random ", "random"),
        ("to the letter ", "letter"),
        ("up to scale ", "letter_scaled"),
        ("repaired ", "published"),
        ("worst ", "published_worst"),
        ("of meeting ", "published_meeting"),
        ("of short ", "published_short"),
        ("peel ", "peel"),
        ("worst ", "peel_worst"),
        ("lift ", "lift"),
        ("worst ", "lift_worst"),
        ("labels ", "labels"),
        ("wrong ", "wrong"),
        ("s ", "seconds"),
    ),
    measured=("seconds",),
    cases=CASES,
    measure=measure,
    repeats="batches",
)
