"""Extra rays: second batches made of them, choices refuted over Q and mod p, forged evidence."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Claim, Conclusion, ExtraRays, QuestionRecord, issue
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Box, Loss, Reduction
from exan_verify.core.verdict import Engine, Outcome, SampleStatus, Trust
from exan_verify.decide import enumeration
from exan_verify.decide.enumeration import engine, exact, modular, rays
from exan_verify.decide.lifting.system import exact_outgoing, plan, unknowns_mod
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import backward, gradient
from exan_verify.exact.linalg import multiply, nullspace, rank
from exan_verify.exact.modular import PRIME
from exan_verify.exact.rational import RationalMatrix
from exan_verify.exact.softmax import loss_vectors
from exan_verify.instances import instance
from exan_verify.kernel.lifting import extra_rays_mod as kernel_mod
from exan_verify.kernel.lifting.extra_rays import facts as checked
from tests.support import contexts
from tests.support.cases import default_network, random_batch, words
from tests.support.certificate_cases import assert_refused, assert_rejected, certify_as
from tests.support.counterexamples import published_insecure
from tests.support.ray_cases import planted

D = SampleStatus.DETERMINED


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


context_of = partial(contexts.context_of, reduction=Reduction.SUM, engine="enumeration")
subject_of = partial(contexts.subject, reduction=Reduction.SUM)


def whole_plan(context, layer=1):
    return plan(context, layer, tuple(range(context.samples)))


def exact_problem(context, layer=1):
    used = whole_plan(context, layer)
    return exact.problem(context, used, engine.layer_equations(context, used).neurons)


# second batches


@pytest.mark.parametrize("asked", ["enumeration", "auto"])
def test_the_counterexample_to_the_published_condition_is_found(asked):
    case = published_insecure()
    verdict = certify_as(Outcome.AMBIGUOUS, case.network, batch=case.batch, loss="mse", engine=asked)
    assert (verdict.engine, verdict.trust) == (Engine.ENUMERATION, Trust.CERTIFIED)
    assert set(verdict.witness.batch.x) == set(case.second.x)
    assert check(verdict.certificate, case.network, batch=case.batch).samples == verdict.samples
    ours, theirs = (
        gradient(case.network, b, Loss.MSE, Reduction.MEAN) for b in (case.batch, verdict.witness.batch)
    )
    assert ours == theirs


def test_a_box_can_exclude_the_second_batch():
    network, batch, second = planted(3)
    whole = context_of(network, batch, Loss.MSE)
    assert not rays_at(whole).complete or rays_at(whole).second
    inside = min(float(v) for v in batch.inputs.reshape(-1)), max(float(v) for v in batch.inputs.reshape(-1))
    box = Box(*inside)
    assert not box.contains(second)
    found = rays_at(context_of(network, batch, Loss.MSE, domain=box))
    assert not found.second
    verdict = certify(network, batch=batch, loss="mse", reduction="sum", engine="enumeration", domain=box)
    assert verdict.outcome is (Outcome.UNIQUE if found.complete else Outcome.UNKNOWN)
    if found.complete:
        assert check(verdict.certificate, network, batch=batch).outcome is Outcome.UNIQUE


def rays_at(context, layer=1):
    used = whole_plan(context, layer)
    found = engine.layer_equations(context, used)
    return rays.rays(context, used, found.neurons, found.equations, Budget())


# what is refuted

CERTIFIED_NOW = [
    "plain/bce/bias/4",
    "deep/bce/bias/3",
    "deep/mse/bias/1",
    "shared/bce/bias/2",
    "zero/cross_entropy/bias/0",
    "zero/bce/bias/4",
    "zero/mse/bias/3",
    "zero/hinge/bias/1",
]
"""Instances of the small suite that only solvers could decide before extra rays were refuted."""


@pytest.mark.parametrize("name", CERTIFIED_NOW)
def test_instances_of_the_suite_are_certified(name):
    family, loss, biases, index = name.split("/")
    case = instance(family, Loss(loss), biases == "bias", int(index))
    verdict = certify(
        case.network,
        batch=case.batch,
        engine="enumeration",
        **words(case),
    )
    assert (verdict.outcome, verdict.trust) == (Outcome.UNIQUE, Trust.CERTIFIED)
    assert verdict.certificate["evidence"][-1]["type"] == "extra_rays"
    assert "extra rays" in verdict.reason
    assert check(verdict.certificate, case.network, batch=case.batch).outcome is Outcome.UNIQUE


def one_ray_too_many(loss):
    """Nine neurons for three samples: some lines are left that are no samples."""
    classes = 2 if loss in (Loss.CROSS_ENTROPY, Loss.HINGE) else 1
    network = default_network([6, 9, classes], seed=11, dtype=np.float64)
    return network, random_batch(network, 3, seed=11, loss=loss)


@pytest.mark.parametrize("loss", list(Loss))
def test_wider_networks_with_a_line_to_spare_are_unique(loss):
    network, batch = one_ray_too_many(loss)
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, loss=loss.value, engine="enumeration")
    assert verdict.certificate["evidence"][0]["type"] == "extra_rays"
    assert verdict.certificate["evidence"][0]["exact"] is loss.rational
    assert check(verdict.certificate, network, batch=batch).outcome is Outcome.UNIQUE


def test_both_ways_refute_the_same_choices(monkeypatch):
    loss = Loss.MSE
    network, batch = one_ray_too_many(loss)
    context = context_of(network, batch, loss)
    over_q = rays_at(context)
    monkeypatch.setattr(rays, "VARIABLES", 0)
    mod_p = rays_at(context)
    assert over_q.complete
    assert mod_p.complete
    assert (over_q.exact, mod_p.exact) == (True, False)
    (record,) = enumeration.decide(context, Budget()).evidence
    assert record.exact is False
    assert checked(record, subject_of(network, batch, loss)).determined == frozenset(range(3))


def test_limits_leave_it_open(monkeypatch):
    network, batch = one_ray_too_many(Loss.MSE)
    context = context_of(network, batch, Loss.MSE)
    monkeypatch.setattr(rays, "CHOICES", 3)
    assert "more than 3 choices" in rays_at(context).note
    monkeypatch.setattr(rays, "SUBSPACES", 2)
    assert rays_at(context).note == "more than 2 subspaces"
    monkeypatch.undo()
    monkeypatch.setattr(rays, "MODULAR_CHOICES", 3)
    other = context_of(*one_ray_too_many(Loss.BCE), Loss.BCE)
    assert rays_at(other).note == "more than 3 choices"
    assert not rays_at(other).complete


def test_a_work_limit_stops_the_choices():
    case = published_insecure()
    verdict = certify(case.network, batch=case.batch, loss="mse", engine="enumeration", work_limit=900)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "work limit of 900" in verdict.reason


# the parts


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.HINGE])
def test_subspaces_are_those_of_a_naive_search(loss):
    """Every state of every neuron: the zeros of its equations lie in a subspace found, and make them all."""
    rng = np.random.default_rng(7)
    extra = 0
    for _ in range(25):
        network = ReluNetwork.from_arrays(
            [rng.integers(-3, 4, (5, 2)), rng.integers(-2, 3, (2, 5))],
            [rng.integers(-3, 4, 5), rng.integers(-3, 4, 2)],
        )
        context = context_of(network, random_batch(network, 2, int(rng.integers(99)), loss=loss), loss)
        searched = exact_problem(context)
        if not searched.inactive:
            continue
        found = exact.subspaces(searched, Budget(), 10**6)
        naive = set()
        for states in product((0, 1), repeat=len(searched.inactive)):
            rows = [(searched.inactive[j], searched.active[j])[state] for j, state in enumerate(states)]
            naive.add(frozenset(map(tuple, nullspace(np.array(rows, dtype=object)).T.tolist())))
        spaces = [np.array(sorted(s), dtype=object) for s in naive if any(any(v[:2]) for v in s)]
        for space in spaces:
            assert any(all(not any(exact.reduced(integral(v), sub)) for v in space) for sub in found)
        for sub in found:
            rows = np.array(sub, dtype=object)
            assert any(len(space) == len(sub) == rank(np.concatenate([space, rows])) for space in spaces)
            extra += not any(exact.in_span_of(sub, g, searched.truth) for g in searched.groups)
    assert extra > 5


def integral(vector):
    return exact.integers(list(vector))


def test_sums_of_subspaces():
    a = ((1, 0, 2, 0),)
    b = ((0, 3, 1, 1),)
    both = exact.joined(a, b)
    assert both == exact.joined(b, a)
    assert len(both) == 2
    assert exact.joined(both, ((2, 3, 5, 1),)) == both
    assert not any(exact.reduced((2, 3, 5, 1), both))
    assert any(exact.reduced((2, 3, 5, 2), both))
    assert exact.maximal({a, b, both}) == [both]


def test_true_samples_solve_their_own_equations():
    """Whatever the unknowns of u are, (e_m, u_m) fulfils the equation of every neuron's state."""
    networks = [
        ReluNetwork.from_arrays([np.eye(6, 3) + np.tri(6, 3), w], [np.arange(6) - 2.5, np.arange(len(w))])
        for w in ([[1, -2, 3, 1, 1, 2]], [[1, -2, 3, 1, 1, 2], [-1, 2, -3, -1, -1, -2]], np.eye(3, 6) - 1)
    ]
    kinds = set()
    for network, loss in product(networks, [Loss.MSE, Loss.HINGE]):
        if loss is Loss.HINGE and network.classes == 1:
            continue
        context = context_of(network, random_batch(network, 2, 5, loss=loss), loss)
        used = whole_plan(context)
        kinds.add(used.parametrisation)
        vectors = loss_vectors(loss, context.passed.logits, context.batch.labels, context.divisor)
        deltas = backward(network, context.passed, vectors)
        outgoing, unknowns = exact_outgoing(context, used, deltas[1].fractions())
        pattern = context.passed.patterns[0]
        assert np.array_equal(np.where(pattern, multiply(outgoing, unknowns), 0), deltas[0].fractions())
        assert np.array_equal(RationalMatrix.of(unknowns).residues(), unknowns_mod(context, used))
    assert kinds == {"full", "row_space", "zero_sum", "column_space"}


