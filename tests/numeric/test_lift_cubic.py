"""Lifting of degree three: the operator against polynomials, its null space, what it finds and refuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations_with_replacement, product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exan_verify import attack
from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.errors import RangeError
from exan_verify.numeric.ask_methods import column_spaces
from exan_verify.numeric.methods.equations import LayerEquations, layer_equations
from exan_verify.numeric.methods.lifting import lift, lift_cubic
from exan_verify.numeric.methods.lifting import smallest_eigenpairs as solver
from exan_verify.numeric.methods.lifting.cubic_operator import CubicOperator, cubic_unknowns, slices_of
from exan_verify.numeric.methods.lifting.lift import Lift
from exan_verify.numeric.methods.lifting.lift_cubic import (
    cubic_null_space,
    cubic_obstacle,
    cubic_operator,
    cubic_rows,
    cubic_size,
    cubic_starts,
)
from exan_verify.numeric.problem.losses import loss_vectors
from exan_verify.numeric.problem.passes import backward, forward
from exan_verify.numeric.problem.problem import Problem, build_problem
from tests.support.attack_cases import assert_nothing, attacked, largest_excess, problem_of
from tests.support.cases import default_network, random_batch, random_case
from tests.support.numeric_cases import drawn_batch
from tests.support.simulated_device import DeviceTensor, simulated_device
from tests.support.torch_reference import autograd, gradient, normal, perceptron, trained

SIZES = [(1, 1), (3, 2), (4, 0), (2, 5), (5, 3)]


def setup(
    widths: list[int], samples: int, loss: Loss = Loss.CROSS_ENTROPY
) -> tuple[Problem, LayerEquations, Tensor]:
    """The problem, the equations of its last hidden layer, and the true (q, p) there as columns."""
    network, batch = random_case(widths, samples, seeds=(3, 5), loss=loss)
    given = gradient(network, batch, loss, Reduction.SUM)
    problem = build_problem(network, given, loss=loss.value, reduction="sum")
    equations = layer_equations(problem, column_spaces(problem), len(widths) - 3)
    trace = forward(problem, torch.tensor(batch.inputs.astype(np.float64)))
    g = loss_vectors(problem.question.loss, trace.logits, torch.tensor(np.array(batch.labels)))
    delta = backward(problem, trace, g)[-2]
    carried = problem.layers[-1].backward(g).T
    q = equations.space.basis.T @ delta.T
    return problem, equations, torch.cat([q, torch.linalg.pinv(equations.forward) @ carried])


def monomials(samples: int, free: int) -> list[tuple[int, ...]]:
    triples = combinations_with_replacement(range(samples + free), 3)
    return [triple for triple in triples if triple[0] < samples]


def weights(samples: int, free: int) -> Tensor:
    """How much of |S T|^2 each monomial is: its entries in the slices, a mixed one counting twice."""
    total: Counter[tuple[int, ...]] = Counter()
    for k, a, b in product(range(samples + free), repeat=3):
        if a < samples:
            total[tuple(sorted((k, a, b)))] += 1 if b < samples else 2
    return torch.tensor([float(total[m]) for m in monomials(samples, free)], dtype=torch.float64)


def coordinates(vectors: Tensor, samples: int) -> Tensor:
    """The cubes of columns (q, p), in the isometric coordinates."""
    size = vectors.shape[0]
    chosen = monomials(samples, size - samples)
    products = torch.stack([vectors[a] * vectors[b] * vectors[c] for a, b, c in chosen])
    return products * weights(samples, size - samples).sqrt()[:, None]


@pytest.mark.parametrize(("samples", "free"), SIZES)
def test_the_unknowns_are_the_monomials_divisible_by_some_q(samples: int, free: int):
    assert slices_of(samples, free).unknowns == cubic_unknowns(samples, free) == len(monomials(samples, free))


def test_no_samples_no_unknowns():
    assert cubic_unknowns(0, 3) == 0


def test_equations_that_leave_nothing_out_have_no_solution():
    slices = slices_of(13, 8)
    none = torch.zeros(slices.apply(normal(slices.unknowns, 1)).shape[1], 0)
    operator = CubicOperator(slices=slices, rows=none.double(), complement=True)
    found = solver.smallest(
        operator, wanted=13, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"), work=1e7
    )
    assert float(found.values.min()) > 0.9


@pytest.mark.parametrize(("samples", "free"), SIZES)
def test_the_slices_of_a_cube_are_its_squares(samples: int, free: int):
    slices, v = slices_of(samples, free), normal(samples + free, 1)
    found = slices.apply(coordinates(v, samples))[:, :, 0] / slices.multiplicity.sqrt()
    first, second = slices.pair
    assert torch.allclose(found, v * (v[first, 0] * v[second, 0])[None])


@pytest.mark.parametrize(("samples", "free"), SIZES)
def test_slices_are_an_isometry_and_the_adjoint_is_the_transpose(samples: int, free: int):
    slices = slices_of(samples, free)
    tensors = normal(slices.unknowns, 3)
    image = slices.apply(tensors)
    other = normal(*image.shape, seed=1)
    assert torch.allclose(image.square().sum(), tensors.square().sum())
    assert torch.allclose(slices.adjoint(image), tensors)
    assert torch.allclose((image * other).sum(), (tensors * slices.adjoint(other)).sum())


@pytest.mark.parametrize("complement", [False, True])
def test_the_operator_is_its_matrix(complement: bool):
    slices = slices_of(4, 3)
    rows = torch.linalg.qr(normal(len(slices.multiplicity), 6))[0]
    operator = CubicOperator(slices=slices, rows=rows, complement=complement)
    matrix = operator.matrix()
    tensors = normal(operator.unknowns, 5)
    assert torch.allclose(matrix @ tensors, operator.apply(tensors))
    assert torch.allclose(matrix, matrix.T)
    assert torch.allclose((tensors * (matrix @ tensors)).sum(), operator.equations(tensors).square().sum())
    values = torch.linalg.eigvalsh(matrix)
    assert -1e-12 < float(values[0]) <= float(values[-1]) < 1 + 1e-12
    assert operator.work == 4 * 7 * rows.numel()


def polynomials(equations: LayerEquations) -> Tensor:
    """R3, multiplied out monomial by monomial, on the monomials' own values."""
    samples, free = equations.samples, int(equations.forward.shape[1])
    place = {monomial: k for k, monomial in enumerate(monomials(samples, free))}
    rows = []
    for delta, active in zip(equations.space.basis.tolist(), equations.forward.tolist(), strict=True):
        quadratic: Counter[tuple[int, ...]] = Counter()
        for (a, left), (b, right) in product(enumerate(delta), enumerate([*delta, *(-w for w in active)])):
            quadratic[tuple(sorted((a, b)))] += left * right
        for unknown in range(samples + free):
            row = [0.0] * len(place)
            for pair, coefficient in quadratic.items():
                row[place[tuple(sorted((*pair, unknown)))]] += coefficient
            rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("width", "samples"), [(20, 7), (24, 7), (16, 7)])
