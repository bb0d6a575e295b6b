"""``exan prove``: the file says what was asked, coqc accepts it, and a changed number is rejected."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exan_verify import Release, ReluNetwork, certify, prove
from exan_verify.coq.compiling import LIBRARY, compiled, is_compiled
from exan_verify.coq.document import Given, hypotheses
from exan_verify.coq.literals import SENTENCE, table, tensor
from exan_verify.coq.unique import document, find_evidence
from exan_verify.core.question import Loss
from exan_verify.errors import CertificateRejected, ExanError, InputError
from tests.support.cases import three_share_layer_one
from tests.support.commands import run

needs_coq = pytest.mark.skipif(
    shutil.which("coqc") is None or not is_compiled(),
    reason="needs coqc and the compiled library: bash proofs/install.sh, then make -C proofs/coq prove",
)


def drawn(kind: str, seed: int, widths: tuple[int, ...] = (4, 16, 3), samples: int = 2) -> Any:
    """A network and a batch of integers, of floats, or of fractions with an odd denominator."""
    r = np.random.default_rng(seed)

    def numbers(*shape: int) -> Any:
        whole = r.integers(-9, 10, shape)
        if kind == "integers":
            return whole
        if kind == "fractions":
            return np.array([Fraction(int(v), 3) for v in whole.reshape(-1)], dtype=object).reshape(shape)
        return r.normal(size=shape).astype(kind)

    shapes = list(zip(widths[1:], widths, strict=False))
    network = ReluNetwork.from_arrays([numbers(*shape) for shape in shapes], [numbers(n) for n, _ in shapes])
    return network, (numbers(samples, widths[0]), r.integers(0, widths[-1], samples))


def certified(kind: str, loss: str = "mse", evidence: str = "lifting", **shape: Any) -> Any:
    """The first drawn batch that is UNIQUE by lifting, its network and its certificate."""
    for seed in range(50):
        network, batch = drawn(kind, seed, **shape)
        if loss == "bce":
            batch = (
                batch[0],
                np.random.default_rng(seed).integers(0, 2, (len(batch[0]), network.widths[-1])),
            )
        certificate = certify(network, batch=batch, loss=loss).certificate
        if certificate and [part["type"] for part in certificate["evidence"]] == [evidence]:
            return network, batch, certificate
    raise AssertionError("no batch is unique by lifting")


def ambiguous(loss: str, widths: tuple[int, ...]) -> Any:
    """The first drawn batch of integers that has a second batch of rational numbers."""
    for seed in range(100):
        network, batch = drawn("integers", seed, widths=widths)
        certificate = certify(network, batch=batch, loss=loss).certificate
        if certificate and [part["type"] for part in certificate["evidence"]] == ["second_batch"]:
            return network, batch, certificate
    raise AssertionError("no batch has a second one")


def in_place(text: str, term: str) -> str:
    """The term with the rows that are defined before it, each once, in the place of their names."""
    rows = dict(re.findall(r"^Definition (\w+'?_row_\d+)(?: : seq Z)? := (.*?)\.$", text, re.S | re.M))
    return re.sub(r"\w+'?_row_\d+", lambda name: rows.pop(name[0]), term)


def written(text: str, name: str) -> list[list[Fraction]]:
    """The numbers of the tensor ``name``, read back from the file by the rule in proofs/coq/tensors.v."""
    found = re.search(rf"^Definition {name} := Tensor (\d+) (\d+)%BZ (.*?)\|\]\.$", text, re.S | re.M)
    assert found is not None
    bits, denominator = int(found[1]), int(found[2])
    rows = re.findall(r"\[\| ([\d; ]+) \| 0 \|\]", in_place(text[: found.start()], found[3]))

    def value(word: int) -> Fraction:
        shift = word >> 1 & (1 << bits) - 1
        return Fraction((-1) ** (word & 1) * (word >> bits + 1 << shift), denominator)

    return [[value(int(word)) for word in row.split(";")] for row in rows]


def listed(text: str, name: str) -> list[list[int]]:
    """The numerators of a second batch's table."""
    found = re.search(rf"^Definition {name} : integers := \[:: (.*?)\]\.$", text, re.S | re.M)
    assert found is not None
    rows = re.findall(r"\[:: ([-\d; ()]+)\]%BZ", in_place(text[: found.start()], found[1]))
    return [[int(v.strip(" ()")) for v in row.split(";")] for row in rows]


