"""What models cost in time, on one machine in one run: milliseconds an image at batch size one.

    python benchmarks/latency.py teacher=runs/x/teacher/weights.safetensors \\
        student=runs/x/student/weights.safetensors --annotations val.json --images images \\
        [--images-count 20] [--rounds 5] [--device auto] [--threads N] [--json latency.json]

Two tasks: masks for the boxes in the annotation file, and detection with masks (of models that detect). Timed
is the way from a canvas in memory, at the size each model was trained at, to mask grids in memory, as in
`deepmac evaluate`; reading, decoding and resizing an image and encoding a mask are not. In every round each
model has its turn, so that all share the weather; a figure is the median over the rounds, with the least and
the most.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deepmac_distill.data.loader import evaluation_batches
from deepmac_distill.dataset.coco import Annotations, read_coco
from deepmac_distill.devices import autocast_allowed, environment, pick_device, use_threads
from deepmac_distill.errors import CheckpointError, DataError, DistillError
from deepmac_distill.files import write_json
from deepmac_distill.inference import boxes_for, detect_objects, segment_boxes
from deepmac_distill.models.deepmac import DeepMac
from deepmac_distill.models.load import Weights
from deepmac_distill.models.mask_rcnn import MaskRcnn
from deepmac_distill.paper import speeds
from deepmac_distill.report.table import MISSING
from deepmac_distill.structures import Batch

TASKS = {"segment": "masks in given boxes", "detect": "detection with masks"}
WARM_UP_IMAGES = 3


@dataclass(frozen=True, slots=True)
class Contestant:
    """One model with its images on its own canvas."""

    model: DeepMac | MaskRcnn
    canvas_px: int
    batches: list[Batch]  # of one image each


def load(
    weights: Path, annotations: Annotations, images: Path, count: int, device: torch.device
) -> Contestant:
    """A model and the first `count` images of a set as it wants to see them.

    Raises:
        CheckpointError: not weights of ours, or a model whose masks belong to other classes.
        DataError: an image cannot be read.
    """
    source = Weights.read(weights)
    model, card = source.model(device), source.card
    if not model.spec.class_agnostic and card.class_names != annotations.classes.names:
        raise CheckpointError(
            f"{weights}: has a mask for each of its {len(card.class_names)} classes; "
            f"expected {annotations.path} to have the same classes"
        )
    dataset = boxes_for(model.spec, annotations, images)
    return Contestant(model, card.image_size_px, list(evaluation_batches(dataset, 1, range(count))))


def work_of(
    contestant: Contestant, task: str, device: torch.device, max_detections: int
) -> Callable[..., None]:
    """A function that does a task on some batches to the end, the device's queue included."""
    autocast = autocast_allowed(device, "auto")

    def work(batches: Iterable[Batch]) -> None:
        if task == "segment":
            found = segment_boxes(contestant.model, batches, device, autocast)
        else:
            found = detect_objects(contestant.model, batches, device, autocast, max_detections)
        for _ in found:
            pass
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return work


