"""Trainings in two processes that torchrun starts: the same weights, one line for any end, one state."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ONE_MACHINE = ("--standalone", "--nproc-per-node", "2")
GENTLE = ("optimizer=sgd", "lr=1e-4", "checkpoint_every=1000")


def of_teacher(keys: Sequence[str]) -> list[str]:
    return [word for key in keys for word in ("--set", f"teacher.train.{key}")]


def meeting_at(port: int) -> tuple[str, ...]:
    """Words of torchrun on one of two machines, each of which does one process."""
    where = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "both")
    return ("--nnodes", "2", "--nproc-per-node", "1", "--local-addr", "127.0.0.1", *where)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def workers_of(agent: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{agent.pid}/task").glob("*/children")
    return sorted(int(number) for path in children for number in path.read_text().split())


def start(
    logs: Path, *arguments: str | Path, restarts: int = 0, machine: Sequence[str] = ONE_MACHINE
) -> subprocess.Popen[bytes]:
    """`deepmac` in two processes, or a machine's part of them; what each prints goes to files."""
    command = [
        *TORCHRUN,
        *machine,
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


OF_SEVERAL = ("steps=40", "checkpoint_every=4")


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory, scenes_toml: Path) -> bytes:
    """Weights of two processes that nobody disturbs."""
    folder = tmp_path_factory.mktemp("left alone")
    command = ["teach", "--config", scenes_toml, *of_teacher(OF_SEVERAL), "--out", folder / "run"]
    assert start(folder / "logs", *command).wait(timeout=300) == 0, printed(folder / "logs", "stderr")
    return (folder / "run" / "teacher" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("machines", [1, 2])
def test_a_killed_process_comes_back_and_the_weights_are_those_of_a_training_that_was_left_alone(
    scenes_toml: Path, tmp_path: Path, left_alone: bytes, machines: int
) -> None:
    """Two processes of one machine, or one on each of two, where restarts are counted apart."""
    killed, logs = tmp_path / "killed", tmp_path / "logs"
    command = ["teach", "--config", scenes_toml, *of_teacher(OF_SEVERAL), "--out", killed]
    if machines == 1:
        agents = [start(logs, *command, restarts=1)]
    else:
        meets = meeting_at(free_port())
        agents = [start(logs / f"{node}", *command, restarts=1, machine=meets) for node in range(2)]
    state, deadline = killed / "teacher.part" / "state.pt", time.monotonic() + 300
    while not state.exists():
        assert all(agent.poll() is None for agent in agents), printed(logs, "stderr")
        assert time.monotonic() < deadline, printed(logs, "stderr")
        time.sleep(0.01)
    os.kill(workers_of(agents[-1])[-1], signal.SIGKILL)
    assert [agent.wait(timeout=300) for agent in agents] == [0] * machines, printed(logs, "stderr")
    assert any("goes on where it was stopped" in line for line in printed(logs, "stderr"))
    assert (killed / "teacher" / "weights.safetensors").read_bytes() == left_alone


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