LARGE = (260, 16, 3)
"""Widths whose first weight has more numbers than a sentence holds."""


@pytest.mark.parametrize(
    ("kind", "loss", "widths"),
    [
        *product(
            ["integers", "float64", "float32", "fractions"], ["mse", "cross_entropy", "bce"], [(4, 16, 3)]
        ),
        ("float64", "mse", LARGE),
    ],
)
def test_the_numbers_of_the_statement_are_the_stored_ones(
    kind: str, loss: str, widths: tuple[int, ...]
) -> None:
    network, (x, y), certificate = certified(kind, loss, widths=widths)
    text = prove(certificate, network, batch=(x, y))

    def exact(values: Any) -> list[list[Fraction]]:
        return [
            [Fraction(v) if isinstance(v, Fraction) else Fraction(v.item()) for v in row] for row in values
        ]

    for number, layer in enumerate(network.layers, start=1):
        assert written(text, f"weight_{number}") == exact(layer.weight)
        assert written(text, f"bias_{number}") == exact([layer.bias])
    assert written(text, "inputs") == exact(x)
    if loss == "cross_entropy":
        assert f"Definition labels := [:: {'; '.join(map(str, y))}]%N." in text
    else:
        assert written(text, "labels") == exact(y if loss == "bce" else np.eye(3, dtype=int)[y])


@pytest.mark.parametrize("widths", [(4, 16, 3), (4, 24, 32, 3), (4, 16, 24, 40, 3)])
@pytest.mark.parametrize("loss", ["mse", "hinge", "cross_entropy"])
def test_the_statement_names_the_widths_and_labels(widths: tuple[int, ...], loss: str) -> None:
    network, batch, certificate = certified("integers", loss, widths=widths)
    text = prove(certificate, network, batch=batch)
    hidden = "; ".join(f"{n}%N" for n in widths[1:-1])
    assert f"Definition N : params R 4 [:: {hidden}] 3 := net R 4 [:: {hidden}] 3 layers." in text
    for number, layer in enumerate(network.layers, start=1):
        assert written(text, f"weight_{number}") == [[Fraction(int(v)) for v in row] for row in layer.weight]
    if loss != "mse":
        supposed = {"hinge": "is_class", "cross_entropy": "sums_to_one"}[loss]
        assert f"Definition labels := [:: {'; '.join(map(str, batch[1]))}]%N." in text
        assert f"(forall m, {supposed} (y' m)) ->" in text
    else:
        assert "forall m" not in text


@pytest.mark.parametrize("shape", [(20, 5), (4096, 1), (4097, 1), (100, 50), (1, 5000)])
def test_words_hold_numbers_of_very_different_sizes(shape: tuple[int, int]) -> None:
    r = np.random.default_rng(3)
    values = r.normal(size=shape) * 2.0 ** r.integers(-120, 120, shape)
    values.flat[:5] = [0.0, -0.0, 1.0, -1.0, 2.0**-100]
    found = tensor(values, "w")
    assert all(0 <= word < 1 << 63 for row in found.words for word in row)
    text = found.definition("w")
    assert written(text, "w") == [[Fraction(float(v)) for v in row] for row in values]
    sentences = [sentence.count(";") for sentence in text.split(".\n")]
    assert max(sentences) <= max(SENTENCE, shape[1]), "of the numbers in one sentence"
    assert len(sentences) == 2 + (shape[0] if shape[0] * shape[1] > SENTENCE else 0)


@pytest.mark.parametrize("shape", [(3, 4), (1100, 4)])
def test_integers_of_a_second_batch_are_read_back(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(5).integers(-9, 10, shape)
    assert listed(table(values, 1).definition("inputs'"), "inputs'") == values.tolist()


def test_numbers_that_no_word_holds_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"0\.weight has numbers that need \d+ binary digits"):
        tensor(np.array([[Fraction(2**80 + 1), Fraction(1)]], dtype=object), "0.weight")


