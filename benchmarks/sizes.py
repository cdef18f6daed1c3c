"""The table of masks by the size of the object and near its edge, of a run that `results.py` recorded."""

from __future__ import annotations

from typing import Any

from deepmac_distill.evaluation.results import SizeIoU, SplitIoU, from_json
from deepmac_distill.evaluation.splits import Split
from deepmac_distill.experiments.run_record import RunRecord, record_over_seeds
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Cell, Column, Table, columns, names
from deepmac_distill.report.tables import interval_note

SPLITS: tuple[Split, ...] = ("seen", "unseen")


def page(*recorded: Any) -> str:
    """Markdown: IoU in given boxes of teacher and student, of all sizes and of each, over the seeds."""
    seeds, result = record_over_seeds([from_json(value, RunRecord, "chain") for value in recorded])
    table = Table(
        "",
        (
            *names("model", "classes", "size"),
            Column("instances", "count"),
            *columns("percent", ("mask IoU", "ellipse")),
            Column("model − ellipse", "points"),
            *columns("percent", ("boundary IoU", "ellipse's boundary IoU")),
        ),
        tuple(
            (role, split, size, *_cells(row))
            for role, found in (("teacher", result.teacher), ("student", result.student))
            if found
            for split in SPLITS
            for size, row in (("all", found.given_boxes[split]), *found.given_boxes[split].by_size.items())
        ),
    )
    return (
        f"{markdown_table(table)}\n\n"
        f"`{result.command}`; in given boxes, means over classes, in percent; brackets are "
        f"{interval_note(seeds)}. Small is below 32 x 32 px of mask, large from 96 x 96 px."
    )


def _cells(row: SplitIoU | SizeIoU) -> tuple[Cell, ...]:
    means, edges = row.class_mean_iou, row.boundary.class_mean_iou if row.boundary else None
    return (
        *(row.instances, means.model, means.ellipse, row.model_minus_ellipse),
        *((edges.model, edges.ellipse) if edges else (None, None)),
    )
