"""cross_entropy and bce on the SMT path: targets, excluded balls, shears, and batches proved to exist."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from typing import Any

import flint
import numpy as np
import pytest

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.errors import RangeError
from exan_verify.exact.backprop import gradient_ball
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.arguments.isolate_softmax import softmax_isolation
from exan_verify.smt.confirm import accept_model, family_member
from exan_verify.smt.cubes import Task, all_literals, cube_tasks
from exan_verify.smt.existence import BallBatch
from exan_verify.smt.portfolio import SMT, Round, Settings, run
from exan_verify.smt.question.difference import placements
from exan_verify.smt.question.encode import encode
from exan_verify.smt.question.transcendental import lower, transcendental_target, upper
from exan_verify.smt.search import own_cube
from exan_verify.smt.shear import shear_script
from exan_verify.smt.solvers.run import SAT, UNSAT, Strategy, Worker
from tests.support.cases import batch_of
from tests.support.smt_cases import decide, decided, named, posed

CASES = ["plain/cross_entropy/bias/0", "plain/bce/bias/4", "deep/bce/bias/3", "zero/cross_entropy/bias/0"]


def own_task(name: str) -> Task:
    asked, truth = posed(named(name))
    fixed = tuple(zip(all_literals(asked), own_cube(truth), strict=True))
    return Task(index=0, posed=asked, fixed=fixed, others=(truth,))


@pytest.mark.parametrize("name", CASES)
def test_target_contains_the_real_gradient(name: str) -> None:
    """The polynomials in the batch's probabilities, at their enclosures, meet the gradient's balls."""
    case = named(name)
    target = transcendental_target(
        case.network, case.batch, Question(loss=case.loss, reduction=case.reduction)
    )
    balls = gradient_ball(case.network, case.batch, case.loss, case.reduction)
    with flint.ctx.workprec(200):
        symbols = {n: to_ball(a).union(to_ball(b)) for n, (a, b) in target.enclosures.items()}
        entries = iter(target.entries())
        for i, layer in enumerate(case.network.layers):
            weight, *bias = (balls[n] for n, _ in layer.parameters())
            for j in range(layer.shape[0]):
                for k in range(layer.shape[1]):
                    entry = next(entries)
                    assert entry.evaluate(symbols, to_ball).overlaps(weight[j, k])
                    assert target.weight_sizes[i][j][k] <= abs(weight[j, k]).upper().mid().__float__() + 1e-12
                for b in bias:
                    assert next(entries).evaluate(symbols, to_ball).overlaps(b[j, 0])


@pytest.mark.parametrize("name", CASES)
def test_no_other_batch_in_the_excluded_ball(name: str) -> None:
    """Random displacements inside the ball change the gradient, provably."""
    own = own_task(name)
    case, (truth,) = named(name), own.others
    encoding = encode(own.posed, own.assignment)
    order = next(placements(own.posed, truth, own.assignment))
    reach = softmax_isolation(own.posed, encoding, truth.batch, order)
    if reach is None:
        pytest.fail(f"{name} has no isolating ball; choose another case")
    rng = Random(5)
    given = gradient_ball(case.network, case.batch, case.loss, case.reduction, 300)
    for _ in range(40):
        moved = [
            [
                v + reach * Fraction(rng.randint(-1000, 1000), 1001) * Fraction(1, rng.choice([1, 8, 512]))
                for v in row
            ]
            for row in case.batch.x
        ]
        other = batch_of(
            case.network, np.array(moved, dtype=object), case.batch.labels, case.loss, Labels.KNOWN
        )
        found = gradient_ball(case.network, other, case.loss, case.reduction, 300)
        assert any(differs(found[n], given[n]) for n in found)


def differs(left: Any, right: Any) -> bool:
    return any(
        not (left[i, k] - right[i, k]).contains(0) for i in range(left.nrows()) for k in range(left.ncols())
    )


def test_the_ball_does_not_reach_a_second_solution() -> None:
    """One sample without biases: p(x) x = const has a second solution near 3.951 beside 1.5."""
    own = own_task("plain/cross_entropy/nobias/3")
    encoding = encode(own.posed, own.assignment)
    reach = softmax_isolation(own.posed, encoding, own.others[0].batch, (0,))
    assert reach is not None
    assert 0 < reach < Fraction(5, 2)


def test_a_transcendental_second_batch_is_proved_to_exist() -> None:
    case = named("plain/cross_entropy/nobias/3")
    verdict = decided(case)
    assert verdict.outcome is Outcome.AMBIGUOUS
    assert verdict.witness is not None
    assert verdict.witness.batch is None
    (record,) = verdict.witness.generators
    assert record["kind"] == "ball"
    x, y = (tuple(tuple(map(Fraction, row)) for row in record[k]) for k in "xy")
    found = BallBatch(x=x, y=y, radius=Fraction(record["radius"]))
    check_ball(case.network, case.batch, found, case.loss, case.reduction)
    assert float(found.x[0][0]) == pytest.approx(3.950972, abs=1e-5)


@pytest.mark.parametrize(
    "name", ["twin/cross_entropy/bias/0", "twin/bce/nobias/0", "shared/cross_entropy/bias/4"]
)
def test_a_family_gives_another_member(name: str) -> None:
    case = named(name)
    found = family_member(own_task(name))
    assert found is not None
    check_ball(case.network, case.batch, found, case.loss, case.reduction)


def check_ball(
    network: ReluNetwork, batch: Batch, found: BallBatch, loss: Loss, reduction: Reduction
) -> None:
    """The middle of the box has nearly the batch's gradient, and the box does not hold the batch."""
    y = np.array([[float(v) for v in row] for row in found.y])
    labels = y if loss is Loss.BCE else y.argmax(axis=1)
    other = batch_of(network, np.array(found.x, dtype=object), labels, loss)
    ours, theirs = (gradient_ball(network, b, loss, reduction, 300) for b in (batch, other))
    for n in ours:
        gap = ours[n] - theirs[n]
        assert all(abs(gap[i, k]) < 2.0**-60 for i in range(gap.nrows()) for k in range(gap.ncols()))
    pairs = zip(sorted(batch.x), sorted(found.x), strict=True)
    assert any(abs(a - b) > found.radius for u, v in pairs for a, b in zip(u, v, strict=True))