@pytest.mark.parametrize("loss", ["mse", "hinge", "cross_entropy", "bce"])
def test_the_text_assumes_nothing_but_that_e_is_transcendental(loss: str) -> None:
    network, batch, certificate = certified("integers", loss)
    text = prove(certificate, network, batch=batch)
    assert not _ASSUMED.search(text)
    supposed = re.findall(r"^(?:Hypothes[ie]s|Variables?|Context) .*$", text, re.M)
    exponential = [
        "Variable exp : exponential R.",
        "Hypothesis e_transcendental : transcendental (exp 1).",
    ]
    assert hypotheses(text) == (["transcendental (exp 1)"] if loss in ("cross_entropy", "bce") else [])
    assert supposed == [
        "Variable R : realFieldType.",
        *(exponential if loss in ("cross_entropy", "bce") else []),
    ]


_ASSUMED = re.compile(r"\b(Axioms?|Parameters?|Conjecture|Admitted|admit|give_up)\b")


@pytest.mark.parametrize(
    "name",
    [
        "residues",
        "cubes",
        "tensors",
        "layers",
        "splits",
        "divisions",
        "triples",
        "certificates",
        "claims",
        "second",
        "softmax",
    ],
)
def test_the_library_assumes_nothing(name: str) -> None:
    assert not _ASSUMED.search((LIBRARY / f"{name}.v").read_text())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"biases": False}, "without biases"),
        ({"narrow": True}, "evidence of the kind residual"),
        ({"release": Release(tensors=["0.weight", "0.bias"])}, "a claim about a release"),
    ],
)
def test_what_is_not_covered_is_refused_with_its_reason(changed: dict[str, Any], reason: str) -> None:
    r = np.random.default_rng(0)
    weights = [r.normal(size=shape) for shape in ((40, 4), (3, 40))]
    biases = [r.normal(size=n) for n in (40, 3)]
    network = ReluNetwork.from_arrays(weights, biases if changed.get("biases", True) else None)
    x, y = r.normal(size=(2, 4)), np.array([0, 1])
    if changed.get("narrow"):  # too few neurons for lifting
        network = ReluNetwork.from_arrays([weights[0][:2], weights[1][:, :2]], [biases[0][:2], biases[1]])
    release = changed.get("release")
    verdict = certify(network, batch=(x, y), loss=changed.get("loss", "mse"), release=release)
    assert verdict.certificate is not None, verdict.reason
    with pytest.raises(ExanError, match=reason) as caught:
        prove(verdict.certificate, network, batch=(x, y))
    assert "\n" not in str(caught.value)


def test_second_batches_under_losses_with_exponentials_are_refused() -> None:
    network = ReluNetwork.from_arrays([[[1, 0]], [[1], [2]]], [[1], [0, 0]])
    batch = [[1, 5], [2, 3]], [0, 0]
    certificate = certify(network, batch=batch, loss="cross_entropy").certificate
    assert certificate is not None
    assert certificate["claim"]["outcome"] == "ambiguous"
    with pytest.raises(InputError, match="a claim of AMBIGUOUS under cross_entropy"):
        prove(certificate, network, batch=batch)


def test_a_certificate_of_another_batch_is_rejected() -> None:
    network, (x, y), certificate = certified("integers")
    with pytest.raises(CertificateRejected):
        prove(certificate, network, batch=(x + 1, y))


