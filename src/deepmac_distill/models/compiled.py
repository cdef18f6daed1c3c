"""A backbone that torch compiles: the part of a model whose inputs keep their shapes, and most of its time.

Heads see other numbers of boxes in every pass; compiled, they would be compiled again and again.
"""

from __future__ import annotations

import torch
from torch import nn

from deepmac_distill.errors import ConfigError

BACKEND = "inductor"


def compile_backbone(model: nn.Module, backend: str = BACKEND) -> int:
    """Have the backbone compiled when it is first called; returns how many there are.

    Tensors keep their names. Numbers are those of the plain path but for rounding: operations are fused.
    """
    backbones = [part for name, part in model.named_modules() if name.rpartition(".")[2] == "backbone"]
    for backbone in backbones:
        backbone.compile(backend=backend, dynamic=False)
    return len(backbones)


def require_compiler(device: torch.device, key: str) -> None:
    """Refuse to compile where that fails, as without a C++ compiler: a small function is compiled.

    Args:
        key: that asks for it.

    Raises:
        ConfigError: states why.
    """
    try:
        torch.compile(lambda x: torch.relu(x) + 1, backend=BACKEND)(torch.zeros(8, device=device))
    except Exception as error:  # of dynamo, of its backends and of what they call: they have none in common
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ConfigError(
            f"{key}: got true, but torch cannot compile here ({reason}); expected false, or a C++ compiler "
            "such as g++, and triton for a GPU"
        ) from error
