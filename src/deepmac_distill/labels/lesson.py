"""What a student learns from: human masks as they were drawn, and the teacher's by the rules of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.data.dataset import SoftGrid
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.labels.alignment import rows_of
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.quality import QUALITY
from deepmac_distill.labels.rules import Rules

MaskWeight = Literal["none", "mask_score", "expected_iou", "quality"]
Targets = Literal["hard", "soft"]


@dataclass(frozen=True, slots=True)
class Lesson:
    """Annotations to train on, and how the teacher's masks among them count."""

    annotations: Annotations
    mask_weight: NDArray[np.float32] | None = None  # (N,) of each mask in the loss; None: 1
    soft: Mapping[int, SoftGrid] = field(default_factory=dict)  # row -> grid over the clipped box
    counts: Mapping[str, int] = field(default_factory=dict)  # of the boxes, by what became of their masks


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenLabels:
    """Labels, and which of them count how much: decided when they are read, never stored with them."""

    labels: Labels
    rules: Rules = field(default_factory=Rules)
    mask_weight: MaskWeight = "none"  # of a teacher's mask: 1, or a column of the labels
    targets: Targets = "hard"  # a teacher's masks, or its grids

    def inputs(self) -> dict[str, Any]:
        """What a training that takes these depends on, by name; options only where they are set."""
        inputs = {f"labels.{name}": value for name, value in asdict(self.rules).items()}
        inputs |= {**self.labels.cut_inputs(), "student labels": self.labels.sha256}
        if self.mask_weight != "none":
            inputs["labels.mask_weight"] = self.mask_weight
        if self.uses_quality and self.labels.quality is not None:
            inputs["calibration"] = self.labels.quality.sha256
        if self.targets != "hard":
            inputs["labels.targets"] = self.targets
        return inputs

    def unnamed(self) -> dict[str, Any]:
        """What inputs were that earlier versions did not name."""
        return {"labels.min_expected_iou": 0.0, "labels.min_quality": 0.0}

    @property
    def uses_quality(self) -> bool:
        """Whether what is learned depends on the masks' quality."""
        return self.rules.min_quality > 0 or self.mask_weight == QUALITY

    def lesson(self, view: Annotations) -> Lesson:
        """The view with the teacher's masks where no human's is, each of its rows by the rules.

        A box whose mask was rejected or never drawn follows `rules.on_rejected`. Masks that an earlier
        teacher left in the data set give way.

        Raises:
            DataError: the labels are of other annotations, or hold no value that an option asks for.
        """
        table = view.annotations
        boxes = pc.list_flatten(table["bbox"]).to_numpy().reshape(-1, 4)
        ids, images = (table[name].to_numpy() for name in ("annotation_id", "image_id"))
        rows = rows_of(ids, images, view.image_sizes(), boxes, self.labels.table)
        labels = self.labels.table.take(pa.array(rows))
        human = view.has_human_mask()
        accepted = self.rules.accept(labels) & ~human
        table = _with_teacher_masks(table, labels, human, accepted)
        kept = np.ones(len(table), dtype=bool)
        if self.rules.on_rejected == "drop":
            kept = human | accepted
        if self.rules.on_rejected == "ignore":
            table = _ignored(table, ~(human | accepted))
        return Lesson(
            annotations=replace(view, annotations=table if kept.all() else table.filter(pa.array(kept))),
            mask_weight=self._weights(labels, accepted)[kept] if self.mask_weight != "none" else None,
            soft=self._grids(rows, accepted, kept) if self.targets == "soft" else {},
            counts={
                "human": int(human.sum()),
                "teacher": int(accepted.sum()),
                "without a mask": int(kept.sum() - human.sum() - accepted.sum()),
                "dropped": int((~kept).sum()),
            },
        )

    def _weights(self, labels: pa.Table, accepted: NDArray[np.bool_]) -> NDArray[np.float32]:
        values = labels[self.mask_weight]
        missing = accepted & np.asarray(pc.is_null(values))
        if missing.any():
            annotation = labels["annotation_id"][int(np.flatnonzero(missing)[0])]
            raise DataError(
                f"{self.labels.path}: annotation {annotation}: {self.mask_weight}: got none; "
                f"labels.mask_weight = {self.mask_weight!r} expects all (are its grids probabilities?)"
            )
        return np.where(accepted, np.asarray(pc.fill_null(values, 0)), 1).astype(np.float32)

    def _grids(
        self, rows: NDArray[np.int64], accepted: NDArray[np.bool_], kept: NDArray[np.bool_]
    ) -> dict[int, SoftGrid]:
        """Soft grids of accepted rows by their number among the kept ones; all in memory."""
        number = np.full(len(rows), -1)
        number[rows[accepted]] = (kept.cumsum() - 1)[accepted]
        grids: dict[int, SoftGrid] = {}
        for first, some in self.labels.soft_grids():
            for at, grid in enumerate(some, start=first):
                if number[at] >= 0 and grid is not None:
                    grids[int(number[at])] = grid
        if len(grids) < accepted.sum():
            raise DataError(
                f"{self.labels.path}: got {len(grids)} soft grids of {accepted.sum()} accepted masks; "
                "labels.targets = 'soft' expects all (labels.soft = true when labeling)"
            )
        return grids


def _with_teacher_masks(
    table: pa.Table, labels: pa.Table, human: NDArray[np.bool_], accepted: NDArray[np.bool_]
) -> pa.Table:
    """The annotation table with the accepted masks, the humans' untouched, and no others."""
    person, teacher = pa.array(human), pa.array(accepted)
    for name, column in (("rle_counts", "rle_counts"), ("area", "mask_area"), ("mask_score", "mask_score")):
        kind = table.schema.field(name).type
        drawn = pc.if_else(person, table[name], pa.scalar(None, kind))
        table = _replaced(table, name, pc.if_else(teacher, labels[column].cast(kind), drawn))
    outlines = pc.if_else(person, table["polygons"], pa.scalar(None, table.schema.field("polygons").type))
    table = _replaced(table, "polygons", outlines)
    source = pc.if_else(teacher, "teacher", "none")
    return _replaced(table, "source", pc.if_else(person, "human", source))


def _ignored(table: pa.Table, rejected: NDArray[np.bool_]) -> pa.Table:
    """Rejected boxes as regions to ignore, which COCO calls crowds."""
    where = pa.array(rejected)
    for name, value in (("iscrowd", True), ("status", "crowd"), ("reason", "iscrowd is 1")):
        table = _replaced(table, name, pc.if_else(where, value, table[name]))
    return table


def _replaced(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), column)
