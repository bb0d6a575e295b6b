"""Outgoing weights of short rank: u is parametrised by what the neurons see of it."""

from __future__ import annotations

from functools import partial

import msgspec
import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Conclusion, Lifting, Split
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome
from exan_verify.decide import enumeration
from exan_verify.decide.lifting import degree_three
from exan_verify.decide.lifting import degree_two as lifting
from exan_verify.decide.lifting.system import plan
from exan_verify.decide.scale import without_biases as scale
from exan_verify.exact.modular import PRIME
from exan_verify.kernel.checker import CHECKERS
from exan_verify.kernel.lifting.degree_two import _after_splits, image_at
from exan_verify.kernel.lifting.degree_two import facts as checked
from tests.support import contexts
from tests.support.cases import default_network, random_batch
from tests.support.certificate_cases import assert_refused, certify_as
from tests.support.contexts import subject_of

LOSSES = [Loss.BCE, Loss.MSE]
"""Losses whose vectors do not sum to zero: a head (f, -f) has two entries, of which neurons see one."""


def antisymmetric(neurons=14, seed=0, biases=True):
    base = default_network([12, neurons, 1], seed=seed, dtype=np.float64)
    weight = base.layers[1].weight
    weights = [base.layers[0].weight, np.concatenate([weight, -weight])]
    return ReluNetwork.from_arrays(weights, [base.layers[0].bias, [0.1, -0.3]] if biases else None)


def parallel_classes(seed=0):
    """Three classes, w_0 + w_1 = 2 w_2: differences to the last class are parallel."""
    base = default_network([12, 14, 2], seed=seed, dtype=np.float64)
    first, second = base.layers[1].weight * 2.0**10
    first, second = np.round(first), np.round(second)
    weight = np.stack([first, 2 * second - first, second])
    return ReluNetwork.from_arrays([base.layers[0].weight, weight], [base.layers[0].bias, [0, 1, 2]])


context_of = partial(contexts.context_of, engine="exact")


@pytest.mark.parametrize("loss", LOSSES)
def test_fewer_unknowns_are_needed(loss):
    network = antisymmetric()
    batch = random_batch(network, 4, loss=loss)
    used = plan(context_of(network, batch, loss), 1, (0, 1, 2, 3))
    assert (used.parametrisation, used.extra, used.unknowns) == ("row_space", 1, 14)
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, loss=loss.value, engine="lifting")
    assert verdict.certificate["evidence"][0]["layers"][0]["labels"] == "output_rank"
    assert check(verdict.certificate, network, batch=batch).outcome is Outcome.UNIQUE


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.HINGE])
def test_classes_whose_differences_are_parallel(loss):
    network = parallel_classes()
    batch = random_batch(network, 3, loss=loss)
    used = plan(context_of(network, batch, loss), 1, (0, 1, 2))
    assert (used.parametrisation, used.extra) == ("row_space", 1)
    for engine in ("lifting", "enumeration"):
        verdict = certify(network, batch=batch, loss=loss.value, engine=engine)
        if verdict.certificate is not None:
            assert check(verdict.certificate, network, batch=batch).samples == verdict.samples
    assert loss is Loss.HINGE or verdict.outcome is Outcome.UNIQUE, verdict.reason


@pytest.mark.parametrize("loss", LOSSES)
def test_every_engine_that_uses_it_is_confirmed(loss):
    network = antisymmetric(neurons=13)
    context = context_of(network, random_batch(network, 4, 3, loss=loss), loss)
    for engine in (lifting, degree_three, enumeration):
        finding = engine.decide(context, Budget())
        for part in finding.evidence:
            assert CHECKERS[type(part)](part, subject_of(context)) == finding.facts


def test_full_rank_keeps_its_parametrisation():
    network = default_network([12, 40, 3])
    for loss, name in ((Loss.MSE, "full"), (Loss.CROSS_ENTROPY, "zero_sum")):
        batch = random_batch(network, 4, loss=loss)
        assert plan(context_of(network, batch, loss), 1, (0, 1, 2, 3)).parametrisation == name


