"""Commands and flags. Each command calls one function of `stages` and prints what it returns."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill import __version__
from deepmac_distill.chain import TRAININGS
from deepmac_distill.cli.ending import print_ending
from deepmac_distill.cli.flags import (
    ConfigFile,
    Device,
    Force,
    Out,
    Root,
    Seed,
    Seen,
    Set,
    Strict,
    TrainFile,
    TrainImages,
    ValFile,
    ValImages,
)
from deepmac_distill.cli.jobs import job_of, names_of, overrides_of
from deepmac_distill.cli.results import print_comparison, print_report, print_retention, print_summary
from deepmac_distill.errors import ConfigError, DistillError

app = typer.Typer(
    help="Masks for all your boxes, and a fast detector-segmenter for every class.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    pipeline: Annotated[Path, typer.Argument(help="Pipeline file, such as pipelines/demo.toml.")],
    out: Out = None,
    data: Root = None,
    annotations: TrainFile = None,
    images: TrainImages = None,
    val_annotations: ValFile = None,
    val_images: ValImages = None,
    seen: Seen = None,
    strict: Strict = None,
    device: Device = None,
    seed: Seed = None,
    set_: Set = None,
    force: Force = False,
) -> None:
    """The whole chain: teach, evaluate, pseudolabel, student, evaluate, report.

    What is done is skipped, what was stopped goes on, changed inputs are refused by name.
    """
    flags = overrides_of(data, annotations, images, val_annotations, val_images, seen, device, seed, strict)
    job = job_of(pipeline, out, flags, set_, force)
    from deepmac_distill import stages

    report = stages.run(job)
    if report:
        print_report(report)
        print(f"report: {job.run.path / 'report'}")
    print_ending(job.run.path)


@app.command()
def teach(
    config: ConfigFile = None,
    out: Out = None,
    data: Root = None,
    annotations: TrainFile = None,
    images: TrainImages = None,
    seen: Seen = None,
    strict: Strict = None,
    device: Device = None,
    seed: Seed = None,
    set_: Set = None,
    force: Force = False,
) -> None:
    """Train the teacher: boxes of all classes, masks of the seen ones."""
    flags = overrides_of(data, annotations, images, None, None, seen, device, seed, strict)
    job = job_of(config, out, flags, set_, force)
    from deepmac_distill import stages

    print(stages.teach(job))


@app.command()
def pseudolabel(
    teacher: Annotated[Path | None, typer.Option(help="Weights of the teacher; default: the run's.")] = None,
    config: ConfigFile = None,
    out: Out = None,
    data: Root = None,
    annotations: TrainFile = None,
    images: TrainImages = None,
    seen: Seen = None,
    strict: Strict = None,
    device: Device = None,
    seed: Seed = None,
    set_: Set = None,
    force: Force = False,
) -> None:
    """Masks for every box that has none: masks.parquet (facts) and instances.json (COCO)."""
    flags = overrides_of(data, annotations, images, None, None, seen, device, seed, strict)
    job = job_of(config, out, flags, set_, force)
    from deepmac_distill import stages

    print(stages.pseudolabel(job, teacher))


@app.command()
def student(
    labels: Annotated[
        Path | None, typer.Option(help="instances.json to learn from; default: the run's.")
    ] = None,
    config: ConfigFile = None,
    out: Out = None,
    data: Root = None,
    images: TrainImages = None,
    seen: Seen = None,
    strict: Strict = None,
    device: Device = None,
    seed: Seed = None,
    set_: Set = None,
    force: Force = False,
) -> None:
    """Train the student on human masks of seen classes and the teacher's of the rest."""
    flags = overrides_of(data, None, images, None, None, seen, device, seed, strict)
    job = job_of(config, out, flags, set_, force)
    from deepmac_distill import stages

    print(stages.student(job, labels))


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="teacher, student, student-seen, student-human, or a weights file.")
    ] = "teacher",
    config: ConfigFile = None,
    out: Out = None,
    data: Root = None,
    val_annotations: ValFile = None,
    val_images: ValImages = None,
    seen: Seen = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Print a row for each class too.")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="Average precision by pycocotools.")] = False,
    device: Device = None,
    seed: Seed = None,
    set_: Set = None,
    force: Force = False,
) -> None:
    """Mask IoU in given boxes and COCO AP of detections, for all, seen and unseen classes."""
    judged = _role_or_path(model)
    flags = overrides_of(data, None, None, val_annotations, val_images, seen, device, seed)
    overrides = [*(set_ or []), *(["evaluation.reference=true"] if reference else [])]
    job = job_of(config, out, flags, overrides, force)
    from deepmac_distill import stages

    folder = stages.evaluate(job, judged)
    print_summary(stages.read_summary(folder), per_class)
    print(f"figures: {folder}")


