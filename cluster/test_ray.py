"""Labeling through Ray has the bytes of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import ray

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import ray_labeling

PIPELINE = """
threads = 1
device = "cpu"
[data]
source = "scenes"
seen = ["bar", "drop", "ellipse", "heart"]
[data.scenes]
train_images = 12
val_images = 2
size_px = 64
[labels]
unit_images = 4
[teacher.model]
backbone = "tiny"
backbone_width = 8
head_channels = 8
mask_width = 8
mask_size = 8
mask_head = "resnet-4"
[teacher.train]
steps = 2
batch_size = 4
image_size_px = 64
"""


def deepmac(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "deepmac_distill", *map(str, words)], check=True)


def kill_one(shard: bytes) -> bool:
    """Kill the command of a shard once it runs; returns whether it did."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        for at in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (at / "cmdline").read_bytes().split(b"\0")
                if b"pseudolabel" in words and shard in words:
                    os.kill(int(at.name), signal.SIGKILL)
                    return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("words", [["0"], ["x", "--out", "run"], []])
def test_a_number_of_shards_that_is_none_is_refused(words: list[str]) -> None:
    ended = subprocess.run([sys.executable, ray_labeling.__file__, *words], capture_output=True, text=True)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr and "shards" in ended.stderr


def test_labels_through_ray_are_those_of_one_process(tmp_path: Path) -> None:
    """Two tasks of three units; what a shard is refused for is one line, and nothing is joined.

    The command of the second task is killed once, and done again.
    """
    pipeline, alone, through = tmp_path / "small.toml", tmp_path / "alone", tmp_path / "through"
    pipeline.write_text(PIPELINE)
    for run in (alone, through):
        deepmac("teach", "--config", pipeline, "--out", run)
    deepmac("pseudolabel", "--out", alone)
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        words = ["--out", str(through)]
        assert ray_labeling.main(2, [*words, "--set", "labels.nothing=1"]) == 2
        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(kill_one, b"1/2")
            assert ray_labeling.main(2, words) == 0
        assert killed.result()
    finally:
        ray.shutdown()
    for name in ("pseudolabel/masks.parquet", "select/instances.json"):
        assert (through / name).read_bytes() == (alone / name).read_bytes()
