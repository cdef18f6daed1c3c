"""Trainings in two processes that torchrun starts: the same weights, one line for any end, one state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
GENTLE = ("optimizer=sgd", "lr=1e-4", "checkpoint_every=1000")


def of_teacher(keys: Sequence[str]) -> list[str]:
    return [word for key in keys for word in ("--set", f"teacher.train.{key}")]


def start(logs: Path, *arguments: str | Path, restarts: int = 0) -> subprocess.Popen[bytes]:
    """`deepmac` in two processes; what each of them prints goes to files."""
    command = [
        *TORCHRUN,
        "--max-restarts",
        str(restarts),
        "--log-dir",
        logs,
        "--redirects",
        "3",
        "-m",
        "deepmac_distill",
        *arguments,
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        [str(word) for word in command], env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet
    )


def printed(logs: Path, stream: str) -> list[str]:
    """Lines of both processes, the first one's first; bars apart."""
    files = sorted(logs.rglob(f"{stream}.log"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("training")]


def test_a_signal_saves_a_training_of_two_processes_once_and_one_process_ends_it_alike(
    deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    """Its weights are those of a training that one process did from the first step to the last."""
    both, logs = tmp_path / "both", tmp_path / "logs"
    command = ["teach", "--config", scenes_toml, *of_teacher((*GENTLE, "steps=40"))]
    process = start(logs, *command, "--out", both)
    log, deadline = both / "teacher.part" / "metrics.jsonl", time.monotonic() + 300
    while not (log.exists() and log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, printed(logs, "stderr")
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=120)
    state = torch.load(both / "teacher.part" / "state.pt", weights_only=True)
    (line,) = [line for line in printed(logs, "stderr") if line.startswith("deepmac:")]
    assert f"stopped, saved after step {state['step']} of 40" in line and 0 < state["step"] < 40
    assert deepmac(*command, "--out", both).code == 0
    assert deepmac(*command, "--out", tmp_path / "one").code == 0
    ours, theirs = (load_file(at / "teacher" / "weights.safetensors") for at in (both, tmp_path / "one"))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 1e-3


def test_a_killed_process_comes_back_and_the_weights_are_those_of_a_training_that_was_left_alone(
    scenes_toml: Path, tmp_path: Path
) -> None:
    keys = of_teacher(("steps=40", "checkpoint_every=4"))
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    command = ["teach", "--config", scenes_toml, *keys]
    first = start(tmp_path / "logs of alone", *command, "--out", alone)
    assert first.wait(timeout=300) == 0, printed(tmp_path / "logs of alone", "stderr")
    process = start(tmp_path / "logs", *command, "--out", killed, restarts=1)
    state, deadline = killed / "teacher.part" / "state.pt", time.monotonic() + 300
    while not state.exists():
        assert process.poll() is None and time.monotonic() < deadline, printed(tmp_path / "logs", "stderr")
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    workers = sorted(int(number) for path in children for number in path.read_text().split())
    os.kill(workers[-1], signal.SIGKILL)
    assert process.wait(timeout=300) == 0, printed(tmp_path / "logs", "stderr")
    assert any("goes on where it was stopped" in line for line in printed(tmp_path / "logs", "stderr"))
    weights = Path("teacher", "weights.safetensors")
    assert (killed / weights).read_bytes() == (alone / weights).read_bytes()


def test_an_image_that_one_process_cannot_read_ends_both_with_its_line(
    chain, small_toml: Path, tmp_path: Path
) -> None:
    scenes, images = chain[0] / "scenes-train", tmp_path / "images"
    images.mkdir()
    for image in (scenes / "images").iterdir():
        (images / image.name).write_bytes(image.read_bytes())
    broken = min(images.iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    data = ["--annotations", scenes / "instances.json", "--images", images, "--out", tmp_path / "run"]
    seen = ["--seen", "with-masks"]
    process = start(tmp_path / "logs", "teach", "--config", small_toml, *data, *seen)
    assert process.wait(timeout=300) == 1  # torchrun's own
    lines = printed(tmp_path / "logs", "stderr")
    (line,) = [line for line in lines if line.startswith("deepmac:")]
    assert line.startswith("deepmac: rank ") and broken.name in line
    assert not any("Traceback" in line for line in lines)


def test_two_processes_share_the_units_of_evaluation_and_labeling(chain, run_copy, tmp_path: Path) -> None:
    """And the first one joins them: the bytes are those of one process."""
    run = run_copy("pseudolabel", "select", "student", "evaluate-*", "report")
    process = start(tmp_path / "logs", "run", "--config", run / "config.toml", "--out", run)
    assert process.wait(timeout=300) == 0, printed(tmp_path / "logs", "stderr")
    assert f"report: {run / 'report'}" in printed(tmp_path / "logs", "stdout")
    names = ("masks.parquet", "ious.parquet", "detections.json", "summary.json")
    for name in ("pseudolabel/masks.parquet", *(f"evaluate-teacher/{name}" for name in names)):
        assert (run / name).read_bytes() == (chain[0] / name).read_bytes(), name
