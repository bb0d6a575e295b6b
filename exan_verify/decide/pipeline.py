"""``certify``: the question, the order in which the exact arguments are asked, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exan_verify.certificate import Claim, LayerArgument, Lifting, Mixing, Question, domain_record, issue
from exan_verify.decide.direct import obstacles
from exan_verify.decide.labels import LabelQuestion
from exan_verify.decide.lifting import Problem, lift, plans
from exan_verify.decide.reconstruction import LayerGradient, NotFoundError, rebuild, with_bias
from exan_verify.errors import InexactError, InputError, LabelError
from exan_verify.exact.backprop import Forward, backward_mod, forward
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.exact.linalg import rank
from exan_verify.exact.modular import PRIME, UnsuitablePrimeError, point
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.network import Batch, Gradient, Labels, Loss, Reduction, ReluNetwork
from exan_verify.verdict import Attempt, Box, Budget, Engine, Outcome, SampleStatus, Trust, Verdict

ENGINES = ("auto", "lifting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is asked, apart from the batch or gradient itself."""

    network: ReluNetwork
    loss: Loss
    reduction: Reduction
    labels: Labels
    domain: Box | None
    seed: int


def certify(
    model: Any,
    *,
    batch: tuple[Any, Any] | Batch | None = None,
    gradient: Mapping[str, Any] | Gradient | None = None,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    domain: Box | None = None,
    batch_size: int | None = None,
    exact: bool = False,
    tolerance: float | None = None,
    engine: str = "auto",
    budget: float | None = None,
    work_limit: int | None = None,
    seed: int = 0,
    jobs: int = 1,
) -> Verdict:
    """Decide which batches have a given gradient: UNIQUE, AMBIGUOUS, UNREALISABLE or UNKNOWN.

    ``model``: a ``torch.nn.Module`` of Linear and ReLU layers, or a :class:`ReluNetwork`. Give either
    ``batch=(x, y)``, whose exact gradient is meant (x (M, d) or (M, ...); y as the torch loss takes it), or
    ``gradient={parameter name: tensor}``. ``batch_size`` is the size of the batches asked about: by default
    the given batch's, or the rank found. ``budget`` is in seconds, ``work_limit`` in modular multiplications
    (deterministic). ``jobs`` is used by engines that run in parallel.

    The verdict is a claim about real arithmetic on the stored numbers. Method: docs/theory.md section 3.

    Raises :class:`exan_verify.errors.InputError` (or a subclass) naming what cannot be used.
    """
    setting = Setting(
        network=_network(model),
        loss=_choice(Loss, loss, "loss"),
        reduction=_choice(Reduction, reduction, "reduction"),
        labels=_choice(Labels, labels, "labels"),
        domain=domain,
        seed=seed,
    )
    _check_options(setting, engine, batch_size, jobs)
    limits = Budget(seconds=budget, work=work_limit)
    if (batch is None) == (gradient is None):
        raise InputError("give either batch=(x, y) or gradient={name: tensor}, and not both")
    if batch is not None:
        return _given_batch(setting, _batch(setting, batch), batch_size, limits)
    given = gradient if isinstance(gradient, Gradient) else Gradient(tensors=gradient or {})
    return _given_gradient(setting, given, batch_size, exact, tolerance, limits)


