"""Covers of the inputs (docs/theory.md R8): what they decide, what the kernel encloses, and forgeries."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import flint
import msgspec
import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.decide.residual import inputs as engine
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import gradient_ball
from exan_verify.kernel.given import Subject
from exan_verify.kernel.residual import inputs as kernel
from exan_verify.kernel.residual.parts import Part
from tests.support.cases import batch_of
from tests.support.certificate_cases import assert_refused, assert_rejected, plain
from tests.support.residual_cases import context

SMOOTH = (Loss.CROSS_ENTROPY, Loss.BCE, Loss.MSE)


def drawn(rng, widths, samples, loss, *, biases=True):
    weights = [rng.integers(-8, 9, (b, a)) / 4 for a, b in pairwise(widths)]
    network = ReluNetwork.from_arrays(
        weights, [rng.integers(-8, 9, b) / 4 for b in widths[1:]] if biases else None
    )
    x = rng.integers(-24, 25, (samples, widths[0])) / 8
    classes = rng.integers(0, widths[-1], samples)
    return network, (x, classes if loss is Loss.CROSS_ENTROPY else np.eye(widths[-1])[classes])


def covered(network, batch, loss, **options):
    return engine.decide(context(network, batch, loss=loss, **options), Budget())


@lru_cache(maxsize=1)
def issued():
    """A certificate with unbounded, dropped, mean value and known leaves."""
    rng = np.random.default_rng(11)
    for _ in range(200):
        network, batch = drawn(rng, [1, 4, 2], 2, Loss.BCE)
        finding = covered(network, batch, Loss.BCE)
        if finding.evidence and {"x", "m", "k", "0", "1"} <= set("".join(finding.evidence[0].trees)):
            verdict = certify(network, batch=batch, loss="bce", engine="residual")
            if verdict.certificate and verdict.certificate["evidence"][0]["type"] == "input_cover":
                return network, batch, plain(verdict.certificate)
    raise AssertionError("no cover was drawn")


@pytest.mark.parametrize("loss", SMOOTH)
@pytest.mark.parametrize("biases", [True, False])
def test_one_input_needs_no_rank(loss, biases):
    """Of one feature [X 1] has rank two: three samples are beyond every argument of 3.1."""
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(4):
        network, batch = drawn(rng, [1, 4, 2 if biases else 3], 3 if biases else 2, loss, biases=biases)
        domain = Box(-4, 4) if rng.random() < 0.5 else None
        verdict = certify(
            network, batch=batch, loss=loss.value, domain=domain, engine="residual", work_limit=8_000_000
        )
        if verdict.certificate is not None:
            assert check(json.dumps(verdict.certificate), network, batch=batch).outcome is verdict.outcome
            found += "input_cover" in {part["type"] for part in verdict.certificate["evidence"]}
    assert found >= 1


def test_a_batch_with_a_second_one_is_never_covered():
    """Twins: without biases and with two classes a sample with a positive margin has another scale."""
    rng = np.random.default_rng(2)
    seen = 0
    while seen < 8:
        network, batch = drawn(rng, [1, 3, 2], 1, Loss.CROSS_ENTROPY, biases=False)
        if certify(network, batch=batch, engine="scale").outcome is Outcome.AMBIGUOUS:
            seen += 1
            assert not covered(network, batch, Loss.CROSS_ENTROPY).facts.unique


def test_hinge_real_labels_and_many_coordinates_are_left_alone():
    rng = np.random.default_rng(1)
    for widths, samples, loss, labels in (
        ([1, 3, 2], 2, Loss.HINGE, Labels.ONE_HOT),
        ([1, 3, 2], 2, Loss.MSE, Labels.REAL),
        ([3, 3, 2], 2, Loss.MSE, Labels.ONE_HOT),
    ):
        network, (x, y) = drawn(rng, widths, samples, loss)
        y = y.argmax(axis=1) if loss is Loss.HINGE else y
        assert covered(network, (x, y), loss, labels=labels).attempts == ()


def test_both_cut_alike():
    for low, high in ((None, None), (0.5, None), (-3.0, None), (None, 2.0), (None, -7.5), (-4.0, 4.0)):
        exact = kernel._cut(*(None if v is None else Fraction(v) for v in (low, high)))
        floats = engine._cut(-math.inf if low is None else low, math.inf if high is None else high)
        assert float(exact) == floats


# what the kernel encloses


def system_of(rng, widths, samples, loss, *, biases):
    network, (x, y) = drawn(rng, widths, samples, loss, biases=biases)
    batch = batch_of(network, x, y, loss)
    asked = Question(loss=loss, reduction=Reduction.SUM, labels=Labels.ONE_HOT, batch_size=samples)
    subject = Subject(model=network, batch=batch, question=asked)
    part = Part(subject=subject, members=tuple(range(samples)))
    regions = kernel._Regions(subject=subject)
    right = kernel._right_sides(part, regions)
    return kernel._System(part=part, regions=regions, labels=part.labels, right=right)


def entries_of(system, x):
    """What a sample with sample 0's label adds to every entry, as balls."""
    subject = system.part.subject
    labels = subject.batch.labels[:1]
    batch = batch_of(subject.network, [x], labels, subject.question.loss, subject.question.labels)
    found = gradient_ball(subject.network, batch, subject.question.loss, Reduction.SUM, 200)
    out = []
    for index in range(subject.network.depth):
        weight = found[f"{2 * index}.weight"].tolist()
        bias = [row[0] for row in found[f"{2 * index}.bias"].tolist()] if subject.network.has_bias else None
        for j, row in enumerate(weight):
            out += [*row, *([] if bias is None else [bias[j]])]
    return out


