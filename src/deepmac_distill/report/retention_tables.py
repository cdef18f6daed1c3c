"""What the masks of three students are worth, as tables."""

from __future__ import annotations

from collections.abc import Iterator

from deepmac_distill.evaluation.retention_results import Retention, RetentionFigures
from deepmac_distill.report.table import Cell, Column, Table, columns, names
from deepmac_distill.report.tables import LEAST, least_cell


def retention_table(retention: Retention) -> Table:
    """Mask IoU and mask AP of the three students."""
    found: list[tuple[str, str, RetentionFigures | None]] = [
        ("IoU", split, row.class_mean_iou) for split, row in retention.given_boxes.items()
    ]
    if retention.detected.segm is not None:
        found += [("AP", split, row) for split, row in retention.detected.segm.items()]
    return Table(
        "The student from human masks of seen classes (human_seen), from the teacher's masks of the rest too "
        "(pseudo), from all human masks (human_all). Retention is (pseudo − human_seen) / "
        "(human_all − human_seen). Mask IoU in given boxes, mean over classes, and mask AP (%)",
        (*names("of", "split"), *retention_columns()),
        tuple((of, split, *retention_cells(row)) for of, split, row in found if row is not None),
    )


def retention_columns() -> tuple[Column, ...]:
    """Columns of the figures of three students."""
    return (
        *columns("percent", ("human_seen", "pseudo", "human_all")),
        *columns("points", ("pseudo − human_seen", "human_all − pseudo", "human_all − human_seen")),
        *columns("percent", (LEAST,)),
        *columns("share", ("retention", "pseudo / human_all")),
    )


def retention_cells(row: RetentionFigures) -> tuple[Cell, ...]:
    """The cells below `retention_columns`."""
    arms = (row.human_seen, row.pseudo, row.human_all)
    differences = (row.pseudo_minus_human_seen, row.human_all_minus_pseudo, row.human_all_minus_human_seen)
    return (*arms, *differences, least_cell(*differences), row.retention, row.pseudo_over_human_all)


def retention_sizes_table(retention: Retention) -> Table:
    """Boundary IoU, and mask IoU of each size; no rows where an earlier version did not measure them."""

    def rows() -> Iterator[tuple[str, str, RetentionFigures]]:
        for split, found in retention.given_boxes.items():
            if found.boundary is not None:
                yield "boundary IoU", split, found.boundary
        for split, found in retention.given_boxes.items():
            for size, figures in found.by_size.items() if found.by_size is not None else ():
                yield f"IoU, {size}", split, figures

    return Table(
        "The same, of boundary IoU in given boxes and of mask IoU by size, mean over classes (%)",
        (*names("of", "split"), *retention_columns()),
        tuple((of, split, *retention_cells(figures)) for of, split, figures in rows()),
    )
