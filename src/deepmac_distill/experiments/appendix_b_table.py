"""The figures of appendix B beside the paper's, of whatever runs are there."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from deepmac_distill.chain import Role
from deepmac_distill.config import FOLDER, load_pipeline
from deepmac_distill.evaluation.results import Evaluation, read_result, to_json
from deepmac_distill.experiments.appendix_b import FOLDERS, MAIN, RUNS, Protocol
from deepmac_distill.experiments.latency import Latency
from deepmac_distill.experiments.run_record import Environment, described, seconds_of
from deepmac_distill.files import write_json
from deepmac_distill.paper import claims
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import MISSING, Column, Table, names
from deepmac_distill.rundir import DONE

# Rows whose figure is measured by `experiments.latency`, and the role of the run that it is of.
TIMED: dict[str, Role] = {"speed hg100": "teacher", "speed resnet4": "student"}
LEFT_OUT = "left out of the sample"


@dataclass(frozen=True, slots=True)
class Figures:
    """One figure for each split, which the paper calls all, VOC and non-VOC; None: no figure."""

    all: int | float | None = None
    seen: int | float | None = None
    unseen: int | float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the paper and what we have beside it."""

    where: str
    model: str
    kind: str
    paper: Figures  # as published
    ours: Figures | None  # None: not run
    ran: str  # the model that was run, or why none was


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What made the figures of one run, and how long each stage took."""

    run: str
    environment: Environment
    seed: int
    minutes: Mapping[str, float]  # stage: since its last start, in the order in which they ended


@dataclass(frozen=True, slots=True)
class AppendixB:
    """The whole table: `appendix_b.json`."""

    protocol: Protocol
    rows: tuple[Row, ...]
    runs: tuple[RunFacts, ...]
    cut: tuple[str, ...]  # lines: what the small protocol and shorter trainings change and leave out


def rows(runs: Path, protocol: Protocol) -> list[Row]:
    """Every row of the paper's figures, with ours where a run has them."""
    found = []
    for claim in claims():
        ours, ran = _ours(runs, protocol, claim.id, claim.kind)
        found.append(Row(claim.where, claim.model, claim.kind, Figures(**claim.figures), ours, ran))
    return found


def figures_of(found: Evaluation, kind: str) -> Figures | None:
    """The figures of an evaluation in percent; None where it has none of that kind."""
    if kind == "mask IoU in given boxes":
        values = found.given_boxes.map(lambda row: row.class_mean_iou.model)
    elif found.detected.segm is None:
        return None
    else:
        values = found.detected.segm.map(lambda row: row.AP)
    percent = values.map(lambda value: None if value is None else 100 * value)
    return Figures(percent.all, percent.seen, percent.unseen)


def runs_of(runs: Path, protocol: Protocol) -> list[RunFacts]:
    """Hardware, seed and minutes of the runs that are there."""
    names = dict.fromkeys(name for name, _ in RUNS[protocol].values())
    return [_facts(runs / name) for name in names if (runs / name / "environment.json").exists()]


def _facts(run: Path) -> RunFacts:
    ended = sorted(run.glob(f"*/{DONE}"), key=lambda path: path.stat().st_mtime)
    return RunFacts(
        run=run.name,
        environment=read_result(run / "environment.json", Environment),
        seed=load_pipeline(run / "config.json").seed,
        minutes={path.parent.name: round(seconds_of(path.parent) / 60, 1) for path in ended},
    )


def cuts(data: Path, recipes: Path = FOLDER) -> list[str]:
    """What the small protocol changes and leaves out, read from the pipeline files themselves."""
    files = {
        protocol: {row: load_pipeline(next(recipes.rglob(f"{name}.toml"))) for row, (name, _) in runs.items()}
        for protocol, runs in RUNS.items()
    }
    lines = ["A sample of appendix B, not its protocol. Cut:"]
    small, paper = (files[protocol]["teacher given boxes"].data for protocol in ("small", "paper"))
    for split in ("train", "val"):
        ours, theirs = (getattr(data_config, f"{split}_annotations") for data_config in (small, paper))
        path = data / ours
        images = f", {_images_in(path)} images" if path.is_file() else ""
        lines.append(f"  {split} data: {ours}{images}; the paper's: {theirs}")
    for name in ("teacher given boxes", "student deepmac", "student mask rcnn r50"):
        role = RUNS["small"][name][1]
        ours, theirs = (described(getattr(files[protocol][name], role)) for protocol in ("small", "paper"))
        lines.append(f"  {name.removesuffix(' given boxes')}: {ours}; the paper's: {theirs}")
    kept = RUNS["small"].keys() | TIMED.keys()
    missing = [claim.model for claim in claims() if claim.id not in kept]
    return [*lines, *(f"  row left out: {model}" for model in missing)]


