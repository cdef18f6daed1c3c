"""Training and labeling on a GPU that does nothing else: images/s, memory, and the share of its matrix peak.

    python benchmarks/gpu_speed.py [--json benchmarks/results/gpu_speed.json] [--only CASE ...]
        [--tasks train label] [--canvases 8 ...] [--compile]

Noise takes the place of photographs: reading and decoding are not timed. A training step is forward, backward
and optimizer, in the recipe's batch; labeling is from uint8 images on the host to mask grids on the host, as
`deepmac pseudolabel` has it, with the boxes that COCO has on an image. Each figure is the median of some
repetitions after two that warm up. FLOP are those of the forward pass as torch counts them, and three times
as many in training (torch counts the backward pass of grouped convolutions too high). The peak is what
products of two 8192 x 8192 bfloat16 matrices of random numbers reach. `--compile` measures each training step
twice, plain and with the backbone compiled as `train.compile` has it; compiling itself is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deepmac_distill.config import RoleConfig, load_pipeline, located
from deepmac_distill.devices import environment, pick_device, wait_for
from deepmac_distill.evaluation.results import from_json, to_json
from deepmac_distill.experiments.run_record import Environment
from deepmac_distill.files import write_json
from deepmac_distill.forecast.cost import sample_batch
from deepmac_distill.inference import segment_boxes
from deepmac_distill.models.build import build_model
from deepmac_distill.models.compiled import compile_backbone
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Column, Table, columns, names
from deepmac_distill.training.loop import make_optimizer

CLASSES = 80
BOXES_AN_IMAGE = 7  # COCO has 7.3
MATRIX = 8192
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Case:
    """A recipe's model at a canvas: batches to train by and to label by."""

    recipe: str
    role: str
    canvas_px: int
    boxes: int  # on a canvas
    train_by: tuple[int, ...]  # canvases of a pass
    label_by: tuple[int, ...]


CASES: Mapping[str, Case] = {
    "coco_sample teacher": Case("coco_sample", "teacher", 160, 1, (16,), (16, 64)),
    "single_gpu teacher": Case("single_gpu", "teacher", 192, 1, (64,), (64,)),
    "single_gpu student": Case("single_gpu", "student", 640, BOXES_AN_IMAGE, (4, 16), (1, 8)),
    "paper teacher": Case("paper/teacher_hg100", "teacher", 1024, BOXES_AN_IMAGE, (4, 8, 16), (1, 4, 8)),
    "paper student": Case("paper/teacher_hg100", "student", 1024, BOXES_AN_IMAGE, (8,), (8,)),
}


@dataclass(frozen=True, slots=True)
class Speed:
    """What one batch took; `ms` is None where memory did not suffice."""

    case: str
    task: str  # train or label
    canvases: int
    canvas_px: int
    boxes: int  # on a canvas
    bfloat16: bool
    ms: float | None
    peak_gib: float | None
    teraflop: float | None  # of the batch, counted
    compiled: bool = False  # the backbone, by torch.compile

    @property
    def per_second(self) -> float | None:
        """Canvases a second."""
        return self.ms and 1000 * self.canvases / self.ms

    def share(self, peak: float) -> float | None:
        """Of the matrix peak in TFLOP/s."""
        return self.teraflop / (self.ms / 1000) / peak if self.ms and self.teraflop else None


@dataclass(frozen=True, slots=True)
class Speeds:
    """All of one call, and on what."""

    environment: Environment
    device: str
    matrix_teraflop_per_second: float
    repetitions: int
    rows: tuple[Speed, ...]


def median_seconds(work: Callable[[], object], repetitions: int, device: torch.device) -> float:
    """Of some repetitions, the queue of the device included, after two that warm up."""
    found = []
    for _ in range(repetitions + 2):
        wait_for(device)
        began = time.perf_counter()
        work()
        wait_for(device)
        found.append(time.perf_counter() - began)
    return statistics.median(found[2:])


