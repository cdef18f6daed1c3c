"""What models cost in time, on one machine in one run: milliseconds an image at batch size one.

Two tasks: masks for the boxes in the annotation file, and detection with masks (of models that detect). Timed
is the way from a canvas in memory, at the size each model was trained at, to mask grids in memory, as in
`deepmac evaluate`; reading, decoding and resizing an image and encoding a mask are not. A model looks at
given boxes as it does by itself; the windows of an image go together, 16 at a time. In every round each model
has its turn, so that background load affects all alike; a figure is the median over the rounds, with the
least and the most.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from deepmac_distill.data.framed import batches_of
from deepmac_distill.data.image_places import images_at
from deepmac_distill.data.loader import evaluation_batches
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.devices import autocast_allowed, environment, wait_for
from deepmac_distill.errors import CheckpointError, DataError
from deepmac_distill.evaluation.results import from_json
from deepmac_distill.experiments.run_record import Environment
from deepmac_distill.inference import boxes_for, detect_objects, framed_boxes, segment_boxes
from deepmac_distill.look import WHOLE_IMAGE
from deepmac_distill.models.deepmac import DeepMac
from deepmac_distill.models.load import Weights
from deepmac_distill.models.mask_rcnn import MaskRcnn
from deepmac_distill.one_image import WINDOWS_IN_A_BATCH
from deepmac_distill.paper import speeds
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import MISSING, Table, columns, names
from deepmac_distill.structures import Batch

TASKS = {"segment": "masks in given boxes", "detect": "detection with masks"}
WARM_UP_IMAGES = 3
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class ModelLatency:
    """One model: its size, and the ms an image of every round."""

    parameters: int
    canvas_px: int
    segment: tuple[float, ...]
    detect: tuple[float, ...] | None  # None: the model does not detect
    look: str = ""  # how it looks at given boxes, where that is not the whole image


@dataclass(frozen=True, slots=True)
class Latency:
    """Everything that is measured in one run, and on what."""

    environment: Environment
    device: str
    threads: int
    autocast: bool
    images: int
    boxes_per_image: float
    max_detections: int  # per image
    rounds: int
    models: Mapping[str, ModelLatency]

    @property
    def machine(self) -> str:
        """The GPU, or the threads of a processor, that the models ran on."""
        if self.device.startswith("cuda"):
            return self.environment.gpus[0]
        return f"{self.threads} threads of {self.environment.processor}"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One model with its images on its own canvases."""

    model: DeepMac | MaskRcnn
    canvas_px: int
    look: str
    framed: list[list[Batch]]  # of one image each, as it looks at given boxes
    whole: list[Batch]  # of one image each


def load(
    weights: Path, annotations: Annotations, images: Path, count: int, device: torch.device
) -> Contestant:
    """A model and the first `count` images of a set at the size that it takes.

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
    framed = framed_boxes(source.look, model.spec, annotations, images_at(images))
    whole = boxes_for(model.spec, annotations, images_at(images))
    wholes, windows = f"image {card.image_size_px} px", f"window {model.spec.window_size_px(source.look)} px"
    return Contestant(
        model,
        card.image_size_px,
        "" if source.look == WHOLE_IMAGE else source.look.summary(wholes, windows),
        [batches_of(framed[position], images=1, windows=WINDOWS_IN_A_BATCH) for position in range(count)],
        list(evaluation_batches(whole, 1, range(count))),
    )


def work_of(
    contestant: Contestant, task: str, device: torch.device, max_detections: int
) -> Callable[[int], None]:
    """A function that does a task on so many images, from the first on, to the end, the device's queue
    included."""
    autocast = autocast_allowed(device, "auto")

    def work(images: int) -> None:
        found: Iterator[object]
        if task == "segment":
            found = segment_boxes(contestant.model, contestant.framed[:images], device, autocast)
        else:
            whole = contestant.whole[:images]
            found = detect_objects(contestant.model, whole, device, autocast, max_detections)
        for _ in found:
            pass
        wait_for(device)

    return work


def time_in_turn(works: Mapping[K, Callable[[], None]], rounds: int) -> dict[K, list[float]]:
    """Seconds of each work in each round; in every round each is done once, in their order."""
    seconds: dict[K, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(
    contestants: Mapping[str, Contestant], device: torch.device, rounds: int, max_detections: int
) -> dict[str, ModelLatency]:
    """The size and the latencies of each model."""
    works = {
        (name, task): (work_of(contestant, task, device, max_detections), len(contestant.whole))
        for name, contestant in contestants.items()
        for task in TASKS
        if task == "segment" or contestant.model.spec.detects
    }
    for work, images in works.values():
        work(min(images, WARM_UP_IMAGES))
    turns = {key: partial(work, images) for key, (work, images) in works.items()}
    seconds = time_in_turn(turns, rounds)
    return {
        name: ModelLatency(
            parameters=sum(parameter.numel() for parameter in contestant.model.parameters()),
            canvas_px=contestant.canvas_px,
            look=contestant.look,
            segment=_per_image(seconds[name, "segment"], contestant),
            detect=_per_image(seconds[name, "detect"], contestant) if (name, "detect") in seconds else None,
        )
        for name, contestant in contestants.items()
    }


def _per_image(seconds: Sequence[float], contestant: Contestant) -> tuple[float, ...]:
    """Milliseconds an image of each round."""
    return tuple(1000 * value / len(contestant.whole) for value in seconds)


OF_THE_PAPER = (
    "From another machine, a V100, as the paper has it (arXiv:2104.00613, table 8 and appendix B.2); "
    "to be compared with each other, not with the figures above:"
)


def page(result: Latency) -> str:
    """Markdown: the models of this run, then the paper's, which another machine timed."""
    ours, theirs = markdown_table(measured_table(result)), markdown_table(paper_table())
    return "\n\n".join([ours, conditions(result), OF_THE_PAPER, theirs])


