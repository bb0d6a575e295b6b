"""``exan bench convolution``: networks with convolutions, and their pictures against Inverting Gradients.

Networks have He et al.'s initialisation. Pictures are crops of the photographs that scikit-image ships, and
MNIST digits for one channel; gradients are float64 unless the row says float32, the loss is cross_entropy
with reduction mean, and the attack is not told the batch size. Where pictures are not determined, they are
estimated, and Inverting Gradients (own implementation, given the true labels) gets the same wall time, or the
steps asked for. Every case and seed runs in a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from exan_verify.bench import suite
from exan_verify.bench.suite import Options, Suite, isolated, run_seeds

if TYPE_CHECKING:
    import torch

    from exan_verify.numeric.convolution.records import ImageAttack

PUBLISHED_SECONDS = 600.0
"""The equal time of the long comparison, per method and batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """One row: a network of :mod:`exan_verify.models` at a picture size, and a batch of pictures.

    ``seconds``: wall time of either method where pictures are open, unless the run says otherwise; 0: none.
    ``dtype``: in which the network is run forward and backward.
    """

    model: str
    size: int
    samples: int
    options: tuple[tuple[str, Any], ...] = ()
    seconds: float = 0.0
    dtype: str = "float64"


CASES = (
    Case(name="strided 3x16x16 M=8", model="strided_cnn", size=16, samples=8),
    Case(
        name="strided 3x8x8 M=3, float32",
        model="strided_cnn",
        size=8,
        samples=3,
        options=(("widths", (40, 480)), ("head", (96,))),
        dtype="float32",
    ),
    Case(name="LeNet 1x28x28 M=8", model="lenet", size=28, samples=8, seconds=20),
    Case(name="VGG-13 3x32x32 M=4", model="vgg13", size=32, samples=4, options=(("head", 512),), seconds=60),
    Case(name="VGG-13 3x64x64 M=8, features", model="vgg13", size=64, samples=8),
    Case(name="VGG-13 3x64x64 M=8", model="vgg13", size=64, samples=8, seconds=PUBLISHED_SECONDS, named=True),
    Case(name="ResNet 3x32x32 M=1", model="resnet", size=32, samples=1, seconds=20),
    Case(name="ResNet 3x32x32 M=4", model="resnet", size=32, samples=4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A case over its seeds, medians unless said.

    ``features``: samples whose features are claimed, worst seed, with the largest error and bound;
    ``labels_right``: worst share; ``pictures``: pictures claimed, worst seed, with largest error and bound;
    ``rank`` of the last layer's gradient, at most the batch size, and ``present``, how many of the
    ``occurring`` classes certainly occur: what is certain below a single Linear layer, None elsewhere, worst
    seed.
    ``wrong``: claims further off than their bound or with a wrong label, surplus ones, and what is called
    certain and is not, all seeds (must be 0). ``stopped``: the stage that left something open, with its
    deficit. ``psnr``, ``ssim``: means over the batch of the estimates, and of Inverting Gradients (``rival``)
    after ``rival_steps``. ``seconds`` and ``peak_mib``: of the attack without estimates; the memory includes
    the autograd pass that makes the gradient.
    """

    seeds: int
    features: int
    feature_error: float | None
    feature_bound: float | None
    labels_right: float | None
    pictures: int
    picture_error: float | None
    picture_bound: float | None
    rank: int | None
    present: int | None
    occurring: int
    wrong: int
    stopped: str
    seconds: float
    estimate_seconds: float
    steps: int | None
    psnr: float | None
    ssim: float | None
    rival_steps: int | None
    rival_psnr: float | None
    rival_ssim: float | None
    gain: float | None
    peak_mib: float


def measure(case: Case, options: Options) -> Iterator[Row]:
    """The row of a case.

    ``seconds``: time per method instead of the case's own; ``iterations``: steps of Inverting Gradients
    instead of that time (24,000 as published takes hours on a CPU); both run on ``device``.
    """
    run = partial(
        run_case, case, seconds=options.seconds, iterations=options.iterations, device=options.device
    )
    yield _summarise(run_seeds(case.name, options, partial(isolated, run)))


def run_case(
    case: Case,
    seed: int,
    *,
    seconds: float | None = None,
    iterations: int | None = None,
    device: str | None = None,
) -> Row:
    """One case at one seed in this process."""
    import torch

    from exan_verify.models.pictures.graph import to_convolutional
    from exan_verify.numeric.convolution.attack import run

    model, x, y = build(case, seed)
    dtype = getattr(torch, case.dtype)
    # weights and pictures are float32 numbers, so that either dtype runs the same network
    parameters = dict(model.to(dtype).named_parameters())
    total = torch.nn.functional.cross_entropy(model(x.to(dtype)), y)
    gradient = dict(zip(parameters, torch.autograd.grad(total, list(parameters.values())), strict=True))
    model.double()
    network = to_convolutional(model)
    truth = _Truth(x=x, y=y, features=network.features(x).detach())
    start = time.perf_counter()
    found = run(
        network, gradient, loss="cross_entropy", reduction="mean", iterations=0, seed=seed, device=device
    )
    spent = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    limit = case.seconds if seconds is None else seconds
    ours = rival = None
    if found.known is not None and not found.complete and limit:
        ours = _estimate(network, gradient, found, limit, seed)
        rival = _rival(model, gradient, truth, limit, iterations, seed, device)
    row = _row(case, found, truth, ours, rival)
    return replace(row, seconds=spent, peak_mib=peak)


def build(case: Case, seed: int) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """Float64 model, pictures (M, C, H, W) in [0, 1] and classes (M,) of a case."""
    import torch

    from exan_verify.models import zoo as models

    model = getattr(models, case.model)(10, case.size, seed=seed, **dict(case.options)).double()
    if model.input_shape[0] == 1:
        from exan_verify.data import mnist_batch

        images, classes = mnist_batch(case.samples, seed)
        return model, torch.tensor(images).reshape(-1, *model.input_shape).double(), torch.tensor(classes)
    generator = torch.Generator().manual_seed(seed)
    return (
        model,
        photographs(case.samples, case.size, seed).double(),
        torch.randint(10, (case.samples,), generator=generator),
    )


def photographs(samples: int, size: int, seed: int) -> torch.Tensor:
    """Square crops (M, 3, size, size) in [0, 1] of the colour photographs that scikit-image ships."""
    import numpy as np
    import skimage.data
    import torch

    sources = [skimage.data.astronaut, skimage.data.chelsea, skimage.data.coffee, skimage.data.rocket]
    rng = np.random.default_rng(seed)
    crops = []
    for k in range(samples):
        picture = torch.tensor(sources[k % len(sources)]()).permute(2, 0, 1).float() / 255
        side = int(rng.integers(max(size, 128), 257))
        top, left = (int(rng.integers(0, n - side + 1)) for n in picture.shape[1:])
        crop = picture[None, :, top : top + side, left : left + side]
        crops.append(torch.nn.functional.interpolate(crop, size=(size, size), mode="area")[0])
    return torch.stack(crops)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """The pictures (M, C, H, W), classes (M,) and features (M, d) of a batch."""

    x: torch.Tensor
    y: torch.Tensor
    features: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimate:
    pictures: torch.Tensor
    labels: torch.Tensor
    steps: int
    seconds: float


def _estimate(network: Any, gradient: Any, found: ImageAttack, limit: float, seed: int) -> _Estimate:
    from exan_verify.numeric.convolution.gradients import split_gradient
    from exan_verify.numeric.convolution.inversion import invert_features

    device = found.features.device
    body = split_gradient(network, gradient, device).body if found.features_complete else {}
    assert found.known is not None
    fitted = invert_features(network, found.known, body, iterations=1 << 30, seconds=limit, seed=seed)
    return _Estimate(
        pictures=fitted.pictures.cpu(),
        labels=found.feature_labels,
        steps=fitted.iterations,
        seconds=fitted.seconds,
    )


def _rival(
    model: Any,
    gradient: Any,
    truth: _Truth,
    limit: float,
    iterations: int | None,
    seed: int,
    device: str | None,
) -> _Estimate:
    from exan_verify.bench.rivals.baselines import PUBLISHED_ITERATIONS, Effort, inverting_gradients

    fitted = inverting_gradients(
        model.to(device),
        {name: g.to(device) for name, g in gradient.items()},
        labels=truth.y.to(device),
        shape=tuple(truth.x.shape[1:]),
        effort=Effort(
            iterations=iterations or PUBLISHED_ITERATIONS, seconds=None if iterations else limit, seed=seed
        ),
    )
    return _Estimate(
        pictures=fitted.x.double().cpu(), labels=fitted.y, steps=fitted.iterations, seconds=fitted.seconds
    )


def _likeness(found: _Estimate | None, truth: _Truth) -> tuple[float | None, float | None]:
    """Mean PSNR and SSIM of estimates matched to the originals."""
    from exan_verify.numeric.problem.metrics import score
    from exan_verify.report.sheets import likeness

    if found is None:
        return None, None
    matched = score(found.pictures, found.labels, truth.x, truth.y).samples
    each = [likeness(truth.x[s.truth].numpy(), found.pictures[s.index].numpy()) for s in matched]
    return statistics.mean(e.psnr for e in each), statistics.mean(e.ssim for e in each)


def _row(
    case: Case, found: ImageAttack, truth: _Truth, ours: _Estimate | None, rival: _Estimate | None
) -> Row:
    """The scores of a run; its time and memory are known to who ran it."""
    from exan_verify.numeric.problem.metrics import score, wrong_claims

    x, y, features = truth.x, truth.y, truth.features
    feature_scores = score(found.features, found.feature_labels, features, y).samples
    picture_scores = score(found.x, found.y, x, y).samples
    bounds = [s.error_bound for s in found.feature_status]
    wrong = wrong_claims(found.features, found.feature_labels, bounds, features, y)
    wrong += wrong_claims(found.x, found.y, [s.error_bound for s in found.status], x, y)
    occurring, last = set(y.tolist()), found.last_layer
    if last is not None:
        wrong += len(set(last.present) - occurring) + max(0, last.rank - len(y))
    psnr, ssim = _likeness(ours, truth)
    rival_psnr, rival_ssim = _likeness(rival, truth)
    return Row(
        name=case.name,
        seeds=1,
        features=len(found.features),
        feature_error=max((s.largest for s in feature_scores), default=None),
        feature_bound=max(bounds, default=None),
        labels_right=sum(s.label for s in feature_scores) / len(feature_scores) if feature_scores else None,
        pictures=len(found.x),
        picture_error=max((s.largest for s in picture_scores), default=None),
        picture_bound=max((s.error_bound for s in found.status), default=None),
        rank=None if last is None else last.rank,
        present=None if last is None else len(last.present),
        occurring=len(occurring),
        wrong=wrong,
        stopped=_stopped(found),
        seconds=0.0,
        estimate_seconds=0.0 if ours is None else ours.seconds,
        steps=None if ours is None else ours.steps,
        psnr=psnr,
        ssim=ssim,
        rival_steps=None if rival is None else rival.steps,
        rival_psnr=rival_psnr,
        rival_ssim=rival_ssim,
        gain=None if psnr is None or rival_psnr is None else psnr - rival_psnr,
        peak_mib=0.0,
    )


def _stopped(found: ImageAttack) -> str:
    if found.complete:
        return "nowhere"
    for stage in reversed(found.stages):
        if stage.deficit:
            least = "at least " if stage.at_least else ""
            return f"{stage.kind} {stage.path}: {least}{stage.deficit} of {stage.unknowns}"
    return "head" if not found.features_complete else "pictures not confirmed"


def _summarise(runs: Sequence[Row]) -> Row:
    """Worst errors and counts, medians of scores and times."""
    first = runs[0]

    def values(name: str) -> list[Any]:
        return [getattr(run, name) for run in runs if getattr(run, name) is not None]

    def over(reduce: Callable[[list[Any]], Any], *names: str) -> dict[str, Any]:
        return {name: reduce(values(name)) if values(name) else None for name in names}

    return Row(
        name=first.name,
        seeds=len(runs),
        stopped=first.stopped,
        wrong=sum(run.wrong for run in runs),
        **over(min, "features", "labels_right", "pictures", "rank", "present", "occurring"),
        **over(max, "feature_error", "feature_bound", "picture_error", "picture_bound", "peak_mib"),
        **over(
            statistics.median,
            "seconds",
            "estimate_seconds",
            "psnr",
            "ssim",
            "rival_psnr",
            "rival_ssim",
            "gain",
        ),
        **over(statistics.median_low, "steps", "rival_steps"),
    )


SUITE = Suite(
    name="convolution",
    title="convolution: features, pictures, and estimates against Inverting Gradients",
    columns=(
        ("case", "name"),
        ("seeds ", "seeds"),
        ("features ", "features"),
        ("error ", "feature_error"),
        ("bound ", "feature_bound"),
        ("labels ", "labels_right"),
        ("pictures ", "pictures"),
        ("error ", "picture_error"),
        ("bound ", "picture_bound"),
        ("rank ", "rank"),
        ("present ", "present"),
        ("classes ", "occurring"),
        ("wrong ", "wrong"),
        ("open at", "stopped"),
        ("s ", "seconds"),
        ("s each ", "estimate_seconds"),
        ("PSNR ", "psnr"),
        ("SSIM ", "ssim"),
        ("IG steps ", "rival_steps"),
        ("IG PSNR ", "rival_psnr"),
        ("IG SSIM ", "rival_ssim"),
        ("gain dB ", "gain"),
        ("peak MiB ", "peak_mib"),
    ),
    cases=CASES,
    measure=measure,
    takes=("device", "iterations", "seconds"),
    unnamed_seeds=1,
)
