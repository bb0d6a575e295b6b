"""A statement of one's own: hypotheses and a conclusion as predicates over an exact network and batch.

    def separated(s):
        "every sample has an exclusive neuron in the last hidden layer"
        return all(count >= 1 for count in s.exans[-1])

    CLAIM = Claim("exans-suffice", hypotheses=[separated], conclusion=unique, loss="mse")

A predicate gets a :class:`~exan_verify.theorems.situation.Situation` and returns a bool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any

import numpy as np

from exan_verify.errors import ExanError, InputError, choice
from exan_verify.network import Labels, Loss, Reduction, ReluNetwork
from exan_verify.theorems.situation import Asked, Situation, Undecided
from exan_verify.verdict import Box, Outcome, SampleStatus

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
        ranges = {"inputs": self.inputs, "logits": self.logits, "samples": self.samples}
        ranges |= {f"hidden[{i}]": found for i, found in enumerate(self.hidden)}
        for name, (least, most) in ranges.items():
            if not 1 <= least <= most:
                raise ClaimError(f"Sizes.{name} is ({least}, {most}); give 1 <= least <= most")

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
    asked: Asked
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
        asked = Asked(
            loss=choice(Loss, loss, "loss", error=ClaimError),
            reduction=choice(Reduction, reduction, "reduction", error=ClaimError),
            labels=choice(Labels, labels, "labels", error=ClaimError),
            domain=domain,
        )
        sizes = sizes or Sizes()
        _check(name, hypotheses, conclusion, asked, sizes)
        fields = {"name": name, "hypotheses": tuple(hypotheses), "conclusion": conclusion, "asked": asked}
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


class Judged(StrEnum):
    """What a claim says of one situation."""

    OUTSIDE = "a hypothesis does not hold"
    HOLDS = "the conclusion holds"
    FAILS = "the conclusion does not hold"
    UNDECIDED = "not decided"


def judge(claim: Claim, situation: Situation) -> Judged:
    """Evaluate the hypotheses in order, then the conclusion.

    Raises :class:`ClaimError` when a predicate raises, or returns something that is no bool.
    """
    return Judged.OUTSIDE if not admitted(claim, situation) else concluded(claim, situation)


def admitted(claim: Claim, situation: Situation) -> bool:
    """Whether every hypothesis is known to hold."""
    try:
        return all(_ask(claim, hypothesis, situation) for hypothesis in claim.hypotheses)
    except Undecided:
        return False


def concluded(claim: Claim, situation: Situation) -> Judged:
    """Whether the conclusion holds."""
    try:
        return Judged.HOLDS if _ask(claim, claim.conclusion, situation) else Judged.FAILS
    except Undecided:
        return Judged.UNDECIDED


def _ask(claim: Claim, predicate: Predicate, situation: Situation) -> bool:
    with _UsersCode(f"claim {claim.name!r}: the predicate {words(predicate)!r}"):
        answer: Any = predicate(situation)
    if not isinstance(answer, (bool, np.bool_)):
        asked = f"claim {claim.name!r}: the predicate {words(predicate)!r}"
        raise ClaimError(f"{asked} returned {answer!r}; return True or False")
    return bool(answer)


class _UsersCode:
    """Turns whatever a user's code raises into one error that names it; signals of our own pass."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, (Undecided, ClaimError)):
            where = "" if isinstance(error, ExanError) else f"{type(error).__name__}: "
            raise ClaimError(f"{self.what} raised {where}{error}{_line(trace)}") from error


def _line(trace: TracebackType | None) -> str:
    """Where in the user's file it happened: the first frame below ours."""
    frame = trace.tb_next if trace is not None else None
    return "" if frame is None else f" (line {frame.tb_lineno} of {frame.tb_frame.f_code.co_filename})"


def _check(
    name: str, hypotheses: Sequence[Predicate], conclusion: Predicate, asked: Asked, sizes: Sizes
) -> None:
    if not name:
        raise ClaimError("a claim needs a name")
    for predicate in (*hypotheses, conclusion):
        if not callable(predicate):
            raise ClaimError(
                f"claim {name!r}: {predicate!r} is not a predicate; give a function of a situation"
            )
    if asked.labels is Labels.REAL and asked.loss is not Loss.MSE:
        raise ClaimError(f"claim {name!r}: labels='real' is for mse only, not {asked.loss.value!r}")
    if asked.loss in (Loss.CROSS_ENTROPY, Loss.HINGE) and sizes.logits[0] < 2:
        raise ClaimError(
            f"claim {name!r}: {asked.loss.value} needs at least two logits; set Sizes(logits=...)"
        )
    if asked.domain is not None:
        raise_domain(name, asked.domain, sizes)


def raise_domain(name: str, domain: Box, sizes: Sizes) -> None:
    """A box with one bound per feature fits one number of inputs only."""
    for features in range(sizes.inputs[0], sizes.inputs[1] + 1):
        try:
            domain.bounds(features)
        except InputError as error:
            raise ClaimError(f"claim {name!r}: {error}") from None
