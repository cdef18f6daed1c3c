"""Many processes under kills: shards that label and evaluate, and ranks that train. Bytes are compared.

    python benchmarks/soak_many.py [--kills 40] [--ranks 20] [--seed 0] [--json FILE]

`shards`: three processes label, and three evaluate, each a shard, killed at any moment and started again
until all have ended; then `deepmac assemble` joins them, under kills too. Every file has to hold the bytes
of one process that nobody killed. `ranks`: torchrun trains in two processes, one of which is killed at any
moment, up to six times; torchrun starts both again each time, and the weights have to be those of two that
nobody killed, to the byte. Rounds of ranks go first, until `--ranks` kills have hit one, then those of shards
until `--kills` have. `--json` keeps the counts after each round.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from deepmac_distill import cli
from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from soak import PIPELINE, bytes_of

SHARDS = 3
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STAGES = {"pseudolabel": ["pseudolabel"], "evaluate": ["evaluate", "teacher"]}
RANKS = "ranks of teach"
ROUND_KILLS, RESTART_SECONDS = 6, 300.0  # of ranks; until torchrun has started them again
STEPS = 300  # of the training that ranks do: it lasts longer than whoever kills takes to wake
LABELED = ("pseudolabel", "select", "evaluate-teacher")  # folders that are compared
Hits = collections.Counter[str]


class Killer:
    """Starts commands, kills them at any moment, and counts the kills that hit."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance, self.hits = random.Random(seed), Hits()
        self._folder, self._seconds = folder, dict[str, float]()  # that a command took which ended

    def forked(self, words: Sequence[str], name: str) -> BaseProcess:
        """`deepmac` in a forked process: to import everything again would be most of its time."""
        said = self._folder / f"{name}.txt"
        process = multiprocessing.get_context("fork").Process(target=_run, args=(words, said))
        process.start()
        return process

    def until_all_end(self, commands: dict[str, list[str]], kind: str) -> None:
        """Start commands at once, kill them, and start what was killed again until all have ended.

        Raises:
            RuntimeError: one that nobody killed failed.
        """
        patience, waiting = 0.8, dict(commands)
        while waiting:
            began, most = time.monotonic(), patience * self._seconds.get(kind, 4.0)
            working = [
                (self.chance.uniform(0, most), name, self.forked(words, name))
                for name, words in waiting.items()
            ]
            for after, name, process in sorted(working, key=lambda one: one[0]):
                process.join(max(0.0, began + after - time.monotonic()))
                process.kill()
                process.join()
                if process.exitcode == -signal.SIGKILL:
                    self.hits[kind] += 1
                elif process.exitcode:
                    said = (self._folder / f"{name}.txt").read_bytes()
                    raise RuntimeError(f"{name}: code {process.exitcode}: {said[-300:]!r}")
                else:
                    self._seconds[kind] = time.monotonic() - began
                    del waiting[name]
            patience *= 1.5  # so that each ends some time

    def wait_in(self, state: Path, process: subprocess.Popen[bytes]) -> None:
        """Wait for a moment: in one of three cases while all start, else after some saved states."""
        if self.chance.random() < 1 / 3:
            time.sleep(self.chance.uniform(0, self._seconds.get(RANKS, 8.0)))
            return
        began = time.monotonic()
        for _ in range(self.chance.randint(1, 4)):
            saved = _changed(state)
            while process.poll() is None and _changed(state) == saved:
                time.sleep(0.002)
            self._seconds.setdefault(RANKS, time.monotonic() - began)  # until the first one
        time.sleep(self.chance.uniform(0, 0.2))

    def spared(self, words: list[str]) -> None:
        """Run a command that nobody kills.

        Raises:
            RuntimeError: it failed.
        """
        process = self.forked(words, "spared")
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{words}: code {process.exitcode}")


def _run(words: Sequence[str], said: Path) -> None:
    with said.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    cli.main(words)


def shards(killer: Killer, run: Path, stage: str) -> None:
    """Do a stage in shards at once, and join them.

    Raises:
        RuntimeError: a shard that nobody killed, or the joining, failed.
    """
    at = ["--out", str(run)]
    parts = [f"{index}/{SHARDS}" for index in range(SHARDS)]
    killer.until_all_end(
        {f"shard {part[0]}": [*STAGES[stage], *at, "--shard", part] for part in parts}, f"shards of {stage}"
    )
    killer.until_all_end({"joining": ["assemble", *STAGES[stage], *at]}, f"joining {stage}")


