"""Lifting of degree three: beyond degree two, groups, what it says when it cannot, forged evidence."""

import json
from fractions import Fraction
from math import comb, prod

import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import DegreeThree, LayerArgument
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome, SampleStatus, Trust
from exan_verify.decide.lifting import cubic, degree_three
from exan_verify.decide.lifting.system import plan
from exan_verify.errors import CertificateRejected
from exan_verify.exact import elimination, stacked
from exan_verify.exact.elimination import PRIMES
from exan_verify.exact.stacked import Stacked
from exan_verify.kernel.lifting.degree_three import cubic_system
from exan_verify.kernel.lifting.degree_three import facts as checked
from tests.support.cases import batch_of, default_network, random_batch, random_case, two_one_five_one
from tests.support.certificate_cases import assert_refused, assert_rejected, certify_as
from tests.support.contexts import context_of, subject


def near_copies(network, samples, copies, seed=1):
    """A batch whose first sample has ``copies`` others in its region."""
    base = random_batch(network, samples, seed)
    rng = np.random.default_rng(seed)
    x = base.inputs.astype(np.float64)
    near = x[:1] + 2.0**-30 * rng.normal(size=(copies, x.shape[1]))
    labels = np.concatenate([base.labels, (base.labels[0] + 1 + np.arange(copies)) % network.classes])
    return batch_of(network, np.concatenate([x, near]), labels, Loss.CROSS_ENTROPY)


@pytest.mark.parametrize("loss", list(Loss))
def test_determines_batches_beyond_degree_two(loss):
    network, batch = random_case([30, 40, 3], 9, seeds=(1, 1), loss=loss)
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, loss=loss.value, engine="lifting")
    assert verdict.trust is Trust.CERTIFIED
    assert verdict.layer == 1
    assert "lifting of degree three" in verdict.reason
    assert "equations short" in verdict.reason
    assert "more neurons" in verdict.attempts[0].note
    assert check(json.dumps(verdict.certificate), network, batch=batch).outcome is Outcome.UNIQUE


def test_a_deeper_layer_uses_the_layers_below():
    network = default_network([10, 40, 24, 40, 3], seed=3)
    finding = degree_three.decide(context_of(network, random_batch(network, 6)), Budget())
    assert finding.facts.determined == frozenset(range(6))
    assert finding.evidence[0].argument.layer == 3
    assert finding.evidence[0].argument.lower_ranks == (6, 6)


def test_the_first_layer_uses_the_column_space_of_the_next_deltas():
    network = default_network([10, 40, 24, 40, 3], seed=3)
    finding = degree_three.decide(context_of(network, random_batch(network, 7)), Budget())
    assert finding.facts.determined == frozenset(range(7))
    assert "147 of the 154 independent equations needed" in finding.attempts[0].note
    assert finding.evidence[0].argument.layer == 1
    assert finding.evidence[0].argument.parametrisation == "column_space"


@pytest.mark.parametrize(("samples", "copies"), [(3, 1), (2, 2), (1, 3), (1, 1)])
def test_the_null_space_of_groups_is_as_large_as_the_theory_says(samples, copies):
    """sum binom(s_k + 2, 3): symmetric cubes of the groups' spans, and nothing skew as in degree two."""
    network = default_network([30, 60, 5], seed=5, dtype=np.float64)
    batch = near_copies(network, samples, copies)
    context = context_of(network, batch)
    quadratic = plan(context, 1, tuple(range(batch.size)))
    assert sorted(map(len, quadratic.groups)) == sorted([1] * (samples - 1) + [copies + 1])
    whole = cubic.Cubic(plan=quadratic, neurons=quadratic.equations)
    assert whole.unknowns - whole.target == comb(copies + 3, 3) + samples - 1
    assert cubic.cubic_equations(context, whole, context.image_in(PRIMES[0])).rank() == whole.target


def test_groups_leave_singletons_determined():
    network = default_network([30, 40, 3], seed=2, dtype=np.float64)
    batch = near_copies(network, 8, 1)
    verdict = certify_as(Outcome.UNKNOWN, network, batch=batch, engine="lifting")
    assert verdict.samples == (
        SampleStatus.UNKNOWN,
        *(SampleStatus.DETERMINED,) * 7,
        SampleStatus.UNKNOWN,
    )
    assert check(verdict.certificate, network, batch=batch).samples == verdict.samples


