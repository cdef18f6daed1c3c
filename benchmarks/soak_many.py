"""Many processes under kills: shards that label and evaluate, and ranks that train. Bytes are compared.

    python benchmarks/soak_many.py [--kills 60] [--seed 0] [--json FILE]

`shards`: three processes label, and three evaluate, each a shard, all killed at any moment and started again
until every shard has ended; then `deepmac assemble` joins them, under kills too. Every file has to hold the
bytes of one process that nobody killed. `ranks`: torchrun trains in two processes, one of which is killed;
torchrun starts both again, and the weights have to be those of two that nobody killed, to the byte. Of five
kills four hit shards.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from soak import PIPELINE, bytes_of

SHARDS = 3
DEEPMAC = [sys.executable, "-m", "deepmac_distill"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STAGES = {"pseudolabel": ["pseudolabel"], "evaluate": ["evaluate", "teacher"]}
LABELED = ("pseudolabel", "select", "evaluate-teacher")  # folders that are compared
Hits = collections.Counter[str]


def start(*command: str) -> subprocess.Popen[bytes]:
    """A command in a process of its own; what it prints to stderr can be read."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ends(command: list[str], chance: random.Random, seconds: float, hits: Hits, name: str, most: int) -> None:
    """Start a command and kill it at a random moment, at most so often; then let it end.

    Raises:
        RuntimeError: it failed.
    """
    for _ in range(most):
        process = start(*command)
        try:
            process.communicate(timeout=chance.uniform(0, seconds))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            hits[name] += 1
    process = start(*command)
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{name}: code {process.returncode}: {said[-300:]!r}")


def shards(run: Path, stage: str, chance: random.Random, seconds: float, hits: Hits) -> None:
    """Do a stage in shards at once, each killed now and then, and join them.

    Raises:
        RuntimeError: a shard that nobody killed, or the joining, failed.
    """
    at = ["--out", str(run)]
    waiting = [[*DEEPMAC, *STAGES[stage], *at, "--shard", f"{index}/{SHARDS}"] for index in range(SHARDS)]
    while waiting:
        until = time.monotonic() + chance.uniform(0, seconds)
        working = [(command, start(*command)) for command in waiting]
        victims = {index for index in range(len(working)) if chance.random() < 0.7}
        waiting = []
        for index, (command, process) in enumerate(working):
            if index in victims:
                try:
                    process.wait(max(until - time.monotonic(), 0))
                except subprocess.TimeoutExpired:
                    process.kill()
                    hits[f"shards of {stage}"] += 1
            _, said = process.communicate()
            if process.returncode == -signal.SIGKILL:
                waiting.append(command)
            elif process.returncode:
                raise RuntimeError(f"{stage}: code {process.returncode}: {said[-300:]!r}")
    join = [*DEEPMAC, "assemble", *STAGES[stage], *at]
    ends(join, chance, seconds, hits, f"joining {stage}", most=2)


def ranks(pipeline: Path, run: Path, hits: Hits, chance: random.Random | None, seconds: float = 0) -> None:
    """Train in two processes, one of which is killed by chance; torchrun starts both again.

    Raises:
        RuntimeError: the training failed.
    """
    words = ["teach", "--config", str(pipeline), "--out", str(run)]
    process = start(*TORCHRUN, "--max-restarts", "2", "-m", "deepmac_distill", *words)
    if chance is not None:
        time.sleep(chance.uniform(0.3, 1) * seconds)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if process.poll() is None and children:
            os.kill(int(chance.choice(children)), signal.SIGKILL)
            hits["ranks of teach"] += 1
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"ranks: code {process.returncode}: {said[-500:]!r}")


def compared(run: Path, folders: tuple[str, ...]) -> dict[str, bytes | str]:
    """Files of some stages, less what states when they were made."""
    found = bytes_of(run)
    return {name: found[name] for name in found if Path(name).parts[0] in folders and "done.json" not in name}


def soak(wanted: int, seed: int) -> dict[str, Any]:
    """Kill until `wanted` have hit; `faults` counts what failed or differs."""
    chance, hits, faults, rounds = random.Random(seed), Hits(), 0, Hits()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipeline, whole, two = folder / "soak.toml", folder / "whole", folder / "two"
        pipeline.write_text(
            PIPELINE.partition("[holdout]")[0] + PIPELINE[PIPELINE.index("[teacher.model]") :]
        )
        assert start(*DEEPMAC, "run", str(pipeline), "--out", str(whole)).wait() == 0
        began = time.monotonic()
        ranks(pipeline, two, Hits(), None)
        seconds, trained = time.monotonic() - began, compared(two, ("teacher",))
        labeled = compared(whole, LABELED)
        while hits.total() < wanted:
            what, run = "ranks" if chance.random() < 0.2 else "shards", folder / "run"
            shutil.rmtree(run, ignore_errors=True)
            rounds[what] += 1
            try:
                if what == "ranks":
                    ranks(pipeline, run, hits, chance, seconds)
                    found, expected = compared(run, ("teacher",)), trained
                else:
                    shutil.copytree(whole, run, ignore=shutil.ignore_patterns(*LABELED))
                    for stage in STAGES:
                        shards(run, stage, chance, seconds / 2, hits)
                    found, expected = compared(run, LABELED), labeled
                if differing := sorted(n for n in found | expected if found.get(n) != expected.get(n)):
                    raise RuntimeError(f"differs in {differing[:5]}")
            except RuntimeError as fault:
                faults += 1
                print(f"FAULT: {what}: {fault}", flush=True)
            print(f"{hits.total()} kills, {rounds.total()} rounds, {faults} faults", flush=True)
    return {"kills": dict(hits.most_common()), "rounds": dict(rounds), "faults": faults}


def main() -> None:
    """Parse the words, and end with code 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = soak(given.kills, given.seed)
    print(found)
    if given.json:
        write_json(given.json, {"environment": environment(), "seed": given.seed, **found})
    sys.exit(bool(found["faults"]))


if __name__ == "__main__":
    main()
