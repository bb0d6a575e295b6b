"""Law: second batches made of extra rays are found, whatever is found is confirmed by the kernel, and neither
other engines nor SMT solvers ever contradict enumeration.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import gradient
from exan_verify.instances import iterate_suite
from exan_verify.testing.strategies import LOSSES
from tests.conftest import examples
from tests.support.cases import words
from tests.support.ray_cases import planted


@examples(6)
@given(seed=st.integers(0, 10**6), labels=st.sampled_from(["one_hot", "known"]))
def test_planted_second_batches_are_never_called_unique(seed, labels):
    network, batch, second = planted(seed)
    ours, theirs = (gradient(network, b, Loss.MSE, Reduction.SUM) for b in (batch, second))
    assert ours == theirs
    asked = {"loss": "mse", "reduction": "sum", "labels": labels, "engine": "enumeration"}
    verdict = certify(network, batch=batch, **asked)
    same_labels = sorted(batch.y) == sorted(second.y)
    if labels == "one_hot" or same_labels:
        assert verdict.outcome is not Outcome.UNIQUE
        assert verdict.outcome is Outcome.AMBIGUOUS, verdict.reason
    if verdict.certificate is not None:
        assert check(verdict.certificate, network, batch=batch).samples == verdict.samples


def small_question(seed, loss):
    """Two or three samples, a hidden layer or two, small integers, sometimes a head of rank one."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2 if loss in (Loss.CROSS_ENTROPY, Loss.HINGE) else 1, 4))
    hidden = [int(rng.integers(2, 7)), *([int(rng.integers(2, 5))] if rng.random() < 0.3 else [])]
    widths = [int(rng.integers(1, 4)), *hidden, classes]
    weights = [rng.integers(-3, 4, (b, a)) for a, b in pairwise(widths)]
    if classes > 1 and rng.random() < 0.3:
        weights[-1][1] = -weights[-1][0]
    network = ReluNetwork.from_arrays(weights, [rng.integers(-3, 4, b) for b in widths[1:]])
    samples = int(rng.integers(2, 4))
    y = rng.integers(0, max(2, classes), samples)
    if loss is Loss.BCE:
        y = rng.integers(0, 2, (samples, classes))
    elif loss is Loss.MSE:
        y = np.eye(classes)[y] if classes > 1 else y[:, None]
    x = rng.integers(-4, 5, (samples, widths[0]))
    return network, Batch.of(x, y, network=network, loss=loss, labels=Labels.ONE_HOT)


@examples(40)
@given(seed=st.integers(0, 10**6), loss=LOSSES)
def test_whatever_is_decided_is_confirmed_and_not_contradicted(seed, loss):
    network, batch = small_question(seed, loss)
    alone = certify(network, batch=batch, loss=loss.value, engine="enumeration")
    if alone.certificate is None:
        return
    assert check(alone.certificate, network, batch=batch).samples == alone.samples
    others = [
        certify(network, batch=batch, loss=loss.value, engine=name) for name in ("families", "residual")
    ]
    outcomes = {v.outcome for v in [alone, *others]} - {Outcome.UNKNOWN}
    assert len(outcomes) <= 1


def test_solvers_agree_on_a_share_of_the_suite():
    """Solvers that know nothing of rays, on the instances that enumeration decides by them."""
    asked = 0
    for case in iterate_suite():
        question = words(case)
        if case.batch.size != 2 or not case.network.has_bias:
            continue
        verdict = certify(case.network, batch=case.batch, engine="enumeration", **question)
        kinds = {part["type"] for part in (verdict.certificate or {"evidence": ()})["evidence"]}
        if not kinds & {"extra_rays", "second_batch"} or asked == 4:
            continue
        asked += 1
        theirs = certify(case.network, batch=case.batch, engine="smt", work_limit=200_000, **question)
        assert theirs.outcome in (verdict.outcome, Outcome.UNKNOWN), case.name
    assert asked == 4
