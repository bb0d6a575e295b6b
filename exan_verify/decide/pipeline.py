"""The order in which the exact arguments are asked about a question, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import (
    AlgebraicBatch,
    Apart,
    Claim,
    DegreeThree,
    Enumeration,
    ExtraRays,
    Lifting,
    Mixing,
    QuestionRecord,
    RankBound,
    issue,
)
from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch, Gradient, Network, ReluNetwork
from exan_verify.core.question import Labels, Question
from exan_verify.core.verdict import Attempt, Engine, Outcome, SampleStatus, Trust, Verdict
from exan_verify.decide.context import Context, Finding, Progress, Setting
from exan_verify.decide.gradient.from_gradient import Search, rank_bound_of_batch, search, too_few
from exan_verify.decide.obstacles import obstacles
from exan_verify.decide.released import not_asked, only_handled
from exan_verify.errors import (
    BudgetExhausted,
    GradientError,
    InputError,
    SoundnessError,
)
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.exact.modular import UnsuitablePrimeError


def _engine(name: str, *, any_activation: bool = False) -> Callable[[Context, Budget], Finding]:
    """``decide`` of a module beside this one, loaded when it is asked: few questions need them all.

    ``any_activation``: its argument is made for every :class:`Network` (docs/theory.md, PL1). The others are
    made for ReLU and are not asked of other activations, where they could be wrong.
    """

    def ask(context: Context, limits: Budget) -> Finding:
        if not any_activation and not isinstance(context.model, ReluNetwork):
            return Finding()
        finding: Finding = import_module(f"exan_verify.decide.{name}").decide(context, limits)
        return finding

    return ask


ENGINE_ORDER: tuple[tuple[Engine, Callable[[Context, Budget], Finding]], ...] = (
    (Engine.LIFTING, _engine("lifting.degree_two", any_activation=True)),
    (Engine.LIFTING, _engine("lifting.apart")),
    (Engine.LIFTING, _engine("lifting.degree_three")),
    (Engine.SCALE, _engine("scale.without_biases")),
    (Engine.FAMILIES, _engine("families", any_activation=True)),
    (Engine.RESIDUAL, _engine("residual")),
    (Engine.ENUMERATION, _engine("enumeration")),
    (Engine.RESIDUAL, _engine("residual.searched")),
    (Engine.RESIDUAL, _engine("residual.inputs")),
)
"""Who is asked, cheapest first."""

CUBES = _engine("cubes")
"""Who is asked last, about what is not known to be ambiguous: where solvers are asked, after they have said
that the batch is the only one, which it may prove.
"""

SAMPLES_WORK = 20_000_000
"""Work for the samples' own statuses after AMBIGUOUS: a second or two."""

OTHER_ACTIVATIONS = (
    "of networks with other activations than ReLU only the whole gradient of a batch is asked, or rows of "
    "it; a gradient alone, with its batch size, of solvers (engine='smt')"
)
"""Why other releases, another batch size or a gradient alone is not decided there."""

_ROUNDED = (
    "Every stored number was meant exactly; a gradient that was rounded on the way, as autograd's is, has "
    "no batch in this sense"
)

STOPPING = (BudgetExhausted, UnsuitablePrimeError, MemoryError)
"""What ends one engine, and leaves the question to the others."""

MORE = "give more, or a smaller batch"

ENGINES = ("auto", "exact", *dict.fromkeys(engine.value for engine, _ in ENGINE_ORDER), "smt")
"""What ``engine=`` may be: all in turn (``exact``: without the solvers), or one alone."""


