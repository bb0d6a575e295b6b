"""The JSON schemas of all that the commands print or write: ``python docs/schemas/make.py`` writes them here.

Each type below is one JSON object; records that the package has (certificates, scores, steps, rows of tables)
are taken from it. A key without ``NotRequired`` (of a dataclass: without "since" in its metadata) is always
there. New keys may come, so objects are open, but for certificates and the files that are read: there an
unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from exan_verify.api.runs.step_record import StepRecord
from exan_verify.bench import (
    agreement,
    attack,
    certify,
    compare,
    convolution,
    insecure,
    mitigation,
    peeling,
    prove,
    reach,
    robustness,
    run,
    smt,
    strategies,
    tiny,
)
from exan_verify.core.certificate import Certificate as CertificateRecord
from exan_verify.core.certificate import Claim, ReleaseRecord
from exan_verify.core.question import Labels, Loss, Reduction, Weights
from exan_verify.core.verdict import Attempt, Engine, Outcome, SampleStatus, Trust
from exan_verify.numeric.convolution.records import StageReport
from exan_verify.numeric.problem.metrics import Score as AttackScore
from exan_verify.numeric.problem.records import Evidence as SampleEvidence
from exan_verify.numeric.problem.records import LayerSummary
from exan_verify.theorems.statement import Direction, Ground, Standing

FOLDER = Path(__file__).parent

Count = Annotated[int, ("minimum", 0)]
Share = Annotated[float, ("minimum", 0), ("maximum", 1)]
Sha256 = Annotated[str, ("pattern", "^[0-9a-f]{64}$")]
Rational = Annotated[str, ("pattern", "^-?[0-9]+(/[0-9]+)?$")]
"""An exact number."""
Vector = list[Rational]
Matrix = list[Vector]
Array = Rational | list[Rational | list[Rational | list[Rational | list[Rational]]]]
"""Nested lists of exact numbers, as deep as the array has axes."""
Given = (
    int | Rational | list[int | Rational | list[int | Rational | list[int | Rational | list[int | Rational]]]]
)
"""The same as it is read: integers may be numbers."""
Floats = list[float | None]
"""Numbers; null where JSON has none for them."""
Label = int | float | None | list[float | None]
"""A class, or a target vector (of one entry: a number); null where none fits."""
Gates = Literal["hit", "passed", "undecided"]
Domain = tuple[Vector, Vector] | None
"""Lower and upper bounds, one for all features or one each; null for all inputs."""


class Batch(TypedDict):
    """Inputs (M, d) and labels: classes (M,), or target vectors (M, K)."""

    x: Matrix
    y: list[int | Vector]


class Witness(TypedDict):
    """Why batches are ambiguous: another batch, or a family of them. ``radius``: per sample, L-infinity."""

    batch: Batch | None
    dimension: int | None
    generators: list[Any]
    radius: Floats | None


class Verdict(TypedDict):
    """What is proved. ``distance`` is there with a tolerance, ``release`` where less is sent;
    ``architecture``: what the model was taken for, since 0.2.0.
    """

    outcome: Outcome
    meaning: str
    samples: list[SampleStatus]
    determined: Count
    reason: str
    batch_size: Count
    engine: Engine | None
    layer: int | None
    trust: Trust | None
    certified: list[Count]
    batch: Batch | None
    witness: Witness | None
    certificate: NotRequired[CertificateRecord | None]
    architecture: NotRequired[str]
    notes: list[str]
    attempts: list[Attempt]
    distance: NotRequired[float | None]
    release: NotRequired[ReleaseRecord]


class ShownModel(TypedDict):
    """What a model is taken for, with the shapes of its parameters; else ``error``, why it is not read."""

    path: str
    architecture: str | None
    parameters: dict[str, list[Count]]
    notes: list[str]
    error: str | None


class Show(TypedDict):
    """What ``exan show --json`` prints; ``read``: how many models were read."""

    schema: Literal["exan/show/1"]
    models: list[ShownModel]
    read: Count


class Certify(Verdict):
    """What ``exan certify --json`` prints."""

    schema: Literal["exan/certify/1"]
    certificate_path: str | None
    statement: str


class Smt(Verdict):
    """What ``exan smt --json`` prints."""

    schema: Literal["exan/smt/1"]
    statement: str


class Check(TypedDict):
    """What ``exan check --json`` prints: ``claim`` where it is accepted, ``reason`` where it is not."""

    schema: Literal["exan/check/1"]
    accepted: bool
    claim: Claim | None
    reason: NotRequired[str]
    statement: NotRequired[str]


class Prove(TypedDict):
    """What ``exan prove --json`` prints: ``accepted`` and ``axioms`` of coqc with --run, else null."""

    schema: Literal["exan/prove/1"]
    path: str
    accepted: bool | None
    axioms: list[str] | None
    hypotheses: list[str]


class Tiers(TypedDict):
    """Samples by tier."""

    confirmed: Count
    consistent: Count
    candidates: Count


class Candidate(TypedDict):
    """What explains part of its equations only."""

    label: Label
    error_estimate: float | None
    reason: str


class Hidden(TypedDict):
    """Features of a hidden layer, where the gradient shows no more."""

    layer: int
    found: Count
    labels: list[Label]
    status: list[SampleEvidence]


class LastLayer(TypedDict):
    """What the last layer's gradient says by itself."""

    rank: Count
    present: list[int]


