"""Evaluation in shards: the same bytes for any number, order and restart; what does not fit is one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.runlock import run_lock
from deepmac_distill.stages import evaluated_units

FILES = ("masks.parquet", "ious.parquet", "detections.json", "summary.json")
PAIRS = ["--set", "evaluation.batch_size=2"]  # of 8 images: 4 units of masks, then 4 of detections
UNITS = range(8)


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluated_units, "UNIT_BATCHES", 1)


@pytest.fixture
def unevaluated(run_copy: Callable[..., Path]) -> Path:
    """The run as it is before its teacher is evaluated."""
    return run_copy("pseudolabel", "select", "student", "evaluate-*", "report")


@pytest.fixture(scope="module")
def whole(chain, deepmac, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    run = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(chain[0], run, ignore=shutil.ignore_patterns("evaluate-*"))
    ended = deepmac("evaluate", "--out", run, *PAIRS)
    assert ended.code == 0, ended.err
    return contents(run / "evaluate-teacher")


def contents(folder: Path) -> dict[str, bytes]:
    assert not (folder / "units").exists()
    return {name: (folder / name).read_bytes() for name in FILES}


def parts(run: Path) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for path in (run / "evaluate-teacher.part" / "units").glob("*.parquet"):
        kind, _, unit = path.stem.rpartition("-")
        found.setdefault(int(unit), set()).add(kind)
    return found


def refusal(ended: Any) -> str:
    assert ended.code == 2 and "Traceback" not in ended.err, ended.err
    return ended.err.splitlines()[-1].removeprefix("deepmac: ")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_shards_in_any_order_gives_the_bytes_of_one_process(
    whole: dict[str, bytes], unevaluated: Path, deepmac, count: int
) -> None:
    for index in [*range(count // 2, count), *range(count // 2)]:
        ended = deepmac("evaluate", "--out", unevaluated, *PAIRS, "--shard", f"{index}/{count}")
        assert ended.code == 0 and ended.out == f"{unevaluated / 'evaluate-teacher.part'}\n", ended.err
        assert f"shard {index}/{count} of evaluate-teacher is done; `deepmac assemble evaluate`" in ended.err
        found = parts(unevaluated)
        assert set(UNITS[index::count]) <= found.keys()
    assert found == {unit: {"masks", "ious"} if unit < 4 else {"detections"} for unit in UNITS}
    ended = deepmac("assemble", "evaluate", "--out", unevaluated, *PAIRS)
    assert ended.code == 0 and "mask IoU" in ended.out, ended.err
    assert contents(unevaluated / "evaluate-teacher") == whole
    assert not list(unevaluated.glob("*.part")) and not list(unevaluated.glob(".lock*"))
    late = deepmac("evaluate", "--out", unevaluated, *PAIRS, "--shard", f"0/{count}")
    assert late.code == 0 and "evaluate-teacher: done before, skipped" in late.err


def test_what_is_missing_is_named_and_a_lost_shard_is_redone_alone(
    whole: dict[str, bytes], unevaluated: Path, deepmac
) -> None:
    for index in (0, 2):
        assert deepmac("evaluate", "--out", unevaluated, *PAIRS, "--shard", f"{index}/3").code == 0
    units = unevaluated / "evaluate-teacher.part" / "units"
    (units / "ious-000002.parquet").write_bytes(b"no parquet")  # of shard 2
    (units / "detections-000006.parquet").unlink()  # of shard 0
    ended = deepmac("assemble", "evaluate", "--out", unevaluated, *PAIRS)
    assert "ious-000002.parquet: cannot be read:" in ended.err and "it is made again" in ended.err
    assert refusal(ended) == (
        f"{unevaluated}: evaluate-teacher: 5 of 8 units are missing (1, 2, 4, 6, 7): shards 0/3, 1/3, 2/3; "
        f"expected all; `deepmac evaluate teacher --out {unevaluated}` does them"
    )
    ended = deepmac("evaluate", "--out", unevaluated, *PAIRS)  # the plain command does what is missing
    assert ended.code == 0 and "evaluate-teacher: goes on where it was stopped" in ended.err
    assert not units.exists()
    assert contents(unevaluated / "evaluate-teacher") == whole


def test_shards_of_other_configurations_are_refused_or_made_again(unevaluated: Path, deepmac) -> None:
    given = ["evaluate", "--out", unevaluated]
    assert deepmac(*given, *PAIRS, "--shard", "0/2").code == 0
    other = ["--set", "evaluation.max_detections=5", "--shard", "1/2"]
    assert "was made with evaluation.max_detections = 10, now 5" in refusal(deepmac(*given, *PAIRS, *other))
    joined = deepmac("assemble", *given, "--set", "evaluation.batch_size=4")
    assert 'holds {"evaluation.batch_size": 2, "images": [0, 2]}, expected {"evaluation.ba' in joined.err
    assert "4 of 4 units are missing (0, 1, 2, 3): shards 0/2, 1/2; expected all" in refusal(joined)
    assert parts(unevaluated).keys() == {0, 2, 4, 6}


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["evaluate", "--shard", "2/2"], "--shard: got '2/2', expected I/N, I from 0 to N - 1"),
        (["evaluate", "--shard", "0/2", "--force"], "--force: got it for shard 0/2; expected one process"),
        (["assemble", "--box-noise", "0,5"], "assemble pseudolabel: got --box-noise, expected it for eval"),
        (["assemble", "evaluate", "--box-noise", "0,x"], "--box-noise: got '0,x', expected percents"),
        (["assemble", "teach"], "assemble: got teach, expected pseudolabel, evaluate or holdout"),
        (["assemble", "pseudolabel", "student"], "assemble pseudolabel: got student, expected it for eval"),
        (["assemble", "--cut", "0.5"], "assemble pseudolabel: got --cut, expected it for evaluate alone"),
        (["assemble", "evaluate", "nobody"], "nobody: expected teacher, student, student-seen, student-hum"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    tmp_path: Path, deepmac, words: list[str], refused: str
) -> None:
    ended = deepmac(*words, "--config", "demo", "--out", tmp_path / "run")
    assert refusal(ended).startswith(refused)
    assert not (tmp_path / "run").exists()


def test_loose_boxes_go_in_shards_too(unevaluated: Path, deepmac, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(unevaluated, alone)
    noise = [*PAIRS, "--box-noise", "0,10", "--set", "evaluation.bootstrap=10"]
    assert deepmac("evaluate", "--out", alone, *noise).code == 0
    (expected,) = alone.glob("box-noise-*")
    for index in (1, 0):
        missing = deepmac("assemble", "evaluate", "--out", unevaluated, *noise) if index == 0 else None
        ended = deepmac("evaluate", "--out", unevaluated, *noise, "--shard", f"{index}/2")
        assert ended.code == 0 and ended.out == f"{unevaluated / expected.name}.part\n", ended.err
    assert missing is not None and refusal(missing) == (
        f"{unevaluated}: {expected.name}: 2 of 4 units are missing (0, 2): shard 0/2; expected all; "
        f"`deepmac evaluate teacher --box-noise 0,10 --out {unevaluated}` does them"
    )
    ended = deepmac("assemble", "evaluate", "--out", unevaluated, *noise)
    assert ended.code == 0 and "10" in ended.out, ended.err
    for name in ("summary.json", "ious.parquet"):
        assert (unevaluated / expected.name / name).read_bytes() == (expected / name).read_bytes()
    assert not (unevaluated / expected.name / "units").exists()


def test_joining_where_no_shard_was_leaves_nothing(scenes_toml: Path, tmp_path: Path, deepmac) -> None:
    for stage in ("pseudolabel", "evaluate", "holdout"):
        ended = deepmac("assemble", stage, "--config", scenes_toml, "--out", tmp_path / "run")
        assert refusal(ended) == f"{tmp_path / 'run'}: no run there; expected one in which shards have begun"
    assert not (tmp_path / "run").exists()


def test_a_shard_given_twice_is_refused(unevaluated: Path, deepmac) -> None:
    with run_lock(unevaluated, "evaluate-teacher 0/2"):
        ended = deepmac("evaluate", "--out", unevaluated, *PAIRS, "--shard", "0/2")
        assert refusal(ended).endswith(
            "does shard evaluate-teacher 0/2; expected each shard once, and nothing else beside it"
        )
    assert not (unevaluated / "evaluate-teacher.part").exists()
