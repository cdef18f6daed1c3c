"""What the comparison of mask heads keeps, a small file a training, so that a table fills row by row.

FOLDER/ROW-seed-N.json holds a training, FOLDER/instances.json the instances on which all were evaluated:
together they are what a table needs, with intervals of resampled images.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.results import read_result, to_json
from deepmac_distill.experiments.mask_head_costs import Cost
from deepmac_distill.experiments.mask_head_rows import ROWS, values_of
from deepmac_distill.experiments.run_record import Environment
from deepmac_distill.files import written_whole

INSTANCES, COSTS = "instances.json", "costs.json"
DECIMALS = 4  # of a kept IoU: a class mean is right to 1e-5
Ious = tuple[float, ...]  # one an instance


@dataclass(frozen=True, slots=True)
class Instances:
    """The evaluated instances in the order of the truth's rows, and what needs no training on them."""

    truth: str  # fingerprint of annotations and seen classes
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    seen: tuple[bool, ...]
    image_id: tuple[int, ...]
    category_id: tuple[int, ...]
    area: tuple[int, ...]  # pixels of the truth
    box: Ious
    ellipse: Ious
    box_boundary: Ious
    ellipse_boundary: Ious

    @classmethod
    def of(cls, ious: pa.Table, classes: Classes, truth: str) -> Instances:
        """The instances of a table of `mask_iou.IOU_SCHEMA`."""
        columns = ("box_baseline_iou", "ellipse_iou", "box_boundary_iou", "ellipse_boundary_iou")
        kept = ious.sort_by("row")
        named = (tuple(kept[name].to_pylist()) for name in ("image_id", "category_id", "area"))
        return cls(
            *(truth, classes.names, classes.category_ids, classes.seen),
            *named,
            *(rounded(kept[name]) for name in columns),
        )

    @property
    def classes(self) -> Classes:
        """Of the data, with those whose masks were shown."""
        return Classes(self.class_names, self.category_ids, self.seen)


@dataclass(frozen=True, slots=True)
class HeadRun:
    """One training of one row, or a row that learns nothing."""

    row: str
    seed: int
    recipe: Mapping[str, Any]  # key -> value, of everything that decides the result but data and seed
    environment: Environment
    truth: str  # fingerprint, as of `Instances`
    seconds: Mapping[str, float]  # stage: since its last start
    training_loss: float | None  # of masks, mean of the last quarter of the log; None: it does not learn
    iou: Ious
    boundary_iou: Ious

    @property
    def name(self) -> str:
        """Of its file."""
        return run_name(self.row, self.seed)


@dataclass(frozen=True, slots=True)
class Costs:
    """What each row's mask head costs, and where the times were taken."""

    environment: Environment
    costs: Mapping[str, Cost]


@dataclass(frozen=True, slots=True)
class Results:
    """What a folder holds."""

    instances: Instances
    runs: tuple[HeadRun, ...]  # rows and seeds in order
    costs: Costs | None


def run_name(row: str, seed: int) -> str:
    """The file of a training.

    >>> run_name("resnet-4", 2)
    'resnet-4-seed-2.json'
    """
    return f"{row}-seed-{seed}.json"


def read_results(folder: Path) -> Results:
    """Everything that is there so far.

    Raises:
        RunError: nothing is there, a file is broken, or two runs do not belong into one table.
    """
    paths = [path for row in ROWS for path in sorted(folder.glob(f"{row}-seed-*.json"), key=_seed)]
    if not paths:
        raise RunError(f"{folder}: no results there; expected files such as {run_name(ROWS[0], 0)}")
    instances = read_result(folder / INSTANCES, Instances)
    runs = tuple(read_result(path, HeadRun) for path in paths)
    first: dict[bool, HeadRun] = {}
    for path, run in zip(paths, runs, strict=True):
        _require_one_table(path, run, first.setdefault(_learns(run), run), instances)
    costs = folder / COSTS
    return Results(instances, runs, read_result(costs, Costs) if costs.exists() else None)


def write_result(path: Path, result: object) -> None:
    """As JSON, a line a key: a long list of numbers is one line."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in to_json(result).items()]
    with written_whole(path) as aside:
        aside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def rounded(column: pa.ChunkedArray) -> Ious:
    """IoUs with few digits."""
    return tuple(np.round(column.to_numpy(), DECIMALS).tolist())


def refuse_other_recipe(
    where: object, made: Mapping[str, Any], now: Mapping[str, Any], but: Collection[str] = ()
) -> None:
    """Refuse what was made by another recipe; keys that only one of the two has are no difference.

    Args:
        but: keys that may differ.

    Raises:
        RunError: names the first key that differs.
    """
    for key in sorted((made.keys() & now.keys()) - set(but)):
        if made[key] != now[key]:
            raise RunError(f"{where}: made with {key} = {made[key]!r}, expected {now[key]!r} as now")


def _require_one_table(path: Path, run: HeadRun, first: HeadRun, instances: Instances) -> None:
    if run.truth != instances.truth or len(run.iou) != len(instances.box):
        raise RunError(f"{path}: evaluated on other data than {INSTANCES} has; expected the same")
    refuse_other_recipe(path, run.recipe, first.recipe, but=values_of(run.row).keys())


def _learns(run: HeadRun) -> bool:
    return run.training_loss is not None


def _seed(path: Path) -> int:
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
