from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from deepmac_distill.training.ema import averaged
from deepmac_distill.training.loop import make_optimizer
from deepmac_distill.training.metrics_log import MetricsLog
from deepmac_distill.training.schedule import make_schedule


def test_a_warm_up_is_linear_and_loses_no_step() -> None:
    factor = make_schedule("constant", steps=10, warmup_steps=4)
    assert [factor(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_cosine_falls_from_one_to_zero_over_the_steps_after_the_warm_up() -> None:
    factor = make_schedule("cosine", steps=8, warmup_steps=2)
    expected = [0.5 * (1 + math.cos(math.pi * k / 6)) for k in range(6)]
    assert [factor(step) for step in range(2, 8)] == pytest.approx(expected)
    assert factor(5) == pytest.approx(0.5) and factor(8) == factor(99) == pytest.approx(0)


def test_steps_divide_by_ten_at_each_decay_step() -> None:
    factor = make_schedule("steps", steps=9, warmup_steps=0, decay_steps=[3, 6])
    assert [factor(step) for step in (0, 2, 3, 5, 6, 8)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("kind", ["cosine", "steps", "constant"])
def test_a_run_of_warm_up_alone_ends(kind: str) -> None:
    factor = make_schedule(kind, steps=3, warmup_steps=3, decay_steps=[2])
    assert [factor(step) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_the_average_starts_at_the_first_weights_and_follows_more_slowly_with_every_update() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = averaged(model, decay=0.25)
    expected = None
    for update, weight in enumerate([1.0, 2.0, 4.0, 8.0]):
        model.weight.data.fill_(weight)
        average.update_parameters(model)
        # TensorFlow's rule: min(decay, (1 + n) / (10 + n)) = 2/11, 3/12, then the decay itself
        decay = {0: 0.0, 1: 2 / 11, 2: 0.25, 3: 0.25}[update]
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
        assert average.module.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 8


def test_batch_norm_statistics_are_averaged_too() -> None:
    model = nn.BatchNorm1d(1)
    average = averaged(model, decay=0.5)
    for mean in (1.0, 3.0):
        model.running_mean.fill_(mean)
        average.update_parameters(model)
    assert average.module.running_mean.item() == pytest.approx(2 / 11 * 1 + 9 / 11 * 3)


def test_a_log_that_goes_on_says_no_step_twice_and_forgives_a_line_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, 0) as log:
        for step in range(4):
            log.write(step, lr=0.5, mask=step / 2)
    with path.open("a") as file:
        file.write('{"step": 4, "lr')  # killed while writing
    with MetricsLog(path, 2) as log:
        log.write(2, lr=0.25, mask=9.0)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["step"], r["lr"], r["mask"]) for r in records] == [(0, 0.5, 0), (1, 0.5, 0.5), (2, 0.25, 9)]


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl", 0) as log:
        log.write(0, loss=1.0)
        assert (tmp_path / "m.jsonl").read_text() == '{"step": 0, "loss": 1.0}\n'


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = nn.Linear(2, 1)


def test_weights_decay_but_biases_do_not_and_a_named_part_has_a_rate_of_its_own() -> None:
    model = Net()
    optimizer = make_optimizer(
        model, "adamw", lr=0.1, weight_decay=0.5, slow=model.backbone.parameters(), slow_factor=0.25
    )
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        id(model.backbone.weight): (0.025, 0.5),
        id(model.backbone.bias): (0.025, 0.0),
        id(model.head.weight): (0.1, 0.5),
        id(model.head.bias): (0.1, 0.0),
    }
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.025, 0.025, 0.1, 0.1]


@pytest.mark.parametrize(
    ("kind", "cls"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_every_optimizer_is_torchs_own(kind: str, cls: type) -> None:
    optimizer = make_optimizer(Net(), kind, lr=0.1, momentum=0.5)
    assert type(optimizer) is cls
    assert optimizer.param_groups[0].get("momentum", 0.5) == 0.5
