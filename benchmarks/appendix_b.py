"""Appendix B of arXiv:2104.00613: its steps, and our figures beside the paper's.

    python benchmarks/appendix_b.py run b1|b2|b paper|small --data FOLDER [--lvis FILE] [--anyway]
    python benchmarks/appendix_b.py table paper|small

`run` forecasts every step, does those that are not done, and ends in the table; `table` reads what is there.
The runs lie in runs/NAME, as those of any pipeline file; the table is kept as JSON and Markdown in
runs/appendix_b or runs/appendix_b_small.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from deepmac_distill.config import DeepMacConfig, RoleConfig, load_pipeline
from deepmac_distill.files import write_json
from deepmac_distill.paper import claims

ROOT = Path(__file__).parents[1]
PIPELINES = ROOT / "src/deepmac_distill/recipes"
SPLITS = {"all": "all", "seen": "VOC", "unseen": "non-VOC"}  # ours: the paper's name
MISSING = "–"

# Row of the paper's figures -> run folder and role, for each protocol; the pipeline file is of the same name.
RUNS = {
    "paper": {
        "teacher given boxes": ("teacher_hg100", "teacher"),
        "teacher mask AP": ("teacher_hg100", "teacher"),
        "student deepmac": ("teacher_hg100", "student"),
        "student mask rcnn r50": ("student_mask_rcnn_r50", "student"),
        "student mask rcnn sn143": ("student_mask_rcnn_sn143", "student"),
        "lvis resnet4": ("lvis_resnet4", "teacher"),
        "lvis hg100": ("lvis_hg100", "teacher"),
    },
    "small": {
        "teacher given boxes": ("coco_sample", "teacher"),
        "teacher mask AP": ("coco_sample", "teacher"),
        "student deepmac": ("coco_sample", "student"),
        "student mask rcnn r50": ("coco_sample_mask_rcnn", "student"),
    },
}
# Rows whose figure is measured by benchmarks/latency.py, and the role of the run that it is of.
TIMED = {"speed hg100": "teacher", "speed resnet4": "student"}
FOLDERS = {"paper": "appendix_b", "small": "appendix_b_small"}  # of the table, among the runs
LEFT_OUT = "left out of the sample"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the paper and what we have beside it."""

    where: str
    model: str
    kind: str
    paper: dict[str, float]  # split -> figure, as published
    ours: dict[str, float | None] | None  # split -> figure; None: not run
    ran: str  # the model that was run, or why none was


@dataclass(frozen=True, slots=True)
class Step:
    """One command: its program, and its words."""

    program: Literal["deepmac", "latency"]
    words: list[str]


def plan(
    part: str, protocol: str, data: str, runs: Path = Path("runs"), lvis: str = "", anyway: bool = False
) -> list[Step]:
    """The commands of `b1` (the teacher), `b2` (and its students) or `b` (and LVIS), forecasts first."""
    main = RUNS[protocol]["teacher given boxes"][0]
    named = dict.fromkeys(name for name, _ in RUNS[protocol].values())
    students = [name for name in named if "student" in _roles(protocol, name) and name != main]
    students = [] if part == "b1" else students
    other_teachers = [name for name in named if "student" not in _roles(protocol, name)]
    other_teachers = other_teachers if part == "b" and lvis else []
    truth = ["--set", f"data.val_annotations={Path(lvis).absolute()}"]

    def begun(name: str) -> list[str]:
        return [str(_file(name)), "--data", data, "--out", str(runs / name)]

    forecasts = [[*begun(main), *(["--teacher"] if part == "b1" else [])]]
    forecasts += [[*begun(name), "--student"] for name in students]
    forecasts += [[*begun(name), *truth, "--teacher"] for name in other_teachers]
    work = [["teach", "--config", *begun(main)], ["evaluate", "teacher", "--out", str(runs / main)]]
    if part != "b1":
        at = ["--out", str(runs / main)]
        work += [["pseudolabel", *at], ["student", *at], ["evaluate", "student", *at]]
    for name in students:
        labels = str(runs / main / "select" / "instances.json")
        work += [["student", "--config", *begun(name), "--labels", labels]]
        work += [["evaluate", "student", "--out", str(runs / name)]]
    for name in other_teachers:
        work += [
            ["teach", "--config", *begun(name), *truth],
            ["evaluate", "teacher", "--out", str(runs / name)],
        ]
    steps = [Step("deepmac", ["forecast", *words, *(["--anyway"] if anyway else [])]) for words in forecasts]
    steps += [Step("deepmac", words) for words in work]
    if part == "b1":
        return steps
    return [
        *steps,
        _sheet(protocol, main, students, data, runs),
        _timing(protocol, main, students, data, runs),
    ]


