"""A statement of one's own: hypotheses and a conclusion as predicates over an exact network and batch.

    def separated(s):
        "every sample has an exclusive neuron in the last hidden layer"
        return all(count >= 1 for count in s.exans[-1])

    CLAIM = Claim("exans-suffice", hypotheses=[separated], conclusion=unique, loss="mse")

A predicate gets a :class:`~exan_verify.theorems.claims.situation.Situation` and returns a bool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from inspect import signature
from typing import Any

import numpy as np

from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Question
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import BudgetExhausted, InputError, UsersCode
from exan_verify.exact.modular import UnsuitablePrimeError
from exan_verify.theorems.claims.situation import Situation, Undecided

Predicate = Callable[[Situation], bool]
Range = tuple[int, int]


class ClaimError(InputError):
    """A user's statement cannot be loaded, or one of its predicates fails.

    Remedy: correct the named file or predicate; the original error is the cause.
    """


def unique(situation: Situation) -> bool:
    """no other batch of this size has this gradient"""
    return situation.outcome() is Outcome.UNIQUE


def ambiguous(situation: Situation) -> bool:
    """another batch of this size has this gradient"""
    return situation.outcome() is Outcome.AMBIGUOUS


def all_determined(situation: Situation) -> bool:
    """every sample is in every batch with this gradient"""
    return all(situation.status(m) is SampleStatus.DETERMINED for m in range(situation.samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Where a claim is searched: least and most inputs, neurons per hidden layer, logits, samples.

    ``hidden`` has one range for each hidden layer. ``biases``: with, without, or (None) both.
    """

    inputs: Range = (1, 2)
    hidden: tuple[Range, ...] = ((1, 4),)
    logits: Range = (1, 2)
    samples: Range = (1, 3)
    biases: bool | None = True

    def __post_init__(self) -> None:
        if not isinstance(self.hidden, (list, tuple)) or any(isinstance(v, int) for v in self.hidden):
            example = "hidden=((1, 4),) for one hidden layer of 1 to 4 neurons"
            raise ClaimError(f"Sizes.hidden is {self.hidden!r}; give one range per hidden layer: {example}")
        ranges = {"inputs": self.inputs, "logits": self.logits, "samples": self.samples}
        ranges |= {f"hidden[{i}]": found for i, found in enumerate(self.hidden)}
        for name, found in ranges.items():
            _check_range(name, found)
        if self.biases is not None and not isinstance(self.biases, bool):
            raise ClaimError(f"Sizes.biases is {self.biases!r}; give True, False, or None for both")

    @property
    def depth(self) -> int:
        """L."""
        return len(self.hidden) + 1

    def admit(self, network: ReluNetwork, samples: int) -> bool:
        """Whether a network and a batch size lie in the ranges."""
        ranges = (self.inputs, *self.hidden, self.logits)
        return (
            len(network.widths) == len(ranges)
            and all(a <= width <= b for width, (a, b) in zip(network.widths, ranges, strict=True))
            and self.samples[0] <= samples <= self.samples[1]
            and self.biases in (None, network.has_bias)
        )


@dataclass(frozen=True, slots=True, init=False)
class Claim:
    """For all networks and batches of the sizes: the hypotheses imply the conclusion.

    ``networks``: the claim is about these networks only. Options of the question as ``certify``'s.

    Raises :class:`ClaimError` naming the argument that cannot be used.
    """

    name: str
    hypotheses: tuple[Predicate, ...]
    conclusion: Predicate
    question: Question
    sizes: Sizes
    networks: tuple[ReluNetwork, ...]

    def __init__(
        self,
        name: str,
        *,
        hypotheses: Sequence[Predicate],
        conclusion: Predicate,
        loss: str = "mse",
        reduction: str = "mean",
        labels: str = "one_hot",
        domain: Box | None = None,
        sizes: Sizes | None = None,
        networks: Sequence[ReluNetwork] = (),
    ) -> None:
        _check_types(name, hypotheses, conclusion, domain, sizes, networks)
        try:
            question = Question.of(loss, reduction, labels, domain=domain)
        except InputError as error:
            raise ClaimError(str(error)) from None
        sizes = Sizes() if sizes is None else sizes
        _check_question(name, question, sizes, networks)
        fields = {
            "name": name,
            "hypotheses": tuple(hypotheses),
            "conclusion": conclusion,
            "question": question,
        }
        for key, value in {**fields, "sizes": sizes, "networks": tuple(networks)}.items():
            object.__setattr__(self, key, value)

    @property
    def text(self) -> str:
        """The claim in words, from its predicates' docstrings."""
        premises = "; ".join(words(hypothesis) for hypothesis in self.hypotheses) or "always"
        return f"if {premises}, then {words(self.conclusion)}"


def words(predicate: Predicate) -> str:
    """The first line of a predicate's docstring, else its name."""
    lines = (predicate.__doc__ or "").strip().splitlines()
    named = getattr(predicate, "__name__", type(predicate).__name__)
    return lines[0].rstrip(".") if lines else "(a lambda)" if named == "<lambda>" else named.replace("_", " ")


class Judgement(StrEnum):
    """What a claim says of one situation."""

    OUTSIDE = "a hypothesis does not hold"
    HOLDS = "the conclusion holds"
    FAILS = "the conclusion does not hold"
    UNDECIDED = "not decided"


