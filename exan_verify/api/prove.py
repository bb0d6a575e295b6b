"""``prove``: the claim of one certificate as a theorem in a file that Coq checks by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from exan_verify.api.check import check
from exan_verify.coq import ambiguous, unique
from exan_verify.coq.document import Given
from exan_verify.coq.literals import Table, Tensor, table, tensor
from exan_verify.coq.unique import Choice, find_evidence
from exan_verify.core.certificate import Certificate, DegreeThree, LayerArgument, Lifting, SecondBatch, parse
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.errors import InputError, fitting_into_memory
from exan_verify.kernel.given import Subject
from exan_verify.kernel.second.second_batch import rebuilt


@fitting_into_memory("prove")
def prove(certificate: Mapping[str, Any] | str | bytes, model: Any, *, batch: tuple[Any, Any] | Batch) -> str:
    """A file for coqc whose last theorem is the claim of ``certificate``, about these exact numbers.

    ``model`` and ``batch`` are as for :func:`exan_verify.certify`, and the certificate is checked first. The
    theorem says, for every ordered field and so for the reals, that every batch of that size with this
    batch's gradient is this batch up to the order of its samples, whatever its inputs and labels: where the
    question asks of fewer labels or of a domain, the theorem says more than the certificate. Compile it with
    ``coqc -Q proofs/coq Exan FILE.v`` in a checkout of the project; nothing of the certificate, the checker
    or this function has then to be trusted, but for the numbers in the statement (docs/coq-certificates.md).

    Raises :class:`InputError` naming what no file can be made of yet, :class:`CertificateRejected` where the
    certificate proves nothing about these inputs.
    """
    network = model
    if not isinstance(network, ReluNetwork):
        from exan_verify.models.chain import to_network  # torch is imported only for torch models

        network = to_network(model)
    claim = check(certificate, network, batch=batch)
    record = parse(certificate)  # its length was limited when it was checked
    question = claim.question.asked()
    _require(
        claim.outcome in (Outcome.UNIQUE, Outcome.AMBIGUOUS), f"a claim of {claim.outcome.value.upper()}"
    )
    _require(question.release is None, "a claim about a release")
    _require(network.depth > 1, "a network without a hidden layer")
    _require(network.has_bias, "a network without biases")
    given = Batch.given(batch, network=network, loss=question.loss, labels=question.labels)
    if claim.outcome is Outcome.AMBIGUOUS:
        _require(question.loss.rational, f"a claim of AMBIGUOUS under {question.loss.value}")
        return _second(record, Subject(model=network, batch=given, question=question))
    return _unique(record, network, given, question)


def _unique(record: Certificate, network: ReluNetwork, batch: Batch, question: Question) -> str:
    evidence = record.evidence[0]
    if len(record.evidence) != 1 or not isinstance(evidence, (Lifting, DegreeThree)):
        raise InputError(_NOT.format(what=f"evidence of the kind {_kinds(record)}"))
    classes = question.loss.class_labels
    labels = [int(v) for v in batch.labels] if classes else tensor(batch.labels, "y")
    given = _given(network, question, tensor(batch.inputs, "x"), labels)
    arguments = evidence.layers if isinstance(evidence, Lifting) else (evidence.argument,)
    named = [argument.layer for argument in arguments]
    layers = list(dict.fromkeys((*named, *range(network.depth - 1, 0, -1))))
    degree = 2 if isinstance(evidence, Lifting) else 3
    found = find_evidence(given, layers, _choices(arguments[-1], question.loss), degree=degree)
    if found is None:
        raise InputError(
            _NOT.format(
                what="lifting by the row space of the next weights, with labels told otherwise, or whose "
                "groups no layer tells apart"
            )
        )
    return unique.document(given, found, about=_about(record))


def _second(record: Certificate, subject: Subject) -> str:
    """The first piece of evidence that is a second batch of rational numbers."""
    parts = [part for part in record.evidence if isinstance(part, SecondBatch)]
    if not parts:
        raise InputError(_NOT.format(what=f"evidence of the kind {_kinds(record)}"))
    moved, second = rebuilt(parts[0], subject)
    batch, question = subject.batch, subject.question
    inputs = np.array(batch.x, dtype=object)
    inputs[moved] = second.inputs
    x = tensor(batch.inputs, "x")
    labels: Tensor | list[int]
    others: Table | list[int]
    if question.loss is Loss.MSE:
        targets = np.array(batch.y, dtype=object)
        targets[moved] = second.labels
        labels = tensor(batch.labels, "y")
        others = table(targets, labels.denominator)
    else:
        labels = [int(v) for v in batch.labels]
        others = list(labels)
        for m, label in zip(moved, second.labels, strict=True):
            others[m] = int(label)
    given = _given(subject.network, question, x, labels)
    return ambiguous.document(given, table(inputs, x.denominator), others, about=_about(record))


def _given(network: ReluNetwork, question: Question, inputs: Tensor, labels: Tensor | list[int]) -> Given:
    samples = len(inputs.numerators)
    divisor = question.divisor(samples, network.classes)
    return Given(
        loss=question.loss,
        layers=tuple(
            (tensor(layer.weight, f"{layer.name}.weight"), tensor(layer.bias, f"{layer.name}.bias"))
            for layer in network.layers
            if layer.bias is not None
        ),
        inputs=inputs,
        labels=labels,
        factor=divisor * network.classes if question.loss is Loss.HINGE else divisor,
    )


def _kinds(record: Certificate) -> str:
    return ", ".join(sorted({str(type(part).__struct_config__.tag) for part in record.evidence}))


_NOT = (
    "no Coq file can be made of {what}; what is covered is, with biases in all layers, UNIQUE by "
    "lifting of degree two or three, groups that share a pattern included, and "
    "AMBIGUOUS by a second batch of rational numbers under mse and hinge. exan check rechecks the "
    "certificate all the same"
)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise InputError(_NOT.format(what=what))


def _choices(argument: LayerArgument, loss: Loss) -> tuple[Choice, ...]:
    """Which unknowns are tried: the certificate's own first, where the library has them."""
    first = _UNKNOWNS.get(argument.parametrisation, "AllEntries")
    zero_sum: tuple[Choice, ...] = ("SumZero",) if loss.zero_sum else ()
    return tuple(dict.fromkeys((first, *zero_sum, "AllEntries", "NextDeltas", "Alone")))


_UNKNOWNS: dict[str, Choice] = {"column_space": "NextDeltas", "single": "Alone"}


def _about(record: Certificate) -> str:
    """What the file's header says."""
    question = record.claim.question
    return f"""
  Made by {record.producer} from a certificate of {record.created}:
  the batch is {record.claim.outcome.value} among batches of {question.batch_size} samples
  under {question.loss.value}, reduction {question.reduction.value}.
  model SHA-256 {record.model_sha256}
  batch SHA-256 {record.batch_sha256}
  Check it with: coqc -Q proofs/coq Exan FILE.v
  The numbers are words: a sign bit, a shift and a mantissa (proofs/coq/tensors.v, decode).
"""