def _sheet(protocol: str, main: str, students: Sequence[str], data: str, runs: Path) -> Step:
    """Masks of teacher and students beside the truth."""
    folders = {"teacher": runs / main / "evaluate-teacher", "student": runs / main / "evaluate-student"}
    folders |= {name: runs / name / "evaluate-student" for name in students}
    config = load_pipeline(_file(main)).data
    words = [*(f"{name}={folder}" for name, folder in folders.items())]
    words += ["--images", str(Path(data) / (config.val_images or config.train_images))]
    return Step("deepmac", ["sheet", *words, "--out", str(runs / FOLDERS[protocol] / "contact_sheet.png")])


def _timing(protocol: str, main: str, students: Sequence[str], data: str, runs: Path) -> Step:
    """Teacher and students in turn, on the validation images."""
    weights = {"teacher": runs / main / "teacher", "student": runs / main / "student"}
    weights |= {name: runs / name / "student" for name in students}
    config = load_pipeline(_file(main)).data
    return Step(
        "latency",
        [
            *(f"{name}={folder / 'weights.safetensors'}" for name, folder in weights.items()),
            *("--annotations", str(Path(data) / config.val_annotations)),
            *("--images", str(Path(data) / (config.val_images or config.train_images))),
            *("--json", str(runs / FOLDERS[protocol] / "latency.json")),
        ],
    )


def run(steps: Sequence[Step]) -> int:
    """Do the steps in their order; the exit code of the first that fails, or 0."""
    programs = {"deepmac": ["-m", "deepmac_distill"], "latency": [str(ROOT / "benchmarks" / "latency.py")]}
    for step in steps:
        print(f"$ {step.program} {shlex.join(step.words)}", flush=True)
        ended = subprocess.run([sys.executable, *programs[step.program], *step.words], check=False)
        if ended.returncode:
            return ended.returncode
    return 0


def rows(runs: Path, protocol: str) -> list[Row]:
    """Every row of the paper's figures, with ours where a run has them."""
    found = []
    for claim in claims():
        ours, ran = _ours(runs, protocol, claim.id, claim.kind)
        found.append(Row(claim.where, claim.model, claim.kind, dict(claim.figures), ours, ran))
    return found


def figures_of(summary: Mapping[str, Any], kind: str) -> dict[str, float | None] | None:
    """The figures of a `summary.json` in percent: {split: value}; None where it has none of that kind."""
    if kind == "mask IoU in given boxes":
        given = summary["given_boxes"]
        values = {split: given[split]["class_mean_iou"]["model"] for split in SPLITS}
    elif summary["detected"]["segm"] is None:
        return None
    else:
        values = {split: summary["detected"]["segm"][split]["AP"] for split in SPLITS}
    return {split: None if value is None else 100 * value for split, value in values.items()}


def described(recipe: RoleConfig) -> str:
    """A model and its training in a few words."""
    model, train = recipe.model, recipe.train
    kind = f"deepmac with {model.mask_head}" if isinstance(model, DeepMacConfig) else "mask_rcnn"
    images = train.batch_size * train.gradient_accumulation_steps
    return f"{kind} on {model.backbone}, {train.image_size_px} px, {train.steps:,} steps of {images} images"


