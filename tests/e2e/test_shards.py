"""Labeling in shards: the same bytes for any number, order and restart; what does not fit is one line."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from deepmac_distill import devices, ranks, rundir
from deepmac_distill.runlock import run_lock
from deepmac_distill.torchrun import Place

UNITS = range(6)  # 24 images, 4 of them in a unit
CPU = torch.device("cpu")
LABELS = ("pseudolabel/masks.parquet", "select/instances.json")


@pytest.fixture
def unlabeled(run_copy: Callable[..., Path]) -> Path:
    """The run as it is before labeling."""
    return run_copy("pseudolabel", "select", "student", "evaluate-*", "report")


def parts(run: Path) -> set[int]:
    return {int(path.stem[5:]) for path in (run / "pseudolabel.part" / "units").glob("unit-*.parquet")}


def torchrun_sets(rank: int, world: int) -> dict[str, str]:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": 29500}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(number) for name, number in numbers.items()}}


def refusal(ended: Any) -> str:
    assert ended.code == 2 and "Traceback" not in ended.err, ended.err
    return ended.err.splitlines()[-1].removeprefix("deepmac: ")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_shards_in_any_order_gives_the_same_bytes(
    chain, unlabeled: Path, deepmac, count: int
) -> None:
    done: set[int] = set()
    for index in [*range(count // 2, count), *range(count // 2)]:
        ended = deepmac("pseudolabel", "--out", unlabeled, "--shard", f"{index}/{count}")
        assert ended.code == 0 and ended.out == f"{unlabeled / 'pseudolabel.part'}\n", ended.err
        assert f"shard {index}/{count} of pseudolabel is done; `deepmac assemble` joins" in ended.err
        done |= set(UNITS[index::count])
        assert parts(unlabeled) == done
    ended = deepmac("assemble", "--out", unlabeled)
    assert ended.code == 0 and ended.out == f"{unlabeled / 'select' / 'instances.json'}\n", ended.err
    for name in LABELS:
        assert (unlabeled / name).read_bytes() == (chain[0] / name).read_bytes()
    assert not list(unlabeled.glob("*.part")) and not list(unlabeled.glob(".lock*"))
    late = deepmac("pseudolabel", "--out", unlabeled, "--shard", f"0/{count}")
    assert late.code == 0 and "pseudolabel: done before, skipped" in late.err
    assert "joins" not in late.err


def test_what_is_missing_is_named_nothing_is_lost_and_a_lost_shard_is_redone_alone(
    chain, unlabeled: Path, deepmac
) -> None:
    for index in (0, 2):
        assert deepmac("pseudolabel", "--out", unlabeled, "--shard", f"{index}/3").code == 0
    units = unlabeled / "pseudolabel.part" / "units"
    (units / "unit-000002.parquet").write_bytes(b"no parquet")  # of shard 2
    kept = (units / "unit-000000.parquet").stat().st_mtime_ns
    ended = deepmac("assemble", "--out", unlabeled)
    assert refusal(ended) == (
        f"{unlabeled}: pseudolabel: 3 of 6 units are missing (1, 2, 4): shards 1/3, 2/3; expected all; "
        f"`deepmac pseudolabel --out {unlabeled}` does them"
    )
    assert parts(unlabeled) == {0, 2, 3, 5} and not (unlabeled / "pseudolabel").exists()
    for index in (1, 2):
        assert deepmac("pseudolabel", "--out", unlabeled, "--shard", f"{index}/3").code == 0
    assert (units / "unit-000000.parquet").stat().st_mtime_ns == kept
    assert deepmac("assemble", "--out", unlabeled).code == 0
    for name in LABELS:
        assert (unlabeled / name).read_bytes() == (chain[0] / name).read_bytes()


def test_the_plain_command_goes_on_from_what_shards_have_done(chain, unlabeled: Path, deepmac) -> None:
    assert deepmac("pseudolabel", "--out", unlabeled, "--shard", "1/2").code == 0
    ended = deepmac("pseudolabel", "--out", unlabeled)
    assert ended.code == 0 and "pseudolabel: goes on where it was stopped" in ended.err
    assert (unlabeled / LABELS[0]).read_bytes() == (chain[0] / LABELS[0]).read_bytes()


def test_shards_of_other_configurations_are_refused_by_what_differs(unlabeled: Path, deepmac) -> None:
    assert deepmac("pseudolabel", "--out", unlabeled, "--shard", "0/2").code == 0
    for command in (["pseudolabel", "--shard", "1/2"], ["assemble"]):
        ended = deepmac(*command, "--out", unlabeled, "--set", "labels.unit_images=5")
        assert "pseudolabel was made with labels.unit_images = 4, now 5" in refusal(ended)
    for key, before, now in (
        ("threads", 1, 2),
        ("labels.batch_size", 3, 1),
        ("labels.min_mask_score", 0.0, 0.3),
    ):
        ended = deepmac("pseudolabel", "--shard", "1/2", "--out", unlabeled, "--set", f"{key}={now}")
        expected = f"{key} = {now}, shards before it with {before}; expected the same in all"
        assert refusal(ended) == f"{unlabeled}: shard 1/2 of pseudolabel: computes with {expected}"
    assert parts(unlabeled) == {0, 2, 4}
    assert deepmac("pseudolabel", "--out", unlabeled, "--shard", "1/2").code == 0
    assert deepmac("assemble", "--out", unlabeled).code == 0
    ended = deepmac("pseudolabel", "--out", unlabeled, "--shard", "0/2", "--set", "labels.soft=false")
    assert "pseudolabel was made with labels.soft = True, now False" in refusal(ended)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--shard", "2/2"], "--shard: got '2/2', expected I/N, I from 0 to N - 1, such as 0/4"),
        (["--shard", "-1/2"], "--shard: got '-1/2', expected I/N"),
        (["--shard", "1"], "--shard: got '1', expected I/N"),
        (["--shard", "0/0"], "--shard: got '0/0', expected I/N"),
        (["--shard", "0/2", "--force"], "--force: got it for shard 0/2; expected one process to redo it"),
    ],
)
def test_a_shard_that_is_none_is_refused(tmp_path: Path, deepmac, given: list[str], words: str) -> None:
    ended = deepmac("pseudolabel", "--config", "demo", "--out", tmp_path / "run", *given)
    assert refusal(ended).startswith(words)
    assert not (tmp_path / "run").exists()


def test_what_torchrun_sets_is_the_shard(unlabeled: Path, deepmac, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the GPU: each process takes that of its number on its machine."""
    asked: list[Place] = []
    monkeypatch.setattr(devices, "pick_device", lambda name, place: asked.append(place) or CPU)
    for name, value in torchrun_sets(rank=1, world=3).items():
        monkeypatch.setenv(name, value)
    assert deepmac("pseudolabel", "--out", unlabeled).code == 0
    assert parts(unlabeled) == {1, 4} and set(asked) == {Place(1, 3, 1)}
    monkeypatch.setenv("RANK", "3")
    assert refusal(deepmac("pseudolabel", "--out", unlabeled)) == (
        "RANK: got '3', expected a number, 0 to 2, as torchrun sets it"
    )
    assert deepmac("pseudolabel", "--out", unlabeled, "--shard", "0/3").code == 0  # it is not asked
    assert parts(unlabeled) == {0, 1, 3, 4}


