"""After AMBIGUOUS the engines go on for single samples, with evidence for each, within limits."""

from __future__ import annotations

import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Engine, Outcome, SampleStatus
from exan_verify.decide import pipeline
from exan_verify.instances import instance
from tests.support.cases import default_network, words
from tests.support.certificate_cases import assert_rejected, certify_as

D, F, U = SampleStatus.DETERMINED, SampleStatus.FREE, SampleStatus.UNKNOWN


def two_close_and_two_apart(seed):
    """Samples 0 and 3 share a region and have real targets, so they have a second batch (theory.md F5)."""
    network = default_network([20, 10, 2], seed=seed, dtype=np.float64)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 20))
    x = np.concatenate([x, x[:1] + 2.0**-30])
    return network, (x, rng.normal(size=(4, 2)))


@pytest.mark.parametrize(("seed", "kind"), [(5, "enumeration"), (3, "extra_rays")])
def test_samples_outside_the_family_are_determined(seed, kind):
    network, batch = two_close_and_two_apart(seed)
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=batch, loss="mse", labels="real", engine="exact")
    assert verdict.engine is Engine.FAMILIES
    assert verdict.samples == (F, D, D, F)
    assert [part["type"] for part in verdict.certificate["evidence"]] == ["second_batch", kind]
    assert "samples 1, 2 are in every batch" in verdict.reason
    assert check(verdict.certificate, network, batch=batch).samples == verdict.samples


def test_every_status_needs_its_evidence():
    network, batch = two_close_and_two_apart(5)
    verdict = certify(network, batch=batch, loss="mse", labels="real", engine="exact")
    for kept in (slice(0, 1), slice(1, 2)):
        partial = verdict.certificate | {"evidence": verdict.certificate["evidence"][kept]}
        assert_rejected(partial, network, batch=batch)


@pytest.mark.parametrize(
    "name",
    [
        "plain/cross_entropy/nobias/1",
        "shared/bce/nobias/1",
        "twin/cross_entropy/nobias/0",
        "zero/mse/nobias/0",
    ],
)
def test_samples_without_a_twin_may_be_free_all_the_same(name):
    """Without biases the first second batch scales one sample; families find more."""
    family, loss, biases, index = name.split("/")
    case = instance(family, Loss(loss), biases == "bias", int(index))
    question = words(case)
    verdict = certify_as(Outcome.AMBIGUOUS, case.network, batch=case.batch, engine="exact", **question)
    assert set(verdict.samples) == {F}
    assert verdict.certificate["evidence"][0]["type"] == "twins"
    assert len(verdict.certificate["evidence"]) == 2
    assert check(verdict.certificate, case.network, batch=case.batch).samples == verdict.samples
    alone = certify(case.network, batch=case.batch, engine="scale", **question)
    assert U in alone.samples


def test_what_it_may_cost_is_limited(monkeypatch):
    network, batch = two_close_and_two_apart(5)
    monkeypatch.setattr(pipeline, "SAMPLES_WORK", 10)
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=batch, loss="mse", labels="real", engine="exact")
    assert verdict.samples == (F, U, U, F)
    assert check(verdict.certificate, network, batch=batch).samples == verdict.samples