def box_and_points(rng, features):
    """A box of one sample, bounded or not, and points in it, some of them far out."""
    sides, points = [], []
    for _ in range(features):
        low = rng.integers(-80, 81) / 8
        high = low + rng.choice([0, 1, 8, 40]) / 8
        kind = rng.integers(4)
        far = float(rng.choice([0.0, 0.25, 3.0, 40.0, 1000.0]))
        sides.append(
            (
                None if kind in (1, 3) else Fraction(float(low)),
                None if kind in (2, 3) else Fraction(float(high)),
            )
        )
        inner = low + (high - low) * rng.integers(0, 5, 6) / 4
        points.append(inner + far * {0: 0, 1: -1, 2: 1, 3: rng.choice([-1, 1])}[int(kind)])
    return tuple(sides), np.array(points).T


@pytest.mark.parametrize("loss", SMOOTH)
def test_shares_hold_every_sample_of_a_box(loss):
    rng = np.random.default_rng(7)
    finite = within = 0
    for _ in range(45):
        features = int(rng.choice([1, 1, 2]))
        widths = [features, 3, 2] if rng.random() < 0.5 else [features, 2, 2, 2]
        with flint.ctx.workprec(kernel.PRECISION):
            system = system_of(rng, widths, 1, loss, biases=bool(rng.integers(2)))
            sides, points = box_and_points(rng, features)
            share = system._share(system.labels[0], sides)
            within += system.regions.around(sides) is not None
            for x in points:
                for (low, high), value in zip(share, entries_of(system, x), strict=True):
                    assert low is None or not value < low
                    assert high is None or not value > high
            unbounded = any(None in side for side in sides)
            finite += unbounded and all(None not in ends for ends in share)
    assert within > 10
    assert loss is Loss.MSE or finite > 2  # unbounded boxes over which everything fades


@pytest.mark.parametrize("slope", [Fraction(1, 16), Fraction(1, 3), Fraction(1), Fraction(5)])
@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
def test_what_fades_grows_first(loss, slope):
    """h times a loss vector that falls like e^(-s h) is largest near h = 1 / s, not at the end of the box."""
    classes = 2 if loss is Loss.CROSS_ENTROPY else 1
    outgoing = [[slope], [0]][:classes]
    network = ReluNetwork.from_arrays([[[1]], outgoing], [[0], [0] * classes])
    label = [0] if loss is Loss.CROSS_ENTROPY else [[1]]
    batch = batch_of(network, [[1]], label, loss)
    asked = Question(loss=loss, reduction=Reduction.SUM, labels=Labels.ONE_HOT, batch_size=1)
    subject = Subject(model=network, batch=batch, question=asked)
    part, regions = Part(subject=subject, members=(0,)), kernel._Regions(subject=subject)
    with flint.ctx.workprec(kernel.PRECISION):
        right = kernel._right_sides(part, regions)
        system = kernel._System(part=part, regions=regions, labels=part.labels, right=right)
        for low in (Fraction(1, 64), 1 / slope / 2, 2 / slope):
            share = system._share(system.labels[0], ((low, None),))
            assert all(None not in ends for ends in share)
            for k in range(1, 60):
                x = low + Fraction(k, 10) / slope
                for (least, most), value in zip(share, entries_of(system, [x]), strict=True):
                    assert least <= value <= most


