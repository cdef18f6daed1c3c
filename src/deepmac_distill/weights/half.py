"""Weights files of half the size: kernels in half precision, everything else as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deepmac_distill.errors import CheckpointError
from deepmac_distill.weights.card import read_card, read_state, save_weights


def write_half(weights: Path, out: Path, about: str) -> None:
    """Write a weights file of ours again with kernels in half precision; loading makes them float32.

    The bytes depend on the weights, their card and `about` alone.

    Args:
        about: what the card's reader should know, in a line.

    Raises:
        CheckpointError: not weights of ours, or a kernel has no finite value in half precision.
    """
    state = _halved(read_state(weights), str(weights))
    save_weights(out, state, replace(read_card(weights), about=about))


def _halved(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors of two or more dimensions in half precision.

    Vectors stay: they are a hundredth of the bytes, and the variances of batch norms, which divide, can be
    below the smallest normal number of half precision (6e-5).
    """
    halved = dict(state)
    for name, tensor in state.items():
        if tensor.dtype == torch.float32 and tensor.ndim > 1:
            halved[name] = tensor.half()
            if not halved[name].isfinite().all():
                largest = tensor.abs().max().item()
                raise CheckpointError(
                    f"{where}: weight {name}: got {largest:.3g}, expected finite values of at most 65504"
                )
    return halved
