"""Snapshots of verdicts with their certificates: made once by the engines, replayed by the kernel alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from exan_verify.core.certificate import Claim
from exan_verify.errors import CertificateRejected, FileError, InputError

SCHEMA = "exan/snapshot/1"

_UPDATE = "run pytest --exan-update and look at what changes"


def write(path: Path, model: Any, batch: Any = None, **options: Any) -> tuple[Claim, str]:
    """Certify, write verdict and certificate to ``path``, and return the claim and what became of the file:
    ``written``, ``changed`` or ``unchanged``.

    Raises :class:`InputError` where nothing is certified: there would be nothing to replay.
    """
    from exan_verify.api.certify import certify
    from exan_verify.api.files import write_atomically
    from exan_verify.api.records import pretty

    given = {} if batch is None else {"batch": batch}
    verdict = certify(model, **given, **options)
    if verdict.certificate is None:
        raise InputError(
            f"nothing is certified about this batch ({verdict.outcome.value}: {verdict.reason}), so a "
            "snapshot has nothing to replay; give a larger budget, or assert the outcome itself"
        )
    fate = "written"
    if path.exists():
        fate = "unchanged" if _timeless(_stored(path)) == _timeless(verdict.certificate) else "changed"
    if fate != "unchanged":
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, pretty({"schema": SCHEMA, "certificate": verdict.certificate}))
    return replay(path, model, batch), fate


def replay(path: Path, model: Any, batch: Any = None, **options: Any) -> Claim:
    """The claim of the snapshot at ``path``, which the kernel derives again for this model and batch.

    ``options`` are the question's words; those that the snapshot answers otherwise fail. Raises
    AssertionError with what to do where there is no snapshot, where it is rejected, or is another question's.
    """
    from exan_verify.api.check import check

    if not path.exists():
        raise AssertionError(f"there is no snapshot {path}; {_UPDATE}")
    stored = _read(path)
    given = {} if batch is None else {"batch": batch}
    try:
        claim = check(stored["certificate"], model, **given)
    except CertificateRejected as error:
        raise AssertionError(
            f"{path}: its certificate does not hold for this model and batch ({error}). They have changed, "
            f"or the claim is not true of them; {_UPDATE}"
        ) from None
    asked = {name: options[name] for name in ("loss", "reduction", "labels") if name in options}
    for name, value in asked.items():
        if getattr(claim.question, name) != value:
            raise AssertionError(
                f"{path} answers {name}={getattr(claim.question, name).value!r}, not {value!r}; {_UPDATE}"
            )
    return claim


def _stored(path: Path) -> Any:
    """The certificate of the file that is to be written anew, whatever stands in it."""
    try:
        return _read(path)["certificate"]
    except FileError:
        return None


def _timeless(certificate: Any) -> Any:
    """Without the time at which it was made."""
    plain = msgspec.json.decode(msgspec.json.encode(certificate))
    return {k: v for k, v in plain.items() if k != "created"} if isinstance(plain, dict) else plain


def _read(path: Path) -> Mapping[str, Any]:
    try:
        stored = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, OSError) as error:
        raise FileError(f"{path}: is no snapshot ({error}); delete it, and {_UPDATE}") from None
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA or "certificate" not in stored:
        raise FileError(f"{path}: is no snapshot of schema {SCHEMA}; delete it, and {_UPDATE}")
    return stored
