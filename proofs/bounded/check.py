"""Recheck the bounded proofs from scratch; exits non-zero on any deviation.

python proofs/bounded/check.py            z3, cvc5 where installed, sympy and exact ranks
python proofs/bounded/check.py --write    generate the SMT-LIB files again from the statements' Python
python proofs/bounded/check.py --folder F look at the files in F instead
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from exan_verify.theorems.bounded.recheck import deviations, tally, write_all


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0: everything as expected, 1: the deviations are printed."""
    parser = argparse.ArgumentParser(description="Recheck the bounded proofs.")
    parser.add_argument("--write", action="store_true", help="generate the files again")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where the files are")
    parser.add_argument("names", nargs="*", help="only these obligations")
    options = parser.parse_args(arguments)
    if options.write:
        write_all(options.folder)
        return 0
    found = deviations(options.folder, lambda line: print(line, flush=True), names=tuple(options.names))
    for line in found:
        print(f"DEVIATION {line}", file=sys.stderr)
    asked, as_expected = tally(options.folder, found, names=tuple(options.names))
    print(f"bounded: {as_expected} of {asked} files as expected; {len(found)} deviations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
