"""Figures of finished runs, kept as JSON beside the hardware that made them, and the pages' tables of them.

python benchmarks/results.py record runs/demo benchmarks/results/demo.json "make demo"   # a run's figures
python benchmarks/results.py record runs/x benchmarks/results/x "make x"   # of several seeds: x/seed-N.json
python benchmarks/results.py tables            # rewrites the pages between their results markers
python benchmarks/results.py tables --check    # fails if that would change it

Other files are written by their benchmarks; appendix_b_small.json and latency.json are copies of what
`make appendix-b SMALL=1` leaves in runs/appendix_b_small (appendix_b.json, latency.json).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import batch_norm
import box_noise
import calibration
import coverage_of_ap
import coverage_of_intervals
import gpu_speed
import holdout
import holdout_coverage
import looks
import mask_heads
import paired_ap
import paper_small
import paper_trials
import photographs
import sam_overhead
import sizes
import starter
import student_targets
from deepmac_distill.chain import SEED, seed_runs
from deepmac_distill.evaluation.results import Evaluation, from_json, to_json
from deepmac_distill.evaluation.retention import ARMS
from deepmac_distill.evaluation.retention_results import Retention
from deepmac_distill.evaluation.splits import Split
from deepmac_distill.experiments import appendix_b_table, latency, recipe_choices
from deepmac_distill.experiments.run_record import RunRecord, record_of, record_over_seeds, small_record_of
from deepmac_distill.files import write_json
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Cell, Column, Table, columns, names, percent
from deepmac_distill.report.tables import interval_note

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SEEDS = 3  # of a table that is complete
CHAIN_SPLITS: tuple[Split, ...] = ("seen", "unseen", "all")


def record(run: Path, out: Path, command: str) -> None:
    """Keep a run's figures, its environment and the seconds of each stage; of several seeds a file each."""
    for seed, one in seed_runs(run).items():
        write_json(out / f"{SEED}{seed}.json", to_json(small_record_of(one, command)))
    if not seed_runs(run):
        write_json(out, to_json(record_of(run, command)))


def chain_table(*recorded: Any) -> str:
    """Markdown: given-box IoU and detection AP of teacher and student for each split, over the seeds."""
    records = [from_json(value, RunRecord, "chain") for value in recorded]
    seeds, result = record_over_seeds(records)
    table = Table(
        "",
        (
            *names("model", "classes"),
            Column("instances", "count"),
            *columns("percent", ("mask IoU in given boxes", "ellipse", "box as mask")),
            *columns("points", ("model − ellipse", "model − box")),
            *columns("percent", ("mask AP", "box AP")),
        ),
        tuple(
            (role, *_chain_cells(found, split))
            for role, found in (("teacher", result.teacher), ("student", result.student))
            if found
            for split in CHAIN_SPLITS
        ),
    )
    minutes = ", ".join(f"{stage} {value / 60:.1f}" for stage, value in result.seconds.items() if value >= 1)
    return (
        f"{markdown_table(table)}\n\n"
        f"`{result.command}`, {_seeds(seeds)}, {result.environment.hardware}, "
        f"torch {result.environment.torch}; minutes: {minutes}. "
        "IoU is the mean over classes of the mean over instances, in percent; "
        f"brackets are {interval_note(seeds)}."
    )


def _seeds(seeds: Sequence[int]) -> str:
    """Which seeds a table is of, and which of `SEEDS` it lacks where it has begun to fill."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    missing = [str(seed) for seed in range(seeds[0], seeds[0] + SEEDS) if seed not in seeds]
    lacking = f" (missing: {', '.join(missing)})" if missing else ""
    return f"seeds {', '.join(map(str, seeds))}{lacking}"


def _chain_cells(found: Evaluation, split: Split) -> tuple[Cell, ...]:
    given, kinds = found.given_boxes[split], (found.detected.segm, found.detected.bbox)
    return (
        *(f"{split} ({given.classes})", given.instances),
        *(given.class_mean_iou.model, given.class_mean_iou.ellipse, given.class_mean_iou.box),
        *(given.model_minus_ellipse, given.model_minus_box),
        *(kind and kind[split].AP for kind in kinds),  # of masks, of boxes
    )


def codec_table(result: dict[str, Any]) -> str:
    """Markdown: the box-local codec beside its peers."""
    table = Table(
        "",
        (
            *names("way from grid to COCO RLE"),
            *columns("figure", ("masks/s, one core", "byte-identical to the exact paste")),
            *columns("figure", ("most pixels off", "mean IoU")),
        ),
        tuple(
            (
                *(name, f"{row['per_second']:,.0f}", f"{percent(row['identical_fraction'])} %"),
                *(row["most_pixels_off"], f"{row['mean_iou']:.3f}"),
            )
            for name, row in result["encode"].items()
        ),
    )
    return (
        f"{markdown_table(table)}\n\n"
        f"`make bench`: {result['masks']} soft 32 x 32 masks, 640 x 480 image, "
        f"{result['environment']['processor']}."
    )


def retention_table(*recorded: Any) -> str:
    """Markdown: what the teacher's masks are worth to several students, on unseen classes, over the seeds."""
    runs: dict[str, list[RunRecord]] = {}
    for value in recorded:
        record = from_json(value, RunRecord, "retention")
        runs.setdefault(record.run.split(f"/{SEED}")[0], []).append(record)
    means = [record_over_seeds(records)[1] for records in runs.values()]
    found = [(mean, mean.retention) for mean in means if mean.retention]
    headings = ("human masks of seen classes", "and the teacher's", "all human masks")
    table = Table(
        "",
        (
            *names("student"),
            *columns("percent", (f"{arm}: {heading}" for arm, heading in zip(ARMS, headings, strict=True))),
            *columns("points", ("pseudo − human_seen", "human_all − pseudo")),
            Column("retention, %", "share"),
        ),
        tuple((mean.student_model, *_retention_cells(retention)) for mean, retention in found),
    )
    said = "Mask IoU in given boxes, mean over unseen classes, in percent. By:"
    lines = [
        f"- `{mean.command}`, {_seeds(retention.seeds)}; {interval_note(retention.seeds)}"
        for mean, retention in found
    ]
    return "\n".join([markdown_table(table), "", said, "", *lines])


