"""Certificates and verdicts made once are accepted and given for ever (tests/stored/README.md)."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec
import pytest

from exan_verify import check
from exan_verify.core.question import Loss
from exan_verify.errors import CertificateRejected
from tests.stored import (
    CELLS,
    CERTIFICATES,
    FEWER,
    FORMS,
    LEAST,
    VERDICTS,
    asked,
    audited,
    cell,
    certified,
    forms,
    load,
)

SHARE = 8
"""Every so manyth certificate of each form is checked by default; ``-m campaign`` checks them all."""


@pytest.fixture(scope="module")
def certificates():
    return list(load(CERTIFICATES))


@pytest.fixture(scope="module")
def verdicts():
    return list(load(VERDICTS))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def by_form(certificates):
    """Positions of the certificates that bear each form."""
    found = defaultdict(list)
    for position, record in enumerate(certificates):
        for form in forms(record["certificate"]):
            found[form].append(position)
    return found


def spread(certificates):
    """Positions that hold the first and every :data:`SHARE`-th certificate of each form."""
    return sorted({position for held in by_form(certificates).values() for position in held[::SHARE]})


def refused(certificates, positions):
    """Which of them are not accepted, or accepted with another claim than is stored."""
    wrong = []
    for position in positions:
        record = certificates[position]
        if of_no_batch(record):
            continue
        network, given = asked(record)
        try:
            claim = msgspec.to_builtins(check(record["certificate"], network, **given))
        except CertificateRejected as error:
            wrong.append((position, sorted(forms(record["certificate"])), str(error)))
            continue
        if msgspec.json.decode(msgspec.json.encode(claim)) != record["certificate"]["claim"]:
            wrong.append((position, sorted(forms(record["certificate"])), "another claim"))
    return wrong


def of_no_batch(record):
    """Whether it claims a radius, under a tolerance, around a batch that is not said to be within it."""
    return record["certificate"]["claim"].get("realised") is False


def taken(certificates, positions):
    """Which of them are accepted for the next question with a certificate of the same kind."""
    following = {}
    for held in by_form(certificates).values():
        following |= dict(zip(held, held[1:] + held[:1], strict=True))
    wrong = []
    for position in positions:
        network, given = asked(certificates[following[position]])
        try:
            check(certificates[position]["certificate"], network, **given)
        except CertificateRejected:
            continue
        wrong.append((position, following[position]))
    return wrong


def test_every_form_has_its_certificates(certificates):
    held = {form: len(positions) for form, positions in by_form(certificates).items()}
    assert not {form: held.get(form, 0) for form in FORMS if held.get(form, 0) < FEWER.get(form, LEAST)}
    assert not held.keys() - set(FORMS)


def test_every_kind_is_there_for_each_loss_label_set_and_entrance(certificates):
    held = Counter()
    for record in certificates:
        held.update(
            (part["type"], *cell(record["certificate"])) for part in record["certificate"]["evidence"]
        )
    lacking = [(kind, *where) for kind, places in CELLS.items() for where in places if not held[kind, *where]]
    assert not lacking


def test_every_outcome_is_there_for_each_loss(certificates):
    held = Counter(
        (claim["outcome"], claim["question"]["loss"])
        for claim in (record["certificate"]["claim"] for record in certificates)
    )
    assert len(certificates) >= 2000
    for loss in Loss:
        assert held["unique", loss.value] >= 100
        assert held["ambiguous", loss.value] >= 100
        assert held["unrealisable", loss.value] >= 10
        assert held["unknown", loss.value] >= 1


def test_stored_certificates_are_accepted(certificates):
    assert not refused(certificates, spread(certificates))


def test_stored_certificates_are_for_their_own_question_alone(certificates):
    assert not taken(certificates, spread(certificates))


def test_a_radius_around_no_batch_is_not_unique(certificates):
    """Such certificates were issued as UNIQUE once, which said too much: there is at most one batch."""
    held = [record for record in certificates if of_no_batch(record)]
    assert len(held) == 8
    for record in held:
        network, given = asked(record)
        with pytest.raises(CertificateRejected, match="at most one"):
            check(record["certificate"], network, **given)


@pytest.mark.campaign
def test_all_stored_certificates_are_accepted(certificates):
    assert not refused(certificates, range(len(certificates)))
    assert not taken(certificates, range(len(certificates)))


def test_stored_verdicts_are_given_again(verdicts):
    held = [record for record in verdicts if "verdict" in record]
    assert len(held) >= LEAST
    assert not [k for k, record in enumerate(held) if certified(record) != record["verdict"]]


def test_stored_audits_are_given_again(verdicts):
    held = [record for record in verdicts if "audit" in record]
    assert len(held) >= 12
    assert not [k for k, record in enumerate(held) if audited(record) != record["audit"]]