def test_the_null_space_is_that_of_the_polynomials_multiplied_out(width: int, samples: int):
    # 20 neurons span less than half of what a slice can be, 24 more; with 16 the null space is larger
    _, equations, truth = setup([20, width, 3], samples)
    operator, back = cubic_operator(equations)
    assert operator.complement == (width == 24)
    dense = polynomials(equations)
    values, vectors = torch.linalg.eigh(operator.matrix())
    null = vectors[:, values < 1e-12]
    assert null.shape[1] == dense.shape[1] - int(torch.linalg.matrix_rank(dense, rtol=1e-10)) >= samples
    # from the operator's coordinates of p to those of the equations, monomial by monomial
    full = torch.block_diag(torch.eye(samples, dtype=torch.float64), back)
    scaled = coordinates(torch.linalg.solve(full, truth), samples)
    scaled = scaled / scaled.norm(dim=0)
    assert float((scaled - null @ (null.T @ scaled)).norm()) < 1e-7
    assert float(operator.equations(scaled).norm()) < 1e-9
    assert float((dense @ (coordinates(truth, samples) / weights(samples, 2).sqrt()[:, None])).norm()) < 1e-9


@dataclass(frozen=True)
class Diagonal:
    """An operator with known eigenvalues."""

    values: Tensor
    work: float = 1.0

    @property
    def unknowns(self) -> int:
        return len(self.values)

    def apply(self, tensors: Tensor) -> Tensor:
        return self.values[:, None] * tensors

    def matrix(self) -> Tensor:
        return torch.diag(self.values)


