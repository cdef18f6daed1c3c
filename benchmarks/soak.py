"""Hours of harm: runs killed at any moment, and files broken in any way. Bytes and messages are compared.

    python benchmarks/soak.py kills [--kills 200] [--seed 0] [--json FILE]
    python benchmarks/soak.py mutations [--files 20000] [--seed 0] [--json FILE]

`kills` runs a hold-out and the whole chain on generated scenes once, then again and again under SIGKILL,
until so many have hit; of five signals one is a SIGTERM, and one run in five is forced over a finished one.
Half of the signals come at any time, the others while a stage drawn by chance works, so that short stages
are hit as well. Every run that ends has to hold the bytes of the first. `mutations` breaks sound files of
every kind of `hostile.py`: each has to be read, or refused on one line. `--json` keeps the counts, of kills
after each run that ended, so that a soak which is stopped leaves its own. `make soak` does both,
and `soak_many.py`.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from deepmac_distill import cli
from deepmac_distill.chain import CHAIN
from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from hostile import KINDS, at_random, fault_of

PIPELINE = """
threads = 1
device = "cpu"
[data]
source = "scenes"
seen = ["bar", "drop", "ellipse", "heart"]
[data.scenes]
train_images = 16
val_images = 6
size_px = 64
[labels]
unit_images = 4
[evaluation]
bootstrap = 20
max_detections = 10
[holdout]
first = true
teachers = ["recipe"]
""" + "".join(
    f"""
[{role}.model]
backbone = "tiny"
backbone_width = 8
head_channels = 8
mask_width = 8
mask_size = 8
mask_head = "resnet-4"
[{role}.train]
steps = 24
batch_size = 4
image_size_px = 64
ema_decay = 0.9
checkpoint_every = 5
"""
    for role in ("teacher", "student")
)
HOLDOUT = "holdout"
# What of a record no two runs have in common. A hold-out's figures hold seconds; its page and record follow.
TIMES = ("seconds_since_last_start", "ended", "time", "seconds")
PATIENCE = 0.15  # a run is killed after at most this share of the seconds that it takes alone
MORE_PATIENCE = 0.1  # and after so much more with each kill of the same run, so that each ends some time
IN_STAGE = 0.02  # a run that is killed in a stage works on in it for at most this share
POLL_SECONDS = 0.002
STAGES = ("scenes", "holdout-folds", HOLDOUT, *(stage.name for stage in CHAIN))


def bytes_of(run: Path) -> dict[str, bytes | str]:
    """Every file of a run, less the times in its records."""
    found: dict[str, bytes | str] = {}
    for path in sorted(
        path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".lock")
    ):
        content: bytes | str = path.read_bytes()
        timed = path.name in ("done.json", "environment.json") or path == run / HOLDOUT / "summary.json"
        if timed:
            content = json.dumps(_without_times(json.loads(content), path.parent.name == HOLDOUT))
        # A stage that was killed has read validation more than once.
        if path.name not in ("validation_readings.jsonl", "holdout.md"):
            found[str(path.relative_to(run))] = content
    return found


def _without_times(value: Any, of_holdout: bool) -> Any:
    if isinstance(value, list):
        return [_without_times(one, of_holdout) for one in value]
    if not isinstance(value, dict):
        return value
    left_out = (*TIMES, "outputs") if of_holdout else TIMES
    return {key: _without_times(one, of_holdout) for key, one in value.items() if key not in left_out}


def started(pipeline: Path, run: Path, *more: str) -> BaseProcess:
    """`deepmac run` in a process of its own, forked: to import everything again would be most of its time."""
    words = ["run", str(pipeline), "--out", str(run), *more]
    process = multiprocessing.get_context("fork").Process(target=_run, args=(words, said_in(pipeline)))
    process.start()
    return process


def said_in(pipeline: Path) -> Path:
    """The file of what a run has printed."""
    return pipeline.with_name("said.txt")


def _run(words: Sequence[str], said: Path) -> None:
    with said.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    cli.main(words)


def kills(wanted: int, seed: int, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Kill runs until `wanted` SIGKILLs have hit; `faults` counts the runs that differ or failed.

    Args:
        keep: gets the counts after each run that ended, with how many were wanted.
    """
    chance, hits, faults, ended = random.Random(seed), collections.Counter[str](), 0, 0
    signals = dict.fromkeys((signal.SIGKILL.name, signal.SIGTERM.name), 0)
    kept: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        pipeline, run = Path(folder) / "soak.toml", Path(folder) / "run"
        pipeline.write_text(PIPELINE)
        importlib.import_module("deepmac_distill.stages.run")  # once, before any fork
        began = time.monotonic()
        alone = started(pipeline, run)
        alone.join()
        assert alone.exitcode == 0, f"the run that nobody kills fails: {said_in(pipeline).read_text()}"
        seconds, expected = time.monotonic() - began, bytes_of(run)
        while signals["SIGKILL"] < wanted:
            forced = chance.random() < 0.2 and (run / "report").exists()
            if not forced:
                shutil.rmtree(run, ignore_errors=True)
            more, patience = ["--force"] if forced else [], PATIENCE
            while True:
                process = started(pipeline, run, *more)
                _work(process, run, chance, seconds, patience)
                number = signal.SIGTERM if chance.random() < 0.2 else signal.SIGKILL
                (process.terminate if number is signal.SIGTERM else process.kill)()
                process.join()
                if process.exitcode not in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
                    break  # it had ended before
                hits[_place(run)] += 1
                signals[number.name] += 1
                more, patience = [], patience + MORE_PATIENCE  # what --force began goes on without it
                if hits.total() % 20 == 0:
                    print(f"{hits.total()} kills, {ended} runs ended, {faults} faults", flush=True)
            ended += 1
            found = bytes_of(run) if process.exitcode == 0 else {}
            if found != expected:
                faults += 1
                differing = [
                    name for name in found.keys() | expected if found.get(name) != expected.get(name)
                ]
                said = said_in(pipeline).read_bytes()[-500:]
                print(f"FAULT: code {process.exitcode}, differs in {differing[:5]}: {said!r}", flush=True)
            counts = {"signals": signals, "runs_ended": ended, "faults": faults}
            kept = {"wanted": wanted, **counts, "at_work": dict(hits.most_common())}
            kept["never_hit"] = sorted(set(STAGES) - set(hits))
            keep(kept)
    return kept


