"""Enumeration of neuron states: the search, its parts, what it proves, what it refuses, forged evidence."""

import json
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Conclusion, Enumeration
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import Engine, Outcome, SampleStatus, Trust
from exan_verify.decide import enumeration
from exan_verify.decide.enumeration import engine, search, tasks
from exan_verify.decide.enumeration.subspaces import Subspaces, joined, merged
from exan_verify.decide.lifting.system import plan
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, inverses_mod, multiply_mod, random_residues
from exan_verify.kernel.checker import CHECKERS
from exan_verify.kernel.lifting import enumeration as kernel
from exan_verify.kernel.lifting.enumeration import facts as checked
from tests.support import contexts
from tests.support.cases import default_network, random_batch, random_case, two_one_five_one
from tests.support.certificate_cases import assert_refused, certify_as
from tests.support.contexts import subject

D, U = SampleStatus.DETERMINED, SampleStatus.UNKNOWN


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "exan_verify" / "enumeration"


context_of = partial(contexts.context_of, engine="enumeration")


def equations_of(context, layer=1):
    quadratic = plan(context, layer, tuple(range(context.samples)))
    return engine.layer_equations(context, quadratic).equations


def near_copy(network, samples, seed=1):
    """A batch whose last sample shares the region of the first."""
    base = random_batch(network, samples, seed)
    x = base.inputs.astype(np.float64)
    labels = np.append(base.labels, (base.labels[0] + 1) % network.classes)
    near = np.concatenate([x, x[:1] + 2.0**-30])
    return Batch.of(near, labels, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)


# what it decides


@pytest.mark.parametrize(("widths", "samples"), [([20, 40, 4], 4), ([12, 40, 12, 30, 3], 3), ([9, 40, 2], 5)])
@pytest.mark.parametrize("loss", list(Loss))
def test_generic_batches_are_unique_for_every_loss(widths, samples, loss):
    network, batch = random_case(widths, samples, loss=loss)
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, loss=loss.value, engine="enumeration")
    assert verdict.engine is Engine.ENUMERATION
    assert verdict.trust is Trust.CERTIFIED
    assert f"hidden layer {verdict.layer}" in verdict.reason
    claim = check(json.dumps(verdict.certificate), network, batch=batch)
    assert claim.outcome is Outcome.UNIQUE
    assert certify(network, batch=batch, loss=loss.value, engine="lifting").outcome is Outcome.UNIQUE


@pytest.mark.parametrize(("widths", "samples"), [([30, 20, 3], 12), ([5, 5, 3], 3), ([6, 8, 3], 4)])
def test_decides_where_lifting_is_short_of_equations(widths, samples):
    decided = 0
    for seed in range(6):
        network, batch = random_case(widths, samples, seeds=(seed, seed + 50), dtype=np.float64)
        verdict = certify(network, batch=batch, engine="enumeration")
        if verdict.outcome is Outcome.UNIQUE:
            assert check(verdict.certificate, network, batch=batch).outcome is Outcome.UNIQUE
            decided += certify(network, batch=batch, engine="lifting").outcome is Outcome.UNKNOWN
    assert decided >= 1


def test_a_deeper_layer_is_used_where_the_first_has_too_few_neurons():
    network = default_network([8, 7, 40, 3], seed=3)
    verdict = certify_as(Outcome.UNIQUE, network, batch=random_batch(network, 4), engine="enumeration")
    assert verdict.layer == 2
    assert verdict.certificate["evidence"][0]["conclusion"]["lower_ranks"] == (4,)


def test_groups_leave_singletons_determined():
    network = default_network([30, 60, 4], seed=5, dtype=np.float64)
    batch = near_copy(network, 4)
    verdict = certify(network, batch=batch, engine="enumeration")
    assert verdict.samples == (U, D, D, D, U)
    assert verdict.certificate["evidence"][0]["conclusion"]["groups"][0] == (0, 4)
    assert check(verdict.certificate, network, batch=batch).samples == verdict.samples


