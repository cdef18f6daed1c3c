"""Figures of finished runs, kept as JSON beside the hardware that made them, and the README's tables of them.

python benchmarks/results.py record runs/demo benchmarks/results/demo.json "make demo"   # a run's figures
python benchmarks/results.py tables            # rewrites the README between its results markers
python benchmarks/results.py tables --check    # fails if that would change it

codec.json and mask_heads.json are written by their benchmarks; appendix_b_small.json and latency.json are
copies of what `make appendix-b SMALL=1` leaves in runs/appendix_b_small (appendix_b.json, latency.json).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import appendix_b
import latency
import mask_heads
from deepmac_distill.chain import CHAIN
from deepmac_distill.config import load_pipeline
from deepmac_distill.files import write_json
from deepmac_distill.report.tables import percent, points, share

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def record(run: Path, out: Path, command: str) -> None:
    """Keep a run's figures, its environment and the seconds of each stage."""
    seconds = {
        stage.name: _read(run / stage.name / "done.json")["seconds_since_last_start"]
        for stage in CHAIN
        if (run / stage.name / "done.json").exists()
    }
    roles = [role for role in ("teacher", "student") if (run / f"evaluate-{role}").exists()]
    config = _read(run / "config.json")
    report, labels = run / "report" / "summary.json", run / "select" / "counts.json"
    retention = run / "retention" / "summary.json"
    write_json(
        out,
        {
            "command": command,
            "environment": _read(run / "environment.json"),
            "run": f"runs/{run.name}",
            "seed": config["seed"],
            "student_model": appendix_b.described(load_pipeline(run / "config.json").student),
            "seconds": seconds,
            "labels": _read(labels) if labels.exists() else None,
            **{role: _read(run / f"evaluate-{role}" / "summary.json") for role in roles},
            "student_minus_teacher": _read(report)["student_minus_teacher"] if report.exists() else None,
            "retention": _read(retention) if retention.exists() else None,
        },
    )


def chain_table(result: dict[str, Any]) -> str:
    """Markdown: given-box IoU and detection AP of teacher and student for each split."""
    lines = [
        "| model | classes | instances | mask IoU in given boxes | box as mask "
        "| model − box | model − ellipse | mask AP | box AP |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for role in (role for role in ("teacher", "student") if role in result):
        for split in ("seen", "unseen", "all"):
            given = result[role]["given_boxes"][split]
            precision = [found and found[split]["AP"] for found in result[role]["detected"].values()]
            cells = [
                role,
                f"{split} ({given['classes']})",
                str(given["instances"]),
                percent(given["class_mean_iou"]["model"]),
                percent(given["class_mean_iou"]["box"]),
                points(given["model_minus_box"]),
                points(given["model_minus_ellipse"]),
                *map(percent, precision),  # of masks, of boxes
            ]
            lines.append("| " + " | ".join(cells) + " |")
    environment, seconds = result["environment"], result["seconds"]
    torch_version = environment["packages"]["torch"]
    minutes = ", ".join(f"{stage} {value / 60:.1f}" for stage, value in seconds.items() if value >= 1)
    hardware = ", ".join(environment["gpus"]) or f"{environment['cores']} cores of {environment['processor']}"
    lines += [
        "",
        f"`{result['command']}`, seed {result['seed']}, {hardware}, torch {torch_version}; "
        f"minutes: {minutes}. IoU is the mean over classes of the mean over instances, in percent; "
        "brackets are 95 % intervals from resampled images.",
    ]
    return "\n".join(lines)


def codec_table(result: dict[str, Any]) -> str:
    """Markdown: the box-local codec beside its peers."""
    lines = [
        "| way from grid to COCO RLE | masks/s, one core | byte-identical to the exact paste "
        "| most pixels off | mean IoU |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in result["encode"].items():
        lines.append(
            f"| {name} | {row['per_second']:,.0f} | {percent(row['identical_fraction'])} % "
            f"| {row['most_pixels_off']} | {row['mean_iou']:.3f} |"
        )
    environment = result["environment"]
    lines += [
        "",
        f"`make bench`: {result['masks']} soft 32 x 32 masks, 640 x 480 image, {environment['processor']}.",
    ]
    return "\n".join(lines)


def retention_table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: what the teacher's masks are worth to several students, on unseen classes."""
    lines = [
        "| student | a: human masks of seen classes | b: and the teacher's | c: all human masks "
        "| b − a | c − b | retention, % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        row = result["retention"]["given_boxes"]["unseen"]["class_mean_iou"]
        cells = [result["student_model"], *(percent(row[arm]) for arm in "abc")]
        cells += [points(row["b_minus_a"]), points(row["c_minus_b"]), share(row["retention"])]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Mask IoU in given boxes, mean over unseen classes, in percent; one seed. By:", ""]
    lines += [f"- `deepmac retention --out {result['run']}`" for result in results]
    return "\n".join(lines)


def heads_table(result: dict[str, Any]) -> str:
    """Markdown: mask heads on a frozen model."""
    again = [name for name, row in result["rows"].items() if len(row["unseen_of_each_seed"]) > 1]
    seeds = f"one seed, of {' and '.join(again)} the mean of two" if again else "one seed"
    made = next(row["inputs"] for row in result["made"].values() if "steps" in row["inputs"])
    return "\n".join(
        [
            mask_heads.markdown(result),
            "",
            f"`make mask-heads DATA=FOLDER`: {seeds}; {made['steps']} steps "
            f"of {made['batch_size']} images, {result['environment']['cores']} cores of "
            f"{result['environment']['processor']}. Costs are of one instance at the widths trained, forward "
            "and training on the CPU, measured in one run.",
        ]
    )


def appendix_table(result: dict[str, Any]) -> str:
    """Markdown: appendix B beside the paper."""
    return appendix_b.markdown(
        [appendix_b.Row(**row) for row in result["rows"]], result["runs"], result["cut"]
    )


# Between which markers of the README, what of which recorded results.
TABLES = {
    "demo": (chain_table, "demo"),
    "coco_sample": (chain_table, "coco_sample"),
    "retention": (lambda *results: retention_table(results), "coco_sample", "coco_sample_mask_rcnn"),
    "mask_heads": (heads_table, "mask_heads"),
    "appendix_b": (appendix_table, "appendix_b_small"),
    "latency": (latency.table, "latency"),
    "codec": (codec_table, "codec"),
}


def tables(check: bool) -> int:
    """Write every table into the README between its markers; with `check`, only tell whether it differs."""
    readme = ROOT / "README.md"
    before = after = readme.read_text(encoding="utf-8")
    for name, (table, *files) in TABLES.items():
        paths = [RESULTS / f"{file}.json" for file in files]
        recorded = all(path.exists() for path in paths)
        body = table(*map(_read, paths)).strip() if recorded else "(not recorded yet)"
        block = f"<!-- results:{name} -->\n{body}\n<!-- end -->"
        after = re.sub(
            rf"<!-- results:{name} -->.*?<!-- end -->", lambda _, b=block: b, after, flags=re.DOTALL
        )
    if not check:
        readme.write_text(after, encoding="utf-8")
    return int(check and after != before)


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
