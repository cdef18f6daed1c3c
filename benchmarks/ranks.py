"""Whether processes that train together do what one process does, and by how much their weights differ.

    python benchmarks/ranks.py

A small Deep-MAC with batch norm learns from batches in which processes have no masks, no boxes, or neither,
and unequal numbers else; once in one process and once in two, on the CPU with gloo. Prints the largest
difference of the first gradient, of the losses and of the weights, for each way of training.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.models.build import build_model
from deepmac_distill.models.synchronized import synchronize
from deepmac_distill.progress import Silent
from deepmac_distill.ranks import ONE, Ranks, join
from deepmac_distill.structures import Batch, Instances
from deepmac_distill.torchrun import Place
from deepmac_distill.training.gradients import accumulate_gradients
from deepmac_distill.training.loop import LoopSettings, make_optimizer, train
from deepmac_distill.training.precision import Precision
from deepmac_distill.training.schedule import make_schedule

MODEL = DeepMacConfig(
    backbone="tiny", backbone_width=8, head_channels=8, mask_head="hourglass-10", mask_width=8, mask_size=8
)
IMAGES, SIZE_PX, CLASSES = 4, 32, 3
CPU = torch.device("cpu")
# For each image of a pass, for each box whether it has a mask. Two processes have the first or last two.
PASSES = (
    ((True,), (False, True, True), (True, False), (True,)),
    ((True, True, False), (True,), (False, False), ()),  # the second has no mask
    ((), (), (True, True), (False, True, True)),  # the first has no box
    ((False,), (False,), (), (False, False)),  # nobody has a mask
    ((), (), (), ()),
)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of training."""

    optimizer: str = "adamw"
    double: bool = True
    lr: float = 1e-3
    steps: int = 50
    passes: int = 1  # of a step
    stop: int = 0  # the training is stopped after so many steps and goes on in the other number of processes
    batch_norm_boxes: str = "masked"


WAYS = {
    "sgd": Way(optimizer="sgd"),
    "adamw": Way(),
    "adamw, three passes a step, all boxes": Way(steps=4, passes=3, batch_norm_boxes="all"),
    "adamw, goes on in another number": Way(steps=8, stop=3),
    # At 1e-3 another order of a sum turns a gradient at a kink in step 2: losses differ by 1.2e-3 at the end.
    "sgd, float32": Way(optimizer="sgd", double=False, lr=1e-4),
    "adamw, float32": Way(double=False),
}


def whole_batch(number: int) -> Batch:
    """Noise in pixels, boxes and masks: pass `number` of a training."""
    g = torch.Generator().manual_seed(number)
    flags = PASSES[number % len(PASSES)]
    known = torch.tensor([flag for some in flags for flag in some], dtype=torch.bool)
    n, counts = len(known), torch.tensor([len(some) for some in flags])
    sides = 6 + torch.rand(n, 2, generator=g) * 14
    corners = torch.rand(n, 2, generator=g) * (SIZE_PX - sides)
    masks = torch.randint(0, 256, (n, MODEL.mask_size, MODEL.mask_size), generator=g, dtype=torch.uint8)
    return Batch(
        torch.randint(0, 256, (IMAGES, 3, SIZE_PX, SIZE_PX), generator=g, dtype=torch.uint8),
        torch.full((IMAGES, 2), SIZE_PX),
        tuple(range(IMAGES)),
        Instances(
            image_index=torch.arange(IMAGES).repeat_interleave(counts),
            rows=torch.arange(n),
            boxes=torch.cat((corners, corners + sides), dim=1),
            class_index=torch.randint(0, CLASSES, (n,), generator=g),
            masks=masks * known[:, None, None],
            has_mask=known,
            mask_weight=torch.rand(n, generator=g),
        ),
        complete=number % 7 != 6,  # now and then of windows, which train no detection
    )


def part_of(batch: Batch, part: slice) -> Batch:
    """Some images of a batch and what is in them."""
    index, (first, last) = batch.instances.image_index, (part.start, part.stop)
    some = batch.instances.select((index >= first) & (index < last))
    return replace(
        batch,
        images=batch.images[part],
        image_sizes=batch.image_sizes[part],
        image_ids=batch.image_ids[part],
        instances=replace(some, image_index=some.image_index - first),
    )


def batches(first: int, ranks: Ranks, last: int | None = None) -> Iterator[Batch]:
    """The part of one process, from a pass on; one that is stopped after `last` passes gets no more."""
    number = first
    while last is None or number < last:
        yield part_of(whole_batch(number), ranks.share_of(IMAGES))
        number += 1
    raise KeyboardInterrupt