@pytest.fixture(params=["all at once", "factored", "filtered"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one of the three ways to the smallest eigenvalues."""
    chosen: str = request.param
    monkeypatch.setattr(solver, "_SMALL", 10**6 if chosen == "all at once" else 0)
    monkeypatch.setattr(solver, "DIRECT", 0 if chosen == "filtered" else 10**6)
    if chosen == "factored":
        monkeypatch.setattr(solver, "_LEAST", 1e9)
    return chosen


@pytest.mark.parametrize("zeros", [4, 6, 40])
def test_the_smallest_eigenvalues_by_every_route(route: str, zeros: int):
    values = torch.cat([torch.zeros(zeros).double(), torch.linspace(1e-2, 1, 160).double()])
    found = solver.smallest(
        Diagonal(values[np.random.default_rng(1).permutation(len(values))]),
        wanted=4,
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        work=1e9,
    )
    assert found.settled
    assert (found.products > 0) == (route == "filtered")
    assert torch.allclose(found.values[:zeros], torch.zeros(zeros).double(), atol=1e-11)
    assert len(found.values) > zeros, "the block grows until something behind the null space is seen"
    assert 0.0099 < float(found.values[zeros]) < 0.02
    gram = found.vectors.T @ found.vectors
    assert torch.allclose(gram, torch.eye(len(gram)).double(), atol=1e-10)


def test_a_matrix_that_rounding_left_indefinite_is_shifted_further(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(solver, "_SMALL", 10**6)
    values = torch.cat([torch.full((4,), -3e-12).double(), torch.linspace(1e-3, 1, 60).double()])
    found = solver.smallest(
        Diagonal(values), wanted=4, generator=torch.Generator(), device=torch.device("cpu"), work=1e9
    )
    assert torch.allclose(found.values[:4], torch.zeros(4).double(), atol=1e-11)
    assert float(found.vectors[4:, :4].norm()) < 1e-6


def test_iteration_ends_with_its_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(solver, "_SMALL", 0)
    monkeypatch.setattr(solver, "DIRECT", 0)
    values = torch.cat([torch.zeros(4).double(), torch.logspace(-6, 0, 300).double()])
    found = solver.smallest(
        Diagonal(values),
        wanted=4,
        generator=torch.Generator(),
        device=torch.device("cpu"),
        work=12 * 60.0,
    )
    assert not found.settled
    assert 0 < found.products <= 60


@pytest.mark.parametrize(("widths", "samples"), [([30, 60, 3], 9), ([30, 60, 3], 12), ([40, 100, 4], 18)])
def test_pencils_of_contractions_give_the_samples(widths: list[int], samples: int):
    problem, equations, truth = setup(widths, samples)
    assert equations.spare < samples
    null = cubic_null_space(equations, generator=problem.generator(), work=1e12)
    assert (null.dimension, null.settled) == (samples, True)
    assert null.gap > 1e3
    directions = nn.functional.normalize(truth[:samples], dim=0)
    for q, p in cubic_starts(null, tries=2, generator=problem.generator()):
        cosines = (q.T @ directions).abs()
        assert sorted(cosines.argmax(dim=1).tolist()) == list(range(samples))
        assert float(cosines.amax(dim=1).min()) > 1 - 1e-6
        match = truth[:, cosines.argmax(dim=1)]
        scale = (q * match[:samples]).sum(dim=0) / match[:samples].square().sum(dim=0)
        assert float((p - scale * match[samples:]).norm()) < 1e-3 * float((scale * match[samples:]).norm())


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize(("widths", "samples"), [([100, 100, 4], 16), ([30, 60, 60, 60, 4], 9)])
def test_recovers_what_degree_two_cannot(widths: list[int], samples: int, loss: Loss):
    network, batch = random_case(widths, samples, seeds=(3, 5), loss=loss)
    given = {n: torch.tensor(g) for n, g in gradient(network, batch, loss, Reduction.MEAN).items()}
    problem = build_problem(network, given, loss=loss.value, reduction="mean", batch_size=samples)
    with pytest.raises(RangeError, match="beyond degree-2 lifting"):
        Lift(degrees=(2,)).find(problem, column_spaces(problem))
    found = attacked(network, batch, loss, method="lift", batch_size=samples)
    assert found.complete, found.reason
    assert found.method == "lift of degree 3"
    assert {status.method for status in found.status} == {"lift of degree 3"}
    assert largest_excess(found, batch) <= 1
    assert max(status.error_bound for status in found.status) < 1e-8
    layer = found.layers[(found.layer or 0) - 1]
    free = min(samples, layer.unknowns)
    assert layer.null_dimension == samples
    assert layer.unknowns in {cubic_unknowns(samples, k) for k in range(1, free + 1)}
    assert layer.equations > layer.unknowns - samples


def test_up_to_the_count_of_its_equations_and_not_beyond():
    network = default_network([100, 100, 4], seed=3)
    whole = attacked(network, random_batch(network, 20, seed=5), method="lift")
    assert whole.complete, whole.reason
    with pytest.raises(RangeError, match=r"beyond degree-2 .*degree 3: layer 1: 108 neurons needed"):
        attacked(network, random_batch(network, 21, seed=5), method="lift")


def test_a_trained_network_whose_batch_the_search_does_not_find():
    model = perceptron(100, 100, 4)
    x, y = drawn_batch("randn", 16, 100, 4, np.random.default_rng([0, 1]))
    x = x.float()
    trained(model, x, y, 200, 1e-2)
    given = autograd(model, x.double(), y)
    assert len(attack(model, given, method="assign").x) == 0
    found = attack(model, given)
    assert found.complete, found.reason
    assert found.method == "lift of degree 3"
    distance = torch.cdist(found.x, x.double()).amin(dim=1)
    assert float(distance.max()) < 1e-5


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("group", "dimension"), [(2, 4), (3, 10)])
def test_samples_of_one_pattern_are_left_out_and_the_others_kept(group: int, dimension: int, seed: int):
    # mixtures of the group's samples that vanish at one of their neurons solve their equations, too
    network = default_network([20, 60, 4], seed=3)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(10, 20))
    x[1:group] = x[0] + 1e-4 * rng.normal(size=(group - 1, 20))
    labels = np.arange(10) % 4
    batch = Batch.of(x, labels, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    found = attacked(network, batch, batch_size=10, method="lift")
    assert not found.complete
    assert found.layers[0].null_dimension == dimension + 10 - group
    assert f"groups of [{group}] (degree 3" in found.reason
    assert len(found.x) == 10 - group
    assert largest_excess(found, batch) <= 1


def test_float32_gradients_stay_within_their_bounds():
    network, batch = random_case([100, 100, 4], 14, seeds=(3, 5))
    found = attacked(network, batch, method="lift", dtype=np.float32)
    assert found.complete, found.reason
    assert found.method == "lift of degree 3"
    assert largest_excess(found, batch) <= 1
    assert 1e-7 < max(status.error_bound for status in found.status) < 1e-2


def test_what_peeling_leaves_is_lifted_by_degree_three(monkeypatch: pytest.MonkeyPatch):
    network, batch = random_case([20, 60, 3], 11, seeds=(3, 5))
    found = attacked(network, batch, method="peel+lift")
    assert found.complete, found.reason
    assert largest_excess(found, batch) <= 1
    monkeypatch.setattr(lift, "_cubic_obstacle", lambda *_: "no")
    assert not attacked(network, batch, method="peel+lift").complete


def test_obstacles_name_neurons_memory_and_operations(monkeypatch: pytest.MonkeyPatch):
    _, equations, _ = setup([40, 100, 4], 18)
    assert cubic_obstacle(equations, work=1e12) is None
    assert cubic_rows(equations) == equations.neurons * 21
    assert cubic_size(equations) == 1761
    assert cubic_obstacle(equations, work=1e6) == "layer 1: 2e+09 operations needed, planned for 1e+06"
    monkeypatch.setattr(lift_cubic, "MEMORY", 1 << 20)
    assert "GiB needed, planned for 0 GiB" in (cubic_obstacle(equations, work=1e12) or "")
    _, wide, _ = setup([40, 60, 4], 18)
    assert cubic_obstacle(wide, work=1e12) == "layer 1: 83 neurons needed"


def test_memory_is_planned_before_it_is_taken():
    # what the two squares of a factorised system take, and nothing near it where nothing is factored
    _, equations, _ = setup([40, 100, 4], 18)
    assert lift_cubic.cubic_memory(equations) > 2 * 8 * 1761**2
    problem = problem_of(*random_case([80, 1000, 4], 60))
    large = layer_equations(problem, column_spaces(problem), 0)
    assert cubic_size(large) > solver.DIRECT
    assert lift_cubic.cubic_memory(large) < lift_cubic.MEMORY < 8 * cubic_size(large) ** 2


def test_what_has_not_converged_is_said_and_nothing_claimed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(solver, "_SMALL", 0)
    monkeypatch.setattr(solver, "DIRECT", 0)
    monkeypatch.setattr(lift, "cubic_obstacle", lambda *_, **__: None)
    network, batch = random_case([100, 100, 4], 18, seeds=(3, 5))
    problem = problem_of(network, batch)
    found = Lift(work=1.0).find(problem, column_spaces(problem))
    assert_nothing(found, "not converged in the work planned")


def test_refusals_name_every_layer():
    network, batch = random_case([30, 24, 24, 4], 20, seeds=(3, 5))
    with pytest.raises(RangeError, match=r"degree 3: layer 1: .*; layer 2: .*; use a smaller batch"):
        attacked(network, batch, method="lift")
    narrow = default_network([30, 10, 4], seed=3)
    with pytest.raises(RangeError, match="degree 3: layer 1: its gradient has full rank"):
        attacked(narrow, random_batch(narrow, 20, seed=5), method="lift")


def test_a_layer_with_equations_to_spare_is_left_to_degree_two():
    network = default_network([20, 64, 5], seed=3)
    given = gradient(network, random_batch(network, 4, seed=5), Loss.CROSS_ENTROPY, Reduction.MEAN)
    problem = build_problem(network, given, loss="cross_entropy", reduction="mean")
    with pytest.raises(RangeError, match="degree 2 has equations enough"):
        Lift(degrees=(3,)).find(problem, column_spaces(problem))


def test_the_same_seed_gives_the_same_bits():
    network, batch = random_case([40, 60, 3], 11, seeds=(3, 5))
    first, second = (attacked(network, batch, method="lift", seed=7) for _ in range(2))
    assert first.complete
    assert torch.equal(first.x, second.x)


@pytest.mark.parametrize("direct", [True, False])
def test_on_a_device_it_computes_there(direct: bool, monkeypatch: pytest.MonkeyPatch):
    if not direct:
        monkeypatch.setattr(solver, "_SMALL", 0)
        monkeypatch.setattr(solver, "DIRECT", 0)
    network, batch = random_case([40, 60, 3], 11, seeds=(3, 5))
    here = attacked(network, batch, method="lift")
    assert (here.method, here.complete) == ("lift of degree 3", True)
    with simulated_device():
        there = attacked(network, batch, method="lift", device="meta")
        assert isinstance(there.x, DeviceTensor)
        assert torch.equal(there.x.cpu(), here.x)
    assert there.status == here.status