def test_a_group_is_split_at_the_layer_above():
    """Large biases: no sample leaves the first layer's one region; the second layer tells them apart."""
    base = default_network([6, 14, 40, 3], seed=1, dtype=np.float64)
    signs = np.where(np.arange(14) % 4, 8.0, -8.0)
    network = ReluNetwork.from_arrays(
        [layer.weight for layer in base.layers],
        [signs, -4 * base.layers[1].weight @ np.maximum(signs, 0) / 4, base.layers[2].bias],
    )
    batch = random_batch(network, 3)
    (record,) = enumeration.decide(context_of(network, batch), Budget()).evidence
    assert record.conclusion.groups == ((0, 1, 2),)
    assert [part.layer for part in record.conclusion.splits] == [2]
    assert checked(record, subject(network, batch)).determined == frozenset(range(3))


def test_exactly_zero_deltas_are_known_for_rational_losses():
    """Where w_j . u_m = 0 exactly, the sample satisfies both equations, active or not."""
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(10):
        network = ReluNetwork.from_arrays(
            [rng.integers(-2, 3, (8, 3)), rng.integers(-2, 3, (2, 8))], [rng.integers(-2, 3, 8), [0, 0]]
        )
        x, y = rng.integers(-2, 3, (3, 3)), rng.integers(-2, 3, (3, 2))
        batch = Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.REAL)
        context = context_of(network, batch, Loss.MSE)
        pattern, difference = context.passed.patterns[0], context.passed.logits - y.T
        zero = network.layers[1].weight.T.astype(int) @ difference == 0
        inactive, active = engine.exact_states(context, 1)
        assert np.array_equal(inactive, ~pattern | zero)
        assert np.array_equal(active, pattern | zero)
        theirs = kernel.exact_states(subject(network, batch, Loss.MSE), 1)
        assert np.array_equal(theirs[0], inactive)
        assert np.array_equal(theirs[1], active)
        seen |= {(bool(p), bool(z)) for p, z in zip(pattern.flat, zero.flat, strict=True)}
    assert len(seen) == 4


# what it refuses


def test_duplicates_and_bottlenecks_stay_open():
    network = default_network([10, 40, 3])
    twins = random_batch(network, 3).select([0, 1, 2, 1])
    finding = enumeration.decide(context_of(network, twins), Budget())
    assert not finding.facts.determined
    assert "rank 3 only" in finding.attempts[0].note
    for seed in range(30):
        network, batch, second = two_one_five_one(seed)
        if second != batch:
            certify_as(Outcome.UNKNOWN, network, batch=batch, loss="mse", engine="enumeration")


def test_too_few_neurons_are_counted_and_one_sample_passes_on():
    network = default_network([6, 3, 4], seed=1)
    verdict = certify_as(Outcome.UNKNOWN, network, batch=random_batch(network, 2), engine="enumeration")
    assert "too few neurons tell samples apart" in verdict.reason
    verdict = certify(network, batch=random_batch(network, 1), engine="enumeration")
    assert "one sample needs no enumeration" in verdict.reason


def test_large_searches_are_only_made_when_asked_for():
    network, batch = random_case([30, 12, 10], 12)
    finding = enumeration.decide(context_of(network, batch, engine="auto"), Budget())
    assert "about 2^21 subspaces" in finding.attempts[0].note
    wide = default_network([80, 200, 3])
    finding = enumeration.decide(context_of(wide, random_batch(wide, 64)), Budget())
    assert "at most 63 samples" in finding.attempts[0].note


def test_groups_that_lifting_has_found_are_not_searched_again():
    network = default_network([30, 60, 4], seed=5, dtype=np.float64)
    batch = near_copy(network, 4)
    finding = enumeration.decide(context_of(network, batch, engine="auto"), Budget())
    assert finding.attempts[0].note == "layer 1: lifting has found this layer's groups already"


