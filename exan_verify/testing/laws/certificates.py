"""Certificates are accepted as they are issued, and rejected once their claim no longer follows."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from exan_verify.errors import CertificateRejected
from exan_verify.testing.laws.law import SEEDS, Case, cases, certified, law, mixed, require

MUTANTS = 24
"""Mutated certificates per case."""


@law(
    "certificates",
    "Every certificate that is issued is accepted, and the claim that comes back is the verdict's",
    lambda: cases(mixed()),
)
def issued_is_accepted(case: Case) -> str:
    """By the kernel, from its JSON text."""
    from exan_verify.api.check import check

    verdict = certified(case.question)
    if verdict.certificate is None:
        require(
            verdict.trust is None or verdict.trust.value != "certified", "certified, without a certificate"
        )
        return "none issued"
    try:
        claim = check(json.dumps(verdict.certificate), case.question)
    except CertificateRejected as error:
        require(False, f"a certificate of ours is rejected: {error}")
        raise
    require(claim.outcome is verdict.outcome, f"{claim.outcome} comes back, not {verdict.outcome}")
    require(claim.samples == verdict.samples, f"{claim.samples} come back, not {verdict.samples}")
    return f"accepted, {verdict.outcome.value}"


@law(
    "mutants",
    "Certificates with another claim, or with evidence that does not show it, are rejected",
    lambda: cases(mixed(), seed=SEEDS),
)
def mutants_are_rejected(case: Case) -> Mapping[str, int]:
    """Several mutants of a certificate: an outcome each, under the name of what was changed."""
    from exan_verify.api.check import check

    verdict = certified(case.question)
    if verdict.certificate is None:
        return {"none issued": 1}
    issued = json.loads(json.dumps(verdict.certificate))
    random, seen = Random(case.params["seed"]), Counter[str]()
    for _ in range(MUTANTS):
        kind, made = mutated(issued, random)
        try:
            check(made, case.question)
        except CertificateRejected:
            seen[f"{kind}: rejected"] += 1
        else:
            require(False, f"accepted, with another {kind}: {json.dumps(made)[:2000]}")
    return seen


# what is changed, so that the claim does not follow

Path = tuple[Any, ...]

COMPARED = ("prime", "rank", "unknowns")
"""Numbers of evidence that the kernel compares with what it computes."""


def nodes(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every node of a JSON value with its path."""
    yield path, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from nodes(inner, (*path, key))


def mutated(certificate: Mapping[str, Any], random: Random) -> tuple[str, dict[str, Any]]:
    """What was changed, and a copy whose claim does not follow: another outcome, status, size, radius, digest
    or statement; another prime, rank or number of unknowns in the evidence, or none.
    """
    made = copy.deepcopy(dict(certificate))
    claim = made["claim"]
    how = random.randrange(7)
    compared = [path for path, _ in nodes(made["evidence"]) if path and path[-1] in COMPARED]
    if how == 0:
        outcomes = {"unique", "ambiguous", "unrealisable"} - {claim["outcome"]}
        claim["outcome"] = random.choice(sorted(outcomes))
        return "outcome", made
    if how == 1 and claim["samples"] and claim["radius"] is None:
        place = random.randrange(len(claim["samples"]))
        statuses = {"determined", "free"} - {claim["samples"][place]}
        claim["samples"][place] = random.choice(sorted(statuses))
        return "sample's status", made
    if how == 2 and claim["outcome"] != "unrealisable":
        claim["question"]["batch_size"] += random.choice((-1, 1, 7))
        return "batch size", made
    if how == 3:
        name = random.choice([k for k in made if k.endswith("sha256") and made[k]])
        digits, place = made[name], random.randrange(64)
        other = random.choice([d for d in "0123456789abcdef" if d != digits[place]])
        made[name] = digits[:place] + other + digits[place + 1 :]
        return "digest", made
    if how == 4 and compared:
        *way, last = random.choice(compared)
        target = made["evidence"]
        for key in way:
            target = target[key]
        target[last] += random.choice((-1, 1, 60))
        return "number of the evidence", made
    if how == 5:
        made["statement"] = made["statement"].replace("proved", "believed", 1) + "."
        return "statement", made
    if claim["radius"] is not None:
        place = random.randrange(len(claim["radius"]))
        claim["radius"][place] *= random.choice((0.0, 0.1, 0.9))
        return "radius", made
    made["evidence"] = []
    return "evidence", made
