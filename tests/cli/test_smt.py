"""``exan smt`` and ``exan export-smt`` end to end, in process; parallel work on a dask cluster."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from exan_verify.api.files import save_batch, save_gradient
from exan_verify.cli.terminal.output import ExitCode
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.smt.solvers.run import SAT, UNSAT, Strategy, Worker
from tests.support.commands import Run, RunJson
from tests.support.smt_cases import decided, named

CASE = "plain/mse/bias/0"
TABLE = Path(__file__).parents[2] / "docs" / "smt.md"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model, batch and exact gradient of one small instance, unique and irredundant."""
    monkeypatch.chdir(tmp_path)
    case = named(CASE)
    tensors = {}
    for k, layer in enumerate(case.network.layers):
        assert layer.bias is not None
        tensors[f"{2 * k}.weight"] = layer.weight.astype(np.float64)
        tensors[f"{2 * k}.bias"] = layer.bias.astype(np.float64)
    save_file(tensors, "model.safetensors")
    save_batch("batch.npz", np.array(case.batch.inputs), np.array(case.batch.labels))
    exact = exact_gradient(case.network, case.batch, case.loss, case.reduction)
    save_gradient("gradient.json", exact.tensors)
    return tmp_path


QUESTION = ("--loss", "mse", "--reduction", "sum")


def test_smt_decides_and_resumes(here: Path, run: Run, run_json: RunJson) -> None:
    asked = ("smt", "model.safetensors", "--batch", "batch.npz", *QUESTION, "--cache", "answers")
    code, record = run_json(*asked)
    assert (code, record["outcome"], record["trust"]) == (ExitCode.DONE, "unique", "solver-trusted")
    stored = sorted(p.name for p in Path("answers").rglob("*.json"))
    assert stored
    assert run(*asked)[0] == ExitCode.DONE
    assert sorted(p.name for p in Path("answers").rglob("*.json")) == stored


def test_smt_with_a_second_opinion(here: Path, run: Run) -> None:
    code, out, _ = run(
        "smt", "model.safetensors", "--batch", "batch.npz", *QUESTION, "--double-check", "--json"
    )
    assert (code, json.loads(out)["trust"]) == (ExitCode.DONE, "cross-checked")


def test_smt_from_the_gradient(here: Path, run_json: RunJson) -> None:
    asked = ("smt", "model.safetensors", "--gradient", "gradient.json", "--batch-size", "2", *QUESTION)
    code, record = run_json(*asked)
    assert (code, record["outcome"]) == (ExitCode.DONE, "unique")
    ours = {tuple(map(str, row)) for row in named(CASE).batch.x}
    assert {tuple(row) for row in record["batch"]["x"]} == ours


def test_undecided_is_exit_code_three(here: Path, run: Run) -> None:
    code, out, _ = run("smt", "model.safetensors", "--batch", "batch.npz", *QUESTION, "--budget", "0.000001")
    assert code == ExitCode.UNDECIDED
    assert "UNKNOWN" in out


def test_tolerance_and_radius(here: Path, run: Run) -> None:
    asked = ("smt", "model.safetensors", "--batch", "batch.npz", *QUESTION, "--tolerance", "1e-9")
    code, out, _ = run(*asked, "--radius", "1/1000", "--json")
    assert (code, json.loads(out)["outcome"]) == (ExitCode.DONE, "unique")


def test_export_of_the_whole_question(here: Path, run: Run) -> None:
    _, out, _ = run(
        "export-smt",
        "model.safetensors",
        "--batch",
        "batch.npz",
        *QUESTION,
        "--out",
        "q.smt2",
        exits=ExitCode.DONE,
    )
    assert "q.smt2" in out
    with Worker() as worker:
        assert worker.ask(Path("q.smt2").read_text(), Strategy("z3", "smt"), seconds=20).status == UNSAT


