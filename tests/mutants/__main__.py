"""``python -m tests.mutants``: break one place at a time, run the tests that should notice."""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.operators import Mutant, mutants
from tests.mutants.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
EXPLAINED = Path(__file__).with_name("survivors.json")


def main() -> int:
    arguments = _arguments()
    chosen = choose(arguments.count, arguments.seed, arguments.only, arguments.key)
    chosen = chosen[arguments.part[0] - 1 :: arguments.part[1]]
    explained = json.loads(EXPLAINED.read_text())
    results = []
    with tempfile.TemporaryDirectory() as folder:
        copy = workplace(Path(folder))
        for number, (target, mutant) in enumerate(chosen, 1):
            started = time.monotonic()
            killed = noticed(copy, target, mutant, arguments.timeout)
            word = "killed" if killed else "explained" if mutant.key in explained else "SURVIVED"
            seconds = time.monotonic() - started
            print(f"{number}/{len(chosen)} {word} {seconds:.1f}s line {mutant.line} {mutant.key}", flush=True)
            results.append({"key": mutant.key, "line": mutant.line, "killed": killed, "seconds": seconds})
    survivors = [r for r in results if not r["killed"]]
    unexplained = [r for r in survivors if r["key"] not in explained]
    print(f"{len(results)} mutants, {len(results) - len(survivors)} killed, {len(unexplained)} unexplained")
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if unexplained else 0


def choose(count: int, seed: int, only: str = "", keys: Sequence[str] = ()) -> list[tuple[str, Mutant]]:
    """``count`` mutants, the same for the same seed, spread evenly over the modules.

    With ``keys``: all mutants whose key contains one of them.
    """
    if keys:
        return [pair for pair in everything(only) if any(key in pair[1].key for key in keys)]
    generator = random.Random(seed)
    names = [name for name in TARGETS if only in name]
    pools: dict[str, list[Mutant]] = {name: [] for name in names}
    for name, mutant in everything(only):
        pools[name].append(mutant)
    for name in names:
        generator.shuffle(pools[name])
    chosen: list[tuple[str, Mutant]] = []
    while len(chosen) < count and any(pools.values()):
        for name in names:
            if pools[name] and len(chosen) < count:
                chosen.append((name, pools[name].pop()))
    return sorted(chosen, key=lambda pair: (pair[0], pair[1].line))


def everything(only: str = "") -> list[tuple[str, Mutant]]:
    """All mutants of the modules whose name contains ``only``."""
    return [
        (name, mutant)
        for name in TARGETS
        if only in name
        for mutant in mutants(name, (ROOT / "exan_verify" / f"{name}.py").read_text())
    ]


def workplace(folder: Path) -> Path:
    """A copy of package and tests, so that the working tree is never broken."""
    ignore = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for part in ("exan_verify", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def noticed(folder: Path, target: str, mutant: Mutant, timeout: float) -> bool:
    """Whether a test fails, or does not end, with the mutant in place; without it, that test must pass."""
    path = folder / "exan_verify" / f"{target}.py"
    original = path.read_text()
    path.write_text(mutant.source)
    try:
        first = failing(folder, [f"tests/{name}.py" for name in TARGETS[target]], timeout)
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(original)
    if first and failing(folder, [first], timeout):
        raise SystemExit(f"{first} fails without any change")
    return first != ""


def failing(folder: Path, tests: list[str], timeout: float) -> str:
    """The first of these tests that fails, or the file that cannot be imported; empty when all pass."""
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}
    run = subprocess.run(
        command, cwd=folder, env=environment, timeout=timeout, capture_output=True, check=False
    )
    if run.returncode == 0:
        return ""
    output = run.stdout.decode()
    found = re.search(r"^(?:FAILED|ERROR) (\S+\.py(?:::.*?)?)(?: - .*)?$", output, re.MULTILINE)
    if found is None or run.returncode not in (1, 2):
        raise RuntimeError(output + run.stderr.decode())
    return found[1]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="modules whose name contains this")
    parser.add_argument(
        "--key", action="append", default=[], help="mutants whose key contains this; repeat it"
    )
    parser.add_argument("--part", type=_part, default=(1, 1), help="K/N: every N-th mutant, from the K-th")
    parser.add_argument("--timeout", type=float, default=300, help="seconds until a mutant counts as hanging")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    return parser.parse_args()


def _part(text: str) -> tuple[int, int]:
    number, parts = (int(v) for v in text.split("/"))
    if not 1 <= number <= parts:
        raise ValueError("K/N needs 1 <= K <= N")
    return number, parts


if __name__ == "__main__":
    sys.exit(main())
