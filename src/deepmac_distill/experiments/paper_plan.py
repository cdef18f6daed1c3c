"""The commands that make the rows of a table of the paper, and what they need to be there."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepmac_distill.chain import SEED, WEIGHTS
from deepmac_distill.errors import ConfigError, DataError
from deepmac_distill.experiments.paper_tables import LOOSE_PERCENT, PaperRow, PaperTable
from deepmac_distill.experiments.paper_trainings import (
    Scale,
    pipeline_of,
    pipeline_text,
    resolved,
    same_run,
    training,
)
from deepmac_distill.experiments.short_training import a_tenth
from deepmac_distill.files import written_whole

PAGE = "https://cocodataset.org/#download"
ARCHIVES = {  # what of COCO is in which archive of that page
    "annotations/instances_train2017.json": "2017 Train/Val annotations",
    "annotations/instances_val2017.json": "2017 Train/Val annotations",
    "annotations/image_info_test-dev2017.json": "2017 Testing Image info",
    "train2017": "2017 Train images",
    "val2017": "2017 Val images",
    "test2017": "2017 Test images",
}
PIPELINE = "pipeline.toml"
Words = list[str]  # of one command, after `deepmac`


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """At which scale, on which data and where rows are run."""

    scale: Scale
    data: Path
    out: Path  # a folder a training, with its pipeline file and a run a seed
    steps: int = 0  # of a trial; 0: those of the protocol
    tenth: bool = False  # a tenth of the protocol's steps, warm-up and decays scaled
    start: str = ""  # weights to start from, for the rows that ask for some
    overrides: tuple[str, ...] = ()  # KEY=VALUE, of every training

    def run(self, name: str, seed: int) -> Path:
        """The run of a training and a seed."""
        return self.out / same_run(name, self.scale) / f"{SEED}{seed}"

    def pipeline(self, name: str) -> Path:
        """The pipeline file of a training."""
        return self.out / same_run(name, self.scale) / PIPELINE


def to_train(rows: Sequence[PaperRow], runs: Runs, recorded: Container[PaperRow] = ()) -> list[str]:
    """The trainings that rows take, each once and after what it starts from.

    Args:
        recorded: rows that take none, since what is asked for is recorded.
    """
    found: dict[str, None] = {}
    for row in rows:
        if row in recorded:
            continue
        if training(row.training).start and not runs.start:
            continue
        if detector := _detector(row.training, runs.scale):
            found[same_run(detector, runs.scale)] = None
        if first := training(row.training).starts_from:
            found[same_run(first, runs.scale)] = None
        found[same_run(row.training, runs.scale)] = None
    return list(found)


def plan(of: PaperTable, names: Sequence[str], runs: Runs, seed: int) -> Iterator[Words]:
    """The commands of some trainings with one seed: each trains, if it learns, then evaluates."""
    for name in names:
        out, begun = ["--out", str(runs.run(name, seed))], _begun(name, runs, seed)
        if "teacher.segmenter" in resolved(name, runs.scale):
            yield ["evaluate", "teacher", *begun]
        else:
            yield ["teach", *begun]
            yield ["evaluate", "teacher", *out]
        if detector := _detector(name, runs.scale):
            boxes = runs.run(detector, seed) / "evaluate-teacher"
            yield ["evaluate", "teacher", *out, "--boxes-of", str(boxes)]
        if of.measure(runs.scale) == "IoU in loose boxes":
            yield ["evaluate", "teacher", *out, "--box-noise", str(LOOSE_PERCENT)]
        if of.server and runs.scale == "coco":
            info = runs.data / "annotations" / of.server
            weights = str(runs.run(name, seed) / "teacher" / WEIGHTS)
            given = [
                "--image-info",
                str(info),
                "--model",
                weights,
                "--out",
                str(runs.run(name, seed) / "server"),
            ]
            yield ["detect", str(runs.data / "test2017"), *given]


def _detector(name: str, scale: Scale) -> str:
    """The training whose model detects the boxes of a row, at the scale at which detection is measured."""
    return training(name).behind if scale == "coco" else ""


def _begun(name: str, runs: Runs, seed: int) -> Words:
    """What a run is begun with: its pipeline file, data, folder, seed and start weights."""
    return [
        *("--config", str(runs.pipeline(name)), "--data", str(runs.data), "--out", str(runs.run(name, seed))),
        *(word for override in overrides_of(name, runs, seed) for word in ("--set", override)),
    ]


def overrides_of(name: str, runs: Runs, seed: int) -> list[str]:
    """KEY=VALUE of what a run differs in from its pipeline file."""
    one = training(name)
    start = runs.start if one.start else ""
    if one.starts_from:
        start = str(runs.run(one.starts_from, seed) / "teacher" / WEIGHTS)
    overrides = [f"seed={seed}"]
    if runs.steps:
        overrides.append(f"teacher.train.steps={runs.steps}")
    elif runs.tenth:
        overrides += _tenth(name, runs.scale)
    return [*overrides, *runs.overrides, *([f"teacher.train.init_from={start}"] if start else [])]


def _tenth(name: str, scale: Scale) -> list[str]:
    teacher = pipeline_of(name, scale).teacher
    return [] if teacher.segmenter else a_tenth("teacher", teacher.train)  # a segmenter learns nothing


def write_pipelines(names: Sequence[str], runs: Runs) -> None:
    """One pipeline file a training, each whole by itself."""
    for name in names:
        with written_whole(runs.pipeline(name)) as aside:
            aside.write_text(pipeline_text(name, runs.scale) + "\n", encoding="utf-8")


def require_data(of: PaperTable, names: Sequence[str], runs: Runs) -> None:
    """Refuse a folder that lacks what the trainings read, before anything starts.

    Raises:
        DataError: names each file and folder that is not there, and the page that has them.
        ConfigError: no folder is named.
    """
    if not str(runs.data) or runs.data == Path():
        raise ConfigError(
            f"{of.id}: data: got nothing, expected a folder (COCO=FOLDER, or SMALL=1 DATA=FOLDER)"
        )
    keys = ("train_annotations", "train_images", "val_annotations", "val_images")
    needed = {resolved(name, runs.scale).get(f"data.{key}", "") for name in names for key in keys}
    if of.server and runs.scale == "coco":
        needed |= {f"annotations/{of.server}", "test2017"}
    lacking = [name for name in sorted(filter(None, needed)) if not (runs.data / name).exists()]
    if lacking:
        archives = dict.fromkeys(repr(ARCHIVES[name]) for name in lacking if name in ARCHIVES)
        where = f"{' and '.join(archives)} of {PAGE}" if archives else "a folder as of make coco-sample"
        raise DataError(f"{runs.data}: {', '.join(lacking)}: not there; expected {where}")