def _retention_cells(found: Retention) -> tuple[Cell, ...]:
    row = found.given_boxes.unseen.class_mean_iou
    arms = (row.human_seen, row.pseudo, row.human_all)
    return (*arms, row.pseudo_minus_human_seen, row.human_all_minus_pseudo, row.retention)


def choices_table(rows: list[recipe_choices.Choice]) -> str:
    """Markdown: the variants of a recipe on hidden classes."""
    return (
        f"{markdown_table(recipe_choices.table(rows))}\n\n"
        "`python benchmarks/recipe_choices.py --data FOLDER --out runs/choices`: one thread. IoU and its "
        "lead over the ellipse are means over the seeds."
    )


def latency_page(recorded: Any) -> str:
    """Markdown: what models cost in time."""
    return latency.page(from_json(recorded, latency.Latency, "latency"))


def appendix_table(recorded: Any) -> str:
    """Markdown: appendix B beside the paper."""
    return appendix_b_table.markdown(from_json(recorded, appendix_b_table.AppendixB, "appendix_b"))


_MISSING = "(not recorded yet)"
# Between which markers of the pages, what of which recorded results.
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
TABLES = {
    "demo": (chain_table, "demo"),
    "coco_sample_teacher": (chain_table, "coco_sample_teacher"),
    "coco_sample_teacher_sizes": (sizes.page, "coco_sample_teacher"),
    "photographs": (
        photographs.page,
        *("latency", "coco_sample", "coco_sample_mask_rcnn", "coco_sample_teacher"),
    ),
    "coco_sample": (chain_table, "coco_sample"),
    "coco_sample_mask_rcnn": (chain_table, "coco_sample_mask_rcnn"),
    "coco_sample_sizes": (sizes.page, "coco_sample"),
    "retention": (retention_table, "retention"),
    "appendix_b": (appendix_table, "appendix_b_small"),
    "starter": (starter.page, "starter"),
    "gpu_speed": (gpu_speed.page, "gpu_speed"),
    "latency": (latency_page, "latency"),
    "codec": (codec_table, "codec"),
    "box_noise": (box_noise.page, "box_noise"),
    "looks": (looks.page, "looks"),
    "student_targets": (student_targets.page, "student_targets"),
    "batch_norm": (batch_norm.page, "batch_norm"),
    "coverage": (coverage_of_intervals.page, "coverage"),
    "coverage_of_ap": (coverage_of_ap.page, "coverage_of_ap"),
    "calibration": (calibration.page, "calibration"),
    "holdout": (holdout.page, "holdout"),
    "holdout_coverage": (holdout_coverage.page, "holdout_coverage"),
    "calibration_simulated": (calibration.page_simulated, "calibration_simulated"),
    "paired_ap": (paired_ap.page, "paired_ap"),
    "sam_overhead": (sam_overhead.page, "sam_overhead"),
}


def tables(check: bool) -> int:
    """Write every table into the pages between its markers; with `check`, only report whether one differs."""
    differing = 0
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = _with_tables(before)
        differing += after != before
        if not check:
            page.write_text(after, encoding="utf-8")
    return int(check and differing > 0)


def _with_tables(page: str) -> str:
    bodies = {name: _body(*parts) for name, parts in TABLES.items()}
    rows = recipe_choices.kept_in(RESULTS / "recipe_choices")
    bodies["recipe_choices"] = choices_table(rows) if rows else _MISSING
    bodies["mask_heads"] = mask_heads.recorded_page(RESULTS / "mask_heads") or _MISSING
    bodies["mask_heads_longer"] = mask_heads.longer_page(RESULTS / "mask_heads_1920_steps")
    bodies["paper_small"] = paper_small.page(RESULTS)
    bodies["paper_trials"] = paper_trials.tried(paper_trials.RESULTS)
    for name, body in bodies.items():
        block = f"<!-- results:{name} -->\n{body}\n<!-- end -->"
        page = re.sub(rf"<!-- results:{name} -->.*?<!-- end -->", lambda _, b=block: b, page, flags=re.DOTALL)
    return page


def _body(table: Callable[..., str], *files: str) -> str:
    paths = {file: [path for path in recorded_files(file) if path.exists()] for file in files}
    there = [path for found in paths.values() for path in found]
    missing = "".join(f"\n\n(not recorded yet: {file})" for file, found in paths.items() if not found)
    return table(*map(_read, there)).strip() + missing if there else _MISSING


def recorded_files(name: str, results: Path = RESULTS) -> list[Path]:
    """The file of a run, or those of its seeds as far as they are there."""
    seeds = sorted((results / name).glob(f"{SEED}*.json"), key=lambda path: int(path.stem.removeprefix(SEED)))
    return seeds or [results / f"{name}.json"]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> int:
    """The two commands of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("run", type=Path)
    recording.add_argument("out", type=Path)
    recording.add_argument("command")
    writing = commands.add_parser("tables")
    writing.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.action == "record":
        record(arguments.run, arguments.out, arguments.command)
        return 0
    return tables(arguments.check)


if __name__ == "__main__":
    sys.exit(main())
