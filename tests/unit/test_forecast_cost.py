"""What training takes: counts against real optimizers, rates against a law that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deepmac_distill.forecast.cost import (
    LIBRARIES_BYTES,
    Load,
    Pass,
    measure_pass,
    rates_of,
    sample_batch,
    training_bytes,
)
from deepmac_distill.structures import Batch
from deepmac_distill.training.ema import averaged
from deepmac_distill.training.loop import make_optimizer
from deepmac_distill.training.state_bytes import StateBytes, state_bytes

CPU = torch.device("cpu")


class Net(nn.Module):
    """A convolution that keeps its input, a batch norm that keeps its own, a square that keeps its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"mask": self.body(batch.images / 255).square().mean()}


def tensor_bytes(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize(("kind", "momentum"), [("adamw", 0.9), ("adam", 0.9), ("sgd", 0.9), ("sgd", 0.0)])
def test_the_state_is_counted_as_a_real_training_has_it(kind: str, momentum: float) -> None:
    with torch.device("meta"):
        counted = state_bytes(Net(), kind, momentum, averaged=True)
    model = Net()
    optimizer, average = make_optimizer(model, kind, 0.1, momentum=momentum), averaged(model, 0.9)
    model(sample_batch(1, 8, 1, 2))["mask"].backward()
    optimizer.step()
    moments = [
        value
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step" and value is not None
    ]
    assert counted.weights == tensor_bytes(model.state_dict().values())
    assert counted.gradients == tensor_bytes(p.grad for p in model.parameters())
    assert counted.optimizer == tensor_bytes(moments)
    assert counted.average == tensor_bytes(average.module.state_dict().values())
    assert counted.resumable == counted.total - counted.gradients
    assert state_bytes(model, kind, momentum, averaged=False).average == 0


def test_a_saved_state_is_as_large_as_counted(tmp_path: Path) -> None:
    model = nn.Conv2d(64, 64, 3)
    optimizer = make_optimizer(model, "adam", 0.1)
    model(torch.rand(1, 64, 8, 8)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    counted = state_bytes(model, "adam", 0.0, averaged=False).resumable
    assert 0 <= (tmp_path / "state.pt").stat().st_size - counted < 8192  # names and the like


def test_a_pass_keeps_what_its_layers_keep() -> None:
    """By hand, in float32: the scaled images, the convolution's result and the batch norm's, once each."""
    model = Net().train()
    small, wide = (measure_pass(model, sample_batch(2, px, 3, 4), CPU, None) for px in (16, 32))
    assert small.load == Load(images=2, size_px=16, masks=6)
    maps = 4 * (3 + 5 + 5)
    rest = small.saved_bytes - maps * 2 * 16**2
    assert 0 <= rest < 200  # the statistics of five channels
    assert wide.saved_bytes - small.saved_bytes == maps * 2 * (32**2 - 16**2)
    assert small.seconds > 0 and all(p.grad is None for p in model.parameters())


def law(load: Load) -> Pass:
    """10 bytes and 7 an image, 3 a pixel, 100 a mask; a second a thousand pixels and two a mask."""
    kept = 10 + 7 * load.images + 3 * load.pixels + 100 * load.masks
    return Pass(load=load, saved_bytes=kept, seconds=load.pixels / 1000 + 2 * load.masks)


def test_rates_find_the_law_that_passes_follow() -> None:
    small = Load(images=2, size_px=16, masks=2)
    loads = (small, replace(small, masks=9), replace(small, images=4, masks=4), replace(small, size_px=64))
    rates = rates_of(*map(law, loads))
    real = Load(images=16, size_px=1024, masks=130)
    assert rates.saved_bytes(real) == pytest.approx(law(real).saved_bytes)
    assert rates.seconds(real) == pytest.approx(law(real).seconds)


def test_without_a_larger_canvas_an_image_is_its_pixels() -> None:
    small = Load(images=2, size_px=16, masks=2)
    passes = [law(load) for load in (small, replace(small, masks=9), replace(small, images=4, masks=4))]
    rates = rates_of(*passes, largest=passes[0])
    assert rates.bytes_per_image == 0 and rates.bytes_per_pixel == pytest.approx(3 + 7 / 16**2)


def test_noise_in_time_never_makes_a_pass_cost_nothing() -> None:
    small = Load(images=2, size_px=16, masks=2)
    passes = [law(load) for load in (small, replace(small, masks=9), replace(small, images=4, masks=4))]
    for seconds in (0.0, 1e6):  # more masks: faster than before, or dearer than everything
        noisy = replace(passes[1], seconds=seconds)
        rates = rates_of(passes[0], noisy, passes[2], passes[0])
        assert rates.seconds_per_pixel > 0 and rates.seconds_per_mask >= 0


def test_training_is_the_state_and_the_pass_with_its_margin() -> None:
    small = Load(images=2, size_px=16, masks=2)
    loads = (small, replace(small, masks=9), replace(small, images=4, masks=4), replace(small, size_px=64))
    rates = rates_of(*map(law, loads))
    state = StateBytes(weights=1, gradients=2, optimizer=3, average=4)
    expected = 10 + 2.5 * law(small).saved_bytes + LIBRARIES_BYTES
    assert training_bytes(state, rates, small, margin=2.5) == pytest.approx(expected)
