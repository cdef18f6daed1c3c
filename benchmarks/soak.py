"""Hours of harm: runs killed at any moment, and files broken in any way. Bytes and messages are compared.

    python benchmarks/soak.py kills [--kills 200] [--seed 0]
    python benchmarks/soak.py mutations [--files 20000] [--seed 0]

`kills` runs the whole chain on generated scenes once, then again and again under SIGKILL, until so many kills
have hit; one in five is a SIGTERM, and one run in five is forced over a finished one. Every run that ends has
to hold the bytes of the first. `mutations` breaks sound files of every kind of `hostile.py`: each has to be
read, or refused on one line. `make soak` does both.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hostile import KINDS, at_random, fault_of

PIPELINE = """
threads = 1
device = "cpu"
[data]
source = "scenes"
seen = ["bar", "drop", "ellipse"]
[data.scenes]
train_images = 24
val_images = 8
size_px = 64
[labels]
unit_images = 4
[evaluation]
bootstrap = 20
max_detections = 10
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
steps = 40
batch_size = 4
image_size_px = 64
ema_decay = 0.9
checkpoint_every = 5
"""
    for role in ("teacher", "student")
)
TIMES = ("seconds_since_last_start", "ended", "time")  # what of a record no two runs have in common


def bytes_of(run: Path) -> dict[str, bytes | str]:
    """Every file of a run, less the times in its records."""
    found: dict[str, bytes | str] = {}
    for path in sorted(
        path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".lock")
    ):
        content: bytes | str = path.read_bytes()
        if path.name in ("done.json", "environment.json"):
            record = json.loads(content)
            content = json.dumps({key: value for key, value in record.items() if key not in TIMES})
        if path.name != "validation_readings.jsonl":  # a stage that was killed has read it more than once
            found[str(path.relative_to(run))] = content
    return found


def started(pipeline: Path, run: Path, *more: str) -> subprocess.Popen[bytes]:
    """`deepmac run` in a process of its own."""
    command = [sys.executable, "-m", "deepmac_distill", "run", str(pipeline), "--out", str(run), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kills(wanted: int, seed: int) -> int:
    """Kill runs until `wanted` kills have hit; returns how many runs differ or failed."""
    chance, hits, faults, ended = random.Random(seed), collections.Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        pipeline, run = Path(folder) / "soak.toml", Path(folder) / "run"
        pipeline.write_text(PIPELINE)
        began = time.monotonic()
        assert started(pipeline, run).wait() == 0, "the run that nobody kills fails"
        seconds, expected = time.monotonic() - began, bytes_of(run)
        while hits.total() < wanted:
            forced = chance.random() < 0.2 and (run / "report").exists()
            if not forced:
                shutil.rmtree(run, ignore_errors=True)
            more = ["--force"] if forced else []
            while True:
                process = started(pipeline, run, *more)
                try:
                    _, said = process.communicate(timeout=chance.uniform(0, seconds))
                except subprocess.TimeoutExpired:
                    number = signal.SIGTERM if chance.random() < 0.2 else signal.SIGKILL
                    process.send_signal(number)
                    _, said = process.communicate()
                    hits[_place(run)] += 1
                    more = []  # what --force began goes on without it
                    if hits.total() % 20 == 0:
                        print(f"{hits.total()} kills, {ended} runs ended, {faults} faults", flush=True)
                    continue
                break
            ended += 1
            found = bytes_of(run) if process.returncode == 0 else {}
            if found != expected:
                faults += 1
                differing = [
                    name for name in found.keys() | expected if found.get(name) != expected.get(name)
                ]
                print(f"FAULT: code {process.returncode}, differs in {differing[:5]}: {said[-500:]!r}")
    print(f"{hits.total()} kills, {ended} runs ended, {faults} faults; at work: {dict(hits)}")
    return faults


def _place(run: Path) -> str:
    """At which stage a run was killed."""
    parts = sorted(path.name for path in run.glob("*.part")) if run.is_dir() else []
    return parts[0].removesuffix(".part") if parts else "between stages"


def mutations(wanted: int, seed: int) -> int:
    """Break `wanted` files, evenly of all kinds; returns how many end in anything but a value or one line."""
    faults = collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            chance, path = random.Random(f"{seed} {kind.name}"), Path(folder) / kind.name / kind.name
            path.parent.mkdir()
            kind.write(path)
            sound = path.read_bytes()
            for _ in range(-(-wanted // len(KINDS))):
                path.write_bytes(at_random(chance, sound))
                if fault := fault_of(kind, path):
                    faults[f"{kind.name}: {fault[:120]}"] += 1
            print(f"{kind.name}: {faults.total()} faults so far", flush=True)
    for fault, count in faults.most_common():
        print(f"FAULT {count} x {fault}")
    print(f"{wanted} files, {faults.total()} faults")
    return faults.total()


def main() -> None:
    """Parse the words, and end with code 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("kills", "mutations"))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    what = kills(given.kills, given.seed) if given.what == "kills" else mutations(given.files, given.seed)
    sys.exit(bool(what))


if __name__ == "__main__":
    main()