def files(folder: Path, kind: str) -> tuple[str, str, str]:
    """Certificate, model and batch as files."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    network, (x, y), certificate = certified(kind)
    tensors = {name: torch.from_numpy(np.array(values)) for name, values in network.parameters()}
    save_file(tensors, folder / "model.safetensors")
    np.savez(folder / "batch.npz", x=x, y=y)
    (folder / "certificate.json").write_text(json.dumps(certificate))
    return tuple(str(folder / name) for name in ("certificate.json", "model.safetensors", "batch.npz"))  # type: ignore[return-value]


def test_the_command_writes_the_file_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate, model, batch = files(tmp_path, "float64")
    out = tmp_path / "claim.v"
    code, said, error = run(
        capsys, "prove", certificate, model, "--batch", batch, "--out", str(out), "--json"
    )
    assert (code, error) == (0, "")
    assert json.loads(said) == {
        "schema": "exan/prove/1",
        "path": str(out),
        "accepted": None,
        "axioms": None,
        "hypotheses": [],
    }
    assert "Theorem claimed" in out.read_text()
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros((2, 4)), y=np.zeros(2, dtype=int))
    no = tmp_path / "no.v"
    code, said, error = run(capsys, "prove", certificate, model, "--batch", str(other), "--out", str(no))
    assert code == 1
    assert not no.exists()
    assert "another batch" in error
    for name in ("claim.txt", "my-claim.v"):
        bad = tmp_path / name
        code, _, error = run(capsys, "prove", certificate, model, "--batch", batch, "--out", str(bad))
        assert code == 2
        assert name in error


@needs_coq
def test_coqc_accepts_and_says_what_the_theorem_rests_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, model, batch = files(tmp_path, "float64")
    out = str(tmp_path / "claim.v")
    code, said, error = run(capsys, "prove", certificate, model, "--batch", batch, "--out", out, "--run")
    assert (code, error) == (0, "")
    assert "PROVED" in said
    assert "PrimInt63.mul, " in said
    assert "Uint63.mul_spec" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["batch.npz", "certificate.json", "claim.v", "model.safetensors"]
    ), "what coqc leaves behind is removed"


@needs_coq
@pytest.mark.parametrize(
    ("loss", "widths"),
    [
        pytest.param("hinge", (4, 16, 24, 3), marks=pytest.mark.campaign),
        ("cross_entropy", LARGE),
        pytest.param("mse", (4, 16, 24, 20, 3), marks=pytest.mark.campaign),
        pytest.param("cross_entropy", (4, 16, 24, 20, 3), marks=pytest.mark.campaign),
        pytest.param("bce", (4, 16, 3), marks=pytest.mark.campaign),
        pytest.param("bce", (4, 16, 24, 3), marks=pytest.mark.campaign),
    ],
)
def test_coqc_accepts_other_losses_and_depths(loss: str, widths: tuple[int, ...], tmp_path: Path) -> None:
    network, batch, certificate = certified("float32", loss, widths=widths)
    path = tmp_path / "claim.v"
    path.write_text(prove(certificate, network, batch=batch))
    assert "PrimInt63.mul" in compiled(path)


@needs_coq
@pytest.mark.campaign
@pytest.mark.parametrize(
    ("layer", "widths"),
    [(2, (4, 16, 32, 12, 3)), (2, (4, 16, 32, 3))],
)
def test_coqc_accepts_an_argument_at_a_higher_layer(
    layer: int, widths: tuple[int, ...], tmp_path: Path
) -> None:
    for seed in range(50):
        network, (x, y) = drawn("integers", seed, widths=widths)
        given = Given(
            loss=Loss.MSE,
            layers=tuple((tensor(one.weight, "w"), tensor(one.bias, "b")) for one in network.layers),
            inputs=tensor(x, "x"),
            labels=tensor(np.eye(3, dtype=int)[y], "y"),
            factor=6,
        )
        evidence = find_evidence(given, [layer], ["NextDeltas"])
        if evidence is not None:
            break
    path = tmp_path / "claim.v"
    path.write_text(document(given, evidence, about=" "))
    assert "unique_mse_deep_ok" in path.read_text()
    assert "PrimInt63.mul" in compiled(path)


@needs_coq
@pytest.mark.parametrize(
    ("loss", "widths"),
    [
        pytest.param("cross_entropy", (4, 7, 3), marks=pytest.mark.campaign),
        pytest.param("mse", (4, 9, 3), marks=pytest.mark.campaign),
    ],
)
@pytest.mark.parametrize("tampered", [False, True])
def test_coqc_accepts_lifting_of_degree_three(
    loss: str, widths: tuple[int, ...], tampered: bool, tmp_path: Path
) -> None:
    """With too few neurons for degree two; another unknown in one equation is another matrix."""
    network, batch, certificate = certified("integers", loss, "degree_three", widths=widths, samples=3)
    text = prove(certificate, network, batch=batch)
    path = tmp_path / "claim.v"
    if not tampered:
        path.write_text(text)
        assert "PrimInt63.mul" in compiled(path)
        return
    before, after = text.split("Definition evidence", 1)
    lists = list(re.finditer(r"^  \[:: (\d+)", after, re.MULTILINE))
    unknown = lists[1]
    changed = f"{after[: unknown.start(1)]}{(int(unknown[1]) + 1) % 3}{after[unknown.end(1) :]}"
    path.write_text(f"{before}Definition evidence{changed}")
    with pytest.raises(CertificateRejected, match="coqc rejects"):
        compiled(path)


@needs_coq
@pytest.mark.parametrize(
    ("loss", "widths"),
    [
        pytest.param("cross_entropy", (3, 4, 3, 2), marks=pytest.mark.campaign),
        pytest.param("hinge", (3, 4, 2), marks=pytest.mark.campaign),
    ],
)
def test_coqc_accepts_one_sample_alone(loss: str, widths: tuple[int, ...], tmp_path: Path) -> None:
    network, batch, certificate = certified("integers", loss, widths=widths, samples=1)
    assert certificate["evidence"][0]["layers"][0]["parametrisation"] == "single"
    path = tmp_path / "claim.v"
    path.write_text(prove(certificate, network, batch=batch))
    assert "(Alone)" in path.read_text()
    assert "PrimInt63.mul" in compiled(path)


def parted(widths: tuple[int, ...], near: dict[int, float], parts: dict[int, tuple[int, int]]) -> Any:
    """Four samples; sample m of ``near`` is as close as this to sample 0. Half of the neurons of the layers
    in ``parts`` pass between the features of two samples.
    """
    r = np.random.default_rng(1)
    x = r.normal(size=(4, widths[0]))
    for m, gap in near.items():
        x[m] = x[0] + gap * r.normal(size=widths[0])
    features, layers = x, []
    for number, (width, below) in enumerate(zip(widths[1:], widths, strict=False), start=1):
        weight, bias = r.normal(size=(width, below)), r.normal(size=width)
        if number in parts:
            a, b = parts[number]
            half = width // 2
            bias[:half] = -weight[:half] @ (features[a] + features[b]) / 2
        layers.append((weight, bias))
        features = np.maximum(features @ weight.T + bias, 0)
    return ReluNetwork.from_arrays(*zip(*layers, strict=True)), (x, np.array([0, 1, 2, 0]))


def groups_by_layer(network: ReluNetwork, x: Any) -> list[int]:
    """How many patterns the samples have in each hidden layer."""
    counts = []
    for layer in network.layers[:-1]:
        x = np.maximum(x @ layer.weight.T.astype(float) + layer.bias.astype(float), 0)
        counts.append(len({tuple(row > 0) for row in x}))
    return counts


@needs_coq
@pytest.mark.parametrize("tampered", [False, True])
def test_coqc_accepts_groups_that_the_next_layer_tells_apart(tampered: bool, tmp_path: Path) -> None:
    """A changed minor of the group's own system, the last one of the evidence, is rejected."""
    network, batch = three_share_layer_one(Loss.CROSS_ENTROPY)
    certificate = certify(network, batch=batch, loss="cross_entropy").certificate
    assert certificate is not None
    assert certificate["evidence"][0]["layers"][0]["splits"] != []
    text = prove(certificate, network, batch=batch)
    before, evidence = text.split("Definition evidence", 1)
    evidence, after = evidence.split("Definition told", 1)
    assert evidence.count("Division") == 1
    path = tmp_path / "claim.v"
    if not tampered:
        path.write_text(text)
        assert "PrimInt63.mul" in compiled(path)
        return
    *_, last = re.finditer(r"(\d+) \| 0 \|\]", evidence)
    changed = f"{evidence[: last.start(1)]}{int(last[1]) ^ 1}{evidence[last.end(1) :]}"
    path.write_text(f"{before}Definition evidence{changed}Definition told{after}")
    with pytest.raises(CertificateRejected, match="coqc rejects"):
        compiled(path)


