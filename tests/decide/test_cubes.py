"""Certificates of cubes (docs/theory.md CB14): what they decide, what they rest on, and forgeries."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import flint
import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Claim, Cubes, QuestionRecord, issue
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Question
from exan_verify.core.verdict import Outcome, SampleStatus, Trust
from exan_verify.decide import cubes as engine
from exan_verify.decide.context import Context, Setting
from exan_verify.decide.cubes import relaxation
from exan_verify.decide.cubes.problem import Problem
from exan_verify.decide.cubes.rigid import definite, known_points
from exan_verify.decide.residual.unsettled import rest_of
from exan_verify.errors import CertificateRejected
from exan_verify.exact import linalg
from exan_verify.exact.backprop import forward
from exan_verify.exact.softmax import loss_vectors_ball
from exan_verify.instances import instance
from exan_verify.kernel.cubes import alone
from exan_verify.kernel.cubes.check import fewer_inputs
from exan_verify.kernel.cubes.listing import Sums, _walls, listed_patterns
from exan_verify.kernel.cubes.members import Members
from exan_verify.kernel.cubes.relaxation import Cube, letters
from exan_verify.kernel.given import Subject
from exan_verify.kernel.residual.parts import Part
from exan_verify.theorems.support.counterexamples import zero_pre_activation as two_neurons_at_zero
from tests.support.counterexamples import dead_at_a_point, zero_pre_activation

SUITE = {
    "equal/bce/bias/0": "equal samples, by the convexity of their loss",
    "plain/hinge/nobias/2": "finitely many loss vectors",
    "dead/mse/bias/0": "products of inputs, one sample dead",
    "shared/cross_entropy/bias/1": "fewer inputs",
    "zero/cross_entropy/nobias/3": "samples on lines through zero",
}


def case_of(name):
    family, loss, biases, index = name.split("/")
    return instance(family, Loss(loss), biases == "bias", int(index))


@lru_cache(maxsize=8)
def issued(name):
    case = case_of(name)
    context = Context(setting=Setting(network=case.network, question=case.question), batch=case.batch)
    finding = engine.decide(context, Budget())
    assert finding.evidence, finding.attempts
    return case, written(case, finding.evidence)


def written(case, evidence, outcome=Outcome.UNIQUE):
    question = QuestionRecord.of(
        case.question, "batch", samples=case.batch.size, features=case.network.widths[0]
    )
    claim = Claim(question=question, outcome=outcome, samples=(SampleStatus.DETERMINED,) * case.batch.size)
    made = issue(
        claim=claim, evidence=evidence, model_sha256=case.network.digest, batch_sha256=case.batch.digest
    )
    return json.loads(json.dumps(made))


@pytest.mark.parametrize("name", SUITE)
def test_what_solvers_were_asked_about_is_certified(name):
    case, certificate = issued(name)
    assert check(certificate, case.network, batch=case.batch).outcome is Outcome.UNIQUE


@pytest.mark.parametrize(
    "made",
    [
        dead_at_a_point,
        pytest.param(zero_pre_activation, marks=pytest.mark.campaign),
        pytest.param(two_neurons_at_zero, marks=pytest.mark.campaign),
    ],
)
def test_the_verdict_of_a_small_question_is_certified(made):
    example = made()
    asked = {"loss": "mse", "labels": example.question.labels.value}
    verdict = certify(example.network, batch=example.batch, **asked)
    assert (verdict.outcome, verdict.trust) == (Outcome.UNIQUE, Trust.CERTIFIED)
    assert [part["type"] for part in verdict.certificate["evidence"]] == ["cubes"]
    assert check(verdict.certificate, example.network, batch=example.batch)


@pytest.mark.campaign
@pytest.mark.parametrize(
    "name",
    [
        "plain/bce/nobias/1",
        "deep/cross_entropy/bias/2",
        "deep/cross_entropy/nobias/0",
        "deep/mse/bias/3",
        "shared/bce/bias/3",
        "zero/bce/bias/0",
        "zero/bce/nobias/1",
        "zero/mse/nobias/4",
        "zero/hinge/bias/3",
        "equal/bce/bias/3",
        "equal/mse/bias/3",
        "equal/mse/bias/2",
    ],
)
def test_the_others_of_the_small_suite_are_certified(name):
    case, certificate = issued(name)
    assert check(certificate, case.network, batch=case.batch).outcome is Outcome.UNIQUE


def changes(certificate):
    """The certificate with each part of its evidence dropped, doubled or changed."""
    part = certificate["evidence"][0]
    for key in ("patterns", "cubes"):
        for k in range(len(part[key])):
            for new in ([], [part[key][k]] * 2):
                yield part | {key: [*part[key][:k], *new, *part[key][k + 1 :]]}
    for i, tree in enumerate(part["cubes"]):
        for k, node in enumerate(tree):
            others = [[], [["alone"]], [["absurd", []]], [["label"]], [["told", 0]], [["cut", 0, "0"]]]
            if node[0] == "cut":
                others += [[["cut", node[1] + 1, node[2]]], [["cut", node[1], "1/3"]]]
            if node[0] == "absurd" and node[1]:
                first, *rest = node[1]
                others += [[["absurd", rest]], [["absurd", [[first[0], first[1] + 1, first[2]], *rest]]]]
            for new in others:
                if new != [node]:
                    changed = [*tree[:k], *new, *tree[k + 1 :]]
                    yield part | {"cubes": [*part["cubes"][:i], changed, *part["cubes"][i + 1 :]]}


@pytest.mark.parametrize("name", ["equal/bce/bias/0", "plain/hinge/nobias/2"])
def test_spoiled_evidence_is_rejected_or_still_shows_the_claim(name):
    """A change may leave a proof; what is accepted says nothing else than before."""
    case, certificate = issued(name)
    rejected = accepted = 0
    tried = list(changes(certificate))
    chosen = np.random.default_rng(5).permutation(len(tried))[:30]
    for part in (tried[k] for k in chosen):
        try:
            claim = check(certificate | {"evidence": [part]}, case.network, batch=case.batch)
        except CertificateRejected:
            rejected += 1
        else:
            accepted += 1
            assert claim.outcome is Outcome.UNIQUE
    assert rejected > 10 * accepted


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse", "hinge"])
def test_no_certificate_where_a_second_batch_is_planted(loss):
    for index in range(2):
        case = instance("twin", Loss(loss), True, index)
        context = Context(setting=Setting(network=case.network, question=case.question), batch=case.batch)
        assert not engine.decide(context, Budget(work=3_000_000)).evidence


def test_evidence_of_one_batch_shows_nothing_of_another():
    """Trees of two equal samples, for a batch in which one of them has moved."""
    case, certificate = issued("equal/bce/bias/0")
    moved = Batch.of(
        case.batch.inputs + np.array([[Fraction(1, 4)], [0]], dtype=object),
        case.batch.labels,
        network=case.network,
        loss=case.loss,
        labels=case.labels,
    )
    forged = certificate | {"batch_sha256": moved.digest}
    with pytest.raises(CertificateRejected):
        check(forged, case.network, batch=moved)


def test_a_definite_form_leaves_the_batch_alone():
    """Two equal samples whose region's sum is not told: isolated to second order only."""
    case = case_of("equal/mse/bias/2")
    context = Context(setting=Setting(network=case.network, question=case.question), batch=case.batch)
    problem = Problem(rest=rest_of(context))
    chosen = tuple(sorted(problem.patterns))
    found = relaxation.Cube(
        blocks=relaxation.Blocks(problem=problem), patterns=chosen, sides=problem.sides * 3
    )
    while not found.complete:
        (found, *others) = found.labelled()
        assert not others
    weights = list(definite(found, known_points(found)[0]))
    members = Members.of(Part(subject=subject_of_case(case), members=(0, 1, 2)))
    cube = Cube.of(Sums(members=members), letters(members), chosen)
    cube = replace(cube, given=(0, 0, 0))
    assert not alone.alone(cube)
    assert alone.definite(cube, weights)
    place = next(k for k, w in enumerate(weights) if w)
    spoiled = [w + (k == place) / Fraction(9) for k, w in enumerate(weights)]
    for other in (spoiled, [-w for w in weights], [0 * w for w in weights]):
        assert not alone.definite(cube, other)
    # entries that are linear change no form, but the slope of the combination
    squares, _ = cube.forms()
    linear = [k for k, form in enumerate(squares) if not form.any()]
    assert linear
    for k in linear:
        assert not alone.definite(cube, [w + (place == k) for place, w in enumerate(weights)])
    assert not alone.definite(replace(cube, sides=((Fraction(3), Fraction(4)),) * 9), weights)
    with pytest.raises(CertificateRejected, match="number of entries"):
        alone.definite(cube, weights[:-1])
    with pytest.raises(CertificateRejected, match="labels under mse"):
        alone.definite(replace(cube, given=(0, 0)), weights)


