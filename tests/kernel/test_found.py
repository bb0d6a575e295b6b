"""Certificates that name the batch of a gradient, rational or not (docs/theory.md 6.5, CB14)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import AlgebraicBatch, AlgebraicRoot
from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus, Trust, Verdict
from exan_verify.decide.context import Setting
from exan_verify.decide.gradient.found import Near, record_of
from exan_verify.decide.pipeline import _of_found
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.kernel.algebraic import samples_of
from tests.support.certificate_cases import assert_refused, assert_rejected, change, plain
from tests.support.smt_cases import irrational, irrational_certificate

Part = dict[str, Any]


def test_an_irrational_batch_is_shown_to_be_alone() -> None:
    network, given = irrational()
    claim = check(irrational_certificate(), network, gradient=given)
    assert (claim.outcome, claim.samples) == (Outcome.UNIQUE, (SampleStatus.DETERMINED,) * 2)


R, OTHER = [["1", [1]]], [["6", [0]], ["-1", [1]]]
FOUND, CUBES, QUESTION = ("found",), ("evidence", 0), ("claim", "question")

FORGED: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "another polynomial": ((*FOUND, "roots", 0, "polynomial"), [6, -6, 1], "another gradient"),
    "no root there": ((*FOUND, "roots", 0, "low"), "9/2", "not shown to exist"),
    "one sample twice": ((*FOUND, "inputs"), [[R], [R]], "another gradient"),
    "another label": ((*FOUND, "labels", 0), [[], [["1", [0]]], []], "another gradient"),
    "a label that is none": ((*FOUND, "labels", 0), [[["2", [0]]], [], []], "not admitted"),
    "an irrational label": ((*FOUND, "labels", 0), [R, [], []], "not rational"),
    "fewer samples": ((*FOUND, "inputs"), [[R]], "another size"),
    "another size": ((*QUESTION, "batch_size"), 3, "another size"),
    "the mean": ((*QUESTION, "reduction"), "mean", "another gradient"),
    "a domain": ((*QUESTION, "domain"), [["0"], ["4"]], "outside the domain"),
    "another loss": ((*QUESTION, "loss"), "bce", "mse and hinge"),
    "real labels": ((*QUESTION, "labels"), "real", "too many"),
    "rebuilt as well": (("rebuild",), {"layer": 1, "columns": [0], "matrix": [["1"]]}, "one piece"),
    "no batch": (("found",), None, "not a certificate"),
    "no evidence": (("evidence",), [], "one piece"),
    "evidence twice": (("evidence",), lambda parts: parts * 2, "one piece"),
    "fewer features": ((*CUBES, "spanned"), True, "rational batches alone"),
    "a cube left out": ((*CUBES, "cubes"), lambda trees: trees[1:], "."),
    "a sum that is told": ((*CUBES, "cubes", -1), [["told", 0]], "irrational samples|ends before"),
    "ambiguous": (("claim", "outcome"), "ambiguous", "the evidence shows unique"),
    "free": (("claim", "samples"), ["free", "determined"], "the evidence shows"),
}


@pytest.mark.parametrize("how", FORGED)
def test_forged_certificates_of_irrational_batches_are_rejected(how: str) -> None:
    network, given = irrational()
    path, value, match = FORGED[how]
    assert_rejected(change(irrational_certificate(), path, value), network, match, gradient=given)


def test_other_evidence_is_none_about_an_irrational_batch() -> None:
    network, given = irrational()
    made = irrational_certificate()
    second = {key: made["found"][key] for key in ("roots", "inputs", "labels")} | {"type": "algebraic_batch"}
    assert_rejected(made | {"evidence": [second]}, network, "no evidence about irrational", gradient=given)


def test_every_node_of_the_trees_is_needed() -> None:
    network, given = irrational()
    made = irrational_certificate()
    trees = made["evidence"][0]["cubes"]
    places = [(i, k) for i, tree in enumerate(trees) for k in range(len(tree))]
    for n in np.random.default_rng(3).permutation(len(places))[:6]:
        i, k = places[n]
        forged = change(made, (*CUBES, "cubes", i), lambda tree, k=k: [*tree[:k], *tree[k + 1 :]])
        assert_rejected(forged, network, gradient=given)


def test_a_gradient_s_certificate_is_none_for_the_batch() -> None:
    network, _ = irrational()
    batch = [[3], [2]], [[1, 0, 0]] * 2
    assert_rejected(irrational_certificate(), network, "made for a gradient", batch=batch)


def told(network: ReluNetwork, batch: Batch, outcome: Outcome, **question: Any) -> tuple[Verdict, Gradient]:
    """What becomes of a solver's word about the batch of a gradient that it found."""
    asked = Question(loss=Loss.MSE, batch_size=batch.size, **question)
    given = exact_gradient(network, batch, asked.loss, asked.reduction)
    statuses = (SampleStatus.UNKNOWN,) * batch.size
    word = Verdict(
        outcome=outcome,
        samples=statuses,
        reason="",
        batch_size=batch.size,
        batch=batch,
        trust=Trust.SOLVER_TRUSTED,
    )
    return _of_found(Setting(network=network, question=asked), given, word, Budget()), given


