"""Figures of a training for trackers, and TensorBoard's files as it reads them itself."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from deepmac_distill.training.event_file import EventFile
from deepmac_distill.training.sinks import Pace, peak_bytes


def test_an_event_file_holds_the_figures_of_each_step_and_drops_those_after_a_resume(tmp_path: Path) -> None:
    """As TensorBoard reads them: two starts of one training in one folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, figures in ((0, {0: 4.0, 300: 3.0, 70_000: 2.0}), (300, {300: 1.5, 70_000: -2.0})):
        file = EventFile(tmp_path / "board", first_step=first)
        for step, loss in figures.items():
            file.write(step, loss=loss, lr=0.25)
        file.close()
        time.sleep(1.1)  # names of event files have seconds
    read = EventAccumulator(str(tmp_path / "board"), purge_orphaned_data=True).Reload()
    assert read.Tags()["scalars"] == ["loss", "lr"]
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [
        (0, 4.0), (300, 1.5), (70_000, -2.0)
    ]  # fmt: skip


def test_a_writer_that_is_not_installed_is_one_line_with_its_extra(
    deepmac: Any, scenes_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    given = ["--config", scenes_toml, "--out", tmp_path / "run", "--set", 'log.to=["tensorboard"]']
    ended = deepmac("teach", *given)
    assert ended.code == 2 and ended.err.count("deepmac: ") == 1 and "Traceback" not in ended.err
    assert ended.err.splitlines()[-1].endswith("pip install 'deepmac-distill[tensorboard]'")
    assert not (tmp_path / "run" / "teacher.part").exists()


def test_the_pace_is_that_since_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 6.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    pace = Pace(images=8, first_step=30, device=torch.device("cpu"))
    first, second = pace.figures(31), pace.figures(32)
    assert (first["seconds"], first["images_per_second"]) == (4.0, 4.0)
    assert (second["seconds"], second["images_per_second"]) == (6.0, 4.0)
    assert first["peak_memory_bytes"] == pytest.approx(peak_bytes(torch.device("cpu")), rel=0.5)