def test_slopes_alone_are_no_definite_form():
    """With J injective there may be another solution far away, as long as the forms do not vanish."""
    injective = 0
    for seed in range(10):
        rng = np.random.default_rng([seed, 7])
        cube = own_cube(drawn(rng, Loss.MSE, True))
        squares, slopes = cube.forms()
        points = alone.known_points(cube)
        if not points or not squares.any():
            continue
        at = np.array([alone.value_of(v) for v in points[0]], dtype=object)
        injective += linalg.rank(2 * (squares @ at) + slopes) == len(at)
        assert not alone.definite(cube, [Fraction(0)] * len(squares))
    assert injective >= 3


def test_a_dead_sample_is_no_definite_form():
    """All forms vanish where it moves, and so do the slopes."""
    for seed in range(5):
        rng = np.random.default_rng([seed, 8])
        weights = [rng.integers(-4, 5, (3, 2)), rng.integers(-4, 5, (2, 3))]
        network = ReluNetwork.from_arrays(weights, [np.full(3, -50), rng.integers(-4, 5, 2)])
        x, y = rng.integers(-3, 4, (1, 2)), np.eye(2, dtype=int)[rng.integers(0, 2, 1)]
        cube = own_cube(subject_of(network, x, y, Loss.MSE))
        squares, slopes = cube.forms()
        assert not squares.any()
        assert not slopes.any()
        assert alone.known_points(cube)
        assert not alone.definite(cube, [Fraction(0)] * len(squares))


