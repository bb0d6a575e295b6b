"""A certificate of every kind of evidence, and ways of spoiling certificates."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.certificate import Claim, QuestionRecord, issue
from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Reduction, Release
from exan_verify.core.staged import StagedNetwork
from exan_verify.core.verdict import Outcome
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import gradient
from exan_verify.instances import instance
from exan_verify.testing.laws.certificates import mutated, nodes
from tests.stored import CERTIFICATES, asked, load
from tests.support.cases import default_network, random_batch, three_share_layer_one, two_one_five_one
from tests.support.smt_cases import irrational, irrational_certificate
from tests.support.staged_cases import moving_case, unique_case
from tests.support.tolerance_cases import case as tolerance_case


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate with what it was made for; ``options`` are those of certify."""

    name: str
    network: ReluNetwork | StagedNetwork
    given: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    certificate: dict[str, Any]

    @property
    def kinds(self) -> list[str]:
        return [str(part["type"]) for part in self.certificate["evidence"]]


@lru_cache(maxsize=1)
def every_kind() -> tuple[Issued, ...]:
    """One certificate or more for every kind of evidence, most of them from certify."""
    return tuple(_asked(*recipe) for recipe in _recipes())


def _asked(
    name: str, network: ReluNetwork | StagedNetwork, given: dict[str, Any], options: dict[str, Any]
) -> Issued:
    certificate = options.pop("written", None) or certify(network, **given, **options).certificate
    assert certificate is not None, name
    if "tolerance" in options:
        given = {"gradient": given["gradient"]}
    plain = json.loads(json.dumps(certificate))
    return Issued(name=name, network=network, given=given, options=options, certificate=plain)


def _stored(kind: str) -> Recipe:
    """A certificate that was issued once with this evidence alone, for a batch."""
    for record in load(CERTIFICATES):
        held = record["certificate"]
        if [part["type"] for part in held["evidence"]] == [kind] and "x" in record:
            network, given = asked(record)
            return kind, network, given, {"written": held}
    raise AssertionError(kind)


Recipe = tuple[str, ReluNetwork | StagedNetwork, dict[str, Any], dict[str, Any]]


