"""Audit one's own model and data before a federated round, and fail the build when a sample leaks.

Run: python examples/audit_in_ci.py
"""

import sys

from exan_verify import SampleStatus, audit
from exan_verify.data import initialised_network, mnist_batch


def main() -> int:
    model = initialised_network((784, 256, 10), seed=1)
    x, y = mnist_batch(8, seed=1)
    found = audit(model, (x, y), loss="cross_entropy")
    size, state = found.batch_size, found.exclusivity

    # four answers, never mixed: the first two describe attacks, the third is a proof, the fourth protection
    print(f"published ExAN condition: {sum(state.published_by_sample)} of {size} samples")
    print(f"peeling closure:          {sum(found.peelable)} of {size} samples")
    print(f"certified:                {found.verdict.outcome.name}, {found.verdict.determined} determined")
    print(f"ambiguity radius:         {found.radius}")

    leaks = [m for m, status in enumerate(found.verdict.samples) if status is SampleStatus.DETERMINED]
    undecided = [m for m, status in enumerate(found.verdict.samples) if status is SampleStatus.UNKNOWN]
    print(f"samples that leak: {leaks or 'none proved'}; undecided: {undecided or 'none'}")
    return 1 if leaks else 3 if undecided else 0


if __name__ == "__main__":
    sys.exit(main())
