"""Which device does the work, with how many threads, and what machine it is."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from deepmac_distill import __version__
from deepmac_distill.errors import ConfigError, DeviceError
from deepmac_distill.torchrun import ALONE, Place

_GROUP = "/sys/fs/cgroup/memory"


def pick_device(name: str, place: Place = ALONE) -> torch.device:
    """The device called `name`: auto, cpu, cuda, cuda:N or mps.

    `auto` takes the first NVIDIA GPU, else the CPU. The tests run on the CPU under Linux; nothing tests
    `mps` (Apple's GPUs), so only its name selects it. Of several processes each has a GPU of its own, the one
    that has its number on this machine.

    Raises:
        ConfigError: no such name.
        DeviceError: a GPU was asked for and is not there.
    """
    if place.world > 1 and (name.startswith(("cuda:", "mps"))):
        raise ConfigError(f"device: got {name} for {place.world} processes, expected auto, cpu or cuda")
    if place.world > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        name = f"cuda:{place.local_rank}"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = re.fullmatch(r"(cpu|mps|cuda)(?:(?<=cuda):([0-9]+))?", name)
    if found is None:
        raise ConfigError(f"device: got {name!r}, expected auto, cpu, cuda, cuda:N or mps")
    kind, number = found.group(1), found.group(2)
    # Compared as integers first: torch takes no number that does not fit into a byte.
    if kind == "cuda" and int(number or 0) >= (gpus := torch.cuda.device_count()):
        raise DeviceError(f"device: got {name}, but torch sees {gpus} GPUs; expected cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device: got mps, but torch sees no Apple GPU; expected cpu or auto")
    return torch.device(kind if number is None else f"{kind}:{int(number)}")


def use_threads(threads: int) -> None:
    """Fix torch's CPU threads; 0 leaves torch's choice. The same number gives the same bits."""
    if threads:
        torch.set_num_threads(threads)


def autocast_allowed(device: torch.device, choice: str) -> bool:
    """Whether to compute in bfloat16: on an NVIDIA GPU that has it, unless `choice` is "off".

    A CPU computes in float32, since bfloat16 is slower there. So does `mps`, where bfloat16 is not tested.
    """
    return (
        choice == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )


def training_dtype(device: torch.device, choice: str) -> torch.dtype | None:
    """In what a training computes its passes; None: float32, as on CPUs and where `choice` is "off".

    That is bfloat16 where `autocast_allowed`, and float16 on an NVIDIA GPU that lacks it (V100, T4).
    """
    if choice != "auto" or device.type != "cuda":
        return None
    return torch.bfloat16 if autocast_allowed(device, choice) else torch.float16


def wait_for(device: torch.device) -> None:
    """Return when the device has done all the work it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_bytes(device: torch.device) -> int | None:
    """Memory in bytes that a program could still take on `device`; None where the system reports none.

    An Apple GPU (`mps`) shares the memory of the CPU.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = [free for free in (_of_the_machine(), _of_the_container(), _of_the_process()) if free is not None]
    return min(known, default=None)


def _of_the_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(kibibytes[0]) if kibibytes else None


def _of_the_container() -> int | None:
    """What a control group (version 2) leaves: a container's machine seems to have all memory."""
    try:
        most, used = (
            Path(f"{_GROUP}.{name}").read_text(encoding="ascii").strip() for name in ("max", "current")
        )
    except OSError:
        return None
    return max(int(most) - int(used), 0) if most.isdecimal() and used.isdecimal() else None


def _of_the_process() -> int | None:
    """What a limit of the shell (ulimit -v) leaves."""
    try:
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return None if limit == resource.RLIM_INFINITY else max(limit - pages * resource.getpagesize(), 0)
    except (ImportError, OSError):
        return None


def environment() -> dict[str, Any]:
    """Versions and hardware, for whoever compares figures."""
    names = ("torch", "torchvision", "numpy", "pyarrow", "pycocotools", "hotcoco", "timm")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {"deepmac-distill": __version__} | {name: _version(name) for name in names},
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
