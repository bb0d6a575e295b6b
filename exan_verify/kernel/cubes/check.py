"""Checks that the samples that are left have no other place, cube by cube (docs/theory.md CB14).

A *cube* is a region (a joint pattern) and a label for each of the samples. Every batch with the gradient lies
in one; the certificate lists the patterns, and refutes every cube by a tree of boxes whose leaves are
absurd, or hold the given batch alone. Nothing of it is believed: what contradicts what is computed from the
model and the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.certificate import Absurd, Alone, Cubes, Cut, Definite, EachLabel, Told, rational
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array, Batch, Linear, ReluNetwork
from exan_verify.core.question import Box, Labels, Question
from exan_verify.exact import linalg
from exan_verify.exact.backprop import backward_mod
from exan_verify.exact.modular import point
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.kernel.algebraic import Samples
from exan_verify.kernel.cubes.alone import alone, definite, told
from exan_verify.kernel.cubes.listing import Sums, listed_patterns, multisets
from exan_verify.kernel.cubes.members import Members
from exan_verify.kernel.cubes.relaxation import Cube, letters
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.residual.parts import Part, left_over

MAX_NODES = 6_000
"""Of all trees; twice as many as the engine writes, some ten milliseconds each."""
MAX_BITS = 256
"""Characters of a cut."""
MAX_WEIGHT = 2_000
"""Characters of a weight; the engine's have some hundred, for small networks."""
MAX_SAMPLES = 6
MAX_LETTERS = 64


def facts(evidence: Cubes, subject: Subject) -> Facts:
    """UNIQUE, with every sample that was left determined.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    left = left_over(subject)
    _require_small(evidence, subject.network, subject.question, len(left))
    if evidence.spanned:
        subject = fewer_inputs(subject)
    _go_through(evidence, Members.of(Part(subject=subject, members=left)))
    return Facts(determined=frozenset(left), unique=True)


def facts_of_found(evidence: Cubes, network: ReluNetwork, question: Question, samples: Samples) -> Facts:
    """The same of a batch of algebraic numbers with the gradient that is asked about, all of it.

    Raises :class:`CertificateRejected`, and :class:`UndecidedSignError`.
    """
    _require_small(evidence, network, question, len(samples.inputs))
    require(not evidence.spanned, "features are spared of rational batches alone")
    _go_through(evidence, Members.found(samples, network, question))
    return Facts(determined=frozenset(range(len(samples.inputs))), unique=True)


def _require_small(evidence: Cubes, network: ReluNetwork, question: Question, samples: int) -> None:
    require(question.labels is not Labels.REAL, "real labels are too many to go through")
    require(samples <= MAX_SAMPLES, f"cubes are for at most {MAX_SAMPLES} samples")
    require(network.classes > question.loss.zero_sum, "the loss vectors of one class are zero")
    require(sum(map(len, evidence.cubes)) <= MAX_NODES, "the trees are too large")


def _go_through(evidence: Cubes, members: Members) -> None:
    """Every multiset of the listed patterns that the gradient leaves has its tree, in turn."""
    sums, found = Sums(members=members), letters(members)
    require(len(found) <= MAX_LETTERS, "too many labels to go through")
    trees = iter(evidence.cubes)
    listed = listed_patterns(evidence.patterns, members.network, members.question.domain)
    for patterns in multisets(sums, listed):
        tree = next(trees, None)
        require(tree is not None, "a multiset of patterns has no tree")
        assert tree is not None
        _walk(Cube.of(sums, found, patterns), tree)
    require(next(trees, None) is None, "there are more trees than multisets of patterns")


def _walk(start: Cube, tree: Sequence[Absurd | Cut | EachLabel | Told | Alone | Definite]) -> None:
    """Follow the tree in preorder; every leaf must pass its test."""
    stack = [start]
    for node in tree:
        require(len(stack) > 0, "a tree goes on after its last box")
        cube = stack.pop()
        if isinstance(node, Absurd):
            require(cube.absurd(node.rows), "the inequalities of a box are not absurd")
        elif isinstance(node, Alone):
            require(alone(cube), "a box is not shown to hold the batch alone")
        elif isinstance(node, Definite):
            require(all(len(text) <= MAX_WEIGHT for text in node.weights), "a weight is too long")
            weights = [rational(text) for text in node.weights]
            require(definite(cube, weights), "a combination of the gradient's entries is not definite")
        elif isinstance(node, EachLabel):
            stack += reversed(cube.labelled())
        elif isinstance(node, Told):
            stack.append(told(cube, node.sample))
        else:
            require(node.axis < len(cube.sides) and len(node.at) <= MAX_BITS, "a cut is out of range")
            below, above = cube.cut(node.axis, rational(node.at))
            stack += [above, below]
    require(not stack, "a tree ends before its last box")


def fewer_inputs(subject: Subject) -> Subject:
    """The question about as many features as tell the others, in every batch with the gradient (CB11).

    With rank Delta_1 = rank [X 1] = M (without biases rank X) every such batch has [X' 1] = Q [X 1], so that
    its features are the same affine functions of those that are kept.
    """
    network, batch, size = subject.network, subject.batch, subject.samples
    ones = fractions(np.full((size, 1), int(network.has_bias)))
    points = np.concatenate([ones, fractions(batch.inputs)], axis=1)
    pivots = linalg.pivots(points)
    require(len(pivots) == size, "the inputs are dependent")
    require(_first_rank(subject) == size, "the deltas of the first layer are not shown to be independent")
    kept = [k - 1 for k in pivots if k]
    require(len(kept) < batch.inputs.shape[1], "no feature is spared")
    weights = linalg.solve(points[:, pivots], points[:, 1:])
    assert weights is not None  # the chosen columns are a square matrix of full rank
    maps = weights[int(network.has_bias) :].T
    first = network.layers[0]
    weight = linalg.multiply(fractions(first.weight), maps)
    bias = None
    if first.bias is not None:
        shift = linalg.multiply(fractions(first.weight), weights[:1].T)[:, 0]
        bias = fractions(first.bias) + shift
    domain = subject.question.domain
    if domain is not None:
        low, high = (np.asarray(side)[kept] for side in domain.bounds(batch.inputs.shape[1]))
        domain = Box(low, high)  # the other sides are left out, which admits more batches
    return replace(
        subject,
        model=ReluNetwork(layers=(Linear(weight=weight, bias=bias, name=first.name), *network.layers[1:])),
        batch=Batch(inputs=fractions(batch.inputs)[:, kept], labels=batch.labels),
        question=replace(subject.question, domain=domain),
    )


def _first_rank(subject: Subject) -> int:
    """rank Delta_1 mod p, at a point of this checker's own."""
    question = subject.question
    for attempt in range(8):
        t = point(f"cubes/{attempt}")
        try:
            vectors = loss_vectors_mod(
                question.loss, subject.passed.logits, subject.batch.labels, subject.divisor, t
            )
        except VanishingDenominatorError:
            continue
        deltas: Array = backward_mod(subject.network, subject.passed, vectors).at(1)
        return linalg.rank_mod(deltas)
    return 0