class Centred(TypedDict):
    """Samples less the mean of their batch, and on how many dimensions the mean is known."""

    found: Count
    labels: list[Label]
    status: list[SampleEvidence]
    mean_rank: Count


class AttackFound(TypedDict):
    """What an attack came to; the samples themselves are in the file of --out. The keys from ``features`` on
    are there for pictures."""

    found: Count
    tiers: Tiers
    labels: list[Label]
    batch_size: Count
    batch_size_source: str
    complete: bool
    gradient_residual: float | None
    unfinished: bool
    reason: str
    hint: str
    missing: list[str]
    architecture: NotRequired[str]
    notes: list[str]
    method: str
    layer: int | None
    status: list[SampleEvidence]
    candidates: list[Candidate]
    scale: float | None
    layers: list[LayerSummary]
    seconds: float
    score: AttackScore | None
    candidate_score: AttackScore | None
    release: NotRequired[ReleaseRecord]
    local_batch: NotRequired[list[Count]]
    centred: NotRequired[Centred]
    hidden: Hidden | None
    last_layer: LastLayer | None
    features: NotRequired[Count]
    features_complete: NotRequired[bool]
    feature_labels: NotRequired[list[Label]]
    feature_status: NotRequired[list[SampleEvidence]]
    stages: NotRequired[list[StageReport]]
    estimates: NotRequired[Count]


class Attack(AttackFound):
    """What ``exan attack --json`` prints."""

    schema: Literal["exan/attack/1"]
    out: str


class Exclusivity(TypedDict):
    """Exclusive neurons by hidden layer and sample, and what follows from them alone."""

    counts: list[list[Count]]
    published: bool
    published_by_sample: list[bool]
    peelable: list[bool]
    stopping_set: list[Count]
    groups: list[list[list[Count]]]


class AuditFound(TypedDict):
    """The four answers about a batch."""

    widths: list[Count]
    loss: Loss
    reduction: Reduction
    labels: Labels
    domain: Domain
    batch_size: Count
    classes: list[Any]
    published: bool | None
    peelable: list[bool | None]
    exclusivity: Exclusivity | None
    verdict: Verdict
    radius: Floats
    notes: list[str]
    attack: AttackFound | None
    no_attack: str
    no_exclusivity: NotRequired[str]
    beyond_proof: str
    release: NotRequired[ReleaseRecord]


class Audit(AuditFound):
    """What ``exan audit --json`` prints, and ``Audit.to_json()``: without the keys from ``statement`` on."""

    schema: Literal["exan/audit/1"]
    statement: NotRequired[str]
    gates: NotRequired[dict[str, Gates]]
    report: NotRequired[str | None]
    junit: NotRequired[str | None]
    sarif: NotRequired[str | None]


class AuditAttack(TypedDict):
    """What ``exan audit --json`` prints for models that can only be attacked."""

    schema: Literal["exan/audit-attack/1"]
    outcome: Outcome
    reason: str
    attack: AttackFound | None
    no_attack: str
    beyond_proof: str
    gates: dict[str, Gates]
    report: str | None
    junit: str | None
    sarif: str | None


class Shares(TypedDict):
    """Of the samples; null where it is not known. ``candidates`` may be more than samples."""

    determined: Share | None
    free: Share | None
    unknown: Share | None
    published: Share | None
    peelable: Share | None
    confirmed: Share | None
    consistent: Share | None
    candidates: float | None