def test_a_work_limit_stops_the_search():
    network = default_network([20, 40, 8])
    verdict = certify(network, batch=random_batch(network, 6), work_limit=20_000, engine="enumeration")
    assert verdict.outcome is Outcome.UNKNOWN
    assert "work limit of 20000" in verdict.reason


def test_a_time_limit_stops_the_search():
    network = default_network([20, 40, 8])
    budget = Budget(seconds=1e-9)
    finding = enumeration.decide(context_of(network, random_batch(network, 6)), budget)
    assert not finding.facts.determined
    assert "budget of 1e-09 s ran out" in finding.attempts[0].note


def test_subspaces_without_q_mod_p_are_dropped_only_with_a_proof():
    """g_0 and g_1 have equal rows w mod p; over the reals w may differ by a multiple of p, and q be free."""
    delta = np.array([[1, 2], [3, 5], [1, 1]], dtype=np.uint64)
    outgoing = np.array([[1, 0], [1, 0], [4, 0]], dtype=np.uint64)
    states = {
        "inactive": np.array([0, 0, 3], dtype=np.uint64),
        "active": np.array([3, 3, 0], dtype=np.uint64),
    }
    found = {}
    for small in (True, False):
        equations = search.Equations(delta=delta, outgoing=outgoing, small=small, groups=(), **states)
        found[small] = search.search(equations, 0, equations.whole(), search.Limits())
    more = {k: v - found[True].open_leaves.get(k, 0) for k, v in found[False].open_leaves.items()}
    assert more[1] > 0
    assert all(v >= 0 for v in more.values())


def test_small_minors_are_told_from_large_ones():
    for last, expected in ((3, True), (PRIME - 1, False)):
        network = ReluNetwork.from_arrays(
            [np.eye(6, 3) + np.tri(6, 3), [[1, 1, 2, 1, 3, 1], [1, 3, 1, 2, 1, last]]], [np.ones(6), [0, 0]]
        )
        batch = random_batch(network, 2, loss=Loss.MSE)
        assert equations_of(context_of(network, batch, Loss.MSE)).small is expected


# the parts of the search


def test_inverses():
    for count in (0, 1, 7, 8, 9, 100, 101):
        values = random_residues(f"inverses/{count}", 1, count)[0] | np.uint64(1)
        assert np.all(multiply_mod(values, inverses_mod(values)) == 1)


def test_cuts_are_kernels_in_echelon_form():
    rng = np.random.default_rng(0)
    for dimension in range(2, 6):
        basis = np.stack([echelon(random_residues(f"cut/{k}", dimension, 8)) for k in range(5)])
        values = random_residues("values", 5, dimension)
        values[rng.random(values.shape) < 0.4] = 0
        values[~values.any(axis=1), 0] = 1
        batch = Subspaces(basis, np.zeros(5, dtype=np.uint64), np.zeros(5, dtype=np.int16))
        for space, found, weights in zip(basis, batch.cut(values), values, strict=True):
            assert rank_mod(found) == dimension - 1
            assert rank_mod(np.concatenate([space, found])) == dimension
            assert np.array_equal(found, echelon(found))
            assert not np.any(coordinates(space, found) @ weights.astype(object) % PRIME)


