"""What the masks of three students are worth near their edges, and by the size of the object, as a table."""

from __future__ import annotations

from collections.abc import Iterator

from deepmac_distill.evaluation.retention_results import Retention, RetentionFigures
from deepmac_distill.report.table import Table, names
from deepmac_distill.report.tables import retention_cells, retention_columns


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
