"""Certificates written to keep a checker busy: each is refused, because of what it says, before any work."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exan_verify.api.check import check
from exan_verify.api.files import save_batch, save_tensors
from exan_verify.cli import main
from exan_verify.core.certificate import MAX_DIGITS, STATEMENT, most_bytes, parse, rational
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Loss
from exan_verify.errors import BudgetExhausted, CertificateRejected, InputError
from exan_verify.kernel.lifting import extra_rays_mod
from tests.support.cases import default_network, random_batch, random_case
from tests.support.certificate_cases import Issued, assert_refused, assert_rejected, change, every_kind

PRIMES = [p for p in range(10**6, 10**6 + 60_000) if all(p % q for q in range(2, 1010))]


def named(name: str) -> Issued:
    return next(case for case in every_kind() if case.name == name)


def refused(case: Issued, certificate: Any, match: str | None = None) -> None:
    assert_rejected(certificate, case.network, match, **case.given)


def changed(name: str, path: tuple[Any, ...], value: Any) -> tuple[Issued, dict[str, Any]]:
    case = named(name)
    return case, change(case.certificate, path, value)


PART = ("evidence", 0)
MOVE = (*PART, "moves", 0)
HUGE = "1e300000000"
STEPPING = {
    "type": "second_batch",
    "directions": [[[0, "1"]]],
    "moves": [{"sample": 0, "mix": [[0, "1"]], "steps": [[0, HUGE]]}],
}
COPRIME = [f"1/{p}" for p in PRIMES]

NUMBERS = {
    "a direction": ("orbit", (*PART, "directions"), [[[0, HUGE]]]),
    "a mix": ("orbit", (*MOVE, "mix"), [[0, HUGE]]),
    "a step": ("orbit", PART, STEPPING),
    "a target": ("orbit", (*MOVE, "target"), [[0, HUGE]]),
    "a domain": ("orbit", ("claim", "question", "domain"), [["0"], [HUGE]]),
    "a domain of another claim": ("lifting", ("claim", "question", "domain"), [[HUGE], [HUGE]]),
    "a shear": ("shear", (*PART, "direction"), [[0, HUGE]]),
    "a solution": ("other solutions", (*PART, "argument", "cases", 0, "others"), [[[HUGE] * 2] * 2]),
    "a scale": ("rational twin", (*PART, "twins", 0, "low"), HUGE),
    "a mixing": ("rebuild", ("rebuild", "matrix"), [[HUGE] * 3] * 3),
    "a forced batch": ("forced", (*PART, "matrix"), [[HUGE] * 3] * 3),
    "a root": ("algebraic", (*PART, "roots", 0, "low"), HUGE),
    "a term": ("algebraic", (*PART, "inputs"), [[[[HUGE, [0]]]]]),
    "a box": ("box", (*PART, "radius"), HUGE),
    "a tolerance": ("tolerance", ("claim", "question", "tolerance"), HUGE),
}


@pytest.mark.parametrize("what", NUMBERS)
def test_exponents_are_no_rationals(what):
    refused(*changed(*NUMBERS[what]), match="rational number belongs|too long")


@pytest.mark.parametrize(
    "text", ["1e3", "0.5", " 1", "1\n", "1_0", "+1", "1/-2", "٣", "1/0", "7" * (MAX_DIGITS + 1)]
)
def test_other_ways_of_writing_numbers_are_refused(text):
    assert_refused("rational", rational, text)
    assert rational("-" + "7" * MAX_DIGITS) < 0


COUNTS = {
    "degree": ("quadrics", (*PART, "argument", "cases", 0, "degree"), 10**30),
    "degree in range": ("quadrics", (*PART, "argument", "cases", 0, "degree"), 2**31 - 1),
    "degree without unknowns": ("other solutions", (*PART, "argument", "cases", 0, "degree"), 2**31 - 1),
    "label": ("tolerance", (*PART, "labels", 0, 0), 10**30),
    "label in range": ("tolerance", (*PART, "labels", 0, 0), 2**31 - 1),
    "class": ("shear", ("claim", "question", "batch_size"), 2**31 - 1),
    "batch size": ("forced", ("claim", "question", "batch_size"), 2**31 - 1),
    "layer": ("lifting", (*PART, "layers", 0, "layer"), 2**31 - 1),
    "unknowns": ("lifting", (*PART, "layers", 0, "unknowns"), 2**31 - 1),
    "neurons": ("degree three", (*PART, "neurons"), 2**31 - 1),
    "selections": ("selections", (*PART, "argument", "selections"), 2**31 - 1),
    "point": ("lifting", (*PART, "point"), 10**30),
    "prime": ("lifting", (*PART, "prime"), 10**4000),
    "feature": ("orbit", (*MOVE, "mix"), [[2**31 - 1, "1"]]),
    "power": ("algebraic", (*PART, "inputs"), [[[["1", [2**31 - 1]]]]]),
    "coordinate": ("box", (*PART, "free"), [[0, 2**31 - 1]]),
    "order": ("enumeration", (*PART, "order"), [0] * 100_000),
    "directions": ("orbit", (*PART, "directions"), [[]] * 100_000),
    "parts": ("lifting", ("evidence",), [{}]),
    "tree": ("joint", (*PART, "argument", "trees", 0), "0" * 100_000),
    "constraints": ("joint", (*PART, "argument", "bounds", 0, 0), list(range(50))),
    "others": (
        "other solutions",
        (*PART, "argument", "cases", 0, "others"),
        [[["1", "0"], ["0", "1"]]] * 9999,
    ),
    "a polynomial of degree 9999": ("algebraic", (*PART, "roots", 0, "polynomial"), [1] * 10_000),
    "many roots": ("algebraic", (*PART, "roots"), [{"polynomial": [-2, 0, 1], "low": "1", "high": "2"}] * 99),
    "a large polynomial": ("algebraic", (*PART, "roots", 0, "polynomial"), [-(10**4000), -1, 1]),
    "terms": ("algebraic", (*PART, "inputs"), [[[[text, [0]] for text in COPRIME]]]),
    "mix": ("orbit", (*MOVE, "mix"), [[0, text] for text in COPRIME]),
    "shear": ("shear", (*PART, "direction"), [[0, text] for text in COPRIME]),
    "inputs beyond the float range": ("tolerance", (*PART, "inputs", 0), [1e308] * 20),
    "inputs near zero": ("tolerance", (*PART, "inputs", 0), [5e-324] * 20),
}


@pytest.mark.parametrize("what", COUNTS)
def test_counts_are_bounded_before_they_are_used(what):
    refused(*changed(*COUNTS[what]))


def test_repeated_evidence_is_not_gone_through_again_and_again():
    case = named("lifting")
    refused(case, case.certificate | {"evidence": case.certificate["evidence"] * 1000}, "pieces of evidence")
    part = case.certificate["evidence"][0]
    refused(case, case.certificate | {"evidence": [part | {"layers": part["layers"] * 1000}]}, "named twice")


def test_denominators_may_not_multiply_without_end():
    """Every input has a denominator of its own; over a common one they have a million bits."""
    network, batch = random_case([400, 6, 2], 2, seeds=(1, 1), dtype=np.float64)
    base = named("orbit").certificate
    question = base["claim"]["question"] | {"loss": "cross_entropy", "batch_size": 2}
    direction = [[k, f"1/{10**400 + PRIMES[k]}"] for k in range(400)]
    move = {"sample": 0, "mix": [[0, "1"]], "steps": [[0, "1"]]}
    made = base | {
        "model_sha256": network.digest,
        "batch_sha256": batch.digest,
        "claim": base["claim"] | {"question": question, "samples": ["free", "unknown"]},
        "evidence": [{"type": "second_batch", "directions": [direction], "moves": [move]}],
    }
    assert_rejected(made, network, "bits", batch=batch)


def large(loss: Loss) -> tuple[ReluNetwork, Any]:
    network = default_network([400, 200, 5], seed=1)
    return network, random_batch(network, 4, loss=loss)


@pytest.mark.parametrize("name", ["counting", "box", "algebraic"])
def test_what_is_for_small_networks_is_not_tried_on_others(name):
    case = named(name)
    network, batch = large(Loss(case.certificate["claim"]["question"]["loss"]))
    claim = change(case.certificate["claim"], ("question", "batch_size"), 4)
    part = copy.deepcopy(case.certificate["evidence"][0])
    if "inputs" in part:
        part["inputs"], part["labels"] = (
            [row * width for row in part[key]] * 4 for key, width in (("inputs", 400), ("labels", 5))
        )
    made = case.certificate | {
        "model_sha256": network.digest,
        "batch_sha256": batch.digest,
        "claim": claim,
        "evidence": [part],
    }
    assert_rejected(made, network, "small networks", batch=batch)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, b"\xff\xfe", "", "nan", "1", '"x"', "[]", b"null"]
)
def test_texts_that_are_no_certificates(text):
    refused(named("lifting"), text, "not a certificate")


@pytest.mark.parametrize("value", [None, 7, 1.5, [], ["x"], {"a": {1, 2}}, object()])
def test_values_that_are_no_certificates(value):
    refused(named("lifting"), value, "no(t a)? certificate")


def test_a_dictionary_in_itself():
    made: dict[str, Any] = dict(named("lifting").certificate)
    made["claim"] = made
    refused(named("lifting"), made, "not a certificate")


def test_a_key_that_occurs_twice_could_be_read_in_two_ways():
    case = named("lifting")
    text = json.dumps(case.certificate)
    assert check(text, case.network, **case.given)
    for key in ("schema", "outcome", "layer"):
        place = text.index(f'"{key}":')
        refused(case, f'{text[:place]}"{key}": 1, {text[place:]}', "twice")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 20_000])
def test_numbers_that_are_none(text):
    case = named("tolerance")
    made = case.certificate | {"claim": case.certificate["claim"] | {"radius": ["#", "#"]}}
    refused(case, json.dumps(made).replace('"#"', text), "finite|digits")


def test_the_statement_is_the_schema_s():
    case = named("lifting")
    assert case.certificate["statement"] == STATEMENT
    for other in ("", STATEMENT[:-1], f"{STATEMENT} Your data is safe.", "x" * 9999):
        refused(case, case.certificate | {"statement": other}, "statement")


def test_a_certificate_is_not_much_longer_than_what_it_is_about():
    case = named("lifting")
    numbers = sum(array.size for _, array in case.network.parameters())
    refused(case, case.certificate | {"producer": "x" * (most_bytes(numbers) + 10_000)}, "bytes")
    assert parse(case.certificate, longest=most_bytes(0))


def test_errors_are_not_longer_than_a_screen():
    case, made = changed("lifting", ("claim", "outcome"), "x" * 100_000)
    with pytest.raises(CertificateRejected) as caught:
        check(made, case.network, **case.given)
    assert len(str(caught.value)) < 500


def test_leaves_that_hold_all_samples_are_matched_without_trying_every_order(monkeypatch):
    """Twenty leaves that each hold every sample, and twenty that hold too few: 20! orders."""
    groups = tuple((m,) for m in range(20))
    unit = np.eye(20, dtype=np.uint64)
    system = extra_rays_mod.System(
        inactive=unit[:0],
        active=unit[:0],
        inactive_for=np.zeros((0, 20), dtype=bool),
        active_for=np.zeros((0, 20), dtype=bool),
        groups=groups,
        truth=unit,
        exact=True,
    )

    def leaf(*held: int) -> extra_rays_mod._Leaf:
        known = tuple(int(m in held) for m in range(20))
        return extra_rays_mod._Leaf(basis=unit, cuts=(), known=known)

    everyone = [leaf(*range(20))] * 20
    assert extra_rays_mod._holds_the_truth(system, everyone)
    assert not extra_rays_mod._holds_the_truth(system, [leaf(*range(19))] * 20)
    crossed = [leaf(*range(k, 20)) for k in range(20)]
    assert extra_rays_mod._holds_the_truth(system, crossed)
    assert not extra_rays_mod._holds_the_truth(system, [*crossed[1:], crossed[-1]])


# budgets


def test_a_budget_that_suffices_changes_nothing():
    case = named("lifting")
    claim = check(case.certificate, case.network, **case.given)
    assert check(case.certificate, case.network, **case.given, budget=60) == claim
    assert check(case.certificate, case.network, **case.given, budget=1e30) == claim
    with pytest.raises(CertificateRejected, match="not a certificate"):
        check(b"{}", case.network, **case.given, budget=60)


def test_a_budget_that_runs_out_decides_nothing():
    case = named("lifting")
    with pytest.raises(BudgetExhausted, match="neither accepted nor rejected"):
        check(case.certificate, case.network, **case.given, budget=1e-3)
    with pytest.raises(InputError, match="budget"):
        check(case.certificate, case.network, **case.given, budget=0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_command_says_undecided(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    case = named("lifting")
    batch = case.given["batch"]
    save_tensors("model.safetensors", dict(case.network.parameters()))
    save_batch("batch.npz", batch.inputs, batch.labels)
    Path("c.json").write_text(json.dumps(case.certificate))
    arguments = ["check", "c.json", "model.safetensors", "--batch", "batch.npz"]
    assert main([*arguments, "--budget", "60"]) == 0
    assert main([*arguments, "--budget", "0.001"]) == 3
    Path("c.json").write_bytes(b"[" * 5_000_000)
    assert main(arguments) == 1
    assert "bytes" in capsys.readouterr().err


# networks with biases in some layers only


def test_no_certificate_is_about_a_network_with_biases_in_some_layers_only():
    for case in every_kind():
        if not isinstance(case.network, ReluNetwork) or case.network.depth < 2:
            continue
        if not case.network.has_bias or "batch" not in case.given:
            continue
        first, *others = case.network.layers
        mixed = ReluNetwork(layers=(replace(first, bias=None), *others))
        moved = {**case.certificate, "model_sha256": mixed.digest}
        with pytest.raises(CertificateRejected, match="have no bias while"):
            check(moved, mixed, **case.given)
