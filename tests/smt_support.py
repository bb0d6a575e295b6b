"""Shared by the tests of the SMT path: questions from the suite, and exact evaluation of constraints."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import Verdict
from exan_verify.instances import Instance, instance
from exan_verify.smt.decide import decide, pose
from exan_verify.smt.question.constraints import Question
from exan_verify.smt.question.difference import Known
from exan_verify.smt.question.encode import Encoding
from exan_verify.smt.question.terms import Atom, Formula, Literal
from exan_verify.smt.search import own_cube


def named(name: str) -> Instance:
    family, loss, biases, index = name.split("/")
    return instance(family, Loss(loss), biases == "bias", int(index))


def posed(case: Instance, **changes: Any) -> tuple[Question, Known]:
    arguments: dict[str, Any] = {
        "batch": case.batch,
        "gradient": None,
        "loss": case.loss,
        "reduction": case.reduction,
        "labels": case.labels,
        "domain": case.domain,
        "batch_size": None,
        "tolerance": None,
    }
    question, truth = pose(case.network, **{**arguments, **changes})
    assert truth is not None
    return question, truth


def decided(case: Instance, **options: Any) -> Verdict:
    return decide(
        case.network,
        batch=case.batch,
        loss=case.loss,
        reduction=case.reduction,
        labels=case.labels,
        domain=case.domain,
        **options,
    )


def mse_case(
    weights: list[Any], biases: list[Any] | None, x: list[Any], y: list[Any], labels: str = "one_hot"
) -> tuple[ReluNetwork, Batch]:
    network = ReluNetwork.from_arrays(weights, biases)
    return network, Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels(labels))


def own_literals(question: Question, truth: Known) -> dict[str, bool]:
    from exan_verify.smt.cubes import all_literals

    return dict(zip(all_literals(question), own_cube(truth), strict=True))


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