def test_export_of_cubes(here: Path, run_json: RunJson) -> None:
    asked = (
        "export-smt",
        "model.safetensors",
        "--batch",
        "batch.npz",
        *QUESTION,
        "--out",
        "folder",
        "--cubes",
    )
    _, record = run_json(*asked, exits=ExitCode.DONE)
    assert sorted(p.name for p in Path("folder").iterdir()) == record["files"]
    assert {"complete.smt2", "index.txt"} <= set(record["files"])
    with Worker() as worker:
        for file in Path("folder").glob("*.smt2"):
            assert worker.ask(file.read_text(), Strategy("z3", "qfnra-nlsat"), seconds=20).status == UNSAT


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a 784-128-10 network and 32 samples: hundreds of megabytes as constraints."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (128, 784), "0.bias": (128,), "2.weight": (10, 128), "2.bias": (10,)}
    save_file({name: rng.normal(size=shape) for name, shape in shapes.items()}, "model.safetensors")
    save_batch("batch.npz", rng.random((32, 784)), rng.integers(0, 10, 32))
    return tmp_path


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse", "hinge"])
@pytest.mark.parametrize("cubes", [(), ("--cubes",)])
def test_a_large_export_asks_first_and_writes_nothing(
    large: Path, run: Run, loss: str, cubes: tuple[str, ...]
) -> None:
    if loss == "bce":
        save_batch("batch.npz", np.zeros((32, 784)), np.zeros((32, 10), dtype=int))
    before = sorted(large.iterdir())
    asked = (
        "export-smt",
        "model.safetensors",
        "--batch",
        "batch.npz",
        "--loss",
        loss,
        "--out",
        "out",
        *cubes,
    )
    code, out, err = run(*asked)
    assert (code, out) == (ExitCode.USAGE, "")
    assert "million bytes" in err or "billion bytes" in err
    assert "--force" in err
    for budget in ("0.0001", "0.003", "0.005", "0.01", "0.02"):  # the timer rings in other places
        code, out, err = run(*asked, "--force", "--budget", budget)
        assert (code, out) == (ExitCode.UNDECIDED, "")
        assert f"the budget of {budget} s ran out and nothing is written" in err
        assert sorted(large.iterdir()) == before


@pytest.mark.parametrize("command", [("smt",), ("certify", "--engine", "smt")])
def test_a_question_too_large_for_solvers_is_undecided_with_its_size(
    large: Path, run: Run, command: tuple[str, ...]
) -> None:
    _, out, _ = run(*command, "model.safetensors", "--batch", "batch.npz", "--json", exits=ExitCode.UNDECIDED)
    assert "terms" in json.loads(out)["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("smt", "model.safetensors"), "either --batch FILE or --gradient FILE"),
        (("smt", "model.safetensors", "--batch", "batch.npz", "--exact"), "--exact goes with --gradient"),
        (("smt", "model.safetensors", "--gradient", "gradient.json", *QUESTION), "batch_size is missing"),
        (("smt", "model.safetensors", "--batch", "batch.npz", "--tolerance", "much"), "not a number"),
        (("export-smt", "model.safetensors", "--batch", "batch.npz", "--out", "no/q.smt2"), "does not exist"),
    ],
)
def test_bad_input_names_the_remedy(here: Path, run: Run, arguments: tuple[str, ...], message: str) -> None:
    _, _, err = run(*arguments, exits=ExitCode.USAGE)
    assert message in err


def test_floats_need_a_meaning(here: Path, run: Run) -> None:
    case = named(CASE)
    exact = exact_gradient(case.network, case.batch, case.loss, case.reduction)
    floats = {
        k: np.array([[float(Fraction(v)) for v in r] for r in np.atleast_2d(a)])
        for k, a in exact.tensors.items()
    }
    shaped = {k: v.reshape(exact.tensors[k].shape) for k, v in floats.items()}
    save_gradient("gradient.safetensors", shaped)
    asked = ("smt", "model.safetensors", "--gradient", "gradient.safetensors", "--batch-size", "2", *QUESTION)
    _, _, err = run(*asked, exits=ExitCode.USAGE)
    assert "--exact" in err
    assert run(*asked, "--exact")[0] == ExitCode.DONE


def test_cubes_run_on_a_dask_cluster() -> None:
    """The same verdict when joblib hands the cubes to a local cluster."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is an optional backend")
    from exan_verify.core.parallel import cluster

    case = named("plain/mse/nobias/3")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as local,
        cluster(local.scheduler_address),
    ):
        verdict = decided(case, jobs=2)
    assert (verdict.outcome, verdict.reason) == (decided(case).outcome, decided(case).reason)


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a 1-2-1 and a 2-3-2 network, two samples of each, and a release of the first."""
    monkeypatch.chdir(tmp_path)
    one = {"0.weight": [[1.0], [-1.0]], "0.bias": [0.0, 1.0], "2.weight": [[1.0, 2.0]], "2.bias": [0.5]}
    two = {
        "0.weight": [[1.0, 1.0], [1.0, -1.0], [0.0, 1.0]],
        "0.bias": [0.0, 1.0, 1.0],
        "2.weight": [[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]],
        "2.bias": [0.5, 0.0],
    }
    for name, tensors in (("one", one), ("two", two)):
        save_file({key: np.array(value) for key, value in tensors.items()}, f"{name}.safetensors")
    save_batch("one.npz", np.array([[0.25], [0.75]]), np.array([0, 1]))
    save_batch("two.npz", np.array([[0.25, 1.0], [0.75, -0.5]]), np.array([0, 1]))
    sent = {"schema": "exan/release/1", "rows": {"0.weight": [True, False]}}
    Path("sent.json").write_text(json.dumps(sent | {"tensors": ["0.weight", "0.bias", "2.bias"]}))
    return tmp_path