class Counts(TypedDict):
    """Samples; null where it is not known."""

    determined: Count | None
    free: Count | None
    unknown: Count | None
    published: Count | None
    peelable: Count | None
    confirmed: Count | None
    consistent: Count | None
    candidates: Count | None


class Totals(TypedDict):
    """Counts over some steps."""

    steps: Count
    samples: Count
    outcomes: dict[str, Count]
    counts: Counts
    shares: Shares


class Epoch(Totals):
    """Counts over an epoch; null: steps without one."""

    epoch: int | None


class Run(Totals):
    """What ``exan audit --run --json`` prints, and ``summary.json``: without the keys from ``statement``."""

    schema: Literal["exan/run/1"]
    out: str
    total: Count | None
    unfinished: str
    epochs: list[Epoch]
    gates: dict[str, Gates]
    worst: list[StepRecord]
    digest: Sha256
    statement: NotRequired[str]
    fail_on: NotRequired[list[str]]
    report: NotRequired[str | None]
    junit: NotRequired[str | None]
    sarif: NotRequired[str | None]


class RunAsked(TypedDict):
    """``run.json``: the question that a run's folder was begun with."""

    schema: Literal["exan/run-asked/1"]
    version: str
    loss: Loss
    reduction: Reduction
    labels: Labels
    domain: Domain
    release: ReleaseRecord | None
    attack: bool
    step_budget: float | None
    work_limit: int | None
    seed: Count


class Point(Totals):
    """The audits at one value, and the accuracy of their networks."""

    value: int
    accuracy: Share | None


class Sweep(TypedDict):
    """What ``exan sweep --json`` prints, and the sweep's record: without the keys from ``statement`` on."""

    schema: Literal["exan/sweep/1"]
    over: Literal["batch", "width", "epoch"]
    batch_size: int | None
    repeat: int
    unfinished: str
    points: list[Point]
    statement: NotRequired[str]
    figure: NotRequired[str | None]
    csv: NotRequired[str | None]
    out: NotRequired[str | None]


class ComparedMethod(TypedDict):
    """What one method got of the batch. ``labels``: the share of the matched samples with the right one."""

    method: str
    samples: Count
    recall: float
    wrong: Count | None
    rmse: float | None
    psnr: float | None
    ssim: float | None
    labels: float | None
    seconds: float
    peak_mib: float | None
    stopped: Count
    refused: Count


class Compare(TypedDict):
    """What ``exan compare --json`` prints."""

    schema: Literal["exan/compare/1"]
    model: str
    batch: str
    rows: list[ComparedMethod]
    unfinished: bool


class Picture(TypedDict):
    """What the attack made of one sample."""

    tier: str
    rmse: float | None
    psnr: float | None
    label: Any


class DefenceExclusivity(TypedDict):
    """Exclusive neurons by hidden layer, and samples that can be peeled."""

    exans: list[Count]
    peelable: Count


class DefenceAttack(TypedDict):
    """What the attack gets past the defence."""

    confirmed: Count
    consistent: Count
    candidates: Count
    readable: Count
    psnr: float | None
    rmse: float | None
    by_sample: list[Picture | None]
    reason: str


class Range(TypedDict):
    """Over all samples."""

    median: float
    worst: float


class Reach(TypedDict):
    """How far inputs can go while the same is sent."""

    domain: str
    interval: Range
    distance: Range
    pixels: list[list[Count]]
    low: list[list[float]]
    high: list[list[float]]


class Protection(TypedDict):
    """How much stays hidden; null where it is not known."""

    hidden: int | None
    of: Count
    reach: Reach | None
    estimate: Floats | None
    public: Count
    note: str


class Cost(TypedDict):
    """What the defence costs."""

    accuracy: float | None
    baseline: float | None
    by_seed: list[float]
    distortion: float | None
    epsilon: float | None
    epsilon_run: float | None
    note: str


class Defence(TypedDict):
    """One defence on the batch."""

    name: str
    assumes: str
    outcome: str
    samples: list[SampleStatus]
    asked_of: str
    verdict: Verdict | None
    means: Verdict | None
    exclusivity: DefenceExclusivity
    attack: DefenceAttack
    protection: Protection
    cost: Cost
    facts: dict[str, Any]


