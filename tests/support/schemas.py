"""The JSON schemas of docs/schemas, and whether an object is what its schema says."""

from __future__ import annotations

import copy
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"

Record = dict[str, Any]


def stored(name: str) -> Record:
    """The schema called ``exan/run-step/1``, as it is published."""
    path = FOLDER / f"{name.removeprefix('exan/').replace('/', '-')}.json"
    found: Record = json.loads(path.read_text(encoding="utf-8"))
    return found


def faults(record: Record, *, strict: bool = True) -> list[str]:
    """Where ``record`` is not what the schema that it names says; ``strict``: also where it has a key that
    the schema does not name, which readers have to bear, and we not to leave out."""
    found = _validator(record["schema"], strict).iter_errors(record)
    return [f"{error.json_path}: {error.message[:300]}" for error in found]


def require_valid(text: str) -> None:
    """Raise AssertionError where ``text`` is no object that follows its schema; nothing is looked at where
    jsonschema is not installed."""
    if find_spec("jsonschema") is not None:
        found = faults(json.loads(text))
        if found:
            raise AssertionError("; ".join(found))


@cache
def _validator(name: str, strict: bool) -> Any:
    from jsonschema import Draft202012Validator

    schema = stored(name)
    return Draft202012Validator(_closed(schema) if strict else schema)


def _closed(schema: Record) -> Record:
    """The schema without room for keys that it does not name."""
    closed = copy.deepcopy(schema)
    for one in (closed, *closed.get("$defs", {}).values()):
        if "properties" in one:
            one["additionalProperties"] = False
    return closed
