"""Saved activations: what a forward pass leaves for its backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def saved_activations(model: nn.Module) -> Iterator[dict[int, int]]:
    """What a forward inside leaves for the backward, parameters not among it: storage -> bytes.

    Works on the meta device too. Several tensors may share a storage, which counts once.
    """
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved
