"""Region sums: the maps against exact gradients, and every refuter against batches that do exist."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import flint
import numpy as np
import pytest

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact import linalg
from exan_verify.exact.backprop import forward
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.exact.regions import region_of
from exan_verify.exact.softmax import loss_vectors, to_ball
from exan_verify.instances import FAMILIES, Instance, tiny_question
from exan_verify.smt.arguments.convex_sum import _positive_definite, definite
from exan_verify.smt.arguments.cover import _alone_in_layer
from exan_verify.smt.arguments.cube import Cube, Point
from exan_verify.smt.arguments.cubes_by_region import feasible_patterns, list_by_regions
from exan_verify.smt.arguments.enclose import System, only_known_zeros
from exan_verify.smt.arguments.minors import independent_columns, left_by_ranks, low_rank_contradicts
from exan_verify.smt.arguments.moments import moments_determine
from exan_verify.smt.arguments.no_other_batch import only_known
from exan_verify.smt.arguments.regions import Regions
from exan_verify.smt.arguments.scales import other_scale
from exan_verify.smt.arguments.signs import signs_contradict
from exan_verify.smt.arguments.totals import nothing_to_see, particular_totals
from exan_verify.smt.cubes import all_literals
from exan_verify.smt.question.terms import Poly
from exan_verify.smt.search import own_cube
from tests.support.cases import batch_of, words
from tests.support.smt_cases import decided, named, own_literals, pose, posed

F = Fraction


def cube_of(name: str) -> Cube:
    """The known batch's own cube."""
    case = named(name)
    question, truth = posed(case)
    regions = Regions(posed=question)
    fixed = own_literals(question, truth)
    known = tuple(
        Point(p, tuple(v.value for v in y), tuple(v.value for v in x))
        for p, x, y in zip(regions.states(truth.states), truth.batch.x, truth.batch.y, strict=True)
    )
    samples = tuple(map(Point, regions.patterns(fixed), regions.labels(fixed)))
    return Cube(regions=regions, samples=samples, known=known)


@pytest.mark.parametrize(
    "name", ["plain/mse/bias/0", "deep/mse/bias/3", "deep/mse/nobias/1", "plain/hinge/bias/2"]
)
def test_the_regions_maps_give_the_gradient(name: str) -> None:
    case = named(name)
    passed = forward(case.network, case.batch)
    zero_sum = case.loss is Loss.HINGE
    divisor = case.loss.divisor(case.reduction, case.batch.size, case.network.classes)
    vectors = loss_vectors(case.loss, passed.logits, case.batch.labels, divisor)
    total: Any = 0
    for m, x in enumerate(case.batch.x):
        pattern = tuple(tuple(bool(v) for v in layer[:, m]) for layer in passed.patterns)
        region = region_of(case.network, pattern, zero_sum=zero_sum)
        extended = np.array([*x, *([F(1)] if case.network.has_bias else [])], dtype=object)
        matrix = np.outer(vectors[: case.network.classes - zero_sum, m], extended)
        total = total + region.system @ matrix.reshape(-1)
    expected: list[Fraction] = []
    tensors = exact_gradient(case.network, case.batch, case.loss, case.reduction).tensors
    for layer in case.network.layers:
        arrays = [tensors[name] for name, _ in layer.parameters()]
        for j in range(layer.shape[0]):
            expected += [*arrays[0][j], *([arrays[1][j]] if layer.bias is not None else [])]
    assert list(total) == expected


OWN = [
    f"{family}/{loss}/{biases}/{index}"
    for family in FAMILIES
    for loss in ("mse", "cross_entropy", "bce")
    for biases in ("bias", "nobias")
    for index in (0, 3)
]


def sums(cube: Cube) -> tuple[list[Any], Any, list[Any], list[int]]:
    patterns = list(dict.fromkeys(p.pattern for p in cube.samples))
    here = [cube.samples_in(p) for p in patterns]
    system = cube.regions.joint(patterns)
    found = particular_totals(cube, patterns)
    return patterns, linalg.nullspace(system), found, [len(points) for points in here]


@pytest.mark.parametrize("name", OWN)
def test_a_cube_with_a_batch_is_never_called_empty(name: str) -> None:
    """The known batch exists in its own cube: nothing that does not know it may refute the cube."""
    case = named(name)
    if case.labels is Labels.REAL:
        return
    cube = cube_of(name)
    question, truth = posed(case)
    assert not cube.regions.inconsistent(own_literals(question, truth))
    patterns, kernel, totals, counts = sums(cube)
    assert not low_rank_contradicts(totals, kernel, counts)
    if not case.loss.rational:
        labels = [[p.y for p in cube.samples_in(q)] for q in patterns]
        regions = [cube.regions.region(p) for p in patterns]
        domain = question.bounds
        assert not signs_contradict(regions, kernel, totals, labels, domain, has_bias=case.network.has_bias)