@needs_coq
@pytest.mark.campaign
@pytest.mark.parametrize(
    ("loss", "layer", "near", "parts", "patterns"),
    [
        (Loss.MSE, 1, {1: 2.0**-24, 2: 2.0**-11}, {2: (0, 2), 3: (0, 1)}, [2, 3, 4]),
        (Loss.CROSS_ENTROPY, 1, {1: 2.0**-24, 2: 2.0**-11}, {2: (0, 2), 3: (0, 1)}, [2, 3, 4]),
        (Loss.MSE, 2, {1: 2.0**-24}, {3: (0, 1)}, [3, 3, 4]),
    ],
)
def test_coqc_accepts_chains_of_splits_and_those_of_a_higher_layer(
    loss: Loss, layer: int, near: Any, parts: Any, patterns: list[int], tmp_path: Path
) -> None:
    network, (x, y) = parted((5, 40, 40, 40, 3), near, parts)
    assert groups_by_layer(network, x) == patterns
    given = Given(
        loss=loss,
        layers=tuple((tensor(one.weight, "w"), tensor(one.bias, "b")) for one in network.layers),
        inputs=tensor(x, "x"),
        labels=tensor(np.eye(3, dtype=int)[y], "y") if loss is Loss.MSE else [int(v) for v in y],
        factor=4,
    )
    evidence = find_evidence(given, [layer], ["NextDeltas", "AllEntries"])
    assert evidence is not None
    assert [len(level) for level in evidence.splits] == [1] * (3 - layer)
    path = tmp_path / "claim.v"
    path.write_text(document(given, evidence, about=" "))
    assert "PrimInt63.mul" in compiled(path)
    path.write_text(document(given, replace(evidence, splits=()), about=" "))
    with pytest.raises(CertificateRejected, match="coqc rejects"):
        compiled(path)


