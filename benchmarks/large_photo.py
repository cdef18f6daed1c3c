"""CPU seconds and anonymous memory of `predict` on one large photograph, the program and its weights loaded.

    python benchmarks/large_photo.py [PHOTO] [--json FILE]

Without a photograph it makes one of noise that was smoothed: 6,000 x 4,000 pixels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from deepmac_distill.progress import Silent
from deepmac_distill.stages.given_boxes import the_same_in_each
from deepmac_distill.stages.predict import predict

BOXES = [[0.1, 0.1, 0.4, 0.5], [0.5, 0.25, 0.3, 0.6], [0.02, 0.03, 0.05, 0.08]]  # shares of the sides


def anonymous_mib() -> float:
    """Of this process, by Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measured(photo: Path, folder: Path) -> tuple[float, float, float]:
    """CPU seconds, MiB before, and the most MiB on top of it."""
    with Image.open(photo) as image:
        sides = np.tile(image.size, 2)
    boxes = (np.array(BOXES) * sides).round().tolist()
    before = most = anonymous_mib()
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.005):
            most = max(most, anonymous_mib())

    watching = threading.Thread(target=watch)
    watching.start()
    started = time.process_time()
    predict(None, torch.device("cpu"), the_same_in_each([photo], boxes), folder / "masks", Silent())
    seconds = time.process_time() - started
    ended.set()
    watching.join()
    return seconds, before, most - before


def main() -> None:
    """Print the three figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photo", type=Path, nargs="?")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.new("RGB", (64, 64)).save(folder / "small.png")
        given = the_same_in_each([folder / "small.png"], [[8, 8, 40, 40]])
        predict(None, torch.device("cpu"), given, folder / "first", Silent())  # start-up
        photo = arguments.photo or folder / "photo.jpg"
        if arguments.photo is None:
            noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((6000, 4000), Image.Resampling.BICUBIC).save(photo, quality=90)
        seconds, before, above = measured(photo, folder)
        with Image.open(photo) as image:
            size = list(image.size)
        print(f"{seconds:.2f} s of CPU, weights read again among them; ", end="")
        print(f"{above:.0f} MiB anonymous above {before:.0f} MiB")
    if arguments.json:
        figures = {"cpu_seconds": seconds, "mib_before": before, "mib_above": above}
        about = {
            "command": " ".join(["python benchmarks/large_photo.py", *sys.argv[1:]]),
            "width_height": size,
        }
        rounded = {name: round(value, 2) for name, value in figures.items()}
        write_json(arguments.json, {**about, **rounded, "environment": environment()})


if __name__ == "__main__":
    main()
