"""Labels a data set through Ray: a task for each shard, in any number of workers, then one that joins them.

    pip install 'deepmac-distill[ray]'
    python examples/ray_labeling.py 7 --out runs/mine
    python examples/ray_labeling.py 7 --config my.toml --out /shared/runs/mine --model starter

The words after the number of shards are those of `deepmac pseudolabel`. The run directory, the data and the
weights have to be on disks that all workers see under one path. A task that is lost is done again, and goes
on from the units that are there. The label file has the bytes of one process (CPU, same `threads`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ray


@ray.remote(max_retries=3)
def label(shard: str, words: list[str], folder: str) -> str:
    """Do a shard; the exit code of the command decides, its last line is why it failed."""
    command = [sys.executable, "-m", "deepmac_distill", "pseudolabel", *words, "--shard", shard]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return "" if ended.returncode == 0 else ended.stderr.strip().rpartition("\n")[2]


def main(count: int, words: list[str]) -> int:
    """Label in so many shards and join them; returns the exit code."""
    ray.init(ignore_reinit_error=True)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0  # a task that asks for none sees none
    folder = str(Path.cwd())
    tasks = [label.options(num_gpus=gpus).remote(f"{index}/{count}", words, folder) for index in range(count)]
    failed = [line for line in ray.get(tasks) if line]
    for line in failed:
        sys.stderr.write(f"{line}\n")
    if failed:
        return 2
    join = [sys.executable, "-m", "deepmac_distill", "assemble", *words]
    return subprocess.run(join, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
