"""Shared by the tests of the SMT path: questions from the suite, and exact evaluation of constraints."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import fields
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import AlgebraicBatch, AlgebraicRoot, Claim, QuestionRecord, issue
from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus, Verdict
from exan_verify.decide.context import Setting
from exan_verify.decide.gradient.found import Near
from exan_verify.instances import Instance, instance
from exan_verify.smt.decide import decide as decide_smt
from exan_verify.smt.decide import pose as pose_smt
from exan_verify.smt.portfolio import Settings
from exan_verify.smt.question.difference import Known
from exan_verify.smt.question.encode import Encoding
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.terms import Atom, Formula, Literal
from exan_verify.smt.search import own_cube
from tests.support.cases import words


def named(name: str) -> Instance:
    family, loss, biases, index = name.split("/")
    return instance(family, Loss(loss), biases == "bias", int(index))


_OF_QUESTION = frozenset(f.name for f in fields(Question))


def _split(options: dict[str, Any]) -> tuple[Question, dict[str, Any]]:
    question = Question(**{k: v for k, v in options.items() if k in _OF_QUESTION})
    return question, {k: v for k, v in options.items() if k not in _OF_QUESTION}


def decide(
    network: ReluNetwork,
    *,
    batch: Batch | None = None,
    gradient: Gradient | None = None,
    radius: Fraction | None = None,
    budget: float | None = None,
    **options: Any,
) -> Verdict:
    """:func:`exan_verify.smt.decide.decide` with the fields of the question and of the settings by name."""
    question, rest = _split(options)
    settings = Settings(deadline=None if budget is None else time.monotonic() + budget, **rest)
    return decide_smt(network, question, batch=batch, gradient=gradient, radius=radius, settings=settings)


def pose(network: ReluNetwork, **options: Any) -> tuple[Posed, Known | None]:
    """:func:`exan_verify.smt.decide.pose` likewise."""
    question, rest = _split(options)
    return pose_smt(network, question, **rest)


def posed(case: Instance, **changes: Any) -> tuple[Posed, Known]:
    found, truth = pose(case.network, **{"batch": case.batch, **words(case), **changes})
    assert truth is not None
    return found, truth


def decided(case: Instance, **options: Any) -> Verdict:
    return decide(case.network, batch=case.batch, **words(case), **options)


def mse_case(
    weights: list[Any], biases: list[Any] | None, x: list[Any], y: list[Any], labels: str = "one_hot"
) -> tuple[ReluNetwork, Batch]:
    network = ReluNetwork.from_arrays(weights, biases)
    return network, Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels(labels))


def own_literals(asked: Posed, truth: Known) -> dict[str, bool]:
    from exan_verify.smt.cubes import all_literals

    return dict(zip(all_literals(asked), own_cube(truth), strict=True))


def holds(formula: Formula, reals: Mapping[str, Fraction], booleans: Mapping[str, bool]) -> bool:
    if isinstance(formula, Literal):
        return booleans[formula.name] == formula.positive
    if isinstance(formula, Atom):
        value = formula.poly.at(reals)
        return {"=": value == 0, "<": value < 0, "<=": value <= 0, "distinct": value != 0}[formula.relation]
    found = [holds(p, reals, booleans) for p in formula.parts]
    return all(found) if formula.kind == "and" else any(found)


def violated_comments(encoding: Encoding, reals: Mapping[str, Fraction]) -> list[str]:
    """Comments of the assertions of a cube's encoding that a rational point violates."""
    return [c for c, f in encoding.script.assertions if not holds(f, reals, {})]


SUM, MEAN = Reduction.SUM, Reduction.MEAN


def irrational() -> tuple[ReluNetwork, Gradient]:
    """1-2-3, x = 3 + sqrt 2 and 3 - sqrt 2 with equal labels in one region: the gradient depends on the sum
    6 and the sum of squares 22 of the inputs, and is integer.
    """
    network = ReluNetwork.from_arrays([[[1], [2]], [[1, 0], [0, 1], [1, 1]]], [[0, 1], [0, 0, 0]])
    moments = [Fraction(2), Fraction(6), Fraction(22)]
    rows = ((1, 0, 1), (2, 1, 0), (3, 1, 0))  # logit = slope x + offset, target
    first = [2 * (a * moments[1] + (c - y) * moments[0]) for a, c, y in rows]
    second = [2 * (a * moments[2] + (c - y) * moments[1]) for a, c, y in rows]
    back = ((0, 2), (1, 2))  # the logits that each hidden neuron feeds, with weight 1
    tensors: dict[str, Any] = {
        "0.weight": [[sum(second[k] for k in ks)] for ks in back],
        "0.bias": [sum(first[k] for k in ks) for ks in back],
        "2.weight": [[s, 2 * s + f] for f, s in zip(first, second, strict=True)],
        "2.bias": first,
    }
    return network, Gradient(tensors={k: np.array(v, dtype=object) for k, v in tensors.items()})


@lru_cache(maxsize=1)
def irrational_certificate() -> dict[str, Any]:
    """That no other batch has the gradient of :func:`irrational`: r = 3 + sqrt 2, and 6 - r."""
    network, gradient = irrational()
    question = Question(loss=Loss.MSE, reduction=SUM, batch_size=2)
    record = AlgebraicBatch(
        roots=(AlgebraicRoot(polynomial=(7, -6, 1), low="4", high="5"),),
        inputs=(((("1", (1,)),),), ((("6", (0,)), ("-1", (1,))),)),
        labels=(((("1", (0,)),), (), ()),) * 2,
    )
    near = Near.of(Setting(network=network, question=question), gradient, record)
    assert near is not None
    finding = near.unique(Budget())
    claim = Claim(
        question=QuestionRecord.of(question, "gradient", samples=2, features=1),
        outcome=Outcome.UNIQUE,
        samples=(SampleStatus.DETERMINED,) * 2,
    )
    made = issue(
        claim=claim,
        evidence=finding.evidence,
        model_sha256=network.digest,
        gradient_sha256=gradient.digest,
        found=record,
    )
    read: dict[str, Any] = json.loads(json.dumps(made))
    return read