def test_boxes_are_dropped_where_no_order_is_right_alone():
    """Samples of one label: no a in the first box is at most any b in the second."""
    rng = np.random.default_rng(3)
    system = system_of(rng, [1, 3, 2], 2, Loss.BCE, biases=True)
    same = replace(system, labels=[system.labels[0]] * 2)
    other = replace(system, labels=[(0, 1), (1, 0)])
    seen = set()
    for _ in range(300):
        ends = [Fraction(int(v), 2) for v in rng.integers(-6, 7, 4)]
        first, second = ((min(pair), max(pair)) for pair in (ends[:2], ends[2:]))
        expected = first[0] > second[1]
        seen.add(expected)
        assert same.misordered((first, second)) is expected
        assert not other.misordered((first, second))
        assert not same.misordered(((None, first[1]), second))
        assert not same.misordered((first, (second[0], None)))
    assert seen == {True, False}


@pytest.mark.parametrize("loss", SMOOTH)
def test_slopes_hold_every_quotient(loss):
    """A difference quotient along an axis is a derivative somewhere between its points."""
    rng = np.random.default_rng(9)
    tried = 0
    while tried < 12:
        features = int(rng.integers(1, 3))
        with flint.ctx.workprec(kernel.PRECISION):
            system = system_of(rng, [features, 3, 2], 1, loss, biases=True)
            sides = tuple(
                (Fraction(int(a), 8), Fraction(int(a) + 3, 8)) for a in rng.integers(-24, 22, features)
            )
            slopes = system._slopes(sides)
            if slopes is None:
                continue
            tried += 1
            for k in range(features):
                ends = [[lo, lo] if i != k else [lo, hi] for i, (lo, hi) in enumerate(sides)]
                one, two = (entries_of(system, [side[e] for side in ends]) for e in (0, 1))
                width = flint.arb(3) / 8
                for row, a, b in zip(slopes, one, two, strict=True):
                    quotient = (b - a) / width
                    assert not quotient < row[k][0]
                    assert not quotient > row[k][1]


def test_the_gradient_is_not_injective_where_two_samples_may_meet():
    """Around equal inputs with equal labels the samples may change places."""
    network = ReluNetwork.from_arrays([[[1], [2]], [[1, -1], [0.5, 2]]], [[1, 1], [0, 0.25]])
    batch = batch_of(network, [[1], [2]], [[1, 0]] * 2, Loss.BCE)
    asked = Question(loss=Loss.BCE, reduction=Reduction.SUM, labels=Labels.ONE_HOT, batch_size=2)
    subject = Subject(model=network, batch=batch, question=asked)
    part, regions = Part(subject=subject, members=(0, 1)), kernel._Regions(subject=subject)
    with flint.ctx.workprec(kernel.PRECISION):
        right = kernel._right_sides(part, regions)
        system = kernel._System(part=part, regions=regions, labels=part.labels, right=right)
        wide, near, far = ((Fraction(a, 16), Fraction(b, 16)) for a, b in ((15, 33), (15, 17), (31, 33)))
        assert system._slopes((wide, wide)) is not None
        assert not system.injective((wide, wide))
        assert not system.injective((near, near))
        assert system.injective((near, far))


def test_products_of_intervals():
    def ends(low, high):
        return None if low is None else flint.arb(low), None if high is None else flint.arb(high)

    for left, right, expected in (
        ((-1, 2), (3, 4), (-4, 8)),
        ((0, 0), (None, None), (0, 0)),
        ((0, 2), (1, None), (0, None)),
        ((-2, 0), (1, None), (None, 0)),
        ((None, -1), (None, -3), (3, None)),
        ((-1, 1), (5, None), (None, None)),
    ):
        for one, two in ((left, right), (right, left)):
            low, high = kernel._times(ends(*one), ends(*two))
            assert (low, high) == ends(*expected) or (low is None, high is None) == (
                expected[0] is None,
                expected[1] is None,
            )
            assert all(e is None or v == e for v, e in zip((low, high), expected, strict=True))