def mse_batch(network: ReluNetwork, x: Any, y: Any) -> Batch:
    return Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)


@pytest.mark.parametrize("reduction", list(Reduction))
def test_a_rational_batch_that_lifting_does_not_rebuild_is_certified(reduction: Reduction) -> None:
    """x = 2 and 4 with equal labels in one region: sums and sums of squares tell both."""
    network, _ = irrational()
    batch = mse_batch(network, [[2], [4]], [[1, 0, 0]] * 2)
    verdict, given = told(network, batch, Outcome.UNIQUE, reduction=reduction)
    assert (verdict.outcome, verdict.trust) == (Outcome.UNIQUE, Trust.CERTIFIED)
    certificate = plain(verdict.certificate)
    assert certificate["rebuild"] is None
    assert certificate["found"]["roots"] == []
    assert check(certificate, network, gradient=given).outcome is Outcome.UNIQUE
    other = change(certificate, ("found", "inputs", 0), [[["3", []]]])
    assert_rejected(other, network, "another gradient", gradient=given)
    both = change(certificate, ("rebuild",), {"layer": 1, "columns": [0], "matrix": [["1"]]})
    assert_rejected(both, network, "found, or rebuilt", gradient=given)


def test_a_second_batch_of_a_gradient_s_batch_is_certified() -> None:
    """A dead sample of label 0 may be anywhere where it is dead."""
    network = ReluNetwork.from_arrays([[[1]], [[1]]])
    batch = mse_batch(network, [[1], [-1]], [[0], [0]])
    verdict, given = told(network, batch, Outcome.AMBIGUOUS)
    assert (verdict.outcome, verdict.trust) == (Outcome.AMBIGUOUS, Trust.CERTIFIED)
    assert check(plain(verdict.certificate), network, gradient=given).outcome is Outcome.AMBIGUOUS


def test_what_the_kernel_does_not_find_stays_the_solvers_word() -> None:
    network, given = irrational()
    batch = mse_batch(network, [[2], [4]], [[1, 0, 0]] * 2)
    setting = Setting(network=network, question=Question(loss=Loss.MSE, batch_size=2))
    word = Verdict(
        outcome=Outcome.UNIQUE, samples=(SampleStatus.DETERMINED,) * 2, reason="", batch_size=2, batch=batch
    )
    assert record_of(setting, given, word) is None
    assert _of_found(setting, given, word, Budget()) is word
    assert record_of(setting, given, replace(word, batch=None)) is None


ONE: Any = (("1", ()),)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": ((((("1/2", ()),)),),)}, "no integer"),
        ({"labels": ((((("3", ()),)),),)}, "not admitted"),
        ({"inputs": ((((("1" * 2001, ()),)),),)}, "too long"),
        ({"roots": (AlgebraicRoot(polynomial=(1 << 4096, 0, -1), low="0", high="1"),)}, "too long"),
        ({"roots": (AlgebraicRoot(polynomial=(-1, 1), low="0", high="2"),)}, "too large"),
        ({"roots": (AlgebraicRoot(polynomial=(-2, 0, 1), low="1", high="2"),) * 7}, "too large"),
    ],
)
def test_numbers_and_labels_are_bounded(changes: dict[str, Any], match: str) -> None:
    network = ReluNetwork.from_arrays([[[1]], [[1], [0]]], [[0], [0, 0]])
    record = AlgebraicBatch(**{"roots": (), "inputs": ((ONE,),), "labels": (((),),), **changes})
    question = Question(loss=Loss.HINGE, batch_size=1)
    assert_refused(match, samples_of, record, network, question)
    samples = samples_of(AlgebraicBatch(roots=(), inputs=((ONE,),), labels=(((),),)), network, question)
    assert [[len(v) for v in row] for row in samples.targets] == [[1, 0]]


def test_nothing_is_said_beside_a_boundary() -> None:
    """sqrt 2 to 2^-256 cannot be told from a weight's root; a neuron there may be on or off."""
    root = AlgebraicRoot(polynomial=(-2, 0, 1), low="1", high="2")
    record = AlgebraicBatch(roots=(root,), inputs=(((("1", (1,)),),),), labels=(((("1", (0,)),),),))
    low = Fraction(6369051672525773, 4503599627370496)
    network = ReluNetwork.from_arrays([[[1]], [[1]]], [[0], [0]])
    setting = Setting(network=network, question=Question(loss=Loss.MSE, batch_size=1))
    given = Gradient(tensors={n: np.ones_like(w) for n, w in network.parameters()})
    assert Near.of(setting, given, record) is not None
    assert abs(low * low - 2) < Fraction(1, 2**50)
    close = Fraction(round(low * 2**53), 2**53)
    for _ in range(4):
        close = (close + 2 / close) / 2
    beside = ReluNetwork.from_arrays([[[1]], [[1]]], [[-close], [0]])
    assert Near.of(replace(setting, network=beside), given, record) is None
    boxed = replace(setting, question=replace(setting.question, domain=Box(0, 1)))
    assert Near.of(boxed, given, record) is not None