@pytest.mark.parametrize("seed", range(3))
def test_forms_that_are_nowhere_negative_and_their_kernels(seed):
    rng = np.random.default_rng(seed)
    factor = rng.integers(-3, 4, (2, 4))
    form = np.array((factor.T @ factor).tolist(), dtype=object) + Fraction(0)
    kernel = alone._kernel_of_form(form)
    assert kernel.shape == (4, 4 - linalg.rank(form))
    assert not linalg.multiply(form, kernel).any()
    if kernel.shape[1]:
        out = np.array(kernel[:, 0])
        assert alone._kernel_of_form(form - np.outer(out, out) / 100) is None
    assert alone._kernel_of_form(linalg.identity(2)[::-1]) is None


def test_a_pattern_that_is_possible_cannot_be_left_out():
    case, certificate = issued("plain/hinge/nobias/2")
    part = certificate["evidence"][0]
    left = next(k for k, named in enumerate(part["patterns"]) if named is None and k > 0)
    for named in ([0], [0, 1], [1], [0, 1, 2], [9]):
        patterns = [*part["patterns"][:left], named, *part["patterns"][left + 1 :]]
        with pytest.raises(CertificateRejected):
            check(certificate | {"evidence": [part | {"patterns": patterns}]}, case.network, batch=case.batch)