def conditions(result: Latency) -> str:
    """What the figures of this run hold for, as one sentence."""
    hardware = result.environment
    device = hardware.gpus[0] if result.device.startswith("cuda") else hardware.processor
    return (
        f"{device}, {result.threads} threads, torch {hardware.packages['torch']}, "
        f"{'bfloat16' if result.autocast else 'float32'}: batch size 1, {result.images} images, "
        f"{result.boxes_per_image:.1f} given boxes an image, at most {result.max_detections} "
        f"detections; median of {result.rounds} rounds (least to most)."
    )


def measured_table(result: Latency) -> Table:
    """The models of this run."""
    first = next(iter(result.models.values()))
    headings = [heading for title in TASKS.values() for heading in (f"{title}, ms/image", "to the first")]
    return Table(
        "Latency",
        (*names("model"), *columns("figure", ("parameters", "canvas px", *headings))),
        tuple(
            (
                *(name, f"{row.parameters / 1e6:.2f} M", row.look or row.canvas_px),
                *(_spread(row.segment), _ratio(row.segment, first.segment)),
                *(_spread(row.detect), _ratio(row.detect, first.detect)),
            )
            for name, row in result.models.items()
        ),
    )


def paper_table() -> Table:
    """The paper's models."""
    return Table(
        "Latency of the paper's models",
        (*names("model of the paper"), *columns("figure", ("canvas px", "detection with masks, ms/image"))),
        tuple((row.model, row.canvas_px or None, row.milliseconds) for row in speeds()),
    )


def _spread(values: Sequence[float] | None) -> str:
    if values is None:
        return MISSING
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _ratio(values: Sequence[float] | None, first: Sequence[float] | None) -> str:
    if values is None or first is None:
        return MISSING
    return f"{statistics.median(values) / statistics.median(first):.2f}"


def time_models(
    weights: Mapping[str, Path],
    annotations: Path,
    images: Path,
    *,
    images_count: int,
    rounds: int,
    max_detections: int,
    device: torch.device,
) -> Latency:
    """Everything that is measured, and on what.

    Args:
        weights: heading -> weights.
        annotations, images: a COCO file that gives the boxes, and the folder of its images.
        images_count: the first so many of the file.

    Raises:
        DistillError: weights, annotations or images that cannot be used.
    """
    boxes_given = Dataset.open(annotations, seen="all").for_training()  # masks are not looked at
    count = min(images_count, len(boxes_given.images))
    if not count:
        raise DataError(f"{annotations}: no images; expected at least one")
    contestants = {name: load(path, boxes_given, images, count, device) for name, path in weights.items()}
    boxes = sum(len(batch.instances) for batch in next(iter(contestants.values())).whole)
    return Latency(
        environment=from_json(environment(), Environment, "environment"),
        device=str(device),
        threads=torch.get_num_threads(),
        autocast=autocast_allowed(device, "auto"),
        images=count,
        boxes_per_image=boxes / count,
        max_detections=max_detections,
        rounds=rounds,
        models=measure(contestants, device, rounds, max_detections),
    )