def test_engine_and_kernel_expand_the_same_equations():
    """Two derivations of R3, row spaces compared by ranks."""
    network = default_network([10, 14, 3], seed=4)
    context = context_of(network, random_batch(network, 4))
    quadratic = plan(context, 1, (0, 1, 2, 3))
    whole = cubic.Cubic(plan=quadratic, neurons=quadratic.equations)
    image = context.image_in(p := PRIMES[0])
    ours = cubic.cubic_equations(context, whole, image).dense()
    delta = image.delta(1)
    weight = network.layers[1].weight.astype(object)
    reduced = [[int((w - weight[-1, j]) * 2**40) for w in weight[:-1, j]] for j in range(14)]
    outgoing = np.array([[v * pow(2**40, -1, p) % p for v in row] for row in reduced], dtype=np.uint64)
    theirs = cubic_system(delta[delta.any(axis=1)], outgoing[delta.any(axis=1)], p).dense()
    ranks = {elimination.rank(m, p) for m in (ours, theirs, np.concatenate([ours, theirs]))}
    assert len(ranks) == 1


def test_true_samples_solve_the_system():
    """Evaluations at (e_m, u_m) are in the null space, every one."""
    network = default_network([10, 14, 3], seed=4)
    context = context_of(network, random_batch(network, 4))
    quadratic = plan(context, 1, (0, 1, 2, 3))
    whole = cubic.Cubic(plan=quadratic, neurons=quadratic.equations)
    image = context.image_in(p := PRIMES[0])
    dense = cubic.cubic_equations(context, whole, image).dense()
    matrix = dense.astype(np.int64).astype(object)
    monomials = cubic._cubic_monomials(4, whole.variables)
    for m in range(4):
        loss_vector = [int(v) for v in image.delta(2)[:-1, m]]
        solution = [int(k == m) for k in range(4)] + loss_vector
        values = np.array([prod(solution[v] for v in monomial) % p for monomial in monomials], dtype=object)
        assert not np.any(matrix @ np.array(values, dtype=object) % p)


def test_says_how_many_neurons_are_missing_and_when_memory_ends(monkeypatch):
    network = default_network([30, 20, 3], seed=1)
    verdict = certify_as(Outcome.UNKNOWN, network, batch=random_batch(network, 12), engine="lifting")
    context = context_of(network, random_batch(network, 12))
    (only,) = degree_three.plans(context)
    assert f"{only.missing} more neurons with a non-zero delta are needed" in verdict.reason
    assert f"({only.plan.missing} at degree two)" in verdict.reason
    assert only.missing == -(-only.target // 14) - 20

    network, batch = random_case([30, 40, 3], 9, seeds=(1, 1))
    certificate = certify(network, batch=batch, engine="lifting").certificate
    for left in (1000, stacked.least_memory(282)):  # before anything is built, and after
        monkeypatch.setattr(stacked, "memory_available", lambda left=left: left)
        verdict = certify_as(Outcome.UNKNOWN, network, batch=batch, engine="lifting")
        assert "of memory, 0.00 GiB are left (14 neurons are missing at degree two)" in verdict.reason
        assert_rejected(certificate, network, "cannot be taken here: a rank would take", batch=batch)


def test_a_rank_that_is_short_is_taken_again_with_another_prime(monkeypatch):
    """Engine and kernel both: the first prime lies about every rank here."""
    taken = []

    def short_at_first(system, enough=None, told=None):
        taken.append(system.prime)
        return min(whole_rank(system, enough, told), 100 if system.prime == PRIMES[0] else 10**9)

    whole_rank = Stacked.rank
    monkeypatch.setattr(Stacked, "rank", short_at_first)
    network, batch = random_case([30, 40, 3], 9, seeds=(1, 1))
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, engine="lifting")
    check(verdict.certificate, network, batch=batch)
    assert taken[-2:] == list(PRIMES)
    assert set(taken) == set(PRIMES)


def test_rational_inputs_with_a_small_prime_in_a_denominator():
    """No residue mod the first prime: the second is taken. With both, the step says so."""
    base, batch = random_case([30, 40, 3], 9, seeds=(1, 1), loss=Loss.MSE)
    x = np.array([[Fraction(float(v)) for v in row] for row in batch.inputs], dtype=object)
    for divisor, outcome in ((PRIMES[0], Outcome.UNIQUE), (PRIMES[0] * PRIMES[1], Outcome.UNKNOWN)):
        x[0, 0] = Fraction(1, divisor)
        given = batch_of(base, x, batch.labels)
        verdict = certify_as(outcome, base, batch=given, loss="mse", engine="lifting")
        if outcome is Outcome.UNIQUE:
            check(verdict.certificate, base, batch=given)
        else:
            assert "denominators" in verdict.reason