def subject_of_case(case):
    return Subject(model=case.network, batch=case.batch, question=case.question)


def subject_of(network, x, y, loss, labels=Labels.ONE_HOT, domain=None):
    batch = Batch.of(x, y, network=network, loss=loss, labels=labels)
    return Subject(model=network, batch=batch, question=Question(loss=loss, labels=labels, domain=domain))


def own_cube(subject):
    """The cube of the batch, its samples in the checker's order, and that order."""
    part = Part(subject=subject, members=tuple(range(subject.samples)))
    members = Members.of(part)
    sums, found = Sums(members=members), letters(members)
    cube = Cube.of(sums, found, tuple(sums.own))
    given = []
    for m in range(subject.samples):
        fits = [
            k
            for k, letter in enumerate(found)
            if letter.target == alone.target_of(part.labels[m], cube.loss, cube.classes)
            and alone._vector_fits(cube, letter, m)
        ]
        given.append(fits[0])
    return replace(cube, given=tuple(given))


def drawn(rng, loss, biases):
    classes = int(rng.integers(2, 4))
    shapes = [(int(rng.integers(2, 5)), 2), (classes, 0)]
    weights = [rng.integers(-4, 5, (shapes[0][0], 2)) / 2]
    weights.append(rng.integers(-4, 5, (classes, shapes[0][0])) / 2)
    network = ReluNetwork.from_arrays(
        weights, [rng.integers(-4, 5, len(w)) / 2 for w in weights] if biases else None
    )
    x, y = rng.integers(-12, 13, (2, 2)) / 4, rng.integers(0, classes, 2)
    if loss in (Loss.BCE, Loss.MSE):
        y = np.eye(classes, dtype=int)[y]
    return subject_of(network, x, y, loss, domain=Box(-4, 4))


def unknowns(cube, subject):
    """The unknowns at the batch itself, in floating point: products with loss vectors, then the input."""
    out = []
    vectors = loss_vectors_ball(cube.loss, subject.passed.logits, subject.batch.labels, 1)
    for m, row in enumerate(subject.batch.x):
        x = np.array([*map(float, row), 1.0])
        if cube._of_moments(m):
            out += [x[i] * x[j] for i in range(len(x)) for j in range(i, len(x))][:-1]
            continue
        if cube._has_products(m):
            out += [float(vectors[c, m].mid()) * v for c in range(cube.sums.free) for v in x]
        out += list(x[:-1])
    return np.array([*out, 1.0])


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("biases", [True, False])
def test_the_batch_itself_satisfies_every_inequality_and_equation(loss, biases):
    """On many draws, with labels and without them, in the domain and in smaller boxes around the batch."""
    rng = np.random.default_rng(7)
    seen = set()
    for _ in range(2):
        subject = drawn(rng, loss, biases)
        whole = own_cube(subject)
        flat = [Fraction(v) for row in subject.batch.x for v in row]
        reach = Fraction(int(rng.integers(1, 5)), 4)
        near = replace(whole, sides=tuple((v - reach, v + reach) for v in flat))
        for cube in (whole, near, replace(whole, given=())):
            at = unknowns(cube, subject)
            lines, shares = cube.equations
            right = shares.astype(float) @ [
                float(v) if isinstance(v, Fraction) else float(v.mid()) for v in cube.sums.vectors
            ]
            assert lines.astype(float) @ at == pytest.approx(right, abs=1e-9)
            for m in range(2):
                for kind in range(30):
                    for k in range(12):
                        if kind == 0 and flat[0] > flat[2]:
                            continue  # samples that may be exchanged stand the other way round
                        try:
                            line, _ = cube.inequality((m, kind, k))
                        except CertificateRejected:
                            continue
                        seen.add(kind)
                        assert line.astype(float) @ at > -1e-9, (m, kind, k)
    assert len(seen) >= (2 if loss is Loss.HINGE else 8)


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE, Loss.MSE])
def test_the_jacobian_over_a_box_contains_slopes(loss):
    """Differences of the gradient of two batches in a box are J times the difference of the inputs."""
    rng = np.random.default_rng(3)
    for _ in range(4):
        subject = drawn(rng, loss, True)
        whole = own_cube(subject)
        flat = [Fraction(v) for row in subject.batch.x for v in row]
        cube = replace(whole, sides=tuple((v - Fraction(1, 8), v + Fraction(1, 8)) for v in flat))
        slopes = alone.jacobian(cube)
        for axis in range(4):
            ends = []
            for sign in (-1, 1):
                moved = list(flat)
                moved[axis] += Fraction(sign, 8)
                ends.append(sum_of_regions(cube, moved))
            for (low, high), row in zip(zip(*ends, strict=True), slopes, strict=True):
                bounds = row[axis].lower(), row[axis].upper()
                assert float(bounds[0]) - 1e-9 <= 4 * (high - low) <= float(bounds[1]) + 1e-9


