"""Networks of convolutions below a fully connected head: pictures determined, or pictures that move
(docs/theory.md, CV1 and CV3).

The head is a network on features, and is asked as any other. Where it determines features and labels, the
stages are inverted one after the other, top down, each a linear system in the difference of two batches.
Where a stage sees too little, counting shows motions of the pictures that keep the gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import (
    Apart,
    Claim,
    DegreeThree,
    Lifting,
    QuestionRecord,
    StageMotions,
    Stages,
    issue,
)
from exan_verify.core.facts import NOTHING, Facts
from exan_verify.core.network import Batch
from exan_verify.core.question import Question
from exan_verify.core.staged import Convolution, Residual, StagedNetwork
from exan_verify.core.verdict import Attempt, Engine, Outcome, SampleStatus, Trust, Verdict, Witness
from exan_verify.decide.context import Context, Finding, Progress, Setting
from exan_verify.decide.families.unseen import short_of_rows
from exan_verify.errors import BudgetExhausted, InputError
from exan_verify.exact.elimination import PRIMES
from exan_verify.exact.modular import Residues, UnsuitablePrimeError
from exan_verify.exact.pictures import Places, StagesForward, deltas_mod, forward_stages, sees, taps
from exan_verify.exact.rational import Mask, product_mod
from exan_verify.exact.shared_weights import MOST_LEFT, systems

HEAD_ENGINES = ("lifting.degree_two", "lifting.apart", "lifting.degree_three")
"""Who is asked about the head, cheapest first: their evidence speaks of all features in R^n."""

_MOST_EDGES = 1 << 24
"""Pairs of an output and a pixel that it sees, of one sample: 64 MiB and the matching's own memory."""

