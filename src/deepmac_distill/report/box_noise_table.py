"""Masks in loose boxes as a table."""

from __future__ import annotations

from deepmac_distill.evaluation.box_noise import BoxNoise
from deepmac_distill.report.table import Column, Table, columns, names


def why_nothing_is_measured(found: BoxNoise) -> str:
    """One line that explains rows without figures; empty where there are figures."""
    splits = found.levels[0].given_boxes
    if not splits.all.instances:
        return "no figures: the data has no human mask in a usable box"
    if not splits.unseen.instances:
        return "unseen: no figures: the data has no human masks of unseen classes that the model never saw"
    return ""


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
