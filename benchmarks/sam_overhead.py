"""What our path around a SAM costs beside the bare model of `transformers`, of SAM-B's size.

    python benchmarks/sam_overhead.py --json benchmarks/results/sam_overhead.json

Weights are random. `bare` is the model's forward pass of one prepared image with its boxes. `ours` begins
with a JPEG file and ends with run-length codes: reading, resizing, encoding, decoding in chunks, grids over
boxes, rounding, cutting at each mask's own best. CPU seconds of one thread, both in turn, the least of each
image over the rounds. Memory is the peak of a process of its own that segments one image with many boxes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from deepmac_distill.contract import BoxSegmenter
from deepmac_distill.data.frames import view_for
from deepmac_distill.data.images import read_image
from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from deepmac_distill.labels.cut import EXPECTED_IOU
from deepmac_distill.one_image import segment_image
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Table, columns, names
from deepmac_distill.teachers.sam.families import FAMILIES
from deepmac_distill.teachers.sam.teacher import Sam
from deepmac_distill.training.sinks import peak_bytes

HEIGHT, WIDTH, CPU = 480, 640, torch.device("cpu")
CHUNK, BOXES_FOR_MEMORY = 16, (16, 160)


def write_images(folder: Path, count: int) -> list[Path]:
    """Photographs made up of smooth noise, as JPEG files."""
    rng, paths = np.random.default_rng(0), [folder / f"{at}.jpg" for at in range(count)]
    for path in paths:
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path)
    return paths


def draw_boxes(count: int) -> np.ndarray:
    """(N, 4) xyxy, of a tenth to half of each side of the image."""
    rng = np.random.default_rng(1)
    sides = rng.uniform(0.1, 0.5, (count, 2)) * (WIDTH, HEIGHT)
    corners = rng.uniform(0, (WIDTH, HEIGHT) - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def bare_pass(sam: Sam, path: Path, boxes: np.ndarray) -> Callable[[], object]:
    """The model alone, on what is prepared for it here."""
    family, view = FAMILIES["sam"], view_for(sam.spec, HEIGHT, WIDTH)
    mean, std = (torch.tensor(some).view(3, 1, 1) for some in (family.mean, family.std))
    pixels = (view.image(read_image(path)) - mean) / std
    prompts = torch.from_numpy(view.to_canvas(boxes)).float()
    network = sam._on(CPU)

    def forward() -> object:
        with torch.inference_mode():
            return network(pixel_values=pixels[None], input_boxes=prompts[None], multimask_output=False)

    return forward


def measure(folder: Path, images: int, boxes: int, rounds: int) -> dict[str, Any]:
    """The least CPU seconds of both over the rounds, for all images."""
    sam, drawn = Sam(str(folder)), draw_boxes(boxes)
    segmenter: BoxSegmenter = sam
    paths = write_images(folder, images)
    bare = [bare_pass(sam, path, drawn) for path in paths]
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(rounds):
        for path, forward in zip(paths, bare, strict=True):
            seconds["bare"].append(cpu_seconds(forward))
            ours = cpu_seconds(
                lambda at=path: segment_image(segmenter, read_image(at), drawn, EXPECTED_IOU, CPU)
            )
            seconds["ours"].append(ours)
    least = {name: sum(min(some[at::images]) for at in range(images)) for name, some in seconds.items()}
    return {"images": images, "boxes": boxes, "rounds": rounds, "cpu_seconds": least, "each": seconds}


def peak_mib(folder: Path, boxes: int) -> float:
    """Peak memory of a process that segments so many boxes of one image."""
    command = [sys.executable, __file__, "--memory", str(folder), "--boxes", str(boxes)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def segment_many(folder: Path, boxes: int) -> None:
    """Print the peak of this process in MiB."""
    sam = Sam(str(folder), boxes_at_once=CHUNK)
    segment_image(sam, read_image(folder / "0.jpg"), draw_boxes(boxes), EXPECTED_IOU, CPU)
    print((peak_bytes(CPU) or 0) / 2**20)


def page(recorded: Any) -> str:
    """Markdown for docs/results.md."""
    run, memory = recorded["run"], recorded["peak_mib"]
    seconds = {name: value / run["images"] for name, value in run["cpu_seconds"].items()}
    over = seconds["ours"] / seconds["bare"] - 1
    few, many = sorted(memory, key=int)
    heads = (
        "bare model, CPU s/image",
        "ours",
        "more, %",
        *(f"peak MiB, {boxes} boxes" for boxes in (few, many)),
    )
    cells = (f"{seconds['bare']:.2f}", f"{seconds['ours']:.2f}", f"{100 * over:+.1f}")
    row = ("SAM-B, 1024 px", *cells, *(f"{memory[boxes]:,.0f}" for boxes in (few, many)))
    machine, versions = recorded["environment"]["processor"], recorded["environment"]["packages"]
    return (
        f"{markdown_table(Table('', (*names('model'), *columns('figure', heads)), (row,)))}\n\n"
        "`python benchmarks/sam_overhead.py --json benchmarks/results/sam_overhead.json`: random weights, "
        f"{run['images']} images of {WIDTH} x {HEIGHT} px with {run['boxes']} boxes each, the least of "
        f"{run['rounds']} rounds; memory of one image with {CHUNK} boxes at once; one thread of "
        f"{machine}, torch {versions['torch']}, transformers {recorded['transformers']}."
    )


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--boxes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        segment_many(args.memory, args.boxes)
        return
    import transformers

    from random_sams import save_base  # here, since the tables of pages need no transformers

    with tempfile.TemporaryDirectory() as name:
        folder = save_base(Path(name))
        run = measure(folder, args.images, args.boxes, args.rounds)
        print(json.dumps(run["cpu_seconds"]))
        peaks = {str(boxes): peak_mib(folder, boxes) for boxes in BOXES_FOR_MEMORY}
        print(json.dumps(peaks))
    if args.json:
        version = transformers.__version__
        machine = {"environment": environment(), "transformers": version}
        write_json(args.json, {**machine, "run": run, "peak_mib": peaks})


if __name__ == "__main__":
    main()