def test_the_rank_tells_how_far_it_is_and_can_be_interrupted():
    network, batch = random_case([60, 128, 10], 10, seeds=(1, 1))
    told = []
    certify(network, batch=batch, engine="lifting", progress=lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    text = "lifting of degree three: rank of "
    assert any(what.startswith(text) and "GiB of memory" in what for what, _ in told)

    def pressed(what, _share):
        if what.startswith(text):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(network, batch=batch, engine="lifting", progress=pressed)


def test_budget_and_hypotheses_are_respected():
    network = default_network([30, 40, 3], seed=1)
    context = context_of(network, random_batch(network, 9))
    finding = degree_three.decide(context, Budget(work=1000))
    assert not finding.evidence
    assert "work limit" in finding.attempts[0].note
    twins = random_batch(network, 9).select([0, 0, *range(2, 9)])
    finding = degree_three.decide(context_of(network, twins), Budget())
    assert not finding.evidence
    assert "rank 8 only" in finding.attempts[0].note


def test_more_neurons_are_tried_when_the_first_do_not_reach_the_rank():
    """A third of the neurons are copies: enough by count at either degree, but not in rank."""
    base = default_network([30, 60, 3], seed=1, dtype=np.float64)
    weights = [layer.weight.copy() for layer in base.layers]
    biases = [layer.bias.copy() for layer in base.layers]
    for j in range(1, 20):
        weights[0][j], biases[0][j], weights[1][:, j] = weights[0][0], biases[0][0], weights[1][:, 0]
    network = type(base).from_arrays(weights, biases)
    batch = random_batch(network, 9)
    finding = degree_three.decide(context_of(network, batch), Budget())
    assert finding.facts.determined == frozenset(range(9))
    assert finding.evidence[0].neurons > degree_three.plans(context_of(network, batch))[0].neurons


def test_the_bottleneck_of_two_one_five_one_stays_open():
    """C1's warning: the rank deficit below layer 2 blocks degree three as well."""
    for seed in range(30):
        network, batch, second = two_one_five_one(seed)
        if second == batch:
            continue
        finding = degree_three.decide(context_of(network, batch, Loss.MSE), Budget())
        assert not finding.facts.determined


@pytest.fixture(scope="module")
def example():
    network, batch = random_case([30, 40, 3], 9, seeds=(1, 1))
    return network, batch, certify(network, batch=batch, engine="lifting").certificate["evidence"][0]


FORGERIES = {
    "no neurons": ({"neurons": 0}, {}, "fewer neurons"),
    "fewer neurons": ({"neurons": 20}, {}, "rank"),
    "too many neurons": ({"neurons": 41}, {}, "fewer neurons"),
    "negative neurons": ({"neurons": -1}, {}, "fewer neurons"),
    "prime": ({"prime": 2**31 - 1}, {}, "prime"),
    "point": ({"point": 1}, {}, "point"),
    "rank": ({}, {"rank": 1}, "rank"),
    "unknowns": ({}, {"unknowns": 7}, "V is"),
    "layer": ({}, {"layer": 2}, "no hidden layer"),
    "layer zero": ({}, {"layer": 0}, "no hidden layer"),
    "groups": ({}, {"groups": ((0, 1), *((k,) for k in range(2, 9)))}, "groups"),
    "parametrisation": ({}, {"parametrisation": "full"}, "V is"),
    "single": ({}, {"parametrisation": "single"}, "more than one"),
    "determined": ({}, {"determined": (0, 1)}, "determines"),
    "labels": ({}, {"labels": "backward_map"}, None),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_rejects_forged_evidence(example, name):
    network, batch, record = example
    outer, inner, match = FORGERIES[name]
    argument = dict(record["argument"].items()) | inner
    parts = {k: v for k, v in record.items() if k not in ("type", "argument")} | outer
    forged = DegreeThree(argument=LayerArgument(**argument), **parts)
    asked = subject(network, batch)
    if match is None:  # another argument for the labels may hold as well
        assert checked(forged, asked).determined == frozenset(range(9))
        return
    assert_refused(match, checked, forged, asked)


@pytest.mark.parametrize("lacking", [1, 2, 100])
def test_a_rank_that_is_short_by_little_is_short(example, monkeypatch, lacking):
    network, batch, record = example
    argument = LayerArgument(**record["argument"])
    parts = {k: v for k, v in record.items() if k not in ("type", "argument")}
    monkeypatch.setattr(Stacked, "rank", lambda _self, enough, *_: enough - lacking)
    with pytest.raises(CertificateRejected, match="mod p, the certificate says"):
        checked(DegreeThree(argument=argument, **parts), subject(network, batch))


def test_rejects_evidence_for_a_batch_with_a_shared_region(example):
    """Every number made consistent with C1, for a batch in which two samples share the pattern."""
    network, _, record = example
    batch = near_copies(network, 8, 1)
    parts = {k: v for k, v in record.items() if k not in ("type", "argument")}
    asked = subject(network, batch)
    for rank in (record["argument"]["rank"], record["argument"]["rank"] - 2):
        argument = LayerArgument(**(record["argument"] | {"rank": rank}))
        with pytest.raises(CertificateRejected):
            checked(DegreeThree(argument=argument, **parts), asked)