def time_in_turn(works: Mapping[Any, Callable[[], None]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of each work in each round; in every round each is done once, in their order."""
    seconds: dict[Any, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(
    contestants: Mapping[str, Contestant], device: torch.device, rounds: int, max_detections: int
) -> dict[str, dict[str, Any]]:
    """Of each model its size and the ms an image of every round, for each task; None where it lacks one."""
    works = {
        (name, task): (work_of(contestant, task, device, max_detections), contestant.batches)
        for name, contestant in contestants.items()
        for task in TASKS
        if task == "segment" or contestant.model.spec.detects
    }
    for work, batches in works.values():
        work(batches[:WARM_UP_IMAGES])
    seconds = time_in_turn({key: partial(*pair) for key, pair in works.items()}, rounds)
    return {
        name: {
            "parameters": sum(parameter.numel() for parameter in contestant.model.parameters()),
            "canvas_px": contestant.canvas_px,
            **{
                task: [1000 * value / len(contestant.batches) for value in seconds[name, task]]
                if (name, task) in seconds
                else None
                for task in TASKS
            },
        }
        for name, contestant in contestants.items()
    }


def table(result: Mapping[str, Any]) -> str:
    """Markdown: the models of this run, then the paper's, which another machine timed."""
    first = next(iter(result["models"].values()))
    lines = ["| model | parameters | canvas px |", "|---|---:|---:|"]
    for title in TASKS.values():
        lines[0] += f" {title}, ms/image | to the first |"
        lines[1] += "---:|---:|"
    for name, row in result["models"].items():
        cells = [name, f"{row['parameters'] / 1e6:.2f} M", str(row["canvas_px"])]
        for task in TASKS:
            cells += [_spread(row[task]), _ratio(row[task], first[task])]
        lines.append(f"| {' | '.join(cells)} |")
    hardware = result["environment"]
    device = hardware["gpus"][0] if result["device"].startswith("cuda") else hardware["processor"]
    lines += [
        "",
        f"{device}, {result['threads']} threads, torch {hardware['packages']['torch']}, "
        f"{'bfloat16' if result['autocast'] else 'float32'}: batch size 1, {result['images']} images, "
        f"{result['boxes_per_image']:.1f} given boxes an image, at most {result['max_detections']} "
        f"detections; median of {result['rounds']} rounds (least to most).",
        "",
        "From another machine, a V100, as the paper has it (arXiv:2104.00613, table 8 and appendix B.2); to "
        "be compared with each other, not with the figures above:",
        "",
        "| model of the paper | canvas px | detection with masks, ms/image |",
        "|---|---:|---:|",
        *(f"| {row.model} | {row.canvas_px or MISSING} | {row.milliseconds} |" for row in speeds()),
    ]
    return "\n".join(lines)


def _spread(values: Sequence[float] | None) -> str:
    if values is None:
        return MISSING
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _ratio(values: Sequence[float] | None, first: Sequence[float] | None) -> str:
    if values is None or first is None:
        return MISSING
    return f"{statistics.median(values) / statistics.median(first):.2f}"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, and on what.

    Raises:
        DistillError: weights, annotations, images or a device that cannot be used.
    """
    device = pick_device(arguments.device)
    use_threads(arguments.threads)
    annotations = read_coco(arguments.annotations, "all")  # masks are not looked at
    count = min(arguments.images_count, len(annotations.images))
    if not count:
        raise DataError(f"{arguments.annotations}: no images; expected at least one")
    contestants = {
        name: load(weights, annotations, arguments.images, count, device)
        for name, weights in arguments.models
    }
    boxes = sum(len(batch.instances) for batch in next(iter(contestants.values())).batches)
    return {
        "environment": environment(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "autocast": autocast_allowed(device, "auto"),
        "images": count,
        "boxes_per_image": boxes / count,
        "max_detections": arguments.max_detections,
        "rounds": arguments.rounds,
        "models": measure(contestants, device, arguments.rounds, arguments.max_detections),
    }


def _named_weights(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=weights.safetensors")
    return name, Path(path)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and write JSON when asked; 2 if there is something for the user to fix."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=_named_weights, metavar="NAME=WEIGHTS")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO JSON that gives the boxes")
    parser.add_argument("--images", type=Path, required=True, help="folder of its images")
    parser.add_argument("--images-count", type=_positive, default=20, help="the first so many of the file")
    parser.add_argument("--rounds", type=_positive, default=5)
    parser.add_argument("--max-detections", type=_positive, default=100, help="per image")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--threads", type=_positive, default=0, help="of torch on the CPU; default: its choice"
    )
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    arguments = parser.parse_args(words)
    if len(dict(arguments.models)) < len(arguments.models):
        parser.error("NAME=WEIGHTS: a name is there twice; expected each once")
    try:
        result = run(arguments)
    except DistillError as error:
        print(f"latency: {error}", file=sys.stderr)
        return error.exit_code
    print(table(result))
    if arguments.json:
        write_json(arguments.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