WHOLE = "of networks with convolutions only the whole gradient of a batch is asked, with the batch's own size"
"""Why a release, a gradient alone, a tolerance or another batch size is not decided there."""


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A batch of pictures (M, C H W) under a question, with what several steps need, computed once."""

    network: StagedNetwork
    question: Question
    batch: Batch
    seed: int
    progress: Progress | None

    @cached_property
    def passed(self) -> StagesForward:
        """The exact pass through the stages."""
        return forward_stages(self.network, self.batch)

    @cached_property
    def head(self) -> Context:
        """The head under the same question about features, which may be anything in R^n."""
        features = self.passed.values[-1].T.fractions()
        features.setflags(write=False)
        setting = Setting(
            network=self.network.head,
            question=replace(self.question, domain=None, batch_size=None),
            seed=self.seed,
        )
        return Context(setting=setting, batch=Batch(inputs=features, labels=self.batch.labels))

    def deltas(self, prime: int) -> tuple[tuple[Residues, ...], ...]:
        """Of all stages mod a prime, each (outputs, M), as :func:`deltas_mod` has them. Raises
        UnsuitablePrimeError.
        """
        first = self.head.image_in(prime).delta(1)
        back = product_mod(self.network.head.layers[0].weight.T, first, prime)
        return deltas_mod(self.network, self.passed, back, prime)


def decide(
    network: StagedNetwork,
    question: Question,
    batch: Batch,
    *,
    limits: Budget,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verdict:
    """Which batches of pictures have the gradient of ``batch``.

    Raises :class:`InputError` where the batch lies outside the domain.
    """
    if question.domain is not None and not question.domain.contains(batch):
        raise InputError("the batch lies outside the domain it is asked about; widen the domain")
    not_taken = (
        network.head.mixed_biases
        or (WHOLE if question.release is not None or question.tolerance is not None else "")
        or (WHOLE if question.batch_size not in (None, batch.size) else "")
    )
    if not_taken:
        return _verdict(network, question, batch, Finding(reason=not_taken))
    subject = Staged(network=network, question=question, batch=batch, seed=seed, progress=progress)
    tell = progress or (lambda _what, _share: None)
    with limits.kept():
        try:
            tell("motions of the pictures", 0.0)
            found = _moving(subject)
            if found is None:
                found = _determined(subject, limits, tell)
        except (BudgetExhausted, UnsuitablePrimeError, MemoryError) as error:
            found = Finding(reason=f"{error}; give more, or a smaller batch")
    return _verdict(network, question, batch, found)


def _moving(subject: Staged) -> Finding | None:
    """CV3: the stage with the largest surplus of coordinates over equations, where there is one."""
    start = time.monotonic()
    network, batch, passed = subject.network, subject.batch, subject.passed
    inside = np.ones(batch.inputs.T.shape, dtype=bool)
    if (domain := subject.question.domain) is not None:
        lo, hi = domain.bounds(batch.inputs.shape[1])
        inside = ((batch.inputs > lo) & (batch.inputs < hi)).T
    zeros, shared, moving = np.zeros(batch.size, dtype=int), 0, inside
    found: StageMotions | None = None
    alone: frozenset[int] = frozenset()
    for k, stage in enumerate(network.convolutions):  # above them nothing changes, pooled or not
        seen = sees(stage, moving)
        moving = seen & passed.patterns[k]
        zeros = zeros + (seen & passed.zeros[k]).sum(axis=0)
        shared += stage.numbers
        everything: tuple[tuple[int, ...], ...] = ()
        ways = [(everything, inside.sum(axis=0) - moving.sum(axis=0) - zeros)]
        kept = moving | passed.zeros[0] if k == 0 else moving
        # a matching takes a third of a second to load: not where it cannot leave enough
        if k == 0 and _surplus_at_most(stage, inside, kept) > shared:
            ways.append(_held(stage, inside, kept))
        for pixels, surplus in ways:
            dimension = int(np.maximum(surplus, 0).sum()) - shared
            if dimension > (0 if found is None else found.dimension):
                found = StageMotions(stage=k + 1, dimension=dimension, moving=pixels)
                alone = frozenset(int(m) for m in np.flatnonzero(surplus > shared))
    if found is None:
        return None
    equal = [
        m for m in alone if any(_same(batch, m, other) for other in range(batch.size) if other not in alone)
    ]
    still = "with other pixels held still, " if found.moving else ""
    reason = (
        f"{still}the pictures have more coordinates{' inside the domain' if domain is not None else ''} than "
        f"the active outputs of convolution {network.convolutions[found.stage - 1].name!r} that see them and "
        f"the weights up to it: a family of dimension {found.dimension} at least keeps the gradient"
    )
    return Finding(
        attempts=(Attempt(engine=Engine.FAMILIES, note=reason, seconds=time.monotonic() - start),),
        facts=Facts(ambiguous=True, free=alone - set(equal)),
        evidence=(found,),
        witness=Witness(dimension=found.dimension),
        reason=reason,
    )


def _surplus_at_most(stage: Convolution, inside: Mask, kept: Mask) -> float:
    """How many more pixels than outputs that see them there are at most, over all samples and choices of
    pixels: what is left when every output takes an equal share of each pixel ``inside`` that it sees. A
    fractional matching has no larger value than the largest matching.
    """
    (channels, height, width), groups = stage.input_shape, stage.groups
    samples, places = inside.shape[1], taps(stage)
    free = inside.reshape(groups, channels // groups, height * width, samples)
    free = np.concatenate([free, np.zeros_like(free[:, :, :1])], axis=2)
    outputs = kept.reshape(groups, -1, places.shape[1], samples).sum(axis=1)  # (groups, positions, M)
    seen = free[:, :, places].sum(axis=(1, 2))
    share = (outputs / np.maximum(seen, 1))[:, None]
    load = np.zeros(free.shape)
    for at in places:  # a tap takes a pixel at one position
        load[:, :, at] += share
    return float(np.maximum(1 - load, 0)[free].sum())


def _held(stage: Convolution, inside: Mask, kept: Mask) -> tuple[tuple[tuple[int, ...], ...], Places]:
    """Of each sample the pixels ``inside`` (C H W, M) that outnumber by the most the outputs ``kept``
    (C_out H' W', M) that see them, and by how many: the others may be held still.
    """
    from scipy.sparse import csr_matrix  # slow to load: only where it is asked

    (channels, height, width), groups = stage.input_shape, stage.groups
    places, out = taps(stage), len(stage.weight) // groups
    found, surplus = [], np.zeros(inside.shape[1], dtype=int)
    for m in range(inside.shape[1]):
        outputs = np.flatnonzero(kept[:, m])
        if len(outputs) * len(places) * (channels // groups) > _MOST_EDGES:
            return (), surplus
        channel, position = np.divmod(outputs, places.shape[1])
        first = channel // out * (channels // groups)  # of the channels that the output's group takes
        taken = places[:, position].T[:, :, None]  # (outputs, taps, 1)
        columns = (first[:, None, None] + np.arange(channels // groups)) * height * width + taken
        rows = np.broadcast_to(np.arange(len(outputs))[:, None, None], columns.shape)
        real = np.broadcast_to(taken < height * width, columns.shape)
        real = real & inside[np.where(real, columns, 0), m]
        entries = csr_matrix(
            (np.ones(int(real.sum()), dtype=np.int32), (rows[real], columns[real])),
            shape=(len(outputs), channels * height * width),
        )
        pixels = [place for place in short_of_rows(entries) if inside[place, m]]
        found.append(tuple(pixels))
        seen = np.zeros((channels * height * width, 1), dtype=bool)
        seen[pixels] = True
        surplus[m] = len(pixels) - int((sees(stage, seen)[:, 0] & kept[:, m]).sum())
    return tuple(found), surplus


def _same(batch: Batch, one: int, other: int) -> bool:
    return batch.x[one] == batch.x[other] and batch.y[one] == batch.y[other]


def _determined(subject: Staged, limits: Budget, tell: Callable[[str, float], None]) -> Finding:
    """CV1: features and labels by the head, then one stage after the other, top down."""
    head, attempts, why = _features(subject, limits, tell)
    if not head:
        said = "; ".join(filter(None, (why, *(f"head: {attempt.note}" for attempt in attempts[:1]))))
        return Finding(attempts=attempts, reason=f"the features are not determined, so no picture is: {said}")
    known = Facts(features=frozenset(range(subject.batch.size)))
    if subject.network.pooled:
        return Finding(
            attempts=attempts,
            facts=known,
            evidence=(Stages(head=head, unknowns=()),),
            reason="the features and the label of every sample are in every batch with this gradient "
            f"({why}); pooling hides which entries they come from, so the pictures are not decided",
        )
    stages = subject.network.unpooled
    names = [
        f"{'convolution' if isinstance(stage, Convolution) else 'sum'} {stage.name!r}" for stage in stages
    ]
    for k in range(len(names) - 1, -1, -1):
        tell(names[k], 0.5 + 0.5 * (len(names) - 1 - k) / len(names))
        start = time.monotonic()
        full, left = _full(subject, k, limits)
        note = f"{names[k]}: {left} unknowns after the weight gradient's equations, " + (
            "all determined by the active outputs" if full else "not all shown to be determined"
        )
        if isinstance(stages[k], Residual):
            note = f"{names[k]}: " + (
                "what the last convolution of one branch takes is determined by its weight gradient alone"
                if full
                else f"the weight gradient of neither branch's last convolution is shown to determine what "
                f"it takes, or {left} unknowns stay open below; the sum's own values mix the branches"
            )
        if limits.exhausted:
            note = limits.exhausted
        attempts += (Attempt(engine=Engine.LIFTING, note=note, seconds=time.monotonic() - start),)
        if not full:
            beyond = f", more than the {MOST_LEFT} that are tried" if left > MOST_LEFT else ""
            return Finding(
                attempts=attempts,
                facts=known,
                evidence=(Stages(head=head, unknowns=()),),
                reason=f"the features and the label of every sample are in every batch with this gradient "
                f"({why}), but the pictures are not decided: {note}{beyond}",
            )
    return Finding(
        attempts=attempts,
        facts=Facts(determined=frozenset(range(subject.batch.size))),
        evidence=(
            Stages(
                head=head,
                unknowns=tuple(subject.batch.size * int(np.prod(stage.input_shape)) for stage in stages),
            ),
        ),
        reason=f"features and labels: {why}; pictures: the active outputs and the weight gradients of "
        f"{', '.join(reversed(names))} leave one picture for each",
    )


def _features(
    subject: Staged, limits: Budget, tell: Callable[[str, float], None]
) -> tuple[tuple[Lifting | DegreeThree | Apart, ...], tuple[Attempt, ...], str]:
    """The head's evidence that every sample's features and label are determined, or none; and the word."""
    facts, context = NOTHING, subject.head
    attempts: tuple[Attempt, ...] = ()
    evidence: list[Any] = []
    reasons: list[str] = []
    if not subject.network.head.has_bias:
        return (), (), "the head has no biases, so every sample keeps a scale"
    if subject.network.head.depth == 1:
        return (), (), "the head is a single Linear layer, which mixes the samples"
    if not context.batch.distinct:
        return (), (), "two samples have equal features and labels"
    for k, name in enumerate(HEAD_ENGINES):
        tell(f"head: {name}", 0.5 * k / len(HEAD_ENGINES))
        turn = 0.5 * k / len(HEAD_ENGINES), 0.5 * (k + 1) / len(HEAD_ENGINES)
        module = import_module(f"exan_verify.decide.{name}")
        finding: Finding = module.decide(context.after(facts, turn), limits)
        attempts = (*attempts, *finding.attempts)
        if finding.facts.determined - facts.determined:
            evidence += finding.evidence
            reasons.append(f"in the head, {finding.reason}")
            facts |= finding.facts
        if len(facts.determined) == context.samples:
            return tuple(evidence), attempts, "; ".join(reasons)
        if limits.exhausted:
            break
    return (), attempts, ""


Equations = tuple[Convolution, Mask, Residues]
"""Of a convolution: which outputs (C_out H' W', M) are active and known to be equal, and its deltas."""


def _full(subject: Staged, k: int, limits: Budget) -> tuple[bool, int]:
    """Whether stage k's systems (from 0) have full column rank mod one of the primes, and what they left."""
    least = 0
    for prime in PRIMES:
        try:
            delta = subject.deltas(prime)[k]
        except UnsuitablePrimeError:
            continue
        lefts = []
        for way in _ways(subject, k, delta):
            full, left = _way_full(way, prime, limits)
            lefts.append(left)
            if full or limits.exhausted:
                return full, left
        least = min(lefts)
        if least > MOST_LEFT:
            break
    return False, least


