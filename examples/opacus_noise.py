"""What per-sample clipping and noise, as in DP-SGD, leave of a batch: attacked, and compared with the batch.

Run: python examples/opacus_noise.py

With Opacus (pip install opacus) the gradients are the ones that its optimizer makes; without it they are made
by hand, in the same way: every sample's gradient is clipped to a norm, their mean gets Gaussian noise.

Nothing is certified about noise: a certificate is about one batch and one gradient, and noise is random. What
is certified is that clipping alone protects nobody: a release with unknown positive weights of the samples.
"""

from importlib.util import find_spec

import numpy as np
import torch
from torch import nn

from exan_verify import Release, attack, certify
from exan_verify.data import mnist_batch

SAMPLES, CLIP = 4, 1.0
NOISES = (0.0, 1e-6, 1e-3, 1.0)
"""Noise multipliers: the noise of a coordinate has a deviation of noise * CLIP / SAMPLES."""


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)).double()


def by_hand(model, x, y, noise):
    """The mean of the clipped gradients of the samples, with noise drawn by numpy."""
    rng = np.random.default_rng(1)
    summed = {name: torch.zeros_like(one) for name, one in model.named_parameters()}
    for one, label in zip(x, y, strict=True):
        loss = nn.functional.cross_entropy(model(one[None]), label[None])
        parts = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.sqrt(sum(part.square().sum() for part in parts))
        for name, part in zip(summed, parts, strict=True):
            summed[name] += part * min(1.0, CLIP / float(norm))
    return {
        name: (one + noise * CLIP * torch.from_numpy(rng.normal(size=tuple(one.shape)))) / len(x)
        for name, one in summed.items()
    }


def by_opacus(model, x, y, noise):
    """What Opacus' optimizer would make its step with; the generator is seeded so that runs are alike."""
    from opacus import PrivacyEngine

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.TensorDataset(x, y)
    private, optimizer, _ = PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        data_loader=torch.utils.data.DataLoader(data, batch_size=len(x)),
        noise_multiplier=noise,
        max_grad_norm=CLIP,
        poisson_sampling=False,
        noise_generator=torch.Generator().manual_seed(1),
    )
    nn.functional.cross_entropy(private(x), y).backward()
    optimizer.pre_step()  # clips, adds noise, divides by the batch size; a step would follow
    return {name.removeprefix("_module."): one.grad.clone() for name, one in private.named_parameters()}


def measured(model, gradient, x):
    """How many samples an attack rebuilds to an RMSE of 1e-3, and the PSNR (dB) of the best that it shows."""
    found = attack(model, gradient, weights="positive", batch_size=len(x), budget=30)
    shown = torch.cat([found.x, found.stacked_candidates()[0]]).double()
    if not len(shown):
        return 0, None
    rmse = torch.cdist(x, shown).min(dim=1).values / x.shape[1] ** 0.5
    return int((rmse < 1e-3).sum()), float(-20 * torch.log10(rmse.min()))


def main():
    make = by_opacus if find_spec("opacus") is not None else by_hand
    print(f"gradients made {make.__name__.replace('_', ' ')}; clipped to {CLIP:g}, {SAMPLES} samples")
    images, labels = mnist_batch(SAMPLES, seed=3)
    x, y = torch.as_tensor(images).double(), torch.as_tensor(labels)
    verdict = certify(network(), batch=(x, y), release=Release(weights="positive"))
    print(f"clipping without noise, certified: {verdict.outcome.name}, {verdict.determined} determined")
    for noise in NOISES:
        rebuilt, best = measured(network(), make(network(), x, y, noise), x)
        seen = "nothing is shown" if best is None else f"the best picture has {best:.0f} dB"
        print(f"noise {noise:g}: {rebuilt} of {SAMPLES} rebuilt, {seen}", flush=True)
    print("What an attack does not rebuild is not thereby safe; epsilon is what bounds it (exan mitigate).")


if __name__ == "__main__":
    main()
