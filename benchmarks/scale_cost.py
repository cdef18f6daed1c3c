"""What labeling costs at scale, from what was measured: GPU-hours, cores beside a GPU, and bytes.

    python benchmarks/scale_cost.py

Reads `gpu_speed.json` (one GPU) and `beside_model.json` (one core). Prints the tables of docs/scale.md, which
a test compares. An image costs a GPU the time of its batch; a canvas of a window shows one box.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class DataSet:
    """How much there is to label."""

    name: str
    images: int
    boxes: int


COCO = DataSet("COCO train2017", 118_287, 860_001)
SETS = (
    COCO,
    DataSet("Objects365 v2 train", 1_742_289, 25_407_598),
    DataSet("100 M boxes, as many an image as COCO", 100_000_000 * COCO.images // COCO.boxes, 100_000_000),
)
TEACHERS = {"paper teacher": "image", "single_gpu teacher": "window"}  # case -> what a canvas shows


def fastest(rows: list[dict[str, Any]], case: str) -> dict[str, Any]:
    """The row in which labeling takes the least time a canvas, in bfloat16: such a GPU's default."""
    known = [row for row in rows if row["case"] == case and row["task"] == "label" and row["bfloat16"]]
    return min(known, key=lambda row: row["ms"] / row["canvases"])


def tables() -> str:
    """Both tables in Markdown."""
    speed = json.loads((RESULTS / "gpu_speed.json").read_text())
    beside = json.loads((RESULTS / "beside_model.json").read_text())
    gpu = speed["environment"]["gpus"][0]
    ms = {row["part"]: row["cpu_ms_per_image"] for row in beside["rows"]}
    writes, boxes_of_an_image = ms["encode, make rows and write"], beside["boxes_of_an_image"]
    lines = [
        f"| teacher on one {gpu} | canvas | images/s | boxes/s | cores beside it |",
        "|---|---|---:|---:|---:|",
    ]
    seconds: dict[str, float] = {}  # of a canvas
    for case, shows in TEACHERS.items():
        row = fastest(speed["rows"], case)
        seconds[case] = row["ms"] / 1000 / row["canvases"]
        boxes = (row["boxes"] if shows == "image" else 1) / seconds[case]
        images = boxes / boxes_of_an_image
        cpu = ms["decode"] + writes + ms["view" if shows == "image" else "windows"]
        canvas = f"{shows} at {row['canvas_px']} px"
        lines.append(f"| {case} | {canvas} | {images:.0f} | {boxes:.0f} | {images * cpu / 1000:.1f} |")
    lines += ["", "| data set | images | boxes | " + " | ".join(f"GPU-hours, {c}" for c in TEACHERS) + " |"]
    lines += ["|---|---:|---:|" + "---:|" * len(TEACHERS)]
    for data in SETS:
        canvases = {case: data.images if shows == "image" else data.boxes for case, shows in TEACHERS.items()}
        hours = " | ".join(f"{canvases[case] * seconds[case] / 3600:.2g}" for case in TEACHERS)
        lines.append(f"| {data.name} | {data.images:,} | {data.boxes:,} | {hours} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
