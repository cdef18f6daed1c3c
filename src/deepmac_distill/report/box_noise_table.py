"""Masks in loose boxes as a table."""

from __future__ import annotations

from deepmac_distill.evaluation.box_noise import BoxNoise
from deepmac_distill.report.table import Column, Table, columns, names


def box_noise_table(found: BoxNoise) -> Table:
    """Class-mean IoU by split and strength of noise, beside the ellipse in the noisy boxes and the boxes."""
    return Table(
        "In boxes each side of which moved by up to a share of width or height, mean over classes (%)",
        (
            *names("split"),
            Column("box noise", "text", names_row=True),
            Column("instances", "count"),
            *columns("percent", ("model", "ellipse", "box")),
            Column("model − ellipse", "points"),
            *columns("percent", ("boundary IoU", "of the ellipse")),
        ),
        tuple(
            (
                *(split, f"{level.percent:g} %", row.instances, means.model, means.ellipse, means.box),
                row.model_minus_ellipse,
                *((edges.model, edges.ellipse) if edges else (None, None)),
            )
            for split, _ in found.levels[0].given_boxes.items()
            for level in found.levels
            for row in (level.given_boxes[split],)
            for means in (row.class_mean_iou,)
            for edges in (row.boundary.class_mean_iou if row.boundary else None,)
        ),
    )
