"""Which teacher's recipe to recommend, chosen on seen classes that are hidden from it in the training file.

Each variant of a base recipe trains without the masks of a fold of the seen classes, and is evaluated on them
in the training file's own images. The validation set has no part in it. Where a variant has keys of the
student, the student is evaluated: it is a second teacher, which also learns from the first one's masks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from deepmac_distill.api.run import Run
from deepmac_distill.config import load_pipeline, located
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.evaluation.results import SplitIoU, read_result, to_json
from deepmac_distill.experiments.run_record import Environment
from deepmac_distill.files import write_json
from deepmac_distill.progress import Progress
from deepmac_distill.report.table import MISSING, Table, columns, names

Keys = Mapping[str, object]
RECIPE = "coco_sample"
SHARES: Mapping[str, float] = {"10 % of the masks": 0.1, "30 % of the masks": 0.3}  # that the teacher learns
WINDOWS: Keys = {"boxes": "windows", "window_context": 1.5, "window_size_px": 128, "mirror": True}
MODEL: Keys = {
    "backbone": "tf_efficientnet_lite0",
    "mask_head": "hourglass-20",
    "mask_width": 32,
    "detection": False,
}
TRAIN: Keys = {"views": "windows", "steps": 480, "batch_size": 16, "warmup_steps": 50, "ema_decay": 0.99}
BASE: Keys = {  # short and light, so that many variants can be tried
    "threads": 1,
    "evaluation.gt_boxes_only": True,
    "evaluation.bootstrap": 200,
    "teacher.train.autocast": "off",  # float32 on a GPU too
    "student.train.autocast": "off",
    "teacher.look": WINDOWS,
    **{f"teacher.model.{key}": value for key, value in MODEL.items()},
    **{f"teacher.train.{key}": value for key, value in TRAIN.items()},
}
VARIANTS: Mapping[str, Keys] = {
    "base": {},
    **{name: {} for name in SHARES},
    "whole images": {
        "teacher.look": {"boxes": "image", "mirror": True},
        "teacher.train.views": "images",
        "teacher.train.image_size_px": 320,
        "teacher.train.batch_size": 4,
    },
    "context 2": {"teacher.look": {**WINDOWS, "window_context": 2.0}},
    "centered": {"teacher.train.window_scale_range": [0.9, 1.1], "teacher.train.window_shift": 0.02},
    "160 px": {"teacher.look": {**WINDOWS, "window_size_px": 160}},
    "192 px": {"teacher.look": {**WINDOWS, "window_size_px": 192}},
    "lite2": {"teacher.model.backbone": "tf_efficientnet_lite2"},
    "hourglass-52": {"teacher.model.mask_head": "hourglass-52"},
    "box jitter": {"teacher.train.box_jitter": 0.1},
    "with detection, in turn": {
        "teacher.model.detection": True,
        "teacher.train.views": "both",
        "teacher.train.image_size_px": 320,
        "teacher.train.batch_size": 8,
        "teacher.train.gradient_accumulation_steps": 2,
    },
    "width 64": {"teacher.model.mask_width": 64},
    "backbone learns as fast": {"teacher.train.backbone_lr_factor": 1.0},
    "second round": {
        "labels.targets": "soft",
        "student.look": WINDOWS,
        **{f"student.model.{key}": value for key, value in MODEL.items()},
        **{f"student.train.{key}": value for key, value in TRAIN.items()},
        "student.train.steps": 720,
    },
    "1440 steps": {"teacher.train.steps": 1440, "teacher.train.ema_decay": 0.997},
    "4800 steps": {"teacher.train.steps": 4800, "teacher.train.ema_decay": 0.999},
    "4800 steps, 160 px": {
        "teacher.look": {**WINDOWS, "window_size_px": 160},
        "teacher.train.steps": 4800,
        "teacher.train.ema_decay": 0.999,
    },
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One variant, trained once."""

    variant: str
    hide: str
    seed: int
    cpu_seconds: float  # of training, and of labeling between two rounds, all threads
    environment: Environment
    hidden: SplitIoU  # masks in given boxes of the hidden classes


def choose(
    variant: str, data: str, hide: str, seed: int, out: Path, progress: Progress, workers: int = 0
) -> Choice:
    """Train and evaluate one variant in its own run directory, or find it done.

    Args:
        workers: `data.workers`, which no figure depends on.

    Raises:
        KeyError: there is no such variant.
    """
    changed = VARIANTS[variant]
    keys = {**BASE, "data.root": data, "data.hide": [hide], "data.workers": workers, "seed": seed, **changed}
    twice = any(key.startswith("student.") for key in changed)
    at = out / f"{variant.replace(' ', '-')}-{hide.replace('/', '-of-').replace(':', '-')}-seed-{seed}"
    if (share := SHARES.get(variant)) is not None:
        hidden = hidden_names(keys, hide)  # by name: another number of masks makes other folds
        keys["data.hide"] = hidden
        keys["data.train_annotations"] = str(thinned_file(keys, share, hidden, seed, at.with_suffix(".json")))
    run = Run(at, RECIPE, keys, progress=progress)
    cpu_seconds = _timed(at / "cpu_seconds.json", run.teach)
    if twice:
        cpu_seconds += _timed(at / "cpu_seconds_of_second_round.json", run.pseudolabel, run.student)
    found = run.evaluate("student" if twice else "teacher", hidden=True).given_boxes.unseen
    return Choice(
        variant=variant,
        hide=hide,
        seed=seed,
        cpu_seconds=cpu_seconds,
        environment=read_result(at / "environment.json", Environment),
        hidden=found,
    )