class Mitigation(TypedDict):
    """What ``exan mitigate --json`` prints, and the report's record: without the keys from ``statement``."""

    schema: Literal["exan/mitigation/1"]
    widths: list[Count]
    loss: Loss
    reduction: Reduction
    labels: Labels
    domain: Domain
    batch_size: Count
    classes: list[Any]
    seed: Count
    delta: float
    accountant: str
    before: Defence
    defences: list[Defence]
    left_out: dict[str, str]
    recommended: str | None
    recommendation: str
    useless: list[str]
    notes: list[str]
    statement: NotRequired[str]
    report: NotRequired[str | None]


class Defences(TypedDict):
    """What ``exan mitigate --defence help --json`` prints: names, and what they mean."""

    schema: Literal["exan/defences/1"]
    defences: dict[str, str]


class ExportSmt(TypedDict):
    """What ``exan export-smt --json`` prints."""

    schema: Literal["exan/export-smt/1"]
    path: str
    files: list[str]
    architecture: NotRequired[str]
    notes: list[str]


class CheckNamed(TypedDict):
    """A check of a statement."""

    name: str
    what: str
    direction: Direction


class Statement(TypedDict):
    """A statement."""

    name: str
    group: str
    title: str
    source: str
    published: str | None
    reading: str
    quantifiers: str
    hypotheses: list[str]
    conclusion: str
    latex: str
    standing: Standing
    grounds: list[Ground]
    checks: list[CheckNamed]
    has_example: bool
    smallest: str
    remark: str


class Example(TypedDict, total=False):
    """An exact network and batch; of what is no batch, ``lines`` and ``note`` alone."""

    lines: list[str]
    note: str
    widths: list[Count]
    parameters: dict[str, Array]
    slopes: list[Array | None]
    loss: Loss
    reduction: Reduction
    labels: Labels
    domain: Domain
    release: ReleaseRecord | None
    batch: Batch
    second: Batch | None
    outcome: Outcome | None


class Replay(TypedDict):
    """What came of an example when it was replayed."""

    confirmed: bool | None
    says: list[str]
    equal_gradients: bool | None
    outcome: Outcome | None
    samples: list[SampleStatus]
    certificate: CertificateRecord | None


class CheckResult(TypedDict):
    """What a check found."""

    name: str
    what: str
    holds: bool
    detail: str
    seconds: float
    data: dict[str, Any] | None
    example: Example | None
    replay: Replay | None


class Checked(Statement):
    """A statement with what its checks found."""

    example: Example | None
    replay: Replay | None
    ran: bool
    holds: bool | None
    objections: list[str]
    results: list[CheckResult]


class Theorem(Checked):
    """What ``exan theorems NAME --json`` prints."""

    schema: Literal["exan/theorem/1"]


class ListedOrChecked(Statement):
    """A statement; the keys from ``example`` on are there where its checks were run."""

    example: NotRequired[Example | None]
    replay: NotRequired[Replay | None]
    ran: NotRequired[bool]
    holds: NotRequired[bool | None]
    objections: NotRequired[list[str]]
    results: NotRequired[list[CheckResult]]


class Theorems(TypedDict):
    """What ``exan theorems --json`` prints: the list, or with --all or a group also what the checks found."""

    schema: Literal["exan/theorems/1"]
    holds: NotRequired[bool]
    statements: list[ListedOrChecked]


class TheoremsTable(TypedDict):
    """What ``exan theorems --table FORMAT --json`` prints."""

    schema: Literal["exan/theorems-table/1"]
    format: str
    out: str | None
    statements: list[str]
    table: str


class Stage(TypedDict):
    """What one stage of a search looked at."""

    name: str
    says: str
    counts: dict[str, Any]
    seconds: float


class SearchedClaim(TypedDict):
    """A claim of the user's, and the search for a counterexample."""

    name: str
    text: str
    loss: Loss
    labels: Labels
    seed: Count
    refuted: bool
    says: str
    nothing_tested: str | None
    example: Example | None
    replay: Replay | None
    stages: list[Stage]


class OwnTheorems(TypedDict):
    """What ``exan theorems --file --json`` prints."""

    schema: Literal["exan/own-theorems/1"]
    file: str
    claims: list[SearchedClaim]
    statements: list[Checked]


class Suites(TypedDict, total=False):
    """Rows of the tables, by suite."""

    agreement: list[agreement.Row]
    attack: list[attack.Row]
    certify: list[certify.Row]
    compare: list[compare.Row]
    convolution: list[convolution.Row]
    insecure: list[insecure.Row]
    mitigation: list[mitigation.Row]
    peeling: list[peeling.Row]
    prove: list[prove.Row]
    reach: list[reach.Row]
    robustness: list[robustness.Row]
    run: list[run.Row]
    smt: list[smt.Row]
    strategies: list[strategies.Row]
    tiny: list[tiny.Row]


