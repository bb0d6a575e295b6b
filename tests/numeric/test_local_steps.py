"""Updates of several local steps: recall where theory has it, and no false claim where anything is wrong."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exan_verify import attack
from exan_verify.core.question import Loss
from exan_verify.errors import InputError
from exan_verify.models.chain import to_network
from exan_verify.numeric.ask_methods import column_spaces
from exan_verify.numeric.local_steps import directions
from exan_verify.numeric.local_steps.fit import fit_inputs
from exan_verify.numeric.local_steps.order import places
from exan_verify.numeric.local_steps.schedule import schedule_of
from exan_verify.numeric.local_steps.trajectory import moved_problem, run_of
from exan_verify.numeric.problem.metrics import wrong_claims
from exan_verify.numeric.problem.passes import backward, forward, gradient_error
from exan_verify.numeric.problem.problem import Problem, build_problem
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import FUNCTIONS

Update = dict[str, Tensor]


def sent(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    sizes: Sequence[int],
    *,
    epochs: int = 1,
    lr: float = 0.1,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    momentum: float = 0.0,
) -> Update:
    """Weights after torch's own steps minus before."""
    client = copy.deepcopy(model)
    optimiser = torch.optim.SGD(client.parameters(), lr=lr, momentum=momentum)
    for chosen in list(torch.arange(len(x)).split(list(sizes))) * epochs:
        optimiser.zero_grad()
        FUNCTIONS[Loss(loss)](client(x[chosen]), y[chosen], reduction=reduction).backward()
        optimiser.step()
    before = dict(model.named_parameters())
    return {name: (p - before[name]).detach() for name, p in client.named_parameters()}


