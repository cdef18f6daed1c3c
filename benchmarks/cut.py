"""At which cut a teacher's masks are best, by the hidden classes of the training file: numbers and the rule.

    deepmac teach ... --hide fold:0/2 --out RUN
    deepmac pseudolabel --out RUN
    python benchmarks/cut.py RUN [RUN ...] [--cuts 0.3 0.4 0.5 0.6] [--json cut.json]

No model is run: the soft grids in a run's masks.parquet are cut, and the masks of hidden classes are compared
with those that people drew, as `deepmac evaluate --hidden` does. No validation set is read. Differences are
paired, their 95 % intervals are of resampled images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepmac_distill import Run
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.mask_iou import given_box_ious
from deepmac_distill.evaluation.results import PairedIoU, to_json
from deepmac_distill.evaluation.summary import compare_given_boxes
from deepmac_distill.files import write_json
from deepmac_distill.labels.alignment import rows_of
from deepmac_distill.labels.cut import EVEN_CUT, EXPECTED_IOU, Cut
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Cell, Column, Table, columns, names
from deepmac_distill.stages.evaluated_set import EvaluatedSet, hidden_set


def masks_at(labels: Labels, on: EvaluatedSet) -> pa.Table:
    """`row` of the truth and the columns of its label, of the rows that are evaluated."""
    table = on.truth.annotations
    boxes = pc.list_flatten(table["bbox"]).to_numpy().reshape(-1, 4)
    ids, images = (table[name].to_numpy() for name in ("annotation_id", "image_id"))
    rows = rows_of(ids, images, on.truth.image_sizes(), boxes, labels.table)
    wanted = np.flatnonzero(on.wanted)
    return labels.table.take(pa.array(rows[wanted])).append_column("row", pa.array(wanted))


def trust(masks: pa.Table, ious: pa.Table) -> dict[str, float]:
    """How the IoU that grids expect of their masks goes with the true one: both means, and the order."""
    known = dict(zip(masks["row"].to_pylist(), masks["expected_iou"].to_pylist(), strict=True))
    true = ious["iou"].to_numpy()
    expected = np.array([known[row] for row in ious["row"].to_pylist()], dtype=float)
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (expected, true)]
    return {
        "expected_iou": float(np.nanmean(expected)),
        "iou": float(true.mean()),
        "spearman": float(np.corrcoef(*ranks)[0, 1]),
    }


def measure(run: Path, numbers: Sequence[float]) -> tuple[dict[str, PairedIoU], dict[str, float]]:
    """Each cut minus 0.5 on hidden classes, and `trust` in the masks that the rule cuts.

    Raises:
        DataError: the teacher saw masks of the hidden classes, or nobody knows.
    """
    on = hidden_set(Run(run).job)
    labels = Labels.open(run / "pseudolabel" / "masks.parquet")
    seen = labels.seen_mask_classes
    if seen is None or set(seen) & set(on.hidden):
        raise DataError(f"{labels.path}: the teacher saw masks of hidden classes; expected one that did not")
    cuts: list[Cut] = [*numbers, EXPECTED_IOU]
    masks = {cut: masks_at(labels.with_cut(cut), on) for cut in dict.fromkeys([EVEN_CUT, *cuts])}
    ious = {cut: given_box_ious(on.truth, found) for cut, found in masks.items()}
    compared = {
        str(cut): compare_given_boxes(ious[cut], ious[EVEN_CUT], on.truth.classes).unseen for cut in cuts
    }
    return compared, trust(masks[EXPECTED_IOU], ious[EXPECTED_IOU])


def table_of(found: dict[str, dict[str, PairedIoU]]) -> Table:
    """A row a run and cut."""
    rows: list[tuple[Cell, ...]] = [
        (run, cut, row.instances, row.class_mean_iou.a, row.a_minus_b)
        for run, by_cut in found.items()
        for cut, row in by_cut.items()
    ]
    heads = (Column("instances", "count"), *columns("percent", ("mask IoU",)))
    return Table("", (*names("run", "cut"), *heads, *columns("points", ("minus 0.5",))), tuple(rows))


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--cuts", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {str(run): measure(run, args.cuts) for run in args.runs}
    print(markdown_table(table_of({run: compared for run, (compared, _) in found.items()})))
    for run, (_, of) in found.items():
        print(
            f"{run}, by the rule, mean over instances: expected IoU {of['expected_iou']:.3f}, "
            f"IoU {of['iou']:.3f}, Spearman's correlation {of['spearman']:.2f}"
        )
    if args.json:
        write_json(
            args.json, {run: {"cuts": to_json(cuts), "trust": of} for run, (cuts, of) in found.items()}
        )


if __name__ == "__main__":
    main()
