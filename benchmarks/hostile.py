"""Files of every kind that deepmac reads, broken in any way, and what reads them: for tests and soak."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import ExifTags, Image

from deepmac_distill.calibration.applied import Calibrated
from deepmac_distill.calibration.calibration import HeldOut, write_calibration
from deepmac_distill.calibration.fitting import calibrate
from deepmac_distill.calibration.tried import SCORES, TriedMasks
from deepmac_distill.config import DeepMacConfig, load_pipeline
from deepmac_distill.data.images import read_image
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.document import BrokenDocument
from deepmac_distill.dataset.parquet import parse_parquet
from deepmac_distill.errors import CheckpointError, DistillError
from deepmac_distill.evaluation.holdout_figures import holdout_figures
from deepmac_distill.evaluation.holdout_masks import (
    CUTS,
    HIDDEN,
    HOLDOUT_SCHEMA,
    HoldoutMasks,
    HoldoutRecord,
    HoldoutTeacher,
    holdout_table,
    read_holdout,
    write_holdout,
)
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.table import label_table, label_writer
from deepmac_distill.made_with import read_begun, read_done
from deepmac_distill.models.build import build_model
from deepmac_distill.models.load import Weights
from deepmac_distill.stages.compare import read_ious, read_record
from deepmac_distill.training.checkpoint import TrainingState
from deepmac_distill.weights.card import ModelCard, save_weights
from deepmac_distill.weights.tensorflow.files import opened
from tf_checkpoint import key_of, write_checkpoint

MODEL = {
    "architecture": "deepmac",
    "backbone": "tiny",
    "backbone_width": 4,
    "head_channels": 4,
    "mask_head": "resnet-4",
    "mask_width": 4,
    "mask_size": 4,
}
PIPELINE = """name = "mine"
seed = 3
[data]
source = "scenes"
seen = ["bar", "drop"]
[data.scenes]
train_images = 24
[teacher.model]
backbone = "tiny"
mask_size = 8
[teacher.train]
steps = 12
lr = 1e-3
scale_range = [0.5, 1.5]
[labels]
cut = "expected-iou"
"""


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is written, and how it is read. Reading may raise DistillError, no other."""

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], object]


def mutated(content: bytes, edits: Iterable[tuple[float, int]], cut: float | None = None) -> bytes:
    """Bytes at shares of the length replaced, and all from a share on cut off."""
    found = bytearray(content)
    for share, byte in edits:
        found[min(int(share * len(found)), len(found) - 1)] = byte
    return bytes(found if cut is None else found[: int(cut * len(found))])


def at_random(chance: random.Random, content: bytes) -> bytes:
    """One of many ways to break a file: some bytes anywhere, near an end, or all from somewhere on."""
    near = chance.choice([1.0, 1.0, 64 / len(content), 512 / len(content)])
    places = (min(chance.random() * near, 1.0) for _ in range(chance.randint(1, 8)))
    edits = [(place if chance.random() < 0.5 else 1 - place, chance.randrange(256)) for place in places]
    return mutated(content, edits, chance.random() if chance.random() < 0.2 else None)


def _weights(path: Path) -> None:
    card = ModelCard(
        role="teacher",
        model=MODEL,
        class_names=("cat", "kite"),
        category_ids=(1, 7),
        seen=(True, False),
        image_size_px=64,
        steps=3,
        data_sha256="0" * 64,
    )
    torch.manual_seed(0)
    model = build_model(DeepMacConfig(**{k: v for k, v in MODEL.items() if k != "architecture"}), 2, False)
    save_weights(path, model.state_dict(), card)


def _labels(path: Path) -> None:
    boxes = range(1, 7)
    row = {
        "file_name": "a.png",
        "category_id": 1,
        "category_name": "cat",
        "bbox": [1.0, 1.0, 4.0, 4.0],
        "height": 8,
        "width": 8,
        "source": "none",
        "status": "unanswered",
        "reason": "none found",
    }
    columns = {name: [value] * len(boxes) for name, value in row.items()}
    with label_writer(path, {"a": 1}) as writer:
        writer.write(label_table({"annotation_id": list(boxes), "image_id": list(boxes), **columns}))


def _ious(path: Path) -> None:
    values = {pa.int64(): 1, pa.float64(): 0.5, pa.float32(): 0.5, pa.int32(): 1, pa.string(): "a"}
    columns = {field.name: pa.array([values.get(field.type)] * 9, field.type) for field in IOU_SCHEMA}
    pq.write_table(pa.table(columns), path)


def _annotations(path: Path) -> None:
    rows = [{"id": i, "image_id": 1, "category_id": 1, "bbox": [1.0, 1.0, 4.0, 4.0]} for i in range(9)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    images = [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}]
    pq.write_table(pa.Table.from_pylist(images), path.with_name("images.parquet"))
    pq.write_table(pa.Table.from_pylist([{"id": 1, "name": "cat"}]), path.with_name("categories.parquet"))


def _read_annotations(path: Path) -> None:
    try:
        document = parse_parquet(path.parent)
        document.annotations.heads()
        document.annotations.at(range(len(document.annotations)))
    except BrokenDocument:
        return