SECOND = [
    "twin/mse/bias/0",
    "twin/cross_entropy/bias/1",
    "twin/bce/bias/2",
    "twin/bce/nobias/0",
    "shared/mse/bias/0",
]


@pytest.mark.parametrize("name", SECOND)
def test_where_a_second_batch_shares_the_cube_the_known_one_is_not_alone(name: str) -> None:
    case = named(name)
    question, truth = posed(case)
    if not case.planted:
        verdict = decided(case, budget=10.0)
        if verdict.outcome is not Outcome.AMBIGUOUS:
            return
    assert not only_known(Regions(posed=question), own_literals(question, truth), truth, boxes=300)


FORMERLY_OPEN = [
    "equal/mse/bias/2",
    "zero/mse/nobias/4",
    "deep/cross_entropy/bias/2",
    "shared/cross_entropy/bias/1",
    "plain/bce/nobias/0",
    "equal/bce/bias/3",
]


@pytest.mark.parametrize("name", FORMERLY_OPEN)
def test_the_known_batch_is_alone_in_its_cube(name: str) -> None:
    case = named(name)
    question, truth = posed(case)
    assert only_known(Regions(posed=question), own_literals(question, truth), truth)


@pytest.mark.parametrize(
    "name", [pytest.param("equal/mse/bias/2", marks=pytest.mark.campaign), "deep/cross_entropy/bias/2"]
)
def test_what_solvers_left_open_is_decided(name: str) -> None:
    assert decided(named(name), budget=40.0).outcome is Outcome.UNIQUE


def test_equal_samples_are_alone_only_where_logits_tell_inputs() -> None:
    """One neuron in two dimensions: equal samples can move apart along the level line of the logits."""
    network = ReluNetwork.from_arrays([[[1, 1]], [[1], [2]]], [[1], [0, 0]])
    for loss in (Loss.BCE, Loss.MSE):
        batch = batch_of(network, [[1, 1], [1, 1]], [[1, 0], [1, 0]], loss)
        question, truth = posed(instance_of(network, batch, loss))
        assert not only_known(Regions(posed=question), own_literals(question, truth), truth, boxes=200)


def instance_of(network: ReluNetwork, batch: Batch, loss: Loss) -> Instance:
    case = named("plain/mse/bias/0")
    return Instance(
        name="made",
        network=network,
        batch=batch,
        question=Question(loss=loss, reduction=case.reduction),
    )


def test_second_moments_do_not_determine_three_equal_labels() -> None:
    """S1: three samples of one region with one label are on a circle of batches; two are only exchanged."""
    region = region_of(
        ReluNetwork.from_arrays([[[1, 0], [0, 1]], [[1, 0], [0, 1]]], [[9, 9], [0, 0]]),
        ((True, True),),
        zero_sum=False,
    )
    y, points = (F(1), F(0)), [(F(1), F(2)), (F(2), F(1)), (F(3), F(5))]
    assert moments_determine([(region, [y, y], points[:2])], has_bias=True)
    assert not moments_determine([(region, [y, y, y], points)], has_bias=True)
    assert moments_determine([(region, [y, y, y], points[:1] * 3)], has_bias=True)
    # five second moments and a mean of one class against six entries of T
    assert not moments_determine([(region, [y, y, (F(0), F(1))], points)], has_bias=True)


def test_a_definite_combination_is_needed() -> None:
    x, y = Poly.variable("x"), Poly.variable("y")
    none = np.empty((2, 0), dtype=object)
    at = {"x": F(0), "y": F(0)}
    assert definite([x * x + y * y, x * y], at, none)
    assert not definite([x * x - y * y], at, none)  # x = y
    assert not definite([x * x], at, none)
    silent = np.array([[F(0)], [F(1)]], dtype=object)
    assert definite([x * x, y], at, silent)
    assert not definite([x * x + y * 0, y * x], at, silent)  # y stays free
    assert not definite([x * x + y], at, silent)  # the parabola y = -x^2


