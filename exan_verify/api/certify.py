"""``certify``: a user's model, data and words become an exact network and a question, which is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from exan_verify.api.instances import taking_instances
from exan_verify.api.releases import network_seen_through, of_network, projection_release
from exan_verify.core.budget import Budget
from exan_verify.core.network import MOST_SAMPLES, Batch, Gradient, Network
from exan_verify.core.question import Box, Question, Release
from exan_verify.core.staged import StagedNetwork
from exan_verify.core.verdict import Verdict
from exan_verify.decide.context import Progress
from exan_verify.decide.pipeline import ENGINES, decide
from exan_verify.errors import (
    InexactError,
    InputError,
    fitting_into_memory,
    flag,
    positive,
    short,
    unknown,
    whole,
)
from exan_verify.models.gradients import FOLDED_TOLERANCE, NORMALISED_WHOLE, of_folded, received


@taking_instances
@fitting_into_memory("certify")
def certify(
    model: Any,
    *,
    batch: tuple[Any, Any] | Batch | None = None,
    gradient: Mapping[str, Any] | Sequence[Any] | Gradient | None = None,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    domain: Box | None = None,
    batch_size: int | None = None,
    exact: bool = False,
    tolerance: float | None = None,
    release: Release | None = None,
    engine: str = "auto",
    budget: float | Budget | None = None,
    work_limit: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Verdict:
    """Decide which batches have a given gradient: UNIQUE, AMBIGUOUS, UNREALISABLE or UNKNOWN.

    ``model``: a ``torch.nn.Module`` of Linear layers with ReLU, LeakyReLU, PReLU, ReLU6 or Hardtanh between
    them (docs/theory.md, PL1: with these only the whole gradient of a batch), perhaps with convolutions below
    and BatchNorm in eval mode beside them (docs/models.md), a :class:`Network`, or an
    :class:`~exan_verify.instances.Instance`, which brings its batch and its words. Give either
    ``batch=(x, y)``, whose exact gradient is meant (x (M, d) or (M, ...); y as the torch loss takes it), or
    ``gradient={parameter name: tensor}``, or a list in the order of ``parameters()``, as
    :mod:`exan_verify.models.gradients` takes them. ``batch_size`` is the size of the batches asked about: by
    default the given batch's, or the rank found. ``release``: what of the batch's gradient leaves the device;
    the batches asked about are those with the same release (docs/theory.md, releases). With an input basis B
    (d, r) the model's first layer is ``V B^T`` on d inputs, or V alone, which takes the r numbers ``B^T x``;
    x has d features either way. A model of :func:`exan_verify.project_inputs` needs no release. With
    ``averages`` the batch has the samples themselves, and the step is made on their means. ``budget``
    is in seconds (or the caller's :class:`Budget`, which then is the only limit), ``work_limit`` in modular
    multiplications (deterministic). ``jobs`` is used by engines that run in parallel. ``progress`` is told
    (what, share done) before each engine is asked.

    The verdict is a claim about real arithmetic on the stored numbers. Method: docs/theory.md section 3.

    Raises :class:`exan_verify.errors.InputError` (or a subclass) naming what cannot be used.
    """
    limits = budget if isinstance(budget, Budget) else Budget(seconds=budget, work=work_limit)
    network = exact_network(model, batch)
    question = Question.of(loss, reduction, labels, domain=domain)
    seed, jobs = whole(seed, "seed", least=0), whole(jobs, "jobs", most=1024)
    if not isinstance(engine, str) or engine not in ENGINES:
        raise InputError(unknown("engine", engine, ENGINES))
    if batch_size is not None:
        question = replace(question, batch_size=whole(batch_size, "batch_size", most=MOST_SAMPLES))
    if domain is not None:
        if not isinstance(domain, Box):
            raise InputError(
                f"domain={short(domain)} cannot be used; give Box(lo, hi), or None for all inputs"
            )
        domain.bounds(network.widths[0])
    if isinstance(network, StagedNetwork):
        asked = replace(question, release=release)
        return _of_pictures(network, asked, batch, gradient, limits=limits, seed=seed, progress=progress)
    release = projection_release(model, batch) if release is None else release
    if release is not None:
        network = network_seen_through(network, release, model)
        question = replace(question, release=of_network(release, network))
    _check_normalised(network, gradient, release)
    if (batch is None) == (gradient is None):
        raise InputError("give either batch=(x, y) or gradient={name: tensor}, and not both")
    own = given = None
    if batch is not None:
        if tolerance is not None or flag(exact, "exact"):
            raise InputError(
                "tolerance= and exact= say what a gradient's numbers mean, and batch= stands for its exact "
                "gradient; leave them out, or give the gradient"
            )
        own = Batch.given(batch, network=network, loss=question.loss, labels=question.labels)
    else:
        # a list is in the order of the module's parameters, not always that of its forward pass
        given = received(gradient, model)
        meant_exactly = flag(exact, "exact")
        given.for_network(network)
        _check_meaning(given, meant_exactly, tolerance, release, network)
        given = of_folded(given, network, exact=True)
        question = replace(question, tolerance=None if tolerance is None else Fraction(tolerance))
    return decide(
        network,
        question,
        batch=own,
        gradient=given,
        limits=limits,
        engine=engine,
        seed=seed,
        jobs=jobs,
        progress=progress,
    )


def exact_network(model: Any, batch: Any = None) -> Network | StagedNetwork:
    """The exact network of what a user gives; torch is imported only for torch models. The inputs of
    ``batch`` (M, C, H, W) say what pictures a model with convolutions takes.
    """
    if isinstance(model, (Network, StagedNetwork)):
        return model
    from exan_verify.models.chain import to_any_network
    from exan_verify.models.pictures.staged import has_convolutions, to_staged

    if not has_convolutions(model):
        return to_any_network(model)

    x = batch.inputs if isinstance(batch, Batch) else batch[0] if isinstance(batch, (tuple, list)) else None
    shape = tuple(getattr(x, "shape", ()))[1:]
    return to_staged(model, shape if len(shape) == 3 else None)


def _of_pictures(
    network: StagedNetwork, question: Question, batch: Any, gradient: Any, *, limits: Budget, **options: Any
) -> Verdict:
    """A batch of pictures is decided; of anything else nothing is said about convolutions."""
    from exan_verify.decide import stages

    if batch is None or gradient is not None:
        raise InputError(f"{stages.WHOLE}; give batch=(x, y)")
    own = Batch.given(batch, network=network, loss=question.loss, labels=question.labels)
    return stages.decide(network, question, own, limits=limits, **options)


def _check_normalised(network: Network, gradient: Any, release: Release | None) -> None:
    if network.normalised and (gradient is not None or release is not None):
        raise InputError(NORMALISED_WHOLE)


def _check_meaning(
    gradient: Gradient,
    exact: bool,
    tolerance: float | None,
    release: Release | None,
    network: Network,
) -> None:
    if release is not None:
        raise InputError("release= says what of a batch's gradient is sent; give batch=(x, y) with it")
    if exact and tolerance is not None:
        raise InputError("exact=True and tolerance= contradict each other; give one of them")
    if tolerance is not None:
        positive(tolerance, "tolerance")
        if network.plain is not network:
            raise InputError(FOLDED_TOLERANCE)
    if not (exact or gradient.rational or tolerance is not None):
        raise InexactError(
            "the gradient has floating-point numbers and it is not said what they mean: pass exact=True if "
            "each stored number is meant exactly (rare: autograd rounds), or tolerance=eps if they are "
            "rounded and every gradient within eps counts"
        )
