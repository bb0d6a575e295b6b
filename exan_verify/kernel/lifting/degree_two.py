"""Checks the evidence of lifting (docs/theory.md C1, C2, 3.4, 3.6).

Everything is recomputed: activation patterns, loss vectors at the certificate's point, deltas, the matrix R
row by row, every rank. The certificate's numbers are only compared with what comes out. A rank over F_p is a
lower bound of the rank over the reals; no zero and no deficit mod p is used.

Of a release (docs/theory.md, releases) the ranks of steps 2, 6 and 9 are those of the rows that are sent: the
factorisation A = Delta [H 1], and so Delta' = Delta Q^-1, is known of these rows alone. What speaks of a
whole layer's gradient (``column_space``, ``output_rank``) asks that all of it is sent. With unknown positive
weights c every step holds for Delta diag(c) and g c in the place of Delta and g, and no rank depends on c;
labels are then told from a positive multiple of g.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.certificate import Apart, Conclusion, LayerArgument, Lifting, Scale, Split
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import backward_mod
from exan_verify.exact.linalg import pivots, rank_mod
from exan_verify.exact.modular import (
    PRIME,
    Residues,
    add_mod,
    multiply_mod,
    negate_mod,
    random_residues,
    residues,
)
from exan_verify.exact.rational import Mask, RationalMatrix, product_mod, residue_product
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.labels import Label, admitted, label_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The subject with its deltas in F_p at the certificate's point, or for another prime at one of its own.

    Ranks of these residues are taken mod ``prime``: :func:`rank_mod` is for images mod 2^61 - 1.
    ``weights_alone``: what is factored is dW = Delta H alone, of the rows of dW that are sent, without db.
    """

    subject: Subject
    deltas: PerLayer[Residues]
    point: int
    prime: int = PRIME
    weights_alone: bool = False

    def delta(self, layer: int) -> Residues:
        """Delta_layer mod p, (n, M); layers count from 1."""
        return self.deltas.at(layer)

    def sent(self, layer: int) -> Mask:
        """Which neurons of the layer have their row [dW | db] (of dW, for weights alone) sent, (n,)."""
        question, sent = self.subject.question, self.subject.model.layer(layer)
        return question.sent_weights(sent) if self.weights_alone else question.sent_neurons(sent)

    @property
    def has_ones(self) -> bool:
        """Whether the features have a column of ones, from the biases."""
        return self.subject.model.has_bias and not self.weights_alone

    def sent_delta(self, layer: int) -> Residues:
        """The rows of Delta_layer mod p whose neurons are sent, (sent, M)."""
        found: Residues = self.delta(layer)[self.sent(layer)]
        return found


def facts(evidence: Lifting, subject: Subject) -> Facts:
    """The samples that the evidence proves to be in every batch with this gradient.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    require(len(evidence.layers) > 0, "the evidence has no layer argument")
    named = [argument.layer for argument in evidence.layers]
    require(len(set(named)) == len(named), "a layer is named twice")
    image = image_at(evidence.prime, evidence.point, subject)
    known: frozenset[int] = frozenset()
    for argument in evidence.layers:
        known |= _layer(image, argument)
    return Facts(determined=known)


def image_at(
    prime: int, point: int, subject: Subject, *, biases: bool = True, weights_alone: bool = False
) -> Image:
    """The deltas in F_p at a certificate's point, for a network with biases, or for weights alone."""
    require(prime == PRIME, f"the prime is {prime}, this schema's is {PRIME}")
    require(1 < point < PRIME, "the point t is outside [2, p)")
    wrong = "the network has no biases; lifting does not apply" if biases else "the network has biases"
    require(weights_alone or subject.model.has_bias is biases, wrong)
    try:
        return image_in(PRIME, point, subject, weights_alone=weights_alone)
    except VanishingDenominatorError:
        raise CertificateRejected("a softmax denominator vanishes at the certificate's point t") from None


def image_in(prime: int, point: int, subject: Subject, *, weights_alone: bool = False) -> Image:
    """The deltas under T -> point mod a prime (6.3). Raises VanishingDenominatorError or
    UnsuitablePrimeError.
    """
    passed, labels, loss = subject.passed, subject.batch.labels, subject.question.loss
    vectors = loss_vectors_mod(loss, passed.logits, labels, subject.divisor, point, prime)
    deltas = backward_mod(subject.model, passed, vectors, prime)
    return Image(subject=subject, deltas=deltas, point=point, prime=prime, weights_alone=weights_alone)