def test_rank_one_as_linear_equations_in_products() -> None:
    def balls(rows: list[list[int]]) -> Any:
        return np.array([[flint.arb(v) for v in row] for row in rows], dtype=object)

    one, two = balls([[1, 2], [2, 4]]), balls([[1, 0], [0, 1]])
    free = np.empty((4, 0), dtype=object)
    assert low_rank_contradicts([two], free, [1])
    assert not low_rank_contradicts([one], free, [1])
    assert not low_rank_contradicts([two], free, [2])
    corner = np.array([[F(0)], [F(0)], [F(0)], [F(1)]], dtype=object)
    assert not left_by_ranks([one], corner, [1]).shape[1]  # det = z
    row = np.array([[F(1)], [F(2)], [F(0)], [F(0)]], dtype=object)
    assert left_by_ranks([one], row, [1]).shape[1] == 1  # the first row is only scaled
    assert not low_rank_contradicts([two], corner, [1])  # z = -1 repairs it
    # nothing is said where the minors are zero at z = 0, or where there are none
    assert not low_rank_contradicts([one], corner, [1])
    assert not low_rank_contradicts([one], corner, [2])
    assert left_by_ranks([balls([[1, 2]])], corner[:2], [1]).shape[1] == 1
    off = np.array([[F(0)], [F(1)], [F(0)], [F(0)]], dtype=object)
    assert low_rank_contradicts([two], off, [1])  # det = 1 whatever z
    assert not independent_columns([[flint.arb(1), flint.arb(2)], [flint.arb(2), flint.arb(4)]])


def test_a_new_region_would_have_to_show_what_nobody_sees() -> None:
    """Three samples, two in one region: a sample moved to another region has a neuron of its own there, whose
    gradient is told by the sample that is left.
    """
    question, truth = posed(tiny_question(Loss.BCE, 26))
    names = all_literals(question)
    for bits, empty in (
        ("1011000000001 1100000000001 1101000000010", True),
        ("1011000000001 1100000000001 1110000000010", True),
        ("1011000000001 1100000000001 1100000000010", False),  # the regions of the batch
    ):
        fixed = dict(zip(names, [b == "1" for b in bits.replace(" ", "")], strict=True))
        regions = Regions(posed=question)
        known = tuple(
            Point(p, tuple(v.value for v in y), tuple(v.value for v in x))
            for p, x, y in zip(regions.states(truth.states), truth.batch.x, truth.batch.y, strict=True)
        )
        samples = tuple(map(Point, regions.patterns(fixed), regions.labels(fixed)))
        assert nothing_to_see(Cube(regions=regions, samples=samples, known=known)) is empty


def _rank_one(rng: np.random.Generator, shape: tuple[int, int]) -> Any:
    return np.outer(rng.integers(-3, 4, shape[0]), rng.integers(-3, 4, shape[1])) * F(1)


@pytest.mark.parametrize("seed", range(60))
def test_ranks_never_exclude_what_has_them(seed: int) -> None:
    """Two matrices of rank one per region, their difference among what the gradient leaves: whichever of
    them is known, the other one stays possible.
    """
    rng = np.random.default_rng(seed)
    regions, shape = int(rng.integers(1, 4)), (int(rng.integers(2, 4)), int(rng.integers(2, 4)))
    first, second = ([_rank_one(rng, shape) for _ in range(regions)] for _ in range(2))
    for place in range(regions):
        if rng.random() < 0.4:  # some regions see no difference
            second[place] = first[place]
    step = np.concatenate([(b - a).reshape(-1) for a, b in zip(first, second, strict=True)])
    others = rng.integers(-2, 3, (len(step), int(rng.integers(0, 3)))) * F(1)
    kernel = np.concatenate([step[:, None], others], axis=1)
    kernel = kernel[:, linalg.pivots(kernel)]
    totals = [np.array([[flint.arb(int(v)) for v in row] for row in t], dtype=object) for t in first]
    left = left_by_ranks(totals, kernel, [1] * regions)
    assert linalg.rank(np.concatenate([left, step[:, None]], axis=1)) == left.shape[1]
    assert not low_rank_contradicts(totals, kernel, [1] * regions)


def test_regions_are_told_one_after_the_other() -> None:
    """The first region's minor forces z_1 = 0; the second's, z_1 times something + z_2, then z_2 = 0. Both at
    once have more products than minors.
    """
    one = np.array([[flint.arb(1), flint.arb(2)], [flint.arb(2), flint.arb(4)]], dtype=object)
    corner, other = [F(0), F(0), F(0), F(1)], [F(3), F(-1), F(5), F(2)]
    kernel = np.array([[*corner, *other], [F(0)] * 4 + corner], dtype=object).T
    assert not left_by_ranks([one, one], kernel, [1, 1]).shape[1]
    assert left_by_ranks([one, one], kernel, [1, 2]).shape[1] == 1
    assert left_by_ranks([one, one], kernel, [2, 1]).shape[1] == 2
    # elsewhere the first region tells z_1 = 2 of its own minor, and then the second has no rank one, or has
    moved = one.copy()
    moved[1, 1] = flint.arb(2)
    other = one + np.array([[flint.arb(v) for v in row] for row in ((-6, 2), (-10, -4))], dtype=object)
    first = kernel[:, :1]
    assert not low_rank_contradicts([moved, other], first, [1, 1])
    assert low_rank_contradicts([moved, one], first, [1, 1])
    assert not low_rank_contradicts([moved, one], first, [1, 2])


