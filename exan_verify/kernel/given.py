"""What every checker of the kernel is given, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import lcm

from exan_verify.core.arrays import PerLayer
from exan_verify.core.facts import NO_SAMPLES
from exan_verify.core.network import Array, Batch, Network, ReluNetwork, to_fraction
from exan_verify.core.question import Question
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import Forward, backward_ball, forward
from exan_verify.exact.balls import PRECISION, BallMatrix, working_precision
from exan_verify.exact.softmax import loss_vectors_ball


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The network, the batch and the question of a certificate.

    ``model``: the network, whatever its activations; checkers that are made for ReLU ask for
    :attr:`network`, which rejects any other. ``settled``: samples that the certificate's earlier parts showed
    to be in every batch with this gradient.
    """

    model: Network
    batch: Batch
    question: Question
    settled: frozenset[int] = NO_SAMPLES

    @property
    def network(self) -> ReluNetwork:
        """The network, for arguments about ReLU alone."""
        return only_relu(self.model)

    @property
    def samples(self) -> int:
        """M."""
        return self.batch.size

    @property
    def divisor(self) -> int:
        """What the loss is divided by."""
        return self.question.divisor(self.samples, self.model.classes)

    @cached_property
    def passed(self) -> Forward:
        """The exact forward pass, recomputed."""
        return forward(self.model, self.batch)

    @cached_property
    def deltas(self) -> PerLayer[BallMatrix]:
        """``Delta_1 .. Delta_L`` as balls, up to the loss's divisor."""
        with working_precision():
            vectors = loss_vectors_ball(
                self.question.loss, self.passed.logits, self.batch.labels, 1, PRECISION
            )
            return backward_ball(self.network, self.passed, vectors)

    def leaving(self, moving: set[int]) -> frozenset[int]:
        """Those of the samples ``moving`` whose equals move too: the batch without them lacks the sample."""
        pairs = list(zip(self.batch.x, self.batch.y, strict=True))
        staying = {pairs[m] for m in range(self.samples) if m not in moving}
        return frozenset(m for m in moving if pairs[m] not in staying)


def only_relu(network: Network) -> ReluNetwork:
    """The network, for what is shown of ReLU alone; raises :class:`CertificateRejected` for any other."""
    if not isinstance(network, ReluNetwork):
        raise CertificateRejected("this kind of evidence is about networks with ReLU alone")
    return network


MAX_BITS = 1 << 16
MAX_WORK = 1 << 30
"""Of a batch that a certificate describes: bits of its inputs over their common denominator, and their 16-bit
digits times the weights, which the forward pass multiplies in seconds. The longest that the tests know has
2300 bits; solutions of linear systems in several hundred float32 weights have some ten thousand.
"""


def require_moderate(subject: Subject, inputs: Array) -> None:
    """Refuse inputs (M, d), or labels (M, K), of a batch that would make an exact pass endless."""
    denominator, largest = 1, 0
    for value in inputs.reshape(-1):
        exact = to_fraction(value)
        denominator = lcm(denominator, exact.denominator)
        largest = max(largest, exact.numerator.bit_length() - exact.denominator.bit_length() + 1)
        bits = denominator.bit_length() + largest
        require(bits <= MAX_BITS, f"the numbers of the batch need more than {MAX_BITS} bits")
    weights = sum(layer.weight.size for layer in subject.model.layers)
    work = (bits // 16 + 1) * len(inputs) * weights
    require(work <= MAX_WORK, "the numbers of the batch are too long for a network of this size")


def require(condition: bool, problem: str) -> None:
    """Raise :class:`CertificateRejected` with ``problem`` unless ``condition`` holds."""
    if not condition:
        raise CertificateRejected(problem)