@app.command()
def retention(
    config: ConfigFile = None,
    out: Out = None,
    data: Root = None,
    annotations: TrainFile = None,
    images: TrainImages = None,
    val_annotations: ValFile = None,
    val_images: ValImages = None,
    seen: Seen = None,
    strict: Strict = None,
    device: Device = None,
    seed: Seed = None,
    set_: Set = None,
    force: Force = False,
) -> None:
    """What the teacher's masks are worth: the student beside one without them and one with all human masks.

    Trains those two (`student-seen`, `student-human`), and the student if it is not there.
    """
    flags = overrides_of(data, annotations, images, val_annotations, val_images, seen, device, seed, strict)
    job = job_of(config, out, flags, set_, force)
    from deepmac_distill import stages

    print_retention(stages.retention(job))
    print(f"figures: {job.run.path / 'retention'}")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="An evaluation folder, such as runs/x/evaluate-student.")],
    b: Annotated[Path, typer.Argument(help="Another one, on the same validation set.")],
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of the images.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Paired differences of two evaluations, a minus b, with 95 % intervals."""
    from deepmac_distill import stages

    found = stages.compare(a, b, resamples, seed)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print(f"a: {a}\nb: {b}")
        print_comparison(found, "a", "b")


@app.command()
def sheet(
    evaluations: Annotated[
        list[str], typer.Argument(help="HEADING=FOLDER each, such as student=runs/x/evaluate-student.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the validation images; default: where they lay.")
    ] = None,
    of_each: Annotated[int, typer.Option(min=1, help="So many worst, median and best masks of each.")] = 1,
) -> None:
    """A contact sheet of any evaluations on one validation set: worst, median and best unseen masks."""
    from deepmac_distill import stages

    folders: dict[str, Path] = {}
    for given in evaluations:
        heading, equals, folder = given.partition("=")
        if not (heading and equals and folder) or heading in folders:
            raise ConfigError(f"{given}: expected HEADING=FOLDER, each heading once")
        folders[heading] = Path(folder)
    print(stages.sheet(folders, out, images, of_each))
    print(out)


@app.command()
def check(
    annotations: Annotated[Path, typer.Argument(help="COCO, LVIS or boxes-only JSON.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of its images; they are opened and measured.")
    ] = None,
    seen: Seen = None,
    against: Annotated[
        Path | None, typer.Option(help="A file that must share no image, such as validation.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
) -> None:
    """Everything that is wrong with a data set, before any training. Exit code 2 if there is an error."""
    from deepmac_distill import stages

    problems = list(stages.check(annotations, images, tuple(names_of(seen or ["voc"])), strict, against))
    for problem in problems:
        print(f"{problem.level}: {problem}")
    levels = [problem.level for problem in problems]
    errors = levels.count("error") + (levels.count("warning") if strict else 0)
    print(f"{annotations}: {levels.count('error')} errors, {levels.count('warning')} warnings")
    if errors:
        raise typer.Exit(2)


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="JPEG or PNG.")],
    box: Annotated[
        list[str], typer.Option("--box", help="x,y,w,h in pixels of the image as stored; once per object.")
    ],
    model: Annotated[Path, typer.Option("--model", help="Weights, or a run directory (its teacher).")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Path without suffix; default: IMAGE-masks.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Masks for boxes you give: an overlay PNG and a COCO JSON."""
    boxes_xywh = [_box(text) for text in box]
    import numpy as np

    from deepmac_distill import stages
    from deepmac_distill.devices import pick_device

    weights = model / "teacher" / "weights.safetensors" if model.is_dir() else model
    out = out or image.with_name(f"{image.stem}-masks")
    out = out.with_suffix("") if out.suffix in (".png", ".json") else out
    boxes = np.array(boxes_xywh, dtype=np.float64)
    for annotation in stages.predict(weights, pick_device(device), image, boxes, out)["annotations"]:
        print(
            f"box {annotation['bbox']}: mask of {annotation['area']} px, "
            f"score {annotation['mask_score']:.2f}, fills the box {annotation['mask_bbox_iou']:.2f}"
        )
    print(f"{out}.png {out}.json")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process: 0 done, 1 a bug, 2 the user must fix something, 3 a gate failed."""
    try:
        app(args=arguments)
    except DistillError as error:
        print(f"deepmac: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        print(
            f"deepmac: {error.filename}: {error.strerror}; expected a path that can be used", file=sys.stderr
        )
        sys.exit(2)


def _role_or_path(model: str) -> str | Path:
    if model in TRAININGS:
        return model
    if not Path(model).is_file():
        stages = ", ".join(TRAININGS)
        raise ConfigError(f"{model}: no such file; expected {stages}, or a weights file")
    return Path(model)


def _box(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"--box {text}: expected four numbers x,y,w,h in pixels")
    return numbers