def test_products_cancel_where_a_row_and_a_column_are_known() -> None:
    """Of a matrix of rank one: the rest has four entries, ten products and nine minors."""
    one = np.array([[flint.arb(a * b) for b in (1, 2, 3)] for a in (1, -1, 2)], dtype=object)
    units = linalg.identity(9)
    rest = units[:, [4, 5, 7, 8]]
    assert not left_by_ranks([one], rest, [1]).shape[1]
    assert left_by_ranks([one], units[:, [3, 4, 5]], [1]).shape[1] == 3  # the second row may be scaled
    two = one.copy()
    two[0, 0] = flint.arb(0)  # a first row and column that no matrix of rank one has
    assert low_rank_contradicts([two], rest, [1])
    assert not low_rank_contradicts([one], rest, [1])


def test_a_sample_with_a_neuron_of_its_own_tells_the_other() -> None:
    """Two samples without biases; the gradient alone determines neither's T."""
    case = tiny_question(Loss.CROSS_ENTROPY, 36)
    question, truth = posed(case)
    assert only_known(Regions(posed=question), own_literals(question, truth), truth)


@pytest.mark.parametrize(
    ("loss", "logits", "label", "other", "expected"),
    [
        (Loss.MSE, [F(1, 4)], (F(1),), (F(1),), True),  # c = 3
        (Loss.MSE, [F(2)], (F(0),), (F(1),), True),  # c = (1 + sqrt 17) / 4
        (Loss.MSE, [F(1)], (F(3, 2),), (F(3),), True),  # c^2 - 3 c + 1/2: two positive roots
        (Loss.MSE, [F(1)], (F(3, 2),), (F(-3),), False),  # c^2 + 3 c + 1/2: two negative ones
        (Loss.MSE, [F(1), F(2)], (F(0), F(1)), (F(0), F(1)), False),
        (Loss.BCE, [F(2)], (F(1),), (F(1),), True),
        (Loss.BCE, [F(-2)], (F(1),), (F(1),), False),
        (Loss.BCE, [F(2), F(3)], (F(1), F(1)), (F(1), F(1)), False),
        (Loss.CROSS_ENTROPY, [F(2), F(0), F(0)], (F(1), F(0), F(0)), (F(1), F(0), F(0)), True),
        (Loss.CROSS_ENTROPY, [F(2), F(0), F(1)], (F(1), F(0), F(0)), (F(1), F(0), F(0)), False),
    ],
)
def test_other_scales(loss: Loss, logits: Any, label: Any, other: Any, expected: bool) -> None:
    assert other_scale(loss, logits, label, other) is expected


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse"])
def test_what_a_sample_satisfies_alone(loss: str, biases: bool) -> None:
    """q . p = 1 and the rows that follow, at the known samples; not where one of them is moved."""
    asked = told = 0
    for seed in range(30):
        rng = np.random.default_rng([seed, biases])
        features, samples = 2, 2 + biases
        widths = [features, 5, 3]
        weights = [rng.integers(-3, 4, (b, a)) for a, b in pairwise(widths)]
        offsets = [rng.integers(-2, 3, b) for b in widths[1:]] if biases else None
        network = ReluNetwork.from_arrays(weights, offsets)
        y = rng.integers(0, 3, samples) if loss == "cross_entropy" else np.eye(3)[rng.integers(0, 3, samples)]
        x = rng.integers(-3, 4, (samples, features))
        batch = batch_of(network, x, y, Loss(loss))
        question, truth = posed(instance_of(network, batch, Loss(loss)))
        known = tuple(
            Point(p, tuple(v.value for v in y), tuple(v.value for v in x))
            for p, x, y in zip(
                Regions(posed=question).states(truth.states), truth.batch.x, truth.batch.y, strict=True
            )
        )
        cube = Cube(regions=Regions(posed=question), samples=known, known=known)
        for m, equations in enumerate(_alone_in_layer(cube, known)):
            asked += 1
            vector = cube.vector(known[m])
            for moved in (False, True):
                shift = [F(1, 2) * moved, *[F(0)] * (features - 1)]
                a = [F(1), *(v + s for v, s in zip(known[m].x, shift, strict=True))]
                values = [
                    sum(
                        (
                            g * to_ball(v) * r
                            for g, row in zip(vector, rows, strict=False)
                            for r, v in zip(row, a, strict=True)
                        ),
                        flint.arb(0),
                    )
                    - right
                    for rows, right in equations
                ]
                assert moved or all(v.contains(0) for v in values)
                told += moved and not all(v.contains(0) for v in values)
    assert asked > 10
    assert told > asked / 2