def _given_batch(setting: Setting, batch: Batch, batch_size: int | None, limits: Budget) -> Verdict:
    if setting.domain is not None and not setting.domain.contains(batch):
        raise InputError("the batch lies outside the domain it is asked about; widen the domain")
    if batch_size not in (None, batch.size):
        reason = (
            f"the batch has {batch.size} samples; whether {batch_size} samples can have its gradient is not "
            "decided by the engines here. Ask with the batch's own size"
        )
        return _unknown(batch_size or 0, (), reason, ())
    found = _lift_layers(setting, batch, limits)
    return _verdict(setting, batch, found, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lifted:
    """What lifting gave over all layers that were tried."""

    arguments: tuple[LayerArgument, ...]
    attempts: tuple[Attempt, ...]
    determined: frozenset[int]
    obstacles: tuple[str, ...]
    point: int
    stopped: str | None


def _lift_layers(setting: Setting, batch: Batch, limits: Budget) -> _Lifted:
    passed = forward(setting.network, batch)
    found = obstacles(batch, passed, setting.loss)
    try:
        problem = _problem(setting, batch, passed)
    except UnsuitablePrimeError as error:
        return _Lifted(
            arguments=(), attempts=(), determined=frozenset(), obstacles=found, point=0, stopped=str(error)
        )
    arguments: list[LayerArgument] = []
    attempts: list[Attempt] = []
    determined: frozenset[int] = frozenset()
    stopped = None
    for plan in plans(problem):
        result = lift(problem, plan, limits)
        attempts.append(result.attempt)
        if result.argument is not None and not determined.issuperset(result.argument.determined):
            arguments.append(result.argument)
            determined |= frozenset(result.argument.determined)
        if len(determined) == batch.size:
            break
        if stopped := limits.exhausted:
            break
    return _Lifted(
        arguments=tuple(arguments),
        attempts=tuple(attempts),
        determined=determined,
        obstacles=found,
        point=problem.point,
        stopped=stopped,
    )


def _problem(setting: Setting, batch: Batch, passed: Forward) -> Problem:
    divisor = setting.loss.divisor(setting.reduction, batch.size, setting.network.classes)
    attempt = 0
    while True:
        t = point(f"certify/{setting.seed}/{attempt}")
        try:
            vectors = loss_vectors_mod(setting.loss, passed.logits, batch.labels, divisor, t)
        except VanishingDenominatorError:
            attempt += 1
            continue
        return Problem(
            question=LabelQuestion(
                network=setting.network, batch=batch, loss=setting.loss, labels=setting.labels
            ),
            passed=passed,
            deltas=backward_mod(setting.network, passed, vectors),
            point=t,
        )


def _verdict(
    setting: Setting, batch: Batch, found: _Lifted, gradient: Gradient | None, mixing: Mixing | None
) -> Verdict:
    unique = len(found.determined) == batch.size
    statuses = tuple(
        SampleStatus.DETERMINED if m in found.determined else SampleStatus.UNKNOWN for m in range(batch.size)
    )
    outcome = Outcome.UNIQUE if unique else Outcome.UNKNOWN
    certificate = None
    if found.arguments:
        certificate = issue(
            claim=Claim(question=_question(setting, batch, gradient), outcome=outcome, samples=statuses),
            evidence=Lifting(prime=PRIME, point=found.point, layers=found.arguments, mixing=mixing),
            model_sha256=setting.network.digest,
            batch_sha256=batch.digest if gradient is None else None,
            gradient_sha256=None if gradient is None else gradient.digest,
        )
    return Verdict(
        outcome=outcome,
        samples=statuses,
        reason=_reason(setting, batch, found, unique),
        batch_size=batch.size,
        engine=Engine.LIFTING if found.arguments else None,
        layer=found.arguments[0].layer if found.arguments else None,
        trust=Trust.CERTIFIED if found.arguments else None,
        batch=batch if gradient is not None else None,
        certificate=certificate,
        attempts=found.attempts,
    )


def _question(setting: Setting, batch: Batch, gradient: Gradient | None) -> Question:
    return Question(
        entrance="batch" if gradient is None else "gradient",
        loss=setting.loss,
        reduction=setting.reduction,
        labels=setting.labels,
        batch_size=batch.size,
        domain=domain_record(setting.domain, batch.inputs.shape[1]),
    )


def _reason(setting: Setting, batch: Batch, found: _Lifted, unique: bool) -> str:
    if unique and len(found.arguments) == 1:
        used = found.arguments[0]
        return (
            f"lifting at hidden layer {used.layer}: rank(R) = {used.rank} = U - {batch.size} with "
            f"U = {used.unknowns}, proved over F_p; inputs and labels follow (C1, 3.4)"
        )
    if unique:
        layers = ", ".join(str(a.layer) for a in found.arguments)
        return f"lifting at hidden layers {layers} together determines every sample (C2, 3.4)"
    parts = []
    if found.determined:
        names = ", ".join(str(m) for m in sorted(found.determined))
        parts.append(f"samples {names} are in every batch with this gradient; the others are open")
    if found.stopped:
        parts.append(f"{found.stopped}; give more, or a smaller batch")
    parts.extend(found.obstacles)
    if setting.network.depth == 1:
        parts.append("the network has no hidden layer, which lifting needs")
    elif not found.stopped:
        parts.extend(attempt.note for attempt in found.attempts)
    return "; ".join(parts) or "no argument applies"


def _given_gradient(
    setting: Setting,
    gradient: Gradient,
    batch_size: int | None,
    exact: bool,
    tolerance: float | None,
    limits: Budget,
) -> Verdict:
    layers = gradient.for_network(setting.network)
    _check_meaning(gradient, exact, tolerance)
    if tolerance is not None or setting.loss is not Loss.MSE:
        what = "a tolerance" if tolerance is not None else f"the loss {setting.loss.value!r}"
        reason = f"from a gradient alone, questions with {what} are not decided by the engines here"
        return _unknown(batch_size or 0, (), f"{reason}; give the batch, or an exact mse gradient", ())
    if not setting.network.has_bias:
        return _unknown(batch_size or 0, (), "the network has no biases, so every sample keeps a scale", ())
    samples = batch_size or max(rank(with_bias(layer)) for layer in layers)
    attempts: list[Attempt] = []
    for layer in range(1, setting.network.depth):
        limits.spend(sum(array.size for array in gradient.tensors.values()))
        if stopped := limits.exhausted:
            return _unknown(samples, tuple(attempts), f"{stopped}; give more", ())
        verdict = _try_layer(setting, gradient, layers, samples, layer, attempts, limits)
        if verdict is not None:
            return verdict
    size = f"batch size {samples} ({'given' if batch_size else 'the rank found'})"
    reason = "; ".join(a.note for a in attempts) or "the network has no hidden layer, which lifting needs"
    return _unknown(samples, tuple(attempts), f"no batch was reconstructed for {size}: {reason}", ())


def _try_layer(
    setting: Setting,
    gradient: Gradient,
    layers: Sequence[LayerGradient],
    samples: int,
    layer: int,
    attempts: list[Attempt],
    limits: Budget,
) -> Verdict | None:
    """Rebuild at one layer, verify the batch by its own exact gradient, then decide from the batch."""
    try:
        found = rebuild(setting.network, layers, setting.reduction, samples, layer)
        batch = Batch.of(
            found.batch.inputs,
            found.batch.labels,
            network=setting.network,
            loss=setting.loss,
            labels=setting.labels,
        )
        problem = _disagreement(setting, gradient, batch)
    except (NotFoundError, LabelError) as error:
        attempts.append(Attempt(engine=Engine.LIFTING, layer=layer, note=f"layer {layer}: {error}"))
        return None
    if problem is not None:
        attempts.append(Attempt(engine=Engine.LIFTING, layer=layer, note=f"layer {layer}: {problem}"))
        return None
    return _verdict(setting, batch, _lift_layers(setting, batch, limits), gradient, found.mixing)


def _disagreement(setting: Setting, gradient: Gradient, batch: Batch) -> str | None:
    again = exact_gradient(setting.network, batch, setting.loss, setting.reduction)
    wrong = [name for name, array in again.tensors.items() if np.any(array != gradient.tensors[name])]
    if wrong:
        return f"the reconstructed batch has another gradient in {wrong[0]!r}"
    if setting.domain is not None and not setting.domain.contains(batch):
        return "the reconstructed batch lies outside the domain"
    return None


def _unknown(
    samples: int, attempts: tuple[Attempt, ...], reason: str, statuses: tuple[SampleStatus, ...]
) -> Verdict:
    return Verdict(
        outcome=Outcome.UNKNOWN, samples=statuses, reason=reason, batch_size=samples, attempts=attempts
    )


def _network(model: Any) -> ReluNetwork:
    if isinstance(model, ReluNetwork):
        return model
    from exan_verify.convert import to_network  # torch is imported only for torch models

    return to_network(model)


def _batch(setting: Setting, batch: tuple[Any, Any] | Batch) -> Batch:
    x, y = (batch.inputs, batch.labels) if isinstance(batch, Batch) else batch
    return Batch.of(x, y, network=setting.network, loss=setting.loss, labels=setting.labels)


def _choice(kind: Any, value: str, name: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        options = ", ".join(repr(option.value) for option in kind)
        raise InputError(f"{name}={value!r} is not known; use one of {options}") from None


def _check_options(setting: Setting, engine: str, batch_size: int | None, jobs: int) -> None:
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r} is not available; use one of {', '.join(ENGINES)}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size={batch_size}; a batch has at least one sample")
    if jobs < 1:
        raise InputError(f"jobs={jobs}; give at least 1")
    if setting.domain is not None:
        setting.domain.bounds(setting.network.widths[0])


def _check_meaning(gradient: Gradient, exact: bool, tolerance: float | None) -> None:
    if exact and tolerance is not None:
        raise InputError("exact=True and tolerance= contradict each other; give one of them")
    if tolerance is not None and not tolerance > 0:
        raise InputError(f"tolerance={tolerance}; give a positive number")
    if not (exact or gradient.rational or tolerance is not None):
        raise InexactError(
            "the gradient has floating-point numbers and it is not said what they mean: pass exact=True if "
            "each stored number is meant exactly (rare: autograd rounds), or tolerance=eps if they are "
            "rounded and every gradient within eps counts"
        )