def sum_of_regions(cube, flat):
    """The gradient at inputs, by the affine maps of the cube's regions, in floating point."""
    total = 0
    width = cube.features + cube.sums.network.has_bias
    for m in range(len(cube.patterns)):
        x = np.array([*map(float, flat[m * cube.features : (m + 1) * cube.features]), 1.0])
        region, target = cube.region(m), np.array(cube.letter(m).target, dtype=float)
        f = region.logits.astype(float) @ x
        if cube.loss is Loss.MSE:
            g = 2 * (f - target)
        elif cube.loss is Loss.BCE:
            g = 1 / (1 + np.exp(-f)) - target
        else:
            g = np.exp(f - f.max()) / np.exp(f - f.max()).sum() - target
        system = region.system.astype(float).reshape(-1, cube.sums.free, width)
        total = total + system @ x[:width] @ g[: cube.sums.free]
    return total


def test_fewer_inputs_have_the_same_logits():
    case = case_of("shared/cross_entropy/bias/1")
    subject = Subject(model=case.network, batch=case.batch, question=case.question)
    smaller = fewer_inputs(subject)
    assert smaller.network.widths[0] < case.network.widths[0]
    found = forward(smaller.network, smaller.batch).logits
    assert (found == subject.passed.logits).all()


@pytest.mark.parametrize("seed", range(5))
def test_features_are_not_spared_where_a_sample_says_nothing(seed):
    """Without a delta of its own its features are no function of the others' in a second batch."""
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-3, 4, (4, 4)), rng.integers(-3, 4, (2, 4))]
    network = ReluNetwork.from_arrays(weights, [np.full(4, -1000), np.zeros(2, dtype=int)])
    question = Question(loss=Loss.MSE)
    batch = Batch.of(
        rng.normal(size=(2, 4)), np.eye(2), network=network, loss=Loss.MSE, labels=Labels.ONE_HOT
    )
    with pytest.raises(CertificateRejected, match="deltas of the first layer"):
        fewer_inputs(Subject(model=network, batch=batch, question=question))


def test_all_patterns_of_points_are_listed():
    """Whatever the tree leaves out, no input has it."""
    for name in ("plain/hinge/nobias/2", "dead/mse/bias/0"):
        case, certificate = issued(name)
        part = certificate["evidence"][0]
        tree = [None if named is None else tuple(named) for named in part["patterns"]]
        listed = listed_patterns(tree, case.network, case.question.domain)
        x = np.random.default_rng(1).integers(-64, 65, (200, case.network.widths[0])) / 16
        layers = forward(case.network, Batch(inputs=x, labels=np.zeros(200))).patterns
        for m in range(200):
            assert tuple(tuple(map(bool, layer[:, m])) for layer in layers) in listed


def test_real_labels_and_trees_that_end_are_refused():
    case, certificate = issued("dead/mse/bias/0")
    forged = json.loads(json.dumps(certificate))
    forged["claim"]["question"]["labels"] = "real"
    with pytest.raises(CertificateRejected, match="real labels"):
        check(forged, case.network, batch=case.batch)
    empty = written(case, (Cubes(patterns=(), cubes=()),))
    with pytest.raises(CertificateRejected, match="ends before"):
        check(empty, case.network, batch=case.batch)


