"""What every engine is given, and what every engine gives back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from exan_verify.core.arrays import PerLayer
from exan_verify.core.certificate import Evidence
from exan_verify.core.facts import NO_SAMPLES, NOTHING, Facts
from exan_verify.core.network import Batch, Network, ReluNetwork
from exan_verify.core.question import Question
from exan_verify.core.verdict import Attempt, Witness
from exan_verify.errors import SoundnessError
from exan_verify.exact.backprop import Forward, backward_mod, forward
from exan_verify.exact.modular import PRIME, Residues, point
from exan_verify.exact.rational import Mask
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod

Progress = Callable[[str, float], None]
"""Told what is being done, and the share that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The network and the question, apart from the batch or gradient itself, and how it is to be decided."""

    network: Network
    question: Question
    seed: int = 0
    jobs: int = 1
    engine: str = "auto"
    progress: Progress | None = None

    @property
    def relu(self) -> ReluNetwork:
        """The network, for the arguments that are made for ReLU; they are not asked of others."""
        if not isinstance(self.network, ReluNetwork):
            raise SoundnessError("an argument that is made for ReLU alone was asked of another network")
        return self.network


@dataclass(frozen=True, kw_only=True)
class Context:
    """A batch under a setting, with the exact values that several engines need, computed once.

    ``settled``: samples that earlier engines proved to be in every batch with this gradient. ``turn``: the
    shares of all work that are done before and after the engine that is asked.
    """

    setting: Setting
    batch: Batch
    settled: frozenset[int] = NO_SAMPLES
    turn: tuple[float, float] = (0.0, 1.0)

    def after(self, facts: Facts, turn: tuple[float, float]) -> Context:
        """The same context with the samples of ``facts`` settled; what is computed already is kept."""
        later = copy.copy(self)
        object.__setattr__(later, "settled", facts.determined)
        object.__setattr__(later, "turn", turn)
        return later

    def tell(self, what: str, share: float) -> None:
        """Progress of the engine that is asked: what it does, and the share of its own work that is done."""
        if self.setting.progress is not None:
            before, behind = self.turn
            self.setting.progress(what, before + (behind - before) * share)

    @property
    def model(self) -> Network:
        """The setting's network, for the arguments that are made for every activation."""
        return self.setting.network

    @property
    def network(self) -> ReluNetwork:
        """The setting's network, for the arguments that are made for ReLU; they are not asked of others."""
        return self.setting.relu

    @property
    def question(self) -> Question:
        """The setting's question."""
        return self.setting.question

    @property
    def samples(self) -> int:
        """M."""
        return self.batch.size

    @property
    def divisor(self) -> int:
        """What the loss is divided by."""
        return self.question.divisor(self.samples, self.model.classes)

    def sent_neurons(self, layer: int) -> Mask:
        """Which neurons of a layer, counted from 1, have their row [dW | db] sent."""
        return self.question.sent_neurons(self.model.layer(layer))

    def sent_delta(self, layer: int) -> Residues:
        """The rows of Delta_layer mod p whose neurons are sent, (sent, M)."""
        found: Residues = self.image.delta(layer)[self.sent_neurons(layer)]
        return found

    @cached_property
    def passed(self) -> Forward:
        """The exact forward pass."""
        return forward(self.model, self.batch)

    @cached_property
    def image(self) -> Image:
        """Deltas mod p at a point where no denominator vanishes (3.6)."""
        return self.image_in(PRIME)

    def image_in(self, prime: int) -> Image:
        """Deltas mod another prime. Raises UnsuitablePrimeError where it divides a denominator."""
        attempt = 0
        while True:
            t = point(f"certify/{self.setting.seed}/{attempt}", prime)
            try:
                vectors = loss_vectors_mod(
                    self.setting.question.loss, self.passed.logits, self.batch.labels, self.divisor, t, prime
                )
            except VanishingDenominatorError:
                attempt += 1
                continue
            deltas = backward_mod(self.model, self.passed, vectors, prime)
            return Image(point=t, deltas=deltas, prime=prime)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The deltas' image in F_p under T -> point; ``deltas.at(i)`` is Delta_i mod p, (n_i, M)."""

    point: int
    deltas: PerLayer[Residues]
    prime: int = PRIME

    def delta(self, layer: int) -> Residues:
        """Delta_layer mod p, (n, M); layers count from 1."""
        return self.deltas.at(layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one engine found: proved facts with their evidence, or why it passes on.

    ``attempts`` is the engine's word for the record; ``reason`` one sentence when something was proved.
    """

    attempts: tuple[Attempt, ...] = ()
    facts: Facts = NOTHING
    evidence: tuple[Evidence, ...] = ()
    witness: Witness | None = None
    reason: str | None = None
