"""The comparison of mask heads as figures and as one table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.evaluation.means import Means, interval
from deepmac_distill.evaluation.results import Interval, read_result
from deepmac_distill.evaluation.splits import Split
from deepmac_distill.evaluation.summary import paired_ious
from deepmac_distill.experiments.mask_head_costs import Cost
from deepmac_distill.experiments.mask_head_rows import GRABCUTS, ROWS
from deepmac_distill.experiments.run_record import Environment
from deepmac_distill.report.table import Cell, Column, Table, columns, names
from deepmac_distill.rundir import DONE, read_record

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SeenUnseen(Generic[T]):
    """One value for the classes whose masks were shown, one for the others."""

    seen: T
    unseen: T


@dataclass(frozen=True, slots=True)
class Paper:
    """Mask AP of unseen classes in percent, as the paper has it."""

    mask_ap: float
    rivals_mask_ap: float
    where: str  # both stand there


@dataclass(frozen=True, slots=True)
class Against:
    """A row minus its rival, here and in the paper."""

    rival: str
    difference: SeenUnseen[Interval]
    paper: Paper


@dataclass(frozen=True, slots=True)
class RowFigures:
    """One row: IoU in given boxes, means over classes."""

    iou: SeenUnseen[float]
    minus_box: SeenUnseen[Interval]
    unseen_of_each_seed: tuple[float, ...]  # none of the row `box`
    misses: float  # share of the objects of IoU 0
    training_loss: float | None  # None of a row that does not learn
    against: Against | None  # None: no rival, or one that is not there


@dataclass(frozen=True, slots=True)
class Made:
    """What the first seed of a row was made with, and where."""

    inputs: Mapping[str, Any]  # as its stage kept them
    environment: Environment


@dataclass(frozen=True, slots=True)
class MaskHeadFigures:
    """Everything that the comparison finds, by row."""

    environment: Environment  # where the costs were measured
    rows: Mapping[str, RowFigures]
    made: Mapping[str, Made]
    costs: Mapping[str, Cost]  # of the rows that have a mask head


def compare_rows(out: Path, annotations: Annotations, resamples: int = 1000) -> dict[str, RowFigures]:
    """Of each row its class means, and its difference to its rival."""
    ious = {
        name: _mean_over_seeds(out / name)
        for name in (*ROWS, *GRABCUTS)
        if any((out / name).glob(f"*/{DONE}"))
    }
    paired = paired_ious(ious)
    first = next(iter(ious.values()))
    paired = paired.append_column("box iou", first["box_baseline_iou"])
    models = [*ious, "box"]
    of_models = [f"{name} iou" for name in models]
    means = Means.of(paired, of_models, annotations.classes, resamples, seed=0)
    column = {name: position for position, name in enumerate(models)}

    def mean(split: Split, name: str) -> float:
        return float(means.class_means[split][0, column[name]])

    def minus(split: Split, a: str, b: str) -> Interval:
        values = means.class_means[split]
        return interval(values[:, column[a]] - values[:, column[b]])

    def difference(a: str, b: str) -> SeenUnseen[Interval]:
        return SeenUnseen(minus("seen", a, b), minus("unseen", a, b))

    def against(name: str) -> Against | None:
        row = ROWS.get(name)
        if row is None or row.against not in ious:
            return None
        return Against(row.against, difference(name, row.against), Paper(*row.paper, row.where))

    return {
        name: RowFigures(
            iou=SeenUnseen(mean("seen", name), mean("unseen", name)),
            minus_box=difference(name, "box"),
            unseen_of_each_seed=_of_each_seed(out / name, annotations.classes) if name != "box" else (),
            misses=float(np.mean(paired[f"{name} iou"].to_numpy() == 0)),
            training_loss=_training_loss(out / name),
            against=against(name),
        )
        for name in models
    }


def made(out: Path) -> dict[str, Made]:
    """Row -> what its first seed was made with, and where."""
    return {
        path.parts[-3]: Made(
            inputs=read_record(path)["inputs"],
            environment=read_result(path.parents[1] / "environment.json", Environment),
        )
        for path in sorted(out.glob(f"*/*/{DONE}"), reverse=True)
    }


def table(found: MaskHeadFigures) -> Table:
    """The comparison as one table, the best of unseen classes first."""
    rows = sorted(found.rows.items(), key=lambda item: -item[1].iou.unseen)
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
                *(name, row.iou.unseen, "" if name == "box" else row.minus_box.unseen),
                *(row.iou.seen, *_rival_cells(row.against), *_cost_cells(found.costs.get(name))),
            )
            for name, row in rows
        ),
    )


def _rival_cells(against: Against | None) -> tuple[Cell, ...]:
    """The rival, our difference to it and the paper's."""
    if against is None:
        return "", "", ""
    paper = against.paper
    gap = f"{paper.mask_ap - paper.rivals_mask_ap:+.1f} ({paper.where})"
    return against.rival, against.difference.unseen, gap


def _cost_cells(cost: Cost | None) -> tuple[Cell, ...]:
    if cost is None:
        return ("",) * 5
    times = (f"{value:.1f}" for value in (cost.forward_ms, cost.training_ms, cost.saved_mib))
    return (f"{cost.parameters:,}", f"{cost.gmacs:.3f}", *times)


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


def _of_each_seed(folder: Path, classes: Classes) -> tuple[float, ...]:
    means = [
        Means.of(table, ("iou",), classes, 0, 0).class_means["unseen"][0, 0] for table in _seed_tables(folder)
    ]
    return tuple(float(mean) for mean in means)
