"""A million boxes through the whole path: memory and CPU time of each step, in processes of their own.

    python benchmarks/million.py [--boxes 100 10000 100000 1000000] [--json benchmarks/results/million.json]

The images are hard links to one generated JPEG of 320 x 240, since decoding photographs would take the day;
each is read, decoded and looked at like any other. The teacher is a stub behind the contract for segmenters
of others: it draws a soft ellipse of 32 x 32 cells in each box, so that what is measured is everything but a
model. Steps are commands: `read` parses the annotations and maps them, `label` writes the parts of all units,
`assemble` joins them and selects (instances.json), and `relabel` cuts all masks anew and selects again. A
first size of a few boxes shows what starting takes, which is no part of the cost of a box.

Memory is the peak of what no file backs (RssAnon, sampled every 20 ms): pages of a mapped file come and go.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from deepmac_distill.contract import ModelSpec, SegmentedMasks
from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from deepmac_distill.structures import Instances

HEIGHT, WIDTH, BOXES, CELLS = 240, 320, 20, 32  # of an image, boxes in it, cells a side of a grid
CLASSES = 80
NOISE_SECONDS = 0.2  # by which starting differs
PIPELINE = """
threads = 1
device = "cpu"
[data]
seen = ["class 1"]
root = "{root}"
train_annotations = "instances.json"
train_images = "images"
[teacher]
segmenter = "{file}:Ellipses"
"""


class Ellipses:
    """A segmenter that looks at no pixel."""

    def __init__(self) -> None:
        self.spec = ModelSpec(
            mask_size=CELLS, input_size_px=64, seen_mask_classes=(), identity="soft ellipses"
        )
        at = (torch.arange(CELLS) + 0.5) / CELLS * 2 - 1
        self._radius = (at[None] ** 2 + at[:, None] ** 2).sqrt()

    def segment(self, images: torch.Tensor, instances: Instances) -> SegmentedMasks:
        """Ellipses whose size and softness follow from the number of the box."""
        size = 0.6 + 0.4 * (instances.rows * 0.618) % 0.4
        return SegmentedMasks.of(torch.sigmoid((size[:, None, None] - self._radius).float() * 12))


def write_data(folder: Path, boxes: int) -> None:
    """``instances.json`` of so many boxes without masks, but for one of a person, and its images."""
    rng, images = np.random.default_rng(0), -(-boxes // BOXES)
    (folder / "images").mkdir()
    pixels = np.kron(rng.integers(0, 256, (15, 20, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "one.jpg")
    with (folder / "instances.json").open("w") as file:
        names = [f"{number:09}.jpg" for number in range(images)]
        entries = [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(names)
        ]
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
        head = json.dumps({"images": entries, "categories": categories})
        file.write(f'{head[:-1]}, "annotations": [')
        for number in range(boxes):
            w, h = rng.uniform(10, 120, 2).round(1)
            x, y = (rng.uniform(0, 1, 2) * (WIDTH - w, HEIGHT - h)).round(1)
            entry: dict[str, Any] = {"id": number, "image_id": number % images, "bbox": [x, y, w, h]}
            entry |= {"category_id": int(rng.integers(2, CLASSES + 1))}
            if number == 0:
                entry |= {"category_id": 1, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            file.write(f"{', ' if number else ''}{json.dumps(entry)}")
        file.write("]}")
    for name in names:
        os.link(folder / "one.jpg", folder / "images" / name)


def measured(command: list[str], variables: dict[str, str]) -> dict[str, float]:
    """CPU seconds and peak memory of a command."""
    before, began, most = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    status = Path(f"/proc/{process.pid}/status")
    os.set_blocking(process.stderr.fileno(), False)
    told = b""
    while process.poll() is None:
        told = (told + (process.stderr.read() or b""))[-2000:]
        lines = [line for line in status.read_text().splitlines() if line.startswith("RssAnon")]
        most = max([most, *(int(line.split()[1]) for line in lines)])
        time.sleep(0.02)
    assert process.returncode == 0, told.decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "wall_s": round(time.perf_counter() - began, 1),
        "peak_anonymous_mib": round(most / 1024),
    }


def steps_of(folder: Path) -> dict[str, list[str]]:
    """Commands by name, in their order."""
    at = ["--out", str(folder / "run")]
    reading = (
        "import sys; from deepmac_distill.dataset.dataset import Dataset;"
        "view = Dataset.open(sys.argv[1], seen=['class 1']).for_training(); view.boxes_xyxy()"
    )
    python, deepmac = [sys.executable], [sys.executable, "-m", "deepmac_distill"]
    reading = reading.replace("sys.argv[1]", "__import__('pathlib').Path(sys.argv[1])")
    config = ["--config", str(folder / "million.toml"), "--allow-code"]
    return {
        "read": [*python, "-c", reading, str(folder / "instances.json")],
        "read again": [*python, "-c", reading, str(folder / "instances.json")],
        "label": [*deepmac, "pseudolabel", *config, *at, "--shard", "0/1"],
        "assemble": [*deepmac, "assemble", *config, *at],
        "relabel": [*deepmac, "pseudolabel", *config, *at, "--set", "labels.cut=0.4"],
    }


def measure(boxes: int) -> list[dict[str, Any]]:
    """A row for each step."""
    found = []
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        write_data(folder, boxes)
        (folder / "million.toml").write_text(PIPELINE.format(root=at, file=Path(__file__).resolve()))
        variables = os.environ | {"DEEPMAC_CACHE": f"{at}/cache", "OMP_NUM_THREADS": "1"}
        for name, command in steps_of(folder).items():
            row = {"boxes": boxes, "step": name} | measured(command, variables)
            found.append(row | {"cpu_ms_per_box": round(1000 * row["cpu_s"] / boxes, 3)})
            print(json.dumps(found[-1]), flush=True)
        for name in ("pseudolabel/masks.parquet", "select/instances.json"):
            size = (folder / "run" / name).stat().st_size
            found.append({"boxes": boxes, "file": name, "bytes_per_box": round(size / boxes, 1)})
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: what each step takes by the number of boxes, less what the fewest boxes take; no noise."""
    steps = [row for row in rows if "step" in row]
    least = min(row["boxes"] for row in steps)
    start = {row["step"]: row["cpu_s"] for row in steps if row["boxes"] == least}
    lines = ["| step | boxes | peak MiB | CPU ms for 1,000 boxes more |", "|---|---:|---:|---:|"]
    for row in sorted(steps, key=lambda row: (list(start).index(row["step"]), row["boxes"])):
        more, took = row["boxes"] - least, row["cpu_s"] - start[row["step"]]
        cost = f"{took / more * 1e6:.0f}" if took > NOISE_SECONDS else "–"
        lines.append(f"| {row['step']} | {row['boxes']:,} | {row['peak_anonymous_mib']} | {cost} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--boxes", type=int, nargs="+", default=[100, 10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for boxes in given.boxes:
        rows += measure(boxes)
        if given.json:  # as far as it has come
            write_json(given.json, {"environment": environment(), "rows": rows})


if __name__ == "__main__":
    main()
