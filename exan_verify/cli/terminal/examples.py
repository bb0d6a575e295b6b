"""Examples at the end of every command's help. They are written for the files that ``exan demo`` leaves, and
short, since a terminal of 80 columns breaks longer lines where they cannot be pasted."""

from __future__ import annotations

from collections.abc import Mapping

_FILES = "model.safetensors batch.npz"
_BATCH = "model.safetensors --batch batch.npz"

HEADING = "Examples, in the folder demo-report, where exan demo leaves such files:"

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "demo": ("exan demo", "exan demo --out somewhere --seed 7"),
    "show": ("exan show model.safetensors", "exan show networks/*.onnx"),
    "audit": (
        f"exan audit {_FILES}",
        f"exan audit {_FILES} --report audit.html",
        f"exan audit {_FILES} --fail-on determined",
        "exan audit my_package.models:build batch.npz --weights weights.safetensors",
        "exan audit --run checkpoints --out audited --jobs 2 --report run.html",
        "exan audit --run run.jsonl --out audited --resume --sarif exan.sarif",
    ),
    "certify": (
        f"exan certify {_BATCH} --certificate new.json",
        f"exan certify {_BATCH} --domain box:0,1",
        "exan certify model.onnx --gradient g.npz --tolerance 1e-7 --batch-size 16",
    ),
    "check": (f"exan check certificate.json {_BATCH}",),
    "prove": (f"exan prove certificate.json {_BATCH} --out claim.v",),
    "attack": (
        "exan attack model.safetensors gradient.safetensors --out found.npz",
        "exan attack model.onnx update.npz --out x.npz --scale unknown --batch-size 8",
        "exan attack model.onnx g.npz --out x.npz --truth batch.npz --sheet sheet.png",
        "exan attack model.onnx gradient.npz --out found.npz --release release.json",
    ),
    "mitigate": (
        f"exan mitigate {_FILES} --report defences.html",
        f"exan mitigate {_FILES} --defence project-pca:8",
        "exan mitigate model.onnx batch.npz --defence help",
    ),
    "compare": (
        f"exan compare {_FILES} --figure compare.png",
        f"exan compare {_FILES} --method auto --method published",
    ),
    "sweep": (
        "exan sweep model.safetensors --over batch --values 1,2,4,8 --figure sweep.png",
        "exan sweep my_package.models:build --over width --batch-size 8 --csv sweep.csv",
        "exan sweep my_package.models:build --over epoch --data data.npz --out kept",
    ),
    "bench": (
        "exan bench certify --list",
        "exan bench certify --repeat 1",
        'exan bench attack --case "784-512-10 M=16" --alone',
    ),
    "campaign": ("exan campaign --list", "exan campaign --minutes 5 --out campaign"),
    "export-smt": ("exan export-smt model.safetensors --batch batch.npz --out question.smt2",),
    "smt": ("exan smt model.safetensors --batch batch.npz --double-check --budget 60",),
    "theorems": (
        "exan theorems",
        "exan theorems c1-upper-layer-alone",
        "exan theorems P2 --no-checks",
        "exan theorems --file my_claims.py",
    ),
}
"""Command lines by command."""


def epilog(name: str) -> str:
    """The examples of a command as rich-click takes them: paragraphs, which it prints below one another."""
    lines = EXAMPLES.get(name, ())
    return "\n\n".join((HEADING, *lines)) if lines else ""
