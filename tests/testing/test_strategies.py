"""The strategies: every drawn object has what was asked, exactly; nothing is filtered; what is drawn is
small, prints as Python, and shrinks to something a person can read.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.statistics import collector

from exan_verify import Box, Outcome, attack, audit, certify, check
from exan_verify.core.network import Batch, Gradient, ReluNetwork, to_fraction
from exan_verify.core.question import Labels, Loss, Release
from exan_verify.errors import InputError
from exan_verify.exact.backprop import forward, gradient, gradient_ball
from exan_verify.exact.linalg import rank
from exan_verify.exact.softmax import loss_vectors, loss_vectors_ball
from exan_verify.exclusivity import exclusivity
from exan_verify.instances import Instance, instance, source
from exan_verify.testing import digit_question, exclusivity_states, gradients, networks, questions, releases
from exan_verify.testing.strategies.construct import CLOSE
from exan_verify.testing.strategies.printing import _release
from tests.conftest import examples

STATES: dict[str, dict[str, Any]] = {
    "free": {},
    "published": {"published": True},
    "peelable": {"peelable": "all"},
    "unpeelable": {"peelable": "none"},
    "stopping set": {"stopping_set": True},
    "exans": {"exans": {1: (2, 0, 1), 2: (1, 1, 0)}},
    "exans, one dead": {"exans": {1: (2, 0, 1), 2: (1, 1, 0)}, "dead": 1},
    "regions": {"shared_region": (2, 1)},
    "regions, unpeelable": {"shared_region": (2, 1, 1), "peelable": "none"},
    "dead": {"dead": 1},
    "two dead": {"dead": 2, "peelable": "none"},
    "silent": {"silent": 1},
    "two silent": {"silent": 2},
    "twins": {"twins": True},
    "twins, stopping set": {"outcome": "ambiguous", "stopping_set": True},
    "twins, exans": {"twins": True, "exans": {1: (0, 0, 1)}, "shared_region": (2, 1)},
    "near a boundary": {"near_boundary": True},
    "near a boundary, published": {"near_boundary": True, "published": True},
    "unique": {"outcome": "unique"},
    "unique, near a boundary": {"outcome": "unique", "near_boundary": True},
}
FORMS = st.sampled_from(["float64", "float32", "rational"])


def first(strategy: st.SearchStrategy[Instance]) -> Instance:
    """One draw, not the smallest."""
    found = []

    @given(strategy)
    @settings(max_examples=1, phases=[Phase.generate])
    def drawn(question: Instance) -> None:
        found.append(question)

    drawn()
    return found[-1]


def same_region(question: Instance) -> list[int]:
    """Sizes of the groups of samples that share every pattern."""
    stacked = np.concatenate(forward(question.network, question.batch).patterns)
    return sorted(Counter(column.tobytes() for column in stacked.T.copy()).values())


def loss_vectors_of(question: Instance) -> np.ndarray:
    logits = forward(question.network, question.batch).logits
    return loss_vectors(question.loss, logits, question.batch.labels, 1)


def check_drawn(question: Instance, asked: dict[str, Any]) -> None:
    """Everything that was asked, by exact evaluation."""
    state = exclusivity(question.network, question.batch, loss=question.loss)
    assert state.published or not asked.get("published")
    if "peelable" in asked:
        assert set(state.peelable) == {asked["peelable"] == "all"}
    assert state.stopping_set or not asked.get("stopping_set")
    assert all(state.counts[layer - 1] == c for layer, c in asked.get("exans", {}).items())
    if "shared_region" in asked:
        assert same_region(question) == sorted(asked["shared_region"])
    passed = forward(question.network, question.batch)
    assert (~passed.patterns[0].any(axis=0)).sum() >= asked.get("dead", 0)
    if asked.get("silent"):
        assert (loss_vectors_of(question) == 0).all(axis=0).sum() >= asked["silent"]
    if asked.get("near_boundary"):
        nearest = min(abs(z) for z in pre_activations(question))
        assert nearest <= 8 * CLOSE["float32"]
    outcome = "ambiguous" if asked.get("twins") else asked.get("outcome")
    {None: lambda _: None, "ambiguous": check_twin, "unique": check_unique}[outcome](question)


def pre_activations(question: Instance) -> list[Fraction]:
    found, network = [], question.network
    h = np.array([[to_fraction(v) for v in row] for row in question.batch.inputs], dtype=object).T
    for layer in network.layers[:-1]:
        z = np.array([[to_fraction(v) for v in row] for row in layer.weight], dtype=object) @ h
        if layer.bias is not None:
            z = z + np.array([to_fraction(v) for v in layer.bias], dtype=object)[:, None]
        found += list(z.reshape(-1))
        h = np.maximum(z, 0)
    return found


def check_twin(question: Instance) -> None:
    """Another batch, with admitted labels and inputs, and the same gradient: exactly, or in every ball."""
    network, own, other, loss = question.network, question.batch, question.twin, question.loss
    assert question.planted
    assert other is not None
    ours, theirs = (sorted(zip(b.x, map(str, b.y), strict=True)) for b in (own, other))
    assert ours != theirs
    Batch.of(other.inputs, other.labels, network=network, loss=loss, labels=question.labels)
    if question.labels is Labels.KNOWN:
        assert sorted(map(str, own.y)) == sorted(map(str, other.y))
    if question.domain is not None:
        assert question.domain.contains(own)
        assert question.domain.contains(other)
    if loss.rational:
        assert gradient(network, own, loss, question.reduction) == gradient(
            network, other, loss, question.reduction
        )
        return
    one, two = (gradient_ball(network, b, loss, question.reduction, 300) for b in (own, other))
    for name in one:
        for a, b in zip(one[name].entries(), two[name].entries(), strict=True):
            assert a.overlaps(b)
            assert float(a.rad()) < 1e-60


def check_unique(question: Instance) -> None:
    """Appendix P.2: pairs of the samples' exclusive neurons with equal outgoing weights, independent pairs of
    loss vectors, none of them zero; and affinely independent inputs.
    """
    network, batch = question.network, question.batch
    assert len(network.layers) == 2
    (pattern,) = forward(network, batch).patterns
    ones = np.ones((batch.size, 1))
    points = np.array([[to_fraction(v) for v in row] for row in np.concatenate([batch.inputs, ones], axis=1)])
    assert rank(points) == batch.size
    last = network.layers[-1].weight
    exclusive = [np.flatnonzero(pattern[:, m] & (pattern.sum(axis=1) == 1)) for m in range(batch.size)]
    logits = forward(network, batch).logits
    balls = loss_vectors_ball(question.loss, logits, batch.labels, 1, 200)

    def feeds(j: int, c: int) -> bool:
        return bool(last[c, j] > 0 and not np.delete(last[:, j], c).any())

    for m in range(batch.size):
        for c in (0, 1):
            assert any(feeds(j, c) for j in exclusive[m])
            assert not balls[c, m].contains(0)
    for a, b in combinations(range(batch.size), 2):
        assert not (balls[0, a] * balls[1, b] - balls[1, a] * balls[0, b]).contains(0)


@pytest.mark.parametrize("name", STATES)
def test_what_is_asked_is_there(name: str):
    asked = STATES[name]

    # what is drawn is small enough to read as it is: making it smaller takes minutes
    @given(data=st.data(), numbers=FORMS)
    @settings(examples(24), phases=[Phase.generate])
    def drawn(data: Any, numbers: str) -> None:
        question = data.draw(questions(**asked, numbers=numbers))
        check_drawn(question, asked)
        dtypes = {layer.weight.dtype for layer in question.network.layers} | {question.batch.inputs.dtype}
        if numbers == "float32":
            assert dtypes == {np.dtype(np.float32)}

    drawn()


IMAGES: dict[str, dict[str, Any]] = {
    "free": {},
    "published": {"published": True},
    "peelable": {"peelable": "all"},
    "unpeelable": {"peelable": "none"},
    "stopping set": {"stopping_set": True},
    "exans": {"exans": {1: (2, 0, 1), 2: (1, 1, 0)}},
    "two dead": {"dead": 2},
    "twins": {"twins": True, "domain": Box(0, 1)},
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_digits_with_what_is_asked(name: str):
    asked = IMAGES[name]

    @given(data=st.data(), numbers=st.sampled_from(["float64", "float32"]))
    @settings(examples(4), phases=[Phase.generate])
    def drawn(data: Any, numbers: str) -> None:
        question = data.draw(questions(images=True, numbers=numbers, **asked))
        check_drawn(question, asked)
        again = eval(repr(question), {"digit_question": digit_question, "Box": Box})
        assert (again.network, again.batch, again.twin) == (question.network, question.batch, question.twin)
        assert question.batch.inputs.min() == 0
        assert question.batch.inputs.max() == 1

    drawn()


@given(data=st.data())
@examples(25)
def test_words_and_widths_are_kept(data: Any):
    loss = data.draw(st.sampled_from(["cross_entropy", "bce", "mse", "hinge"]))
    labels = data.draw(st.sampled_from(["one_hot", "known"]))
    biases = data.draw(st.booleans())
    box = data.draw(st.sampled_from([None, Box(-1, 0.1), Box([-0.3, -9, -1, -1], [1, 4, 2, 2])]))
    asked = data.draw(st.sampled_from([{}, {"stopping_set": True}, {"twins": True}, {"near_boundary": True}]))
    question = data.draw(
        questions(
            loss=loss,
            labels=labels,
            reduction="sum",
            biases=biases,
            widths=(4, 9, 7, 3),
            samples=(2, 3),
            domain=box,
            **asked,
        )
    )
    assert question.network.widths == (4, 9, 7, 3)
    assert question.network.has_bias is biases
    assert (question.loss.value, question.labels.value, question.reduction.value) == (loss, labels, "sum")
    assert question.batch.size in (2, 3)
    assert box is None or box.contains(question.batch)
    check_drawn(question, asked)


@given(data=st.data(), numbers=st.sampled_from(["float64", "float32"]))
@examples(12)
def test_generic_numbers_keep_what_is_asked(data: Any, numbers: str):
    name = data.draw(st.sampled_from(["published", "peelable", "twins", "exans", "regions"]))
    question = data.draw(questions(**STATES[name], numbers=numbers, generic=True))
    check_drawn(question, STATES[name])
    values = np.concatenate([layer.weight.reshape(-1) for layer in question.network.layers])
    assert numbers == "float32" or np.any(values * 64 % 1 != 0)


@given(data=st.data())
@examples(20)
def test_drawn_outcomes_are_never_contradicted(data: Any):
    outcome = data.draw(st.sampled_from(["unique", "ambiguous"]))
    question = data.draw(questions(outcome=outcome, samples=(1, 3)))
    verdict = certify(question, engine="exact", work_limit=3_000_000)
    assert verdict.outcome in (Outcome(outcome), Outcome.UNKNOWN)
    if verdict.certificate is not None:
        assert check(verdict.certificate, question).outcome is verdict.outcome


@pytest.mark.parametrize("outcome", ["unique", "ambiguous"])
def test_most_drawn_outcomes_are_decided(outcome: str):
    # the law above would hold for an engine that decides nothing
    decided: Counter[str] = Counter()

    @given(question=questions(outcome=outcome, samples=2))
    @examples(15)
    def drawn(question: Instance) -> None:
        decided[certify(question, engine="exact", work_limit=3_000_000).outcome.value] += 1

    drawn()
    assert decided[outcome] >= 0.8 * decided.total()


# health


@pytest.mark.parametrize("name", STATES)
def test_nothing_is_filtered(name: str):
    @given(questions(**STATES[name]))
    @settings(examples(20), phases=[Phase.generate], suppress_health_check=[])
    def drawn(_: Instance) -> None:
        pass

    told: list[dict[str, Any]] = []
    with collector.with_value(told.append):
        drawn()  # with Hypothesis' own checks of filtering, size and time
    statuses = Counter(case["status"] for case in told[0]["generate-phase"]["test-cases"])
    assert statuses["valid"] >= 8
    # a draw that is too long for the smallest sizes that Hypothesis tries is an overrun, not a rejection
    assert statuses["invalid"] <= 0.1 * (statuses["valid"] + statuses["invalid"])


# what a person sees


NAMES = {"Instance": Instance, "Box": Box, "Fraction": Fraction, "ReluNetwork": ReluNetwork}


@given(data=st.data(), numbers=FORMS)
@examples(20)
def test_the_printed_form_makes_the_question_again(data: Any, numbers: str):
    asked = data.draw(st.sampled_from([{}, {"twins": True}, {"published": True}]))
    domain = data.draw(st.sampled_from([None, Box(-7, 7), Box([-6, -5], [5, 6])]))
    widths = (2, 9, 3) if domain is not None else None
    question = data.draw(questions(**asked, numbers=numbers, domain=domain, widths=widths, samples=(1, 3)))
    again = eval(repr(question), NAMES)
    assert (again.network, again.batch, again.twin) == (question.network, question.batch, question.twin)
    assert repr(again) == repr(question)
    assert repr(again.question) == repr(question.question)


def test_instances_of_the_suite_print_as_python():
    for family in ("plain", "twin"):
        case = instance(family, Loss.HINGE, True, 1)
        again = eval(repr(case), NAMES)
        assert (again.name, again.planted, again.batch) == (case.name, case.planted, case.batch)


def test_networks_print_as_python_in_failures():
    @given(network=networks(numbers="rational", max_depth=2))
    @settings(examples(20), phases=[Phase.generate, Phase.shrink])
    def fails(network: ReluNetwork) -> None:
        assert len(network.layers) > 2

    with pytest.raises(AssertionError) as raised:
        fails()
    (shown,) = (line for line in raised.value.__notes__ if "network=" in line)
    text = shown[shown.index("network=") + len("network=") :].strip().rstrip(",)\n") + ")"
    assert eval(text, NAMES) == ReluNetwork.from_arrays([[[0]], [[0]]], [[0], [0]])


def test_what_fails_shrinks_to_the_smallest():
    smallest = find(
        questions(published=True, biases=True, samples=(1, 2)),
        lambda question: question.batch.size == 2,
        settings=settings(database=None, deadline=None, derandomize=True, max_examples=20),
    )
    assert smallest.network.widths[:2] == (1, 4)
    assert len(smallest.network.layers) == 2
    assert len(repr(smallest)) < 300
    assert "." not in source([layer.weight for layer in smallest.network.layers])


# doors


def test_public_functions_take_a_question_as_it_is():
    question = first(questions(outcome="unique", loss="bce", reduction="sum", samples=2))
    words = {"loss": "bce", "reduction": "sum", "labels": question.labels.value}
    verdict = certify(question, engine="exact", work_limit=3_000_000)
    assert (
        verdict.samples
        == certify(
            question.network, batch=question.batch, engine="exact", work_limit=3_000_000, **words
        ).samples
    )
    assert check(verdict.certificate, question).outcome is verdict.outcome
    found = audit(question, work_limit=3_000_000)
    assert found.question.loss is Loss.BCE
    assert found.published
    rebuilt = attack(question, batch_size=2)
    assert rebuilt.complete, rebuilt.reason
    assert sorted(map(tuple, np.round(rebuilt.x.numpy(), 6))) == sorted(map(tuple, question.batch.inputs))
    given = question.rounded_gradient()
    assert certify(question, gradient=given, tolerance=1e-9, batch_size=2).tolerant
    with pytest.raises(InputError, match="batch is missing"):
        audit(question.network)
    with pytest.raises(InputError, match="gradient is missing"):
        attack(question.network)


# gradients, states


@given(data=st.data(), form=st.sampled_from(["float64", "float32", "exact"]))
@examples(30)
def test_gradients_are_the_batch_s(data: Any, form: str):
    loss = data.draw(st.sampled_from(["mse", "hinge"] if form == "exact" else ["cross_entropy", "mse"]))
    question = data.draw(questions(loss=loss))
    noise = data.draw(st.sampled_from([0.0, 2.0**-10])) if form != "exact" else 0.0
    found: Gradient = data.draw(gradients(question, form=form, noise=noise))
    balls = gradient_ball(question.network, question.batch, question.loss, question.reduction)
    for name, array in found.tensors.items():
        true = np.array([float(v.mid()) for v in balls[name].entries()]).reshape(array.shape)
        allowed = noise + {"exact": 1e-15, "float64": 1e-15, "float32": 6e-8}[form] * (1 + np.abs(true).max())
        assert np.abs(array.astype(np.float64) - true).max(initial=0) <= allowed
    if form == "exact":
        assert found == gradient(question.network, question.batch, question.loss, question.reduction)


@given(state=exclusivity_states(published=True))
@examples(20)
def test_states_are_those_of_questions(state: Any):
    assert state.published
    assert all(min(layer) >= 1 for layer in state.counts)


@given(network=networks(biases=None), data=st.data())
@examples(30)
def test_releases_fit_their_network(network: ReluNetwork, data: Any):
    kinds = data.draw(st.sampled_from([("tensors", "rows", "weights"), ("rows",), ("tensors",), ()]))
    basis = data.draw(st.booleans())
    release = data.draw(releases(network, kinds=kinds, basis=basis))
    release.check_against(network)
    sent = {name: release.sends(name, len(array)) for name, array in network.parameters()}
    assert any(mask.any() for mask in sent.values())
    assert ("tensors" in kinds) or all(mask.any() for mask in sent.values())
    assert bool(kinds) or release.is_whole(network) is not basis
    if basis:
        assert rank(np.array(release.input_basis).astype(object)) == release.input_basis.shape[1]
    again = eval(_release(release), {"Release": Release})
    assert again == release


# bad input


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"peelable": "some"}, "peelable='some' is not known"),
        ({"outcome": "unknown"}, "outcome='unknown' is not known"),
        ({"published": True, "peelable": "all"}, "both prescribe"),
        ({"published": True, "dead": 1}, "published=True and dead= exclude one another"),
        ({"peelable": "all", "biases": False}, "needs biases"),
        ({"silent": 1, "loss": "bce"}, "never zero"),
        ({"labels": "real", "loss": "hinge"}, "for mse only"),
        ({"exans": {1: (1, 2), 2: (1,)}}, "different numbers of samples"),
        ({"exans": {3: (1, 2)}, "widths": (2, 5, 2)}, "names hidden layer 3"),
        ({"exans": {1: (0, 0)}, "twins": True}, "say what hides the twin"),
        ({"exans": {1: (1, 0, 0)}, "shared_region": (2, 1)}, "shares its region"),
        ({"samples": 3, "shared_region": (2, 2)}, "make them agree"),
        ({"samples": 9}, "samples=9"),
        ({"samples": (3, 2)}, "give 1 to 8"),
        ({"numbers": "float16"}, "numbers='float16' is not known"),
        ({"widths": (3,)}, "two numbers at least"),
        ({"widths": (3, 0, 2)}, r"widths\[1\]=0"),
        ({"widths": (3, 2), "published": True}, "no hidden layer"),
        ({"outcome": "unique", "widths": (3, 4, 4, 2)}, "one hidden layer"),
        ({"outcome": "unique", "loss": "hinge", "widths": (3, 4, 2)}, "needs 3"),
        ({"outcome": "unique", "generic": True}, "rest on coincidences"),
        ({"images": True, "silent": 1}, "images=True goes with"),
        ({"images": True, "widths": (3, 4, 10)}, "begin with 784"),
        ({"domain": (0, 1)}, "give Box"),
        ({"dead": -1}, "dead=-1"),
        ({"loss": "l1"}, "loss='l1' is not known"),
        ({"published": 1}, "published=1"),
    ],
)
def test_what_cannot_be_is_said_at_once(asked: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        questions(**asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"published": True, "widths": (2, 3, 2), "samples": 2}, "hidden layer 1 has 3 neurons"),
        ({"published": True, "widths": (1, 9, 2), "samples": 4}, "take [34] inputs"),
        ({"twins": True, "samples": 1, "loss": "bce"}, "it takes two samples"),
        ({"dead": 1, "samples": 1}, "takes 2 samples"),
        ({"dead": 1, "exans": {1: (1, 0), 2: (1, 1)}, "biases": False}, "fewer samples"),
        ({"silent": 2, "shared_region": (2, 1)}, "alone in their regions"),
        ({"dead": 2, "exans": {1: (1, 0, 1)}}, "fewer samples without exclusive neurons"),
        ({"shared_region": (1, 1), "peelable": "none"}, "without an exclusive neuron"),
        ({"twins": True, "domain": Box(1, 1)}, "room on both sides"),
        ({"images": True, "domain": Box(0, 0.5)}, "digits lie in"),
    ],
)
def test_what_does_not_fit_is_said_while_drawing(asked: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        first(questions(**asked))
    with pytest.raises(InputError, match="form"):
        gradients(instance("plain", Loss.BCE, True, 1), form="exact")
