"""The encoding: what it admits, what it denies, and that broken encodings are noticed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from exan_verify.core.question import Loss, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.smt import cubes, search
from exan_verify.smt.cubes import Task, build
from exan_verify.smt.question import difference as exclude
from exan_verify.smt.question import encode as encode_module
from exan_verify.smt.question import encoder, losses
from exan_verify.smt.question import posed as question
from exan_verify.smt.question.difference import values_at
from exan_verify.smt.question.encode import abstraction, encode, state_names
from exan_verify.smt.question.encoder import Neuron
from exan_verify.smt.question.terms import FALSE, Poly, at_most, degree, implies, less, negate
from exan_verify.smt.solvers.run import SAT, UNSAT, SolverDisagreementError, Strategy, Worker
from tests.support.smt_cases import decided, mse_case, named, own_literals, pose, posed, violated_comments

RATIONAL = [
    f"{family}/{loss}/{biases}/{index}"
    for family in ("plain", "deep", "dead", "shared", "zero", "equal")
    for loss in ("mse", "hinge")
    for biases in ("bias", "nobias")
    for index in (0, 3)
]


@pytest.mark.parametrize("name", RATIONAL)
def test_the_batch_itself_satisfies_its_cube(name: str) -> None:
    """Every constraint but the exclusion, evaluated exactly at the known batch in the cube's order."""
    case = named(name)
    asked, truth = posed(case)
    fixed = own_literals(asked, truth)
    encoding = encode(asked, fixed)
    ordered = [
        violated_comments(encoding, values_at(encoding, truth, order))
        for order in exclude.placements(asked, truth, fixed)
    ]
    assert [] in ordered, ordered


@pytest.mark.parametrize("name", ["plain/mse/bias/0", "plain/hinge/nobias/2", "plain/mse/nobias/2"])
def test_whole_question_and_cube_agree_at_the_batch(worker: Worker, name: str) -> None:
    """The unfolded question with the batch's inputs asserted is satisfiable, with other inputs not."""
    asked, truth = posed(named(name))
    script = encode(asked).script
    order = sorted(range(truth.size), key=lambda n: (truth.states[n], truth.batch.x[n][0].value))
    for m, n in enumerate(order):
        for i, value in enumerate(truth.batch.x[n]):
            script.require(at_most(Poly.variable(f"x_s{m}_{i}"), value.value), "input")
            script.require(at_most(value, Poly.variable(f"x_s{m}_{i}")), "input")
    assert worker.ask(script.text(), Strategy("z3", "smt"), seconds=20).status == SAT
    script.require(less(Poly.variable("x_s0_0"), truth.batch.x[order[0]][0].value), "input")
    assert worker.ask(script.text(), Strategy("z3", "smt"), seconds=20).status == UNSAT


def test_a_cube_of_hinge_is_linear_and_one_of_mse_quadratic() -> None:
    for name, expected in (("plain/hinge/bias/1", 1), ("plain/mse/bias/0", 2), ("deep/mse/bias/2", 2)):
        asked, truth = posed(named(name))
        script = build(Task(index=0, posed=asked, fixed=tuple(own_literals(asked, truth).items())))
        assert max(degree(f) for _, f in script.assertions) == expected
        assert not script.used()[1], "a cube has no Booleans left"


def test_abstraction_is_linear_and_asks_for_activity() -> None:
    asked, _ = posed(named("plain/mse/bias/0"))
    script = abstraction(asked)
    assert script.logic == "QF_LRA"
    assert max(degree(f) for _, f in script.assertions) == 1
    assert any(c.startswith("entry (0, 0) of weight gradient 1") for c, _ in script.assertions)


def test_states_name_neurons_labels_and_margins() -> None:
    asked, _ = posed(named("plain/hinge/bias/4"))
    names = state_names(asked, 1)
    assert [n for n in names if n.startswith("on_")] == ["on_s1_l1_n0", "on_s1_l1_n1"]
    assert {"label_s1_0", "label_s1_1", "margin_s1_c0"} <= set(names)


def test_pre_activation_zero_is_inactive() -> None:
    network, batch = mse_case([[[1]], [[1]]], [[0], [0]], [[0], [1]], [[0], [0]])
    asked, truth = posed_of(network, batch)
    assert truth.states == ((False, True, False), (True, True, False))
    del asked


