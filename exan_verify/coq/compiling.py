"""Running coqc on a file that :func:`exan_verify.prove` wrote, and what it says the theorem rests on."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from exan_verify.core.budget import Budget
from exan_verify.errors import BudgetExhausted, CertificateRejected, FileError

_PACKAGE = Path(__file__).resolve().parents[1]
LIBRARY = next(
    (path for path in (_PACKAGE / "proofs" / "coq", _PACKAGE.parent / "proofs" / "coq") if path.is_dir()),
    _PACKAGE / "proofs" / "coq",
)
"""The library: with an installed package in its folder, in a checkout of the project beside it."""

LIBRARIES = ("second", "softmax")
"""The library's files on which none of the others for certificates is built."""

PRIMITIVES = {
    "PrimInt63.int",
    *(
        f"PrimInt63.{name}"
        for name in ["add", "sub", "mul", "mod", "ltb", "leb", "eqb", "lsl", "lsr", "land", "lor"]
    ),
    *(f"Uint63.{name}_spec" for name in ["add", "sub", "mul", "mod", "ltb", "leb", "lsl", "lsr", "lor"]),
    *(f"Uint63.{name}" for name in ["of_to_Z", "eqb_correct", "eqb_refl"]),
    *(f"PArray.{name}" for name in ["array", "get", "make"]),
}
"""Coq's machine integers and arrays, and the axioms of its standard library about the former."""


def is_compiled() -> bool:
    """Whether all of the library is there that a file for coqc uses."""
    return all((LIBRARY / f"{name}.vo").exists() for name in LIBRARIES)


def compiled(path: Path, *, limit: Budget | None = None) -> tuple[str, ...]:
    """The axioms that the file's theorem rests on, as coqc names them, once coqc has accepted the file.

    Raises :class:`CertificateRejected` where it does not, or where the theorem rests on anything but machine
    integers and arrays; :class:`FileError` where coqc or the library is missing; :class:`BudgetExhausted`
    when the limit's time runs out.
    """
    limit = limit or Budget()
    if shutil.which("coqc") is None:
        script = LIBRARY.parent / "install.sh"
        raise FileError(f"coqc is not installed; bash {script} installs it from Debian's packages")
    if not is_compiled():
        raise FileError(
            f"the Coq library is not compiled at {LIBRARY}; run make -C {LIBRARY} prove, where you may write "
            "there, or in a copy of the project"
        )
    if not path.is_file():
        raise FileError(f"{path}: there is no such file to compile")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, Path(folder) / "claim.v")
        (Path(folder) / "asked.v").write_text(_ASKED)
        said = ""
        for name in ("claim.v", "asked.v"):
            said = _coqc(Path(folder), name, path, limit)
    axioms = tuple(_axioms(said))
    strange = [name for name in axioms if name not in PRIMITIVES]
    if strange:
        raise CertificateRejected(f"the theorem of {path} rests on {', '.join(strange)}, which nobody proved")
    return axioms


_ASKED = "Require claim.\nPrint Assumptions claim.claimed.\n"
"""Without an import, so that every name is printed with its file's."""


def _coqc(folder: Path, name: str, path: Path, limit: Budget) -> str:
    command = ["coqc", "-q", "-w", "none", "-Q", str(LIBRARY), "Exan", "-Q", ".", "", name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit.seconds_left, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise BudgetExhausted(f"coqc did not end within {limit.seconds:g} s; give a larger budget") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise CertificateRejected(f"coqc rejects {path}: {said[:600] or f'exit code {done.returncode}'}")
    return done.stdout


def _axioms(text: str) -> Iterator[str]:
    """Names in what ``Print Assumptions`` prints: each starts a line."""
    if "Axioms:" not in text:
        if "Closed under the global context" not in text:
            raise CertificateRejected(
                "coqc did not say what the theorem rests on; its file has no Print Assumptions"
            )
        return
    for line in text.split("Axioms:", 1)[1].splitlines():
        found = re.match(r"([A-Za-z_][\w.']*)", line)
        if found:
            yield found[1]
