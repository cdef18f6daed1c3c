"""Shards of a stage: several begin at any moment, and what a killed one leaves keeps none out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.errors import RunError
from deepmac_distill.progress import Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.shards import Shard
from deepmac_distill.shared_stage import run_shard


def do(run: RunDir, index: int, inputs: dict[str, Any] | None = None) -> Path:
    def work(folder: Path) -> None:
        (folder / f"unit-{index}").write_text("done")

    return run_shard(run, "stage", Shard(index, 2), inputs or {"a": 1}, work, Silent())


@pytest.mark.parametrize("begins_with", [{"a": 1}, {"a": 2}])
def test_two_shards_may_begin_in_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins_with: dict[str, int]
) -> None:
    """The second begins when the first has written its inputs aside, before they have their name."""
    run, link, second = RunDir(tmp_path / "run"), os.link, iter([1])

    def linked(aside: Path, path: Path) -> None:
        if path.name == "inputs.json" and next(second, None):
            do(run, 1, begins_with)
        link(aside, path)

    monkeypatch.setattr(os, "link", linked)
    if begins_with == {"a": 1}:
        part = do(run, 0)
        assert sorted(path.name for path in part.iterdir()) == ["inputs.json", "unit-0", "unit-1"]
    else:
        with pytest.raises(RunError, match="a"):
            do(run, 0)


def test_a_shard_that_was_killed_at_its_first_file_keeps_none_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, link, unlink = RunDir(tmp_path / "run"), os.link, Path.unlink

    def killed(aside: Path, path: Path) -> None:
        if path.name == "inputs.json":
            monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
            raise KeyboardInterrupt
        link(aside, path)

    monkeypatch.setattr(os, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        do(run, 0)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "unlink", unlink)
    for lease in run.path.glob(".lock*"):
        lease.unlink()
    assert len(list((run.path / "stage.part").iterdir())) == 1
    part = do(run, 0)
    assert {"inputs.json", "unit-0"} <= {path.name for path in part.iterdir()}
