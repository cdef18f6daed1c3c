"""The figures of appendix B beside the paper's, of whatever runs are there."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepmac_distill.chain import Role
from deepmac_distill.config import FOLDER, DeepMacConfig, RoleConfig, load_pipeline
from deepmac_distill.evaluation.results import Evaluation, read_result
from deepmac_distill.experiments.appendix_b import FOLDERS, MAIN, RUNS, Protocol
from deepmac_distill.files import write_json
from deepmac_distill.paper import claims
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import MISSING, Column, Table, names
from deepmac_distill.rundir import DONE, read_record

SPLITS = {"all": "all", "seen": "VOC", "unseen": "non-VOC"}  # ours: the paper's name
# Rows whose figure is measured by `experiments.latency`, and the role of the run that it is of.
TIMED: dict[str, Role] = {"speed hg100": "teacher", "speed resnet4": "student"}
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


def rows(runs: Path, protocol: Protocol) -> list[Row]:
    """Every row of the paper's figures, with ours where a run has them."""
    found = []
    for claim in claims():
        ours, ran = _ours(runs, protocol, claim.id, claim.kind)
        found.append(Row(claim.where, claim.model, claim.kind, dict(claim.figures), ours, ran))
    return found


def figures_of(found: Evaluation, kind: str) -> dict[str, float | None] | None:
    """The figures of an evaluation in percent: {split: value}; None where it has none of that kind."""
    if kind == "mask IoU in given boxes":
        values = found.given_boxes.map(lambda row: row.class_mean_iou.model)
    elif found.detected.segm is None:
        return None
    else:
        values = found.detected.segm.map(lambda row: row.AP)
    return {
        split: None if value is None else 100 * value for split, value in values.items() if split in SPLITS
    }


def described(recipe: RoleConfig) -> str:
    """A model and its training in a few words."""
    model, train = recipe.model, recipe.train
    kind = f"deepmac with {model.mask_head}" if isinstance(model, DeepMacConfig) else "mask_rcnn"
    images = train.batch_size * train.gradient_accumulation_steps
    return f"{kind} on {model.backbone}, {train.image_size_px} px, {train.steps:,} steps of {images} images"


def runs_of(runs: Path, protocol: Protocol) -> list[dict[str, Any]]:
    """Hardware and minutes of each stage of the runs that are there."""
    names = dict.fromkeys(name for name, _ in RUNS[protocol].values())
    return [
        {
            "run": name,
            "environment": _read(runs / name / "environment.json"),
            "seed": _read(runs / name / "config.json")["seed"],
            "minutes": {
                path.parent.name: round(read_record(path)["seconds_since_last_start"] / 60, 1)
                for path in sorted((runs / name).glob(f"*/{DONE}"), key=lambda path: path.stat().st_mtime)
            },
        }
        for name in names
        if (runs / name / "environment.json").exists()
    ]


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
    lines = [markdown_table(table(found)), "", *(f"- {run_line(run)}" for run in runs)]
    lines += ["", "```", *cut, "```"] if cut else []
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


def write(runs: Path, protocol: Protocol, recipes: Path = FOLDER) -> list[Row]:
    """`appendix_b.json` and `appendix_b.md` into the table's folder among the runs; returns the rows."""
    found, made = rows(runs, protocol), runs_of(runs, protocol)
    config = runs / RUNS["small"][MAIN][0] / "config.json"
    data = Path(load_pipeline(config).data.root) if config.is_file() else Path()
    cut = cuts(data, recipes) if protocol == "small" else []
    document = {"protocol": protocol, "rows": [asdict(row) for row in found], "runs": made, "cut": cut}
    folder = runs / FOLDERS[protocol]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "appendix_b.json", document)
    (folder / "appendix_b.md").write_text(markdown(found, made, cut), encoding="utf-8")
    return found


def _ours(runs: Path, protocol: Protocol, row: str, kind: str) -> tuple[dict[str, float | None] | None, str]:
    if row in TIMED:
        return _timed(runs, protocol, TIMED[row])
    if row not in RUNS[protocol]:
        return None, f"not run: {LEFT_OUT}"
    name, role = RUNS[protocol][row]
    evaluation = runs / name / f"evaluate-{role}" / "summary.json"
    if not evaluation.is_file():
        return None, f"not run: no evaluate-{role} in {name}"
    figures, pipeline = (
        figures_of(read_result(evaluation, Evaluation), kind),
        load_pipeline(runs / name / "config.json"),
    )
    if figures is None:
        return None, "not run: evaluated in given boxes only"
    if pipeline.data.seen != ("voc",):  # other classes than those that the columns are named after
        figures = {"all": figures["all"]}
    return figures, described(getattr(pipeline, role))


def _timed(runs: Path, protocol: Protocol, role: Role) -> tuple[dict[str, float | None] | None, str]:
    """Median milliseconds of detection with masks, where they were measured, of what and on what."""
    path = runs / FOLDERS[protocol] / "latency.json"
    if not path.is_file():
        return None, f"not run: no {path.name}"
    measured = _read(path)
    milliseconds, environment = measured["models"][role]["detect"], measured["environment"]
    if not milliseconds:
        return None, "not run: the model does not detect"
    main = RUNS[protocol][MAIN][0]
    model = described(getattr(load_pipeline(runs / main / "config.json"), role))
    on_gpu = measured["device"].startswith("cuda")
    machine = (
        environment["gpus"][0] if on_gpu else f"{measured['threads']} threads of {environment['processor']}"
    )
    return {"all": statistics.median(milliseconds)}, f"{model}; {machine}"


def _cells(row: Row) -> list[str]:
    ours = "not run" if row.ours is None else _figures(row.ours)
    ran = row.ran.removeprefix("not run: ")
    return [row.where, row.model, row.kind, _figures(row.paper), ours, ran]


def _figures(figures: Mapping[str, float | None]) -> str:
    values = [figures.get(split) for split in SPLITS]
    words = {int: "{}", float: "{:.1f}", type(None): MISSING}
    return " / ".join(words[type(value)].format(value) for value in values)


def run_line(run: Mapping[str, Any]) -> str:
    """A run's seed, hardware and minutes in one line."""
    environment = run["environment"]
    cores = f"{environment['cores']} cores of {environment['processor']}"
    minutes = ", ".join(f"{stage} {value}" for stage, value in run["minutes"].items())
    return (
        f"`{run['run']}`: seed {run['seed']}, {', '.join(environment['gpus']) or cores}, "
        f"torch {environment['packages']['torch']}; minutes since each stage's last start: {minutes}"
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
