"""Runs that are stopped, forced or damaged, through the command line: what was finished stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from deepmac_distill.stages import pseudolabel as pseudolabeling
from deepmac_distill.training import loop


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_signal_to_a_training_and_its_workers_saves_it_and_says_how_to_go_on(run_copy) -> None:
    run = run_copy("teacher", "evaluate-*", "pseudolabel", "select", "student", "report")
    command = [sys.executable, "-m", "deepmac_distill", "teach", "--out", str(run)]
    more = ["steps=5000", "checkpoint_every=5000"]
    keys = [word for one in more for word in ("--set", f"teacher.train.{one}")]
    process = subprocess.Popen(
        [*command, *keys, "--set", "data.workers=1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its workers are signaled with it, as by Ctrl-C
    )
    log, deadline = run / "teacher.part" / "metrics.jsonl", time.monotonic() + 300
    while not (log.exists() and log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    said = err.splitlines()[-1]
    state = torch.load(run / "teacher.part" / "state.pt", weights_only=True)
    assert said == (
        f"deepmac: stopped, saved after step {state['step']} of 5000; the same command goes on "
        "from what is done"
    )
    assert "Traceback" not in err


def test_a_forced_training_that_fails_leaves_the_old_one_and_goes_on(
    chain, run_copy, deepmac, monkeypatch
) -> None:
    run = run_copy("evaluate-*", "pseudolabel", "select", "student", "report")
    accumulate = loop.accumulate_gradients

    def stopping(*given):
        if given[-1] == 6:
            raise KeyboardInterrupt
        return accumulate(*given)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "accumulate_gradients", stopping)
        ended = deepmac("teach", "--out", run, "--force")
    assert ended.code == 130
    assert ended.err.endswith("stopped; the same command without --force goes on from what is done\n")
    assert content(run / "teacher") == content(chain[0] / "teacher")
    ended = deepmac("teach", "--out", run)
    assert ended.code == 0 and "teacher: goes on where it was stopped" in ended.err
    assert not (run / "teacher.part").exists() and not (run / "teacher.old").exists()
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (run / "teacher" / name).read_bytes() == (chain[0] / "teacher" / name).read_bytes()


def test_a_damaged_state_is_noted_and_the_training_ends_with_the_same_bytes(
    chain, run_copy, deepmac, monkeypatch
) -> None:
    run = run_copy("teacher", "evaluate-*", "pseudolabel", "select", "student", "report")
    accumulate = loop.accumulate_gradients

    def stopping(*given):
        if given[-1] == 6:
            raise KeyboardInterrupt
        return accumulate(*given)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "accumulate_gradients", stopping)
        assert deepmac("teach", "--out", run).code == 130
    state = run / "teacher.part" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    ended = deepmac("teach", "--out", run)
    assert ended.code == 0 and "state.pt: cannot be used" in ended.err, ended.err
    assert "teacher begins again" in ended.err and "weights_only" not in ended.err
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (run / "teacher" / name).read_bytes() == (chain[0] / "teacher" / name).read_bytes()


@pytest.mark.parametrize("from_the_end", [40, 8000])  # in the footer, in a page
def test_a_damaged_unit_is_noted_and_labeled_again_to_the_same_bytes(
    chain, run_copy, deepmac, monkeypatch, from_the_end: int
) -> None:
    run = run_copy("evaluate-*", "pseudolabel", "select", "student", "report")
    write_unit = pseudolabeling.write_unit

    def twice(folder: Path, unit: int, *rows) -> None:
        if unit == 2:
            raise KeyboardInterrupt
        write_unit(folder, unit, *rows)

    with monkeypatch.context() as patched:
        patched.setattr(pseudolabeling, "write_unit", twice)
        assert deepmac("pseudolabel", "--out", run).code == 130
    unit = run / "pseudolabel.part" / "units" / "unit-000001.parquet"
    whole = unit.read_bytes()
    at = max(len(whole) - from_the_end, 8)
    unit.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    ended = deepmac("pseudolabel", "--out", run)
    assert ended.code == 0 and "unit-000001.parquet: cannot be read" in ended.err, ended.err
    assert "it is labeled again" in ended.err
    assert (run / "pseudolabel" / "masks.parquet").read_bytes() == (
        chain[0] / "pseudolabel" / "masks.parquet"
    ).read_bytes()
