"""What has the name of a run's file and is none ends in one line at once: pipes, devices, folders, holes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOLES_BYTES = 20 * 2**30
SECONDS = 60  # of one command; each takes less than one on a machine that is not busy


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HOLES_BYTES)


def folder(path: Path) -> None:
    path.mkdir()


# What reads the file, and does not do without it.
READERS = {
    "environment.json": ["results"],
    "config.json": ["evaluate", "forecast"],
    "teacher/done.json": ["run"],
    "teacher/weights.safetensors": ["run", "detect"],
    "pseudolabel/masks.parquet": ["export", "show", "run"],
    "select/instances.json": ["export-select"],
    "evaluate-student/evaluation.json": ["compare", "results"],
    "evaluate-student/ious.parquet": ["compare", "results"],
    "evaluate-student/summary.json": ["results", "run"],
    "evaluate-student/detections.json": ["compare", "run"],
    "evaluate-student/done.json": ["compare", "evaluate"],
    "evaluate-teacher/masks.parquet": ["sheet"],
    "scenes-val/instances.json": ["check"],
    "validation_readings.jsonl": ["evaluate --force"],  # which only appends to it
}


def words_of(command: str, run: Path, out: Path) -> list[str | Path]:
    teacher, student = run / "evaluate-teacher", run / "evaluate-student"
    return {
        "results": ["results", run],
        "evaluate": ["evaluate", "student", "--out", run],
        "evaluate --force": ["evaluate", "student", "--out", run, "--force"],
        "forecast": ["forecast", run / "config.json"],
        "run": ["run", run / "config.json", "--out", run],
        "detect": [
            "detect",
            run / "scenes-val" / "images",
            "--model",
            run / "teacher" / "weights.safetensors",
            "--out",
            out,
        ],
        "export": ["export", run, "--format", "coco-rle", "--out", out],
        "export-select": ["export", run / "select" / "instances.json", "--format", "coco-rle", "--out", out],
        "show": ["show", run, "--out", out / "a.png"],
        "compare": ["compare", teacher, student],
        "sheet": ["sheet", f"a={teacher}", f"b={student}", "--out", out / "a.png"],
        "check": ["check", run / "scenes-val" / "instances.json"],
    }[command]


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def late(*given: object) -> None:
        raise AssertionError(f"still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("make", [pipe, device, holes, folder])
def test_a_file_of_a_run_that_is_none_is_one_line(
    chain, deepmac, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(chain[0], run)
    wrong = []
    for name, commands in READERS.items():
        whole, kept = run / name, tmp_path / "kept"
        whole.rename(kept)
        make(whole)
        for command in [*commands, "status"]:
            out = tmp_path / "out" / name.replace("/", "-") / command
            words = ["status", run] if command == "status" else words_of(command, run, out)
            with at_most(SECONDS):
                ended = deepmac(*words)
            # Status reports what is broken, or does without.
            codes, named = (
                ((0, 2), True) if command == "status" else ((2,), whole.name in ended.err + ended.out)
            )
            if make is holes and name == "validation_readings.jsonl":
                codes, named = (0,), True
            if ended.code not in codes or not named or "Traceback" in ended.err:
                wrong.append((name, command, ended.code, ended.err[-200:]))
        shutil.rmtree(whole) if whole.is_dir() else whole.unlink()
        kept.rename(whole)
    assert wrong == []