def check_reduction(image: Image, layer: int) -> None:
    """rank(A) = M at hidden layer ``layer`` (3.1)."""
    samples = image.subject.samples
    require(1 <= layer < image.subject.model.depth, f"there is no hidden layer {layer}")
    require(rank_mod(image.sent_delta(layer)) == samples, f"rank(Delta_{layer}) = M is not shown")
    require(feature_rank(image, layer - 1) == samples, f"rank [H_{layer - 1} 1] = M is not shown")


def concluded(image: Image, conclusion: Conclusion) -> frozenset[int]:
    """The samples determined, given that every candidate lies in the span of one of ``groups`` (3.4, C2)."""
    samples = image.subject.samples
    groups = _after_splits(image, conclusion)
    alone = frozenset(group[0] for group in groups if len(group) == 1)
    _check_below(image, conclusion, everyone=len(alone) == samples)
    told = frozenset(m for m in alone if _label_told(image, conclusion, m, len(alone) == samples))
    require(
        told == frozenset(conclusion.determined) and len(conclusion.determined) == len(told),
        f"layer {conclusion.layer} determines samples {sorted(told)}, "
        f"the certificate says {list(conclusion.determined)}",
    )
    return told


def _layer(image: Image, argument: LayerArgument) -> frozenset[int]:
    check_reduction(image, argument.layer)
    check_system(image, argument, tuple(range(image.subject.samples)))
    return concluded(image, argument)


def check_system(image: Image, argument: LayerArgument | Split, members: tuple[int, ...]) -> None:
    """dim null(R) = sum of squared group sizes, for q in the span of ``members`` (C2, steps 5 to 7)."""
    i = argument.layer
    groups = groups_of(image.subject.passed.pattern(i)[image.sent(i)], members)
    require(groups == argument.groups, f"the pattern groups of layer {i} are {groups}")
    check_null_space(argument, lifted_system(image, argument, members), groups)


def check_null_space(
    argument: LayerArgument | Split | Scale, matrix: Residues, groups: tuple[tuple[int, ...], ...]
) -> None:
    """rank R, R (equations, U), is U - sum of squared group sizes; it is taken last, where all else fits."""
    unknowns, squares = matrix.shape[1], sum(len(group) ** 2 for group in groups)
    require(unknowns == argument.unknowns, f"U is {unknowns}, the certificate says {argument.unknowns}")
    needed = f"rank(R) = {unknowns - squares} is needed, else dim null(R) may exceed {squares}"
    require(argument.rank == unknowns - squares, f"{needed}; the certificate says {argument.rank}")
    require(len(matrix) >= argument.rank, f"{needed}; there are {len(matrix)} equations")
    rank = rank_mod(matrix)
    require(rank == argument.rank, f"{needed}; it is {rank} mod p")


def _after_splits(image: Image, argument: Conclusion) -> set[tuple[int, ...]]:
    """The groups that are left when the splits have been checked, each one layer above the one before."""
    open_groups: dict[tuple[int, ...], int | None] = dict.fromkeys(argument.groups, _known_up_to(argument))
    for part in argument.splits:
        require(open_groups.get(part.members) == part.layer - 1, f"{part.members} is no group to split here")
        require(part.layer < image.subject.model.depth, f"there is no hidden layer {part.layer}")
        independent = rank_mod(image.sent_delta(part.layer)[:, list(part.members)]) == len(part.members)
        require(independent, f"the group's deltas at layer {part.layer} are not shown to be independent")
        check_system(image, part, part.members)
        del open_groups[part.members]
        open_groups.update(dict.fromkeys(part.groups, _known_up_to(part)))
    return set(open_groups)


def _known_up_to(argument: Conclusion | Split) -> int | None:
    """The layer whose next deltas are U_k q; None: only W^T delta is, and no split can follow."""
    return None if argument.parametrisation == "row_space" else argument.layer