def runs_of(runs: Path, protocol: str) -> list[dict[str, Any]]:
    """Hardware and minutes of each stage of the runs that are there."""
    names = dict.fromkeys(name for name, _ in RUNS[protocol].values())
    return [
        {
            "run": name,
            "environment": _read(runs / name / "environment.json"),
            "seed": _read(runs / name / "config.json")["seed"],
            "minutes": {
                path.parent.name: round(_read(path)["seconds_since_last_start"] / 60, 1)
                for path in sorted((runs / name).glob("*/done.json"), key=lambda path: path.stat().st_mtime)
            },
        }
        for name in names
        if (runs / name / "environment.json").exists()
    ]


def cuts(data: Path) -> list[str]:
    """What the small protocol changes and leaves out, read from the pipeline files themselves."""
    files = {
        protocol: {row: load_pipeline(_file(name)) for row, (name, _) in RUNS[protocol].items()}
        for protocol in RUNS
    }
    lines = ["A sample of appendix B, not its protocol. Cut:"]
    small, paper = (files[protocol]["teacher given boxes"].data for protocol in ("small", "paper"))
    for split in ("train", "val"):
        ours, theirs = (getattr(data_config, f"{split}_annotations") for data_config in (small, paper))
        path = data / ours
        images = f", {len(_read(path)['images'])} images" if path.is_file() else ""
        lines.append(f"  {split} data: {ours}{images}; the paper's: {theirs}")
    for name in ("teacher given boxes", "student deepmac", "student mask rcnn r50"):
        role = RUNS["small"][name][1]
        ours, theirs = (described(getattr(files[protocol][name], role)) for protocol in ("small", "paper"))
        lines.append(f"  {name.removesuffix(' given boxes')}: {ours}; the paper's: {theirs}")
    kept = RUNS["small"].keys() | TIMED.keys()
    missing = [claim.model for claim in claims() if claim.id not in kept]
    return [*lines, *(f"  row left out: {model}" for model in missing)]


def markdown(found: Sequence[Row], runs: Sequence[Mapping[str, Any]], cut: Sequence[str]) -> str:
    """The table, a line for each run with its hardware and minutes, and what was cut."""
    lines = [
        "| paper | model | figure | paper: all / VOC / non-VOC | ours: all / VOC / non-VOC | what was run |",
        "|---|---|---|---:|---:|---|",
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in found]
    lines += ["", *(f"- {_told(run)}" for run in runs)]
    lines += ["", "```", *cut, "```"] if cut else []
    return "\n".join(lines) + "\n"


def table(found: Sequence[Row]) -> Table:
    """The same for a terminal."""
    shown = Table(title="Appendix B", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("paper", "model", "figure", "paper:\nall / VOC / non-VOC", "ours:\nall / VOC / non-VOC"):
        shown.add_column(heading)
    shown.add_column("what was run")
    for row in found:
        shown.add_row(*_cells(row))
    return shown


def write(runs: Path, protocol: str) -> list[Row]:
    """`appendix_b.json` and `appendix_b.md` into the table's folder among the runs; returns the rows."""
    found, made = rows(runs, protocol), runs_of(runs, protocol)
    config = runs / RUNS["small"]["teacher given boxes"][0] / "config.json"
    data = Path(load_pipeline(config).data.root) if config.is_file() else Path()
    cut = cuts(data) if protocol == "small" else []
    document = {"protocol": protocol, "rows": [asdict(row) for row in found], "runs": made, "cut": cut}
    folder = runs / FOLDERS[protocol]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "appendix_b.json", document)
    (folder / "appendix_b.md").write_text(markdown(found, made, cut), encoding="utf-8")
    return found