def judge(claim: Claim, situation: Situation) -> Judgement:
    """Evaluate the hypotheses in order, then the conclusion.

    Raises :class:`ClaimError` when a predicate raises, or returns something that is no bool.
    """
    return Judgement.OUTSIDE if not admitted(claim, situation) else concluded(claim, situation)


def admitted(claim: Claim, situation: Situation) -> bool:
    """Whether every hypothesis is known to hold."""
    return held(claim, situation) == len(claim.hypotheses)


def held(claim: Claim, situation: Situation) -> int:
    """So many hypotheses are known to hold before the first that does not; later ones may rest on it."""
    count = 0
    for hypothesis in claim.hypotheses:
        try:
            if not _ask(claim, hypothesis, situation):
                break
        except (Undecided, UnsuitablePrimeError):
            break
        count += 1
    return count


def concluded(claim: Claim, situation: Situation) -> Judgement:
    """Whether the conclusion holds."""
    try:
        return Judgement.HOLDS if _ask(claim, claim.conclusion, situation) else Judgement.FAILS
    except (Undecided, UnsuitablePrimeError):
        return Judgement.UNDECIDED


def _ask(claim: Claim, predicate: Predicate, situation: Situation) -> bool:
    what = f"claim {claim.name!r}: the predicate {words(predicate)!r}"
    passing = (Undecided, UnsuitablePrimeError, ClaimError, BudgetExhausted)
    with UsersCode(f"{what} raised", passing=passing, error=ClaimError):
        answer: Any = predicate(situation)
    if not isinstance(answer, (bool, np.bool_)):
        raise ClaimError(f"{what} returned {answer!r}; return True or False")
    return bool(answer)


def _check_range(name: str, found: Any) -> None:
    whole = isinstance(found, (list, tuple)) and all(type(v) is int for v in found)
    if not whole or len(found) != 2:
        example = (found, found) if type(found) is int else (1, 2)
        raise ClaimError(f"Sizes.{name} is {found!r}; give two integers (least, most), like {example}")
    least, most = found
    if not 1 <= least <= most:
        raise ClaimError(f"Sizes.{name} is ({least}, {most}); give 1 <= least <= most")


def _check_types(name: Any, hypotheses: Any, conclusion: Any, domain: Any, sizes: Any, networks: Any) -> None:
    """Every argument but the options of the question, which have names of their own."""
    if not isinstance(name, str) or not name:
        raise ClaimError(f"a claim needs a name, and {name!r} is none; give a text like 'hidden-is-safe'")
    if not isinstance(hypotheses, (list, tuple)):
        given = f"the predicate {words(hypotheses)!r}" if callable(hypotheses) else repr(hypotheses)
        remedy = "give a list of predicates, [] for none"
        raise ClaimError(f"claim {name!r}: hypotheses is {given}; {remedy}")
    for predicate in (*hypotheses, conclusion):
        _check_predicate(name, predicate)
    if domain is not None and not isinstance(domain, Box):
        raise ClaimError(f"claim {name!r}: domain is {domain!r}; give exan_verify.Box(lo, hi), or None")
    if sizes is not None and not isinstance(sizes, Sizes):
        raise ClaimError(f"claim {name!r}: sizes is {sizes!r}; give Sizes(inputs=(1, 2), ...), or None")
    if not isinstance(networks, (list, tuple)):
        raise ClaimError(f"claim {name!r}: networks is {networks!r}; give a list of ReluNetworks")
    for k, network in enumerate(networks):
        if not isinstance(network, ReluNetwork):
            remedy = "give exan_verify.ReluNetwork.from_arrays(weights, biases)"
            raise ClaimError(f"claim {name!r}: networks[{k}] is {network!r}; {remedy}")


def _check_predicate(name: str, predicate: Any) -> None:
    if not callable(predicate):
        raise ClaimError(f"claim {name!r}: {predicate!r} is not a predicate; give a function of a situation")
    try:
        arguments = signature(predicate)
    except (TypeError, ValueError):  # some built-in functions do not tell
        return
    try:
        arguments.bind(None)
    except TypeError:
        what = f"the predicate {words(predicate)!r} is a function of {arguments}"
        raise ClaimError(f"claim {name!r}: {what}; it gets one argument, the situation") from None


def _check_question(name: str, question: Question, sizes: Sizes, networks: Sequence[ReluNetwork]) -> None:
    if question.labels is Labels.REAL and question.loss is not Loss.MSE:
        raise ClaimError(f"claim {name!r}: labels='real' is for mse only, not {question.loss.value!r}")
    logits = min((network.classes for network in networks), default=sizes.logits[0])
    if question.loss.class_labels and logits < 2:
        remedy = "give other networks" if networks else "set Sizes(logits=...)"
        raise ClaimError(f"claim {name!r}: {question.loss.value} needs at least two logits; {remedy}")
    if question.domain is not None:
        inputs = {network.widths[0] for network in networks}
        _check_domain(name, question.domain, inputs or range(sizes.inputs[0], sizes.inputs[1] + 1))


def _check_domain(name: str, domain: Box, inputs: Iterable[int]) -> None:
    """A box with one bound per feature fits one number of inputs only."""
    for features in inputs:
        try:
            domain.bounds(features)
        except InputError as error:
            raise ClaimError(f"claim {name!r}: {error}") from None
