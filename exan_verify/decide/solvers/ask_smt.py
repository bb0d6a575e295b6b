"""The last engine: the plain question to SMT solvers, for small networks only (docs/smt.md).

Refutations are taken on the solvers' trust and say so; a second batch that they find is replayed exactly, or
proved to exist, and becomes evidence for the kernel.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Evidence
from exan_verify.core.facts import Facts
from exan_verify.core.network import Gradient, ReluNetwork
from exan_verify.core.verdict import Outcome, SampleStatus, Verdict, Witness
from exan_verify.decide.context import Context, Setting
from exan_verify.decide.second_batch import Accepted, Candidate, accept, evidence_of
from exan_verify.decide.solvers.irrational import irrational_evidence
from exan_verify.decide.solvers.spanned import spanned
from exan_verify.smt.decide import decide
from exan_verify.smt.portfolio import Settings

SMALL_NEURONS = 30
"""Unasked, SMT is tried only up to this many neuron states: hidden neurons times samples."""

UNASKED_WORK = 2_000_000
"""Solver units when nobody set a limit: seconds, not minutes; the same on every machine."""


def is_small(setting: Setting, samples: int) -> bool:
    """Whether the question is small enough to be asked without being told to."""
    return samples * sum(setting.network.widths[1:-1]) <= SMALL_NEURONS and setting.network.widths[0] <= 6


def ask_about_batch(
    context: Context, limits: Budget, *, told: frozenset[int] | None
) -> tuple[Verdict, Facts, tuple[Evidence, ...]]:
    """The solvers' verdict; facts and evidence when it rests on a second batch that was replayed exactly.

    ``told``: the batch is known to be ambiguous, these samples have their status, and only the others are
    asked about; None where the outcome is asked for.
    """
    setting = context.setting
    settings = _settings(setting, limits)
    if told is not None and (settings.work_limit is not None or settings.deadline is None):
        own = settings.work_limit or UNASKED_WORK
        settings = replace(settings, work_limit=min(own, UNASKED_WORK), unasked=own >= UNASKED_WORK)
    # that features in the span of others follow from them is shown of ReLU networks
    smaller = None if told is not None or not isinstance(setting.network, ReluNetwork) else spanned(context)
    if smaller is not None:
        found = decide(smaller.network, smaller.question, batch=smaller.batch, settings=settings)
        if found.outcome is not Outcome.AMBIGUOUS:
            span = f"the other features are affine functions of {len(smaller.kept)} of them; "
            return replace(found, reason=span + found.reason, batch=context.batch), Facts(), ()
        other = None if found.witness is None else found.witness.batch
        if other is not None:
            candidate = Candidate(members=tuple(range(context.samples)), batch=smaller.whole(other))
            accepted = accept(context, evidence_of(context, candidate))
            if accepted is not None:
                return _with_all_features(context, found, accepted), accepted.facts, (accepted.evidence,)
    verdict = decide(setting.network, setting.question, batch=context.batch, settings=settings, told=told)
    if verdict.outcome is not Outcome.AMBIGUOUS or verdict.witness is None:
        return verdict, Facts(), ()
    other = verdict.witness.batch
    if other is None and not isinstance(setting.network, ReluNetwork):
        return verdict, Facts(), ()  # evidence of irrational batches is about ReLU
    if other is None:
        facts, evidence = irrational_evidence(context, verdict.witness.generators)
        return verdict, facts, evidence
    candidate = Candidate(members=tuple(range(context.samples)), batch=other)
    accepted = accept(context, evidence_of(context, candidate))
    return (verdict, Facts(), ()) if accepted is None else (verdict, accepted.facts, (accepted.evidence,))


def _with_all_features(context: Context, found: Verdict, accepted: Accepted) -> Verdict:
    """A second batch of the smaller question, replayed with all features; inside a domain the other batches
    that samples were called free by are not known to lie in it.
    """
    samples = found.samples
    if context.question.domain is not None:
        samples = tuple(
            SampleStatus.FREE
            if m in accepted.facts.free
            else status
            if status is SampleStatus.DETERMINED
            else SampleStatus.UNKNOWN
            for m, status in enumerate(samples)
        )
    return replace(
        found,
        samples=samples,
        batch=context.batch,
        witness=Witness(batch=accepted.batch),
        reason="another batch has this gradient (replayed exactly)",
    )


def ask_about_gradient(setting: Setting, gradient: Gradient, samples: int, limits: Budget) -> Verdict:
    """The solvers' verdict on an exact gradient: they find a batch first, then ask for another."""
    question = replace(setting.question, batch_size=samples)
    return decide(setting.network, question, gradient=gradient, settings=_settings(setting, limits))


def ask_about_tolerance(setting: Setting, gradient: Gradient, limits: Budget) -> Verdict:
    """The least radius 10^k times the question's tolerance, k = 0 to 6, within which all batches lie whose
    gradient is within the tolerance of ``gradient``: around the batch that the solvers find first.

    UNIQUE then means: unique up to that radius, which reason and witness name. AMBIGUOUS: not even at the
    largest.
    """
    question, verdict = setting.question, None
    tolerance = question.tolerance
    assert tolerance is not None
    for power in range(7):
        verdict = decide(
            setting.network,
            question,
            gradient=gradient,
            radius=tolerance * 10**power,
            settings=_settings(setting, limits),
        )
        if verdict.outcome is Outcome.UNIQUE:
            return _with_radius(verdict, tolerance * 10**power)
        if verdict.outcome is not Outcome.AMBIGUOUS:
            return verdict
    assert verdict is not None
    return verdict


def _with_radius(verdict: Verdict, radius: Fraction) -> Verdict:
    """The radius in the witness, per sample, rounded upwards."""
    above = (math.nextafter(float(radius), math.inf),) * verdict.batch_size
    return replace(verdict, witness=replace(verdict.witness or Witness(), radius=above))


def _settings(setting: Setting, limits: Budget) -> Settings:
    """As the caller of ``certify`` set it, within ``limits``."""
    if limits.work_left is not None:
        work: int | None = max(1, limits.work_left)
    else:
        work = None if setting.engine == "smt" or limits.seconds is not None else UNASKED_WORK
    deadline = None if limits.seconds is None else limits.end
    unasked = limits.work_left is None and work is not None
    return Settings(seed=setting.seed, jobs=setting.jobs, deadline=deadline, work_limit=work, unasked=unasked)