def test_a_shard_given_twice_is_refused_and_so_is_the_whole_run_meanwhile(unlabeled: Path, deepmac) -> None:
    with run_lock(unlabeled, "pseudolabel 0/2"):
        ended = deepmac("pseudolabel", "--out", unlabeled, "--shard", "0/2")
        assert refusal(ended).endswith(
            "does shard pseudolabel 0/2; expected each shard once, and nothing else beside it"
        )
        for command in (["assemble"], ["pseudolabel"]):
            assert "does shard pseudolabel 0/2; expected" in refusal(deepmac(*command, "--out", unlabeled))
        assert deepmac("pseudolabel", "--out", unlabeled, "--shard", "1/2").code == 0
    assert parts(unlabeled) == {1, 3, 5}


def test_a_rank_that_does_not_come_is_one_line_and_the_next_start_goes_on(
    scenes_toml: Path, tmp_path: Path, deepmac, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (torchrun_sets(rank=0, world=2) | {"MASTER_PORT": str(port)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "join", partial(ranks.join, meeting=timedelta(seconds=1)))
    command = ("teach", "--config", scenes_toml, "--set", "teacher.train.steps=4", "--out", tmp_path / "run")
    line = refusal(deepmac(*command))
    assert line.startswith(f"127.0.0.1:{port}: rank 0 did not meet all 2 processes in 1 s")
    assert line.endswith("expected every rank to start with this address")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert deepmac(*command).code == 0


def test_a_clock_that_goes_back_changes_nothing(
    chain, unlabeled: Path, deepmac, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do files that are a day younger than those which are written after them."""
    back, tomorrow = itertools.count(10**9, -3600), time.time() + 86400  # an hour with every look
    monkeypatch.setattr(time, "time", lambda: float(next(back)))
    for words in (["pseudolabel", "--shard", "1/2"], ["pseudolabel", "--shard", "0/2"], ["assemble"]):
        for path in unlabeled.rglob("*"):
            os.utime(path, (tomorrow, tomorrow))
        ended = deepmac(*words, "--out", unlabeled)
        assert ended.code == 0, ended.err
    assert next(back) < 10**9 - 3600
    for name in LABELS:
        assert (unlabeled / name).read_bytes() == (chain[0] / name).read_bytes(), name


def test_joining_that_is_killed_at_its_end_loses_no_unit(
    chain, unlabeled: Path, deepmac, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = {"pseudolabel": ["pseudolabel"], "evaluate-teacher": ["evaluate", "teacher"]}
    for stage, words in commands.items():
        for shard in ("0/2", "1/2"):
            assert deepmac(*words, "--out", unlabeled, "--shard", shard).code == 0
        with monkeypatch.context() as patch:
            patch.setattr(rundir, "hashes_of", killed)
            assert deepmac("assemble", *words, "--out", unlabeled).code == 130
        ended = deepmac("assemble", *words, "--out", unlabeled)
        assert ended.code == 0, ended.err
        assert not (unlabeled / stage / "units").exists()
        name = f"{stage}/masks.parquet"
        assert (unlabeled / name).read_bytes() == (chain[0] / name).read_bytes()


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_a_shard_leaves_is_its_parts_and_its_inputs(unlabeled: Path, deepmac, tmp_path: Path) -> None:
    assert deepmac("pseudolabel", "--out", unlabeled, "--shard", "0/2").code == 0
    part = unlabeled / "pseudolabel.part"
    assert {path.name for path in part.iterdir()} == {"inputs.json", "units"}
    assert json.loads((part / "inputs.json").read_text())["inputs"]["labels.unit_images"] == 4
    shutil.copytree(unlabeled, tmp_path / "moved")  # to where the other half is done
    assert deepmac("pseudolabel", "--out", tmp_path / "moved", "--shard", "1/2").code == 0
    assert parts(tmp_path / "moved") == set(UNITS)
