"""Rebuild pictures from the gradient of a convolutional network, and draw them beside the originals.

Run: python examples/attack_cnn.py
"""

import tempfile
from pathlib import Path

import torch
from torch.nn import functional

from exan_verify import attack
from exan_verify.data import mnist_batch
from exan_verify.models import lenet, strided_cnn
from exan_verify.report.sheets import contact_sheet


def gradient_of(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor | None]:
    functional.cross_entropy(model(x), y).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def main() -> None:
    images, classes = mnist_batch(4, seed=3)
    y = torch.tensor(classes)
    x = torch.tensor(images).double().reshape(4, 1, 28, 28)
    x = functional.pad(functional.avg_pool2d(x, 2), (1, 1, 1, 1))

    # strides in place of pooling, and more channels than pixels that are lost: every layer can be inverted
    model = strided_cnn(image_size=16, channels=1, widths=(16, 176), head=(96,)).double()
    found = attack(model, gradient_of(model, x, y))
    print(f"rebuilt {len(found.x)} of {found.batch_size} pictures; labels {sorted(found.y.tolist())}")
    for stage in found.stages:
        if stage.deficit is not None:
            print(f"  {stage.kind} {stage.path!r}: {stage.deficit} entries open")
    order = [int((found.x - one).flatten(1).norm(dim=1).argmin()) for one in x]
    rows = {"recovered": [found.x[k].numpy() for k in order]}

    # max-pooling hides which entry of a window was the largest: pictures can only be estimated
    pooled = lenet(image_size=16).double()
    found = attack(pooled, gradient_of(pooled, x, y), picture_iterations=100)
    print(f"with max-pooling: {len(found.features)} features, {len(found.x)} pictures. {found.reason}")
    order = [int((found.estimates - one).flatten(1).norm(dim=1).argmin()) for one in x]
    rows["estimated"] = [found.estimates[k].numpy() for k in order]

    path = Path(tempfile.mkdtemp()) / "sheet.png"
    path.write_bytes(contact_sheet(x.numpy(), rows, labels=[str(v) for v in classes]))
    print(f"contact sheet written to {path}")


if __name__ == "__main__":
    main()