def ranks(pipeline: Path, run: Path, killer: Killer | None = None) -> None:
    """Train in two processes, one of which is killed by chance; torchrun starts both again.

    Raises:
        RuntimeError: the training failed.
    """
    words = ["teach", "--config", str(pipeline), "--out", str(run), "--set", f"teacher.train.steps={STEPS}"]
    command = [*TORCHRUN, "--max-restarts", str(ROUND_KILLS), "-m", "deepmac_distill", *words]
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads fills up
        # A session of its own, as the ranks have: some systems share time among sessions.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True)
        killed: list[int] = []
        while killer is not None and process.poll() is None and len(killed) < 2 * ROUND_KILLS:
            workers = _next_workers(process, killed)
            killer.wait_in(run / "teacher.part" / "state.pt", process)
            if workers and (rank := killer.chance.choice(workers)) in _workers(process.pid):
                os.kill(rank, signal.SIGKILL)
                killer.hits[RANKS] += 1
            killed += workers
        process.wait()
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"ranks: code {process.returncode}: {said.read()[-800:]!r}")


def _next_workers(process: subprocess.Popen[bytes], earlier: Sequence[int]) -> list[int]:
    """The ranks that torchrun has started since the last kill; none where it has ended."""
    until = time.monotonic() + RESTART_SECONDS
    while process.poll() is None and time.monotonic() < until:
        if len(workers := [one for one in _workers(process.pid) if one not in earlier]) == 2:
            return workers
        time.sleep(0.002)
    return []


def _changed(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _workers(process: int) -> list[int]:
    """The ranks that torchrun has started and that still run, with Python in them."""
    found = [path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return sorted(one for one in (int(number) for some in found for number in some) if _trains(one))


def _trains(process: int) -> bool:
    with suppress(OSError):
        return b"deepmac_distill" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def compared(run: Path, folders: tuple[str, ...]) -> dict[str, bytes | str]:
    """Files of some stages, less what states when they were made."""
    found = bytes_of(run)
    return {name: found[name] for name in found if Path(name).parts[0] in folders and "done.json" not in name}


def soak(wanted: int, of_ranks: int, seed: int, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Kill until `of_ranks` have hit ranks and `wanted` the rest; `faults` counts what failed or differs.

    Args:
        keep: gets the counts after each round.
    """
    counts: dict[str, Any] = {"wanted": {"ranks": of_ranks, "shards": wanted}}
    faults, rounds = 0, Hits()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killer = Killer(seed, folder)
        pipeline, run, whole = folder / "soak.toml", folder / "run", folder / "whole"
        pipeline.write_text(
            PIPELINE.partition("[holdout]")[0] + PIPELINE[PIPELINE.index("[teacher.model]") :]
        )
        if of_ranks:
            ranks(pipeline, run)
        trained = compared(run, ("teacher",))
        while what := _next_round(killer.hits, wanted, of_ranks):
            shutil.rmtree(run, ignore_errors=True)
            rounds[what] += 1
            try:
                if what == "ranks":
                    ranks(pipeline, run, killer)
                    found, expected = compared(run, ("teacher",)), trained
                else:
                    if not whole.exists():
                        killer.spared(["run", str(pipeline), "--out", str(run)])
                        run.rename(whole)  # records name the folder of a run: all are made in one
                    labeled = compared(whole, LABELED)
                    shutil.copytree(whole, run, ignore=shutil.ignore_patterns(*LABELED))
                    for stage in STAGES:
                        shards(killer, run, stage)
                    found, expected = compared(run, LABELED), labeled
                if differing := sorted(n for n in found | expected if found.get(n) != expected.get(n)):
                    raise RuntimeError(f"differs in {differing[:5]}")
            except RuntimeError as fault:
                faults += 1
                print(f"FAULT: {what}: {fault}", flush=True)
            print(f"{dict(killer.hits)}, {rounds.total()} rounds, {faults} faults", flush=True)
            counts |= {"kills": dict(killer.hits.most_common()), "rounds": dict(rounds), "faults": faults}
            keep(counts)
    return counts


def _next_round(hits: Hits, wanted: int, of_ranks: int) -> str:
    """What is killed next; empty: enough was."""
    if hits[RANKS] < of_ranks:
        return "ranks"
    return "shards" if hits.total() - hits[RANKS] < wanted else ""


def main() -> None:
    """Parse the words, and end with code 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--ranks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    def keep(counts: dict[str, Any]) -> None:
        if given.json:
            write_json(given.json, {"environment": environment(), "seed": given.seed, **counts})

    found = soak(given.kills, given.ranks, given.seed, keep)
    print(found)
    sys.exit(bool(found["faults"]))


if __name__ == "__main__":
    main()
