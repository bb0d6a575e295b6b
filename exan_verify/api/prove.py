"""``prove``: the claim of one certificate as a theorem in a file that Coq checks by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exan_verify.api.check import check
from exan_verify.coq.literals import tensor
from exan_verify.coq.unique import Choice, Given, document, find_evidence
from exan_verify.core.certificate import Certificate, Lifting, parse
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome
from exan_verify.errors import InputError, fitting_into_memory


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
    _require(claim.outcome is Outcome.UNIQUE, f"a claim of {claim.outcome.value.upper()}")
    _require(question.release is None, "a claim about a release")
    _require(question.loss.rational, f"the loss {question.loss.value}")
    _require(network.depth > 1, "a network without a hidden layer")
    _require(network.has_bias, "a network without biases")
    evidence = record.evidence[0]
    if len(record.evidence) != 1 or not isinstance(evidence, Lifting):
        kinds = ", ".join(sorted({str(type(part).__struct_config__.tag) for part in record.evidence}))
        raise InputError(_NOT.format(what=f"evidence of the kind {kinds}"))
    given = Batch.given(batch, network=network, loss=question.loss, labels=question.labels)
    divisor = question.divisor(given.size, network.classes)
    squared = question.loss is Loss.MSE
    tensors = Given(
        layers=tuple(
            (tensor(layer.weight, f"{layer.name}.weight"), tensor(layer.bias, f"{layer.name}.bias"))
            for layer in network.layers
            if layer.bias is not None
        ),
        inputs=tensor(given.inputs, "x"),
        labels=tensor(given.labels, "y") if squared else [int(v) for v in given.labels],
        factor=divisor if squared else divisor * network.classes,
    )
    last = network.depth - 1
    named = [argument.layer for argument in evidence.layers]
    layers = list(dict.fromkeys((*named, *range(last, 0, -1))))
    found = find_evidence(tensors, layers, _choices(evidence, question.loss))
    if found is None:
        raise InputError(
            _NOT.format(what="lifting with groups of samples that share a pattern, or labels told otherwise")
        )
    return document(tensors, found, about=_about(record))


_NOT = (
    "no Coq file can be made of {what}; what is covered is UNIQUE by lifting of degree two under mse and "
    "hinge, each sample alone with its pattern, biases in all layers. exan check rechecks it all the same"
)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise InputError(_NOT.format(what=what))


def _choices(evidence: Lifting, loss: Loss) -> tuple[Choice, ...]:
    """Which unknowns are tried: the certificate's own first, where the library has them."""
    first: Choice = "NextDeltas" if evidence.layers[-1].parametrisation == "column_space" else "AllEntries"
    zero_sum: tuple[Choice, ...] = ("SumZero",) if loss.zero_sum else ()
    return tuple(dict.fromkeys((first, *zero_sum, "AllEntries", "NextDeltas")))


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
