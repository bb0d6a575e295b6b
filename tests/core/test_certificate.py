import json
from fractions import Fraction

import pytest

from exan_verify.api.certify import certify
from exan_verify.core.certificate import domain_box, domain_record, parse, rational
from exan_verify.core.question import Box
from exan_verify.errors import InputError
from tests.support.cases import default_network, random_batch
from tests.support.certificate_cases import assert_refused


def test_json_and_dict_are_the_same_certificate():
    network = default_network([6, 40, 4])
    made = certify(network, batch=random_batch(network, 2)).certificate
    assert parse(json.dumps(made)) == parse(made) == parse(json.dumps(made).encode())
    record = parse(made)
    assert record.producer.startswith("exan_verify ")
    assert record.created.endswith("+00:00")
    assert "real arithmetic" in record.statement


@pytest.mark.parametrize("bad", ["", "[]", "{", '{"schema": "exan/certificate/1"}', b"\x00", "null"])
def test_other_things_are_rejected(bad):
    assert_refused("not a certificate", parse, bad)


def test_domains_survive_exactly():
    box = Box([Fraction(1, 3), 0], 2)
    again = domain_box(json.loads(json.dumps(domain_record(box, 2))))
    assert [str(v) for v in again.lo] == ["1/3", "0"] or again.lo[0] == Fraction(1, 3)
    assert domain_record(None, 2) is None
    assert domain_box(None) is None
    with pytest.raises(InputError, match=r"Box.lo has shape \(2,\)"):
        domain_record(box, 3)


@pytest.mark.parametrize("text", ["", "a", "1/0", "1e", "--1"])
def test_rationals_in_text(text):
    assert rational("-3/4") == Fraction(-3, 4)
    assert_refused("rational", rational, text)
