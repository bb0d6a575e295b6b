"""What every checker of the kernel is given, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from exan_verify.certificate import Question
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import Forward, forward
from exan_verify.facts import NOBODY
from exan_verify.network import Batch, ReluNetwork


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The network, the batch and the question of a certificate.

    ``settled``: samples that the certificate's earlier parts showed to be in every batch with this gradient.
    """

    network: ReluNetwork
    batch: Batch
    question: Question
    settled: frozenset[int] = NOBODY

    @property
    def samples(self) -> int:
        """M."""
        return self.batch.size

    @property
    def divisor(self) -> int:
        """What the loss is divided by."""
        return self.question.loss.divisor(self.question.reduction, self.samples, self.network.classes)

    @cached_property
    def passed(self) -> Forward:
        """The exact forward pass, recomputed."""
        return forward(self.network, self.batch)


def require(condition: bool, problem: str) -> None:
    """Raise :class:`CertificateRejected` with ``problem`` unless ``condition`` holds."""
    if not condition:
        raise CertificateRejected(problem)
