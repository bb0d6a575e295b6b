"""Irrational second batches as evidence: algebraic and enclosed ones, and what a forger would change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome, Trust, Verdict
from exan_verify.decide.solvers.relations import in_field
from exan_verify.exact.algebraic import Element, Field, Root, UndecidedSignError
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.instances import Instance
from exan_verify.kernel.algebraic import gradient_entries, rational_samples, value_of
from exan_verify.kernel.second.enclosed_batch import check_known_labels
from exan_verify.kernel.second.enclosure import Enclosure
from tests.conftest import examples
from tests.support import counterexamples
from tests.support.cases import two_one_five_one, words
from tests.support.certificate_cases import assert_refused, assert_rejected, certify_as, change
from tests.support.contexts import subject
from tests.support.smt_cases import irrational, named

F = Fraction

ENCLOSED = [
    "plain/cross_entropy/nobias/3",
    "twin/cross_entropy/bias/0",
    "twin/bce/nobias/0",
    "shared/cross_entropy/bias/4",
]


def asked(case: Instance) -> Verdict:
    return certify(
        case.network,
        batch=case.batch,
        engine="smt",
        budget=30.0,
        **words(case),
    )


@pytest.mark.parametrize("name", ENCLOSED)
def test_an_enclosed_batch_is_certified(name: str) -> None:
    case = named(name)
    verdict = asked(case)
    assert verdict.outcome is Outcome.AMBIGUOUS
    assert verdict.trust is Trust.CERTIFIED
    assert verdict.certificate is not None
    assert [part["type"] for part in verdict.certificate["evidence"]] == ["enclosed_batch"]
    assert check(verdict.certificate, case.network, batch=case.batch).outcome is Outcome.AMBIGUOUS


def root_of_seventeen() -> tuple[ReluNetwork, Batch]:
    """f = x, y = 0: also x' = (1 + sqrt 17) / 2 with y' = 1, by x' (x' - 1) = 4."""
    network = ReluNetwork.from_arrays([[[1]], [[1]]])
    return network, Batch.of([[2]], [[0]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)


def algebraic() -> tuple[ReluNetwork, Batch, Any]:
    network, batch = root_of_seventeen()
    verdict = certify(network, batch=batch, loss="mse", engine="smt", budget=30.0)
    assert verdict.trust is Trust.CERTIFIED
    assert verdict.certificate is not None
    return network, batch, verdict.certificate


def test_an_algebraic_batch_is_certified() -> None:
    network, batch, certificate = algebraic()
    (part,) = certificate["evidence"]
    assert part["type"] == "algebraic_batch"
    assert [tuple(root["polynomial"]) for root in part["roots"]] == [(-4, -1, 1)]
    claim = check(certificate, network, batch=batch)
    assert claim.outcome is Outcome.AMBIGUOUS
    assert [s.value for s in claim.samples] == ["free"]


Forgery = Callable[[dict[str, Any]], None]


def _set(key: str, value: Any) -> Forgery:
    def forge(part: dict[str, Any]) -> None:
        part[key] = value

    return forge


def _moved(part: dict[str, Any]) -> None:
    rows = [list(row) for row in part["inputs"]]
    rows[0][0] = str(F(rows[0][0]) + F(1, 1000))
    part["inputs"] = rows


def _onto_the_given(case: Instance) -> Forgery:
    def forge(part: dict[str, Any]) -> None:
        part["inputs"] = [[str(v) for v in row] for row in case.batch.x]

    return forge


FORGED_BOXES: dict[str, Forgery] = {
    "centre moved": _moved,
    "no coordinate varies": _set("free", []),
    "coordinate out of range": _set("free", [[0, 7]]),
    "coordinate twice": _set("free", [[0, 0], [0, 0]]),
    "radius zero": _set("radius", "0"),
    "radius negative": _set("radius", "-1/1024"),
    "radius huge": _set("radius", "100"),
    "radius no number": _set("radius", "wide"),
    "label missing": _set("labels", []),
    "label out of range": _set("labels", [["9"]]),
    "label a fraction": _set("labels", [["1/2"]]),
    "sample missing": _set("inputs", []),
    "feature missing": _set("inputs", [[]]),
    "the given batch itself": _onto_the_given(named(ENCLOSED[0])),
}


@pytest.mark.parametrize("how", FORGED_BOXES)
def test_forged_boxes_are_rejected(how: str) -> None:
    case = named(ENCLOSED[0])
    certificate = copy.deepcopy(asked(case).certificate)
    assert certificate is not None
    FORGED_BOXES[how](certificate["evidence"][0])
    assert_rejected(certificate, case.network, batch=case.batch)


def _root(**changes: Any) -> Forgery:
    def forge(part: dict[str, Any]) -> None:
        part["roots"] = [{**part["roots"][0], **changes}]

    return forge


FORGED_NUMBERS: dict[str, Forgery] = {
    "other polynomial": _root(polynomial=(-5, -1, 1)),
    "rational polynomial": _root(polynomial=(-2, 1)),
    "other root, negative": _root(low="-2", high="-1"),
    "no root in the interval": _root(low="3", high="4"),
    "interval upside down": _root(low="3", high="2"),
    "degree zero": _root(polynomial=(0, 0, 0)),
    "other number": _set("inputs", [[[["2", [1]]]]]),
    "power out of range": _set("inputs", [[[["1", [99]]]]]),
    "power missing": _set("inputs", [[[["1", []]]]]),
    "no input": _set("inputs", [[]]),
    "irrational label": _set("labels", [[[["1", [1]]]]]),
    "inadmissible label": _set("labels", [[[["3", [0]]]]]),
    "the given label": _set("labels", [[[]]]),
    "the given batch itself": lambda part: part.update(inputs=[[[["2", [0]]]]], labels=[[[]]]),
    "no label": _set("labels", []),
}


@pytest.mark.parametrize("how", FORGED_NUMBERS)
def test_forged_numbers_are_rejected(how: str) -> None:
    network, batch, certificate = algebraic()
    forged = copy.deepcopy(certificate)
    FORGED_NUMBERS[how](forged["evidence"][0])
    assert_rejected(forged, network, batch=batch)


@pytest.mark.parametrize("bound", [F(5, 2), F(1)])
def test_the_domain_is_checked(bound: Fraction) -> None:
    """(1 + sqrt 17) / 2 = 2.56 lies outside a box that ends at 5/2."""
    network, batch, certificate = algebraic()
    forged = change(certificate, ("claim", "question", "domain"), [["0"], [str(bound)]])
    assert_rejected(forged, network, "domain", batch=batch)


def test_known_labels_are_checked() -> None:
    network, batch, certificate = algebraic()
    forged = change(certificate, ("claim", "question", "labels"), "known")
    assert_rejected(forged, network, "known", batch=batch)
    boxed = certify(network, batch=batch, loss="mse", engine="smt", domain=Box(0, F(5, 2)), budget=30.0)
    assert boxed.outcome is Outcome.UNIQUE


def root(polynomial: tuple[int, ...], low: int, high: int) -> Root:
    return Root(polynomial, F(low), F(high))


@given(
    a=st.fractions(min_value=-9, max_value=9, max_denominator=8),
    b=st.fractions(min_value=-9, max_value=9, max_denominator=8),
    c=st.fractions(min_value=-9, max_value=9, max_denominator=8),
    d=st.fractions(min_value=-9, max_value=9, max_denominator=8),
)
@examples(60)
def test_arithmetic_with_square_roots(a: Fraction, b: Fraction, c: Fraction, d: Fraction) -> None:
    """(a + b r)(c + d s) with r = sqrt 2, s = sqrt 3 against floating point; r s r s = 6."""
    field = Field((root((-2, 0, 1), 1, 2), root((-3, 0, 1), 1, 2)))
    left = field.plus(field.constant(a), {(1, 0): b} if b else {})
    right = field.plus(field.constant(c), {(0, 1): d} if d else {})
    value = float(a + b * F(2**0.5)) * float(c + d * F(3**0.5))
    product = field.times(left, right)
    if abs(value) > 1e-9:
        assert field.sign(product) == (1 if value > 0 else -1)
    both: Element = {(1, 1): F(1)}
    assert field.times(both, both) == field.constant(F(6))
    assert field.plus(product, field.times(right, left), F(-1)) == {}


def test_numbers_that_cannot_be_told_apart_have_no_sign() -> None:
    """x^2 - 3x + 2 has the root 1, and t - 1 does not reduce: it is refused, not called zero or positive."""
    field = Field((Root((2, -3, 1), F(0), F(3, 2)),))
    with pytest.raises(UndecidedSignError):
        field.sign({(1,): F(1), (0,): F(-1)})


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.HINGE])
@pytest.mark.parametrize("seed", range(20))
def test_gradients_of_rational_batches_agree(loss: Loss, seed: int) -> None:
    """Halves put margins of the hinge loss on either side of one, and at one."""
    rng = np.random.default_rng(seed)
    network = ReluNetwork.from_arrays(
        [rng.integers(-3, 4, (b, a)) / 2 for a, b in ((2, 4), (4, 3), (3, 3))],
        [rng.integers(-3, 4, b) / 2 for b in (4, 3, 3)],
    )
    classes = rng.integers(0, 3, 3)
    batch = Batch.of(rng.integers(-4, 5, (3, 2)), classes, network=network, loss=loss, labels=Labels.ONE_HOT)
    field = Field(())
    entries = [value_of(e) for e in gradient_entries(network, loss, rational_samples(field, batch, 3))]
    tensors = exact_gradient(network, batch, loss, Reduction.SUM).tensors
    expected: list[Fraction] = []
    for layer in network.layers:
        weight, bias = (tensors[name] for name, _ in layer.parameters())
        for row, b in zip(weight, bias, strict=True):
            expected += [*row, b]
    assert entries == expected


def test_mse_batches_are_enclosed_too() -> None:
    """x' (x' - 1) = 4 again, this time by a box around 2.5615528."""
    network, batch = root_of_seventeen()

    def enclosure(centre: Fraction, radius: Fraction) -> Enclosure:
        return Enclosure(
            network=network,
            loss=Loss.MSE,
            given=batch,
            centre=Batch.of([[centre]], [[1]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT),
            radius=radius,
            free=((0, 0),),
        )

    near = F(25615528128088302749, 10**19)
    assert enclosure(near, F(1, 2**40)).proved()
    assert not enclosure(near + F(1, 100), F(1, 2**40)).proved()
    assert not enclosure(near, F(3)).proved()  # the region ends at 0
    assert not enclosure(near, F(1, 2**90)).proved()  # the root is not that near
    assert not enclosure(near + F(2, 2**40), F(1, 2**40)).proved()  # nor two radii away
    assert enclosure(near, F(2)).keeps_regions()
    assert not enclosure(near, F(3)).keeps_regions()
    assert not replace(enclosure(near, F(1, 2**40)), free=()).proved()


def test_a_box_around_the_given_batch_shows_nothing() -> None:
    case = named(ENCLOSED[0])
    forged = copy.deepcopy(asked(case).certificate)
    assert forged is not None
    _onto_the_given(case)(forged["evidence"][0])
    forged["claim"]["samples"] = ["unknown"]
    assert_rejected(forged, case.network, "itself", batch=case.batch)


def test_domain_and_labels_of_a_box_are_checked() -> None:
    case = named(ENCLOSED[0])  # x = 1.5, and again at 3.95
    forged = copy.deepcopy(asked(case).certificate)
    assert forged is not None
    forged["claim"]["question"]["domain"] = [["0"], ["3"]]
    assert_rejected(forged, case.network, "domain", batch=case.batch)
    case = named("plain/bce/nobias/0")  # known labels (0, 1), (0, 0), (0, 0)
    other = np.array([[0, 1], [0, 1], [0, 0]])
    posed = subject(case.network, case.batch, case.loss, Labels.KNOWN, reduction=case.reduction)
    assert_refused("known", check_known_labels, posed, other)
    check_known_labels(posed, np.array([[0, 0], [0, 1], [0, 0]]))


def test_known_examples_from_batch_and_gradient_alone() -> None:
    """Exact verdicts: 2-1-5-1, parallel f_2 - f_1, the antisymmetric head."""
    network, batch, _ = two_one_five_one(0)
    assert outcome(network, batch) == (Outcome.AMBIGUOUS, Trust.CERTIFIED)
    for case in (counterexamples.parallel_logits(), counterexamples.antisymmetric_head()):
        assert outcome(case.network, case.batch) == (Outcome.AMBIGUOUS, Trust.CERTIFIED)


def outcome(network: ReluNetwork, batch: Batch) -> tuple[Outcome, Trust | None]:
    verdict = certify(network, batch=batch, loss="mse", budget=60.0)
    return verdict.outcome, verdict.trust


def test_an_irrational_batch_from_its_integer_gradient_alone() -> None:
    network, gradient = irrational()
    verdict = certify_as(
        Outcome.UNIQUE,
        network,
        gradient=gradient,
        loss="mse",
        reduction="sum",
        batch_size=2,
        exact=True,
        budget=60.0,
    )
    assert verdict.trust is Trust.CERTIFIED
    assert verdict.certificate is not None
    assert check(verdict.certificate, network, gradient=gradient).outcome is Outcome.UNIQUE
    assert verdict.witness is not None
    (found,) = verdict.witness.generators
    assert {tuple(r["polynomial"]) for r in found["roots"].values()} == {(7, -6, 1)}


def test_conjugate_roots_are_written_in_one_field() -> None:
    """(27 + 3 sqrt 145) / 288 and (4 - 4 sqrt 145) / 384 have different polynomials and one field."""
    first, other = root((-1, -27, 144), 0, 1), root((-3, -4, 192), -1, 0)
    found = in_field(first, other)
    assert found is not None
    assert set(found) <= {(0,), (1,)}
    assert in_field(first, root((-2, 0, 1), 1, 2)) is None
    case = named("shared/mse/bias/1")
    verdict = asked(case)
    assert (verdict.outcome, verdict.trust) == (Outcome.AMBIGUOUS, Trust.CERTIFIED)
    assert verdict.certificate is not None
    assert check(verdict.certificate, case.network, batch=case.batch).outcome is Outcome.AMBIGUOUS


def test_a_box_across_a_region_s_border_shows_nothing() -> None:
    """x' (x' - y') = 4 at x' = 2^-10 for a real y': the equation has its root there, but the box reaches
    below 0.
    """
    network = ReluNetwork.from_arrays([[[1]], [[1]]])
    x = F(1, 1024)
    made = [
        Batch.of([[a]], [[b]], network=network, loss=Loss.MSE, labels=Labels.REAL)
        for a, b in ((F(2), F(0)), (x, x - 4 / x))
    ]
    for radius, expected in ((x / 2, True), (2 * x, False)):
        box = Enclosure(
            network=network, loss=Loss.MSE, given=made[0], centre=made[1], radius=radius, free=((0, 0),)
        )
        assert box.proved() is expected


def test_a_box_for_mse_is_checked_like_any_other() -> None:
    network, batch, certificate = algebraic()
    changed = copy.deepcopy(certificate)
    changed["evidence"] = [
        {
            "type": "enclosed_batch",
            "inputs": [["25615528128088302749/10000000000000000000"]],
            "free": [[0, 0]],
            "radius": "1/1099511627776",
            "labels": [["1"]],
        }
    ]
    assert check(changed, network, batch=batch).outcome is Outcome.AMBIGUOUS
    changed["claim"]["question"]["labels"] = "known"
    assert_rejected(changed, network, "known", batch=batch)