def simple(known: Any, right: float, labels: tuple[int, ...] = (1,)) -> System:
    """sigma(a) - 1 = right, and a (sigma(a) - 1) whatever it is at ``known``: one sample, one coordinate."""
    return System(
        loss=Loss.BCE,
        logits=(np.array([[F(0), F(1)]], dtype=object),),
        labels=(tuple(map(F, labels)),),
        conditions=((),),
        weights=np.array([[[[F(1), F(0)]]]], dtype=object),
        right=(flint.arb(right),),
        known=known,
    )


def test_a_cover_of_the_whole_line() -> None:
    """sigma(a) - 1 is never -2 or 0.5; it is -1/2 at a = 0 only; without the zero being known there is
    none.
    """
    line = ((None, None),)
    assert only_known_zeros(simple((), -2.0), line, 10)
    assert only_known_zeros(simple((), 0.5), line, 10)
    assert only_known_zeros(simple(((F(0),),), -0.5), line, 200)
    assert not only_known_zeros(simple((), -0.5), line, 500)
    # the limit at infinity is a zero that no box away from it excludes
    assert not only_known_zeros(simple((), 0.0), line, 500)


def test_a_second_zero_in_the_box_is_not_overlooked() -> None:
    """mse, f = a, y = 0: 2 a * a = 2 has the zeros 1 and -1, of which one is known."""
    weights = np.array([[[[F(0), F(1)]]]], dtype=object)

    def square(known: Any, conditions: Any) -> System:
        likewise = simple(known, 2, labels=(0,))
        return replace(likewise, loss=Loss.MSE, conditions=(conditions,), weights=weights)

    line, one, both = ((None, None),), ((F(1),),), ((F(1),), (F(-1),))
    assert only_known_zeros(square(both, ()), line, 500)
    assert not only_known_zeros(square(one, ()), line, 500)
    assert not only_known_zeros(square(one, ()), ((F(-2), F(2)),), 500)
    positive = ((np.array([F(0), F(1)], dtype=object), True),)
    assert only_known_zeros(square(one, positive), line, 500)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[2, 1], [1, 2]], True),
        ([[1, 2], [2, 1]], False),
        ([[0, 0], [0, 1]], False),
        ([[1, 1], [1, 1]], False),
    ],
)
def test_definite_matrices(rows: list[list[int]], expected: bool) -> None:
    assert _positive_definite(np.array([[F(v) for v in row] for row in rows], dtype=object)) is expected


def test_regions_of_a_line() -> None:
    case = named("zero/bce/nobias/4")
    question, _ = posed(case)
    found = feasible_patterns(question)
    assert found is not None
    assert len(found) == 3  # x < 0, x = 0, x > 0


@pytest.mark.parametrize("name", ["zero/mse/nobias/4", "equal/bce/nobias/3"])
def test_the_list_by_regions_has_the_own_cube(name: str) -> None:
    case = named(name)
    question, truth = posed(case)
    cubes = list_by_regions(question)
    assert cubes is not None
    assert own_cube(truth) in cubes
    assert all(len(cube) == len(all_literals(question)) for cube in cubes)
    assert len({tuple(cube) for cube in cubes}) == len(cubes)


def test_lists_by_regions_are_for_networks_without_biases() -> None:
    question, _ = posed(named("plain/mse/bias/0"))
    assert list_by_regions(question) is None


def test_a_list_by_regions_is_complete() -> None:
    """Every batch that the plain list finds a cube for, the list by regions has as well."""
    case = named("plain/mse/nobias/1")
    given = exact_gradient(case.network, case.batch, case.loss, case.reduction)
    labels = case.labels if case.labels is not Labels.KNOWN else Labels.ONE_HOT
    asked = words(case) | {"labels": labels, "batch_size": case.batch.size}
    other, _ = pose(case.network, gradient=given, **asked)
    _, truth = posed(case)
    cubes = list_by_regions(other)
    if cubes is not None and other.alphabet is not None:
        assert own_cube(truth) in cubes