def model_of(way: Way) -> nn.Module:
    """The same weights in every process."""
    torch.manual_seed(0)
    model = build_model(replace(MODEL, batch_norm_boxes=way.batch_norm_boxes), CLASSES, load_weights=False)
    return model.double() if way.double else model


def trained(way: Way, ranks: Ranks, folder: Path, stop: int = 0) -> dict[str, Tensor]:
    """The averaged weights of a training; those after a stop go on from the state in the folder."""
    model = model_of(way)
    settings = LoopSettings(
        steps=way.steps,
        gradient_accumulation_steps=way.passes,
        max_grad_norm=5.0,
        ema_decay=0.9,
        checkpoint_every=stop or 1000,
        log_every=1,
    )
    last = stop * way.passes or None
    return train(
        model,
        lambda first: batches(first, ranks, last),
        make_optimizer(model, way.optimizer, lr=way.lr, weight_decay=1e-4),
        make_schedule("cosine", way.steps, 5),
        settings,
        CPU,
        folder,
        Silent(),
        ranks,
    )


def first_gradient(way: Way, ranks: Ranks) -> Tensor:
    """(P,) of all parameters, from the passes of the first step."""
    model = model_of(way).train()
    synchronize(model, ranks)
    accumulate_gradients(model, batches(0, ranks), way.passes, Precision.of(CPU, None), ranks, 0)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def done_by(ranks: Ranks, out: Path) -> None:
    """All ways of training in some number of processes: their gradients, losses and weights, in a folder."""
    torch.set_num_threads(1)
    for number, (name, way) in enumerate(WAYS.items()):
        folder = out / str(number)
        if ranks.leads:
            folder.mkdir(parents=True, exist_ok=True)
        gradient = first_gradient(way, ranks)
        if way.stop:
            try:
                trained(way, ranks, folder, way.stop)
            except KeyboardInterrupt:
                continue
        weights = trained(way, ranks, folder)
        if ranks.leads:
            torch.save({"gradient": gradient, "weights": weights, "name": name}, folder / "done.pt")


def gone_on(out: Path, other: Path, ranks: Ranks) -> None:
    """Trainings that were stopped in another number of processes, to their end."""
    for number, (name, way) in enumerate(WAYS.items()):
        if way.stop:
            weights = trained(way, ranks, other / str(number))
            if ranks.leads:
                gradient = first_gradient(way, ONE) if ranks.world == 1 else torch.zeros(0)
                done = {"gradient": gradient, "weights": weights, "name": name}
                torch.save(done, other / str(number) / "done.pt")


def _process(rank: int, world: int, port: int, out: str, other: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = join(Place(rank, world, rank), CPU)
    done_by(ranks, Path(out))
    gone_on(Path(out), Path(other), ranks)
    ranks.leave()


@dataclass(frozen=True)
class Difference:
    """Of two processes from one."""

    gradient: float  # of the first step: the norm of the difference / that of the gradient
    loss: float  # the largest of all steps, relative
    weight: float  # the largest, in tensors of larger numbers (running variances) relative to their largest


def differences() -> dict[str, Difference]:
    """For each way of training."""
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one", Path(folder) / "two"
        done_by(ONE, one)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        start = multiprocessing.get_context("spawn").Process
        # Those that one process has stopped go on in two.
        processes = [start(target=_process, args=(rank, 2, port, str(two), str(one))) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode:
                raise SystemExit(f"a process ended with {process.exitcode}")
        gone_on(one, two, ONE)
        return {name: _difference(one / str(number), two / str(number)) for number, name in enumerate(WAYS)}


def _difference(one: Path, two: Path) -> Difference:
    (a, b) = (torch.load(folder / "done.pt") for folder in (one, two))
    weights = [
        float((b["weights"][name] - value).abs().max() / value.abs().max().clamp(min=1))
        for name, value in a["weights"].items()
    ]
    logs = [
        [json.loads(line) for line in (at / "metrics.jsonl").read_text().splitlines()] for at in (one, two)
    ]
    totals = [
        [
            sum(value for name, value in line.items() if name not in ("step", "lr", "grad_norm"))
            for line in log
        ]
        for log in logs
    ]
    losses = [abs(theirs - ours) / max(ours, 1e-6) for ours, theirs in zip(*totals, strict=True)]
    gradients = (a["gradient"], b["gradient"])
    same = all(len(g) for g in gradients)
    gradient = float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) if same else 0.0
    return Difference(gradient, _largest(losses), _largest(weights))


def _largest(values: list[float]) -> float:
    """NaN where one of them is: Python's max passes over it."""
    return float(torch.tensor(values, dtype=torch.float64).max())


def main() -> None:
    """Print a line for each way of training."""
    for name, found in differences().items():
        print(f"{name:42}", *(f"{key} {value:.1e}" for key, value in asdict(found).items()))


if __name__ == "__main__":
    main()
