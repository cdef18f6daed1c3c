"""A hold-out in shards, whose units are trials: the masks of one process; what does not fit is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.runlock import run_lock

KEYS = ('holdout.teachers=["recipe"]', "holdout.folds=3", "evaluation.bootstrap=20")
WORDS = ("--quick", "--steps", "8", *(word for key in KEYS for word in ("--set", key)))  # three trials
MASKS = Path("holdout", "masks.parquet")


@pytest.fixture(scope="module")
def alone(deepmac, scenes_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hold-out that one process did."""
    out = tmp_path_factory.mktemp("holdout alone") / "run"
    ended = deepmac("holdout", "-c", scenes_toml, "--out", out, *WORDS)
    assert ended.code == 0, ended.err
    return out


def refusal(ended: Any) -> str:
    assert ended.code == 2 and "Traceback" not in ended.err, ended.err
    return ended.err.splitlines()[-1].removeprefix("deepmac: ")


def figures(run: Path) -> dict[str, Any]:
    found = json.loads((run / "holdout" / "summary.json").read_text())
    for teacher in found["teachers"]:
        teacher.pop("seconds")
    return found


def test_shards_have_the_masks_of_one_process_and_what_is_missing_is_named(
    deepmac, scenes_toml: Path, tmp_path: Path, alone: Path
) -> None:
    run = tmp_path / "run"
    shard = ("holdout", "-c", scenes_toml, "--out", run, *WORDS, "--shard")
    ended = deepmac(*shard, "1/2")
    assert (ended.code, ended.out) == (0, f"{run / 'holdout-folds'}\n"), ended.err
    assert "shard 1/2 of holdout is done; `deepmac assemble holdout` makes the figures" in ended.err
    assert [path.name for path in (run / "holdout-folds" / "3-quick").iterdir()] == ["recipe-fold-1"]
    assert refusal(deepmac("assemble", "holdout", "--out", run)) == (
        f"{run}: holdout: 2 of 3 units are missing (0, 2): shard 0/2; expected all; "
        f"`deepmac holdout --out {run}` does them"
    )
    assert "holdout was made with other holdout: holdout.quick (True, now False)" in refusal(
        deepmac("holdout", "--out", run, "--set", "holdout.quick=false", "--shard", "0/2")
    )
    with run_lock(run, "holdout 0/2"):
        assert "does shard holdout 0/2; expected each shard once" in refusal(deepmac(*shard, "0/2"))
    assert deepmac(*shard, "0/2").code == 0
    ended = deepmac("assemble", "holdout", "--out", run)
    assert ended.code == 0 and "winner" in ended.out, ended.err
    assert (run / MASKS).read_bytes() == (alone / MASKS).read_bytes()
    assert figures(run) == figures(alone)
    late = deepmac(*shard, "1/2")
    assert late.code == 0 and "holdout: done before, skipped" in late.err
    assert "makes the figures" not in late.err
    assert not list(run.rglob(".lock*")) and not list(run.rglob("*.part"))


def test_what_torchrun_sets_is_the_shard(
    deepmac, scenes_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "3"}
    for name, value in {**numbers, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    ended = deepmac("holdout", "-c", scenes_toml, "--out", tmp_path / "run", *WORDS)
    assert ended.code == 0 and "shard 2/3 of holdout is done" in ended.err, ended.err
    (trial,) = (tmp_path / "run" / "holdout-folds" / "3-quick").iterdir()
    assert trial.name == "recipe-fold-2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("holdout", "--shard", "2/2"), "--shard: got '2/2', expected I/N"),
        (("holdout", "--shard", "0/2", "--force"), "--force: got it for shard 0/2"),
        (("assemble", "holdout", "--model", "starter"), "assemble holdout: got --model, expected none"),
        (
            ("assemble", "holdout", "--per-class"),
            "assemble holdout: got --per-class, expected it",
        ),
        (
            ("holdout", "--shard", "0/2", "--out", "s3://bucket/run"),
            "--out s3://bucket/run: got shard 0/2 of a hold-out, expected a run directory on a disk",
        ),
    ],
)
def test_words_that_make_no_sense_are_refused(
    deepmac, scenes_toml: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    out = () if "--out" in words else ("--out", tmp_path / "run")
    assert message in refusal(deepmac(*words, "-c", scenes_toml, *out))
