"""Certificates written by a liar who has every number right: the kernel must miss none of the hypotheses.

Each case is a batch for which one hypothesis of C1, C2 or 3.4 fails. The forged evidence carries the true
counts and ranks, all digests fit, and the claim is UNIQUE.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from exan_verify.api.check import check
from exan_verify.core.certificate import Claim, LayerArgument, Lifting, QuestionRecord, Split, issue
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.decide.context import Context, Setting
from exan_verify.decide.lifting import degree_two as lifting
from exan_verify.decide.lifting import system
from exan_verify.errors import CertificateRejected
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME
from tests.support.cases import default_network, random_batch, three_share_layer_one, two_one_five_one


def forged(network, batch, loss, layer, *, labels=Labels.ONE_HOT, argument="loss_vectors", **changes):
    setting = Setting(
        network=network, question=Question(loss=loss, reduction=Reduction.MEAN, labels=labels), seed=0, jobs=1
    )
    context = Context(setting=setting, batch=batch)
    plan = next(p for p in lifting.plans(context) if p.layer == layer)
    record = {
        "layer": layer,
        "parametrisation": plan.parametrisation,
        "unknowns": plan.unknowns,
        "rank": rank_mod(system.equations(context, plan)),
        "groups": plan.groups,
        "lower_ranks": (batch.size,) * (layer - 1),
        "determined": tuple(range(batch.size)),
        "labels": argument,
    } | changes
    question = QuestionRecord(
        entrance="batch", loss=loss, reduction=Reduction.MEAN, labels=labels, batch_size=batch.size
    )
    claim = Claim(question=question, outcome=Outcome.UNIQUE, samples=(SampleStatus.DETERMINED,) * batch.size)
    evidence = (Lifting(prime=PRIME, point=context.image.point, layers=(LayerArgument(**record),)),)
    return issue(claim=claim, evidence=evidence, model_sha256=network.digest, batch_sha256=batch.digest)


def rejected(network, batch, certificate, match):
    with pytest.raises(CertificateRejected, match=match):
        check(certificate, network, batch=batch)


def test_the_forger_can_write_a_good_certificate_too():
    network = default_network([10, 60, 4])
    batch = random_batch(network, 3)
    assert check(forged(network, batch, Loss.CROSS_ENTROPY, 1), network, batch=batch)


def test_too_small_a_rank():
    network = default_network([20, 20, 5])
    batch = random_batch(network, 6)
    certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1)
    rejected(network, batch, certificate, "dim null")


def test_duplicate_samples():
    network = default_network([10, 60, 4])
    batch = random_batch(network, 3).select([0, 1, 1])
    certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1, groups=((0,), (1,), (2,)))
    rejected(network, batch, certificate, r"rank\(Delta_1\)|rank \[H_0")


def test_affinely_dependent_inputs():
    """Three samples on a line: rank [H_0 1] = 2, though every Delta has full rank."""
    network = default_network([5, 80, 6], seed=4, dtype=np.float64)
    start, step = np.random.default_rng(0).integers(-3, 4, (2, 5))
    x = [start, start + step, start + 2 * step]
    batch = Batch.of(x, [0, 1, 2], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    rejected(network, batch, forged(network, batch, Loss.CROSS_ENTROPY, 1), r"rank \[H_0 1\]")


@pytest.mark.parametrize("seed", [15, 62, 75])
def test_a_rank_deficit_below(seed):
    network, batch, _ = two_one_five_one(seed)
    certificate = forged(network, batch, Loss.MSE, 2)
    rejected(network, batch, certificate, r"rank\(Delta_1\) = M")
    certificate = forged(network, batch, Loss.MSE, 2, lower_ranks=(1,))
    rejected(network, batch, certificate, "lower Delta")


def group_at_layer_two():
    """Samples 0 and 1 share the pattern of layer 2 but not of layer 1."""
    network = default_network([12, 200, 60, 5], seed=5, dtype=np.float64)
    x = np.random.default_rng(2).normal(size=(3, 12))
    for power in range(3, 60):
        near = x.copy()
        near[1] = x[0] + np.random.default_rng(3).normal(size=12) * 2.0 ** (-power / 4)
        batch = Batch.of(near, [0, 1, 2], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
        context = Context(
            setting=Setting(
                network=network,
                question=Question(loss=Loss.CROSS_ENTROPY, reduction=Reduction.MEAN, labels=Labels.ONE_HOT),
                seed=0,
                jobs=1,
            ),
            batch=batch,
        )
        groups = [p.groups for p in sorted(lifting.plans(context), key=lambda p: p.layer)]
        if len(groups[1]) == 2 and len(groups[0]) == 3:
            return network, batch, context
    raise AssertionError("no such batch at this seed")


def test_singletons_of_a_deeper_layer_stay_open_below():
    network, batch, context = group_at_layer_two()
    certificate = forged(
        network, batch, Loss.CROSS_ENTROPY, 2, determined=(2,), lower_ranks=(), argument="loss_vectors"
    )
    certificate["claim"]["outcome"] = "unknown"
    certificate["claim"]["samples"] = ("unknown", "unknown", "determined")
    rejected(network, batch, certificate, "the layers below stay open")
    plan = next(p for p in lifting.plans(context) if p.layer == 2)
    result = lifting.lift(context, plan, lifting.Budget())
    assert result.argument is None
    assert "the layers below stay open" in result.attempt.note


def confusable():
    """rank [H_2 1] = 2 < M = 3, labels 0 and 1 have equal columns: nothing tells them apart."""
    base = default_network([8, 60, 1, 3], seed=2, dtype=np.float64)
    network = ReluNetwork.from_arrays(
        [base.layers[0].weight, np.abs(base.layers[1].weight), [[1.0], [1.0], [-0.5]]],
        [base.layers[0].bias, [5.0], [0.0, 0.0, 0.0]],
    )
    x = np.random.default_rng(0).normal(size=(3, 8))
    batch = Batch.of(x, [0, 1, 2], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    return network, batch


@pytest.mark.parametrize(
    ("argument", "match"),
    [
        ("backward_map", "determines samples"),
        ("output_rank", r"rank \[H_\{L-1\} 1\]"),
        ("loss_vectors", "last hidden layer"),
    ],
)
def test_labels_that_can_be_confused(argument, match):
    network, batch = confusable()
    rejected(network, batch, forged(network, batch, Loss.CROSS_ENTROPY, 1, argument=argument), match)


def test_real_labels_below_a_map_that_is_not_injective():
    network, batch = confusable()
    real = Batch.of(batch.inputs, np.eye(3), network=network, loss=Loss.MSE, labels=Labels.REAL)
    certificate = forged(network, real, Loss.MSE, 1, labels=Labels.REAL, argument="backward_map")
    rejected(network, real, certificate, "determines samples")
    setting = Setting(
        network=network,
        question=Question(loss=Loss.MSE, reduction=Reduction.MEAN, labels=Labels.REAL),
        seed=0,
        jobs=1,
    )
    assert (
        lifting.decide(Context(setting=setting, batch=real), lifting.Budget()).facts.determined == frozenset()
    )


def test_hinge_labels_that_give_the_same_loss_vector():
    """A loss vector of zero for two labels cannot tell them apart; rank(A) already fails, as it must."""
    network = ReluNetwork.from_arrays([[[1.0]] * 3 + [[-1.0]] * 3, np.eye(3, 6)], [[0.0] * 6, [0.0] * 3])
    batch = Batch.of([[4.0], [-4.0]], [0, 1], network=network, loss=Loss.HINGE, labels=Labels.ONE_HOT)
    rejected(network, batch, forged(network, batch, Loss.HINGE, 1), "rank")


def test_a_parametrisation_whose_rank_is_missing():
    """u = C p needs rank [dW_2 | db_2] = M; here layer 2 has one neuron."""
    network = default_network([8, 60, 1, 3], seed=2, dtype=np.float64)
    batch = random_batch(network, 3, seed=3)
    certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1)
    certificate["evidence"][0]["layers"][0]["parametrisation"] = "column_space"
    rejected(network, batch, certificate, r"rank")


def test_zero_sum_below_the_last_layer_or_for_mse():
    network = default_network([8, 80, 4, 3], seed=2)
    batch = random_batch(network, 3)
    certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1, argument="output_rank")
    certificate["evidence"][0]["layers"][0]["parametrisation"] = "zero_sum"
    rejected(network, batch, certificate, "sum to zero only above")
    shallow = default_network([8, 80, 2])
    targets = random_batch(shallow, 3, loss=Loss.MSE)
    certificate = forged(shallow, targets, Loss.MSE, 1)
    certificate["evidence"][0]["layers"][0]["parametrisation"] = "zero_sum"
    rejected(shallow, targets, certificate, "sum to zero only above")


def test_no_biases():
    rng = np.random.default_rng(0)
    network = ReluNetwork.from_arrays([rng.normal(size=(60, 5)), rng.normal(size=(4, 60))])
    batch = random_batch(network, 3)
    rejected(network, batch, forged(network, batch, Loss.CROSS_ENTROPY, 1), "no biases")


def test_rational_inputs_with_p_in_a_denominator():
    network = default_network([3, 20, 2])
    batch = Batch.of(
        [[Fraction(1, PRIME), 1, 2]], [0], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT
    )
    good = random_batch(network, 1)
    certificate = forged(network, good, Loss.CROSS_ENTROPY, 1)
    certificate["batch_sha256"] = batch.digest
    rejected(network, batch, certificate, "p divides")


def split_certificate():
    network, batch = three_share_layer_one(Loss.CROSS_ENTROPY)
    setting = Setting(
        network=network,
        question=Question(loss=Loss.CROSS_ENTROPY, reduction=Reduction.MEAN, labels=Labels.ONE_HOT),
        seed=0,
        jobs=1,
    )
    context = Context(setting=setting, batch=batch)
    evidence = lifting.decide(context, lifting.Budget()).evidence[0]
    return network, batch, evidence.layers[0]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rank": lambda v: v - 1}, r"rank\(R\)"),
        ({"unknowns": lambda v: v - 1}, "U is"),
        ({"layer": lambda v: v - 1}, "no group to split"),
        ({"layer": lambda v: v + 1}, "no group to split"),
        ({"members": lambda v: (*v[:-1], v[-1] + 1)}, "no group to split"),
        ({"members": lambda v: v[:-1]}, "no group to split"),
        ({"groups": lambda v: (v[0] + v[1], *v[2:])}, "pattern groups"),
    ],
)
def test_tampered_splits(changes, match):
    network, batch, argument = split_certificate()
    plain = {f: getattr(argument.splits[0], f) for f in argument.splits[0].__struct_fields__}
    changed = Split(**(plain | {key: value(plain[key]) for key, value in changes.items()}))
    certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1, splits=(changed,), argument=argument.labels)
    rejected(network, batch, certificate, match)
    good = forged(network, batch, Loss.CROSS_ENTROPY, 1, splits=argument.splits, argument=argument.labels)
    assert check(good, network, batch=batch).outcome is Outcome.UNIQUE


def test_a_split_that_is_missing_or_made_twice():
    network, batch, argument = split_certificate()
    for splits in ((), argument.splits * 2):
        certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1, splits=splits, argument=argument.labels)
        rejected(network, batch, certificate, "determines samples|output rank|no group to split")


def test_output_rank_needs_every_input():
    """With a group left at layer 1 the features below the output are open, whatever their rank."""
    network, batch, _ = split_certificate()
    near = batch.inputs.copy()
    near[1] = near[0] + 2.0**-40
    close = Batch.of(near, batch.labels, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    certificate = forged(network, close, Loss.CROSS_ENTROPY, 1, argument="output_rank", determined=(3, 4))
    rejected(network, close, certificate, "every input to be determined")


def test_a_column_space_that_other_batches_may_leave():
    """Sample 1's features in layer 1 are the mean of the others': rank [H_1 1] = 2, Delta has rank 3."""
    rng = np.random.default_rng(1)
    z = rng.integers(-9, 10, (60, 3)).astype(np.float64)
    middle = (np.maximum(z[:, 0], 0) + np.maximum(z[:, 2], 0)) / 2
    z[:, 1] = np.where(middle > 0, middle, -1.0)
    network = ReluNetwork.from_arrays(
        [z, rng.normal(size=(20, 60)), rng.normal(size=(5, 20))], [np.zeros(60), np.zeros(20), np.zeros(5)]
    )
    batch = Batch.of(np.eye(3), [0, 1, 2], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1, argument="backward_map")
    layer = certificate["evidence"][0]["layers"][0]
    assert layer["parametrisation"] == "full"
    layer |= {"parametrisation": "column_space", "unknowns": 6 + 9, "rank": 6 + 9 - 3}
    rejected(network, batch, certificate, r"rank \[H_1 1\]")


def test_one_sample_gives_no_next_delta():
    """But its own delta is db, which tells the label where the layer above does."""
    network = default_network([5, 12, 3])
    batch = random_batch(network, 1)
    for argument in ("output_rank", "backward_map"):
        certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1, argument=argument)
        assert check(certificate, network, batch=batch)
    certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1, argument="loss_vectors")
    rejected(network, batch, certificate, "last hidden layer")
    first, second = network.layers
    alike = replace(second, weight=np.repeat(second.weight[:1], 3, axis=0) * [[1], [1], [2]])
    network = replace(network, layers=(first, alike))  # e_0 - e_1 has no delta below
    batch = replace(batch, labels=np.array([0]))
    certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1, argument="backward_map")
    rejected(network, batch, certificate, "determines samples")


def test_several_samples_are_not_one():
    network = default_network([5, 40, 3])
    batch = random_batch(network, 2)
    certificate = forged(network, batch, Loss.CROSS_ENTROPY, 1, parametrisation="single")
    rejected(network, batch, certificate, "more than one sample")