def test_no_second_batch_exists_near_a_unique_one() -> None:
    assert family_member(own_task("plain/cross_entropy/bias/0")) is None
    assert family_member(own_task("plain/bce/bias/4")) is None


def test_shears_are_linear_and_found_by_a_solver() -> None:
    own = own_task("twin/cross_entropy/bias/4")
    text = shear_script(own).text()
    assert "QF_LRA" in text
    with Worker() as worker:
        assert worker.ask(text, Strategy("z3", "smt")).status == SAT
        unique = shear_script(own_task("plain/cross_entropy/bias/0")).text()
        assert worker.ask(unique, Strategy("z3", "smt")).status == UNSAT


def test_over_approximation_alone_never_says_ambiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    """With confirmation switched off, satisfiable cubes stay open."""
    monkeypatch.setattr("exan_verify.smt.confirm._has_gradient", lambda *_: False)
    monkeypatch.setattr("exan_verify.smt.confirm.prove_existence", lambda *_: None)
    verdict = decided(named("plain/cross_entropy/bias/1"), work_limit=200_000)
    assert verdict.outcome is Outcome.UNKNOWN


def test_balls_around_the_batch_are_part_of_the_cube_task() -> None:
    asked, truth = posed(named("plain/bce/bias/4"))
    task = cube_tasks(Task(index=-1, posed=asked, others=(truth,)), [own_cube(truth)])[0]
    ((_, reach),) = task.reaches
    assert 0 < reach <= 1


def test_bounds_of_extreme_balls_are_on_the_right_side() -> None:
    with flint.ctx.workprec(256):
        tiny = flint.arb(-(10**12)).exp()
        assert (lower(tiny), lower(-tiny), upper(-tiny)) == (0, Fraction(-1, 2**100_000), 0)
        assert upper(tiny) == Fraction(1, 2**100_000)
        third = flint.arb(1) / 3
        assert lower(third) < Fraction(1, 3) < upper(third)
        with pytest.raises(RangeError, match="scale the network"):
            upper(flint.arb(10**12).exp())


@pytest.mark.parametrize("scale", [1e3, 1e12])
@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
def test_saturated_probabilities_are_handled(loss: Loss, scale: float) -> None:
    """Probabilities of about exp(-scale) end in a verdict, within memory."""
    network = ReluNetwork.from_arrays(
        [[[1.0, 2.0], [0.5, -1]], [[scale, -1.0], [2.0, -scale]]], [[0.5, 1.0], [0.0, 1.0]]
    )
    y: Any = [0, 1] if loss is Loss.CROSS_ENTROPY else [[0, 1], [1, 1]]
    batch = batch_of(network, [[1.0, 0.5], [-0.25, 0.5]], y, loss)
    verdict = decide(network, batch=batch, loss=loss, work_limit=50_000)
    assert verdict.outcome is not Outcome.UNREALISABLE


def test_a_model_of_the_whole_question_leads_to_a_batch_too() -> None:
    """No cube is fixed: the model's own Booleans say where to look."""
    asked, truth = posed(named("plain/bce/nobias/3"))
    whole = Task(index=-1, posed=asked, others=(truth,))
    found = run([whole], Settings(rounds=(Round(SMT, 2_000_000, 5.0),)), accept_model)
    assert found.accepted is not None or found.inconclusive