def drawn(
    seed: int, samples: int = 4, widths: tuple[int, ...] = (12, 120, 6), loss: str = "cross_entropy"
) -> tuple[nn.Sequential, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    model = drawn_network(widths, rng)
    return model, *drawn_batch("rand", samples, widths[0], widths[-1], rng, loss)


def wrong(found: Any, x: Tensor, y: Tensor) -> int:
    return wrong_claims(found.x, found.y, [one.error_bound for one in found.status], x, y)


def problem_of(model: nn.Module, sums: Update, reduction: str = "mean") -> Problem:
    return build_problem(to_network(model), sums, loss="cross_entropy", reduction=reduction, batch_size=4)


SIZES = ((2, 2), (1, 3), (3, 1), (1, 1, 2))


def test_one_epoch_is_confirmed_with_its_order():
    """On 8 networks; where next deltas are nearly dependent other batches are not excluded."""
    confirmed = 0
    for seed in range(8):
        sizes = SIZES[seed % len(SIZES)]
        model, x, y = drawn(seed)
        found = attack(model, sent(model, x, y, sizes), local_steps=len(sizes), local_batches=sizes, lr=0.1)
        assert found.complete, found.reason
        assert wrong(found, x, y) == 0
        place = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        assert list(found.local_batch) == place[torch.cdist(found.x, x).argmin(dim=1)].tolist()
        confirmed += found.count("confirmed") == len(x)
    assert confirmed >= 5


@pytest.mark.parametrize(("loss", "depth"), [("mse", 1), ("bce", 1), ("hinge", 1), ("cross_entropy", 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_other_losses_and_depths_come_back_too(loss: str, depth: int, reduction: str):
    complete = 0
    for seed in range(3):
        widths = (12, 120, *(() if depth == 1 else (60,)), 6)
        model, x, y = drawn(seed, 3, widths, loss)
        update = sent(model, x, y, (1, 2), loss=loss, reduction=reduction, lr=0.05)
        found = attack(model, update, loss=loss, reduction=reduction, local_batches=(1, 2), lr=0.05)
        assert wrong(found, x, y) == 0
        assert loss == "hinge" or found.count("confirmed") == 0
        complete += found.complete
    assert complete >= 2


@pytest.mark.parametrize(("sizes", "epochs"), [((4,), 2), ((4,), 4), ((2, 2), 2)])
def test_several_passes_are_fitted(sizes: tuple[int, ...], epochs: int):
    complete = 0
    for seed in range(2):
        model, x, y = drawn(seed, widths=(30, 200, 6))
        update = sent(model, x, y, sizes, epochs=epochs)
        found = attack(
            model, update, local_steps=epochs * len(sizes), local_batches=sizes, lr=0.1, batch_size=4
        )
        assert wrong(found, x, y) == found.count("confirmed") == 0
        assert all(one.error_bound < 1e-9 for one in found.status)
        complete += found.complete
    assert complete >= 1


def test_the_fit_goes_on_to_rounding():
    """Its rounds contract slowly where samples are in several steps: the last change says little."""
    sizes, place, lr = (3, 3, 2), torch.repeat_interleave(torch.arange(3), torch.tensor([3, 3, 2])), 0.3
    schedule, _ = schedule_of(6, sizes, lr, None)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        model, _, y = drawn(seed, 8, (60, 80, 5))
        x = torch.tensor(rng.normal(size=(8, 60)))
        sums = {name: one / -lr for name, one in sent(model, x, y, sizes, epochs=2, lr=lr).items()}
        problem = problem_of(model, sums)

        def deltas_of(moved: Tensor, problem: Problem = problem, y: Tensor = y) -> Tensor:
            return run_of(problem, schedule, moved, y, place, lr).deltas[0]

        near = x + 1e-5 * torch.tensor(rng.normal(size=x.shape))
        fit = fit_inputs(problem.layers[0].augmented(), deltas_of, near)
        assert float((fit.x - x).abs().max()) < 5e-14


def test_more_samples_than_classes_and_filled_ranks_are_named(monkeypatch: pytest.MonkeyPatch):
    found = directions.find_directions

    def missing(problem: Problem, equations: Any, *, exact: bool) -> Any:
        made = found(problem, replace(equations, space=equations.space), exact=exact)
        return replace(made, found=made.found[:, 1:], method="")

    monkeypatch.setattr("exan_verify.numeric.local_steps.attack.find_directions", missing)
    monkeypatch.setattr(directions, "_PATIENCE", 1)
    for seed in range(2):
        model, x, y = drawn(seed, 5, (12, 120, 4))
        said = attack(model, sent(model, x, y, (3, 2)), local_batches=(3, 2), lr=0.1).reason
        assert "more samples than classes, 5 and 4" in said
        model, x, y = drawn(seed, 4, (12, 120, 6))
        said = attack(model, sent(model, x, y, (2, 2)), local_batches=(2, 2), lr=0.1).reason
        assert "more samples than classes" not in said
        rng = np.random.default_rng(seed)
        noise = {name: torch.tensor(rng.normal(size=p.shape)) for name, p in model.named_parameters()}
        for size in (None, 4):
            said = attack(model, noise, local_steps=2, lr=0.1, batch_size=size).reason
            assert "full rank at layer 1, 13" in said
            assert "Adam" in said


def test_steps_taken_for_one_are_named_with_the_scale_that_was_used():
    for seed in range(3):
        model, x, y = drawn(seed)
        update = sent(model, x, y, (4,), epochs=3)
        for told, scale in (({}, 1.0), ({"lr": 0.1}, -0.1)):
            found = attack(model, update, method="lift", **told)
            assert (found.status, found.scale) == ((), scale)
            assert "give local_steps or local_batches, and lr" in found.hint


def test_the_model_after_the_step_is_named():
    for seed in range(3):
        model, x, y = drawn(seed)
        step = sent(model, x, y, (4,), lr=0.5)
        gradient = {name: one / -0.5 for name, one in step.items()}
        assert attack(model, gradient).hint == ""
        with torch.no_grad():
            for name, one in model.named_parameters():
                one += step[name]
        found = attack(model, gradient, method="lift")
        assert found.status == ()
        assert "the weights are not those at which the gradient was taken" in found.hint


def test_draws_that_missed_are_drawn_anew(monkeypatch: pytest.MonkeyPatch):
    model, x, y = drawn(0, widths=(30, 200, 6))
    update, options = sent(model, x, y, (4,), epochs=2), {"local_steps": 2, "lr": 0.1, "batch_size": 4}
    whole, searched, found = attack(model, update, **options), [], directions.find_directions
    assert whole.complete

    def missing_at_first(problem: Problem, equations: Any, *, exact: bool) -> Any:
        searched.append(problem.seed)
        made = found(problem, equations, exact=exact)
        return replace(made, found=made.found[:, 1:]) if len(searched) < 2 else made

    monkeypatch.setattr("exan_verify.numeric.local_steps.attack.find_directions", missing_at_first)
    assert attack(model, update, **options).complete
    assert len(set(searched)) == 2


def test_one_sample_needs_no_search():
    for seed in range(6):
        model, x, y = drawn(seed, 1)
        found = attack(model, sent(model, x, y, (1,), epochs=3), local_steps=3, lr=0.1)
        assert found.complete
        assert wrong(found, x, y) == 0


WRONG: dict[str, dict[str, Any]] = {
    "a rate of half": {"lr": 0.05},
    "a rate that is off by 1e-6": {"lr": 0.1000001},
    "no rate": {"lr": None},
    "the other order of sizes": {"local_batches": (3, 1)},
    "two passes": {"local_steps": 4},
    "full steps": {"local_batches": None, "local_steps": 2},
    "sum for mean": {"reduction": "sum"},
    "another loss": {"loss": "hinge"},
}


@pytest.mark.parametrize("spoiled", WRONG)
def test_nothing_is_claimed_of_steps_that_were_others(spoiled: str):
    for seed in range(2):
        model, x, y = drawn(seed)
        told: dict[str, Any] = {"local_steps": 2, "local_batches": (1, 3), "lr": 0.1, "batch_size": 4}
        found = attack(model, sent(model, x, y, (1, 3)), **told | WRONG[spoiled])
        assert found.status == ()
        assert not found.complete
        assert found.reason


def test_inputs_are_shown_whatever_rate_is_told():
    model, x, y = drawn(1)
    update = sent(model, x, y, (1, 3))
    for lr in (None, 0.3):
        found = attack(model, update, local_batches=(1, 3), lr=lr)
        shown = torch.stack([one.x for one in found.candidates])
        assert float(torch.cdist(x, shown).amin(dim=1).max()) < 1e-9


def test_noise_is_never_confirmed_beyond_its_bound():
    for seed, size in enumerate((1e-9, 1e-6, 1e-3)):
        rng = np.random.default_rng(seed)
        model, x, y = drawn(seed)
        update = {
            name: u + size * u.square().mean().sqrt() * torch.tensor(rng.normal(size=u.shape))
            for name, u in sent(model, x, y, (2, 2)).items()
        }
        found = attack(model, update, local_batches=(2, 2), lr=0.1)
        assert wrong(found, x, y) == 0


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_targets_that_are_no_labels_explain_no_other_rate(loss: str):
    """Some targets explain any loss vector, so that the run with them has the update at any rate."""
    for seed in range(2):
        model, x, y = drawn(seed, 2, loss=loss)
        update = sent(model, x, y, (1, 1), loss=loss, reduction="sum")
        found = attack(model, update, loss=loss, reduction="sum", local_batches=(1, 1), lr=0.05)
        assert found.status == ()
        assert len(found.candidates) == 2


def test_momentum_is_not_taken_for_plain_steps():
    model, x, y = drawn(3)
    update = sent(model, x, y, (2, 2), momentum=0.9)
    assert attack(model, update, local_batches=(2, 2), lr=0.1).status == ()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_epoch_is_a_batch_whose_samples_meet_different_weights(reduction: str):
    """The moved layers against torch's steps: the gradient of the moved batch is the update over -lr."""
    for widths in ((12, 40, 6), (12, 40, 30, 6)):
        model, x, y = drawn(4, widths=widths)
        update = {n: u / -0.1 for n, u in sent(model, x, y, (1, 2, 1), reduction=reduction).items()}
        problem = problem_of(model, update, reduction)
        schedule, _ = schedule_of(3, (1, 2, 1), 0.1, None)
        place = torch.tensor([0, 1, 1, 2])
        moved = moved_problem(problem, schedule, run_of(problem, schedule, x, y, place, 0.1), place, 0.1)
        trace = forward(moved, x)
        g = moved.loss_vectors(trace.logits, y) / moved.divisor(4)
        assert max(gradient_error(moved, trace, backward(moved, trace, g))) < 1e-13


def test_the_order_is_read_off_the_deltas():
    model, x, y = drawn(7, widths=(12, 120, 20, 6))
    update = {n: u / -0.1 for n, u in sent(model, x, y, (1, 2, 1)).items()}
    problem = problem_of(model, update)
    schedule, _ = schedule_of(3, (1, 2, 1), 0.1, None)
    true = torch.tensor([2, 0, 1, 1])
    run = run_of(problem, schedule, x, y, torch.tensor([0, 1, 1, 2]), 0.1)
    mixed = torch.tensor([3, 0, 1, 2])
    found = places(problem, column_spaces(problem), schedule, x[mixed], run.deltas[0][mixed], 0.1)
    assert found.tolist() == true.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local_steps": 0}, "local_steps=0"),
        ({"local_steps": 3, "local_batches": (2, 2), "lr": 0.1}, "not a multiple of the 2 mini-batches"),
        ({"local_batches": (), "lr": 0.1}, "local_batches=a tuple"),
        ({"local_batches": (2, 0), "lr": 0.1}, "local_batches=0"),
        ({"local_batches": (2, 2), "batch_size": 5}, "batch_size=5 is not the sum of local_batches, 4"),
        ({"local_steps": 2, "lr": 0}, "lr=0 is not a positive number"),
        ({"local_steps": 2, "lr": float("nan")}, "lr=nan is not a positive number"),
        ({"local_steps": 2, "lr": 0.1, "scale": -0.1}, "leave scale out"),
        ({"lr": 0.1, "scale": "unknown"}, "leave scale out"),
        ({"local_steps": 2, "lr": 0.1, "weights": "positive"}, "weights='positive'"),
        ({"local_steps": 2, "lr": 0.1, "labels": "real"}, "labels='real'"),
        ({"local_steps": 2, "lr": 0.1, "method": "peel"}, "method='peel'"),
        ({"local_steps": 2, "lr": 0.1, "partial": True}, "partial=True"),
    ],
)
def test_words_that_do_not_go_together_are_refused(options: dict[str, Any], message: str):
    model, x, y = drawn(0)
    with pytest.raises(InputError, match=message):
        attack(model, sent(model, x, y, (2, 2)), **options)


def test_one_step_with_a_rate_is_a_scaled_gradient():
    model, x, y = drawn(0)
    found = attack(model, sent(model, x, y, (4,)), lr=0.1)
    assert found.complete
    assert found.scale == -0.1
    assert wrong(found, x, y) == 0