def test_a_rank_that_is_short_mod_p_only_is_not_used():
    """The second row is p times an independent one added to the first: dependent mod p, not over Q."""
    rng = np.random.default_rng(0)
    first = rng.integers(1, 9, 14)
    other = np.array([int(a) + PRIME * int(b) for a, b in zip(first, rng.integers(1, 9, 14), strict=True)])
    base = default_network([12, 14, 1], dtype=np.float64)
    weight = np.stack([first.astype(object), other.astype(object)])
    network = ReluNetwork.from_arrays([base.layers[0].weight, weight], [base.layers[0].bias, [0, 1]])
    batch = random_batch(network, 3, loss=Loss.MSE)
    assert plan(context_of(network, batch, Loss.MSE), 1, (0, 1, 2)).parametrisation == "full"


def test_labels_that_the_neurons_cannot_see_stay_open():
    """Equal columns for two classes: y = (1, 0) and (0, 1) have the same delta below."""
    base = default_network([12, 20, 1], seed=4, dtype=np.float64)
    weight = np.concatenate([base.layers[1].weight] * 2)
    network = ReluNetwork.from_arrays([base.layers[0].weight, weight], [base.layers[0].bias, [0.5, 0.5]])
    context = context_of(network, random_batch(network, 3, loss=Loss.MSE), Loss.MSE)
    used = plan(context, 1, (0, 1, 2))
    assert used.parametrisation == "row_space"
    argument, told = lifting._labels(context, 1, "row_space", [0, 1], everyone=False)
    assert (argument, told) == ("backward_map", [])
    assert lifting._labels(context, 1, "full", [0, 1], everyone=False) == ("loss_vectors", [0, 1])


@pytest.fixture(scope="module")
def example():
    network = antisymmetric()
    context = context_of(network, random_batch(network, 4, loss=Loss.MSE), Loss.MSE)
    (record,) = lifting.decide(context, Budget()).evidence
    assert checked(record, subject_of(context)).determined == frozenset(range(4))
    return context, record


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": "loss_vectors"}, "all their entries"),
        ({"parametrisation": "full"}, "U is 18"),
        ({"unknowns": 18}, "U is 14"),
        ({"parametrisation": "zero_sum"}, "sum to zero"),
    ],
)
def test_rejects_forged_arguments(example, changes, match):
    context, record = example
    layer = msgspec.structs.replace(record.layers[0], **changes)
    forged = Lifting(prime=record.prime, point=record.point, layers=(layer,))
    assert_refused(match, checked, forged, subject_of(context))


def test_no_split_follows_a_row_space():
    """Only W^T u is known of the layer above, so its equations cannot be used for the group."""
    base = default_network([12, 8, 20, 3], seed=2, dtype=np.float64)
    rows = np.round(base.layers[1].weight[:2] * 1024)
    thin = np.stack([np.arange(1, 21), np.ones(20)], axis=1) @ rows
    network = ReluNetwork.from_arrays(
        [base.layers[0].weight, thin, base.layers[2].weight], [layer.bias for layer in base.layers]
    )
    context = context_of(network, random_batch(network, 3, loss=Loss.MSE), Loss.MSE)
    assert plan(context, 1, (0, 1, 2)).parametrisation == "row_space"
    assert lifting.split(context, 1, "row_space", (0, 1), Budget()) == ([], ((0, 1),))
    part = Split(layer=2, members=(0, 1), parametrisation="full", unknowns=1, rank=1, groups=((0,), (1,)))
    forged = Conclusion(
        layer=1,
        parametrisation="row_space",
        groups=((0, 1), (2,)),
        splits=(part,),
        lower_ranks=(),
        determined=(0, 1, 2),
        labels="output_rank",
    )
    image = image_at(PRIME, context.image.point, subject_of(context))
    assert_refused("no group to split", _after_splits, image, forged)


def test_without_biases_too():
    network = antisymmetric(biases=False)
    context = context_of(network, random_batch(network, 3, loss=Loss.BCE), Loss.BCE)
    assert plan(context, 1, (0, 1, 2)).parametrisation == "row_space"
    verdict = certify(network, batch=context.batch, loss="bce", engine="scale")
    if verdict.certificate is not None:
        assert check(verdict.certificate, network, batch=context.batch).samples == verdict.samples
    # the two logits' vectors are not told apart by one direction, so no sample is called determined
    assert scale.decide(context, Budget()).facts.determined == frozenset()
