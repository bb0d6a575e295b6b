"""Make a counterexample smaller, one change at a time, as long as it stays one.

Whether a candidate still is one is the engines' word, or a solver's that is asked about the smaller network.
Fewer samples, neurons and inputs first, then simpler numbers. Greedy and deterministic: the same
counterexample shrinks to the same one, from which no step that was tried leads on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork, to_fraction
from exan_verify.core.question import Loss, Question
from exan_verify.smt.solvers.run import Worker
from exan_verify.theorems.claims.claim import Claim, Judgement, unique
from exan_verify.theorems.claims.searching.explore import Exploration, Limits, Point, explore
from exan_verify.theorems.claims.searching.found import Counterexample, Records, candidate_size, verified
from exan_verify.theorems.claims.searching.simpler import simpler, with_simpler_second
from exan_verify.theorems.claims.searching.tally import Tally
from exan_verify.theorems.claims.searching.unknowns import (
    FIRST,
    Template,
    exact_batches,
    free_of,
    label_pairs,
    polynomial,
    run_claim,
    second_labels,
)
from exan_verify.theorems.claims.situation import Situation, rational_array
from exan_verify.theorems.claims.tracing import Path

Find = Callable[[ReluNetwork, Batch, bool], Records | None]
Late = Callable[[], bool]
AT_ONCE = 24
"""Questions to a solver about one candidate, per labelling."""


def minimal(
    tally: Tally, records: Records, second: Batch | None, *, questions: int, seed: int
) -> Counterexample | None:
    """The smallest counterexample from here that can be verified; at most ``questions`` go to a solver."""
    note = f"{tally.what}, seed {seed}, made smaller step by step"
    with Worker() as worker:
        smaller = _Smaller(tally, note, questions, seed, worker)
        smallest = shrink(tally.claim, records, smaller.find, tally.late)
    known = smaller.seconds.get(_key(smallest))
    found = verified(tally.claim, *smallest, note, known) or verified(tally.claim, *records, note, second)
    if found is None:
        return None
    example, replayed = with_simpler_second(found.example, found.replay)
    return Counterexample(example=example, replay=replayed)


@dataclass(slots=True)
class _Smaller:
    """Says whether candidates are counterexamples. ``seconds``: second batches that the solver found."""

    tally: Tally
    note: str
    questions: int
    seed: int
    worker: Worker
    seconds: dict[tuple[str, str], Batch] = field(default_factory=dict)

    def find(self, network: ReluNetwork, batch: Batch, cut: bool) -> Records | None:
        """This batch or, where the candidate is a cut, any with so many samples in this network."""
        claim = self.tally.claim
        judged = self.tally.judge(network, batch)
        if judged is Judgement.FAILS:
            return network, batch
        found = None
        if not polynomial(claim) and judged is Judgement.UNDECIDED and claim.conclusion is unique:
            found = self._ask(_beside(claim, network, batch))
        if not polynomial(claim) and found is None and cut:
            found = self._ask(_anywhere(claim, network, batch))
        return found

    def _ask(self, templates: Iterator[Template]) -> Records | None:
        """What a solver finds, if it is verified: found is exact, and not to find is no proof."""
        for template in templates:
            at_once = min(AT_ONCE, self.questions)
            if at_once < 1 or self.tally.late():
                return None
            limits = Limits(runs=at_once, queries=at_once, deadline=self.tally.deadline, seed=self.seed)
            explored = Exploration()
            found = self._explore(template, limits, explored)
            self.questions -= explored.queries
            if found is not None:
                return found
        return None

    def _explore(self, template: Template, limits: Limits, explored: Exploration) -> Records | None:
        claim = self.tally.claim

        def program(point: Point, path: Path) -> Judgement:
            return run_claim(claim, template, point, path)

        for point, _, judged in explore(program, template.start(), limits, self.worker, explored):
            if judged is Judgement.FAILS:
                network, batch, second = exact_batches(claim, template, point)
                other = second if claim.conclusion is unique else None
                if verified(claim, network, batch, self.note, other) is not None:
                    if other is not None:
                        self.seconds[_key((network, batch))] = other
                    return network, batch
        return None


def _beside(claim: Claim, network: ReluNetwork, batch: Batch) -> Iterator[Template]:
    """Is there a second batch beside this one? Its inputs, and real labels, are unknown."""
    y = batch.labels if batch.labels.ndim == 1 else rational_array(batch.labels)
    for second in second_labels(claim, network, batch):
        yield Template(network=network, x=batch.inputs, y=y, second=second, free=free_of(claim))


def _anywhere(claim: Claim, network: ReluNetwork, batch: Batch) -> Iterator[Template]:
    """Is there a counterexample with so many samples in this network? The batch's inputs come first."""
    for y, second in label_pairs(claim, network.classes, batch.size):
        yield Template(network=network, x=batch.inputs, y=y, second=second, free=free_of(claim, FIRST))


