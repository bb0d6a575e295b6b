"""``exan bench robustness``: the attack on gradients that are not, not exactly, or not all of a batch's.

784-512-10 at PyTorch's default initialisation, 16 MNIST digits, cross_entropy, reduction mean. The gradient
is taken in float64 and then spoiled; noise is Gaussian, its size relative to the root mean square of all
entries. Rows with other widths, or with tensors missing, say so. What counts is that nothing wrong is
found: a sample that is confirmed or consistent must be within its bound of a true one, with the true label,
and no true sample may be found twice. Rows that begin with *scale unknown* or *weights positive* tell the
attack so, and the batch size; ``ratio`` is the attack's processor time over that on the plain gradient, one
after the other. ``of_least`` compares the error of what is shown in any tier with the Cramer-Rao bound
(cramer_rao.py).
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from exan_verify.bench import suite
from exan_verify.bench.attack import autograd_gradient
from exan_verify.bench.cramer_rao import least_error
from exan_verify.bench.suite import Options, Suite, run_seeds
from exan_verify.core.question import Loss
from exan_verify.data import initialised_network, mnist_batch, trained_network
from exan_verify.errors import InputError
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.problem.metrics import RECOVERED_RMSE, score, wrong_claims
from exan_verify.numeric.problem.records import Attack

Gradient = dict[str, Tensor]

WIDTHS = (784, 512, 10)
SAMPLES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a gradient is taken of: a float32 model, inputs (M, d), classes (M,), and a seed for the noise."""

    model: nn.Sequential
    x: Tensor
    y: Tensor
    seed: int
    loss: Loss = Loss.CROSS_ENTROPY

    def gradient(self, dtype: str = "float64") -> Gradient:
        """Of the whole batch."""
        return autograd_gradient(self.model, self.x, self.labels, dtype, loss=self.loss)

    @property
    def labels(self) -> Tensor:
        """The classes as the loss has them: (M,), or one-hot (M, K)."""
        if self.loss.class_labels:
            return self.y
        return nn.functional.one_hot(self.y, int(self.model[-1].out_features)).double()  # type: ignore[arg-type]


def as_it_is(scene: Scene) -> Scene:
    """Unprepared."""
    return scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode(suite.Case):
    """One way to spoil a gradient; ``told``: whether the attack is given the batch size; ``partial``: whether
    it is told that tensors are missing; ``loss``: of the training step (mse and bce with one-hot targets).

    ``prepare`` changes the scene before the gradient is taken (duplicates, a fitted network). ``noise``: its
    size, where errors are compared with the least that it allows.
    """

    spoil: Callable[[Scene], Gradient]
    prepare: Callable[[Scene], Scene] = as_it_is
    loss: Loss = Loss.CROSS_ENTROPY
    told: bool = False
    partial: bool = False
    scale: float | str = 1.0
    weights: str = "equal"
    noise: float | None = None

    @property
    def compared(self) -> bool:
        """Whether its cost is compared with that of the plain attack."""
        return self.scale != 1.0 or self.weights != "equal"


def computed_in(dtype: str) -> Callable[[Scene], Gradient]:
    """Computed and sent in ``dtype``."""
    return lambda scene: scene.gradient(dtype)


def disguised(dtype: torch.dtype) -> Callable[[Scene], Gradient]:
    """Rounded to ``dtype`` and sent as float64, so that the dtype does not tell the rounding."""
    return lambda scene: {name: g.to(dtype).double() for name, g in scene.gradient().items()}


def quantised(steps: int) -> Callable[[Scene], Gradient]:
    """Rounded to so many ``steps`` from 0 to the largest entry of every tensor."""

    def spoil(scene: Scene) -> Gradient:
        sizes = {name: g.abs().max() / steps for name, g in scene.gradient().items()}
        return {name: (g / sizes[name]).round() * sizes[name] for name, g in scene.gradient().items()}

    return spoil


def noisy(size: float) -> Callable[[Scene], Gradient]:
    """With Gaussian noise on every entry, ``size`` times the gradient's root mean square."""

    def spoil(scene: Scene) -> Gradient:
        gradient = scene.gradient()
        rng = np.random.default_rng(scene.seed)
        scale = size * torch.cat([g.flatten() for g in gradient.values()]).square().mean().sqrt()
        return {name: g + scale * torch.from_numpy(rng.normal(size=g.shape)) for name, g in gradient.items()}

    return spoil


