"""``exan bench insecure``: the published insecure boundary, measured on real images.

The published condition (docs/theory.md, P1): every sample has at least two exclusive neurons in the last
hidden layer and at least one in every other. Batches of MNIST digits are *searched for* that satisfy it, or
that violate it, and each is attacked by the published algorithm (to the letter, and with the repairs E2 and
E3), by peeling and by lifting, from its float64 gradient. Loss cross_entropy, reduction mean, batch size not
told. Networks: 784-512-...-512-10 at PyTorch's default initialisation, one per batch, or one trained to 97 %.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exan_verify.errors import InputError, RangeError

if TYPE_CHECKING:
    import torch

    from exan_verify.numeric.records import Attack

BATCHES = 5
"""By default: about two minutes on one core; twenty take about eight."""

WIDTH = 512
_STEPS = 200
"""Exchanges of one image before a search is given up."""

_POOL = 48
"""Images tried at every exchange."""

_SEARCHES = 12
"""Searches for every batch that is asked for; what they do not find is reported."""

Patterns = tuple[npt.NDArray[np.bool_], ...]
"""Activation patterns of all embedded images (5000, n_i), per hidden layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row: hidden layers, batch size, and whether its batches satisfy the condition (``inside``).

    ``classes``: 10, or 2 (even and odd digits); ``masked``: class 0 never occurs and has a logit so low that
    its probability underflows, so that the first row of dW_L is zero.
    """

    name: str
    hidden: int
    samples: int
    inside: bool
    trained: bool = False
    classes: int = 10
    masked: bool = False


def _cases() -> Iterator[Case]:
    for hidden in (1, 2, 3):
        widths = "-".join(["784", *[str(WIDTH)] * hidden, "10"])
        for samples in (2, 4, 8, 16):
            for inside in (True, False):
                side = "inside" if inside else "outside"
                yield Case(name=f"{widths} M={samples} {side}", hidden=hidden, samples=samples, inside=inside)
        for samples in (2, 4):
            name = f"{widths} M={samples} inside, trained"
            yield Case(name=name, hidden=hidden, samples=samples, inside=True, trained=True)
    yield Case(name="784-512-2 M=4 inside", hidden=1, samples=4, inside=True, classes=2)
    yield Case(name="784-512-10 M=4 inside, class 0 masked", hidden=1, samples=4, inside=True, masked=True)


CASES = tuple(_cases())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One batch under one method: share of it claimed with RMSE below 1e-3, claimed samples beyond their
    bound, share of it handed over right up to a factor, claimed labels that are right, seconds."""

    recall: float
    wrong: int
    scaled: float
    labels: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A case over its batches: ``batches`` found and ``missing`` ones, mean recalls, and the worst of them.

    ``letter``: the published text; ``letter_scaled``: the share of samples that it hands over up to a factor;
    ``published``: with the repairs; ``wrong``: claimed samples beyond their bound, all methods together.
    """

    name: str
    samples: int
    batches: int
    missing: int
    letter: float | None
    letter_scaled: float | None
    published: float | None
    published_worst: float | None
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


def run_insecure_bench(
    *,
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] = tuple(range(BATCHES)),
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Row]:
    """Run the named cases (default: all), one batch per seed, and return one :class:`Row` each.

    ``progress(name, done, total)`` is called before every batch. Raises :class:`InputError` on an unknown
    name, listing the known ones.
    """
    unknown = set(rows or ()) - {case.name for case in CASES}
    if unknown:
        known = ", ".join(repr(case.name) for case in CASES)
        raise InputError(f"no benchmark row {sorted(unknown)}; the rows are {known}")
    return [run_case(case, seeds, progress) for case in CASES if rows is None or case.name in rows]


def run_case(
    case: Case, seeds: Sequence[int], progress: Callable[[str, int, int], None] | None = None
) -> Row:
    """One case over the batches of ``seeds``."""
    start, missing = time.perf_counter(), 0
    trials: dict[str, list[Trial]] = {name: [] for name, _ in METHODS}
    for done, seed in enumerate(seeds):
        if progress is not None:
            progress(case.name, done, len(seeds))
        model = network(case, seed)
        chosen = find_batch(case, patterns(model), seed)
        if chosen is None:
            missing += 1
            continue
        for name, options in METHODS:
            trials[name].append(_trial(case, model, chosen, options))
    return _summary(case, trials, missing, time.perf_counter() - start)


def network(case: Case, seed: int) -> torch.nn.Sequential:
    """The float32 network of a case at a seed."""
    import torch

    from exan_verify.data import initialised_network

    widths = (784, *[WIDTH] * case.hidden, case.classes)
    model = _trained(widths) if case.trained else initialised_network(widths, seed=seed)
    last = model[-1]
    if case.masked and isinstance(last, torch.nn.Linear):
        last.bias.data[0] = -1e4
    return model


@cache
def _trained(widths: tuple[int, ...]) -> torch.nn.Sequential:
    from exan_verify.data import trained_network

    return trained_network(widths, seed=0)


def patterns(model: torch.nn.Sequential) -> Patterns:
    """The activation patterns of all embedded images, in float64."""
    import torch

    from exan_verify.data import load_mnist, to_inputs

    h = torch.from_numpy(to_inputs(load_mnist()[0])).double()
    found = []
    with torch.no_grad():
        for layer in [part for part in model if isinstance(part, torch.nn.Linear)][:-1]:
            z = torch.nn.functional.linear(h, layer.weight.double(), layer.bias.double())
            found.append((z > 0).numpy())
            h = z.relu()
    return tuple(found)


def short_of(shown: Patterns, batch: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Per sample of the batch, how many exclusive neurons it lacks for the condition, all layers together."""
    lacking = np.zeros(len(batch), dtype=np.int64)
    for k, layer in enumerate(shown):
        active = layer[batch]
        exclusive = active[:, active.sum(axis=0) == 1].sum(axis=1)
        lacking += np.maximum((2 if k == len(shown) - 1 else 1) - exclusive, 0)
    return lacking


