"""Corner cases and generic cases for the exact engines, which decide UNIQUE or AMBIGUOUS with a certificate.

Corner cases are the families of the small suite (dead, shared, twin, equal samples, zero pre-activations);
generic ones have Gaussian numbers and the largest sizes of the claim, where lifting decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice, pairwise

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import InputError
from exan_verify.instances import FAMILIES, instance
from exan_verify.theorems.claims.claim import Claim, Judgement
from exan_verify.theorems.claims.searching.found import Records
from exan_verify.theorems.claims.searching.tally import Tally


def try_instances(claim: Claim, tally: Tally, *, examples: int, seed: int) -> None:
    """Judge at most ``examples`` of both kinds, in turn, until one contradicts the claim."""
    corner, generic = islice(_corner_cases(claim, seed), examples), _generic_cases(claim, seed)
    for _ in range((examples + 1) // 2):
        for source in (corner, generic):
            found = next(source, None)
            if tally.late() or (found is not None and tally.judge(*found) is Judgement.FAILS):
                return


def _corner_cases(claim: Claim, seed: int) -> Iterator[Records | None]:
    """Instances of the suite's families; None for one that does not have the claim's sizes."""
    if claim.networks:
        return
    kinds = (True, False) if claim.sizes.biases is None else (claim.sizes.biases,)
    for index in count(seed * 1000):
        for family in FAMILIES:
            for has_bias in kinds:
                drawn = instance(family, claim.question.loss, has_bias, index)
                admitted = claim.sizes.admit(drawn.network, drawn.batch.size)
                batch = drawn.batch
                yield _asked(claim, drawn.network, batch.inputs, batch.labels) if admitted else None


def _generic_cases(claim: Claim, seed: int) -> Iterator[Records]:
    rng = np.random.default_rng(seed)
    sizes = claim.sizes
    while True:
        network = claim.networks[int(rng.integers(len(claim.networks)))] if claim.networks else None
        if network is None:
            tops = (sizes.inputs, *sizes.hidden, sizes.logits)
            widths = [int(rng.integers((a + b + 1) // 2, b + 1)) for a, b in tops]
            weights = [_dyadic(rng, b, a) for a, b in pairwise(widths)]
            biased = bool(rng.integers(2)) if sizes.biases is None else sizes.biases
            network = ReluNetwork.from_arrays(
                weights, [_dyadic(rng, b, 1)[:, 0] for b in widths[1:]] if biased else None
            )
        samples = int(rng.integers(sizes.samples[0], sizes.samples[1] + 1))
        x = _dyadic(rng, samples, network.widths[0])
        records = _asked(claim, network, x, _labels(claim, rng, network.classes, samples))
        if records is not None:
            yield records


def _labels(claim: Claim, rng: np.random.Generator, logits: int, samples: int) -> Array:
    loss = claim.question.loss
    if claim.question.labels is Labels.REAL:
        return _dyadic(rng, samples, logits)
    if loss is Loss.BCE or (loss is Loss.MSE and logits == 1):
        return rng.integers(0, 2, (samples, logits))
    return rng.integers(0, logits, samples)


def _dyadic(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Gaussian numbers rounded to multiples of 1/16: generic, and short to print."""
    return np.round(rng.normal(size=(rows, columns)) * 16) / 16


def _asked(claim: Claim, network: ReluNetwork, x: Array, y: Array) -> Records | None:
    """The records under the claim's own question, None when the labels or the domain do not fit."""
    question = claim.question
    try:
        batch = Batch.of(x, y, network=network, loss=question.loss, labels=question.labels)
    except InputError:
        return None
    return (network, batch) if question.domain is None or question.domain.contains(batch) else None
