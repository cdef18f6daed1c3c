"""Devices: which names are devices, what each computes in, and how a missing one is refused."""

from __future__ import annotations

import pytest
import torch

from deepmac_distill import __version__
from deepmac_distill.devices import autocast_allowed, environment, pick_device, wait_for
from deepmac_distill.errors import ConfigError, DeviceError
from deepmac_distill.forecast.cost import MARGINS


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two NVIDIA GPUs and an Apple one."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("auto", "cuda"),
        ("cpu", "cpu"),
        ("cuda", "cuda"),
        ("cuda:1", "cuda:1"),
        ("cuda:01", "cuda:1"),
        ("mps", "mps"),
    ],
)
def test_a_device_has_its_name(name: str, device: str) -> None:
    assert pick_device(name) == torch.device(device)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_work_is_waited_for_where_it_is_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waits.append("cuda"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waits.append("mps"))
    wait_for(pick_device(name))
    assert waits == ([] if name == "cpu" else [name])


def test_forecast_has_a_margin_for_every_kind_of_device() -> None:
    assert MARGINS.keys() == {"cpu", "cuda", "mps"}


@pytest.mark.usefixtures("no_gpus")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.usefixtures("no_gpus")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:99999999999", "mps"])
def test_a_missing_gpu_is_refused_on_one_line(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device: got {name}, but torch sees .*; expected cpu or auto$"):
        pick_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cpu:0", "mps:0", "cuda:", "cuda:-1", "cuda:²", "cuda:0\n"])
def test_no_other_name_is_a_device(name: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda, cuda:N or mps"):
        pick_device(name)


@pytest.mark.usefixtures("gpus")
def test_only_an_nvidia_gpu_computes_in_bfloat16() -> None:
    allowed = {name: autocast_allowed(torch.device(name), "auto") for name in ("cpu", "cuda", "mps")}
    assert allowed == {"cpu": False, "cuda": True, "mps": False}
    assert not autocast_allowed(torch.device("cuda"), "off")


def test_the_environment_names_the_version_that_runs() -> None:
    assert environment()["packages"]["deepmac-distill"] == __version__
