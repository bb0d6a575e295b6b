"""Certificates, verdicts and outputs made once, with their questions: how they are written and read.

Each file holds one JSON object a line, compressed with xz; its bytes depend on the content alone. Numbers of
networks, batches and gradients are text: a hexadecimal float, or a rational.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np

from exan_verify import Box, Gradient, ReluNetwork, audit, certify
from exan_verify.api.records import encode, verdict_record
from exan_verify.core.certificate import Evidence, StageMotions, Stages

FOLDER = Path(__file__).parent
CERTIFICATES = FOLDER / "certificates.jsonl.xz"
VERDICTS = FOLDER / "verdicts.jsonl.xz"
OUTPUTS = FOLDER / "outputs.jsonl.xz"

Record = dict[str, Any]

LEAST = 60
"""Stored certificates of every form, at least."""

FORMS = (
    # one name per kind of evidence about networks that are stored, which have no convolutions
    *(kind.__struct_config__.tag for kind in get_args(Evidence) if kind not in (Stages, StageMotions)),
    # the shapes that they come in
    "parametrisation zero_sum",
    "parametrisation full",
    "parametrisation column_space",
    "parametrisation row_space",
    "parametrisation single",
    "labels by loss_vectors",
    "labels by output_rank",
    "labels by backward_map",
    "samples share a pattern",
    "groups split above",
    "layers below",
    "samples left over are lifted",
    "extra rays over Q",
    "extra rays mod p",
    "residual by quadrics",
    "residual with solutions excluded",
    "residual by loss_vectors",
    "residual by membership cover",
    "residual by joint cover",
    "counting own motions",
    "counting common motions",
    "second batch of mixes",
    "second batch of steps",
    "second batch with other classes",
    "second batch with other targets",
    "second batch with solved targets",
    "twin with another target",
    "rank bound of a batch",
    "rank bound of a gradient",
    "forced without solutions",
    "rebuilt from a gradient",
    "several arguments",
    "inside a box",
    "released tensors",
    "released rows",
    "released weights",
    "lifting on what is released",
    "degree three on what is released",
    "unseen on what is released",
    "unseen off faces by layer 1",
    "unseen off faces by layer 2",
    "scale on what is released",
)


FEWER = {
    "cubes": 12,
    "labels by backward_map": 2,
    "layers below": 50,
    "extra rays mod p": 47,
    "residual with solutions excluded": 34,
    "residual by joint cover": 27,
    "counting common motions": 6,
    "second batch with other classes": 0,
    "second batch with other targets": 33,
    "second batch with solved targets": 32,
    "twin with another target": 41,
}
"""Shapes of which fewer are stored: what the draws gave; to be raised when more are added."""


def _cells(*lines: str) -> set[tuple[str, str, str]]:
    """``"loss,loss label-set,label-set entrance"`` as all combinations."""
    return {cell for line in lines for cell in product(*(part.split(",") for part in line.split()))}


_ALL = _cells("cross_entropy,bce,mse,hinge one_hot,known batch", "mse real batch")
_EXACT = _cells("mse,hinge one_hot gradient", "mse real gradient")

CELLS = {
    "lifting": _ALL | _EXACT,
    "degree_three": _ALL - _cells("hinge known batch"),
    "apart": _cells("cross_entropy,bce,mse one_hot,known batch", "mse real batch"),
    "enumeration": _ALL | _EXACT,
    "extra_rays": _ALL | _cells("mse,hinge one_hot gradient"),
    "scale": _ALL - _cells("mse real batch"),
    "twins": _ALL - _cells("hinge one_hot,known batch", "mse known batch"),
    "rank_bound": _ALL | _EXACT,
    "forced": _EXACT,
    "second_batch": _ALL,
    "enclosed_batch": _cells("cross_entropy,bce one_hot,known batch"),
    "algebraic_batch": _cells("mse one_hot,known batch"),
    "residual": _cells("cross_entropy,bce,mse,hinge one_hot,known batch", "mse,hinge one_hot gradient"),
    "input_cover": _cells("cross_entropy,bce,mse one_hot,known batch"),
    "cubes": _cells("bce,mse one_hot,known batch"),
    "shear": _cells("cross_entropy,bce one_hot,known batch"),
    "counting": _cells("cross_entropy,bce one_hot,known batch"),
    "unseen": _ALL,
    "projected": _ALL,
    "averaged": _ALL,
    "submersion": _cells("cross_entropy,bce,mse one_hot,known batch", "mse real batch"),
    "tolerance": _cells("cross_entropy,bce,mse,hinge one_hot gradient"),
}
"""Loss, label set and entrance under which each kind of evidence is stored."""


def forms(certificate: Record) -> set[str]:
    """The names in :data:`FORMS` that a certificate bears."""
    found = set()
    for part in certificate["evidence"]:
        kind = part["type"]
        found |= {kind} | _SHAPES.get(kind, lambda _: set())(part)
        for argument in (part, part.get("argument"), part.get("conclusion"), *part.get("layers", ())):
            if isinstance(argument, dict) and "parametrisation" in argument:
                found |= _shared(argument)
    found |= {"rebuilt from a gradient"} if certificate["rebuild"] else set()
    found |= {"several arguments"} if len(certificate["evidence"]) > 1 else set()
    found |= {"inside a box"} if certificate["claim"]["question"]["domain"] else set()
    return found | _released(certificate)


def _released(certificate: Record) -> set[str]:
    release = certificate["claim"]["question"].get("release")
    if release is None:
        return set()
    found = {"released tensors"} if release["tensors"] else set()
    found |= {"released rows"} if release["rows"] else set()
    found |= {"released weights"} if release["weights"] == "positive" else set()
    kinds = {part["type"].replace("_", " ") for part in certificate["evidence"]}
    return found | {
        f"{kind} on what is released" for kind in kinds & {"lifting", "degree three", "unseen", "scale"}
    }


def cell(certificate: Record) -> tuple[str, str, str]:
    """Loss, label set and entrance."""
    question = certificate["claim"]["question"]
    return question["loss"], question["labels"], question["entrance"]


def _shared(argument: Record) -> set[str]:
    found = {f"parametrisation {argument['parametrisation']}"}
    found |= {f"labels by {argument['labels']}"} if isinstance(argument.get("labels"), str) else set()
    found |= {"samples share a pattern"} if any(len(g) > 1 for g in argument.get("groups", ())) else set()
    found |= {"groups split above"} if argument.get("splits") else set()
    return found | ({"layers below"} if argument.get("lower_ranks") else set())


def _residual(part: Record) -> set[str]:
    argument = part["argument"]
    if argument["type"] == "cover":
        return {f"residual by {argument['kind']} cover"}
    excluded = any(case["others"] for case in argument.get("cases", ()))
    return {f"residual by {argument['type']}"} | ({"residual with solutions excluded"} if excluded else set())


def _second(part: Record) -> set[str]:
    moves = part["moves"]
    names = {
        "second batch of mixes": any(len(m["mix"]) > 1 for m in moves),
        "second batch of steps": any(m["steps"] for m in moves),
        "second batch with other classes": any(m["label"] is not None for m in moves),
        "second batch with other targets": any(m["target"] for m in moves),
        "second batch with solved targets": part["solved"],
    }
    return {name for name, there in names.items() if there}


_SHAPES = {
    "extra_rays": lambda part: {"extra rays over Q" if part["exact"] else "extra rays mod p"},
    "residual": _residual,
    "counting": lambda part: {f"counting {'common' if part['common'] else 'own'} motions"},
    "second_batch": _second,
    "twins": lambda part: {"twin with another target"} if any(t["target"] for t in part["twins"]) else set(),
    "rank_bound": lambda part: {f"rank bound of a {'batch' if part['point'] else 'gradient'}"},
    "unseen": lambda part: (
        {f"unseen off faces by layer {part['inwards']['layer']}"} if "inwards" in part else set()
    ),
    "apart": lambda part: {"samples left over are lifted"} if part["rest"] else set(),
    "forced": lambda part: set() if part["matrix"] else {"forced without solutions"},
}


def written(array: Any) -> Any:
    """Nested lists of numbers as text; floats stay floats, everything else is a rational."""
    array = np.asarray(array)
    if array.ndim:
        return [written(row) for row in array]
    value = array.item()
    return value.hex() if isinstance(value, float) else str(Fraction(value))


def read_array(nested: Any) -> np.ndarray:
    """The array that :func:`written` wrote."""
    text = np.array(nested, dtype=object)
    flat = [float.fromhex(v) if "0x" in v else Fraction(v) for v in text.reshape(-1)]
    floats = all(isinstance(v, float) for v in flat)
    return np.array(flat, dtype=np.float64 if floats else object).reshape(text.shape)


def asked(record: Record) -> tuple[ReluNetwork, Record]:
    """The network of a stored question, and ``{"batch": (x, y)}`` or ``{"gradient": tensors}``."""
    weights = [read_array(weight) for weight in record["weights"]]
    biases = None if record["biases"] is None else [read_array(bias) for bias in record["biases"]]
    network = ReluNetwork.from_arrays(weights, biases)
    if "gradient" in record:
        return network, {
            "gradient": Gradient(tensors={name: read_array(a) for name, a in record["gradient"].items()})
        }
    return network, {"batch": (read_array(record["x"]), read_array(record["y"]))}


def question_record(network: ReluNetwork, given: Record) -> Record:
    """What :func:`asked` reads."""
    record: Record = {
        "weights": [written(layer.weight) for layer in network.layers],
        "biases": [written(layer.bias) for layer in network.layers] if network.has_bias else None,
    }
    if "gradient" in given:
        return record | {"gradient": {name: written(a) for name, a in given["gradient"].items()}}
    return record | {"x": written(given["batch"][0]), "y": written(given["batch"][1])}


def certified(record: Record) -> Record:
    """What ``certify --json`` says to a stored question, without times."""
    network, given = asked(record)
    return _plain(verdict_record(certify(network, **given, **_options(record))))


def audited(record: Record) -> Record:
    """What ``audit --json`` says to a stored question, without times."""
    network, given = asked(record)
    return _plain(audit(network, given["batch"], **_options(record)).to_record())


def _options(record: Record) -> Record:
    """A domain is stored as a pair of bounds."""
    chosen = dict(record["options"])
    if "domain" in chosen:
        chosen["domain"] = Box(*map(read_array, chosen["domain"]))
    return chosen


def _plain(record: Record) -> Record:
    return without_times(json.loads(encode(record)))


def without_times(value: Any) -> Any:
    """A JSON value without seconds, and without when and by which version it was made."""
    if isinstance(value, dict):
        dropped = ("seconds", "created", "producer")
        return {key: without_times(entry) for key, entry in value.items() if key not in dropped}
    return [without_times(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def load(path: Path) -> Iterator[Record]:
    """The objects of a file, in order."""
    return map(json.loads, lzma.decompress(path.read_bytes()).splitlines())


def save(path: Path, records: Iterable[Record]) -> None:
    """Write objects, one a line."""
    lines = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
    path.write_bytes(lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME))
