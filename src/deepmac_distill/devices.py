"""Which device does the work, with how many threads, and what machine it is."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from deepmac_distill.errors import ConfigError, DeviceError


def pick_device(name: str) -> torch.device:
    """The device called `name`: auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises:
        ConfigError: no such name.
        DeviceError: a GPU was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device: got {name!r}, expected auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device: got {name}, but torch sees {torch.cuda.device_count()} GPUs; expected cpu or auto"
        )
    return device


def use_threads(threads: int) -> None:
    """Fix torch's CPU threads; 0 leaves torch's choice. The same number gives the same bits."""
    if threads:
        torch.set_num_threads(threads)


def autocast_allowed(device: torch.device, choice: str) -> bool:
    """bfloat16 where it is faster: on GPUs that have it, unless switched off. On CPUs it is slower."""
    return (
        choice == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that a program could still take there; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(kibibytes[0]) if kibibytes else None


def environment() -> dict[str, Any]:
    """Versions and hardware, for whoever compares figures."""
    names = ("deepmac-distill", "torch", "torchvision", "numpy", "pyarrow", "pycocotools", "hotcoco", "timm")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: _version(name) for name in names},
    }


def _processor() -> str:
    """The processor's own name where the system reports it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
