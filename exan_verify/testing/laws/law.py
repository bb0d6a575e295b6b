"""What a law is: what it says, which questions it is tried on, and how one of them is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import Array, rationals
from exan_verify.core.certificate import domain_box, domain_record
from exan_verify.core.verdict import Outcome, SampleStatus, Verdict
from exan_verify.errors import FileError, InputError, unknown
from exan_verify.instances import Instance
from exan_verify.testing.strategies import STATES, questions

SCHEMA = "exan/campaign-case/1"

WORK = 2_000_000
"""Limit of the work of every question that a law asks, so that its answers are the same on every machine."""


class Disagreement(AssertionError):  # noqa: N818 - what was found, no mistake
    """A law does not hold of a case: something in exan_verify is wrong.

    Remedy: replay the case, and report it.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a law is tried on: a question, and what else was drawn (numbers and text)."""

    question: Instance
    params: Mapping[str, Any] = field(default_factory=dict)


Tally = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """``judge`` raises :class:`Disagreement`, or says what it saw: outcomes, each with a number of instances.

    ``cases`` gives the strategy of the cases that it is tried on.
    """

    name: str
    says: str
    cases: Callable[[], st.SearchStrategy[Case]]
    judge: Callable[[Case], Tally]


LAWS: dict[str, Law] = {}
"""All laws by name, filled by the modules beside this one."""


def law(
    name: str, says: str, cases: Callable[[], st.SearchStrategy[Case]]
) -> Callable[[Callable[[Case], Any]], Callable[[Case], Any]]:
    """Register a judge, which returns one outcome, an Outcome or text, or several with their numbers."""

    def register(judge: Callable[[Case], Any]) -> Callable[[Case], Any]:
        def tallied(case: Case) -> Tally:
            found = judge(case)
            if isinstance(found, Outcome):
                return {found.value: 1}
            return {found: 1} if isinstance(found, str) else dict(found)

        assert name not in LAWS
        LAWS[name] = Law(name=name, says=says, cases=cases, judge=tallied)
        return judge

    return register


def cases(drawn: st.SearchStrategy[Instance], **params: st.SearchStrategy[Any]) -> st.SearchStrategy[Case]:
    """Cases with a question of ``drawn``, and ``params`` drawn beside it."""
    return st.builds(Case, question=drawn, params=st.fixed_dictionaries(params))


SEEDS = st.integers(0, 2**32 - 1)

DRAWN: tuple[Mapping[str, Any], ...] = ({}, {"generic": True}, {"numbers": "rational"}, *STATES)
"""Of what :func:`mixed` draws: every state, in equal parts."""


def mixed(**options: Any) -> st.SearchStrategy[Instance]:
    """Questions in all states that go with ``options``."""
    drawn = []
    for state in DRAWN:
        try:
            drawn.append(questions(**{"samples": (1, 3), **_smaller(state), **options, **state}))
        except InputError:
            continue
    return st.one_of(drawn)


def _smaller(state: Mapping[str, Any]) -> dict[str, Any]:
    return {"samples": None} if "shared_region" in state else {}


# asking


def certified(question: Instance, **options: Any) -> Verdict:
    """The verdict of the exact engines within :data:`WORK`; ``options`` replace theirs."""
    from exan_verify.api.certify import certify

    return certify(question, **{"engine": "exact", "work_limit": WORK, **options})


def require(holds: bool, says: str) -> None:
    """Raise :class:`Disagreement` where ``holds`` is false."""
    if not holds:
        raise Disagreement(says)


def require_no_contradiction(one: Verdict, two: Verdict, what: str) -> None:
    """Two verdicts on equivalent questions, samples in the same order."""
    outcomes = {one.outcome, two.outcome} - {Outcome.UNKNOWN}
    require(len(outcomes) < 2, f"{what}: {one.outcome} ({one.reason}) and {two.outcome} ({two.reason})")
    opposite = {SampleStatus.DETERMINED, SampleStatus.FREE}
    for m, pair in enumerate(zip(one.samples, two.samples, strict=True)):
        require(set(pair) != opposite, f"{what}: sample {m} is determined and free")


# cases in files


def _stored(array: Array) -> dict[str, Any]:
    kind = "rational" if array.dtype == object else str(array.dtype)
    return {"numbers": kind, "values": rationals(array)}


def _read(record: Mapping[str, Any]) -> Array:
    def value(entry: Any) -> Any:
        return [value(e) for e in entry] if isinstance(entry, list) else Fraction(entry)

    kind = record["numbers"]
    exact = np.array(value(record["values"]), dtype=object)
    return exact if kind == "rational" else exact.astype(np.float64).astype(kind)


def to_record(name: str, case: Case, says: str = "") -> dict[str, Any]:
    """One case of the law ``name`` as JSON: everything that replaying it takes."""
    question = case.question
    twin = question.twin
    return {
        "schema": SCHEMA,
        "law": name,
        "says": says,
        "question": {
            "weights": [_stored(layer.weight) for layer in question.network.layers],
            "biases": [
                None if b is None else _stored(b) for b in (one.bias for one in question.network.layers)
            ],
            "x": _stored(question.batch.inputs),
            "y": _stored(question.batch.labels),
            "twin": None if twin is None else [_stored(twin.inputs), _stored(twin.labels)],
            "planted": question.planted,
            "loss": question.loss.value,
            "reduction": question.reduction.value,
            "labels": question.labels.value,
            "domain": domain_record(question.domain, question.network.widths[0]),
        },
        "params": dict(case.params),
        "python": repr(question),
    }


def from_record(record: Any) -> tuple[str, Case]:
    """The law's name and the case. Raises :class:`FileError` where ``record`` is none."""
    try:
        if record["schema"] != SCHEMA:
            raise FileError(unknown("schema", record["schema"], [SCHEMA]))
        held = record["question"]
        biases = [None if b is None else _read(b) for b in held["biases"]]
        question = Instance.of(
            [_read(w) for w in held["weights"]],
            None if all(b is None for b in biases) else biases,
            _read(held["x"]),
            _read(held["y"]),
            loss=held["loss"],
            reduction=held["reduction"],
            labels=held["labels"],
            domain=domain_box(held["domain"]),
            twin=None if held["twin"] is None else tuple(map(_read, held["twin"])),  # type: ignore[arg-type]
            planted=held["planted"],
        )
        return str(record["law"]), Case(question=question, params=dict(record["params"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"the case cannot be read ({type(error).__name__}: {error}); give a file that a campaign wrote"
        ) from None