# forged evidence


def forged(network, batch, loss, *, exact_, **changes):
    context = context_of(network, batch, loss)
    used = whole_plan(context)
    last = network.depth == 2 and used.parametrisation != "row_space"
    fields = {
        "layer": 1,
        "parametrisation": used.parametrisation,
        "groups": used.groups,
        "lower_ranks": (),
        "determined": tuple(range(batch.size)),
        "labels": "loss_vectors" if last else "output_rank",
    } | changes
    return ExtraRays(prime=PRIME, point=context.image.point, exact=exact_, conclusion=Conclusion(**fields))


@pytest.mark.parametrize("exact_", [True, False])
@pytest.mark.parametrize("case", ["P1", "planted"])
def test_no_choice_is_passed_over(exact_, case):
    """The liar says that no choice gives another batch; one does."""
    found = published_insecure()
    network, batch = (found.network, found.batch) if case == "P1" else planted(1)[:2]
    evidence = forged(network, batch, Loss.MSE, exact_=exact_)
    assert_refused("not refuted", checked, evidence, subject_of(network, batch, Loss.MSE))
    question = subject_of(network, batch, Loss.MSE).question
    record = QuestionRecord.of(question, "batch", samples=batch.size, features=network.widths[0])
    claim = Claim(question=record, outcome=Outcome.UNIQUE, samples=(D,) * batch.size)
    certificate = issue(
        claim=claim, evidence=(evidence,), model_sha256=network.digest, batch_sha256=batch.digest
    )
    assert_rejected(certificate, network, "not refuted", batch=batch)