def matrix_peak(device: torch.device, size: int, repetitions: int) -> float:
    """TFLOP/s of a bfloat16 matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / median_seconds(lambda: a @ b, repetitions, device) / 1e12


def training_step(
    model: nn.Module, recipe: RoleConfig, case: Case, canvases: int, bfloat16: bool
) -> Callable[[], None]:
    """A function that does one step on a batch that is on the device already."""
    settings = recipe.train
    device = next(model.parameters()).device
    optimizer = make_optimizer(model, settings.optimizer, settings.lr, settings.weight_decay)
    batch = sample_batch(canvases, case.canvas_px, case.boxes, model.target_mask_size).to(device)
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            losses = model(batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return step


def labeling(model: nn.Module, case: Case, canvases: int, bfloat16: bool) -> Callable[[], None]:
    """A function that labels one batch that is on the host."""
    device = next(model.parameters()).device
    batch = sample_batch(canvases, case.canvas_px, case.boxes, 1)
    model.eval()

    def label() -> None:
        for _ in segment_boxes(model, [[batch]], device, bfloat16):
            pass

    return label


def forward_teraflop(model: nn.Module, case: Case, canvases: int) -> float:
    """Of one batch, in the mode that the model is in."""
    batch = sample_batch(canvases, case.canvas_px, case.boxes, model.target_mask_size)
    batch = batch.to(next(model.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch) if model.training else model.segment(batch.images, batch.instances)
    return counter.get_total_flops() / 1e12


def measured(
    name: str,
    task: str,
    canvases: int,
    bfloat16: bool,
    device: torch.device,
    repetitions: int,
    compiled: bool = False,
) -> Speed:
    """One row."""
    case = CASES[name]
    recipe: RoleConfig = getattr(load_pipeline(located(Path(case.recipe))), case.role)
    torch.manual_seed(0)
    milliseconds = peak = teraflop = None
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        model = build_model(recipe.model, CLASSES, load_weights=False).to(device)
        if task == "train":
            work = training_step(model, recipe, case, canvases, bfloat16)
        else:
            work = labeling(model, case, canvases, bfloat16)
        if compiled:
            compile_backbone(model)
        milliseconds = 1000 * median_seconds(work, repetitions, device)
        peak = torch.cuda.max_memory_allocated(device) / GIB if on_gpu else None
        teraflop = (3 if task == "train" else 1) * forward_teraflop(model, case, canvases)
    except torch.OutOfMemoryError:
        pass
    return Speed(
        *(name, task, canvases, case.canvas_px, case.boxes, bfloat16),
        *(milliseconds, peak, teraflop, compiled),
    )


def table(found: Speeds) -> Table:
    """A row for each batch."""
    headings = ("canvases", "px", "boxes", "number", "ms a batch", "canvases/s", "peak GiB")
    return Table(
        "",
        (*names("model", "task"), *columns("figure", headings), Column("of the peak, %", "percent")),
        tuple(
            (
                *(row.case, row.task, row.canvases, row.canvas_px, row.boxes * row.canvases),
                ("bfloat16" if row.bfloat16 else "float32") + (", compiled" if row.compiled else ""),
                "out of memory" if row.ms is None else f"{row.ms:.1f}",
                *(row.per_second and f"{row.per_second:.1f}", row.peak_gib and f"{row.peak_gib:.1f}"),
                row.share(found.matrix_teraflop_per_second),
            )
            for row in found.rows
        ),
    )


def page(recorded: object) -> str:
    """Markdown: the table and what it holds for."""
    found = from_json(recorded, Speeds, "gpu_speed")
    machine = found.environment
    return (
        f"{markdown_table(table(found))}\n\n"
        f"`python benchmarks/gpu_speed.py`, {machine.gpus[0] if machine.gpus else machine.processor}, torch "
        f"{machine.packages['torch']}: median of {found.repetitions} batches, noise in place of photographs. "
        f"A product of two {MATRIX} x {MATRIX} bfloat16 matrices reached "
        f"{found.matrix_teraflop_per_second:.0f} TFLOP/s."
    )


def asked(given: argparse.Namespace) -> Iterator[tuple[str, str, int, bool, bool]]:
    """Case, task, canvases, in bfloat16, compiled: of each row."""
    for name in given.only:
        batches = {"train": CASES[name].train_by, "label": CASES[name].label_by}
        for task in given.tasks:
            for canvases in batches[task]:
                if given.canvases and canvases not in given.canvases:
                    continue
                for bfloat16 in (True, False):
                    for compiled in (False, True) if given.compile and task == "train" else (False,):
                        yield name, task, canvases, bfloat16, compiled


def main() -> None:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--matrix", type=int, default=MATRIX)
    parser.add_argument("--tasks", nargs="+", choices=("train", "label"), default=("train", "label"))
    parser.add_argument("--canvases", nargs="+", type=int, help="batches of these sizes alone")
    parser.add_argument("--compile", action="store_true", help="training with a compiled backbone too")
    given = parser.parse_args()
    device = pick_device(given.device)
    peak = matrix_peak(device, given.matrix, given.repetitions)
    rows: list[Speed] = []
    for name, task, canvases, bfloat16, compiled in asked(given):
        rows.append(measured(name, task, canvases, bfloat16, device, given.repetitions, compiled))
        print(rows[-1], flush=True)
        found = Speeds(
            environment=from_json(environment(), Environment, "environment"),
            device=str(device),
            matrix_teraflop_per_second=peak,
            repetitions=given.repetitions,
            rows=tuple(rows),
        )
        if given.json:  # what is measured is kept, wherever this stops
            write_json(given.json, to_json(found))
    print(markdown_table(table(found)))


if __name__ == "__main__":
    main()