def clipped(share: float) -> Callable[[Scene], Gradient]:
    """Clipped to ``share`` of its norm: a common factor."""
    return lambda scene: {name: share * g for name, g in scene.gradient().items()}


def clipped_samples(scene: Scene) -> Gradient:
    """The mean of the samples' gradients, each clipped to the median of their norms."""
    ones = [
        replace(scene, x=scene.x[m : m + 1], y=scene.y[m : m + 1]).gradient() for m in range(len(scene.x))
    ]
    norms = torch.stack([torch.cat([g.flatten() for g in one.values()]).norm() for one in ones])
    shares = (norms.median() / norms).clamp(max=1.0) / len(ones)
    return {
        name: sum((s * one[name] for s, one in zip(shares, ones, strict=True)), 0 * ones[0][name])
        for name in ones[0]
    }


def class_weighted(scene: Scene) -> Gradient:
    """With a weight between 0.2 and 3 on the loss of every class, divided by their sum as PyTorch does."""
    classes = int(scene.model[-1].out_features)  # type: ignore[arg-type]
    weights = torch.from_numpy(np.random.default_rng(scene.seed).uniform(0.2, 3, classes))
    model = copy.deepcopy(scene.model).double()
    nn.functional.cross_entropy(model(scene.x.double()), scene.y, weight=weights).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.detach() for name, p in model.named_parameters() if p.grad is not None}


def pruned(share: float) -> Callable[[Scene], Gradient]:
    """Only the ``share`` of entries that are largest in every tensor."""

    def keep(g: Tensor) -> Tensor:
        """A tensor of any shape, zero but for its largest entries."""
        least = g.abs().flatten().kthvalue(g.numel() - max(1, round(share * g.numel())) + 1).values
        return torch.where(g.abs() >= least, g, 0.0)

    return lambda scene: {name: keep(g) for name, g in scene.gradient().items()}


def flipped(share: float) -> Callable[[Scene], Gradient]:
    """A random ``share`` of the signs wrong."""

    def spoil(scene: Scene) -> Gradient:
        rng = np.random.default_rng(scene.seed)
        return {
            name: torch.where(torch.from_numpy(rng.random(g.shape) < share), -g, g)
            for name, g in scene.gradient().items()
        }

    return spoil


def local_steps(steps: int, rate: float, *, averaged: bool = False) -> Callable[[Scene], Gradient]:
    """The sum over local steps of rate ``rate``, each on its own part of the batch; or their mean, which is
    the gradient of the whole batch up to what the weights move on the way."""

    def spoil(scene: Scene) -> Gradient:
        model = copy.deepcopy(scene.model).double()
        parts = [p for p in torch.arange(len(scene.x)).tensor_split(steps) if len(p)]
        total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for part in parts:
            step = autograd_gradient(model, scene.x[part], scene.labels[part], "float64", loss=scene.loss)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.sub_(rate * step[name])
                    total[name] += step[name] / (len(parts) if averaged else 1)
        return total

    return spoil


def without(*missing: str) -> Callable[[Scene], Gradient]:
    """Without the tensors whose names begin with one of ``missing``, or end with it."""
    return lambda scene: {
        name: g
        for name, g in scene.gradient().items()
        if not (name.startswith(missing) or name.endswith(missing))
    }


def with_hidden(*hidden: int) -> Callable[[Scene], Scene]:
    """Another network at its default initialisation, with these hidden layers."""

    def prepare(scene: Scene) -> Scene:
        widths = (scene.x.shape[1], *hidden, int(scene.model[-1].out_features))  # type: ignore[arg-type]
        return replace(scene, model=initialised_network(widths, seed=scene.seed))

    return prepare


def duplicated(*, same_label: bool) -> Callable[[Scene], Scene]:
    """A quarter of the batch repeats its first samples, with their labels or with other ones."""

    def prepare(scene: Scene) -> Scene:
        count, classes = len(scene.x) // 4, int(scene.model[-1].out_features)  # type: ignore[arg-type]
        x, y = scene.x.clone(), scene.y.clone()
        x[len(x) - count :] = x[:count]
        y[len(x) - count :] = y[:count] if same_label else (y[:count] + 1) % classes
        return replace(scene, x=x, y=y)

    return prepare


