"""Engines and solvers agree, and what a verdict shows is there."""

from __future__ import annotations

from hypothesis import strategies as st

from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch, Network
from exan_verify.core.question import Question
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import SoundnessError
from exan_verify.exact.backprop import gradient, gradient_ball
from exan_verify.instances import Instance
from exan_verify.testing.laws.law import (
    SEEDS,
    WORK,
    Case,
    Disagreement,
    cases,
    certified,
    law,
    mixed,
    require,
    require_no_contradiction,
)
from exan_verify.testing.strategies import questions

ENGINES = ("lifting", "scale", "families", "residual", "enumeration")


@law("engines", "Each exact engine asked alone: no two contradict one another", lambda: cases(mixed()))
def engines_agree(case: Case) -> Outcome:
    """Facts of all engines are joined; a contradiction is a Disagreement."""
    verdicts = [certified(case.question, engine=name) for name in ENGINES]
    facts = Facts()
    for verdict in verdicts:
        of = {s: frozenset(m for m, t in enumerate(verdict.samples) if t is s) for s in SampleStatus}
        try:
            facts |= Facts(
                determined=of[SampleStatus.DETERMINED],
                free=of[SampleStatus.FREE],
                unique=verdict.outcome is Outcome.UNIQUE,
                ambiguous=verdict.outcome is Outcome.AMBIGUOUS,
            )
        except SoundnessError as error:
            raise Disagreement(f"{verdict.engine}: {error}") from None
    return facts.outcome(case.question.batch.size, distinct=case.question.batch.distinct)


_TINY = st.one_of(
    questions(samples=(1, 2), widths=(1, 2, 2)),
    questions(samples=(1, 2), widths=(2, 3, 2)),
    questions(samples=(1, 2), widths=(2, 2, 2, 2)),
    questions(samples=(1, 2), widths=(2, 3, 1), labels="one_hot", loss="mse"),
    questions(samples=2, twins=True, widths=(3, 3, 2)),
    questions(samples=(1, 2), outcome="unique", widths=(2, 5, 3)),
)


@law(
    "solvers",
    "SMT solvers, which know none of the exact arguments, do not contradict the exact engines",
    lambda: cases(_TINY),
)
def solvers_agree(case: Case) -> Outcome:
    """The solvers within a work limit; they may give up."""
    theirs = certified(case.question, engine="smt", work_limit=100_000)
    require_no_contradiction(certified(case.question), theirs, "exact engines and solvers")
    return theirs.outcome


@law(
    "order-of-engines",
    "The exact engines together say what the pipeline with less work says, or more",
    lambda: cases(mixed(), work=st.sampled_from([10**3, 10**5, 10**6])),
)
def more_work_never_contradicts(case: Case) -> Outcome:
    """Less work may leave more open; it never turns a decision round."""
    less = certified(case.question, work_limit=case.params["work"])
    require_no_contradiction(less, certified(case.question), f"work {case.params['work']} and {WORK}")
    return less.outcome


def same_gradient(question: Instance, other: Batch) -> bool:
    """Whether a batch has the gradient of the question's batch, as :func:`same_gradient_of` tells."""
    return same_gradient_of(question.network, question.question, question.batch, other)


def same_gradient_of(network: Network, asked: Question, own: Batch, other: Batch) -> bool:
    """Exactly for rational losses; for the others every entry's balls of 300 bits meet."""
    loss = asked.loss
    if loss.rational:
        first, second = (gradient(network, b, loss, asked.reduction) for b in (own, other))
        return first == second
    one, two = (gradient_ball(network, b, loss, asked.reduction, 300) for b in (own, other))
    return all(
        a.overlaps(b) for name in one for a, b in zip(one[name].entries(), two[name].entries(), strict=True)
    )


def samples_of(batch: Batch) -> list[tuple[object, object]]:
    """(x_m, y_m) in an order of their own, so that lists of equal batches are equal."""
    return sorted(zip(batch.x, batch.y, strict=True), key=str)


@law(
    "witnesses",
    "The second batch of AMBIGUOUS is another one with the same gradient, and has every determined sample",
    lambda: cases(mixed()),
)
def witnesses_are_second_batches(case: Case) -> str:
    """Of verdicts with a rational witness."""
    question = case.question
    verdict = certified(question)
    other = None if verdict.witness is None else verdict.witness.batch
    if other is None:
        return f"{verdict.outcome.value}, no batch shown"
    other = Batch.of(
        other.inputs, other.labels, network=question.network, loss=question.loss, labels=question.labels
    )
    ours, theirs = samples_of(question.batch), samples_of(other)
    require(ours != theirs, "the witness is the batch itself")
    require(same_gradient(question, other), "the witness has another gradient")
    if question.domain is not None:
        require(question.domain.contains(other), "the witness lies outside the domain")
    for m, status in enumerate(verdict.samples):
        if status is SampleStatus.DETERMINED:
            own = question.batch.x[m], question.batch.y[m]
            require(own in theirs, f"sample {m} is determined and missing in the witness")
    return f"{verdict.outcome.value}, a batch shown"


@law(
    "same-seed",
    "The same question with another seed: no contradiction, and with the same seed the same verdict",
    lambda: cases(mixed(), seed=SEEDS),
)
def seeds_never_contradict(case: Case) -> Outcome:
    """Seeds choose primes' points and orders of search, nothing else."""
    one, again = certified(case.question), certified(case.question)
    require((one.outcome, one.samples) == (again.outcome, again.samples), "the same seed, another verdict")
    require_no_contradiction(one, certified(case.question, seed=case.params["seed"]), "two seeds")
    return one.outcome