@needs_coq
@pytest.mark.campaign
def test_coqc_accepts_groups_by_degree_three(tmp_path: Path) -> None:
    """Too few neurons for degree two: at the layer, and where the next one divides the group of three."""
    network, (x, y) = parted((5, 24, 12, 14, 3), {1: 2.0**-24, 2: 2.0**-11}, {2: (0, 2), 3: (0, 1)})
    assert groups_by_layer(network, x) == [2, 3, 4]
    given = Given(
        loss=Loss.CROSS_ENTROPY,
        layers=tuple((tensor(one.weight, "w"), tensor(one.bias, "b")) for one in network.layers),
        inputs=tensor(x, "x"),
        labels=[int(v) for v in y],
        factor=4,
    )
    assert find_evidence(given, [1], ["NextDeltas", "AllEntries"]) is None
    evidence = find_evidence(given, [1], ["NextDeltas", "AllEntries"], degree=3)
    assert evidence is not None
    # V = 100 less binom(5, 3) + 1, then 66 less binom(4, 3) + 1 in the span of three, then degree two
    assert len(evidence.system.equations) == 89
    ((second,), (third,)) = evidence.splits
    assert (len(second.equations), len(third.equations)) == (59 if second.next_minors else 0, 0)
    path = tmp_path / "claim.v"
    path.write_text(document(given, evidence, about=" "))
    assert "PrimInt63.mul" in compiled(path)
    unknown, *others = second.equations
    spoiled = replace(second, equations=[(unknown + 1) % 3, *others])
    for splits in ((), ((spoiled,), (third,))):
        path.write_text(document(given, replace(evidence, splits=splits), about=" "))
        with pytest.raises(CertificateRejected, match="coqc rejects"):
            compiled(path)


