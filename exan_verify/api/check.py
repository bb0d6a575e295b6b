"""``check``: reads the model and the batch or gradient, and the kernel derives the claim again."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from exan_verify.api.certify import exact_network
from exan_verify.api.instances import taking_instances
from exan_verify.api.releases import network_seen_through
from exan_verify.core.arrays import Array, exact_array
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Claim, most_bytes, parse
from exan_verify.core.network import Batch, Gradient, Network
from exan_verify.core.question import Labels, Loss
from exan_verify.core.staged import StagedNetwork
from exan_verify.errors import CertificateRejected, InputError, ShapeError
from exan_verify.kernel import checker
from exan_verify.kernel.timed import checked_within
from exan_verify.models.gradients import NORMALISED_WHOLE, of_folded, received

_ABOUT_A_BATCH = 64
"""How much longer than for the model alone a certificate is read for its release, which holds a basis."""


@taking_instances
def check(
    certificate: Mapping[str, Any] | str | bytes,
    model: Any,
    *,
    batch: tuple[Any, Any] | Batch | None = None,
    gradient: Mapping[str, Any] | Gradient | None = None,
    budget: float | None = None,
) -> Claim:
    """Check a certificate against the model and the batch or gradient it was made for.

    ``model``, ``batch`` and ``gradient`` are as for :func:`exan_verify.certify`. Returns the claim that was
    re-derived; it is equal to the certificate's own. ``budget``: seconds, kept whatever is computed (in a
    process of its own); when they run out, the certificate is neither accepted nor rejected.

    Raises :class:`CertificateRejected` with the first step that fails, and
    :class:`exan_verify.errors.InputError` when the inputs themselves are malformed. Nothing else: what a
    certificate says is bounded before it is used (docs/theory.md, 6.1a). With a budget also
    :class:`exan_verify.errors.BudgetExhausted`.
    """
    limit = Budget(seconds=budget)
    network = exact_network(model, batch)
    if (
        isinstance(network, Network)
        and isinstance(batch, (Batch, tuple, list))
        and len(pair := _pair(batch)) == 2
    ):
        network = _seen_through(network, certificate, pair[0], model)
    given = _given(network, model, batch, gradient)
    left = limit.seconds_left
    if left is None:
        return checker.check(certificate, network, given)
    return checked_within(left, certificate, network, given)


def _seen_through(
    network: Network, certificate: Mapping[str, Any] | str | bytes, x: Any, model: Any
) -> Network:
    """The network on inputs ``x`` that it does not take as it is, where the certificate's release has a basis
    that its first layer V sees them through; what the certificate is worth is not looked at here.
    """
    try:
        features = prod(np.shape(x)[1:])
    except (TypeError, ValueError):
        return network  # no array: said where it is read
    if features == network.widths[0]:
        return network
    longest = _ABOUT_A_BATCH * most_bytes(sum(array.size for _, array in network.parameters()))
    try:
        release = parse(certificate, longest=longest).claim.question.asked().release
    except CertificateRejected:
        return network  # the kernel says why
    if release is None or release.input_basis is None or len(release.input_basis) != features:
        return network  # what is made of the basis is no larger than the caller's own x allows
    try:
        return network_seen_through(network, release, model)
    except InputError:
        raise CertificateRejected(
            "the certificate's release has another input basis than the model"
        ) from None


def _pair(batch: tuple[Any, Any] | list[Any] | Batch) -> tuple[Any, ...]:
    return (batch.inputs, batch.labels) if isinstance(batch, Batch) else tuple(batch)


def _given(
    network: Network | StagedNetwork,
    model: Any,
    batch: tuple[Any, Any] | Batch | None,
    gradient: Mapping[str, Any] | Gradient | None,
) -> tuple[Array, Array] | Gradient:
    """The caller's numbers, read before anything of the certificate is."""
    if (batch is None) == (gradient is None):
        raise InputError(
            "give either batch=(x, y) or gradient={name: tensor}, as the certificate was made for"
        )
    if gradient is not None:
        if isinstance(network, StagedNetwork):
            raise InputError(
                "certificates about networks with convolutions are for batches; give batch=(x, y)"
            )
        if network.normalised:
            raise InputError(NORMALISED_WHOLE)
        found = received(gradient, model)
        found.for_network(network)
        return of_folded(found, network, exact=True)
    if isinstance(batch, Batch):
        return batch.inputs, batch.labels
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise InputError("batch is not a pair; give batch=(x, y)")
    x, y = (exact_array(values, name) for values, name in zip(batch, ("x", "y"), strict=True))
    # what is wrong with x is the caller's; whether y fits depends on the loss that the certificate names
    some = Batch.of(x, np.zeros(x.shape[:1]), network=network, loss=Loss.HINGE, labels=Labels.ONE_HOT)
    if y.shape[:1] != (some.size,):
        raise ShapeError(f"y has shape {y.shape} but x has {some.size} samples; give one label per sample")
    return x, y