# forgeries


def rejected(certificate, trees, match):
    network, batch, _ = issued()
    forged = certificate | {"evidence": [{"type": "input_cover", "trees": trees}]}
    assert_rejected(forged, network, match, batch=batch)


def test_trees_that_were_changed_are_rejected():
    _, _, certificate = issued()
    trees = certificate["evidence"][0]["trees"]
    which = max(range(len(trees)), key=lambda k: len(trees[k]))
    tree = trees[which]

    def changed(new):
        return [*trees[:which], new, *trees[which + 1 :]]

    rejected(certificate, trees[1:], "has no tree")
    rejected(certificate, changed(tree[:-1]), "ends before its last box")
    rejected(certificate, changed(tree + "x"), "goes on after its last box")
    rejected(certificate, changed("x"), "free of batches")
    rejected(certificate, changed("m"), "free of batches")
    rejected(certificate, changed("k"), "injective")
    rejected(certificate, changed("2xx"), "out of range")
    rejected(certificate, changed("7" + tree), "out of range")
    known = tree.index("k")
    for letter, match in (("x", "free of batches"), ("m", "free of batches")):
        rejected(certificate, changed(tree[:known] + letter + tree[known + 1 :]), match)
    rejected(certificate, ["0" * 30_000] * len(trees), "too large")


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
def test_an_injective_box_without_the_batch_shows_nothing(loss):
    """At most one batch lies in such a box, and it might be another one: it is no leaf of a known batch."""
    rng = np.random.default_rng(19)
    covers = 0
    for _ in range(60):
        network, (x, y) = drawn(rng, [1, 4, 2], 2, loss)
        finding = covered(network, (x, y), loss)
        if not finding.evidence:
            continue
        covers += 1
        evidence = finding.evidence[0]
        which = int(rng.integers(len(evidence.trees)))
        tree = evidence.trees[which]
        leaves = [k for k, letter in enumerate(tree) if letter in "xm"]
        batch = batch_of(network, x, y, loss)
        asked = Question(loss=loss, reduction=Reduction.MEAN, labels=Labels.ONE_HOT, batch_size=2)
        subject = Subject(model=network, batch=batch, question=asked)
        for k in rng.permutation(leaves)[:6]:
            forged = (*evidence.trees[:which], tree[:k] + "k" + tree[k + 1 :], *evidence.trees[which + 1 :])
            with pytest.raises(CertificateRejected, match="exactly one order of the batch"):
                kernel.facts(msgspec.structs.replace(evidence, trees=forged), subject)
        if covers == 4:
            return
    raise AssertionError("too few covers were drawn")


def test_covers_are_for_few_coordinates_and_smooth_losses():
    network, (x, y), certificate = issued()
    wide = (np.concatenate([x, x + 1, x + 2]), np.concatenate([y, y, y]))
    batch = Batch.of(*wide, network=network, loss=Loss.BCE, labels=Labels.ONE_HOT)
    asked = Question(loss=Loss.BCE, reduction=Reduction.MEAN, labels=Labels.ONE_HOT, batch_size=6)
    evidence = covered(network, (x, y), Loss.BCE).evidence[0]
    with pytest.raises(CertificateRejected, match="at most 4 coordinates"):
        kernel.facts(evidence, Subject(model=network, batch=batch, question=asked))
    batch = batch_of(network, x, y, labels=Labels.REAL)
    asked = Question(loss=Loss.MSE, reduction=Reduction.MEAN, labels=Labels.REAL, batch_size=2)
    assert_refused("real labels", kernel.facts, evidence, Subject(model=network, batch=batch, question=asked))
    batch = batch_of(network, x, [0, 1], Loss.HINGE)
    asked = Question(loss=Loss.HINGE, reduction=Reduction.MEAN, labels=Labels.ONE_HOT, batch_size=2)
    with pytest.raises(CertificateRejected, match="vary smoothly"):
        kernel.facts(evidence, Subject(model=network, batch=batch, question=asked))
    assert certificate["claim"]["outcome"] == "unique"