def _shortened(runs: Path, protocol: Protocol, recipes: Path) -> list[str]:
    """Each training that is there with other steps than its recipe has."""
    lines = []
    for name, role in dict.fromkeys(RUNS[protocol].values()):
        config = runs / name / "config.json"
        if not config.is_file():
            continue
        pipelines = load_pipeline(config), load_pipeline(next(recipes.rglob(f"{name}.toml")))
        ours, theirs = (getattr(pipeline, role).train.steps for pipeline in pipelines)
        if ours != theirs:
            lines.append(f"  {name}, {role}: {ours:,} steps in place of its recipe's {theirs:,}")
    return lines


def _images_in(annotations: Path) -> int:
    return len(json.loads(annotations.read_text(encoding="utf-8"))["images"])


def markdown(found: AppendixB) -> str:
    """The table, a line for each run with its hardware and minutes, and what was cut."""
    lines = [markdown_table(table(found.rows)), "", *(f"- {run_line(run)}" for run in found.runs)]
    lines += ["", "```", *found.cut, "```"] if found.cut else []
    return "\n".join(lines) + "\n"


def table(found: Sequence[Row]) -> Table:
    """Every row beside the paper's."""
    columns = (
        *names("paper", "model", "figure"),
        Column("paper: all / VOC / non-VOC", "count"),
        Column("ours: all / VOC / non-VOC", "count"),
        Column("what was run", "text"),
    )
    return Table("Appendix B", columns, tuple(tuple(_cells(row)) for row in found))


def write(runs: Path, protocol: Protocol, recipes: Path = FOLDER) -> AppendixB:
    """Write `appendix_b.json` and `appendix_b.md` into a folder among the runs; return the table."""
    config = runs / RUNS["small"][MAIN][0] / "config.json"
    data = Path(load_pipeline(config).data.root) if config.is_file() else Path()
    cut = [*(cuts(data, recipes) if protocol == "small" else []), *_shortened(runs, protocol, recipes)]
    found = AppendixB(protocol, tuple(rows(runs, protocol)), tuple(runs_of(runs, protocol)), tuple(cut))
    folder = runs / FOLDERS[protocol]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "appendix_b.json", to_json(found))
    (folder / "appendix_b.md").write_text(markdown(found), encoding="utf-8")
    return found


def _ours(runs: Path, protocol: Protocol, row: str, kind: str) -> tuple[Figures | None, str]:
    if row in TIMED:
        return _timed(runs, protocol, TIMED[row])
    if row not in RUNS[protocol]:
        return None, f"not run: {LEFT_OUT}"
    name, role = RUNS[protocol][row]
    evaluation = runs / name / f"evaluate-{role}" / "summary.json"
    if not evaluation.is_file():
        return None, f"not run: no evaluate-{role} in {name}"
    figures = figures_of(read_result(evaluation, Evaluation), kind)
    if figures is None:
        return None, "not run: evaluated in given boxes only"
    pipeline = load_pipeline(runs / name / "config.json")
    if pipeline.data.seen != ("voc",):  # other classes than those that the columns are named after
        figures = Figures(all=figures.all)
    return figures, described(getattr(pipeline, role))


def _timed(runs: Path, protocol: Protocol, role: Role) -> tuple[Figures | None, str]:
    """Median milliseconds of detection with masks, where they were measured, of what and on what."""
    path = runs / FOLDERS[protocol] / "latency.json"
    if not path.is_file():
        return None, f"not run: no {path.name}"
    measured = read_result(path, Latency)
    milliseconds = measured.models[role].detect
    if not milliseconds:
        return None, "not run: the model does not detect"
    main = RUNS[protocol][MAIN][0]
    model = described(getattr(load_pipeline(runs / main / "config.json"), role))
    return Figures(all=statistics.median(milliseconds)), f"{model}; {measured.machine}"


def _cells(row: Row) -> list[str]:
    ours = "not run" if row.ours is None else _figures(row.ours)
    ran = row.ran.removeprefix("not run: ")
    return [row.where, row.model, row.kind, _figures(row.paper), ours, ran]


def _figures(figures: Figures) -> str:
    words = {int: "{}", float: "{:.1f}", type(None): MISSING}
    return " / ".join(words[type(value)].format(value) for value in astuple(figures))


def run_line(run: RunFacts) -> str:
    """A run's seed, hardware and minutes in one line."""
    minutes = ", ".join(f"{stage} {value}" for stage, value in run.minutes.items())
    return (
        f"`{run.run}`: seed {run.seed}, {run.environment.hardware}, "
        f"torch {run.environment.torch}; minutes since each stage's last start: {minutes}"
    )
