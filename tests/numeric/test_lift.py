"""The parts of lifting: ranks, the lifted null space, joint diagonalisation, polishing, descending."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Loss, Reduction
from exan_verify.numeric.methods.equations import layer_equations, lifted_null_space, lifted_unknowns
from exan_verify.numeric.methods.lifting.diagonalise import pencil_starts
from exan_verify.numeric.methods.lifting.lift import Lift
from exan_verify.numeric.problem.downward import descend
from exan_verify.numeric.problem.losses import class_vectors, fit_labels, loss_vectors, target_vectors
from exan_verify.numeric.problem.passes import backward, delta_spans, forward
from exan_verify.numeric.problem.polish import meet, polish
from exan_verify.numeric.problem.problem import LayerGradient, Problem, build_problem
from exan_verify.numeric.problem.spectrum import ColumnSpace, column_space
from tests.support.attack_cases import problem_of, spaces_of
from tests.support.cases import default_network, random_batch, random_case
from tests.support.torch_reference import FUNCTIONS, gradient, normal


def setup(
    widths: list[int], samples: int, loss: Loss = Loss.CROSS_ENTROPY, seed: int = 3
) -> tuple[ReluNetwork, torch.Tensor, torch.Tensor, Problem, tuple[ColumnSpace, ...]]:
    network, batch = random_case(widths, samples, seeds=(seed, 5), loss=loss)
    problem, labels = problem_of(network, batch, loss), torch.tensor(np.array(batch.labels))
    return network, torch.tensor(batch.inputs.astype(np.float64)), labels, problem, spaces_of(problem, 20)


def noisy(rank: int, noise: float, shape: tuple[int, int] = (200, 300)) -> LayerGradient:
    exact = normal(shape[0], rank, seed=1) @ normal(rank, shape[1] + 1, seed=2)
    matrix = exact + noise * normal(shape[0], shape[1] + 1, seed=3)
    return LayerGradient(
        weight=matrix[:, :-1], bias=matrix[:, -1], d_weight=matrix[:, :-1], d_bias=matrix[:, -1]
    )


@pytest.mark.parametrize("most", [8, 120])
def test_rank_noise_and_basis_by_both_routes(most: int):
    layer = noisy(6, 1e-7)
    space = column_space(layer, unit_roundoff=2.0**-24, most=most, generator=torch.Generator().manual_seed(0))
    assert space.rank == 6
    assert not space.saturated
    assert space.gap > 1e5
    true_noise = 1e-7 * (200**0.5 + 301**0.5)
    assert true_noise <= space.noise <= 20 * true_noise
    clean = noisy(6, 0.0).augmented()
    assert float((clean - space.basis @ (space.basis.T @ clean)).norm()) < 1e-4
    assert torch.allclose(space.basis.T @ layer.augmented(), space.rows, atol=1e-9)


def test_a_weak_sample_above_the_noise_is_not_merged():
    layer = noisy(3, 0.0, (30, 8))
    weak = layer.augmented() + 1e-11 * torch.outer(torch.ones(30), torch.arange(9.0)).double()
    space = column_space(
        LayerGradient(weight=weak[:, :-1], bias=weak[:, -1], d_weight=weak[:, :-1], d_bias=weak[:, -1]),
        unit_roundoff=2.0**-53,
        most=4,
        generator=torch.Generator(),
    )
    assert space.rank == 4


def test_noise_above_the_dtype_is_noise_only_when_its_tail_is_long():
    for columns, rank in ((20, 4), (7, 8)):
        layer = noisy(4, 1e-7, (100, columns))
        space = column_space(layer, unit_roundoff=2.0**-53, most=20, generator=torch.Generator())
        assert space.rank == rank
        assert space.saturated is (rank == 8)


def test_full_rank_and_zero_gradients_are_saturated():
    for layer, rank in ((noisy(8, 0.0, (8, 40)), 8), (noisy(1, 0.0, (8, 40)), 0)):
        scale = 0.0 if rank == 0 else 1.0
        given = LayerGradient(
            weight=layer.weight, bias=layer.bias, d_weight=scale * layer.d_weight, d_bias=scale * layer.d_bias
        )
        space = column_space(given, unit_roundoff=2.0**-53, most=20, generator=torch.Generator())
        assert space.saturated
        assert space.rank == rank


@pytest.mark.parametrize(
    ("unit_roundoff", "remedy"),
    [(2.0**-53, "without noise"), (2.0**-24, "without noise"), (2.0**-6, "a float64 gradient")],
)
def test_a_reason_asks_for_float64_only_where_rounding_is_what_blurs(unit_roundoff: float, remedy: str):
    network = default_network([30, 52, 6], seed=1)
    rng = np.random.default_rng(3)
    noised = {
        name: entries * (1 + 0.03 * rng.normal(size=entries.shape))
        for name, entries in gradient(
            network, random_batch(network, 6, seed=2), Loss.CROSS_ENTROPY, Reduction.MEAN
        ).items()
    }
    problem = build_problem(network, noised, loss="cross_entropy", reduction="mean")
    problem = replace(problem, unit_roundoff=unit_roundoff)
    spaces = tuple(
        column_space(layer, unit_roundoff=unit_roundoff, most=14, generator=problem.generator())
        for layer in problem.layers
    )
    reason = Lift(degrees=(2,)).find(problem, spaces).reason
    assert reason.endswith(remedy), reason


@pytest.mark.parametrize(
    ("widths", "samples", "loss", "unknowns"),
    [
        ([20, 64, 5], 3, Loss.CROSS_ENTROPY, (3,)),  # rank [dW_2 | db_2] = 3 < K - 1
        ([20, 64, 4], 5, Loss.CROSS_ENTROPY, (3,)),  # K - 1
        ([20, 64, 4], 5, Loss.MSE, (4,)),  # K
        ([20, 64, 40, 4], 5, Loss.CROSS_ENTROPY, (5, 3)),  # M at the first, K - 1 at the last
        ([20, 64, 3, 4], 5, Loss.CROSS_ENTROPY, (3, 3)),  # a bottleneck: everything there
    ],
)
def test_the_parametrisation_of_the_next_delta(widths, samples, loss, unknowns):
    _, _, _, problem, spaces = setup(widths, samples, loss)
    found = [layer_equations(problem, spaces, k) for k in range(len(spaces) - 1)]
    assert tuple(int(eq.forward.shape[1]) for eq in found) == unknowns
    if not spaces[0].saturated:
        assert found[0].unknowns == lifted_unknowns(samples, unknowns[0])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("index", [0, 1])
def test_the_null_space_is_spanned_by_the_samples(exact: bool, index: int):
    _, x, y, problem, spaces = setup([20, 80, 72, 5], 4)
    eq = layer_equations(problem, spaces, index)
    null = lifted_null_space(eq, exact=exact)
    assert null.dimension == 4
    assert null.gap > 1e3
    trace = forward(problem, x)
    deltas = backward(problem, trace, loss_vectors(problem.question.loss, trace.logits, y) / 4)
    q = spaces[index].basis.T @ deltas[index].T
    true = torch.stack([torch.outer(v, v).flatten() for v in q.T])
    span = torch.linalg.qr(null.squares.flatten(1).T)[0]
    true = true / true.norm(dim=1, keepdim=True)
    assert float((true - (true @ span) @ span.T).norm()) < 1e-6


def test_pencils_and_polish_give_the_true_deltas():
    _, x, y, problem, spaces = setup([20, 80, 5], 4)
    eq = layer_equations(problem, spaces, 0)
    trace = forward(problem, x)
    deltas = backward(problem, trace, loss_vectors(problem.question.loss, trace.logits, y) / 4)[0]
    unit = deltas / deltas.norm(dim=1, keepdim=True)
    for q, p in pencil_starts(lifted_null_space(eq), tries=3, generator=problem.generator()):
        patterns, meeting = polish(spaces[0].basis, eq.forward, q, p)
        cosines = (meeting.deltas[:, :, 0] @ unit.T).abs()
        match = cosines.argmax(dim=1)
        assert sorted(match.tolist()) == [0, 1, 2, 3]
        assert torch.allclose(cosines.amax(dim=1), torch.ones(4).double(), atol=1e-12)
        assert float(meeting.sines[:, 0].max()) < 1e-12
        assert float(meeting.sines[:, 1].min()) > 0.05
        active = deltas[match] != 0
        assert torch.equal(patterns & active, active)


def test_principal_angles_are_those_of_the_cosines():
    basis = torch.linalg.qr(normal(30, 5))[0]
    spans = normal(2, 30, 3, seed=1)
    spans[1, :, 2] = spans[1, :, 1]
    meeting = meet(spans, basis)
    for m, width in ((0, 3), (1, 2)):
        q = torch.linalg.qr(spans[m, :, :width])[0]
        cosines = torch.linalg.svdvals(basis.T @ q)
        assert torch.allclose(meeting.sines[m, :width], (1 - cosines**2).sqrt(), atol=1e-12)
    assert float(meeting.sines[1, 2]) > 1


def test_descending_gives_the_inputs():
    _, x, y, problem, spaces = setup([20, 64, 60, 56, 5], 3)
    trace = forward(problem, x)
    deltas = backward(problem, trace, loss_vectors(problem.question.loss, trace.logits, y) / 3)
    for index in range(3):
        directions = (deltas[index] * torch.tensor([[2.0], [-3.0], [0.5]])).T
        found, reason = descend(problem, spaces, index, directions)
        assert reason == ""
        assert found is not None
        assert torch.allclose(found, x, atol=1e-9)
    _, _, _, other, narrow = setup([2, 3, 60, 5], 6)
    drawn = normal(60, narrow[1].rank)
    found, reason = descend(other, narrow, 1, drawn)
    assert found is None
    assert "layer 1" in reason


def test_spans_map_loss_vectors_to_deltas_and_free_the_doubtful():
    _, x, y, problem, _ = setup([20, 30, 24, 5], 3)
    trace = forward(problem, x)
    g = loss_vectors(problem.question.loss, trace.logits, y)
    spans = delta_spans(problem, trace)
    assert torch.allclose((spans @ g[:, :, None])[:, :, 0], backward(problem, trace, g)[0])
    sure = [torch.ones_like(z, dtype=torch.bool) for z in trace.pre]
    sure[0][1, 7] = False
    sure[1][2, 3] = False
    freed = delta_spans(problem, trace, tuple(sure))
    assert freed.shape == (3, 30, 7)
    # each doubtful neuron has a column of its own, in the sample it belongs to
    assert torch.equal(freed[1, :, 6], torch.nn.functional.one_hot(torch.tensor(7), 30).double())
    assert float(freed[0, :, 5:].abs().sum()) == 0
    below = problem.layers[1].weight.double()[3] * trace.patterns[0][2]
    assert torch.allclose(freed[2, :, 5], below)


@pytest.mark.parametrize("loss", list(Loss))
def test_loss_vectors_are_autograds_and_labels_come_back(loss: Loss):
    logits = normal(6, 4).requires_grad_()
    y = torch.arange(6) % 4
    if loss in (Loss.MSE, Loss.BCE):
        y = torch.nn.functional.one_hot(y, 4).double()
    FUNCTIONS[loss](logits, y, reduction="sum").backward()
    vectors = loss_vectors(loss, logits.detach(), y)
    assert torch.allclose(vectors, logits.grad)
    spans = normal(6, 20, 4, seed=1)
    deltas = (spans @ vectors[:, :, None])[:, :, 0] / 3
    fit = fit_labels(loss, logits.detach(), spans, deltas, divisor=3)
    assert torch.equal(fit.labels, y)
    assert float(fit.mismatch.max()) < 1e-12
    # a sample whose margins are all kept has no loss vector, and leaves no trace
    seen = (vectors != 0).any(dim=1)
    assert int(seen.sum()) >= 5
    assert torch.allclose(fit.counts, seen.double())
    assert bool(fit.checked.all())
    assert float(fit.margin.min()) > 1e3
    # a second copy of a sample doubles its loss vector: no label explains that at full scale
    doubled = fit_labels(loss, logits.detach(), spans, 2 * deltas, divisor=3)
    if loss in (Loss.CROSS_ENTROPY, Loss.HINGE):
        assert float(doubled.mismatch[seen].min()) > 0.1
        assert torch.allclose(doubled.counts, 2 * seen.double())


def test_fitted_samples_keep_their_precision():
    logits = torch.tensor([[40.0, 0.0, 0.0]], dtype=torch.float64)
    g = class_vectors(Loss.CROSS_ENTROPY, logits)[0, 0]
    assert float(g.sum()) == 0
    assert float(g[1]) == pytest.approx(np.exp(-40.0), rel=1e-12)
    sharp = target_vectors(Loss.BCE, logits, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64))
    assert float(sharp[0, 0]) == pytest.approx(-np.exp(-40.0), rel=1e-12)