def echelon(matrix):
    """Reduced row echelon form by Python integers."""
    rows = [[int(v) for v in row] for row in matrix]
    done = 0
    for column in range(len(rows[0])):
        pivot = next((i for i in range(done, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[done], rows[pivot] = rows[pivot], rows[done]
        scale = pow(rows[done][column], -1, PRIME)
        rows[done] = [v * scale % PRIME for v in rows[done]]
        for i in range(len(rows)):
            if i != done:
                factor = rows[i][column]
                rows[i] = [(v - factor * w) % PRIME for v, w in zip(rows[i], rows[done], strict=True)]
        done += 1
    return np.array(rows[:done], dtype=np.uint64)


def coordinates(basis, vectors):
    """Coefficients of ``vectors`` on an echelon basis: their entries at its pivots."""
    pivots = [int(np.flatnonzero(row)[0]) for row in basis]
    return vectors[:, pivots].astype(object)


def test_merging_needs_equal_bases_and_equal_members():
    basis = np.stack([np.eye(2, 4, dtype=np.uint64)] * 3 + [np.eye(2, 4, 1, dtype=np.uint64)])
    batch = Subspaces(basis, np.array([1, 2, 1, 1], dtype=np.uint64), np.array([3, 1, 2, 1], dtype=np.int16))
    found = merged(batch)
    assert found.count == 3
    kept = {
        (int(m), int(b[0, 0])): int(a)
        for m, b, a in zip(found.members, found.basis, found.inactive, strict=True)
    }
    assert kept == {(1, 1): 2, (2, 1): 1, (1, 0): 1}
    assert joined([batch, batch]).count == 8


def test_joining_leaves():
    assert search.components([0b001, 0b110, 0b010]) == ((0,), (1, 2))
    assert search.components([0b0011, 0b1100, 0b0110]) == ((0, 1, 2, 3),)
    assert search.components([]) == ()


@pytest.mark.parametrize("samples", [3, 5])
def test_the_order_of_neurons_does_not_change_what_is_found(samples):
    network = default_network([20, 24, 4], seed=samples)
    equations = equations_of(context_of(network, random_batch(network, samples)))
    rng = np.random.default_rng(samples)
    for _ in range(3):
        order = rng.permutation(equations.neurons)
        ordered = {f: getattr(equations, f)[order] for f in ("delta", "outgoing", "inactive", "active")}
        other = replace(equations, **ordered)
        found = search.search(other, 0, other.whole(), search.Limits())
        assert found.leaves == {1 << m for m in range(samples)}
        assert not found.open_leaves


def test_halving_bounds_memory_and_changes_no_answer(monkeypatch):
    network = default_network([20, 40, 4], seed=1)
    equations = equations_of(context_of(network, random_batch(network, 6)))
    whole = search.search(equations, 0, equations.whole(), search.Limits())
    monkeypatch.setattr(search, "MAX_ENTRIES", 500)
    halved = search.search(equations, 0, equations.whole(), search.Limits())
    assert halved.leaves == whole.leaves == {1 << m for m in range(6)}
    assert halved.visited >= whole.visited


# parallel, interrupted, damaged


@pytest.fixture
def many_parts(monkeypatch):
    monkeypatch.setattr(tasks, "_rule", lambda _: (64, 8))


def problem():
    network = default_network([20, 40, 6], seed=1)
    return equations_of(context_of(network, random_batch(network, 6)))


@pytest.mark.parametrize("work", [None, 20_000, 35_000])
def test_any_number_of_processes_finds_the_same(many_parts, tmp_path, work):
    equations = problem()
    one, two = (
        tasks.search_in_parts(equations, Budget(work=work), jobs, tmp_path / str(jobs)) for jobs in (1, 2)
    )
    assert one == two
    assert one.stopped is (work is not None)
    if work is None:
        assert one.leaves == {1 << m for m in range(6)}


def test_parts_add_up_to_the_whole(many_parts, tmp_path):
    equations = problem()
    whole = search.search(equations, 0, equations.whole(), search.Limits())
    parts = tasks.search_in_parts(equations, Budget(), 1, tmp_path)
    assert parts.leaves == whole.leaves
    assert parts.open_leaves == whole.open_leaves == {}
    assert parts.visited >= whole.visited
    assert not list(tmp_path.iterdir())


def test_an_interrupted_search_goes_on_where_it_stopped(many_parts, tmp_path, monkeypatch):
    equations = problem()
    expected = tasks.search_in_parts(equations, Budget(), 1, tmp_path)
    searched = []
    honest = tasks.search

    def interrupted(*arguments):
        if len(searched) == 3:
            raise KeyboardInterrupt
        searched.append(arguments)
        return honest(*arguments)

    monkeypatch.setattr(tasks, "search", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tasks.search_in_parts(equations, Budget(), 1, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 3

    def counted(*arguments):
        searched.append(arguments)
        return honest(*arguments)

    searched.clear()
    monkeypatch.setattr(tasks, "search", counted)
    assert tasks.search_in_parts(equations, Budget(), 1, tmp_path) == expected
    assert len(searched) == 5
    assert not list(tmp_path.iterdir())


def test_stored_parts_obey_the_work_limit(many_parts, tmp_path):
    """A search that resumes gives the verdict of one that was never interrupted."""
    equations = problem()
    fresh = tasks.search_in_parts(equations, Budget(work=20_000), 1, tmp_path / "fresh")
    store = tasks.Store.of(equations, tmp_path / "stored")
    for part in range(8):
        store.save(part, search.Tally(work=10**9))
    resumed = tasks.search_in_parts(equations, Budget(work=20_000), 1, tmp_path / "stored")
    assert fresh.stopped
    assert resumed.stopped


def test_damaged_files_count_as_none_and_unwritable_places_store_nothing(many_parts, tmp_path):
    equations = problem()
    expected = tasks.search_in_parts(equations, Budget(), 1, tmp_path)
    store = tasks.Store.of(equations, tmp_path)
    for part, text in enumerate(["", "{}", "[]", '{"leaves": 3, "open_leaves": {}}', "\x00", "null"]):
        (tmp_path / f"{store.name}-{part}.json").write_text(text)
    assert tasks.search_in_parts(equations, Budget(), 1, tmp_path) == expected
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    assert tasks.search_in_parts(equations, Budget(), 1, blocked / "below") == expected


def test_another_question_has_another_name(tmp_path):
    equations = problem()
    changed = replace(equations, active=equations.active ^ np.uint64(1))
    assert tasks.Store.of(equations, tmp_path).name != tasks.Store.of(changed, tmp_path).name


def test_the_verdict_is_the_same_with_two_processes(many_parts):
    network, batch = random_case([20, 40, 6], 6, seeds=(1, 1))
    one, two = (certify(network, batch=batch, engine="enumeration", jobs=jobs) for jobs in (1, 2))
    assert one.outcome is two.outcome is Outcome.UNIQUE
    assert one.certificate["evidence"] == two.certificate["evidence"]
    assert one.attempts[0].note == two.attempts[0].note


# forged evidence


@pytest.fixture(scope="module")
def example():
    network, batch = random_case([9, 20, 16, 3], 4, seeds=(2, 1))
    (record,) = enumeration.decide(context_of(network, batch), Budget()).evidence
    assert record.conclusion.layer == 1
    return network, batch, record


FORGERIES = {
    "no order": ({"order": ()}, {}, "larger than the span"),
    "a neuron that is not there": ({"order": (20,)}, {}, "not there"),
    "a negative neuron": ({"order": (-1,)}, {}, "not there"),
    "one neuron again and again": ({"order": (3,) * 40}, {}, "larger than the span"),
    "prime": ({"prime": 2**31 - 1}, {}, "prime"),
    "point": ({"point": PRIME}, {}, "point"),
    "layer": ({}, {"layer": 3}, "no hidden layer"),
    "layer zero": ({}, {"layer": 0}, "no hidden layer"),
    "groups joined": ({}, {"groups": ((0, 1), (2,), (3,))}, "leaves join"),
    "groups dropped": ({}, {"groups": ((0,), (1,), (2,))}, "leaves join"),
    "single": ({}, {"parametrisation": "single"}, "more than one"),
    "zero sum below the last layer": ({}, {"parametrisation": "zero_sum"}, "sum to zero"),
    "determined": ({}, {"determined": (0, 1, 2)}, "determines"),
    "lower ranks": ({}, {"lower_ranks": (4,)}, "lower Delta"),
    "labels": ({}, {"labels": "loss_vectors"}, "last hidden layer"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_rejects_forged_evidence(example, name):
    network, batch, record = example
    outer, inner, match = FORGERIES[name]
    conclusion = Conclusion(**(msgspec.structs.asdict(record.conclusion) | inner))
    forged = Enumeration(**(msgspec.structs.asdict(record) | {"conclusion": conclusion} | outer))
    assert_refused(match, checked, forged, subject(network, batch))


def test_accepts_any_order_that_suffices(example):
    network, batch, record = example
    order = tuple(range(20))
    again = Enumeration(**(msgspec.structs.asdict(record) | {"order": order}))
    assert checked(again, subject(network, batch)).determined == frozenset(range(4))
    assert checked(record, subject(network, batch)).determined == frozenset(range(4))


def test_rejects_evidence_made_for_a_batch_with_distinct_patterns(example):
    """The same numbers for a batch in which two samples share a region."""
    network, _, record = example
    batch = near_copy(network, 3)
    assert_refused("leaves join", checked, record, subject(network, batch))


def test_rejects_duplicates_and_networks_without_biases(example):
    network, batch, record = example
    assert_refused("rank", checked, record, subject(network, batch.select([0, 0, 1, 2])))
    bare = ReluNetwork.from_arrays([layer.weight for layer in network.layers])
    assert_refused("no biases", checked, record, subject(bare, batch))


def test_engine_and_kernel_agree_on_small_integers():
    """Dependent rows w happen often here, and both drop subspaces because they are exactly dependent."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        network = ReluNetwork.from_arrays(
            [rng.integers(-3, 4, (6, 3)), rng.integers(-2, 3, (2, 6))],
            [rng.integers(-3, 4, 6), rng.integers(-3, 4, 2)],
        )
        batch = random_batch(network, 2, seed=int(rng.integers(1000)), loss=Loss.MSE)
        finding = enumeration.decide(context_of(network, batch, Loss.MSE), Budget())
        for record in finding.evidence:
            assert CHECKERS[type(record)](record, subject(network, batch, Loss.MSE)) == finding.facts


def test_the_kernel_drops_only_with_a_proof():
    """The cut with q_0 leaves {q = 0, u_0 = 0} mod p: zero over the reals by two inactive equations, or when
    dependences of rows w are exact.
    """
    axes = np.eye(4, dtype=np.uint64)
    neuron = kernel._Neuron(
        inactive=axes[0],
        active=np.array([1, 0, 1, 0], dtype=np.uint64),
        inactive_for=np.array([False, False]),
        active_for=np.array([False, False]),
    )
    for used, exact, left in ((0, False, 2), (0, True, 0), (1, False, 1), (1, True, 0)):
        nodes = kernel._Nodes(axes[[0, 3]][None], np.zeros((1, 2), dtype=np.uint64), np.array([used]))
        children = kernel._branch(nodes, neuron, 2, exact)
        assert sum(len(child.bases) for child in children) == left


def test_the_kernel_tells_small_minors_from_large_ones():
    for last, expected in ((3, True), (2 * PRIME + 5, False)):
        network = ReluNetwork.from_arrays(
            [np.eye(6, 3) + np.tri(6, 3), [[1, 1, 2, 1, 3, 1], [1, 3, 1, 2, 1, last]]], [np.ones(6), [0, 0]]
        )
        batch = random_batch(network, 2, loss=Loss.HINGE)
        for name in ("full", "zero_sum"):
            conclusion = Conclusion(
                layer=1,
                parametrisation=name,
                groups=((0,), (1,)),
                lower_ranks=(),
                determined=(),
                labels="backward_map",
            )
            asked = subject(network, batch, Loss.HINGE)
            assert kernel.small_minors(asked, conclusion, list(range(6))) is expected
            assert kernel.small_minors(asked, conclusion, list(range(5)))
