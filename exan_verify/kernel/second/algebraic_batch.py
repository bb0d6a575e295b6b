"""Checks a second batch of real algebraic numbers, for mse and hinge (docs/theory.md, appendix C).

Every entry of the difference of the two gradients must reduce to zero (:mod:`exan_verify.kernel.algebraic`).
"""

from __future__ import annotations

from fractions import Fraction

from exan_verify.core.certificate import AlgebraicBatch
from exan_verify.core.facts import Facts
from exan_verify.core.question import Labels
from exan_verify.errors import CertificateRejected
from exan_verify.exact.algebraic import Field, Row, UndecidedSignError
from exan_verify.kernel.algebraic import gradient_entries, rational_labels, rational_samples, samples_of
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.second.enclosed_batch import check_known_labels


def facts(evidence: AlgebraicBatch, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples that are not in the second batch.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    network, loss = subject.network, subject.question.loss
    try:
        other = samples_of(evidence, network, subject.question)
        field = other.field
        own = rational_samples(field, subject.batch, network.classes)
        if subject.question.labels is Labels.KNOWN:
            check_known_labels(subject, rational_labels(other, loss))
        entries, given = (gradient_entries(network, loss, samples) for samples in (other, own))
        same = all(not field.plus(a, b, Fraction(-1)) for a, b in zip(entries, given, strict=True))
        require(same, "the second batch has another gradient")
        present, before = (
            [[*x, *y] for x, y in zip(samples.inputs, samples.targets, strict=True)]
            for samples in (other, own)
        )
        free = frozenset(m for m, row in enumerate(before) if _absent(field, row, present))
    except UndecidedSignError as error:
        raise CertificateRejected(str(error)) from None
    require(bool(free), "the second batch has every sample of the first")
    return Facts(ambiguous=True, free=free)


def _absent(field: Field, own: Row, present: list[Row]) -> bool:
    return all(
        any(field.sign(field.plus(a, b, Fraction(-1))) for a, b in zip(own, other, strict=True))
        for other in present
    )
