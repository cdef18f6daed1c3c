"""What a run says at its end and `deepmac status` says of it, and that the commands they print run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.chain import CHAIN, planned, products, redo_after
from deepmac_distill.status import StageStatus, status_of, to_do


def states(run: Path) -> dict[str, str]:
    return {one.stage: one.state for one in status_of(run, planned(evaluated=True))}


def one_of(run: Path, stage: str) -> StageStatus:
    return next(one for one in status_of(run, planned(evaluated=True)) if one.stage == stage)


def printed_commands(out: str) -> list[list[str]]:
    lines = out.partition("next:\n")[2].splitlines()
    assert lines and all(line.startswith("  deepmac ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def test_a_run_counts_its_stages(chain) -> None:
    told = re.findall(r"stage (\d) of (\d): (\S+)", chain[1].err)
    assert told == [(str(i), "7", stage.name) for i, stage in enumerate(CHAIN, start=1)]


def test_a_run_ends_by_naming_what_it_made_and_commands_that_run(
    chain, scenes_toml, deepmac, tmp_path: Path
) -> None:
    run = tmp_path / "my run"  # so that the commands must quote it
    shutil.copytree(chain[0], run)
    ended = deepmac("run", scenes_toml, "--out", run)
    for name in ("contact_sheet.png", "instances.json", "masks.parquet", "weights.safetensors"):
        assert re.search(rf"^  .*  {re.escape(str(run))}/\S+/{name}$", ended.out, re.MULTILINE), name
    commands = printed_commands(ended.out)
    assert [words[0] for words in commands] == ["status", "show", "evaluate", "sheet", "detect", "retention"]
    for words in commands:
        assert deepmac(*words).code == 0, words


def test_the_status_of_a_run_that_is_done(chain, deepmac) -> None:
    ended = deepmac("status", chain[0])
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines[: len(CHAIN)]] == [stage.name for stage in CHAIN]
    assert re.fullmatch(r"teacher +done +\d{4}-\d\d-\d\d \d\d:\d\d +weights\.safetensors", lines[0])
    assert all(len(line) <= 80 for line in lines[: len(CHAIN)])
    assert "stale" not in ended.out and printed_commands(ended.out)[0][0] == "show"


def test_status_writes_nothing(run_copy: Callable[..., Path], deepmac) -> None:
    run = run_copy()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert deepmac("status", run).code == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_what_was_made_from_an_earlier_teacher_is_stale_and_the_commands_mend_it(
    run_copy: Callable[..., Path], deepmac
) -> None:
    run = run_copy()
    assert deepmac("teach", "--out", run, "--force", "--set", "teacher.train.lr=0.01").code == 0
    assert states(run) == {
        "teacher": "done",
        **{stage.name: "stale" for stage in CHAIN[1:]},
        **{"scenes-train": "done", "scenes-val": "done"},
    }
    assert one_of(run, "evaluate-teacher").detail == "teacher was redone since"
    assert one_of(run, "student").detail == "pseudolabel is stale"
    for words in printed_commands(deepmac("status", run).out):
        ended = deepmac(*words)
        assert ended.code == 0, (words, ended.err)
    assert set(states(run).values()) == {"done"}


def test_a_run_that_was_stopped_says_where_and_goes_on_by_the_command(
    run_copy: Callable[..., Path], deepmac
) -> None:
    run = run_copy("report", "evaluate-student", "student")
    (run / "student.part").mkdir()
    (run / "student.part" / "inputs.json").write_text("{}")
    (run / "student.part" / "metrics.jsonl").write_text('{"step": 3}\n{"step"')
    ended = deepmac("status", run)
    assert "student: stopped: at step 4 of 12" in ended.out
    assert re.search(r"^report +not begun$", ended.out, re.MULTILINE)
    (words,) = printed_commands(ended.out)
    before = (run / "config.toml").read_bytes()
    ended = deepmac(*words)
    assert ended.code == 0, ended.err
    assert set(states(run).values()) == {"done"} and (run / "config.toml").read_bytes() == before


def test_a_stage_of_shards_names_them_and_is_joined_by_the_command(
    run_copy: Callable[..., Path], deepmac
) -> None:
    run = run_copy("report", "evaluate-student", "student", "pseudolabel", "select")
    for shard in ("0/3", "2/3"):
        assert deepmac("pseudolabel", "--out", run, "--shard", shard).code == 0
    ended = deepmac("status", run)
    assert "pseudolabel: stopped: at 4 units, of shards 0/3, 2/3" in ended.out
    for command in ("pseudolabel --shard 1/3", "assemble pseudolabel"):
        (words,) = printed_commands(deepmac("status", run).out)
        assert words == [*command.split(), "--out", str(run)] and deepmac(*words).code == 0
    assert states(run)["pseudolabel"] == "done"
    assert [words[0] for words in printed_commands(deepmac("status", run).out)] == ["run"]


@pytest.mark.parametrize("broken", ["", "[]", "{}"])
def test_a_broken_record_is_a_state_and_no_error(run_copy: Callable[..., Path], deepmac, broken: str) -> None:
    run = run_copy()
    (run / "pseudolabel" / "done.json").write_text(broken)
    (run / "report" / "summary.json").unlink()
    found = states(run)
    assert found["pseudolabel"] == found["report"] == "broken" and found["select"] == "stale"
    ended = deepmac("status", run)
    assert ended.code == 0 and "report: broken: summary.json is missing" in ended.out
    commands = to_do(run, status_of(run, planned(evaluated=True)))
    assert commands[0] == f"deepmac pseudolabel --out {run} --force"


@pytest.mark.parametrize(
    "changed", [{"ended": "yesterday"}, {"made_from": ["teacher"]}, {"made_from": {"teacher": 1}}]
)
def test_a_record_of_odd_facts_is_read(run_copy: Callable[..., Path], deepmac, changed: dict) -> None:
    run = run_copy()
    path = run / "pseudolabel" / "done.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert deepmac("status", run).code == 0


@pytest.mark.parametrize("kind", ["nowhere", "file", "other"])
def test_what_is_no_run_is_refused_in_one_line(deepmac, tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / kind).write_text("")
    elif kind == "other":
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.txt").write_text("")
    ended = deepmac("status", tmp_path / kind)
    assert ended.code == 2 and ended.out == ""
    assert len(ended.err.splitlines()) == 1 and "expected" in ended.err


def test_a_run_of_an_earlier_version_has_a_status(run_copy: Callable[..., Path], deepmac) -> None:
    run = run_copy()
    for path in run.glob("*/done.json"):
        record: dict[str, Any] = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in record.items() if k not in ("ended", "made_from")}))
    (run / "config.json").write_text('{"clip_norm": 1}')
    assert deepmac("status", run).code == 0 and set(states(run).values()) == {"done"}


def test_redoing_follows_the_order_of_the_chain(chain, tmp_path: Path) -> None:
    run = chain[0]
    assert redo_after(run, "select") == (
        f"deepmac student --out {run} --force && deepmac evaluate student --out {run} --force"
    )
    assert redo_after(tmp_path, "select") == "" and products(tmp_path) == []