def _key(records: Records) -> tuple[str, str]:
    return records[0].digest, records[1].digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network and batch as plain arrays of Fractions, easy to cut. ``y`` as in a batch."""

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    x: Array
    y: Array

    @classmethod
    def of(cls, network: ReluNetwork, batch: Batch) -> Candidate:
        """From exact records."""
        labels = batch.labels
        return cls(
            weights=tuple(rational_array(layer.weight) for layer in network.layers),
            biases=tuple(rational_array(layer.bias) for layer in network.layers if layer.bias is not None),
            x=rational_array(batch.inputs),
            y=labels if labels.ndim == 1 else rational_array(labels),
        )

    def records(self, claim: Claim) -> tuple[ReluNetwork, Batch]:
        """Exact records again. Raises :class:`exan_verify.errors.InputError` when the labels do not fit."""
        network = ReluNetwork.from_arrays(self.weights, self.biases or None)
        question = claim.question
        return network, Batch.of(self.x, self.y, network=network, loss=question.loss, labels=question.labels)


def shrink(claim: Claim, start: Records, find: Find, late: Late, limit: int = 1500) -> Records:
    """The smallest counterexample that greedy steps reach from ``start``.

    ``find`` is given a candidate, and whether it has fewer samples, neurons or inputs. It says None, or gives
    a counterexample of these: the candidate itself or, where it has fewer, another one. At most ``limit``
    candidates are tried. Fixed networks of the claim are not changed.
    """
    best = start
    tried = 0
    improved = True
    while improved:
        improved = False
        for smaller in _smaller(claim, Candidate.of(*best)):
            if tried >= limit or late():
                return best
            records = smaller.records(claim)
            if not claim.sizes.admit(records[0], records[1].size) and not claim.networks:
                continue
            size, least = candidate_size(*records), candidate_size(*best)
            if size >= least:
                continue
            tried += 1
            found = find(*records, size[0] < least[0])
            if found is not None:
                best, improved = found, True
                break
    return best


def _smaller(claim: Claim, found: Candidate) -> Iterator[Candidate]:
    """Every candidate one step away, the largest cuts first."""
    yield from _without_sample(found)
    if not claim.networks:
        yield from _without_neuron(found)
        yield from _without_input(found)
        yield from _without_logit(claim, found)
    yield from _with_simpler_numbers(claim, found)


def _without_sample(found: Candidate) -> Iterator[Candidate]:
    for m in range(len(found.x)):
        if len(found.x) > 1:
            yield replace(found, x=np.delete(found.x, m, axis=0), y=np.delete(found.y, m, axis=0))


def _without_neuron(found: Candidate) -> Iterator[Candidate]:
    """A neuron less; and the same with what it gave for a sample moved into the next bias."""
    for i in range(len(found.weights) - 1):
        for j in range(len(found.weights[i])):
            if len(found.weights[i]) > 1:
                weights = list(found.weights)
                weights[i] = np.delete(weights[i], j, axis=0)
                weights[i + 1] = np.delete(weights[i + 1], j, axis=1)
                cut = replace(found, weights=tuple(weights), biases=_cut(found.biases, i, j))
                yield cut
                for moved in _given(found, i, j) if found.biases else ():
                    yield replace(cut, biases=_put(cut.biases, i + 1, cut.biases[i + 1] + moved))


def _given(found: Candidate, i: int, j: int) -> list[Array]:
    """What neuron j of hidden layer i + 1 gives to the next pre-activations, for each sample: no zeros."""
    active = Situation(found.weights, found.biases, found.x, found.y, Question(loss=Loss.MSE)).hidden[i + 1][
        j
    ]
    return [found.weights[i + 1][:, j] * value for value in dict.fromkeys(active) if value != 0]


def _without_input(found: Candidate) -> Iterator[Candidate]:
    for k in range(found.x.shape[1]):
        if found.x.shape[1] > 1:
            first = np.delete(found.weights[0], k, axis=1)
            weights = (first, *found.weights[1:])
            yield replace(found, weights=weights, x=np.delete(found.x, k, axis=1))


def _without_logit(claim: Claim, found: Candidate) -> Iterator[Candidate]:
    """A logit less, where the labels stay labels of the loss's kind."""
    last = len(found.weights) - 1
    logits = len(found.weights[last])
    for k in range(logits):
        if not _dispensable(claim.question.loss, found.y, k, logits):
            continue
        y = np.where(found.y > k, found.y - 1, found.y) if found.y.ndim == 1 else np.delete(found.y, k, 1)
        weights = (*found.weights[:last], np.delete(found.weights[last], k, axis=0))
        yield replace(found, weights=weights, biases=_cut(found.biases, last, k), y=y)


def _dispensable(loss: Loss, y: Array, k: int, logits: int) -> bool:
    """Classes: two at least, and nobody's class. One-hot targets: nobody's, or a single logit is left."""
    if y.ndim == 1:
        return logits > 2 and not bool(np.any(y == k))
    if loss is Loss.BCE:
        return logits > 1
    return logits == 2 or (logits > 2 and not bool(np.any(y[:, k] != 0)))


def _with_simpler_numbers(claim: Claim, found: Candidate) -> Iterator[Candidate]:
    if not claim.networks:
        for i, weight in enumerate(found.weights):
            for changed in _simplified(weight):
                yield replace(found, weights=_put(found.weights, i, changed))
        for i, bias in enumerate(found.biases):
            for changed in _simplified(bias):
                yield replace(found, biases=_put(found.biases, i, changed))
    for changed in _simplified(found.x):
        yield replace(found, x=changed)


def _simplified(array: Array) -> Iterator[Array]:
    for index, value in np.ndenumerate(array):
        for number in simpler(to_fraction(value)):
            changed = array.copy()
            changed[index] = number
            yield changed


def _put(arrays: tuple[Array, ...], i: int, array: Array) -> tuple[Array, ...]:
    return (*arrays[:i], array, *arrays[i + 1 :])


def _cut(biases: tuple[Array, ...], i: int, j: int) -> tuple[Any, ...]:
    return _put(biases, i, np.delete(biases[i], j)) if biases else ()