def told(network, x, y, loss, *, labelled=True, patterns=None, labels=Labels.ONE_HOT):
    """What ``told`` makes of the first sample of the batch's own cube, or of one in other regions."""
    cube = own_cube(subject_of(network, x, y, loss, labels=labels))
    cube = cube if patterns is None else replace(cube, patterns=patterns)
    return alone.told(cube if labelled else replace(cube, given=()), 0)


def test_what_a_region_needs_to_tell_its_samples():
    wide = ReluNetwork.from_arrays([[[1, 0], [0, 1]], [[1, 2], [3, 1]]], [[1, 1], [0, 1]])
    thin = ReluNetwork.from_arrays([[[1, 1]], [[1]]], [[1], [0]])
    bare = ReluNetwork.from_arrays([[[1, 0], [0, 1]], [[1, 2], [3, 1]]], None)
    y = np.array([[1, 0], [1, 0]])
    equal, apart = [[1, 2], [1, 2]], [[1, 2], [2, 1]]
    placed = told(wide, equal, y, Loss.BCE)
    assert placed.sides == ((1, 1), (2, 2)) * 2
    spanned = told(wide, apart, y, Loss.BCE)
    assert sorted(spanned.spans) == [0, 1]
    assert all(row @ [x, y, 1] == 0 for row in spanned.spans[0] for x, y in apart)
    line = told(bare, apart[:1], y[:1], Loss.BCE).spans[0]
    assert len(line) == 1
    assert (line @ [1, 2, 0] == 0).all()
    refused = [
        ("labels in the region", lambda: told(wide, equal, y, Loss.BCE, labelled=False)),
        ("not convex", lambda: told(wide, equal, [0, 0], Loss.HINGE)),
        ("do not tell the input", lambda: told(thin, equal, [[1], [1]], Loss.BCE)),
        ("without biases", lambda: told(bare, equal, y, Loss.BCE)),
        ("not equal", lambda: told(wide, equal, [[1, 0], [0, 1]], Loss.BCE)),
        ("dependent", lambda: told(bare, [[1, 2], [2, 4]], y, Loss.BCE)),
        (
            "another number",
            lambda: told(wide, apart, y, Loss.BCE, patterns=(((True, True),), ((True, False),))),
        ),
    ]
    for match, ask in refused:
        with pytest.raises(CertificateRejected, match=match):
            ask()


@pytest.mark.parametrize(
    ("loss", "lines", "values", "absurd"),
    [
        (Loss.MSE, [[1, 1, 0], [1, 0, 0]], [0, 1], False),
        (Loss.MSE, [[1, 0, 0], [2, 0, 0]], [1, 1], True),
        (Loss.MSE, [[1, 0, 0], [2, 0, 0]], [1, 2], False),
        (Loss.MSE, [[1, 2, 3], [1, 2, 4]], [3, 4], False),
        (Loss.MSE, [[1, 2, 3], [1, 2, 4]], [3, 5], True),
        (Loss.MSE, [[1, 2, 3], [2, 4, 7]], [3, 7], False),
        (Loss.MSE, [[1, 2, 3], [1, 2, 3], [0, 1, 0]], [1, 0, 7], True),
        (Loss.CROSS_ENTROPY, [[1, 1, 0], [1, 0, 0]], [0, 1], False),
        (Loss.CROSS_ENTROPY, [[1, 0, 0], [2, 0, 0]], [1, 1], True),
        (Loss.CROSS_ENTROPY, [[1, 0, 0], [2, 0, 0]], [1, 2], False),
        (Loss.CROSS_ENTROPY, [[1, 0, 1], [1, 0, 0]], [2, 2], True),
        (Loss.CROSS_ENTROPY, [[1, 0, 3], [2, 0, 6]], [1, 2], False),
    ],
)
def test_entries_contradict_each_other_where_no_unknown_is_left(loss, lines, values, absurd):
    """Values are given as such, and under cross_entropy as multiples of the first entry of a loss vector."""
    cube = own_cube(drawn(np.random.default_rng(1), loss, True))
    shares = np.full((len(lines), len(cube.sums.vectors)), Fraction(0), dtype=object)
    shares[:, 0] = values
    assert cube._overdetermined(np.array(lines, dtype=object) + Fraction(0), shares) is absurd