def thinned(
    annotations: Sequence[Mapping[str, Any]], share: float, untouched: Container[int], seed: int
) -> list[dict[str, Any]]:
    """COCO annotations of which a random share keeps its masks; the others keep their boxes alone.

    Args:
        share: of the annotations that have a mask and are of no untouched category, rounded.
        untouched: category ids whose masks all stay.
    """
    masked = [
        i for i, one in enumerate(annotations) if _has_mask(one) and one["category_id"] not in untouched
    ]
    keep = np.random.default_rng(seed).permutation(masked)[: round(share * len(masked))]
    bare = set(masked) - set(keep.tolist())
    return [
        {key: one[key] for key in one if i not in bare or key not in ("segmentation", "area")}
        for i, one in enumerate(annotations)
    ]


def _has_mask(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("segmentation")) and not annotation.get("iscrowd")


def hidden_names(keys: Keys, hide: str) -> list[str]:
    """The classes of a fold of the base's training file."""
    data = load_pipeline(located(Path(RECIPE)), values=dict(keys)).data
    dataset = Dataset.open(Path(data.root) / data.train_annotations, seen=data.seen)
    return sorted(dataset.hidden_names([hide]))


def thinned_file(keys: Keys, share: float, hidden: Container[str], seed: int, to: Path) -> Path:
    """The base's training file with a share of the masks that are not hidden, written to a file."""
    data = load_pipeline(located(Path(RECIPE)), values=dict(keys)).data
    coco = json.loads((Path(data.root) / data.train_annotations).read_bytes())
    ids = {one["id"] for one in coco["categories"] if one["name"] in hidden}
    write_json(to, {**coco, "annotations": thinned(coco["annotations"], share, ids, seed)})
    return to.absolute()


def _timed(kept: Path, *works: Callable[[], object]) -> float:
    """CPU seconds of the works, all threads; those of the first time where they are done already."""
    began = time.process_time()
    for work in works:
        work()
    if not kept.exists():
        write_json(kept, time.process_time() - began)
    return read_result(kept, float)


def keep(choice: Choice, folder: Path) -> Path:
    """Write one small file for the row; returns its path. Rows of a GPU stand beside those of a CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = (choice.variant, choice.hide, f"seed-{choice.seed}", *choice.environment.gpus)
    name = "-".join(parts).replace(" ", "-").replace(",", "")
    path = folder / f"{name.replace('/', '-of-').replace(':', '-')}.json"
    write_json(path, to_json(choice))
    return path


def kept_in(folder: Path) -> list[Choice]:
    """The rows that are there, in the order of `VARIANTS`; those of variants that are gone come last."""
    order = list(VARIANTS)
    found = [read_result(path, Choice) for path in sorted(folder.glob("*.json"))]
    gone = sorted({row.variant for row in found} - set(order))
    return sorted(found, key=lambda row: (row.hide, [*order, *gone].index(row.variant), row.seed))


def table(rows: Iterable[Choice]) -> Table:
    """A row for each variant on one kind of hardware, over its seeds; sizes are of the truth's area."""
    groups: dict[tuple[str, str, str], list[Choice]] = {}
    for row in rows:
        groups.setdefault((row.hide, row.environment.hardware, row.variant), []).append(row)
    bases = {(*key[:2], row.seed): row for key, some in groups.items() if key[2] == "base" for row in some}
    return Table(
        "",
        (
            *names("variant", "hidden", "on"),
            *columns("figure", ("seeds", "CPU minutes")),
            *columns("percent", ("IoU", "small", "medium", "large")),
            *columns("figure", ("− ellipse", "− base, seed by seed")),
        ),
        tuple(
            (
                *(variant, hide, hardware, ", ".join(str(row.seed) for row in some)),
                # On a GPU a process mostly waits, and its CPU time is no cost of the variant.
                MISSING if some[0].environment.gpus else f"{fmean(row.cpu_seconds for row in some) / 60:.1f}",
                *(_mean(value) for value in zip(*map(_ious, some), strict=True)),
                f"{100 * fmean(row.hidden.model_minus_ellipse.value or 0.0 for row in some):+.1f}",
                _minus_base(some, {row.seed: bases.get((hide, hardware, row.seed)) for row in some}),
            )
            for (hide, hardware, variant), some in groups.items()
        ),
    )


def _ious(row: Choice) -> tuple[float | None, ...]:
    """Of all sizes, and of each."""
    sizes = (size.class_mean_iou.model for _, size in row.hidden.by_size.items())
    return (row.hidden.class_mean_iou.model, *sizes)


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def _minus_base(rows: Iterable[Choice], bases: Mapping[int, Choice | None]) -> str:
    """Points by which each seed exceeds the base of the same seed, where there is one."""
    pairs = [(_ious(row)[0], _ious(base)[0]) for row in rows if (base := bases[row.seed]) and row != base]
    points = [100 * (a - b) for a, b in pairs if a is not None and b is not None]
    return ", ".join(f"{value:+.1f}" for value in points) or MISSING