ANSWERS = {
    "one mse --sample 0": ("unsat", "unsat"),
    "one mse --sample 1 --entry 0 --between 1/2 1": ("unsat", "unsat"),
    "one mse --missing 0.weight --missing 2.weight": ("sat", "sat"),
    "one mse --release sent.json": ("unsat", "unsat"),
    "two hinge --sample 1": ("sat", "sat"),
}
"""What z3 and cvc5 say of exported files: rows of the table in docs/smt.md."""

MORE = {
    "one mse": ("unsat", "unsat"),
    "one mse --sample 0 --entry 0 --between 0 1/5": ("sat", "sat"),
    "one mse --missing 0.weight --missing 2.weight --sample 0": ("sat", "sat"),
    "one bce --sample 0": ("sat", "sat"),
    "two mse --sample 1": ("unsat", "unsat"),
    "two mse --missing 2.weight --missing 2.bias --sample 0 --entry 0 --between 0 1": ("unsat", "unsat"),
    "one bce --sample 0 --exp": (None, "unknown"),
}
"""The others, in the campaign. "unknown" is what 20 seconds gave; None is not asked."""


@pytest.mark.parametrize(
    "asked", [*ANSWERS, *(pytest.param(asked, marks=pytest.mark.campaign) for asked in MORE)]
)
def test_narrower_questions_and_both_solvers(narrow: Path, run: Run, asked: str) -> None:
    name, loss, *options = asked.split()
    files = (f"{name}.safetensors", "--batch", f"{name}.npz", "--loss", loss)
    code, _, _ = run("export-smt", *files, *options, "--out", "q.smt2")
    text = Path("q.smt2").read_text()
    assert code == ExitCode.DONE
    answers = (ANSWERS | MORE)[asked]
    with Worker() as worker:
        for strategy, answer in zip((Strategy("z3", "smt"), Strategy("cvc5")), answers, strict=True):
            if answer is not None:
                said = worker.ask(text, strategy, seconds=20 if "unknown" in answers else 60).status
                assert said == answer or "unknown" in (said, answer)
                print(f"{asked}: {strategy} {said}")


@pytest.mark.parametrize("asked", ANSWERS | MORE)
def test_the_table_of_files_has_every_answer(asked: str) -> None:
    """Ten files and more with both solvers' answers are in docs/smt.md as they are asked here."""
    name, loss, *options = asked.split()
    network, wanted = {"one": "tiny", "two": "two"}[name], f"`{' '.join(options)}`" if options else ""
    said = [answer or "no `exp`" for answer in (ANSWERS | MORE)[asked]]
    row = " | ".join((f"{network}, {loss}", wanted, *said)).replace("|  |", "| |")
    assert f"| {row} |" in TABLE.read_text()


def test_what_a_sample_is_asked_about_is_said_at_the_head(narrow: Path, run: Run) -> None:
    files = ("one.safetensors", "--batch", "one.npz", "--loss", "bce", "--sample", "1")
    run("export-smt", *files, "--out", "q.smt2")
    run("export-smt", *files, "--exp", "--out", "exp.smt2")
    plain, exact = Path("q.smt2").read_text(), Path("exp.smt2").read_text()
    assert "sample 1 is in every batch with this gradient: it is determined" in plain
    assert "means NOTHING" in plain
    for part in ("QF_NRAT", "(exp ", "as far as the solver's exp"):
        assert part in exact


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--sample 2", "samples 0 to 1"),
        ("--sample 0 --entry 1 --between 0 1", "features 0 to 0"),
        ("--sample 0 --entry 0", "both its feature and the two numbers"),
        ("--sample 0 --entry 0 --between 1 0", "smaller one first"),
        ("--entry 0 --between 0 1", "say which with --sample"),
        ("--missing nothing", "no such parameter"),
        ("--missing 0.bias --release sent.json", "give one of them"),
        ("--sample 0 --cubes", "in one file"),
    ],
)
def test_narrower_questions_that_make_no_sense(narrow: Path, run: Run, options: str, problem: str) -> None:
    files = ("one.safetensors", "--batch", "one.npz", "--loss", "mse")
    code, _, err = run("export-smt", *files, *options.split(), "--out", "q.smt2")
    assert code == ExitCode.USAGE
    assert problem in " ".join(err.split())
    assert not Path("q.smt2").exists()