def posed_of(network: Any, batch: Any, reduction: Reduction = Reduction.MEAN) -> Any:
    return pose(network, batch=batch, loss=Loss.MSE, reduction=reduction)


# Each of these has a known outcome; a broken encoding must change one of them, or fail loudly.
WATCHED = {
    "plain/mse/bias/0": Outcome.UNIQUE,
    "plain/mse/nobias/3": Outcome.UNIQUE,
    "deep/mse/bias/2": Outcome.UNIQUE,
    "plain/hinge/nobias/2": Outcome.UNIQUE,
    "plain/mse/bias/1": Outcome.AMBIGUOUS,
    "shared/mse/bias/0": Outcome.UNIQUE,
}


def complaints() -> list[str]:
    """What goes wrong on the watched instances: nothing if the encoding is right."""
    found = []
    for name, outcome in WATCHED.items():
        try:
            verdict = decided(named(name), work_limit=1_500_000)
        except (SolverDisagreementError, ValueError, StopIteration, AssertionError) as error:
            found.append(f"{name}: {type(error).__name__}")
        else:
            if verdict.outcome is not outcome:
                found.append(f"{name}: {verdict.outcome.value}")
    return found


@pytest.mark.usefixtures("solvers_alone")
def test_the_encoding_itself_gives_no_complaint() -> None:
    assert complaints() == []


def flipped_relu(encoder: Any, z: Any, _activation: Any, place: tuple[int, int, int]) -> Any:
    m, i, j = place
    literal = encoder.literal(encode_module.neuron_name(m, i, j))
    encoder.require(implies(literal, less(z, 0)), "flipped")
    encoder.require(implies(negate(literal), at_most(Poly.constant(0), z)), "flipped")
    value = encoder.select(literal, z, Poly.constant(0), f"h_s{m}_l{i}_n{j}", "flipped")
    return Neuron(active=literal, capped=FALSE, value=value, passes=literal, has_value=literal)


def without_last(function: Any) -> Any:
    return lambda *arguments: function(*arguments)[:-1]


def only(kept: str) -> Any:
    original = encode_module._gradient_equations

    def mutated(*arguments: Any) -> Any:
        return [(n, e) for n, e in original(*arguments) if kept in n]

    return mutated


def shared_margin(encoder: Any, question: Any, sample: Any) -> None:
    """mse without its factor 2."""
    scale = Fraction(1, question.divisor)
    sample.vector = tuple((f - y) * scale for f, y in zip(sample.logits, sample.y, strict=True))


MUTANTS = {
    "flipped ReLU": (encode_module, "_activated", flipped_relu),
    "gradient rows of the first layer dropped": (encode_module, "_gradient_equations", only("2.")),
    "gradient rows of the weights dropped": (encode_module, "_gradient_equations", only("bias")),
    "exclusion of the given order only": (
        exclude,
        "placements",
        lambda _question, truth, _fixed: iter([tuple(range(truth.size))]),
    ),
    "no exclusion at all": (exclude, "placements", lambda *_: iter(())),
    "mean divides by nothing": (question.Posed, "divisor", property(lambda _: 1)),
    "mean divides by the samples only": (question.Posed, "divisor", property(lambda self: self.size)),
    "mse without its factor 2": (losses, "_VECTORS", {**losses._VECTORS, Loss.MSE: shared_margin}),
    "backward pass without the pattern": (
        encoder.Encoder,
        "select",
        lambda *arguments: arguments[2],
    ),
}


@pytest.fixture
def solvers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cube is settled by sums over regions: the encoding itself is what is watched."""
    monkeypatch.setattr(cubes, "_settled", lambda *_: False)
    monkeypatch.setattr(search, "settled_later", lambda _task: False)
    monkeypatch.setattr(search, "list_by_regions", lambda _question: None)


@pytest.mark.usefixtures("solvers_alone")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_broken_encodings_are_noticed(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    owner, attribute, replacement = MUTANTS[mutant]
    monkeypatch.setattr(owner, attribute, replacement)
    assert complaints(), f"{mutant} changes nothing that is watched"
