"""Rebuild a batch of digits from the gradient of one ordinary training step.

Run: python examples/attack_gradient.py
"""

import torch

from exan_verify import attack
from exan_verify.data import initialised_network, mnist_batch


def main() -> None:
    model = initialised_network((784, 256, 10), seed=3).double()
    x, y = (torch.tensor(array) for array in mnist_batch(8, seed=3))
    torch.nn.functional.cross_entropy(model(x.double()), y).backward()
    gradient = {name: parameter.grad for name, parameter in model.named_parameters()}

    found = attack(model, gradient, loss="cross_entropy")
    print(f"rebuilt {len(found.x)} of {found.batch_size} samples; residual {found.gradient_residual:.0e}")
    for status, sample in zip(found.status, found.x, strict=True):
        error = (x.double() - sample).abs().amax(1).min()
        print(f"  claimed to within {status.error_bound:.0e}, true error {error:.0e}")
    print(f"labels: {sorted(found.y.tolist())}, true: {sorted(y.tolist())}")


if __name__ == "__main__":
    main()
