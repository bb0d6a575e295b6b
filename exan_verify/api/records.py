"""Verdicts, audits and attacks as JSON-able dicts, keys as the attributes; one object with a schema each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from exan_verify.core.arrays import rationals
from exan_verify.core.certificate import ReleaseRecord
from exan_verify.core.network import batch_record
from exan_verify.core.question import Release
from exan_verify.core.verdict import Verdict, Witness
from exan_verify.exclusivity import ExclusivityState

if TYPE_CHECKING:
    from exan_verify.numeric.problem.metrics import Score
    from exan_verify.numeric.problem.records import Attack


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """The verdict's attributes; batches as exact rationals in text, ``distance`` with a tolerance only,
    ``release`` where one was asked about.
    """
    return {
        "outcome": verdict.outcome,
        "meaning": verdict.meaning,
        "samples": list(verdict.samples),
        "determined": verdict.determined,
        "reason": verdict.reason,
        "batch_size": verdict.batch_size,
        "engine": verdict.engine,
        "layer": verdict.layer,
        "trust": verdict.trust,
        "certified": list(verdict.certified),
        "batch": None if verdict.batch is None else batch_record(verdict.batch),
        "witness": None if verdict.witness is None else _witness_record(verdict.witness),
        "certificate": verdict.certificate,
        "architecture": verdict.architecture,
        "notes": list(verdict.notes),
        "attempts": [msgspec.to_builtins(attempt) for attempt in verdict.attempts],
    } | _asked_record(verdict)


def _asked_record(verdict: Verdict) -> dict[str, Any]:
    record: dict[str, Any] = {"distance": verdict.distance} if verdict.tolerant else {}
    if verdict.release is not None:
        record["release"] = release_record(verdict.release)
    return record


def release_record(release: Release) -> dict[str, Any]:
    """The release's attributes; masks as booleans, the basis as exact rationals in text."""
    record: dict[str, Any] = msgspec.to_builtins(ReleaseRecord.of(release))
    return record


def attack_record(found: Attack, score: Score | None, candidate_score: Score | None = None) -> dict[str, Any]:
    """The attack's attributes; the samples themselves go to the file.

    ``release`` where one was attacked, ``local_batch`` where the update of several mini-batches was,
    ``centred`` where BatchNorm used the statistics of the batch.
    """
    return (
        {
            "found": found.x.shape[0],
            "tiers": tiers(found),
            "labels": found.y.tolist(),
            "batch_size": found.batch_size,
            "batch_size_source": found.batch_size_source,
            "complete": found.complete,
            "gradient_residual": found.gradient_residual,
            "unfinished": found.unfinished,
            "reason": found.reason,
            "hint": found.hint,
            "missing": list(found.missing),
            "architecture": found.architecture,
            "notes": list(found.notes),
            "method": found.method,
            "layer": found.layer,
            "status": msgspec.to_builtins(found.status),
            "candidates": [
                {
                    "label": None if one.label is None else one.label.tolist(),
                    "error_estimate": one.error_estimate,
                    "reason": one.reason,
                }
                for one in found.candidates
            ],
            "scale": found.scale,
            "layers": msgspec.to_builtins(found.layers),
            "seconds": found.seconds,
            "score": None if score is None else msgspec.to_builtins(score),
            "candidate_score": None if candidate_score is None else msgspec.to_builtins(candidate_score),
        }
        | ({} if found.release is None else {"release": release_record(found.release)})
        | ({"local_batch": list(found.local_batch)} if found.local_batch else {})
        | _centred_record(found)
        | _hidden_record(found)
        | _picture_record(found)
    )


def tiers(found: Attack) -> dict[str, int]:
    """How many samples are of each tier."""
    from exan_verify.numeric.problem.records import Tier

    counts = {tier.value: found.count(tier) for tier in Tier}
    return counts | {"candidates": len(found.candidates)}


def _centred_record(found: Attack) -> dict[str, Any]:
    centred = found.centred
    if centred is None:
        return {}
    return {
        "centred": {
            "found": len(centred.values),
            "labels": centred.labels.tolist(),
            "status": msgspec.to_builtins(centred.status),
            "mean_rank": centred.mean_rank,
        }
    }


def _hidden_record(found: Attack) -> dict[str, Any]:
    """The keys ``hidden`` and ``last_layer`` of the JSON record, null where there is nothing to say."""
    hidden, last = found.hidden, found.last_layer
    return {
        "hidden": None
        if hidden is None
        else {
            "layer": hidden.layer,
            "found": len(hidden.values),
            "labels": hidden.labels.tolist(),
            "status": msgspec.to_builtins(hidden.status),
        },
        "last_layer": None if last is None else {"rank": last.rank, "present": last.present},
    }


def _picture_record(found: Attack) -> dict[str, Any]:
    """The keys that an attack on pictures adds to the JSON record; nothing for other attacks."""
    from exan_verify.numeric.convolution.records import ImageAttack

    if not isinstance(found, ImageAttack):
        return {}
    return {
        "features": len(found.features),
        "features_complete": found.features_complete,
        "feature_labels": found.feature_labels.tolist(),
        "feature_status": msgspec.to_builtins(found.feature_status),
        "stages": msgspec.to_builtins(found.stages),
        "estimates": 0 if found.estimates is None else len(found.estimates),
    }


def exclusivity_record(state: ExclusivityState) -> dict[str, Any]:
    """The exclusivity state's attributes, without ``active_for``: as long as the layers are wide."""
    record: dict[str, Any] = msgspec.to_builtins(state)
    del record["active_for"]
    return record


def encode(record: Mapping[str, Any]) -> bytes:
    """One JSON object; numbers that JSON lacks (NaN, infinities) become null."""
    return msgspec.json.encode(record, enc_hook=_plain)


def pretty(record: Mapping[str, Any]) -> bytes:
    """The same, indented for people, with a final newline."""
    return msgspec.json.format(encode(record), indent=2) + b"\n"


def finite(values: Sequence[float]) -> list[float | None]:
    """Floats for JSON and tables: None where a value is not finite."""
    return [value if math.isfinite(value) else None for value in map(float, values)]


def _witness_record(witness: Witness) -> dict[str, Any]:
    return {
        "batch": None if witness.batch is None else batch_record(witness.batch),
        "dimension": witness.dimension,
        "generators": witness.generators,
        "radius": witness.radius,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return rationals(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")
