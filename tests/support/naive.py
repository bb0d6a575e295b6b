"""A second, naive implementation of theory section 1 on nested lists of Fractions, for comparison only."""

from __future__ import annotations

from fractions import Fraction

from exan_verify.core.network import Batch, ReluNetwork, to_fraction
from exan_verify.core.question import Loss, Reduction

Matrix = list[list[Fraction]]


def parameters(network: ReluNetwork) -> list[tuple[Matrix, list[Fraction]]]:
    out = []
    for layer in network.layers:
        weight = [[to_fraction(v) for v in row] for row in layer.weight]
        bias = [Fraction(0)] * len(weight) if layer.bias is None else [to_fraction(v) for v in layer.bias]
        out.append((weight, bias))
    return out


def forward(network: ReluNetwork, x: list[Fraction]) -> list[list[Fraction]]:
    """All z_i of one sample."""
    zs, h = [], list(x)
    for weight, bias in parameters(network):
        z = [
            sum((w * v for w, v in zip(row, h, strict=True)), b) for row, b in zip(weight, bias, strict=True)
        ]
        zs.append(z)
        h = [max(v, Fraction(0)) for v in z]
    return zs


def loss_vector(loss: Loss, logits: list[Fraction], label: object, divisor: int) -> list[Fraction]:
    if loss is Loss.MSE:
        return [2 * (f - to_fraction(y)) / divisor for f, y in zip(logits, label, strict=True)]
    y, K = int(label), len(logits)
    g = [Fraction(0)] * K
    for c in range(K):
        if c != y and 1 - logits[y] + logits[c] > 0:
            g[c] += Fraction(1, K * divisor)
            g[y] -= Fraction(1, K * divisor)
    return g


def gradient(network: ReluNetwork, batch: Batch, loss: Loss, reduction: Reduction) -> dict[str, list]:
    layers = parameters(network)
    divisor = loss.divisor(reduction, batch.size, network.classes)
    dW = [[[Fraction(0)] * len(w[0]) for _ in w] for w, _ in layers]
    db = [[Fraction(0)] * len(w) for w, _ in layers]
    for m in range(batch.size):
        x = [to_fraction(v) for v in batch.inputs[m]]
        zs = forward(network, x)
        hs = [x] + [[max(v, Fraction(0)) for v in z] for z in zs[:-1]]
        delta = loss_vector(loss, zs[-1], batch.labels[m], divisor)
        for i in range(len(layers) - 1, -1, -1):
            for j, dj in enumerate(delta):
                db[i][j] += dj
                for k, hk in enumerate(hs[i]):
                    dW[i][j][k] += dj * hk
            if i:
                weight = layers[i][0]
                back = [
                    sum((weight[r][j] * delta[r] for r in range(len(delta))), Fraction(0))
                    for j in range(len(hs[i]))
                ]
                delta = [v if zs[i - 1][j] > 0 else Fraction(0) for j, v in enumerate(back)]
    out: dict[str, list] = {}
    for layer, w, b in zip(network.layers, dW, db, strict=True):
        names = [n for n, _ in layer.parameters()]
        out[names[0]] = w
        if layer.bias is not None:
            out[names[1]] = b
    return out
