"""A run that has moved, alone or with its data, and the commands that a run prints."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from deepmac_distill.data.synthetic import SEEN_SHAPES


@pytest.fixture
def project(chain, deepmac, small_toml: Path, tmp_path: Path) -> Path:
    """data/ and runs/r beside each other, both evaluated; it can be moved."""
    project = tmp_path / "project"
    for split in ("train", "val"):
        shutil.copytree(chain[0] / f"scenes-{split}", project / "data" / split)
    run, data = project / "runs" / "r", project / "data"
    for name in ("teacher", "student", "pseudolabel", "environment.json"):
        source = chain[0] / name
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, (run.mkdir(parents=True, exist_ok=True) or run) / name
        )
    for role in ("teacher", "student"):
        ended = deepmac(
            *(
                "evaluate",
                "--model",
                run / role / "weights.safetensors",
                "--config",
                small_toml,
                "--out",
                run,
            ),
            *("--annotations", data / "train" / "instances.json", "--images", data / "train" / "images"),
            *("--val-annotations", data / "val" / "instances.json", "--val-images", data / "val" / "images"),
            *("--seen", ",".join(SEEN_SHAPES), "--set", "evaluation.bootstrap=5"),
        )
        assert ended.code == 0, ended.err
    return project


def test_a_run_that_moved_with_its_data_or_alone_is_compared_and_drawn(project: Path, deepmac) -> None:
    def compared(run: Path) -> None:
        a, b = sorted(run.glob("evaluate-*"))
        assert deepmac("compare", a, b).code == 0
        ended = deepmac("sheet", f"a={a}", f"b={b}", "--out", run.parent / "sheet.png")
        assert ended.code == 0, ended.err

    moved = project.rename(project.with_name("elsewhere"))
    compared(moved / "runs" / "r")
    back = moved.rename(project)
    alone = (back / "runs" / "r").rename(back.parent / "alone")  # the data stay where they were
    compared(alone)
    shutil.rmtree(back / "data")
    a, b = sorted(alone.glob("evaluate-*"))
    ended = deepmac("compare", a, b)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1 and "instances.json" in ended.err


def test_scenes_move_with_their_run(run_copy, deepmac, chain, tmp_path: Path) -> None:
    run = run_copy()
    for evaluation in run.glob("evaluate-*"):  # as if the first place were no more
        record = json.loads((evaluation / "evaluation.json").read_text())
        for key in ("annotations", "images"):
            record[key] = record[key].replace(str(chain[0]), "/nowhere")
        (evaluation / "evaluation.json").write_text(json.dumps(record))
    pair = [run / "evaluate-teacher", run / "evaluate-student"]
    assert deepmac("compare", *pair).code == 0
    assert deepmac("sheet", f"t={pair[0]}", "--out", tmp_path / "sheet.png").code == 0
    status = deepmac("status", run)
    assert status.code == 0 and f"detect {run}/scenes-val/images/000001.png" in status.out


@pytest.mark.parametrize("name", ["plain", "with blank", "a'b", "\U0001f98a fox"])
def test_every_command_that_is_printed_runs_as_printed(
    run_copy, deepmac, tmp_path: Path, monkeypatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_copy().rename(tmp_path / name)
    said = deepmac("status", os.path.relpath(run))
    assert said.code == 0, said.err
    commands = [shlex.split(line) for line in said.out.partition("next:")[2].splitlines() if line.strip()]
    assert {words[1] for words in commands} >= {"show", "sheet", "detect", "evaluate"}
    for program, *words in commands:
        if words[0] != "retention":  # it trains
            ended = deepmac(*words)
            assert program == "deepmac" and ended.code == 0, (words, ended.err)
