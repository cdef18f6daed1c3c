"""The comparison of mask heads as figures and as one table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.evaluation.means import Means, interval
from deepmac_distill.evaluation.results import Interval, to_json
from deepmac_distill.evaluation.splits import Split
from deepmac_distill.evaluation.summary import paired_ious
from deepmac_distill.experiments.mask_head_rows import GRABCUT, ROWS
from deepmac_distill.report.table import Cell, Column, Table, columns, names
from deepmac_distill.rundir import DONE, read_record


def compare_rows(out: Path, annotations: Annotations, resamples: int = 1000) -> dict[str, Any]:
    """Every figure of the comparison: of each row its class means, and its difference to its rival."""
    ious = {
        name: _mean_over_seeds(out / name) for name in (*ROWS, GRABCUT) if any((out / name).glob(f"*/{DONE}"))
    }
    paired = paired_ious(ious)
    first = next(iter(ious.values()))
    paired = paired.append_column("box", first["box_baseline_iou"])
    models = [*ious, "box"]
    means = Means.of(paired, models, annotations.classes, resamples, seed=0)
    column = {name: position for position, name in enumerate(models)}

    def difference(split: Split, a: str, b: str) -> dict[str, float | None]:
        values = means.class_means[split]
        found: dict[str, float | None] = to_json(interval(values[:, column[a]] - values[:, column[b]]))
        return found

    rows = {}
    for name in models:
        rows[name] = {
            "iou": {split: float(means.class_means[split][0, column[name]]) for split in ("seen", "unseen")},
            "minus_box": {split: difference(split, name, "box") for split in ("seen", "unseen")},
            "unseen_of_each_seed": _of_each_seed(out / name, annotations.classes) if name != "box" else [],
            "misses": float(np.mean(paired[name].to_numpy() == 0)),  # share of the objects of IoU 0
            "training_loss": _training_loss(out / name),
        }
        if name in ROWS and ROWS[name].against in ious:
            row = ROWS[name]
            rows[name] |= {
                "against": row.against,
                "difference": {split: difference(split, name, row.against) for split in ("seen", "unseen")},
                "paper": {"mask AP of unseen classes": row.paper, "where": row.where},
            }
    return rows


def made(out: Path) -> dict[str, Any]:
    """Row -> what its first seed was made with, and where."""
    return {
        path.parts[-3]: {
            "inputs": read_record(path)["inputs"],
            "environment": json.loads((path.parents[1] / "environment.json").read_text(encoding="utf-8")),
        }
        for path in sorted(out.glob(f"*/*/{DONE}"), reverse=True)
    }


def table(document: Mapping[str, Any]) -> Table:
    """The comparison as one table, the best of unseen classes first."""
    rows = sorted(document["rows"].items(), key=lambda item: -item[1]["iou"]["unseen"])
    return Table(
        "Mask heads on a frozen model",
        (
            *names("model"),
            Column("unseen IoU"),
            Column("− box", "points"),
            Column("seen IoU"),
            Column("minus", "text"),
            Column("unseen IoU, ours", "points"),
            *columns("figure", ("unseen mask AP, the paper's", "parameters", "GMACs")),
            *columns("figure", ("forward ms", "training ms", "saved MiB")),
        ),
        tuple(
            (
                *(name, row["iou"]["unseen"], "" if name == "box" else _interval(row["minus_box"])),
                *(row["iou"]["seen"], *_rival_cells(row), *_cost_cells(document["costs"].get(name))),
            )
            for name, row in rows
        ),
    )


def _rival_cells(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The rival, our difference to it and the paper's."""
    if "against" not in row:
        return "", "", ""
    own, rivals = row["paper"]["mask AP of unseen classes"]
    return row["against"], _interval(row["difference"]), f"{own - rivals:+.1f} ({row['paper']['where']})"


def _cost_cells(cost: Mapping[str, float] | None) -> tuple[Cell, ...]:
    if not cost:
        return ("",) * 5
    times = (f"{cost[key]:.1f}" for key in ("forward_ms", "training_ms", "saved_mib"))
    return (f"{cost['parameters']:,}", f"{cost['gmacs']:.3f}", *times)


def _interval(difference: Mapping[str, Any]) -> Interval:
    return Interval(**difference["unseen"])


def _seed_tables(folder: Path) -> list[pa.Table]:
    return [pq.read_table(path).sort_by("row") for path in sorted(folder.glob("seed-*/ious.parquet"))]


def _mean_over_seeds(folder: Path) -> pa.Table:
    """One table: the IoU of an instance is the mean over the seeds."""
    tables = _seed_tables(folder)
    total = tables[0]["iou"]
    for other in tables[1:]:
        total = pc.add(total, other["iou"])
    position = tables[0].schema.get_field_index("iou")
    return tables[0].set_column(position, "iou", pc.divide(total, float(len(tables))))


def _training_loss(folder: Path) -> float | None:
    """Of the mask, at the end: the mean over the last quarter of the log of the first seed; None without."""
    path = folder / "seed-0" / "metrics.jsonl"
    if not path.exists():
        return None
    losses: list[float] = [json.loads(line)["mask"] for line in path.read_text(encoding="utf-8").splitlines()]
    return statistics.mean(losses[-max(len(losses) // 4, 1) :])


def _of_each_seed(folder: Path, classes: Classes) -> list[float]:
    means = [
        Means.of(table, ("iou",), classes, 0, 0).class_means["unseen"][0, 0] for table in _seed_tables(folder)
    ]
    return [float(mean) for mean in means]