def _recipes() -> Iterator[Recipe]:
    network = default_network([6, 12, 60, 4], seed=3)
    yield "lifting", network, {"batch": random_batch(network, 3)}, {}
    network, batch = three_share_layer_one(Loss.CROSS_ENTROPY)
    yield "splits", network, {"batch": batch}, {"engine": "lifting"}
    network = default_network([12, 20, 3], seed=1)
    yield "degree three", network, {"batch": random_batch(network, 5)}, {"engine": "lifting"}
    outputs = np.random.default_rng(1).integers(-5, 6, (3, 14))
    network = ReluNetwork.from_arrays(
        [np.eye(7, dtype=int).repeat(2, axis=0), outputs], [[-1] * 14, [1, 0, -1]]
    )
    yield "apart", network, {"batch": (3 * np.eye(7), [0, 1, 2, 1, 0, 2, 1])}, {"engine": "lifting"}
    network = default_network([9, 20, 8, 3], seed=2)
    yield "enumeration", network, {"batch": random_batch(network, 3)}, {"engine": "enumeration"}
    network = default_network([6, 9, 1], seed=11, dtype=np.float64)
    for loss in (Loss.MSE, Loss.BCE):
        given = {"batch": random_batch(network, 3, seed=11, loss=loss)}
        yield f"rays {loss.value}", network, given, {"loss": loss.value, "engine": "enumeration"}
    network, batch = _cluster([2, 8, 2], (0, 0, 1, 1))
    yield "orbit", network, {"batch": batch}, {"loss": "mse"}
    network, batch = _cluster([5, 9, 3], (0, 1, 2, 0))
    yield "shear", network, {"batch": batch}, {}
    network, found, _ = two_one_five_one(5)
    yield "unseen", network, {"batch": (found.inputs, found.labels)}, {"loss": "bce", "engine": "families"}
    network = ReluNetwork.from_arrays([[[1, 1, 1]], [[1], [2]]], [[1], [0, 0]])
    given = {"batch": ([[0, 2, 2], [2, 0, 2]], np.eye(2))}
    yield "inwards", network, given, {"loss": "mse", "domain": Box(0, 4), "engine": "families"}
    basis = np.array([[1, 0], [0, 2], [3, 1]])
    network = ReluNetwork.from_arrays(
        [[[1, 2], [-1, 1], [2, 0]] @ basis.T, [[1, -1, 2], [0, 3, 1]]], [[1, 0, 2], [0, 1]]
    )
    release = Release(input_basis=basis)
    yield "projected", network, {"batch": ([[1, 2, 0.5]], [0])}, {"release": release, "engine": "families"}
    release = Release(averages=[[0, 1], [1, 2], [3, 4]])
    batch = [[1, 2], [0, 1], [3, 1], [2, 2], [1, 1]], [0, 0, 0, 1, 1]
    network = default_network([2, 4, 2], seed=1)
    yield "averaged", network, {"batch": batch}, {"release": release, "engine": "families"}
    network = default_network([4, 5, 3], seed=1)
    ask = {"release": Release(tensors=["0.bias", "2.bias"]), "engine": "families"}
    yield "submersion", network, {"batch": random_batch(network, 2)}, ask
    yield _stored("counting")
    yield _stored("input_cover")
    yield "cubes", *_cubes()
    network, batch = _cluster([6, 10, 5], (0, 0, 1))
    yield "quadrics", network, {"batch": batch}, {"loss": "mse"}
    network = ReluNetwork.from_arrays([[[1], [2]], [[0.01, 0], [-0.01, 0]]], [[1, 1], [0.5, 0.25]])
    yield "other solutions", network, {"batch": ([[0], [1]], [0, 1])}, {"loss": "mse"}
    network, batch = _cluster([6, 10, 5], (0, 1, 2))
    yield "selections", network, {"batch": batch}, {"loss": "hinge"}
    network, batch = _cluster([20, 60, 6], (0, 1), spread=2.0**-9)
    yield "membership", network, {"batch": batch}, {}
    network, batch = _cluster([20, 60, 3], (0, 0), spread=2.0**-9)
    yield "joint", network, {"batch": batch}, {}
    network = _bare([6, 60, 40, 4])
    x = np.random.default_rng(1).normal(size=(3, 6))
    yield "scale", network, {"batch": (x, [0, 1, 2])}, {}
    yield "twins", _bare([3, 20, 2]), {"batch": ([[0.5, 1, 0]], [0])}, {}
    network = ReluNetwork.from_arrays([[[1.0]], [[0.25]]])
    yield "rational twin", network, {"batch": ([[1.0]], [1.0])}, {"loss": "mse", "labels": "known"}
    yield from _gradients()
    network = ReluNetwork.from_arrays([[[1]], [[1]]])
    batch = ([[2]], [[0]])
    yield "algebraic", network, {"batch": batch}, {"loss": "mse", "written": _square_root(network, batch)}
    yield from _boxed()
    for name, (staged, batch) in (("stages", unique_case()), ("stage motions", moving_case())):
        yield name, staged, {"batch": batch}, {}
    network, _, given = tolerance_case([20, 80, 4], 2)
    yield "tolerance", network, {"gradient": given}, {"tolerance": 1e-9, "batch_size": 2}


def _cubes() -> tuple[ReluNetwork, dict[str, Any], dict[str, Any]]:
    """Two equal samples: no other engine has an argument for them."""
    case = instance("equal", Loss.BCE, True, 0)
    options = {"loss": "bce", "reduction": case.reduction.value, "labels": case.labels.value}
    return case.network, {"batch": case.batch}, options | {"engine": "residual"}


def _gradients() -> Iterator[Recipe]:
    rng = np.random.default_rng(1)
    widths = [(6, 40), (40, 3)]
    network = ReluNetwork.from_arrays(
        [rng.integers(-9, 10, (b, a)) for a, b in widths], [rng.integers(-9, 10, b) for _, b in widths]
    )
    x, y = rng.integers(-9, 10, (3, 6)), rng.integers(0, 3, 3)
    batch = Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    given = gradient(network, batch, Loss.MSE, Reduction.MEAN)
    yield "rebuild", network, {"gradient": given}, {"loss": "mse"}
    array = given.tensors["2.weight"].copy()
    array[0, 0] += 1
    changed = Gradient(tensors=given.tensors | {"2.weight": array})
    yield "forced", network, {"gradient": changed}, {"loss": "mse", "batch_size": 3}
    yield "gradient's rank", network, {"gradient": given}, {"loss": "mse", "batch_size": 1}
    yield "batch's rank", network, {"batch": batch}, {"loss": "mse", "batch_size": 1}
    network, given = irrational()
    asked = {"loss": "mse", "reduction": "sum", "batch_size": 2}
    yield "found", network, {"gradient": given}, asked | {"written": irrational_certificate()}


