"""Labels a data set through Ray: a task for each shard, in any number of workers, then one that joins them.

    pip install 'deepmac-distill[ray]'
    python examples/ray_labeling.py 7 --out runs/mine
    python examples/ray_labeling.py 7 --config my.toml --out /shared/runs/mine --model starter

The words after the number of shards are those of `deepmac pseudolabel`. The run directory, the data and the
weights have to be on disks that all workers see under one path. A task that is lost, with its worker or by a
signal, is done again up to three times, and goes on from the units that are there. The label file has the
bytes of one process (CPU, same `threads`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import ray


@ray.remote(max_retries=3, retry_exceptions=[ChildProcessError])
def label(shard: str, words: list[str], folder: str) -> str:
    """Do a shard; returns why it failed, which is the last line that the command printed, or nothing.

    Raises:
        ChildProcessError: the command was ended from outside, such as for want of memory.
    """
    command = [sys.executable, "-m", "deepmac_distill", "pseudolabel", *words, "--shard", shard]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode < 0:
        raise ChildProcessError(f"shard {shard}: ended by signal {-ended.returncode}")
    line = ended.stderr.strip().rpartition("\n")[2]
    return "" if ended.returncode == 0 else line or f"shard {shard}: exit code {ended.returncode}"


def main(count: int, words: list[str]) -> int:
    """Label in so many shards and join them; returns the exit code."""
    ray.init(ignore_reinit_error=True)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0  # a task that asks for none sees none
    folder = str(Path.cwd())
    tasks = [label.options(num_gpus=gpus).remote(f"{index}/{count}", words, folder) for index in range(count)]
    failed = [line for line in map(_why_failed, tasks) if line]
    for line in failed:
        sys.stderr.write(f"{line}\n")
    if failed:
        return 2
    join = [sys.executable, "-m", "deepmac_distill", "assemble", *words]
    return subprocess.run(join, check=False).returncode


def _why_failed(task: ray.ObjectRef) -> str:
    try:
        return str(ray.get(task))
    except ray.exceptions.RayError as error:  # it was lost more often than it is done again
        return str(error).strip().rpartition("\n")[2]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of shards, 1 or more")
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shards", type=_count, help="How many there are.")
    given, further = parser.parse_known_args()
    sys.exit(main(given.shards, further))