@needs_coq
@pytest.mark.campaign
def test_coqc_accepts_a_certificate_of_degree_three_with_a_group(tmp_path: Path) -> None:
    network, batch = parted((5, 20, 8, 3), {1: 2.0**-24}, {2: (0, 1)})
    certificate = certify(network, batch=batch, loss="cross_entropy").certificate
    assert certificate is not None
    (part,) = certificate["evidence"]
    assert (part["type"], part["argument"]["groups"]) == ("degree_three", ((0, 1), (2,), (3,)))
    path = tmp_path / "claim.v"
    path.write_text(prove(certificate, network, batch=batch))
    assert path.read_text().count("Division") == 1
    assert "PrimInt63.mul" in compiled(path)


def narrow_top(shift: int) -> Any:
    """Four samples under a last hidden layer of two neurons: with a large bias ``shift`` both are active."""
    network, batch = drawn("integers", 0, widths=(4, 60, 12, 2, 2), samples=4)
    weights = [layer.weight for layer in network.layers]
    biases = [layer.bias for layer in network.layers]
    biases[2] = np.array([shift, shift])
    return ReluNetwork.from_arrays(weights, biases), batch


@needs_coq
@pytest.mark.campaign
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_coqc_accepts_labels_told_by_the_next_delta(loss: str, tmp_path: Path) -> None:
    """Four samples have features of rank three at most in two neurons: the output layer tells no labels."""
    network, batch = narrow_top(10**6)
    certificate = certify(network, batch=batch, loss=loss).certificate
    assert certificate is not None
    assert certificate["evidence"][0]["layers"][0]["labels"] == "backward_map"
    path = tmp_path / "claim.v"
    path.write_text(prove(certificate, network, batch=batch))
    assert "BackwardRank" in path.read_text()
    assert "PrimInt63.mul" in compiled(path)


@needs_coq
@pytest.mark.campaign
def test_coqc_accepts_labels_told_by_the_next_delta_of_a_higher_layer(tmp_path: Path) -> None:
    network, (x, y) = drawn("integers", 1, widths=(4, 16, 60, 12, 2, 2), samples=4)
    biases = [layer.bias for layer in network.layers]
    biases[3] = np.array([10**9, 10**9])
    given = Given(
        loss=Loss.CROSS_ENTROPY,
        layers=tuple(
            (tensor(one.weight, "w"), tensor(b, "b")) for one, b in zip(network.layers, biases, strict=True)
        ),
        inputs=tensor(x, "x"),
        labels=[int(v) for v in y],
        factor=4,
    )
    evidence = find_evidence(given, [2], ["NextDeltas", "AllEntries"])
    assert evidence is not None
    path = tmp_path / "claim.v"
    path.write_text(document(given, evidence, about=" "))
    assert "BackwardRank" in path.read_text()
    assert "PrimInt63.mul" in compiled(path)


def test_labels_that_are_told_among_classes_only_are_refused() -> None:
    """With one active neuron in the last hidden layer, loss vectors that differ along one line look alike."""
    network, batch = narrow_top(9000)
    certificate = certify(network, batch=batch, loss="mse").certificate
    assert certificate is not None
    with pytest.raises(InputError, match="labels told otherwise"):
        prove(certificate, network, batch=batch)


@pytest.mark.parametrize(("loss", "widths"), [("mse", (3, 5, 2)), ("hinge", (3, 5, 4, 2))])
def test_a_second_batch_is_written_beside_the_first(loss: str, widths: tuple[int, ...]) -> None:
    network, (x, y), certificate = ambiguous(loss, widths)
    text = prove(certificate, network, batch=(x, y))
    assert written(text, "inputs") == [[Fraction(int(v)) for v in row] for row in x]
    over = re.search(r"Definition over := (\d+)%BZ", text)
    assert over is not None
    exact = [[Fraction(v, int(over[1])) for v in row] for row in listed(text, "inputs'")]
    moved = [move["sample"] for move in certificate["evidence"][0]["moves"]]
    assert all(exact[m] == [Fraction(int(v)) for v in x[m]] for m in range(2) if m not in moved)
    assert exact != [[Fraction(int(v)) for v in row] for row in x]
    assert "Theorem claimed : bgrad loss N x' y' = bgrad loss N x y /\\ ~ same_batch x x' y y'." in text


