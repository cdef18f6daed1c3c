"""Which teacher's recipe to recommend, chosen on seen classes that are hidden from it in the training file.

Each variant of a base recipe trains without the masks of a fold of the seen classes, and is evaluated on them
in the training file's own images. The validation set has no part in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deepmac_distill.api.run import Run
from deepmac_distill.evaluation.results import SplitIoU, read_result, to_json
from deepmac_distill.experiments.run_record import Environment
from deepmac_distill.files import write_json
from deepmac_distill.progress import Progress
from deepmac_distill.report.table import Column, Table, columns, names

Keys = Mapping[str, object]
RECIPE = "coco_sample"
BASE: Keys = {  # short and light, so that many variants can be tried
    "threads": 1,
    "evaluation.gt_boxes_only": True,
    "evaluation.bootstrap": 200,
    "teacher.model.backbone": "tf_efficientnet_lite0",
    "teacher.model.mask_head": "hourglass-20",
    "teacher.model.mask_width": 32,
    "teacher.model.detection": False,
    "teacher.look": {"boxes": "windows", "window_context": 1.5, "window_size_px": 128},
    "teacher.train.views": "windows",
    "teacher.train.steps": 480,
    "teacher.train.batch_size": 16,
    "teacher.train.warmup_steps": 50,
    "teacher.train.ema_decay": 0.99,
}
VARIANTS: Mapping[str, Keys] = {
    "base": {},
    "whole images": {
        "teacher.look": {"boxes": "image"},
        "teacher.train.views": "images",
        "teacher.train.image_size_px": 320,
        "teacher.train.batch_size": 4,
    },
    "mirror": {"teacher.look": {"boxes": "windows", "mirror": True}},
    "context 2": {"teacher.look": {"boxes": "windows", "window_context": 2.0}},
    "centered": {"teacher.train.window_scale_range": [0.9, 1.1], "teacher.train.window_shift": 0.02},
    "160 px": {"teacher.look": {"boxes": "windows", "window_size_px": 160}},
    "lite2": {"teacher.model.backbone": "tf_efficientnet_lite2"},
    "hourglass-52": {"teacher.model.mask_head": "hourglass-52"},
    "width 64": {"teacher.model.mask_width": 64},
    "backbone learns as fast": {"teacher.train.backbone_lr_factor": 1.0},
    "960 steps": {"teacher.train.steps": 960},
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One variant, trained once."""

    variant: str
    hide: str
    seed: int
    cpu_seconds: float  # of the training, all threads
    environment: Environment
    hidden: SplitIoU  # masks in given boxes of the hidden classes


def choose(variant: str, data: str, hide: str, seed: int, out: Path, progress: Progress) -> Choice:
    """Train and evaluate one variant in its own run directory, or find it done.

    Raises:
        KeyError: there is no such variant.
    """
    keys = {**BASE, "data.root": data, "data.hide": [hide], "seed": seed, **VARIANTS[variant]}
    at = out / f"{variant.replace(' ', '-')}-{hide.replace('/', '-of-').replace(':', '-')}-seed-{seed}"
    run = Run(at, RECIPE, keys, progress=progress)
    kept, began = at / "cpu_seconds.json", time.process_time()
    run.teach()
    if not kept.exists():
        write_json(kept, time.process_time() - began)
    found = run.evaluate(hidden=True).given_boxes.unseen
    return Choice(
        variant=variant,
        hide=hide,
        seed=seed,
        cpu_seconds=read_result(kept, float),
        environment=read_result(at / "environment.json", Environment),
        hidden=found,
    )


def keep(choice: Choice, folder: Path) -> Path:
    """Write one small file for the row; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{choice.variant}-{choice.hide}-seed-{choice.seed}".replace(" ", "-")
    path = folder / f"{name.replace('/', '-of-').replace(':', '-')}.json"
    write_json(path, to_json(choice))
    return path


def kept_in(folder: Path) -> list[Choice]:
    """The rows that are there, in the order of `VARIANTS`."""
    order = list(VARIANTS)
    found = [read_result(path, Choice) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda row: (row.hide, order.index(row.variant), row.seed))


def table(rows: Iterable[Choice]) -> Table:
    """A row for each; sizes are of the truth's area."""
    return Table(
        "",
        (
            *names("variant", "hidden", "seed"),
            *columns("figure", ("CPU minutes",)),
            *columns("percent", ("IoU", "small", "medium", "large")),
            Column("− ellipse", "points"),
        ),
        tuple(
            (
                *(row.variant, row.hide, str(row.seed), f"{row.cpu_seconds / 60:.1f}"),
                row.hidden.class_mean_iou.model,
                *(size.class_mean_iou.model for _, size in row.hidden.by_size.items()),
                row.hidden.model_minus_ellipse,
            )
            for row in rows
        ),
    )