def _square_root(network: ReluNetwork, batch: Any) -> dict[str, Any]:
    """f = x, y = 0: also x' = (1 + sqrt 17) / 2 with y' = 1, by x' (x' - 1) = 4."""
    root = {"polynomial": [-4, -1, 1], "low": "2", "high": "3"}
    part = {"type": "algebraic_batch", "roots": [root]}
    return _written(
        network,
        Batch.of(*batch, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT),
        Loss.MSE,
        part | {"inputs": [[[["1", [1]]]]], "labels": [[[["1", [0]]]]]},
    )


def _boxed() -> Iterator[Recipe]:
    """sigmoid(x) x = sigmoid(x') x' on one logit without biases has two negative solutions around -1.28."""
    network = ReluNetwork.from_arrays([[[1]]])
    batch = Batch.of([[-1]], [[0]], network=network, loss=Loss.BCE, labels=Labels.ONE_HOT)
    low, high = -3.0, -1.3
    value = -1 / (1 + np.exp(1.0))
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if middle / (1 + np.exp(-middle)) > value else (low, middle)
    numerator, denominator = float(low).as_integer_ratio()
    part = {
        "type": "enclosed_batch",
        "inputs": [[f"{numerator}/{denominator}"]],
        "free": [[0, 0]],
        "radius": f"1/{2**20}",
        "labels": [["0"]],
    }
    written = _written(network, batch, Loss.BCE, part)
    yield "box", network, {"batch": batch}, {"loss": "bce", "written": written}


def _written(network: ReluNetwork, batch: Batch, loss: Loss, part: dict[str, Any]) -> dict[str, Any]:
    """A certificate by hand: one free sample."""
    question = QuestionRecord(
        entrance="batch", loss=loss, reduction=Reduction.MEAN, labels=Labels.ONE_HOT, batch_size=batch.size
    )
    claim = Claim(question=question, outcome=Outcome.AMBIGUOUS, samples=("free",))  # type: ignore[arg-type]
    made = issue(claim=claim, evidence=(), model_sha256=network.digest, batch_sha256=batch.digest)
    return made | {"evidence": [part]}