def fitted(steps: int) -> Callable[[Scene], Scene]:
    """The network trained on this very batch by ``steps`` of Adam, so that loss vectors are near zero."""

    def prepare(scene: Scene) -> Scene:
        model = copy.deepcopy(scene.model)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(steps):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(scene.x), scene.y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return replace(scene, model=model)

    return prepare


def trained(samples: int) -> Callable[[Scene], Scene]:
    """A network trained on the digits to 97 %, and ``samples`` of them."""

    def prepare(scene: Scene) -> Scene:
        images, classes = mnist_batch(samples, scene.seed)
        model = trained_network(WIDTHS, seed=scene.seed)
        return replace(scene, model=model, x=torch.tensor(images), y=torch.tensor(classes))

    return prepare


TRAINED = Mode(name="trained, 20 digits, float32", spoil=computed_in("float32"), prepare=trained(20))
"""Apart, since a network is trained for every seed."""

NOISES = (1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

_NEAR = 2e-2
"""RMSE up to which what is shown passes for a picture of the batch, with pixels in [0, 1]."""

_COMPARED = 1e-4
"""Noise from which errors are compared with the Cramer-Rao bound."""

MODES = (
    Mode(name="float64", spoil=computed_in("float64")),
    Mode(name="float64, batch size told", spoil=computed_in("float64"), told=True),
    Mode(name="float32", spoil=computed_in("float32")),
    Mode(name="float32 sent as float64", spoil=disguised(torch.float32)),
    Mode(name="bfloat16", spoil=computed_in("bfloat16")),
    Mode(name="bfloat16 sent as float64", spoil=disguised(torch.bfloat16)),
    Mode(name="int8, a step for every tensor", spoil=quantised(127)),
    TRAINED,
    *(
        Mode(name=f"noise {size:.0e}", spoil=noisy(size), noise=size if size >= _COMPARED else None)
        for size in NOISES
    ),
    Mode(name="clipped to 1/2", spoil=clipped(0.5)),
    Mode(name="clipped to 1/2, batch size told", spoil=clipped(0.5), told=True),
    Mode(name="clipped to 0.37", spoil=clipped(0.37)),
    *(
        Mode(name=f"scale unknown: {what}", spoil=clipped(factor), told=True, scale="unknown")
        for what, factor in (("-0.1 times", -0.1), ("clipped to 0.37", 0.37), ("65536 times", 65536.0))
    ),
    Mode(name="weights positive: samples clipped", spoil=clipped_samples, told=True, weights="positive"),
    Mode(name="weights positive: classes weighted", spoil=class_weighted, told=True, weights="positive"),
    Mode(name="largest 99 %", spoil=pruned(0.99)),
    Mode(name="largest 50 %", spoil=pruned(0.5)),
    Mode(name="largest 25 %", spoil=pruned(0.25)),
    Mode(name="largest 10 %", spoil=pruned(0.1)),
    Mode(name="1e-5 of the signs flipped", spoil=flipped(1e-5)),
    Mode(name="1 % of the signs flipped", spoil=flipped(0.01)),
    Mode(name="two local steps, rate 1e-6", spoil=local_steps(2, 1e-6)),
    Mode(name="two local steps, rate 0.1", spoil=local_steps(2, 0.1)),
    Mode(name="mean of four local steps, rate 1e-8", spoil=local_steps(4, 1e-8, averaged=True)),
    Mode(name="mean of four local steps, rate 0.1", spoil=local_steps(4, 0.1, averaged=True)),
    Mode(name="duplicates", spoil=computed_in("float64"), prepare=duplicated(same_label=True)),
    Mode(
        name="duplicates with other labels",
        spoil=computed_in("float64"),
        prepare=duplicated(same_label=False),
    ),
    Mode(name="fitted, 100 steps", spoil=computed_in("float64"), prepare=fitted(100)),
    Mode(name="fitted, 100 steps, float32", spoil=computed_in("float32"), prepare=fitted(100)),
    *(
        Mode(name=f"{loss}{name}", spoil=spoil, prepare=prepare, loss=loss, told=True)
        for loss in (Loss.MSE, Loss.BCE)
        for name, spoil, prepare in (
            ("", computed_in("float64"), as_it_is),
            (", float32", computed_in("float32"), as_it_is),
            (", noise 1e-04", noisy(1e-4), as_it_is),
            (", clipped to 1/2", clipped(0.5), as_it_is),
            (", duplicates", computed_in("float64"), duplicated(same_label=False)),
        )
    ),
    Mode(name="layer 1 alone", spoil=without("2."), partial=True),
    Mode(name="dW of layer 1 alone", spoil=without("2.", ".bias"), partial=True),
    Mode(name="weight gradients alone", spoil=without(".bias"), partial=True),
    Mode(name="the last layer alone", spoil=without("0."), partial=True),
    Mode(
        name="784-2048-256-10 without layer 1",
        spoil=without("0."),
        prepare=with_hidden(2048, 256),
        partial=True,
    ),
    Mode(
        name="784-512-256-10 without layer 1",
        spoil=without("0."),
        prepare=with_hidden(512, 256),
        partial=True,
    ),
)
"""The rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One attack: shares and counts of samples; ``refused``: the error's class, empty when it ran; ``ratio``:
    processor time over that of the plain attack, for the rows that are compared with it."""

    recall: float
    shown: float
    confirmed: int
    consistent: int
    candidates: int
    wrong: int
    bound: float | None
    refused: str
    seconds: float
    near: float = 0.0
    features: int = 0
    ratio: float | None = None
    of_least: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A mode over its seeds: ``recall`` and the counts ``confirmed``, ``consistent`` and ``candidates`` are
    medians, ``recall_worst``, ``wrong`` the sum (must be 0), ``bound`` the largest of any sample that is
    confirmed or consistent, ``refused`` how often the gradient was refused.

    ``shown`` and ``near``, medians: the share of the batch that is shown in any tier with RMSE below 1e-3,
    and below 2e-2.
    ``features``, a median: samples whose features of a hidden layer are found where the layers below are
    not given; ``wrong`` counts these too. ``ratio``, a median: processor time over that of the attack on the
    plain gradient. ``of_least``, a median: RMSE of what is shown in any tier, the nearest to each sample,
    over the least that any unbiased estimate from a gradient of that noise can have.
    """

    seeds: int
    recall: float
    recall_worst: float
    shown: float
    confirmed: float
    consistent: float
    candidates: float
    wrong: int
    bound: float | None
    refused: int
    seconds: float
    near: float = field(default=0.0, metadata={"since": "0.2.0"})
    features: float = 0.0
    ratio: float | None = None
    of_least: float | None = None


def measure(mode: Mode, options: Options) -> Iterator[Row]:
    """The row of a mode, by method auto on the ``device`` of the options."""

    def run(seed: int) -> Outcome:
        return attack_spoiled(mode, mnist_scene(seed), device=options.device)

    yield summarise(mode.name, run_seeds(mode.name, options, run))


def mnist_scene(seed: int) -> Scene:
    """The network and batch of a seed."""
    images, classes = mnist_batch(SAMPLES, seed)
    model = initialised_network(WIDTHS, seed=seed)
    return Scene(model=model, x=torch.tensor(images), y=torch.tensor(classes), seed=seed)


def attack_spoiled(mode: Mode, scene: Scene, *, method: str = "auto", device: str | None = None) -> Outcome:
    """Attack the spoiled gradient by ``method`` on ``device`` and compare with the truth."""
    scene = mode.prepare(replace(scene, loss=mode.loss))
    gradient = mode.spoil(scene)
    network = to_network(scene.model)
    size = len(scene.x) if mode.told else None
    attacked = partial(
        run, network, loss=scene.loss, reduction="mean", batch_size=size, method=method, device=device
    )
    plain = math.nan
    if mode.compared:
        start = time.process_time()
        attacked(scene.gradient())
        plain = time.process_time() - start
    start, processor = time.perf_counter(), time.process_time()
    try:
        found = attacked(gradient, partial=mode.partial, scale=mode.scale, weights=mode.weights)
    except InputError as error:
        return Outcome(
            recall=0.0,
            shown=0.0,
            confirmed=0,
            consistent=0,
            candidates=0,
            wrong=0,
            bound=None,
            refused=type(error).__name__,
            seconds=time.perf_counter() - start,
        )
    bounds = [evidence.error_bound for evidence in found.status]
    return Outcome(
        recall=score(found.x, found.y, scene.x, scene.labels).recall,
        shown=shown_share(found, scene.x, scene.labels, within=RECOVERED_RMSE),
        near=shown_share(found, scene.x, scene.labels, within=_NEAR),
        confirmed=found.count("confirmed"),
        consistent=found.count("consistent"),
        candidates=len(found.candidates),
        wrong=wrong_claims(found.x, found.y, bounds, scene.x, scene.labels) + wrong_features(found, scene),
        bound=max(bounds, default=None),
        refused="",
        seconds=time.perf_counter() - start,
        ratio=(time.process_time() - processor) / plain if mode.compared else None,
        features=0 if found.hidden is None else len(found.hidden.values),
        of_least=None if mode.noise is None else _of_least(found, scene, mode.noise),
    )


def _of_least(found: Attack, scene: Scene, noise: float) -> float | None:
    """The error of all that is shown, over the Cramer-Rao bound; None where nothing is."""
    shown = torch.cat([found.x, *(one.x[None] for one in found.candidates)]).cpu()
    if not len(shown):
        return None
    nearest: Tensor = torch.cdist(scene.x.double(), shown).amin(dim=1)
    entries = torch.cat([g.flatten() for g in scene.gradient().values()])
    sigma = noise * float(entries.square().mean().sqrt())
    error = math.sqrt(float(nearest.square().mean()) / scene.x.shape[1])
    return error / least_error(scene.model, scene.x, scene.y, sigma, scene.seed)


def shown_share(found: Attack, x: Tensor, y: Tensor, *, within: float) -> float:
    """The share of the batch ``x`` (M, d) that is shown with RMSE below ``within`` in any tier."""
    candidates = torch.cat([found.x, *(one.x[None] for one in found.candidates)]).cpu()
    scored = score(candidates, torch.zeros_like(y[:1]).expand(len(candidates), *y.shape[1:]), x, y)
    return sum(one.rmse < within for one in scored.samples) / len(x)


def wrong_features(found: Attack, scene: Scene) -> int:
    """Wrong claims among features of a hidden layer."""
    hidden = found.hidden
    if hidden is None:
        return 0
    truth = copy.deepcopy(scene.model).double()[: 2 * hidden.layer](scene.x.double()).detach()
    bounds = [evidence.error_bound for evidence in hidden.status]
    return wrong_claims(hidden.values, hidden.labels, bounds, truth, scene.labels)


def summarise(name: str, outcomes: Sequence[Outcome]) -> Row:
    """Medians, sums and worst values over the seeds of a mode."""
    ratios = [o.ratio for o in outcomes if o.ratio is not None]
    of_least = [o.of_least for o in outcomes if o.of_least is not None]
    return Row(
        name=name,
        seeds=len(outcomes),
        recall=statistics.median(o.recall for o in outcomes),
        recall_worst=min(o.recall for o in outcomes),
        shown=statistics.median(o.shown for o in outcomes),
        near=statistics.median(o.near for o in outcomes),
        confirmed=statistics.median(o.confirmed for o in outcomes),
        consistent=statistics.median(o.consistent for o in outcomes),
        candidates=statistics.median(o.candidates for o in outcomes),
        wrong=sum(o.wrong for o in outcomes),
        bound=max((o.bound for o in outcomes if o.bound is not None), default=None),
        refused=sum(bool(o.refused) for o in outcomes),
        seconds=statistics.median(o.seconds for o in outcomes),
        features=statistics.median(o.features for o in outcomes),
        ratio=statistics.median(ratios) if ratios else None,
        of_least=statistics.median(of_least) if of_least else None,
    )


SUITE = Suite(
    name="robustness",
    title="robustness: gradients that are rounded, noisy, pruned, partly missing or no batch's at all",
    columns=(
        ("gradient", "name"),
        ("seeds ", "seeds"),
        ("recall ", "recall"),
        ("worst ", "recall_worst"),
        ("shown ", "shown"),
        ("near ", "near"),
        ("confirmed ", "confirmed"),
        ("consistent ", "consistent"),
        ("candidates ", "candidates"),
        ("features ", "features"),
        ("wrong ", "wrong"),
        ("bound ", "bound"),
        ("refused ", "refused"),
        ("s ", "seconds"),
        ("ratio ", "ratio"),
        ("of least ", "of_least"),
    ),
    cases=MODES,
    measure=measure,
    takes=("device",),
)
