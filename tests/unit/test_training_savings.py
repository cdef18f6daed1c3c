"""Ways to train in less memory or time, each held to the plain one: recomputing, half floats."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ranks as benchmark
from deepmac_distill.config import MaskRcnnConfig
from deepmac_distill.errors import DivergedError
from deepmac_distill.models.build import build_model
from deepmac_distill.models.compiled import compile_backbone
from deepmac_distill.models.recompute import recompute_blocks
from deepmac_distill.progress import Silent
from deepmac_distill.ranks import ONE
from deepmac_distill.structures import Batch
from deepmac_distill.training.loop import LoopSettings, make_optimizer, train
from deepmac_distill.training.schedule import make_schedule

CPU = torch.device("cpu")
SMALL_RCNN = MaskRcnnConfig(backbone="tiny", backbone_width=8, fpn_channels=8, box_channels=16)


def passes(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients and buffers after three passes, of which one has no mask."""
    for number in (0, 1, 3):
        torch.stack(list(model(benchmark.whole_batch(number)).values())).sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None], list(model.buffers())


@pytest.mark.parametrize(
    ("backbone", "head"), [("tiny", "hourglass-20"), ("tiny", "resnet-8"), ("resnet18", "bottleneck-6")]
)
def test_recomputed_blocks_give_the_same_bits(backbone: str, head: str) -> None:
    torch.manual_seed(0)
    config = replace(benchmark.MODEL, backbone=backbone, mask_head=head)
    plain = build_model(config, benchmark.CLASSES, load_weights=False).train()
    again = copy.deepcopy(plain)
    assert recompute_blocks(again) > 2 and list(again.state_dict()) == list(plain.state_dict())
    again = copy.deepcopy(again)  # as averaged weights are
    for ours, theirs in zip(passes(again), passes(plain), strict=True):
        assert len(ours) == len(theirs) > 0
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
@pytest.mark.parametrize("kind", ["deepmac", "mask_rcnn"])
def test_a_compiled_backbone_gives_the_same_numbers(kind: str) -> None:
    """As torch's compiler sees it, without the minute in which C++ is made of it: forward and backward."""
    torch.manual_seed(0)
    config = benchmark.MODEL if kind == "deepmac" else replace(SMALL_RCNN, anchor_sizes=(8, 16, 32, 64))
    plain = build_model(config, benchmark.CLASSES, load_weights=False).train()
    compiled = copy.deepcopy(plain)
    assert compile_backbone(compiled, backend="aot_eager") == 1
    assert list(compiled.state_dict()) == list(plain.state_dict())
    found = []
    for model in (compiled, plain):
        torch.manual_seed(1)
        losses = model(benchmark.whole_batch(0))
        torch.stack(list(losses.values())).sum().backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([*losses.values(), *grads, *model.buffers()])
    assert len(found[0]) == len(found[1])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*found, strict=True))


def test_compiling_is_refused_in_one_line_where_it_cannot_be(
    deepmac: Any, scenes_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nin torch._inductor.config.cpp.cxx")

    monkeypatch.setattr(torch, "compile", fails)
    given = [
        "teach",
        "--config",
        scenes_toml,
        "--out",
        tmp_path / "run",
        "--set",
        "teacher.train.compile=true",
    ]
    for more, line in (
        (
            [],
            "teacher.train.compile: got true, but torch cannot compile here (No working C++ compiler found);",
        ),
        (["--set", "teacher.train.recompute=true"], "teacher.train.compile: got True, expected false beside"),
        (["--set", "teacher.train.compile=1"], "teacher.train.compile: "),
    ):
        ended = deepmac(*given, *more)
        assert ended.code == 2 and "Traceback" not in ended.err
        assert line in ended.err.splitlines()[-1], ended.err
    assert not (tmp_path / "run" / "teacher.part").exists()


def test_recomputing_keeps_less() -> None:
    kept = []
    for recomputes in (False, True):
        torch.manual_seed(0)
        model = build_model(benchmark.MODEL, benchmark.CLASSES, load_weights=False).train()
        if recomputes:
            recompute_blocks(model)
        saved: dict[int, int] = {}

        def keep(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(benchmark.whole_batch(0))
        kept.append(sum(saved.values()))
    assert kept[1] < 0.8 * kept[0]


def trained(model: nn.Module, folder: Path, steps: int, lr: float, **changed: Any) -> list[dict[str, float]]:
    """Lines of the log."""
    folder.mkdir(exist_ok=True)
    plain = {"gradient_accumulation_steps": 1, "max_grad_norm": 0.0, "ema_decay": 0.5, "checkpoint_every": 4}
    settings = LoopSettings(steps=steps, log_every=1, **{**plain, **changed})
    optimizer, schedule = make_optimizer(model, "sgd", lr, momentum=0.0), make_schedule("constant", steps, 0)
    batches = lambda first: benchmark.batches(first, ONE)  # noqa: E731
    train(model, batches, optimizer, schedule, settings, CPU, folder, Silent())
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def small() -> nn.Module:
    torch.manual_seed(0)
    return build_model(benchmark.MODEL, benchmark.CLASSES, load_weights=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_in_half_floats_are_those_of_float32_but_for_rounding(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    plain = trained(small(), tmp_path / "plain", 6, lr=1e-4)
    half = trained(small(), tmp_path / "half", 6, lr=1e-4, autocast=dtype)
    for ours, theirs in zip(half, plain, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("mask", "center", "size", "offset"):
            assert ours.get(name, 0) == pytest.approx(theirs.get(name, 0), rel=0.05, abs=0.01)
    assert any(line["grad_norm"] > 0 for line in half)  # not every step was skipped


def test_the_scale_of_losses_is_part_of_the_state_and_a_state_without_one_goes_on(tmp_path: Path) -> None:
    trained(small(), tmp_path, 4, lr=1e-4, autocast=torch.float16)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["parts"]["scaler"]["scale"] > 0
    trained(small(), tmp_path, 8, lr=1e-4)  # on a device that scales nothing
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 8
    assert trained(small(), tmp_path, 9, lr=1e-4, autocast=torch.float16)[-1]["step"] == 8


class Steep(nn.Module):
    """A weight with a gradient that overflows where the loss is scaled up by more than 2^11."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.weight, self.slope = nn.Parameter(torch.ones(())), slope

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"mask": self.weight * self.slope}


def test_steps_that_overflow_are_skipped_until_the_scale_fits(tmp_path: Path) -> None:
    model = Steep(1e35)
    norms = [line["grad_norm"] for line in trained(model, tmp_path, 8, lr=1e-36, autocast=torch.float16)]
    assert norms[:5] == [0.0] * 5 and norms[5:] == pytest.approx([1e35] * 3)
    assert model.weight.item() == pytest.approx(1 - 3 * 0.1)


def test_a_gradient_that_overflows_at_every_scale_stops_the_training(tmp_path: Path) -> None:
    class Root(Steep):
        def forward(self, batch: Batch) -> dict[str, Tensor]:
            return {"mask": (self.weight - self.weight.detach()).sqrt()}

    with pytest.raises(DivergedError, match=r"step 26: gradient is not finite in float16 at a loss scale"):
        trained(Root(1.0), tmp_path, 40, lr=1.0, autocast=torch.float16)