def find_batch(case: Case, shown: Patterns, seed: int) -> npt.NDArray[np.int64] | None:
    """Indices of embedded images that satisfy (or violate) the condition; None when no search finds any."""
    rng = np.random.default_rng([seed, case.hidden, case.samples])
    allowed = _allowed(case)
    for _ in range(_SEARCHES):
        batch = rng.choice(allowed, case.samples, replace=False)
        found = _inside(shown, batch, allowed, rng) if case.inside else _outside(shown, batch, allowed)
        if found is not None:
            return found
    return None


def _allowed(case: Case) -> npt.NDArray[np.int64]:
    from exan_verify.data import load_mnist

    labels = load_mnist()[1]
    return np.flatnonzero(labels != 0) if case.masked else np.arange(len(labels))


def _inside(
    shown: Patterns, batch: npt.NDArray[np.int64], allowed: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64] | None:
    """Exchange the image that lacks most, again and again, for the best of a random pool."""
    for _ in range(_STEPS):
        lacking = short_of(shown, batch)
        if not lacking.any():
            return batch
        rest = np.delete(batch, int(np.argmax(lacking + rng.random(len(batch)) / 2)))
        pool = np.setdiff1d(rng.choice(allowed, _POOL, replace=False), rest)
        batch = min((np.append(rest, image) for image in pool), key=lambda b: short_of(shown, b).sum())
    return None


def _outside(
    shown: Patterns, batch: npt.NDArray[np.int64], allowed: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64] | None:
    """The batch if it violates the condition, else its first image with those most like it."""
    if short_of(shown, batch).any():
        return batch
    distance = np.sum([(layer != layer[batch[0]]).sum(axis=1) for layer in shown], axis=0)
    alike = allowed[np.argsort(distance[allowed], kind="stable")][: len(batch)]
    return alike if short_of(shown, alike).any() else None


def _trial(
    case: Case, model: torch.nn.Sequential, batch: npt.NDArray[np.int64], options: dict[str, Any]
) -> Trial:
    import torch

    from exan_verify.bench.attack import autograd_gradient
    from exan_verify.convert import to_network
    from exan_verify.data import load_mnist, to_inputs
    from exan_verify.numeric.attack import run
    from exan_verify.numeric.metrics import score

    images, labels = load_mnist()
    x = torch.from_numpy(to_inputs(images[batch]))
    y = torch.tensor(labels[batch]) % case.classes
    gradient = autograd_gradient(model, x, y, "float64")
    start = time.perf_counter()
    try:
        found = run(to_network(model), gradient, loss="cross_entropy", reduction="mean", **options)
    except RangeError:
        return Trial(recall=0.0, wrong=0, scaled=0.0, labels=1.0, seconds=time.perf_counter() - start)
    result = score(found.x, found.y, x, y)
    return Trial(
        recall=result.recall,
        wrong=sum(sample.largest > found.status[sample.index].error_bound for sample in result.samples),
        scaled=_up_to_scale(found, x),
        labels=result.label_accuracy,
        seconds=time.perf_counter() - start,
    )


def _up_to_scale(found: Attack, truth: torch.Tensor) -> float:
    """The share of true samples of which some candidate, claimed or not, is a multiple to RMSE 1e-3."""
    import torch

    from exan_verify.numeric.metrics import RECOVERED_RMSE

    candidates = torch.cat([found.x, *(u.x[None] for u in found.unclaimed)]).double()
    if not len(candidates):
        return 0.0
    hits = 0
    for x in truth.double():
        factor = (candidates @ x) / candidates.square().sum(dim=1).clamp(min=1e-300)
        off = (factor[:, None] * candidates - x).square().mean(dim=1).sqrt()
        hits += bool((off < RECOVERED_RMSE).any())
    return hits / len(truth)


def _summary(case: Case, trials: dict[str, list[Trial]], missing: int, seconds: float) -> Row:
    def mean(name: str, what: str = "recall") -> float | None:
        return statistics.fmean(getattr(t, what) for t in trials[name]) if trials[name] else None

    def worst(name: str) -> float | None:
        return min((t.recall for t in trials[name]), default=None)

    every = [trial for some in trials.values() for trial in some]
    return Row(
        name=case.name,
        samples=case.samples,
        batches=len(trials["lift"]),
        missing=missing,
        letter=mean("letter"),
        letter_scaled=mean("letter", "scaled"),
        published=mean("published"),
        published_worst=worst("published"),
        peel=mean("peel"),
        peel_worst=worst("peel"),
        lift=mean("lift"),
        lift_worst=worst("lift"),
        labels=min((trial.labels for trial in every), default=None),
        wrong=sum(trial.wrong for trial in every),
        seconds=seconds,
    )