@needs_coq
@pytest.mark.parametrize("tampered", [False, True])
def test_coqc_accepts_a_second_batch_and_none_far_from_it(tampered: bool, tmp_path: Path) -> None:
    """A small change may give a second batch too: only a large one leaves the region."""
    network, batch, certificate = ambiguous("mse", (3, 5, 4, 2))
    text = prove(certificate, network, batch=batch)
    path = tmp_path / "claim.v"
    if not tampered:
        path.write_text(text)
        assert "PrimInt63.land" in compiled(path)
        return
    before, after = text.split("Definition inputs' : integers := [:: [:: ", 1)
    first = re.match(r"\(?(-?\d+)\)?", after)
    assert first is not None
    path.write_text(
        f"{before}Definition inputs' : integers := [:: [:: ({int(first[1]) + 10**30}){after[first.end() :]}"
    )
    with pytest.raises(CertificateRejected, match="coqc rejects"):
        compiled(path)


@needs_coq
@pytest.mark.parametrize(
    ("loss", "where"),
    [
        ("mse", "weight_1_row"),
        ("cross_entropy", "inputs"),
        ("cross_entropy", "evidence"),
        *(
            pytest.param(*changed, marks=pytest.mark.campaign)
            for changed in [
                ("mse", "weight_1"),
                ("mse", "inputs"),
                ("mse", "evidence"),
                ("cross_entropy", "weight_1"),
                ("cross_entropy", "bias_2"),
                ("bce", "bias_2"),
                ("bce", "labels"),
                ("bce", "evidence"),
            ]
        ),
    ],
)
def test_a_changed_number_is_rejected(loss: str, where: str, tmp_path: Path) -> None:
    """The least change: the last word of the array's first row grows by two units, which keeps its sign."""
    widths = LARGE if where.endswith("row") else (4, 16, 3)
    network, batch, certificate = certified("integers", loss, widths=widths)
    if where.endswith("row"):  # of a neuron that is active for the first sample
        where += f"_{int(np.argmax(network.layers[0].weight @ batch[0][0] + network.layers[0].bias))}"
    text = prove(certificate, network, batch=batch)
    before, after = text.split(f"Definition {where} :=", 1)
    changed = re.sub(r"(\d+) \| 0 \|\]", lambda m: f"{int(m[1]) + 2} | 0 |]", after, count=1)
    assert changed != after
    path = tmp_path / "claim.v"
    path.write_text(f"{before}Definition {where} :={changed}")
    with pytest.raises(CertificateRejected, match="coqc rejects"):
        compiled(path)


@needs_coq
@pytest.mark.parametrize("what", ["label", pytest.param("point", marks=pytest.mark.campaign)])
def test_another_class_or_point_is_rejected(what: str, tmp_path: Path) -> None:
    network, (x, y), certificate = certified("integers", "cross_entropy")
    text = prove(certificate, network, batch=(x, y))
    if what == "label":
        changed = text.replace("Definition labels := [:: ", f"Definition labels := [:: {(y[0] + 1) % 3}; ")
        changed = changed.replace(f"; {y[0]}; {y[1]}]%N.", f"; {y[1]}]%N.")
    else:
        changed = re.sub(r"_ok (\d+)%uint63 (\d+)%", lambda m: f"_ok {m[1]}%uint63 {int(m[2]) + 1}%", text)
    assert changed != text
    assert len(changed) == len(text)
    path = tmp_path / "claim.v"
    path.write_text(changed)
    with pytest.raises(CertificateRejected, match="coqc rejects"):
        compiled(path)


@needs_coq
def test_a_theorem_that_rests_on_an_axiom_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "claim.v"
    path.write_text("Axiom get : False.\nTheorem claimed : 0 = 1.\nProof. destruct get. Qed.\n")
    with pytest.raises(CertificateRejected, match=r"rests on claim\.get, which nobody proved"):
        compiled(path)