FORGERIES = {
    "groups": ({"groups": ((0, 1), (2,))}, "pattern groups"),
    "determined": ({"determined": (0, 1)}, "determines"),
    "layer": ({"layer": 2}, "no hidden layer"),
    "single": ({"parametrisation": "single"}, "more than one"),
    "lower ranks": ({"lower_ranks": (3,)}, "lower Delta"),
}


@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.parametrize("loss", [Loss.MSE, Loss.BCE])
def test_rejects_forged_conclusions(name, loss):
    network, batch = one_ray_too_many(loss)
    good = forged(network, batch, loss, exact_=loss.rational)
    assert checked(good, subject_of(network, batch, loss)).determined == frozenset(range(3))
    changes, match = FORGERIES[name]
    with pytest.raises(CertificateRejected, match=match):
        checked(
            forged(network, batch, loss, exact_=loss.rational, **changes), subject_of(network, batch, loss)
        )


def test_rejects_rational_evidence_for_a_transcendental_loss():
    network, batch = one_ray_too_many(Loss.BCE)
    with pytest.raises(CertificateRejected, match="rational"):
        checked(forged(network, batch, Loss.BCE, exact_=True), subject_of(network, batch, Loss.BCE))


def test_rejects_choices_that_are_left_open():
    """Two neurons for two samples: planes meet in more than one candidate."""
    case = instance("zero", Loss.BCE, True, 0)
    evidence = forged(case.network, case.batch, Loss.BCE, exact_=False)
    with pytest.raises(CertificateRejected, match="not refuted"):
        checked(evidence, subject_of(case.network, case.batch, Loss.BCE, case.labels))