def _work(process: BaseProcess, run: Path, chance: random.Random, seconds: float, patience: float) -> None:
    """Let a run work until it is to be killed, or ends."""
    until = time.monotonic() + chance.uniform(0, patience * seconds)
    if chance.random() < 0.5:
        to_come = [stage for stage in STAGES if not (run / stage).exists()] or STAGES
        stage, until = chance.choice(to_come), time.monotonic() + patience * seconds
        while process.is_alive() and time.monotonic() < until and _place(run) != stage:
            time.sleep(POLL_SECONDS)
        until = time.monotonic() + chance.uniform(0, IN_STAGE * seconds)
    process.join(max(0, until - time.monotonic()))


def _place(run: Path) -> str:
    """Which stage of a run is at work; the first by its name, where it works on several folders."""
    tops = (path.relative_to(run).parts[0] for path in _unfinished(run))
    stages = {top.removesuffix(".part") for top in tops if not top.startswith(".")}
    return min(
        ("scenes" if stage.startswith("scenes-") else stage for stage in stages), default="between stages"
    )


def _unfinished(run: Path) -> list[Path]:
    while True:
        try:
            return list(run.rglob("*.part"))
        except FileNotFoundError:  # a folder was renamed meanwhile
            continue


def mutations(wanted: int, seed: int) -> dict[str, Any]:
    """Break `wanted` files, evenly of all kinds; `faults` end in anything but a value or one line."""
    faults, files = collections.Counter[str](), -(-wanted // len(KINDS))
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            chance, path = random.Random(f"{seed} {kind.name}"), Path(folder) / kind.name / kind.name
            path.parent.mkdir()
            kind.write(path)
            sound = path.read_bytes()
            for _ in range(files):
                path.write_bytes(at_random(chance, sound))
                if fault := fault_of(kind, path):
                    faults[f"{kind.name}: {fault[:120]}"] += 1
            print(f"{kind.name}: {faults.total()} faults so far", flush=True)
    for fault, count in faults.most_common():
        print(f"FAULT {count} x {fault}")
    return {"files_of_each_kind": files, "kinds": [kind.name for kind in KINDS], "faults": faults.total()}


def main() -> None:
    """Parse the words, and end with code 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("kills", "mutations"))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="keep the counts here, beside those that are there")
    given = parser.parse_args()
    began = time.monotonic()

    def keep(found: dict[str, Any]) -> None:
        if given.json is None:
            return
        kept = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else {}
        words = " ".join(["python benchmarks/soak.py", *sys.argv[1:]])
        about = {"command": words, "seconds": round(time.monotonic() - began), "environment": environment()}
        write_json(given.json, {**kept, f"{given.what}, seed {given.seed}": about | found})

    if given.what == "kills":
        found = kills(given.kills, given.seed, keep)
    else:
        found = mutations(given.files, given.seed)
        keep(found)
    print(json.dumps(found))
    sys.exit(bool(found["faults"]))


if __name__ == "__main__":
    main()
