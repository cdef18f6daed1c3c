"""What reading a large annotation file costs: the first time, every time after that, and `deepmac check`.

The file is made up in a temporary folder: polygons of 22 points on photographs of train2017's size. Each step
runs in a process of its own. Figures: CPU seconds, peak resident memory, and anonymous memory (that which is
not pages of a mapped file) above that of the same imports.
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
from pathlib import Path
from typing import Any

import numpy as np

from deepmac_distill.dataset.check import find_problems
from deepmac_distill.dataset.dataset import Dataset

HEIGHT, WIDTH, CLASSES = 480, 640, 80


def write_file(path: Path, images: int, polygons: int, points: int = 22) -> None:
    """A COCO file of polygons around random centers, spread over the images in random order."""
    rng = np.random.default_rng(0)
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
    entries = [
        {"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH, "license": 1}
        for i in range(1, images + 1)
    ]
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    circle = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    with path.open("w") as file:
        file.write(
            f'{{"images": {json.dumps(entries)}, "categories": {json.dumps(categories)}, "annotations": ['
        )
        for i in range(1, polygons + 1):
            radius = rng.uniform(4, 60)
            center = rng.uniform(radius, (WIDTH - radius, HEIGHT - radius))
            outline = (center + radius * circle * rng.uniform(0.7, 1, (points, 1))).round(2)
            low, size = outline.min(axis=0), np.ptp(outline, axis=0)
            entry = {
                "segmentation": [outline.ravel().tolist()],
                "area": round(float(size.prod() * 0.7), 4),
                "iscrowd": 0,
                "image_id": int(rng.integers(1, images + 1)),
                "bbox": [round(float(v), 2) for v in (*low, *size)],
                "category_id": int(rng.integers(1, CLASSES + 1)),
                "id": i,
            }
            file.write((", " if i > 1 else "") + json.dumps(entry))
        file.write("]}")


def anonymous_mib() -> float:
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return kib / 1024


def measured(step: str, path: Path) -> dict[str, Any]:
    """Do a step in this process and report what it cost."""
    before, cpu, wall = anonymous_mib(), time.process_time(), time.perf_counter()
    if step == "check":
        kept: Any = find_problems(path, "all")
    else:
        kept = Dataset.open(path, seen=["class 1", "class 2"]).for_training()
        kept.boxes_xyxy(), kept.class_index(), kept.has_mask(), kept.rows_by_image()
    return {
        "step": step,
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "wall_seconds": round(time.perf_counter() - wall, 2),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "anonymous_above_import_mib": round(anonymous_mib() - before),
        "rows": len(kept) if step == "check" else len(kept.annotations),
    }


def main() -> None:
    """Make a file, then read it, open it again, and check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--polygons", type=int, default=860_000)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help="measure on this file instead")
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(measured(arguments.step, arguments.file)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / "instances.json"
        if arguments.file is None:
            write_file(path, arguments.images, arguments.polygons)
        print(f"{path.stat().st_size / 1e6:.0f} MB")
        for step, cache in (("first read", "a"), ("open again", "a"), ("open again", "a"), ("check", "b")):
            command = [sys.executable, __file__, "--step", step, "--file", str(path)]
            environment = os.environ | {"DEEPMAC_CACHE": f"{folder}/{cache}"}
            print(
                subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout,
                end="",
            )


if __name__ == "__main__":
    main()
