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
from deepmac_distill.dataset.coco import Annotations
from deepmac_distill.evaluation.means import Means, interval
from deepmac_distill.evaluation.results import Interval, to_json
from deepmac_distill.evaluation.splits import Split
from deepmac_distill.evaluation.summary import paired_ious
from deepmac_distill.experiments.mask_head_rows import GRABCUT, ROWS
from deepmac_distill.report.table import percent, points
from deepmac_distill.rundir import DONE, read_record


def compare_rows(out: Path, annotations: Annotations, resamples: int = 1000) -> dict[str, Any]:
    """Every figure of the comparison: of each row its class means, and its difference to its rival."""
    ious = {
        name: _mean_over_seeds(out / name) for name in (*ROWS, GRABCUT) if any((out / name).glob(f"*/{DONE}"))
    }
    paired = paired_ious(ious)
    first = next(iter(ious.values()))
    paired = paired.append_column("box", first["box_baseline_iou"])
    names = [*ious, "box"]
    means = Means.of(paired, names, annotations.classes, resamples, seed=0)
    column = {name: position for position, name in enumerate(names)}

    def difference(split: Split, a: str, b: str) -> dict[str, float | None]:
        values = means.class_means[split]
        found: dict[str, float | None] = to_json(interval(values[:, column[a]] - values[:, column[b]]))
        return found

    rows = {}
    for name in names:
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


def markdown(document: Mapping[str, Any]) -> str:
    """The comparison as one table."""
    lines = [
        "| model | unseen IoU | − box | seen IoU | minus | unseen IoU, ours | unseen mask AP, the paper's "
        "| parameters | GMACs | forward ms | training ms | kept MiB |",
        "|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in sorted(document["rows"].items(), key=lambda item: -item[1]["iou"]["unseen"]):
        cells = [name, percent(row["iou"]["unseen"])]
        cells += ["" if name == "box" else _points(row["minus_box"]), percent(row["iou"]["seen"])]
        if "against" in row:
            own, rivals = row["paper"]["mask AP of unseen classes"]
            cells += [row["against"], _points(row["difference"])]
            cells += [f"{own - rivals:+.1f} ({row['paper']['where']})"]
        else:
            cells += ["", "", ""]
        cost = document["costs"].get(name)
        if cost:
            cells += [f"{cost['parameters']:,}", f"{cost['gmacs']:.3f}"]
            cells += [f"{cost[key]:.1f}" for key in ("forward_ms", "training_ms", "saved_mib")]
        else:
            cells += [""] * 5
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _points(difference: Mapping[str, Any]) -> str:
    return points(Interval(**difference["unseen"]))


def _seed_tables(folder: Path) -> list[pa.Table]:
    return [
        pq.read_table(path).sort_by("annotation_id") for path in sorted(folder.glob("seed-*/ious.parquet"))
    ]


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
