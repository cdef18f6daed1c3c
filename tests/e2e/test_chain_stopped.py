"""Stages that were stopped or killed go on to the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from deepmac_distill.stages import pseudolabel as pseudolabeling
from deepmac_distill.training import loop


def test_labeling_that_was_stopped_goes_on_to_the_same_bytes(chain, run_copy, deepmac, monkeypatch) -> None:
    run = run_copy("pseudolabel", "select", "student")
    write_unit, written = pseudolabeling.write_unit, []

    def once(folder: Path, unit: int, *rows: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(unit)
        write_unit(folder, unit, *rows)

    monkeypatch.setattr(pseudolabeling, "write_unit", once)
    assert deepmac("pseudolabel", "--out", run).code == 130
    assert not (run / "pseudolabel").exists() and written == [0]
    rest = []
    monkeypatch.setattr(
        pseudolabeling, "write_unit", lambda *given: (rest.append(given[1]), write_unit(*given))
    )
    ended = deepmac("pseudolabel", "--out", run)
    assert ended.code == 0 and rest == [1, 2, 3, 4, 5]  # 24 images in units of 4, the first one kept
    for name in ("pseudolabel/masks.parquet", "select/instances.json"):
        assert (run / name).read_bytes() == (chain[0] / name).read_bytes()


def test_training_that_was_stopped_goes_on_to_the_same_bytes(
    chain, run_copy, deepmac, scenes_toml, monkeypatch
) -> None:
    run = run_copy("teacher", "evaluate-*", "pseudolabel", "select", "student", "report")
    accumulate = loop.accumulate_gradients

    def stopping(*given: Any) -> Any:
        if given[-1] == 6:  # between the checkpoints after 4 and 8 steps
            raise KeyboardInterrupt
        return accumulate(*given)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "accumulate_gradients", stopping)
        assert deepmac("teach", "--config", scenes_toml, "--out", run).code == 130
    assert (run / "teacher.part" / "state.pt").exists() and not (run / "teacher").exists()
    ended = deepmac("teach", "--config", scenes_toml, "--out", run)
    assert ended.code == 0 and "teacher: goes on where it was stopped" in ended.err
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (run / "teacher" / name).read_bytes() == (chain[0] / "teacher" / name).read_bytes()


def kill_once_there(process: subprocess.Popen[str], path: Path, timeout_s: float = 600) -> None:
    """SIGKILL, which no process can answer, as soon as `path` is there."""
    deadline = time.monotonic() + timeout_s
    try:
        while process.poll() is None and not path.exists():
            assert time.monotonic() < deadline, f"{path} was not written in {timeout_s} s"
            time.sleep(0.005)
    finally:
        process.kill()
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"ended before it was killed: {err}"


def test_a_teacher_that_was_killed_goes_on_to_the_same_bytes(
    deepmac, scenes_toml, tmp_path: Path, monkeypatch
) -> None:
    accumulate, taken = loop.accumulate_gradients, []
    monkeypatch.setattr(
        loop, "accumulate_gradients", lambda *given: (taken.append(given[-1]), accumulate(*given))[1]
    )
    steps = ["--set", "teacher.train.steps=80"]  # the last one is over a hundred polls after the fourth
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "deepmac_distill", "teach", "--config", scenes_toml, "--out", killed]
    process = subprocess.Popen([*command, *steps], stderr=subprocess.PIPE, text=True)
    kill_once_there(process, killed / "teacher.part" / "state.pt")
    assert not (killed / "teacher").exists()
    ended = deepmac("teach", "--config", scenes_toml, "--out", killed, *steps)
    assert ended.code == 0 and "teacher: goes on where it was stopped" in ended.err, ended.err
    assert taken == list(range(taken[0], 80)) and taken[0] >= 4  # what the checkpoint holds is not redone
    assert deepmac("teach", "--config", scenes_toml, "--out", whole, *steps).code == 0
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (killed / "teacher" / name).read_bytes() == (whole / "teacher" / name).read_bytes()
    assert {path.name for path in (killed / "teacher").iterdir()} == {
        *("weights.safetensors", "metrics.jsonl", "done.json")
    }


def test_a_stage_that_goes_on_alone_has_the_threads_of_the_pipeline(run_copy, deepmac) -> None:
    run, threads = run_copy("pseudolabel", "select", "student"), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert deepmac("pseudolabel", "--out", run).code == 0
        assert torch.get_num_threads() == 1  # or its bits could differ from those of the whole chain
    finally:
        torch.set_num_threads(threads)