def test_equal_lines_mod_p_are_not_taken_for_one():
    """Two lists of equations that agree mod p are two real lines, perhaps; chosen together they stay open."""
    context = context_of(*one_ray_too_many(Loss.MSE), Loss.MSE)
    equations = engine.layer_equations(context, whole_plan(context)).equations
    basis = ((1, 2, 3, 4),)
    lines = [
        modular.Leaf(basis=basis, equations=frozenset({(0, True), (k, False)}), members=0) for k in (1, 2)
    ]
    assert modular._bound(equations, lines[:1]) == 1
    assert modular._bound(equations, lines) == 2
    assert modular._open(equations, [lines[0], lines[0], lines[1]], Counter((0, 0, 1)), (1, 1, 1, 0)) is False
    assert modular._open(equations, lines, Counter((0, 1)), (1, 2, 3, 4)) is True


def test_the_kernel_does_not_take_equal_lines_mod_p_for_one():
    unit = np.eye(3, dtype=np.uint64)
    system = kernel_mod.System(
        inactive=unit,
        active=unit,
        inactive_for=np.zeros((3, 2), dtype=bool),
        active_for=np.zeros((3, 2), dtype=bool),
        groups=((0,), (1,)),
        truth=np.array([[1, 0], [0, 1], [2, 5]], dtype=np.uint64),
        exact=False,
    )
    line = np.array([[1, 2, 3]], dtype=np.uint64)
    one, other = (kernel_mod._Leaf(basis=line, cuts=((0, True), (k, False)), known=(0, 0)) for k in (1, 2))
    target = np.array([1, 1, 7], dtype=np.uint64)
    assert kernel_mod._at_most(system, [one]) == 1
    assert kernel_mod._at_most(system, [one, other]) == 2
    assert kernel_mod._settled(system, [one], [one, one], target)
    assert not kernel_mod._settled(system, [one, other], [one, other], target)
    # two planes that share a sample: three dimensions together, not four
    planes = [kernel_mod._Leaf(basis=unit[[0, k]], cuts=((0, True),), known=(1, 0)) for k in (1, 2)]
    assert kernel_mod._at_most(system, planes) == 2
    apart = [kernel_mod._Leaf(basis=unit[[0, k]], cuts=((k, True),), known=(1, 0)) for k in (1, 2)]
    assert kernel_mod._at_most(system, apart) == 3
