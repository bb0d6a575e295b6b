"""Questions whose answer is UNIQUE by construction, for every loss (docs/theory.md, Appendix P.2).

One hidden layer with biases, affinely independent inputs, and per sample two exclusive neurons whose outgoing
weights are the unit vectors 1 and 2. For samples a, b the difference of their rows with the same outgoing
weights has no outgoing weight left, and deltas (u_a[c], -u_b[c]) for c = 1, 2. If the vectors
(u_m[1], u_m[2]) of any two samples are independent and none of their entries is zero, every pair of samples
is *apart* and the exclusive neurons are live: exactly one batch has the gradient, whatever labels are
admitted.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.question import Labels, Loss
from exan_verify.errors import InputError
from exan_verify.instances import Instance
from exan_verify.testing.strategies.basic import targets
from exan_verify.testing.strategies.construct import CLOSE, Drawn, Plan, finished
from exan_verify.testing.strategies.patterns import Neuron, free_weights, inputs, pre_activations
from exan_verify.testing.strategies.wanted import Wanted


def unique(draw: st.DrawFn, w: Wanted) -> Instance:
    """An instance to which the one answer is UNIQUE."""
    loss = w.loss
    if loss is None:
        few = w.widths is not None and w.widths[-1] < 3
        losses = [Loss.MSE] if w.labels is Labels.REAL else [o for o in Loss if not (few and o.class_labels)]
        loss = draw(st.sampled_from(losses))
    kinds = [Labels.ONE_HOT, Labels.KNOWN] + ([Labels.REAL] if loss is Loss.MSE else [])
    labels = draw(st.sampled_from(kinds)) if w.labels is None else w.labels
    least = 3 if loss.class_labels else 2
    classes = draw(st.integers(least, 4)) if w.widths is None else w.widths[-1]
    low, high = w.samples
    # hinge has four pairs of loss vectors' entries that are pairwise independent
    most = min(high, 4) if loss is Loss.HINGE else high
    if w.widths is not None:
        most = min(most, w.widths[0] + 1, w.widths[1] // 2)
    if most < low:
        raise InputError(f'outcome="unique" with these widths= and this loss has {most} samples at most')
    samples = draw(st.integers(low, most))
    features = max(1, samples - 1) + draw(st.integers(0, 2)) if w.widths is None else w.widths[0]
    plan = Plan(
        loss=loss,
        labels=labels,
        biased=True,
        sizes=(1,) * samples,
        places=tuple((m,) for m in range(samples)),
        dead=None,
        silent=(),
        twin="",
        moving=None,
    )
    made = Drawn(plan=plan, w=w)
    current = inputs(draw, features, samples, biased=True)
    made.regions = current.values

    own = [Neuron(tuple(k == m for k in range(samples))) for m in range(samples)]
    near = [Neuron((False,) * samples)] if w.near_boundary else []
    more = draw(st.integers(0, 3)) if w.widths is None else w.widths[1] - 2 * samples - len(near)
    if more < 0:
        raise InputError("widths: near_boundary=True takes one hidden neuron more")
    bits = draw(st.lists(st.booleans(), min_size=more * samples, max_size=more * samples))
    extra = [Neuron(tuple(bits[k * samples : (k + 1) * samples])) for k in range(more)]
    neurons = [*own, *own, *near, *extra]
    z = pre_activations(draw, neurons)
    if near:
        z[2 * samples, draw(st.integers(0, samples - 1))] = draw(st.sampled_from([0, -CLOSE[w.numbers]]))

    y, logits = _aims(draw, loss, labels, samples, classes)
    weight = free_weights(draw, classes, len(neurons))
    weight[:, : 2 * samples] = 0
    weight[0, :samples] = 1
    weight[1, samples : 2 * samples] = 1
    bias = free_weights(draw, classes, 1)[:, 0]
    if loss.class_labels:  # the other logits are zero for all samples
        weight[2:], bias[2:] = 0, 0
    # the exclusive neurons' activations bring the first two logits where they are to be
    rest = weight[:, 2 * samples :] @ np.maximum(z[2 * samples :], 0)
    for c in (0, 1):
        needed = logits[c] - rest[c]
        bias[c] = min(needed) - draw(st.integers(1, 3))
        for m in range(samples):
            z[c * samples + m, m] = needed[m] - bias[c]
    solved, offset = current.prescribed(draw, z)
    assert offset is not None
    made.weights, made.biases = [solved], [offset]
    return finished(draw, w, plan, made, (weight, bias), made.regions, y, None)


def _aims(draw: st.DrawFn, loss: Loss, labels: Labels, samples: int, classes: int) -> tuple[Any, Any]:
    """Labels, and the first two logits (2, M) that make u[1], u[2] non-zero and pairwise independent."""
    ranks = np.array(draw(st.permutations(range(samples))), dtype=object) + 1
    zero = np.zeros(samples, dtype=object)
    if loss is Loss.HINGE:
        # K u = (-1, 1), (-K + 1, 1), (1, -K + 1), (1, 1): label and logits, the others being zero
        profiles = [(0, 2, 2), (0, 0, 0), (1, 0, 0), (2, 0, 0)]
        chosen = [profiles[k - 1] for k in draw(st.permutations(range(1, 5)))[:samples]]
        return np.array([y for y, *_ in chosen]), np.array(
            [[a for _, a, _ in chosen], [b for *_, b in chosen]]
        )
    y = draw(targets(samples, classes, loss, labels))
    if loss is Loss.MSE:  # u = f - y = (1, rank), times a constant
        exact = np.array([[Fraction(v) for v in row] for row in np.asarray(y, dtype=np.float64)])
        return y, np.array([exact[:, 0] + 1, exact[:, 1] + ranks], dtype=object)
    if loss is Loss.BCE:
        # u[1] = +-1/2; |u[2]| is sigmoid(+-rank), which is another number for every rank and sign
        return y, np.array([zero, ranks], dtype=object)
    # softmax with f = (s, t, 0, ..): u[1] / u[2] is -(1 + (K - 2) e^-t) for the first label,
    # -1 / (1 + (K - 2) e^-s) for the second, e^(s - t) for the others: apart in range, monotone in the rank
    return y, np.array([ranks, -2 * ranks], dtype=object)
