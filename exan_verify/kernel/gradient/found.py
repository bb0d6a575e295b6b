"""Checks that a batch which the certificate names has the gradient that is given (mse, hinge).

Nothing is rebuilt from the gradient: where its columns do not tell the batch, or the batch is not rational,
somebody found it, and it is enough that its own gradient is the given one (docs/theory.md 6.5).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from exan_verify.core.certificate import AlgebraicBatch
from exan_verify.core.network import Gradient, ReluNetwork, to_fraction
from exan_verify.core.question import Question
from exan_verify.errors import CertificateRejected
from exan_verify.exact.algebraic import UndecidedSignError
from exan_verify.kernel.algebraic import Samples, gradient_entries, samples_of
from exan_verify.kernel.given import require


def found_samples(
    record: AlgebraicBatch, network: ReluNetwork, given: Gradient, question: Question
) -> Samples:
    """The samples of the record, whose gradient is ``given``, entry by entry.

    Raises :class:`CertificateRejected` when they are not admitted or the gradients differ.
    """
    try:
        samples = samples_of(record, network, question)
        entries = gradient_entries(network, question.loss, samples)
    except UndecidedSignError as error:
        raise CertificateRejected(str(error)) from None
    divisor = question.divisor(question.samples, network.classes)
    field, position = samples.field, 0
    for weight, bias in given.for_network(network):
        parts = [weight] if bias is None else [weight, bias.reshape(-1, 1)]
        for value in np.concatenate([part.astype(object) for part in parts], axis=1).reshape(-1):
            goal = field.constant(divisor * to_fraction(value))
            same = not field.plus(entries[position], goal, Fraction(-1))
            require(same, "the batch that was found has another gradient")
            position += 1
    require(position == len(entries), "the gradient has other tensors than the network")
    return samples