def test_the_release_through_a_basis_is_that_of_the_projected_inputs(narrow: Path, run: Run) -> None:
    """W_1 = V B^T with one column: inputs move along the kernel of B^T, which the whole gradient sees."""
    save_file(
        {
            "0.weight": np.array([[1.0, 1.0], [-1.0, -1.0]]),
            "0.bias": np.array([1.0, 2.0]),
            "2.weight": np.array([[1.0, 1.0]]),
            "2.bias": np.array([0.0]),
        },
        "thin.safetensors",
    )
    save_batch("thin.npz", np.array([[0.5, 0.25]]), np.array([1.0]))
    Path("basis.json").write_text(json.dumps({"schema": "exan/release/1", "input_basis": [[1], [1]]}))
    files = ("thin.safetensors", "--batch", "thin.npz", "--loss", "mse")
    with Worker() as worker:
        for options, answer in (((), "unsat"), (("--release", "basis.json"), "sat")):
            run("export-smt", *files, *options, "--out", "q.smt2")
            text = Path("q.smt2").read_text()
            assert worker.ask(text, Strategy("z3", "smt"), seconds=60).status == answer


ACTIVATION = {"leaky": "nn.LeakyReLU(0.25)", "trained": "nn.PReLU(2)", "ends": "nn.ReLU6()"}


@pytest.fixture(params=ACTIVATION)
def other_activation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The factory of a 1-2-2 network with z = 2 x and 1 - x, and a batch of x = 1/2, 2 and classes 0, 1."""
    monkeypatch.chdir(tmp_path)
    name = f"sloped_{request.param}"
    Path(f"{name}.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n"
        f"    model = nn.Sequential(nn.Linear(1, 2), {ACTIVATION[request.param]}, nn.Linear(2, 2)).double()\n"
        "    numbers = ([[2.0], [-1.0]], [0.0, 1.0], [[1.0, 2.0], [-1.0, 1.0]], [0.5, 0.0])\n"
        "    layers = (*model[0].parameters(), *model[2].parameters())\n"
        "    for parameter, value in zip(layers, numbers):\n"
        "        parameter.data = torch.tensor(value, dtype=torch.float64)\n"
        "    return model\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    save_batch("batch.npz", np.array([[0.5], [2.0]]), np.array([0, 1]))
    return f"{name}:net"


def test_other_activations_are_asked_and_exported(other_activation: str, run: Run, run_json: RunJson) -> None:
    """With the same answers to the question about a sample and about its entry; and it is said what the model
    was taken for.
    """
    files = (other_activation, "--batch", "batch.npz", "--loss", "mse", "--reduction", "sum")
    code, record = run_json("smt", *files, "--work-limit", "3000000")
    said = {"leaky": "LeakyReLU of slope 0.25", "trained": "PReLU with 2 trained slopes", "ends": "ReLU6"}
    kind = other_activation.split(":")[0].removeprefix("sloped_")
    assert (code, record["outcome"]) == (ExitCode.DONE, "unique"), record["reason"]
    assert said[kind] in record["architecture"]
    for options, answer in (
        ((), UNSAT),
        (("--sample", "0"), UNSAT),
        (("--sample", "1", "--entry", "0", "--between", "1", "3"), UNSAT),
        (("--sample", "1", "--entry", "0", "--between", "0", "1"), SAT),
        # the biases alone: two slopes let more of the loss vectors through
        (("--missing", "0.weight", "--missing", "2.weight"), SAT if kind == "ends" else UNSAT),
    ):
        _, record = run_json("export-smt", *files, *options, "--out", "q.smt2", exits=ExitCode.DONE)
        assert said[kind] in record["architecture"]
        text = Path("q.smt2").read_text()
        assert said[kind] in text.partition("(set-logic")[0]
        assert ("gradient: 1.weight[0]" in text) == (kind == "trained")
        with Worker() as worker:
            assert worker.ask(text, Strategy("z3", "smt"), seconds=20).status == answer, options
    _, out, _ = run("export-smt", *files, "--out", "q.smt2", exits=ExitCode.DONE)
    assert said[kind] in out
    if kind == "trained":
        run("export-smt", *files, "--missing", "1.weight", "--out", "q.smt2", exits=ExitCode.DONE)
        assert "gradient: 1.weight[0]" not in Path("q.smt2").read_text()
        release = {"schema": "exan/release/1", "tensors": ["0.weight"]}
        Path("sent.json").write_text(json.dumps(release))
        run("export-smt", *files, "--release", "sent.json", "--out", "q.smt2", exits=ExitCode.DONE)
        assert "gradient: 1.weight[0]" not in Path("q.smt2").read_text()


def test_convolutions_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("with_convolutions.py").write_text(
        "from torch import nn\n"
        "def net(): return nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))\n"
    )
    save_batch("batch.npz", np.zeros((1, 1, 2, 2)), np.array([0]))
    code, _, err = run("smt", "with_convolutions:net", "--batch", "batch.npz")
    assert code == ExitCode.USAGE
    assert "convolutions" in err