def _ours(runs: Path, protocol: str, row: str, kind: str) -> tuple[dict[str, float | None] | None, str]:
    if row in TIMED:
        return _timed(runs, protocol, TIMED[row])
    if row not in RUNS[protocol]:
        return None, f"not run: {LEFT_OUT}"
    name, role = RUNS[protocol][row]
    evaluation = runs / name / f"evaluate-{role}" / "summary.json"
    if not evaluation.is_file():
        return None, f"not run: no evaluate-{role} in {name}"
    figures, pipeline = figures_of(_read(evaluation), kind), load_pipeline(runs / name / "config.json")
    if figures is None:
        return None, "not run: judged in given boxes only"
    if pipeline.data.seen != ("voc",):  # other classes than those that the columns are named after
        figures = {"all": figures["all"]}
    return figures, described(getattr(pipeline, role))


def _timed(runs: Path, protocol: str, role: str) -> tuple[dict[str, float | None] | None, str]:
    """Median milliseconds of detection with masks, where they were measured, of what and on what."""
    path = runs / FOLDERS[protocol] / "latency.json"
    if not path.is_file():
        return None, f"not run: no {path.name}"
    measured = _read(path)
    milliseconds, environment = measured["models"][role]["detect"], measured["environment"]
    if not milliseconds:
        return None, "not run: the model does not detect"
    main = RUNS[protocol]["teacher given boxes"][0]
    model = described(getattr(load_pipeline(runs / main / "config.json"), role))
    on_gpu = measured["device"].startswith("cuda")
    machine = (
        environment["gpus"][0] if on_gpu else f"{measured['threads']} threads of {environment['processor']}"
    )
    return {"all": statistics.median(milliseconds)}, f"{model}; {machine}"


def _roles(protocol: str, name: str) -> set[str]:
    """Whose figures a run has."""
    return {role for run_name, role in RUNS[protocol].values() if run_name == name}


def _file(name: str) -> Path:
    """The pipeline file of a run."""
    return next(PIPELINES.rglob(f"{name}.toml"))


def _cells(row: Row) -> list[str]:
    ours = "not run" if row.ours is None else _figures(row.ours)
    ran = row.ran.removeprefix("not run: ")
    return [row.where, row.model, row.kind, _figures(row.paper), ours, ran]


def _figures(figures: Mapping[str, float | None]) -> str:
    values = [figures.get(split) for split in SPLITS]
    words = {int: "{}", float: "{:.1f}", type(None): MISSING}
    return " / ".join(words[type(value)].format(value) for value in values)


def _told(run: Mapping[str, Any]) -> str:
    environment = run["environment"]
    cores = f"{environment['cores']} cores of {environment['processor']}"
    minutes = ", ".join(f"{stage} {value}" for stage, value in run["minutes"].items())
    return (
        f"`{run['run']}`: seed {run['seed']}, {', '.join(environment['gpus']) or cores}, "
        f"torch {environment['packages']['torch']}; minutes since each stage's last start: {minutes}"
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    running, showing = commands.add_parser("run"), commands.add_parser("table")
    running.add_argument("part", choices=["b1", "b2", "b"])
    for command in (running, showing):
        command.add_argument("protocol", choices=list(RUNS))
        command.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    running.add_argument("--data", required=True, help="folder of the data")
    running.add_argument("--lvis", default="", help="lvis_v1_val.json")
    running.add_argument("--anyway", action="store_true", help="where a forecast of memory speaks against it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The commands of the module's docstring."""
    given = parsed(arguments)
    if given.action == "run":
        if given.protocol == "small":
            print("\n".join(cuts(Path(given.data))))
        steps = plan(given.part, given.protocol, given.data, given.runs, given.lvis, given.anyway)
        if failed := run(steps):
            return failed
    found = write(given.runs, given.protocol)
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table(found))
    for told in runs_of(given.runs, given.protocol):
        print(_told(told))
    folder = given.runs / FOLDERS[given.protocol]
    print(f"{folder / 'appendix_b.json'} {folder / 'appendix_b.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