class Bench(TypedDict):
    """What ``exan bench --json`` prints and ``--out`` writes; ``unfinished``: the suite that was cut."""

    schema: Literal["exan/bench/1"]
    version: str
    python: str
    machine: str
    cpus: int | None
    seeds: list[Count]
    suites: Suites
    unfinished: str | None


class BenchCases(TypedDict):
    """What ``exan bench --list --json`` prints."""

    schema: Literal["exan/bench-cases/1"]
    suites: dict[str, list[str]]


class LawCount(TypedDict):
    """What a campaign has tried of one law."""

    chunks: Count
    instances: Count
    outcomes: dict[str, Count]
    open_share: Share
    wrong: list[str]
    seconds: float


class Campaign(TypedDict):
    """What ``exan campaign --json`` prints, and ``campaign.json``: the state to go on from."""

    schema: Literal["exan/campaign/1"]
    version: str
    seed: Count
    seconds: float
    instances: Count
    wrong: Count
    laws: dict[str, LawCount]
    summary: str


class Stored(TypedDict):
    """An exact array, and the numbers that it is of (rational, or a dtype)."""

    numbers: str
    values: Array


class CampaignQuestion(TypedDict):
    """The question of a case, in exact numbers."""

    weights: list[Stored]
    biases: list[Stored | None]
    x: Stored
    y: Stored
    twin: list[Stored] | None
    planted: Any
    loss: Loss
    reduction: Reduction
    labels: Labels
    domain: Domain


class CampaignCase(TypedDict):
    """A disagreement: all that judging it again takes. ``python``: the same to retype."""

    schema: Literal["exan/campaign-case/1"]
    law: str
    says: str
    question: CampaignQuestion
    params: dict[str, Any]
    python: str


class ReplayedCase(TypedDict):
    """What ``exan campaign --replay --json`` prints."""

    schema: Literal["exan/replay/1"]
    case: str
    holds: bool
    says: NotRequired[str]
    law: NotRequired[str]
    outcomes: NotRequired[dict[str, Count]]


class Laws(TypedDict):
    """What ``exan campaign --list --json`` prints: names, and what they say."""

    schema: Literal["exan/laws/1"]
    laws: dict[str, str]


class DemoNetwork(TypedDict):
    """One network of the demo; its certificate is in its folder."""

    name: str
    folder: str
    attack: AttackFound
    rmse: Floats
    audit: Audit
    certificate_accepted: bool
    seconds: dict[str, float]


class Demo(TypedDict):
    """What ``exan demo --json`` prints."""

    schema: Literal["exan/demo/1"]
    networks: list[DemoNetwork]
    report: str
    statement: str


class Gradient(TypedDict):
    """An exact gradient, by the parameters' names; GRADIENT of the commands."""

    schema: Literal["exan/gradient/1"]
    tensors: dict[str, Given]


class Release(TypedDict):
    """What of a gradient is sent; FILE of --release."""

    schema: Literal["exan/release/1"]
    tensors: NotRequired[list[str] | None]
    rows: NotRequired[dict[str, list[bool]]]
    input_basis: NotRequired[list[list[int | Rational]] | None]
    averages: NotRequired[list[list[Count]] | None]
    weights: NotRequired[Weights]


class Snapshot(TypedDict):
    """What the pytest plugin keeps of a certificate."""

    schema: Literal["exan/snapshot/1"]
    certificate: CertificateRecord


class Error(TypedDict):
    """An error, on stderr, where --json was asked for. ``error``: the class, ``message``: what to do."""

    schema: Literal["exan/error/1"]
    error: str
    message: str
    exit_code: Literal[1, 2, 3, 130]


_OBJECTS: dict[str, Any] = {"exan/certificate/1": CertificateRecord, "exan/run-step/1": StepRecord}
for _kind in list(globals().values()):
    if isinstance(_kind, type) and _kind.__module__ == __name__ and "schema" in _kind.__annotations__:
        (_name,) = get_args(get_type_hints(_kind)["schema"])
        _OBJECTS[_name] = _kind

_CLOSED = (Gradient, Release)
"""Files that are read, besides certificates."""

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