def _ways(subject: Staged, k: int, delta: tuple[Residues, ...]) -> list[tuple[Equations, ...]]:
    """What shows that the values below stage k are equal where those above are: one system after another.

    Of a sum of branches the active outputs mix two unknowns, and the weight gradient alone speaks of one of
    them: of what the shortcut's convolution takes, which is the values below; or of what the last inner
    convolution takes, from which the inner branch is followed down as any other convolutions.
    """
    stage, pattern = subject.network.unpooled[k], subject.passed.patterns[k]
    if isinstance(stage, Convolution):
        return [((stage, pattern, delta[0]),)]
    nothing = np.zeros_like(pattern)
    known = (*subject.passed.inner[k], nothing)
    inner = tuple(zip(stage.inner, known, delta, strict=False))
    found = [inner[::-1]]
    if stage.shortcut is not None:
        found.insert(0, ((stage.shortcut, nothing, delta[-1]),))
    return found


def _way_full(way: tuple[Equations, ...], prime: int, limits: Budget) -> tuple[bool, int]:
    left = 0
    for stage, active, delta in way:
        # of weights that a pool is part of the gradient is not known
        known = delta if stage.trained is None else np.zeros_like(delta)
        parts = systems(stage, active, known, prime)
        left = sum(system.left for system in parts)
        for system in parts:
            limits.spend(system.left**2 * max(system.left, 1))
        if limits.exhausted or not all(system.full() for system in parts):
            return False, left
    return True, left


def _verdict(network: StagedNetwork, question: Question, batch: Batch, found: Finding) -> Verdict:
    samples = batch.size
    size = question.batch_size or samples
    outcome = found.facts.outcome(samples, distinct=len(found.facts.determined) == samples and batch.distinct)
    statuses = found.facts.statuses(samples) if size == samples else ()
    certificate = None
    if found.evidence:
        record = QuestionRecord.of(question, "batch", samples=samples, features=network.widths[0])
        certificate = issue(
            claim=Claim(question=record, outcome=outcome, samples=statuses),
            evidence=found.evidence,
            model_sha256=network.digest,
            batch_sha256=batch.digest,
        )
    engine = Engine.FAMILIES if outcome is Outcome.AMBIGUOUS else Engine.LIFTING
    return Verdict(
        outcome=outcome,
        samples=statuses or (SampleStatus.UNKNOWN,) * samples if size == samples else (),
        reason=found.reason or "",
        batch_size=size,
        engine=engine if found.evidence else None,
        trust=Trust.CERTIFIED if found.evidence else None,
        witness=found.witness,
        certificate=certificate,
        attempts=found.attempts,
        architecture=network.architecture,
        notes=network.notes,
        release=question.release,
    )