def _cluster(
    widths: list[int], classes: tuple[int, ...], *, spread: float = 2.0**-10
) -> tuple[ReluNetwork, tuple[Any, Any]]:
    """Samples close together, in one region."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=widths[0])
    x = (base + rng.normal(size=(len(classes), widths[0])) * spread).astype(np.float32)
    return default_network(widths, seed=2), (x, np.array(classes))


def _bare(widths: list[int]) -> ReluNetwork:
    rng = np.random.default_rng(0)
    return ReluNetwork.from_arrays([rng.normal(size=(b, a)) for a, b in pairwise(widths)])


# spoiling

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    16,
    63,
    10**4,
    2**31 - 1,
    2**31,
    2**61 - 1,
    10**30,
    -(10**300),
    0.5,
    -0.0,
    1e308,
    5e-324,
    "",
    "0",
    "-1/3",
    "1/0",
    "1e300000000",
    "0.1",
    "nan",
    "1/" + "7" * 9000,
    "9" * 9999,
    "9" * 20000,
    "\ud800",
    "x" * 5000,
    "0" * 5000,
    "01" * 2000,
    [],
    {},
    [[]],
    [[], []],
    [0] * 5000,
    [[0, "1"]] * 100,
    ["1/3"] * 40,
    {"type": "lifting"},
    "unique",
    "ambiguous",
    "unknown",
    "unrealisable",
    "determined",
    "free",
    "mse",
    "hinge",
    "bce",
    "cross_entropy",
    "one_hot",
    "known",
    "real",
    "sum",
    "full",
    "column_space",
    "row_space",
    "zero_sum",
    "single",
    "backward_map",
    "output_rank",
    "loss_vectors",
    "membership",
    "joint",
)


def spoiled(certificate: Mapping[str, Any], random: Random, others: tuple[Issued, ...]) -> dict[str, Any]:
    """A copy with one to three changes."""
    made = copy.deepcopy(dict(certificate))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        path, value = random.choice(list(nodes(made))[1:])
        target: Any = made
        for key in path[:-1]:
            target = target[key]
        random.choice(CHANGES)(target, path[-1], value, random, others)
    return made


Change = Callable[[Any, Any, Any, Random, tuple[Issued, ...]], None]


def _odd(target: Any, key: Any, value: Any, random: Random, others: tuple[Issued, ...]) -> None:
    target[key] = copy.deepcopy(random.choice(ODD))


def _near(target: Any, key: Any, value: Any, random: Random, others: tuple[Issued, ...]) -> None:
    """A number or text of the same kind."""
    if isinstance(value, bool) or value is None:
        target[key] = not value
    elif isinstance(value, (int, float)):
        target[key] = random.choice((value + 1, value - 1, 2 * value, -value, value // 2 if value else 7))
    elif isinstance(value, str) and value:
        place = random.randrange(len(value))
        target[key] = (
            value[:place] + random.choice("0123456789-/xkaf") + value[place + random.randint(0, 1) :]
        )
    elif isinstance(value, list) and value:
        random.shuffle(value)


def _deleted(target: Any, key: Any, value: Any, random: Random, others: tuple[Issued, ...]) -> None:
    del target[key]


def _repeated(target: Any, key: Any, value: Any, random: Random, others: tuple[Issued, ...]) -> None:
    if isinstance(target, list):
        target[key:key] = [copy.deepcopy(value) for _ in range(random.choice((1, 2, 50)))]
    elif isinstance(value, str):
        target[key] = value * random.choice((2, 100))
    else:
        target[f"{key}_"] = value


def _foreign(target: Any, key: Any, value: Any, random: Random, others: tuple[Issued, ...]) -> None:
    """A node of another certificate, of the same name where there is one."""
    found = list(nodes(random.choice(others).certificate))[1:]
    alike = [node for path, node in found if path[-1] == key or type(node) is type(value)]
    target[key] = copy.deepcopy(random.choice(alike or [node for _, node in found]))


CHANGES: tuple[Change, ...] = (_odd, _odd, _near, _near, _near, _deleted, _repeated, _foreign, _foreign)


def garbled(text: bytes, random: Random) -> bytes:
    """Bits flipped, bytes left out, put in or doubled, or the end cut off."""
    out = bytearray(text)
    for _ in range(random.choice((1, 1, 2, 8))):
        place = random.randrange(len(out))
        how = random.randrange(5)
        if how == 0:
            out[place] ^= 1 << random.randrange(8)
        elif how == 1:
            del out[place : place + random.choice((1, 1, 7))]
        elif how == 2:
            out[place:place] = random.choice((b"0", b"9", b"e9", b"[", b"]", b"{", b'"', b",", b"-", b"\xff"))
        elif how == 3:
            out[place:place] = out[place : place + random.randrange(40)]
        else:
            del out[place:]
        if not out:
            return b""
    return bytes(out)


def broken(certificate: Mapping[str, Any], random: Random) -> dict[str, Any]:
    """A copy whose claim does not follow."""
    return mutated(certificate, random)[1]


def plain(certificate):
    """As it comes back from a file."""
    return json.loads(json.dumps(certificate))


def certify_as(outcome, network, **asked):
    """The verdict of certify, which has this outcome."""
    verdict = certify(network, **asked)
    assert verdict.outcome is outcome, verdict.reason
    return verdict


def accepted(verdict, network, batch):
    """The verdict's certificate as it travels, after the kernel has derived its claim again."""
    certificate = plain(verdict.certificate)
    assert check(certificate, network, batch=batch).outcome is verdict.outcome
    return certificate


def assert_rejected(certificate, network, match=None, **given):
    """The kernel refuses the certificate for the batch or gradient that is given."""
    with pytest.raises(CertificateRejected, match=match):
        check(certificate, network, **given)


def assert_refused(match, checker, *asked, **options):
    """A checker of the kernel refuses the evidence that it is asked about, for the reason ``match``."""
    with pytest.raises(CertificateRejected, match=match):
        checker(*asked, **options)


def change(certificate, path, value):
    """A copy with another value where ``path`` leads, or what ``value`` makes of the one there."""
    tampered = copy.deepcopy(certificate)
    *way, last = path
    target = tampered
    for key in way:
        target = target[key]
    target[last] = value(target[last]) if callable(value) else value
    assert tampered != certificate
    return tampered
