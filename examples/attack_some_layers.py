"""Attack a gradient of which only some layers were shared: does keeping the first layer back help?

Run: python examples/attack_some_layers.py
"""

from __future__ import annotations

import torch

from exan_verify import attack
from exan_verify.data import initialised_network, mnist_batch


def main() -> None:
    for width in (512, 2048):
        model = initialised_network((784, width, 256, 10), seed=3).double()
        x, y = (torch.tensor(array) for array in mnist_batch(8, seed=3))
        torch.nn.functional.cross_entropy(model(x.double()), y).backward()
        gradient = {name: parameter.grad for name, parameter in model.named_parameters()}
        kept_back = {name: gradient.pop(name) for name in ("0.weight", "0.bias")}

        found = attack(model, gradient, partial=True)
        print(f"784-{width}-256-10 without {', '.join(kept_back)}")
        print(f"  features of hidden layer {found.hidden.layer}: {len(found.hidden.values)} of 8 samples")
        print(f"  inputs: {len(found.x)} of 8; {found.reason or 'the weights determine them'}")


if __name__ == "__main__":
    main()