def test_loss_vectors_that_add_up_to_a_rational_number_contradict_none():
    """sigmoid(1) + sigmoid(-1) is 1, which balls cannot tell from it."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, -1]]], [[0, 0], [0]])
    cube = own_cube(subject_of(network, [[1], [-1]], [[0], [0]], Loss.BCE))
    lines = np.array([[1, 0, 1], [1, 0, 0]], dtype=object) + Fraction(0)
    for share, absurd in ((1, False), (2, True), (-1, True)):
        shares = np.array([[share, share], [0, 0]], dtype=object) + Fraction(0)
        assert cube._overdetermined(lines, shares) is absurd


def test_the_sides_of_a_domain_are_what_they_say():
    """At points of two features: feature 1 at least 2, feature 0 at most 5; infinite sides say nothing."""
    rows = _walls(((None, Fraction(5)), (Fraction(2), None)))
    points = np.array([[5, 2, 1], [6, 2, 1], [5, 1, 1]], dtype=object)
    values = [[row @ x for x in points] for row, strict in rows if not strict]
    assert values == [[0, -1, 0], [0, 0, -1]]


@pytest.mark.parametrize(("weight", "bias", "wall"), [(-1, 1, 2), (1, 1, 1)])
def test_a_pattern_on_a_face_of_the_domain_is_possible(weight, bias, wall):
    """The neuron is off at one point of the box alone: two inequalities that are not strict."""
    network = ReluNetwork.from_arrays([[[weight]], [[1]]], [[bias], [0]])
    assert listed_patterns([None, None, None], network, Box(-1, 1)) == [((False,),), ((True,),)]
    with pytest.raises(CertificateRejected, match="do not contradict"):
        listed_patterns([None, (0, wall), None], network, Box(-1, 1))


def test_numbers_of_a_certificate_are_bounded(monkeypatch):
    network = ReluNetwork.from_arrays([[[1, 0], [0, 1]], [[1, 2], [3, 1]]], [[1, 1], [0, 1]])
    cube = own_cube(subject_of(network, [[1, 2], [2, 1]], [[1, 0], [0, 1]], Loss.BCE))
    fading = 2 + 2 * cube.classes
    assert cube.inequality((0, fading, 30))
    with pytest.raises(CertificateRejected, match="no such inequality"):
        cube.inequality((0, fading, 31))
    monkeypatch.setattr("exan_verify.kernel.cubes.relaxation.MAX_UNKNOWNS", 12)
    with pytest.raises(CertificateRejected, match="too many unknowns"):
        replace(cube).inequality((0, 1, 0))


def test_a_tree_for_no_multiset_is_refused():
    name = next(iter(SUITE))
    case, certificate = issued(name)
    forged = json.loads(json.dumps(certificate))
    forged["evidence"][-1]["cubes"].append(forged["evidence"][-1]["cubes"][-1])
    with pytest.raises(CertificateRejected, match="more trees than multisets"):
        check(forged, case.network, batch=case.batch)


def test_slopes_that_may_vanish_are_not_rigid():
    """The middle's inverse leaves less than the whole only where no slope of the range is zero."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        middle, spread = rng.uniform(0.5, 2), rng.uniform(0.1, 1.9)
        found = alone._rigid([[flint.arb(middle, middle * spread)]], np.zeros((0, 1), dtype=object))
        assert found is (spread < 1)
