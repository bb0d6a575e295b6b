"""``exan bench agreement``: what audit, certify and attack say of one batch fits together, counted.

Each seed draws a network, a batch, a loss (cross_entropy, mse, bce, hinge), a reduction and labels. Gradients
are in float64 and the batch size is told, but for spoiled ones.

- *peelable*: samples that audit calls peelable, in networks from tiny to 784-512-10, and of these those that
  ``peel`` shows.
- *determined*: small networks of which certify proves every sample determined, and of these those that the
  attack returns completely.
- *spoiled*: gradients that are exact, scaled, noisy, rounded, with signs flipped or of another network.
  *Wrong* are samples confirmed beyond their bound, and consistent ones that break their own equations (the
  delta that they and their label give must lie in the column space of the first layer's gradient, where that
  holds the deltas of all samples).

*Other activations*: the same with LeakyReLU, ReLU6 or Hardtanh between the layers, one drawn for each seed;
another network is then one with other activations and the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exan_verify.api.certify import certify
from exan_verify.bench import suite
from exan_verify.bench.cases.activations import OTHERS, activated
from exan_verify.bench.suite import Options, Suite, run_seeds
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import SampleStatus
from exan_verify.errors import ExanError, RangeError
from exan_verify.exclusivity import exclusivity
from exan_verify.models.chain import to_any_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.problem.records import Attack, Tier
from exan_verify.numeric.problem.torch_losses import summed_loss

Gradient = dict[str, Tensor]

LOSSES = ("cross_entropy", "mse", "bce", "hinge")
SIZES = ("tiny", "tiny", "tiny", "narrow", "wide", "digits")
SPOILINGS = ("exact", "signs flipped", "noise", "another network", "scaled", "float16", "float32", "negated")
METHODS = ("auto", "auto", "peel", "sample", "assign", "lift")

_NEAR = 1e-6
"""How far from a peelable sample what peel shows of it may be."""

_FOUND = 1e-5
"""How far from a sample of the batch one that is found may be, L2: another solution is not it."""

_OWN = {"exact": 1e-6, "scaled": 1e-6, "negated": 1e-6, "another network": 1e-6, "float32": 1e-2}
"""Share of a sample's delta that may lie outside the column space of [dW_1 | db_1], which for the other kinds
is everything, and holds the deltas where [X 1] has rank M."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One seed: how many ``asked`` (peelable samples, determined batches, samples found) and ``found`` of
    these; ``confirmed`` and ``consistent`` samples, and the ``wrong`` ones among them; ``reason``: where
    something asked for was not found, why not by the attack's own word."""

    asked: int
    found: int
    confirmed: int = 0
    consistent: int = 0
    wrong: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """One row: the ``judge`` of a seed."""

    judge: Callable[[int], Run]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A case over its seeds: sums of :class:`Run`; ``missed``: the share of what was asked for that was not
    found; ``unexplained``: seeds that miss something without a reason; ``missing``: the seeds that do."""

    seeds: int
    asked: int
    found: int
    missed: float
    unexplained: int
    missing: tuple[int, ...]
    confirmed: int
    consistent: int
    wrong: int


def drawn_network(widths: tuple[int, ...], rng: np.random.Generator) -> nn.Sequential:
    """Linear layers with ReLU between, float64, as torch initialises them: uniform within fan_in^-1/2."""
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        linear = nn.Linear(a, b).double()
        linear.weight.data = torch.tensor(rng.uniform(-1, 1, (b, a)) / a**0.5)
        linear.bias.data = torch.tensor(rng.uniform(-1, 1, b) / a**0.5)
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def drawn_batch(
    kind: str,
    samples: int,
    features: int,
    classes: int,
    rng: np.random.Generator,
    loss: str = "cross_entropy",
) -> tuple[Tensor, Tensor]:
    """Inputs, ``rand`` (uniform on [0, 1]) or ``randn`` (normal), and classes; for bce and one logit 0/1
    vectors, for mse one-hot targets.
    """
    x: Any = rng.random((samples, features)) if kind == "rand" else rng.normal(size=(samples, features))
    y = torch.tensor(rng.integers(max(2, classes), size=samples))
    if loss == "bce" or classes == 1:
        y = torch.tensor(rng.integers(2, size=(samples, classes))).double()
    elif loss == "mse":
        y = nn.functional.one_hot(y, classes).double()
    return torch.tensor(x), y


def gradient_of(model: nn.Module, x: Tensor, y: Tensor, loss: str, reduction: str) -> Gradient:
    """The gradient of every parameter, float64, at inputs ``x`` (M, d) with targets ``y``, (M,) or (M, K)."""
    logits = model(x)
    divisor = Loss(loss).divisor(Reduction(reduction), len(x), logits.shape[1])
    named = dict(model.named_parameters())
    value = summed_loss(Loss(loss), logits, y) / divisor
    return dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))


def peelable_is_found(seed: int, size: str | None = None) -> Run:
    """Peelable samples of a drawn batch, and those that peel shows; ``size`` is one of :data:`SIZES`."""
    rng = np.random.default_rng(seed)
    size = SIZES[seed % len(SIZES)] if size is None else size
    loss = LOSSES[int(rng.integers(4))]
    reduction = ("mean", "sum")[int(rng.integers(2))]
    classes = int(rng.integers(1 if loss in ("mse", "bce") else 2, 5))
    depth, samples = int(rng.integers(1, 3)), int(rng.integers(1, 7))
    widths = {
        "tiny": (int(rng.integers(3, 9)), *(int(n) for n in rng.integers(3, 9, depth)), classes),
        "narrow": (784, 16, 10),
        "wide": (int(rng.integers(20, 60)), *(int(n) for n in rng.integers(60, 200, depth)), classes),
        "digits": (784, 512, 10),
    }[size]
    model = drawn_network(widths, rng)
    x, y = drawn_batch(("rand", "randn")[int(rng.integers(2))], samples, widths[0], widths[-1], rng)
    if loss == "bce" or (loss == "mse" and widths[-1] == 1):
        y = torch.tensor(rng.integers(2, size=(samples, widths[-1]))).double()
    elif loss == "mse":
        y = nn.functional.one_hot(y, widths[-1]).double()
    network = to_any_network(model)
    batch = Batch.of(x.numpy(), y.numpy(), network=network, loss=Loss(loss), labels=Labels.ONE_HOT)
    assert isinstance(network, ReluNetwork)
    peelable = exclusivity(network, batch, loss=Loss(loss)).peelable
    if not any(peelable):
        return Run(asked=0, found=0)
    given = gradient_of(model, x, y, loss, reduction)
    found = run(network, given, loss=loss, reduction=reduction, batch_size=samples, method="peel")
    shown = torch.cat([found.x, *(one.x[None] for one in found.candidates)])
    near = torch.cdist(x, shown).amin(dim=1) if len(shown) else torch.full((samples,), torch.inf)
    missed = sum(p and not float(d) < _NEAR for p, d in zip(peelable, near, strict=True))
    # a batch that is not wholly peelable may be another one to peel: its samples are consistent at most
    wrong = _beyond(found, x) if all(peelable) else 0
    return _run(found, asked=sum(peelable), found_=sum(peelable) - missed, wrong=wrong)


def determined_is_found(seed: int, work: int = 3_000_000, *, others: bool = False) -> Run:
    """Whether a small network's batch is proved wholly determined within ``work``, and then attacked
    completely; ``others``: with another activation than ReLU, and layers wide enough for a proof."""
    rng = np.random.default_rng([seed, 5])
    depth = int(rng.integers(1, 3))
    loss = LOSSES[int(rng.integers(4))]
    classes = int(rng.integers(1 if loss in ("bce", "mse") else 2, 5))
    hidden = rng.integers(20, 80, depth) if others else rng.integers(3, 9, depth)
    widths = (int(rng.integers(3, 9)), *(int(n) for n in hidden), classes)
    samples = int(rng.integers(1, 7))
    model = drawn_network(widths, rng)
    if others:
        model = activated(model, OTHERS[int(rng.integers(len(OTHERS)))])
    kind = ("rand", "randn")[int(rng.integers(2))]
    x, y = drawn_batch(kind, samples, widths[0], classes, rng, loss)
    reduction = ("mean", "sum")[int(rng.integers(2))]
    network = to_any_network(model)
    verdict = certify(
        network,
        batch=(x.numpy(), y.numpy()),
        loss=loss,
        reduction=reduction,
        engine="exact",
        work_limit=work,
    )
    if not all(status is SampleStatus.DETERMINED for status in verdict.samples):
        return Run(asked=0, found=0)
    given = gradient_of(model, x, y, loss, reduction)
    try:
        found = run(network, given, loss=loss, reduction=reduction, batch_size=samples)
    except RangeError as error:
        return Run(asked=1, found=0, reason=str(error))
    near = torch.cdist(x, found.x).amin(dim=1) if len(found.x) else torch.full((samples,), torch.inf)
    return _run(found, asked=1, found_=int(bool((near < _FOUND).all())), wrong=_beyond(found, x))


def spoiled_is_not_wrong(seed: int, *, others: bool = False) -> Run:
    """Samples of a spoiled gradient that are confirmed or consistent, and the wrong ones; ``others``: with
    another activation than ReLU."""
    rng = np.random.default_rng([seed, 77])
    loss = LOSSES[int(rng.integers(4))]
    classes = int(rng.integers(1 if loss in ("mse", "bce") else 2, 5))
    hidden = rng.integers(*((20, 60) if rng.random() < 0.3 else (3, 9)), int(rng.integers(1, 3)))
    widths = (int(rng.integers(3, 9)), *(int(n) for n in hidden), classes)
    samples, model = int(rng.integers(1, 6)), drawn_network(widths, rng)
    if others:
        model = activated(model, OTHERS[int(rng.integers(len(OTHERS)))])
    kind = ("rand", "randn")[int(rng.integers(2))]
    x, y = drawn_batch(kind, samples, widths[0], classes, rng, loss)
    reduction = ("mean", "sum")[int(rng.integers(2))]
    kind = SPOILINGS[int(rng.integers(len(SPOILINGS)))]
    given = {name: _spoiled(kind, g, rng) for name, g in gradient_of(model, x, y, loss, reduction).items()}
    if kind == "another network":
        # with the same weights: the numbers are nearly those of a gradient of the other activation
        model = (
            activated(model, OTHERS[int(rng.integers(len(OTHERS)))]) if others else drawn_network(widths, rng)
        )
    size = samples if rng.random() < 0.6 else None
    method = METHODS[int(rng.integers(len(METHODS)))]
    try:
        found = run(
            to_any_network(model), given, loss=loss, reduction=reduction, batch_size=size, method=method
        )
    except ExanError:
        return Run(asked=0, found=0)
    # a claim is about batches of the size found, which samples nearer than rounding make smaller
    wrong = 0 if found.batch_size < samples else _beyond(found, x)
    for row, label, status in zip(found.x, found.y, found.status, strict=True):
        if status.tier is Tier.CONSISTENT and kind in _OWN and samples <= widths[0] + 1:
            own = gradient_of(model, row[None], label[None], loss, "sum")["0.bias"]
            wrong += _outside(given, own) > _OWN[kind]
    return _run(found, asked=len(found.status), found_=len(found.status), wrong=wrong)


def _beyond(found: Attack, x: Tensor) -> int:
    """How many confirmed samples are farther from every sample of the batch than their bound."""
    return sum(
        status.tier is Tier.CONFIRMED and float((x - row).abs().amax(dim=1).min()) > status.error_bound
        for row, status in zip(found.x, found.status, strict=True)
    )


def _run(found: Attack, *, asked: int, found_: int, wrong: int) -> Run:
    missed = "" if found.complete else found.reason
    return Run(
        asked=asked,
        found=found_,
        confirmed=found.count("confirmed"),
        consistent=found.count("consistent"),
        wrong=wrong,
        reason=missed if found_ < asked else "",
    )


def _spoiled(kind: str, g: Tensor, rng: np.random.Generator) -> Tensor:
    match kind:
        case "signs flipped":
            return torch.where(torch.tensor(rng.random(g.shape) < 0.05), -g, g)
        case "noise":
            level = 10 ** rng.uniform(-10, -1) * g.square().mean().sqrt()
            return g + level * torch.tensor(rng.standard_normal(g.shape))
        case "scaled":
            return g * 37.5
        case "negated":
            return -g
        case "float16" | "float32":
            return g.to(getattr(torch, kind))
    return g


def _outside(given: Gradient, delta: Tensor) -> float:
    """The share of ``delta`` (n,) outside the column space of [dW_1 | db_1]."""
    first = torch.cat([given["0.weight"], given["0.bias"][:, None]], dim=1)
    u, values, _ = torch.linalg.svd(first.double(), full_matrices=False)
    basis = u[:, values > values[0] * 10 * torch.finfo(first.dtype).eps]
    return float((delta - basis @ (basis.T @ delta)).norm() / delta.norm())


CASES = (
    Case(name="peelable in audit, shown by peel", judge=peelable_is_found),
    Case(name="determined by certify, found by attack", judge=determined_is_found),
    Case(name="spoiled gradients", judge=spoiled_is_not_wrong),
    Case(
        name="determined by certify, found by attack, other activations",
        judge=partial(determined_is_found, others=True),
    ),
    Case(name="spoiled gradients, other activations", judge=partial(spoiled_is_not_wrong, others=True)),
)


def measure(case: Case, options: Options) -> Iterator[Row]:
    """The row of a case."""
    runs = run_seeds(case.name, options, case.judge)
    asked, found = sum(one.asked for one in runs), sum(one.found for one in runs)
    short = [(seed, one) for seed, one in zip(options.seeds, runs, strict=True) if one.found < one.asked]
    yield Row(
        name=case.name,
        seeds=len(runs),
        asked=asked,
        found=found,
        missed=(asked - found) / max(asked, 1),
        unexplained=sum(not one.reason for _, one in short),
        missing=tuple(seed for seed, _ in short),
        confirmed=sum(one.confirmed for one in runs),
        consistent=sum(one.consistent for one in runs),
        wrong=sum(one.wrong for one in runs),
    )


SUITE = Suite(
    name="agreement",
    title="agreement: audit, certify and attack of one batch, and what is said of spoiled gradients",
    columns=(
        ("case", "name"),
        ("seeds ", "seeds"),
        ("asked ", "asked"),
        ("found ", "found"),
        ("missed ", "missed"),
        ("no reason ", "unexplained"),
        ("seeds that miss", "missing"),
        ("confirmed ", "confirmed"),
        ("consistent ", "consistent"),
        ("wrong ", "wrong"),
    ),
    cases=CASES,
    measure=measure,
)
