"""Law: whatever it is given, check returns a claim that is true or raises CertificateRejected."""

from __future__ import annotations

import json
import time
from collections import Counter
from fractions import Fraction
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.certificate import Claim, Evidence, domain_box
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import CertificateRejected, InputError
from tests.conftest import examples
from tests.support.certificate_cases import Issued, broken, every_kind, garbled, nodes, spoiled

KINDS = {kind.__struct_config__.tag for kind in get_args(Evidence)}

OPPOSITE = {frozenset((SampleStatus.DETERMINED, SampleStatus.FREE))}


def answer(case: Issued, certificate: Any) -> Claim | None:
    """The claim, or None when it is rejected; every other error leaves."""
    try:
        return check(certificate, case.network, **case.given)
    except CertificateRejected:
        return None


def true(case: Issued, claim: Claim) -> bool:
    """Whether nothing that the engines know contradicts an accepted claim."""
    asked = claim.question
    own = check(case.certificate, case.network, **case.given)
    if asked.tolerance is not None:
        assert own.radius is not None
        assert claim.radius is not None
        wider = Fraction(asked.tolerance) >= Fraction(own.question.tolerance or "0")
        return not wider or all(r >= 0.9 * o for r, o in zip(claim.radius, own.radius, strict=True))
    outcome, samples = own.outcome, own.samples
    if asked != own.question:
        try:
            verdict = certify(
                case.network,
                **case.given,
                loss=asked.loss.value,
                reduction=asked.reduction.value,
                labels=asked.labels.value,
                domain=domain_box(asked.domain),
                batch_size=asked.batch_size,
                release=asked.asked().release,
                engine="exact",
            )
        except InputError:
            return False  # a question that cannot be asked
        outcome, samples = verdict.outcome, verdict.samples
    if len({outcome, claim.outcome} - {Outcome.UNKNOWN}) > 1:
        return False
    return not any(frozenset(pair) in OPPOSITE for pair in zip(samples, claim.samples, strict=False))


def test_every_kind_of_evidence_is_there_and_accepted():
    cases = every_kind()
    assert {kind for case in cases for kind in case.kinds} == KINDS
    for case in cases:
        assert answer(case, case.certificate) is not None, case.name
        assert answer(case, json.dumps(case.certificate).encode()) is not None, case.name


@examples(400)
@given(random=st.randoms(use_true_random=True))
def test_spoiled_certificates(random: Random):
    cases = every_kind()
    case = random.choice(cases)
    made = spoiled(case.certificate, random, cases)
    claim = answer(case, made)
    assert claim is None or true(case, claim), made


@examples(300)
@given(random=st.randoms(use_true_random=True))
def test_garbled_certificates(random: Random):
    case = random.choice(every_kind())
    made = garbled(json.dumps(case.certificate).encode(), random)
    claim = answer(case, made)
    assert claim is None or true(case, claim), made


@examples(200)
@given(random=st.randoms(use_true_random=True))
def test_broken_certificates_are_rejected(random: Random):
    case = random.choice(every_kind())
    made = broken(case.certificate, random)
    assert answer(case, made) is None, made


@examples(200)
@given(content=st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes(content: bytes | str):
    case = every_kind()[0]
    with pytest.raises(CertificateRejected):
        check(content, case.network, **case.given)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(4))
def test_campaign(seed: int):
    """40,000 certificates, half of them with claims that do not follow; prints what came of them, and the
    slowest answers.
    """
    cases, random, counts, slowest = every_kind(), Random(seed), Counter(), []
    for _ in range(10_000):
        case = random.choice(cases)
        how = random.choice(("spoiled", "broken", "broken", "garbled"))
        made: Any = (
            spoiled(case.certificate, random, cases)
            if how == "spoiled"
            else broken(case.certificate, random)
            if how == "broken"
            else garbled(json.dumps(case.certificate).encode(), random)
        )
        start = time.perf_counter()
        claim = answer(case, made)
        slowest.append((time.perf_counter() - start, case.name, how, _difference(case, made)))
        counts[how, "accepted" if claim else "rejected"] += 1
        assert claim is None or (how != "broken" and true(case, claim)), (case.name, made)
    print(f"\nseed {seed}:", *(f"{' '.join(key)}: {n}" for key, n in sorted(counts.items())), sep="\n  ")
    for seconds, *rest in sorted(slowest, key=lambda found: -found[0])[:5]:
        print(f"  {seconds:.2f} s: {rest}")


def _difference(case: Issued, made: Any) -> str:
    if isinstance(made, bytes):
        return ""
    before, after = dict(_leaves(case.certificate)), dict(_leaves(made))
    changed = [(k, before.get(k), after.get(k)) for k in {**before, **after} if before.get(k) != after.get(k)]
    return str(changed[:3])[:300]


def _leaves(value: Any) -> list[tuple[Any, Any]]:
    return [(path, node) for path, node in nodes(value) if not isinstance(node, (dict, list))]
