"""A first layer that sees a public projection of the inputs only: W_1 is stored as V B^T, and B is fixed.

Then everything that a client sends, over any number of rounds and whatever weights the server returns, is a
function of B^T x and the labels (docs/theory.md section 9, M1). Projecting the weights instead does not work:
a projector P on stored floats never satisfies W P = W exactly, and what rounding leaves is sent as well.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from exan_verify.core.arrays import exact_array
from exan_verify.errors import InputError, ShapeError, UnsupportedLayerError

if TYPE_CHECKING:
    from exan_verify.core.network import Array


class ProjectedLinear(nn.Module):
    """A Linear layer V on B^T x: parameters ``weight`` V (n, r) and ``bias``, buffer ``basis`` B (d, r)."""

    basis: torch.Tensor

    def __init__(self, basis: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.register_buffer("basis", basis)
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits or pre-activations (M, n) of inputs (M, d)."""
        return nn.functional.linear(nn.functional.linear(x, self.basis.T), self.weight, self.bias)


def project_inputs(model: Any, basis: Any) -> nn.Module:
    """A copy of ``model`` whose first layer is V (B^T x): V is trained and sent, B never changes.

    ``model``: a ``torch.nn.Module`` of Linear and ReLU layers with d inputs. ``basis``: B (d, r) with
    1 <= r < d, public, chosen without looking at the data that it protects; it need not be orthonormal. V
    begins as W_1 B, so that for orthonormal B the new model computes the old one on B B^T x. The parameters
    keep their names. Whoever holds the gradient of V, of all other layers, and everything sent before, learns
    of x at most B^T x: at least d - r directions of every input stay hidden.

    Raises :class:`ShapeError` where the basis does not fit, and what ``to_network`` raises.
    """
    from exan_verify.models.chain import to_network, unwrap

    module, _ = unwrap(model)
    if not isinstance(module, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; pass a torch.nn.Module")
    first = to_network(module).layers[0]
    if first.fold is not None:
        raise UnsupportedLayerError(
            f"constants of the model stand beside its first layer {first.name!r}, which would see a "
            "projection of other inputs; apply them to the data instead, and remove them from the model"
        )
    columns = checked_basis(basis, first.shape[1])
    changed = copy.deepcopy(module)
    layer = changed.get_submodule(first.name)
    if not isinstance(layer, nn.Linear):
        raise UnsupportedLayerError(f"the first layer of {type(model).__name__} is projected already")
    kept = torch.tensor(columns, dtype=torch.float64).to(layer.weight.dtype)
    if not torch.equal(kept.double(), torch.tensor(columns, dtype=torch.float64)):
        raise InputError(
            f"the basis has entries that {layer.weight.dtype} cannot hold, so that the layer would see "
            "another projection than was chosen; round it first, for example numpy.round(B * 4096) / 4096"
        )
    weight = (layer.weight.detach().double() @ kept.double()).to(layer.weight.dtype)
    bias = None if layer.bias is None else layer.bias.detach().clone()
    projected = ProjectedLinear(kept.to(layer.weight.device), weight, bias)
    if not first.name:
        return projected
    parent, _, name = first.name.rpartition(".")
    setattr(changed.get_submodule(parent), name, projected)
    return changed


def basis_of(model: Any) -> Array | None:
    """B (d, r) of a module that :func:`project_inputs` made, wrapped or not; None of any other model."""
    from exan_verify.models.chain import unwrap

    module, _ = unwrap(model)
    if not isinstance(module, nn.Module):
        return None
    for layer in module.modules():
        if type(layer) is ProjectedLinear:
            return exact_array(layer.basis, "basis")
    return None


def checked_basis(basis: Any, features: int) -> Array:
    """B (d, r) in float64. Raises :class:`ShapeError` unless d is ``features`` and 1 <= r < d."""
    columns = np.asarray(exact_array(basis, "basis"), dtype=np.float64)
    if columns.ndim != 2 or columns.shape[0] != features or not 1 <= columns.shape[1] < features:
        raise ShapeError(
            f"basis has shape {columns.shape}; give B of shape ({features}, r), one column per direction "
            f"that is sent, with r from 1 to {features - 1}"
        )
    return columns