def lifted_system(
    image: Image, argument: LayerArgument | Split | Scale, members: tuple[int, ...]
) -> Residues:
    """R mod p, (equations, U): (Delta_j . q)(Delta_j . q - w_j . u) on the products q_a q_b (a <= b), then
    q_a u_k. Where the layer has slopes s below zero, (Delta_j . q - s w_j . u)(Delta_j . q - w_j . u), on
    these and u_k u_l (k <= l).
    """
    if argument.parametrisation == "single":
        # one sample: Q is a number, any q is allowed, and nothing is concluded about u
        require(image.subject.samples == 1, "more than one sample needs the lifted system")
        return np.zeros((0, 1), dtype=np.uint64)
    delta = image.sent_delta(argument.layer)[:, list(members)]
    width, pairs = unknowns_above(image, argument), len(members) * (len(members) + 1) // 2
    activation = image.subject.model.activation(argument.layer)
    sloped = activation is not None and activation.sloped
    unknowns = pairs + len(members) * width + (width * (width + 1) // 2 if sloped else 0)
    most = len(delta) + len(members) ** 2
    require(
        unknowns <= most, f"dim null(R) is too large: {len(delta)} neurons are too few for U = {unknowns}"
    )
    sent = image.sent(argument.layer)
    outgoing = outgoing_weights(image, argument)[sent]
    columns = [_products(delta)]
    mixed = [negate_mod(multiply_mod(delta[:, [a]], outgoing)) for a in range(len(members))]
    if activation is not None and sloped:
        # (a - w)(a - s w) = a^2 - (1 + s) a w + s w^2 with a = Delta_j . q, w = w_j . u (PL1)
        slope = RationalMatrix.of(activation.slope[sent].reshape(-1, 1)).residues()
        mixed = [add_mod(part, multiply_mod(part, slope)) for part in mixed]
        columns += [*mixed, multiply_mod(_products(outgoing), slope)]
    else:
        columns += mixed
    matrix = np.concatenate(columns, axis=1)
    kept: Residues = matrix[matrix.any(axis=1)]
    return kept


def _products(forms: Residues) -> Residues:
    """The squares of linear forms (n, k) on the products v_a v_b (a <= b) of their unknowns."""
    parts: list[Residues] = []
    for a in range(forms.shape[1]):
        rest = multiply_mod(forms[:, [a]], forms[:, a:])
        rest[:, 1:] = add_mod(rest[:, 1:], rest[:, 1:])
        parts.append(rest)
    return np.concatenate(parts, axis=1)


def unknowns_above(image: Image, argument: Conclusion | Split | Scale | Apart) -> int:
    """K', the number of unknowns of u; for ``row_space`` its rank mod p, a lower bound. It tells how large a
    system becomes before it is built.
    """
    i, samples = argument.layer, image.subject.samples
    width = image.subject.model.widths[i + 1]
    if argument.parametrisation == "row_space":
        return rank_mod(RationalMatrix.of(base_weights(image.subject, i)).residues())
    return {"full": width, "zero_sum": width - 1, "column_space": samples, "single": 0}[
        argument.parametrisation
    ]


def outgoing_weights(image: Image, argument: Conclusion | Split | Scale | Apart) -> Residues:
    """Row j of (n, K') is w_j, column j of W_{i+1}, on the unknowns of u, whose choice is checked (3.1)."""
    check_unknowns(image, argument)
    return weights_on_unknowns(image, argument)


def check_unknowns(image: Image, argument: Conclusion | Split | Scale | Apart) -> None:
    """The unknowns of u cover every delta'_{i+1} (6.4, step 4)."""
    i = argument.layer
    if argument.parametrisation == "column_space":
        following = image.delta(i + 1)
        require(bool(image.sent(i + 1).all()), f"the gradient of layer {i + 1} is not sent whole")
        require(rank_mod(following) == image.subject.samples, f"rank(Delta_{i + 1}) = M is not shown")
        require(feature_rank(image, i) == image.subject.samples, f"rank [H_{i} 1] = M is not shown")
    if argument.parametrisation == "zero_sum":
        require(
            i == image.subject.model.depth - 1 and image.subject.question.loss.zero_sum,
            "loss vectors sum to zero only above the last hidden layer, for cross_entropy and hinge",
        )


def weights_on_unknowns(image: Image, argument: Conclusion | Split | Scale | Apart) -> Residues:
    """The rows w_j (n, K') alone, in the image's field."""
    i, p = argument.layer, image.prime
    weight = image.subject.model.layers[i].weight
    if argument.parametrisation == "column_space":
        return product_mod(weight.T, image.delta(i + 1), p)
    if argument.parametrisation == "row_space":
        return RationalMatrix.of(row_space(image.subject, i)).residues(p)
    basis = np.eye(weight.shape[0], dtype=np.uint64)
    if argument.parametrisation == "zero_sum":
        basis = np.concatenate([basis[:, :-1][:-1], np.full((1, len(basis) - 1), p - 1, np.uint64)])
    return product_mod(weight.T, basis, p)


def row_space(subject: Subject, layer: int) -> Array:
    """Independent columns of :func:`base_weights` (n, rank), exact, of which all columns are combinations."""
    weights = base_weights(subject, layer)
    found: Array = weights[:, pivots(weights)]
    return found


def base_weights(subject: Subject, layer: int) -> Array:
    """The outgoing weights (n, n') as Fractions; on loss vectors that sum to zero without the last entry,
    which is minus the sum of the others.
    """
    weights = RationalMatrix.of(subject.model.layers[layer].weight.T).fractions()
    if layer == subject.model.depth - 1 and subject.question.loss.zero_sum:
        weights = weights[:, :-1] - weights[:, -1:]
    return weights


def feature_rank(image: Image, layer: int) -> int:
    """A lower bound of rank [H_layer 1] (of rank H_layer without ones), projected when H is wide."""
    features, samples = image.subject.passed.hidden[layer].residues(), image.subject.samples
    if image.has_ones:
        features = np.concatenate([features, np.ones((1, samples), dtype=np.uint64)])
    if len(features) > 3 * samples:
        mixer = random_residues(f"kernel/{layer}", samples + 4, len(features))
        features = residue_product(mixer, features)
    return rank_mod(features)


def groups_of(pattern: Mask, members: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Members with equal columns of the pattern, compared pair by pair."""
    groups: list[list[int]] = []
    for m in members:
        for group in groups:
            if np.array_equal(pattern[:, group[0]], pattern[:, m]):
                group.append(m)
                break
        else:
            groups.append([m])
    return tuple(tuple(group) for group in groups)


def _check_below(image: Image, argument: Conclusion, *, everyone: bool) -> None:
    """3.4 downward: full column rank of every lower Delta; with larger groups only layer 1 needs nothing."""
    require(everyone or argument.layer == 1, "samples share a pattern, and the layers below stay open")
    for k in range(1, argument.layer):
        below = image.subject.model.activation(k)
        # 3.4 reads D_k off h_k; phi(z) = phi(z') for two z of different slopes where one of them is negative
        require(below is None or below.shows_pattern, f"the features of layer {k} do not show its pattern")
    expected = tuple(image.subject.samples for _ in range(argument.layer - 1))
    require(argument.lower_ranks == expected, "a lower Delta lacks full column rank")
    for k in range(1, argument.layer):
        rows = image.subject.question.sent_weights(image.subject.model.layer(k))
        require(rank_mod(image.delta(k)[rows]) == image.subject.samples, f"rank(Delta_{k}) = M is not shown")


def _label_told(image: Image, argument: Conclusion, m: int, everyone: bool) -> bool:
    """Whether only sample m's own label fits its inputs and what is known of its deltas (3.4)."""
    depth = image.subject.model.depth
    if argument.labels == "loss_vectors":
        above = argument.layer == depth - 1 and argument.parametrisation not in ("row_space", "single")
        require(above, "loss vectors are known only above the last hidden layer, with all their entries")
        return label_told(image, m, np.eye(image.subject.model.classes, dtype=np.uint64))
    if argument.labels == "output_rank":
        require(everyone, "the output rank argument needs every input to be determined")
        require(bool(image.sent(depth).all()), "the gradient of the output layer is not sent whole")
        require(feature_rank(image, depth - 1) == image.subject.samples, "rank [H_{L-1} 1] = M is not shown")
        return label_told(image, m, np.eye(image.subject.model.classes, dtype=np.uint64))
    # one sample: nothing is known of the next delta, but the layer's own is there where its bias is sent
    lowest = argument.layer - (argument.parametrisation == "single")
    back = np.eye(image.subject.model.classes, dtype=np.uint64)
    for k in range(depth - 1, lowest, -1):
        back = product_mod(image.subject.model.layers[k].weight.T, back)
        back = image.subject.passed.derivative_mod(k, back, sample=m)
    if argument.parametrisation == "single":
        back = back[image.sent(argument.layer)]
    if argument.parametrisation == "row_space":
        back = product_mod(image.subject.model.layers[argument.layer].weight.T, back)
    return label_told(image, m, back)


def label_told(image: Image, m: int, back: Residues) -> bool:
    """Whether ``back @ (g(f, y') - g(f, y))`` is non-zero for every other admitted label y'."""
    loss, labels = image.subject.question.loss, image.subject.question.labels
    classes = image.subject.model.classes
    if image.subject.question.weighted:
        return _told_up_to_scale(image, m, back)
    if labels is Labels.REAL or (loss is Loss.BCE and labels is Labels.ONE_HOT):
        # the differences span at most R^K, so an injective map is enough
        return rank_mod(back) == classes
    own = image.subject.batch.labels
    for other in admitted(image.subject.question, own, classes):
        if other == label_of(own[m]):
            continue
        difference = _difference(image, m, other)
        if not any(sum(int(v) * d for v, d in zip(row, difference, strict=True)) % PRIME for row in back):
            return False
    return True


def _told_up_to_scale(image: Image, m: int, back: Residues) -> bool:
    """Whether ``back @ g(f, y')`` is a positive multiple of ``back @ g(f, y)`` for no other admitted label
    y'.

    softmax(f) - e_y and a non-zero hinge loss vector have one negative entry, at y; sigmoid(f) - y is
    negative exactly where y is 1. So where ``back`` is injective on such vectors the label is told by signs.
    Two vectors of rank 2 mod p are no multiples of each other.
    """
    subject = image.subject
    loss, classes = subject.question.loss, subject.model.classes
    own = subject.batch.labels
    if subject.question.labels is Labels.REAL:
        return False
    if loss is not Loss.MSE:
        basis = back
        if loss.zero_sum:  # e_k - e_K, k < K
            basis = add_mod(back[:, :-1], negate_mod(back[:, -1:]))
        if rank_mod(basis) == classes - loss.zero_sum:
            return loss is not Loss.HINGE or any(_vector(image, m, label_of(own[m])))
    if loss is Loss.BCE and subject.question.labels is Labels.ONE_HOT:
        return False
    here = _image_of(back, _vector(image, m, label_of(own[m])))
    for other in admitted(subject.question, own, classes):
        if other != label_of(own[m]):
            there = _image_of(back, _vector(image, m, other))
            if rank_mod(np.array([here, there], dtype=np.uint64)) < 2:
                return False
    return True


def _vector(image: Image, m: int, label: Label) -> list[int]:
    """g(f, label) of sample m mod p at the certificate's point."""
    subject = image.subject
    labels = subject.batch.labels[[m]].copy()
    labels[0] = int(label[0]) if labels.ndim == 1 else label
    vectors = loss_vectors_mod(subject.question.loss, subject.passed.logits[:, [m]], labels, 1, image.point)
    return [int(v) for v in vectors[:, 0]]


def _image_of(back: Residues, vector: list[int]) -> list[int]:
    return [sum(int(b) * v for b, v in zip(row, vector, strict=True)) % PRIME for row in back]


def _difference(image: Image, m: int, other: Label) -> list[int]:
    """``g(f, y') - g(f, y)`` mod p up to a non-zero factor: y - y' for all losses but hinge."""
    subject = image.subject
    own = subject.batch.labels[m]
    if subject.question.loss is Loss.HINGE:
        logits = subject.passed.logits[:, [m, m]]
        vectors = loss_vectors_mod(Loss.HINGE, logits, np.array([own, int(other[0])]), 1, image.point)
        return [(int(b) - int(a)) % PRIME for a, b in vectors]
    if subject.question.loss is Loss.CROSS_ENTROPY:
        return [int(k == own) - int(k == other[0]) for k in range(subject.model.classes)]
    values = residues([label_of(own), other])
    return [(int(a) - int(b)) % PRIME for a, b in values.T]
