from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepmac_distill.config import RoleConfig
from deepmac_distill.config.training import TrainConfig
from deepmac_distill.errors import DivergedError
from deepmac_distill.progress import Silent
from deepmac_distill.stages.lesson_batches import log_every
from deepmac_distill.stopping import SIGNALS, Stopped
from deepmac_distill.structures import Batch, Instances
from deepmac_distill.training.checkpoint import DamagedState
from deepmac_distill.training.loop import LoopSettings, make_optimizer, train
from deepmac_distill.training.schedule import make_schedule

CPU = torch.device("cpu")


def batch(number: int, size: int = 4) -> Batch:
    """Random pixels, the same for the same number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, 3, 4, 4), dtype=np.uint8)
    return Batch(
        images=torch.from_numpy(pixels),
        image_sizes=torch.full((size, 2), 4),
        image_ids=tuple(range(size)),
        instances=Instances.empty(2),
    )


def batches_from(first: int) -> Iterator[Batch]:
    number = first
    while True:
        yield batch(number)
        number += 1


def stopping_at(stop: int) -> Callable[[int], Iterator[Batch]]:
    def batches(first: int) -> Iterator[Batch]:
        for number in range(first, stop):
            yield batch(number)
        raise KeyboardInterrupt

    return batches


class Net(nn.Module):
    """Everything a resume could lose: weights, running statistics, random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 2))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        out = self.body(batch.images / 255)
        return {"mask": out.square().mean(), "center": (out - 1).abs().mean()}


def settings(**changed: Any) -> LoopSettings:
    plain = {
        "steps": 12,
        "gradient_accumulation_steps": 1,
        "max_grad_norm": 0.0,
        "ema_decay": 0.0,
        "checkpoint_every": 5,
    }
    return LoopSettings(**{**plain, "autocast": None, **changed})


def fit(
    folder: Path,
    model: nn.Module | None = None,
    batches: Callable[[int], Iterator[Batch]] = batches_from,
    optimizer: str = "adamw",
    **changed: Any,
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = model or Net()
    return train(
        model,
        batches,
        make_optimizer(model, optimizer, lr=0.05),
        make_schedule("cosine", changed.get("steps", 12), warmup_steps=2),
        settings(**changed),
        CPU,
        folder,
        Silent(),
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "changed", [{}, {"gradient_accumulation_steps": 2}, {"ema_decay": 0.9, "max_grad_norm": 0.1}]
)
def test_a_killed_run_started_again_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path, optimizer: str, changed: dict[str, Any]
) -> None:
    unbroken = fit(_folder(tmp_path / "a"), optimizer=optimizer, **changed)
    killed = _folder(tmp_path / "b")
    for stop in (8, 11):  # forward passes: once after the first checkpoint, once more
        with pytest.raises(KeyboardInterrupt):
            fit(
                killed,
                batches=stopping_at(stop * changed.get("gradient_accumulation_steps", 1)),
                optimizer=optimizer,
                **changed,
            )
        assert (killed / "state.pt").exists()
    resumed = fit(killed, optimizer=optimizer, **changed)
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
    assert (killed / "metrics.jsonl").read_text() == (tmp_path / "a" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_run_after_its_step_and_the_rest_gives_the_same_bits(
    tmp_path: Path, number: signal.Signals
) -> None:
    def signaled(first: int) -> Iterator[Batch]:
        for index, batch in enumerate(batches_from(first), start=first):
            if index == 6:  # between the checkpoints after 5 and 10 steps
                signal.raise_signal(number)
            yield batch

    unbroken, before = fit(_folder(tmp_path / "a")), signal.default_int_handler
    found = signal.signal(number, before)  # whoever started the tests may have ignored it
    with pytest.raises(Stopped, match="saved after step 7 of 12") as stopped:
        fit(_folder(tmp_path / "b"), batches=signaled)
    assert stopped.value.number == number and signal.getsignal(number) is before
    signal.signal(number, found)
    assert torch.load(tmp_path / "b" / "state.pt", weights_only=True)["step"] == 7
    resumed = fit(tmp_path / "b")
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


def test_a_second_signal_does_not_wait_for_the_step(tmp_path: Path) -> None:
    def impatient(first: int) -> Iterator[Batch]:
        for index, batch in enumerate(batches_from(first), start=first):
            for _ in range(2 if index == 6 else 0):
                signal.raise_signal(signal.SIGINT)
            yield batch

    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(Stopped, match=r"^$"):
        fit(tmp_path, batches=impatient)
    signal.signal(signal.SIGINT, found)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 5


@pytest.mark.parametrize("damage", ["empty", "cut off", "no archive", "another model", "no number", "pickle"])
def test_a_state_that_cannot_be_used_is_one_line_without_advice_to_load_it_unsafely(
    tmp_path: Path, damage: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, batches=stopping_at(8))
    path = tmp_path / "state.pt"
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut off":
            path.write_bytes(path.read_bytes()[:-100])
        case "no archive":
            path.write_bytes(b"precious" * 100)
        case "another model":
            torch.save(torch.load(path, weights_only=True) | {"parts": {"model": {}}}, path)
        case "no number":
            torch.save(torch.load(path, weights_only=True) | {"step": None}, path)
        case _:
            torch.save({"step": Net()}, path)  # would run code where it is loaded unsafely
    with pytest.raises(
        DamagedState, match=r"state\.pt: cannot be used \(\w+\); expected the state"
    ) as refused:
        fit(tmp_path)
    assert "\n" not in str(refused.value) and "weights_only" not in str(refused.value)


def test_damaged_lines_of_the_log_are_dropped_when_a_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, batches=stopping_at(8))
    with (tmp_path / "metrics.jsonl").open("ab") as log:
        log.write(b'\xff\xfe\n{"step": "7"}\n[3]\n{"lr": 1}\n')
    fit(tmp_path)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        0,
        10,
        11,
    ]


