"""``questions``, ``gradients`` and ``exclusivity_states``: the strategies that construct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.network import Batch, Gradient
from exan_verify.core.question import Box, Labels, Loss, Question
from exan_verify.errors import InputError, unknown
from exan_verify.exact.backprop import gradient
from exan_verify.exclusivity import ExclusivityState, exclusivity
from exan_verify.instances import Instance
from exan_verify.testing.strategies.basic import REDUCTIONS, batches, networks
from exan_verify.testing.strategies.construct import structured
from exan_verify.testing.strategies.wanted import Wanted, wanted

STATES: tuple[Mapping[str, Any], ...] = (
    {"published": True},
    {"peelable": "all"},
    {"peelable": "none"},
    {"stopping_set": True},
    {"shared_region": (2,)},
    {"shared_region": (2, 1)},
    {"dead": 1},
    {"silent": 1},
    {"twins": True},
    {"near_boundary": True},
    {"outcome": "unique"},
)
"""Arguments of :func:`questions` that each ask for one state: what laws and searches go through."""


def questions(
    *,
    loss: str | None = None,
    reduction: str | None = None,
    labels: str | None = None,
    domain: Box | None = None,
    biases: bool | None = None,
    widths: Sequence[int] | None = None,
    samples: int | tuple[int, int] | None = None,
    numbers: str = "float64",
    generic: bool = False,
    published: bool = False,
    peelable: str | None = None,
    stopping_set: bool = False,
    exans: Mapping[int, Sequence[int]] | None = None,
    shared_region: Sequence[int] | None = None,
    dead: int = 0,
    silent: int = 0,
    twins: bool = False,
    near_boundary: bool = False,
    outcome: str | None = None,
    images: bool = False,
) -> st.SearchStrategy[Instance]:
    """Questions that ``certify``, ``audit`` and ``attack`` take in place of a model: a network, a batch of
    ``samples`` (a number, or least and most; default 1 to 4) and the words of the question, with

    - ``published``: two exclusive neurons (ExANs) per sample in the last hidden layer, one in every other;
    - ``peelable``: ``"all"``, every sample is in the peeling closure, or ``"none"``;
    - ``stopping_set``: peeling stops before its end;
    - ``exans``: {hidden layer, from 1: ExANs of each sample in it, exactly};
    - ``shared_region``: sizes of groups that share every pattern, such as ``(2, 1)``; the others do not;
    - ``dead``: so many samples without an active neuron in the first layer, at least;
    - ``silent``: so many samples with a zero loss vector (mse, hinge), at least;
    - ``twins``, the same as ``outcome="ambiguous"``: a second batch with the same gradient, as ``.twin``;
    - ``near_boundary``: a pre-activation next to zero, or at zero;
    - ``outcome="unique"``: no other batch has the gradient (docs/theory.md P.2); one hidden layer;
    - ``images``: the samples are embedded digits, the widths 784, ..., 10;
    - ``loss``, ``reduction``, ``labels``, ``biases``: drawn where they are None; ``domain``: None is R^d;
    - ``widths``: (d, n_1, ..., K); ``numbers``: ``float64``, ``float32`` or ``rational``;
    - ``generic``: random digits instead of small numbers.

    All that is asked holds by construction, exactly; nothing is drawn and thrown away.

    Raises :class:`InputError` for arguments that exclude one another, and while drawing where ``widths`` are
    too small for what is asked.
    """
    asked = wanted(
        loss=loss,
        reduction=reduction,
        labels=labels,
        domain=domain,
        biases=biases,
        widths=widths,
        samples=samples,
        numbers=numbers,
        published=published,
        peelable=peelable,
        stopping_set=stopping_set,
        exans=exans,
        shared_region=shared_region,
        dead=dead,
        silent=silent,
        twins=twins,
        near_boundary=near_boundary,
        outcome=outcome,
        images=images,
        generic=generic,
    )
    return _questions(asked)


@st.composite
def _questions(draw: st.DrawFn, w: Wanted) -> Instance:
    if w.unique:
        from exan_verify.testing.strategies.unique import unique

        return unique(draw, w)
    if w.images:
        from exan_verify.testing.strategies.images import images

        return images(draw, w)
    return structured(draw, w) if w.structured else _free(draw, w)


def _free(draw: st.DrawFn, w: Wanted) -> Instance:
    """A network and a batch without conditions on one another."""
    loss = w.loss
    if loss is None:
        few = w.widths is not None and w.widths[-1] == 1
        admitted = (
            [Loss.MSE] if w.labels is Labels.REAL else [o for o in Loss if not (few and o.class_labels)]
        )
        loss = draw(st.sampled_from(admitted))
    kinds = [Labels.ONE_HOT, Labels.KNOWN] + ([Labels.REAL] if loss is Loss.MSE else [])
    labels = draw(st.sampled_from(kinds)) if w.labels is None else w.labels
    sizes = w.widths
    if sizes is None:
        depth = draw(st.integers(1, 2))
        hidden = [draw(st.integers(1, 5)) for _ in range(depth + 1)]
        sizes = (*hidden, draw(st.integers(2 if loss.class_labels else 1, 3)))
    network = draw(networks(widths=sizes, biases=w.biases, generic=w.generic, numbers=w.numbers))
    count = draw(st.integers(*w.samples))
    batch = draw(batches(network, loss, samples=count, generic=w.generic, labels=labels, numbers=w.numbers))
    if w.domain is not None:
        lo, hi = w.domain.bounds(sizes[0])
        inside = np.clip(batch.inputs, lo, hi)
        batch = Batch.of(inside, batch.labels, network=network, loss=loss, labels=labels)
    reduction = draw(REDUCTIONS) if w.reduction is None else w.reduction
    return Instance(
        network=network,
        batch=batch,
        question=Question(loss=loss, reduction=reduction, labels=labels, domain=w.domain),
    )


def exclusivity_states(**options: Any) -> st.SearchStrategy[ExclusivityState]:
    """Exclusivity states that a batch can have: of what :func:`questions` draws with these ``options``."""
    return questions(**options).map(lambda q: exclusivity(q.network, q.batch, loss=q.loss))


FORMS = ("float64", "float32", "exact")
"""How a drawn gradient is stored."""


def gradients(
    question: Instance, *, form: str = "float64", noise: float = 0.0
) -> st.SearchStrategy[Gradient]:
    """Gradients of the question's batch: ``exact`` (Fractions; mse and hinge), or each entry the nearest
    float64 or float32; ``noise``: every entry is moved by at most so much.

    Raises :class:`InputError` for another form, an exact gradient of another loss, or a negative noise.
    """
    if form not in FORMS:
        raise InputError(unknown("form", form, FORMS))
    if form == "exact" and not question.loss.rational:
        raise InputError(f"form='exact': gradients of {question.loss.value} are irrational; take float64")
    if not 0 <= noise < float("inf") or (noise and form == "exact"):
        raise InputError(f"noise={noise!r} cannot be used; give a number of at least 0, and a form of floats")
    return _gradients(question, form, noise)


@st.composite
def _gradients(draw: st.DrawFn, question: Instance, form: str, noise: float) -> Gradient:
    network, batch = question.network, question.batch
    if form == "exact":
        return gradient(network, batch, question.loss, question.reduction)
    tensors = {name: array.astype(form) for name, array in question.rounded_gradient().items()}
    if noise:
        for name, array in tensors.items():
            steps = draw(st.lists(st.integers(-8, 8), min_size=array.size, max_size=array.size))
            moved = array + noise * np.array(steps).reshape(array.shape) / 8
            tensors[name] = moved.astype(form)
    return Gradient(tensors=tensors)