class _Definitions:
    """JSON schemas of types, those of objects under ``$defs``."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of one type."""
        origin, parts = get_origin(kind), get_args(kind)
        if kind is Any:
            return {}
        if kind in _PLAIN:
            return {"type": _PLAIN[kind]}
        if origin is NotRequired:
            return self.of(parts[0])
        if origin is Annotated:
            return self.of(parts[0]) | dict(_limits(parts[1:]))
        if origin is Literal:
            return {"const": parts[0]} if len(parts) == 1 else {"enum": list(parts)}
        if origin in (Union, UnionType):
            return {"anyOf": [self.of(part) for part in parts if part is not msgspec.UnsetType]}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.of(parts[1])}
        if origin in (list, tuple):
            return {"type": "array", **self.entries(origin, parts)}
        if issubclass(kind, Enum):
            return {"enum": [one.value for one in kind]}
        return {"$ref": f"#/$defs/{self.named(kind)}"}

    def entries(self, origin: type, parts: tuple[Any, ...]) -> dict[str, Any]:
        """What a list or tuple holds."""
        if origin is list or parts[-1] is ...:
            return {"items": self.of(parts[0])}
        held = {"prefixItems": [self.of(part) for part in parts], "items": False}
        return held | {"minItems": len(parts), "maxItems": len(parts)}

    def named(self, kind: type) -> str:
        """The name of an object's schema."""
        suite = kind.__module__.rsplit(".", 1)[-1]
        name = f"{suite}.Row" if kind.__name__ == "Row" else kind.__name__
        if name not in self.found:
            self.found[name] = {}  # an object may hold others of its kind
            self.found[name] |= self.object(kind)
        return name

    def object(self, kind: Any) -> dict[str, Any]:
        """The schema of an object. Records are written whole, and their numbers may be null, which JSON has
        for infinities; of a certificate's parts, what is left out where it has its default may be missing."""
        hints = get_type_hints(kind, include_extras=True)
        made: dict[str, Any] = {"type": "object", "description": " ".join((kind.__doc__ or "").split())}
        if is_typeddict(kind):
            there = (name for name, one in hints.items() if get_origin(one) is not NotRequired)
            required = sorted(there) if kind.__total__ else []
        elif dataclasses.is_dataclass(kind):
            hints = {one.name: hints[one.name] for one in dataclasses.fields(kind)}
            later = {one.name for one in dataclasses.fields(kind) if "since" in one.metadata}
            hints = {name: one | None if one is float else one for name, one in hints.items()}
            required = sorted(hints.keys() - later)
        else:
            fields = msgspec.structs.fields(kind)
            required = sorted(one.encode_name for one in fields if one.required)
            hints = {one.encode_name: hints[one.name] for one in fields}
            tag = kind.__struct_config__.tag
            if tag is not None:
                made["properties"] = {"type": {"const": tag}}
                required = ["type", *required]
            made["additionalProperties"] = False
        made.setdefault("properties", {})
        made["properties"] |= {name: self.of(hints[name]) for name in sorted(hints)}
        return made | {"required": required}


def _limits(given: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """What an annotation says of a number or text."""
    for one in given:
        if isinstance(one, tuple):
            yield one
        else:
            limits = {"minimum": one.ge, "exclusiveMaximum": one.lt}
            yield from ((name, limit) for name, limit in limits.items() if limit is not None)


def _schema_of(name: str) -> dict[str, Any]:
    """The schema called ``name`` (draft 2020-12)."""
    kind, definitions = _OBJECTS[name], _Definitions()
    here = definitions.object(kind)
    here["properties"]["schema"] = {"const": name}
    if kind in _CLOSED:
        here["additionalProperties"] = False
    found = dict(sorted(definitions.found.items()))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{name.replace('/', ':')}",
        "title": name,
        **here,
        **({"$defs": found} if found else {}),
    }


SCHEMAS = {name: _schema_of(name) for name in sorted(_OBJECTS)}
"""Every schema by its name."""


def file_of(name: str) -> Path:
    """Where a schema lies: ``exan/run-step/1`` in ``run-step-1.json``."""
    return FOLDER / f"{name.removeprefix('exan/').replace('/', '-')}.json"


def text_of(schema: dict[str, Any]) -> str:
    """What stands in its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for _name, _schema in SCHEMAS.items():
        file_of(_name).write_text(text_of(_schema), encoding="utf-8")