def test_steps_are_logged_with_every_loss_and_the_rate_they_were_made_with(tmp_path: Path) -> None:
    fit(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 10, 11]
    assert all(record.keys() == {"step", "lr", "grad_norm", "mask", "center"} for record in records)
    assert records[0]["lr"] == pytest.approx(0.05 / 2)  # step 0 of a warm-up of two


def test_a_loss_that_is_not_finite_stops_the_run_and_names_each_term(tmp_path: Path) -> None:
    class Diverging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            return {"mask": self.weight * 2, "size": self.weight / 0.0, "offset": self.weight * float("nan")}

    with pytest.raises(DivergedError) as caught:
        fit(tmp_path, Diverging())
    assert "step 0: " in str(caught.value) and "mask 2, size inf, offset nan" in str(caught.value)


class Slope(nn.Module):
    """A line through the mean pixel of each image; the loss is a mean over images."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x = batch.images.double().mean(dim=(1, 2, 3)) / 255  # (B,)
        return {"mask": (self.slope * x - 1).square().mean()}


def slope_gradient(numbers: list[int]) -> float:
    """d/ds of the mean of (s x - 1)^2 at s = 0, by hand: the mean of -2 x."""
    x = np.concatenate(
        [batch(n).images.numpy().mean(axis=(1, 2, 3), dtype=np.float64) / 255 for n in numbers]
    )
    return float(np.mean(-2 * x))


def one_step(folder: Path, **changed: Any) -> float:
    model = Slope()
    optimizer = torch.optim.SGD([{"params": model.parameters(), "lr": 1.0, "initial_lr": 1.0}])
    schedule = make_schedule("constant", 1, 0)
    train(model, batches_from, optimizer, schedule, settings(steps=1, **changed), CPU, folder, Silent())
    return model.slope.item()


def test_two_batches_of_four_have_the_gradient_of_the_mean_over_eight(tmp_path: Path) -> None:
    assert one_step(_folder(tmp_path / "1")) == pytest.approx(-slope_gradient([0]), rel=1e-12)
    two = one_step(_folder(tmp_path / "2"), gradient_accumulation_steps=2)
    assert two == pytest.approx(-slope_gradient([0, 1]), rel=1e-12)
    record = json.loads((tmp_path / "2" / "metrics.jsonl").read_text())
    assert record["mask"] == pytest.approx(1.0)  # the mean of the two, not their sum


def test_a_gradient_is_clipped_to_the_norm_that_was_asked_for(tmp_path: Path) -> None:
    assert one_step(tmp_path, max_grad_norm=0.125) == pytest.approx(0.125, rel=1e-5)


class Steep(nn.Module):
    """One weight whose gradient is what the pass says."""

    def __init__(self, gradients: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.gradients = iter(gradients)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"mask": self.weight * next(self.gradients)}


class Notes(Silent):
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def train_steep(folder: Path, gradients: list[float], **changed: Any) -> list[str]:
    model, notes = Steep(gradients), Notes()
    optimizer = torch.optim.SGD([{"params": model.parameters(), "lr": 1e-9, "initial_lr": 1e-9}])
    steps = len(gradients)
    schedule, plain = make_schedule("constant", steps, 0), settings(steps=steps, **changed)
    train(model, batches_from, optimizer, schedule, plain, CPU, folder, notes)
    return notes.texts


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_the_largest_gradient_since_the_last_line_is_logged_as_it_was_before_clipping(
    tmp_path: Path, limit: float
) -> None:
    assert train_steep(tmp_path, [3.0, -7.0, 2.0, *[1.0] * 9, 4.0], max_grad_norm=limit) == []
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["grad_norm"]) for r in records] == [(0, 3.0), (10, 7.0), (12, 4.0)]


def test_a_gradient_that_jumps_is_noted_and_one_that_falls_is_not(tmp_path: Path) -> None:
    falling = [1000.0 / (1 + step) for step in range(60)]
    assert train_steep(_folder(tmp_path / "falls"), falling) == []
    (note,) = train_steep(_folder(tmp_path / "jumps"), [*[1.0] * 40, 5e6, *[1.0] * 20, 5e6])
    assert note.startswith("step 40: gradient norm 5e+06, where the median of 41 steps is 1;")
    (note,) = train_steep(_folder(tmp_path / "at once"), [5e6, *[2.0] * 40])
    assert note.startswith("step 0: gradient norm 5e+06, where the median of 20 steps is 2;")


def test_a_note_of_a_jump_advises_what_is_not_done_and_needs_a_usual_norm(tmp_path: Path) -> None:
    (free,) = train_steep(_folder(tmp_path / "free"), [*[1.0] * 40, 5e6])
    assert free.endswith("train.max_grad_norm limits it")
    (clipped,) = train_steep(_folder(tmp_path / "clipped"), [*[1.0] * 40, 5e6], max_grad_norm=5.0)
    assert clipped.endswith("train.max_grad_norm has limited it to 5; a lower train.lr may help")
    mostly_without_masks = [*[0.0] * 30, 1.0, *[0.0] * 30]
    assert train_steep(_folder(tmp_path / "few"), mostly_without_masks) == []


def test_lines_of_the_log_show_both_kinds_of_passes_that_alternate(tmp_path: Path) -> None:
    every = {
        (views, passes): log_every(_of(views, passes)) for views in ("images", "both") for passes in (1, 2, 3)
    }
    assert every == {
        **dict.fromkeys([("images", 1), ("images", 2), ("images", 3), ("both", 2)], 10),
        **dict.fromkeys([("both", 1), ("both", 3)], 11),
    }
    train_steep(tmp_path, [1.0] * 24, log_every=11)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 11, 22, 23]


def _of(views: Any, passes: int) -> RoleConfig:
    return RoleConfig(train=TrainConfig(views=views, gradient_accumulation_steps=passes))


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_reaches_a_weight(tmp_path: Path) -> None:
    class Root(nn.Module):
        """At zero the square root is zero and its slope is not finite."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            return {"mask": self.weight.sqrt()}

    model = Root()
    with pytest.raises(DivergedError, match="step 0: gradient norm inf; expected finite"):
        fit(tmp_path, model, max_grad_norm=1.0)
    assert model.weight.item() == 0


def test_the_average_is_what_is_reported_where_there_is_one(tmp_path: Path) -> None:
    last = fit(_folder(tmp_path / "last"))
    average = fit(_folder(tmp_path / "average"), ema_decay=0.9)
    assert last.keys() == average.keys()
    assert not torch.equal(last["body.0.weight"], average["body.0.weight"])


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