def _read_labels(path: Path) -> None:
    labels = Labels.open(path)
    assert len(labels.table) >= 0 and list(labels.soft_grids())


def _instances(path: Path) -> None:
    ring = [[1, 1, 7, 1, 7, 8, 1, 8], [2, 2, 4, 2, 4, 4]]
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 6, 7]}
    crowd = {"iscrowd": 1, "segmentation": {"size": [12, 9], "counts": [20, 5, 83]}}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 9}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "segmentation": ring, **box}, {"id": 2, **box, **crowd}],
    }
    path.write_text(json.dumps(document))


def _read_instances(path: Path) -> None:
    Dataset.open(path, seen="all").for_evaluation().document()


def _held_out(path: Path) -> None:
    values = {pa.int64(): 1, pa.int32(): 0, pa.bool_(): True, pa.string(): HIDDEN}
    curve = [0.5] * len(CUTS)
    row = {
        field.name: curve if pa.types.is_list(field.type) else values.get(field.type, 0.5)
        for field in HOLDOUT_SCHEMA
    }
    columns = {name: [value] * 9 for name, value in row.items()}
    record = HoldoutRecord("0", "0", 0, False, ((HIDDEN,), ("kite",)), (HoldoutTeacher(HIDDEN, True, "0"),))
    write_holdout(path, HoldoutMasks(holdout_table(columns), record))


def _calibration(path: Path) -> None:
    rng, classes = np.random.default_rng(0), np.repeat(np.arange(4), 25)
    score = rng.uniform(0.2, 0.9, len(classes))
    tried = TriedMasks(
        scores=dict.fromkeys(SCORES, score),
        cuts=("expected-iou", 0.5),
        ious=np.stack([score, score / 2], axis=1),
        classes=classes,
        images=np.arange(len(classes)),
        folds=classes % 2,
        class_names=("a", "b", "c", "d"),
    )
    held_out = HeldOut("mine", "0", True, {"steps": 3}, "0", False, 2, tried.class_names, len(classes))
    write_calibration(path, calibrate(tried, held_out, resamples=10))


def _photograph(path: Path) -> None:
    shade = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(shade).save(path, exif=exif)


def _checkpoint(path: Path) -> None:
    write_checkpoint(path.with_suffix(""), [(("layer", "kernel"), np.ones((2, 3)))])


def _read_checkpoint(path: Path) -> None:
    with opened(path, path.parent) as checkpoint:
        try:
            checkpoint.bundle.graph()
            checkpoint.bundle.array(key_of(("model", "layer", "kernel")))
        except ValueError as error:
            raise CheckpointError(str(error)) from None


def _json(value: object) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(value))


def _state(path: Path) -> None:
    TrainingState(path, {"model": torch.nn.Linear(3, 2)}).save(5)


EVALUATION = {
    "annotations": "a.json",
    "annotations_sha256": "0",
    "seen": ["cat"],
    "weights": "w",
    "images": None,
    "shown_elsewhere": [],
}
PHOTOGRAPHS = [
    Kind(f"photograph.{ending}", _photograph, read_image) for ending in ("jpg", "png", "tif", "webp")
]
KINDS = [
    Kind("weights.safetensors", _weights, lambda path: Weights.read(path).model(torch.device("cpu"))),
    Kind(
        "masks.parquet", _labels, lambda path: (Labels.open(path).table, list(Labels.open(path).soft_grids()))
    ),
    Kind("ious.parquet", _ious, lambda path: read_ious(path.parent)),
    Kind("annotations.parquet", _annotations, _read_annotations),
    Kind("pipeline.toml", lambda path: path.write_text(PIPELINE) and None, load_pipeline),
    Kind("config.json", _json({"name": "mine", "teacher": {"train": {"steps": 3}}}), load_pipeline),
    Kind("state.pt", _state, lambda path: TrainingState(path, {"model": torch.nn.Linear(3, 2)}).restore()),
    Kind("evaluation.json", _json(EVALUATION), lambda path: read_record(path.parent)),
    Kind("done.json", _json({"inputs": {"a": 1}, "outputs": {"b": "0"}, "about": {}}), read_done),
    Kind("inputs.json", _json({"inputs": {"a": 1}, "about": {"a": {"file": "b"}}}), read_begun),
    Kind(
        "instances.json", _instances, lambda path: Dataset.open(path, seen="all").for_evaluation().document()
    ),
    Kind("held-out.parquet", _held_out, lambda path: holdout_figures(read_holdout(path), {HIDDEN: 1.0}, 10)),
    Kind("mine.calibration.json", _calibration, Calibrated.read),
    Kind("ckpt.index", _checkpoint, _read_checkpoint),
    *(Kind(f"photograph.{one}", _photograph, read_image) for one in ("jpg", "png", "tif", "webp")),
]


def fault_of(kind: Kind, path: Path) -> str | None:
    """What is wrong with how a file is read: any error but a DistillError, or one that is not one line."""
    try:
        kind.read(path)
    except DistillError as refused:
        return None if "\n" not in str(refused) else f"not one line: {refused}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


__all__ = ["KINDS", "Kind", "at_random", "fault_of", "mutated"]