def decide(
    network: Network,
    question: Question,
    *,
    batch: Batch | None = None,
    gradient: Gradient | None = None,
    limits: Budget | None = None,
    engine: str = "auto",
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Verdict:
    """Which batches have the gradient of ``batch``, or ``gradient``: what :func:`exan_verify.certify` asks.

    ``question.batch_size``: the size of the batches asked about; None: the batch's own, or the rank found.
    ``question.tolerance`` is for a gradient; without it every number of the gradient is meant exactly.
    Raises :class:`exan_verify.errors.InputError` where the batch lies outside the domain, its samples do not
    fit the release, or labels are known and only a gradient is given.
    """
    limits = limits or Budget()
    told = None if progress is None else _never_back(progress)
    setting = Setting(network=network, question=question, seed=seed, jobs=jobs, engine=engine, progress=told)
    own = 0 if batch is None else batch.size
    size = question.batch_size or own
    with limits.kept():
        try:
            if batch is not None:
                verdict = (
                    replace(_unknown(size, network.mixed_biases), samples=(SampleStatus.UNKNOWN,) * own)
                    if network.mixed_biases
                    else _given_batch(setting, batch, limits)
                )
            else:
                assert gradient is not None
                asked = _given_gradient if isinstance(network, ReluNetwork) else _of_solvers
                verdict = (
                    replace(_unknown(size, network.mixed_biases), tolerant=question.tolerance is not None)
                    if network.mixed_biases
                    else asked(setting, gradient, limits)
                )
        except STOPPING as error:
            remedy = "change the units of the input" if isinstance(error, UnsuitablePrimeError) else MORE
            verdict = _unknown(size, f"{_why(error)}; {remedy}")
            statuses = (SampleStatus.UNKNOWN,) * (own if size == own else 0)
            verdict = replace(verdict, samples=statuses, tolerant=question.tolerance is not None)
    notes = network.notes + (() if gradient is None else gradient.notes)
    return replace(verdict, architecture=network.architecture, notes=notes, release=question.release)


def _given_batch(setting: Setting, batch: Batch, limits: Budget) -> Verdict:
    if setting.question.domain is not None and not setting.question.domain.contains(batch):
        raise InputError("the batch lies outside the domain it is asked about; widen the domain")
    if setting.question.release is not None:
        release = setting.question.release
        rows = release.input_basis is None and release.averages is None
        if not (rows or isinstance(setting.network, ReluNetwork)):
            raise InputError(f"{OTHER_ACTIVATIONS}; leave out release.input_basis and release.averages")
        setting.question.release.check_samples(batch)
    context = Context(setting=setting, batch=batch)
    if setting.question.batch_size not in (None, batch.size):
        return _other_size(context, setting.question.samples, limits)
    return _decide(_Course(context=context, limits=limits))


def _other_size(context: Context, batch_size: int, limits: Budget) -> Verdict:
    """Whether ``batch_size`` samples can have the gradient of a batch of another size."""
    setting, batch = context.setting, context.batch
    if not isinstance(setting.network, ReluNetwork):
        return _unknown(batch_size, f"{OTHER_ACTIVATIONS}, with its own size")
    if setting.question.release is not None:
        return _unknown(
            batch_size,
            f"the batch has {batch.size} samples; whether {batch_size} samples can have its release is not "
            "decided. Ask with the batch's own size",
        )
    try:
        bound = rank_bound_of_batch(context, batch_size)
    except UnsuitablePrimeError:
        bound = None  # a rational loss needs no residues for what follows
    if bound is not None:
        searched = Search(samples=batch_size, reason=too_few(bound, batch_size), refutation=bound)
        return _unrealisable(setting, searched, batch=batch)
    if setting.question.loss.rational and setting.question.labels is not Labels.KNOWN:
        given = exact_gradient(setting.network, batch, setting.question.loss, setting.question.reduction)
        if not any(array.any() for array in given.tensors.values()):
            return _unknown(
                batch_size, "every entry of the gradient is zero, which any number of samples may have"
            )
        return _given_gradient(setting, given, limits)
    reason = (
        f"the batch has {batch.size} samples; whether {batch_size} samples can have its gradient is not "
        f"decided for {setting.question.loss.value}. Ask with the batch's own size"
    )
    return _unknown(batch_size, reason)


@dataclass(kw_only=True)
class _Course:
    """What the engines have said of a batch so far: ``facts`` and ``findings``, and what ``stopped`` them.

    ``gradient``: where that is all that was given, with where the batch is from: ``rebuild``, or ``found``.
    """

    context: Context
    limits: Budget
    gradient: Gradient | None = None
    rebuild: Mixing | None = None
    found: AlgebraicBatch | None = None
    facts: Facts = field(default_factory=Facts)
    findings: list[tuple[Engine, Finding]] = field(default_factory=list)
    stopped: str | None = None

    def add(self, engine: Engine, finding: Finding) -> None:
        """Take what an engine says."""
        self.findings.append((engine, finding))
        self.facts |= finding.facts


def _decide(course: _Course) -> Verdict:
    """Ask the engines in turn, cheapest first, until the batch and every sample are settled."""
    context, limits = course.context, course.limits
    left = limits
    tell = context.setting.progress or _silent
    for k, (engine, ask) in enumerate(ENGINE_ORDER):
        if context.setting.engine not in ("auto", "exact", engine):
            continue
        turn = k / len(ENGINE_ORDER), (k + 1) / len(ENGINE_ORDER)
        tell(engine.value, turn[0])
        try:
            finding = not_asked(engine, context.question) or ask(context.after(course.facts, turn), left)
        except STOPPING as error:
            finding = Finding(attempts=(Attempt(engine=engine, note=_why(error)),))
        finding = only_handled(engine, finding, context.question)
        if course.facts.is_ambiguous and course.facts | finding.facts == course.facts:
            finding = Finding(attempts=finding.attempts)
        course.add(engine, finding)
        if _settled(context, course.facts):
            break
        if stopped := left.exhausted or limits.late:
            course.stopped = stopped
            break
        if course.facts.is_ambiguous and left is limits:
            left = _for_the_samples(limits)
    return _last(course)


def _last(course: _Course) -> Verdict:
    """The verdict, with what solvers and the engine that is asked last have to say where it is open."""
    verdict, context, limits = _verdict(course), course.context, course.limits
    if not _left_to_solvers(context, verdict) or limits.exhausted:
        if verdict.outcome is Outcome.UNKNOWN and _asks_cubes(context.setting):
            return _with_cubes(course)
        return verdict
    from exan_verify.decide.solvers import ask_smt

    facts = course.facts
    (context.setting.progress or _silent)(Engine.SMT.value, 1.0)
    try:
        asked, more, evidence = ask_smt.ask_about_batch(
            context, limits, told=facts.free | facts.determined if facts.is_ambiguous else None
        )
    except (*STOPPING, GradientError) as error:
        attempt = Attempt(engine=Engine.SMT, note=_why(error))
        return replace(verdict, attempts=(*verdict.attempts, attempt))
    if evidence and facts | more != facts:
        found = Finding(facts=more, evidence=evidence, witness=asked.witness, reason=asked.reason)
        course.add(Engine.SMT, found)
        verdict = _verdict(course)
    elif asked.outcome is Outcome.UNIQUE and _asks_cubes(context.setting):
        verdict = _with_cubes(course)
    return _with_solvers(verdict, asked)


def _asks_cubes(setting: Setting) -> bool:
    """Whether the engine that is asked last is among those that the caller wants."""
    return setting.engine in ("auto", "exact", Engine.RESIDUAL) and setting.question.release is None


def _with_cubes(course: _Course) -> Verdict:
    """The verdict with what the engine that is asked last has to say."""
    try:
        finding = CUBES(course.context.after(course.facts, (1.0, 1.0)), course.limits)
    except STOPPING as error:
        finding = Finding(attempts=(Attempt(engine=Engine.RESIDUAL, note=_why(error)),))
    course.add(Engine.RESIDUAL, finding)
    return _verdict(course)


def _silent(_what: str, _share: float) -> None:
    """No progress is wanted."""


def _never_back(progress: Progress) -> Progress:
    """The same, but a step that is tried again does not take back the share that was told."""
    most = 0.0

    def tell(what: str, share: float) -> None:
        nonlocal most
        most = max(most, share)
        progress(what, most)

    return tell


def _why(error: Exception) -> str:
    """What ended an engine, as a phrase for a reason."""
    return f"memory ran out ({error})" if isinstance(error, MemoryError) else str(error)


def _outcome(context: Context, facts: Facts) -> Outcome:
    """What the facts say; samples are compared only where that matters."""
    distinct = len(facts.determined) == context.samples and context.batch.distinct
    return facts.outcome(context.samples, distinct=distinct)


def _settled(context: Context, facts: Facts) -> bool:
    """Whether the outcome is known, and for an ambiguous batch the status of every sample."""
    outcome = _outcome(context, facts)
    if outcome is Outcome.AMBIGUOUS:
        return SampleStatus.UNKNOWN not in facts.statuses(context.samples)
    return outcome is not Outcome.UNKNOWN


def _for_the_samples(limits: Budget) -> Budget:
    """What may be spent on single samples once the batch as a whole is known to be ambiguous."""
    work = SAMPLES_WORK if limits.work_left is None else min(SAMPLES_WORK, max(1, limits.work_left))
    seconds = limits.seconds_left
    return Budget(seconds=None if seconds is None else max(seconds, 1e-3), work=work)


def _asks_solvers(setting: Setting, samples: int) -> bool:
    if setting.question.release is not None:
        return False  # their question is about the whole gradient
    from exan_verify.decide.solvers import ask_smt

    # unasked only about ReLU, where arguments about regions spare the solvers most of their work
    unasked = setting.engine == "auto" and isinstance(setting.network, ReluNetwork)
    return setting.engine == "smt" or (unasked and ask_smt.is_small(setting, samples))


def _left_to_solvers(context: Context, verdict: Verdict) -> bool:
    """Whether the engines left something open that the solvers may be asked about."""
    if verdict.outcome is Outcome.AMBIGUOUS:
        left = SampleStatus.UNKNOWN in verdict.samples
    else:
        left = verdict.outcome is Outcome.UNKNOWN
    return left and _asks_solvers(context.setting, context.samples)  # which loads what asks them


def _with_solvers(verdict: Verdict, asked: Verdict) -> Verdict:
    """The solvers' answer beside what is proved; the two must not contradict.

    ``trust`` is the weakest word that any part of the answer rests on. The certificate stays, and claims
    what it shows.
    """
    attempts = verdict.attempts + asked.attempts
    known = verdict.outcome is not Outcome.UNKNOWN
    if asked.outcome is Outcome.UNKNOWN:
        told = () if known else (f"SMT: {asked.reason}",)
        return replace(verdict, reason="; ".join(filter(None, (verdict.reason, *told))), attempts=attempts)
    if known and asked.outcome is not verdict.outcome:
        raise SoundnessError(f"{verdict.outcome.value} is proved, but the solvers say {asked.outcome.value}")
    for m, status in enumerate(verdict.samples):
        if status is not SampleStatus.UNKNOWN and asked.samples[m] not in (status, SampleStatus.UNKNOWN):
            raise SoundnessError(
                f"sample {m} is {status.value}, but the solvers say {asked.samples[m].value}"
            )
    merged = tuple(
        own if own is not SampleStatus.UNKNOWN else other
        for own, other in zip(verdict.samples, asked.samples, strict=True)
    )
    if not known:
        return replace(
            asked, samples=merged, attempts=attempts, batch=verdict.batch, certificate=verdict.certificate
        )
    if merged == verdict.samples:
        return replace(verdict, attempts=attempts)
    word = (
        f"sample {m} is {status.value} on the solvers' word"
        for m, status in enumerate(merged)
        if status is not verdict.samples[m]
    )
    reason = "; ".join((verdict.reason, *word))
    return replace(verdict, samples=merged, reason=reason, attempts=attempts, trust=asked.trust)


def _verdict(course: _Course) -> Verdict:
    context, facts, findings, gradient = course.context, course.facts, course.findings, course.gradient
    outcome = _outcome(context, facts)
    statuses = facts.statuses(context.samples)
    evidence = tuple(part for _, finding in findings for part in finding.evidence)
    certificate = None
    if evidence:
        question = QuestionRecord.of(
            context.question,
            "batch" if gradient is None else "gradient",
            samples=context.samples,
            features=context.model.widths[0],
        )
        certificate = issue(
            claim=Claim(question=question, outcome=outcome, samples=statuses),
            evidence=evidence,
            model_sha256=context.model.digest,
            batch_sha256=context.batch.digest if gradient is None else None,
            gradient_sha256=None if gradient is None else gradient.digest,
            rebuild=course.rebuild,
            found=course.found,
        )
    proved = [(engine, finding) for engine, finding in findings if finding.evidence]
    decisive = next((e for e, f in proved if f.facts.is_ambiguous), proved[-1][0] if proved else None)
    return Verdict(
        outcome=outcome,
        samples=statuses,
        reason=_reason(course, outcome),
        batch_size=context.samples,
        engine=decisive,
        layer=_layer(proved),
        trust=Trust.CERTIFIED if proved else None,
        batch=context.batch if gradient is not None else None,
        witness=next((f.witness for _, f in proved if f.witness is not None), None),
        certificate=certificate,
        attempts=tuple(attempt for _, finding in findings for attempt in finding.attempts),
    )


def _layer(proved: list[tuple[Engine, Finding]]) -> int | None:
    """The first hidden layer that lifting used, when it proved something."""
    for _, finding in proved:
        for part in finding.evidence:
            if isinstance(part, Lifting):
                return part.layers[0].layer
            if isinstance(part, DegreeThree):
                return part.argument.layer
            if isinstance(part, Apart):
                return part.layer
            if isinstance(part, (Enumeration, ExtraRays)):
                return part.conclusion.layer
    return None


def _reason(course: _Course, outcome: Outcome) -> str:
    context, findings, stopped = course.context, course.findings, course.stopped
    parts = [finding.reason for _, finding in findings if finding.reason]
    if outcome is not Outcome.UNKNOWN:
        return "; ".join(parts)
    parts += _of_release(context)
    if stopped:
        parts.append(f"{stopped}; {MORE}")
    release = context.question.release
    of_means = release is not None and release.averages is not None  # no step has the samples' own patterns
    relu = isinstance(context.model, ReluNetwork)  # of others no neuron is dead
    if relu and not of_means and (not stopped or "passed" in vars(context)):
        parts.extend(obstacles(context.batch, context.passed, context.question.loss))
    if context.model.depth == 1 and not of_means:
        parts.append("the network has no hidden layer, which lifting needs")
        if context.model.has_bias and not context.question.loss.rational and context.question.domain is None:
            parts.append(
                "a box of inputs (domain) bounds the system of the output layer, which may decide it"
            )
    elif not stopped:
        # one word per engine; the attempts have all of them
        parts.extend(
            f"{engine.value}: {finding.attempts[0].note}" for engine, finding in findings if finding.attempts
        )
    if not relu:
        parts.append(
            "of networks with other activations than ReLU only lifting and the first layer's rank are asked, "
            "and solvers of small ones where they are wanted (engine='smt')"
        )
    if not of_means:
        parts.append(_other_options(context, known_labels=course.gradient is None))
    return "; ".join(filter(None, parts)) or "no argument applies"


def _of_release(context: Context) -> list[str]:
    release = context.question.release
    if release is None:
        return []
    engines = dict.fromkeys(engine for engine, _ in ENGINE_ORDER)
    silent = [engine.value for engine in engines if not_asked(engine, context.question)]
    return [f"asked of a release ({release.described}), for which {', '.join([*silent, 'smt'])} are not made"]


def _other_options(context: Context, *, known_labels: bool) -> str:
    """Options under which more arguments apply, or fewer batches have to be excluded: a hint, no claim, also
    where a limit ended the search, as fewer batches take less work.

    ``known_labels``: whether they may be asked for, which takes a batch.
    """
    setting, question = context.setting, context.question
    narrower = []
    if known_labels and question.labels is not Labels.KNOWN:
        narrower.append("labels='known'")
    if question.domain is None:
        narrower.append("a domain")
    named = []
    if setting.engine not in ("auto", "exact"):
        named.append(f"engine='auto' asks more than {setting.engine!r}")
    if narrower:
        named.append(f"{' or '.join(narrower)} leaves fewer batches to exclude")
    return f"other options may decide: {', '.join(named)}" if named else ""


def _given_gradient(setting: Setting, gradient: Gradient, limits: Budget) -> Verdict:
    question, batch_size = setting.question, setting.question.batch_size
    if setting.question.labels is Labels.KNOWN:
        raise InputError("labels='known' needs the batch's labels; give batch=, or 'one_hot' or 'real'")
    if question.tolerance is not None:
        from exan_verify.decide.tolerance import within_tolerance

        return within_tolerance(setting, gradient, limits)
    if not setting.question.loss.rational:
        return _unknown(batch_size or 0, _not_decided(setting))
    searched = search(setting, gradient, batch_size, limits)
    if searched.refutation is not None and not gradient.rational:
        searched = replace(searched, reason=f"{searched.reason}. {_ROUNDED}")
    if setting.engine == "smt":
        searched = Search(samples=batch_size or searched.samples, reason="")
    if searched.refutation is not None:
        return _unrealisable(setting, searched, gradient)
    if searched.batch is not None:
        context = Context(setting=setting, batch=searched.batch)
        return _decide(_Course(context=context, limits=limits, gradient=gradient, rebuild=searched.mixing))
    if searched.samples and _asks_solvers(setting, searched.samples):
        from exan_verify.decide.solvers import ask_smt

        asked = ask_smt.ask_about_gradient(setting, gradient, searched.samples, limits)
        if asked.outcome is not Outcome.UNKNOWN:
            told = _of_found(setting, gradient, asked, limits)
            return replace(told, attempts=searched.attempts + told.attempts)
        reason = f"{searched.reason}; SMT: {asked.reason}"
        return _unknown(searched.samples, reason, searched.attempts + asked.attempts)
    return _unknown(searched.samples, searched.reason, searched.attempts)


def _of_found(setting: Setting, gradient: Gradient, asked: Verdict, limits: Budget) -> Verdict:
    """The solvers' verdict with what the engines prove of the batch that they found."""
    from exan_verify.decide.gradient.found import Near, record_of

    record = None if setting.engine != "auto" else record_of(setting, gradient, asked)
    if record is None:
        return asked
    exact = replace(setting, engine="exact")
    if asked.batch is not None:
        context = Context(setting=exact, batch=asked.batch)
        course = _Course(context=context, limits=limits, gradient=gradient, found=record)
        return _with_solvers(_decide(course), asked)
    near = Near.of(exact, gradient, record)
    if near is None:
        return asked
    course = _Course(context=near.context, limits=limits, gradient=gradient, found=record)
    try:
        course.add(Engine.RESIDUAL, near.unique(limits))
    except STOPPING as error:
        course.add(Engine.RESIDUAL, Finding(attempts=(Attempt(engine=Engine.RESIDUAL, note=_why(error)),)))
    verdict = replace(_verdict(course), batch=None, witness=asked.witness)
    return _with_solvers(verdict, asked)


def _of_solvers(setting: Setting, gradient: Gradient, limits: Budget) -> Verdict:
    """The same for other activations than ReLU, of which solvers alone are asked, where that is wanted."""
    from exan_verify.decide.solvers import ask_smt

    question = setting.question
    if question.labels is Labels.KNOWN:
        raise InputError("labels='known' needs the batch's labels; give batch=, or 'one_hot' or 'real'")
    if setting.engine != "smt" or question.batch_size is None:
        unknown = _unknown(question.batch_size or 0, OTHER_ACTIVATIONS)
        return replace(unknown, tolerant=question.tolerance is not None)
    if question.tolerance is None and not question.loss.rational:
        return _unknown(question.batch_size, _not_decided(setting))
    if question.tolerance is not None:
        return ask_smt.ask_about_tolerance(setting, gradient, limits)
    return ask_smt.ask_about_gradient(setting, gradient, question.batch_size, limits)


def _not_decided(setting: Setting) -> str:
    return (
        f"from an exact gradient alone, the loss {setting.question.loss.value!r} is not decided by the "
        "engines here; give the batch, a tolerance where the numbers are rounded, or an exact mse or hinge "
        "gradient"
    )


def _unrealisable(
    setting: Setting, searched: Search, gradient: Gradient | None = None, batch: Batch | None = None
) -> Verdict:
    question = QuestionRecord.of(
        setting.question,
        "batch" if gradient is None else "gradient",
        samples=searched.samples,
        features=setting.network.widths[0],
    )
    assert searched.refutation is not None
    return Verdict(
        outcome=Outcome.UNREALISABLE,
        samples=(),
        reason=searched.reason,
        batch_size=searched.samples,
        engine=Engine.DIRECT if isinstance(searched.refutation, RankBound) else Engine.LIFTING,
        layer=searched.refutation.layer,
        trust=Trust.CERTIFIED,
        certificate=issue(
            claim=Claim(question=question, outcome=Outcome.UNREALISABLE, samples=()),
            evidence=(searched.refutation,),
            model_sha256=setting.network.digest,
            batch_sha256=None if batch is None else batch.digest,
            gradient_sha256=None if gradient is None else gradient.digest,
        ),
        attempts=searched.attempts,
    )


def _unknown(samples: int, reason: str, attempts: tuple[Attempt, ...] = ()) -> Verdict:
    return Verdict(outcome=Outcome.UNKNOWN, samples=(), reason=reason, batch_size=samples, attempts=attempts)
