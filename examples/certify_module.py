"""Decide, with proof, whether a gradient determines the batch it came from.

Run: python examples/certify_module.py
"""

import torch
from torch import nn

from exan_verify import certify, check


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    x, y = torch.rand(6, 8, 8), torch.tensor([3, 1, 4, 1, 5, 9])

    verdict = certify(model, batch=(x, y), loss="cross_entropy")
    print(f"{verdict.outcome.name}, {verdict.determined} of {verdict.batch_size} samples determined")
    print(f"because: {verdict.reason}")

    # the certificate is plain JSON; the checker shares no code with the engine that found the proof
    claim = check(verdict.certificate, model, batch=(x, y))
    print(f"checked: {claim.outcome.name}")

    # two copies of one sample cannot be told apart by this argument: the answer says so and stays honest
    x[1], y[1] = x[0], y[0]
    verdict = certify(model, batch=(x, y))
    print(f"with a twin: {verdict.outcome.name}, because {verdict.reason}")


if __name__ == "__main__":
    main()
