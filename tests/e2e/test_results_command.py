"""`deepmac results`: runs of any pipeline files in one table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.evaluation.collected_results import Collected
from deepmac_distill.evaluation.results import read_result


@pytest.fixture
def runs(chain, tmp_path: Path) -> Path:
    """Two runs with a teacher's evaluation, of which the second is a folder of two seeds."""
    for run in ("one", "two/seed-0", "two/seed-1"):
        to = tmp_path / run
        to.mkdir(parents=True)
        shutil.copytree(chain[0] / "evaluate-teacher", to / "evaluate-teacher")
        shutil.copy(chain[0] / "environment.json", to / "environment.json")
    return tmp_path


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_rows_have_seeds_intervals_and_versions(runs: Path, deepmac) -> None:
    table, page = runs / "table.json", runs / "table.md"
    given = ["results", f"a={runs / 'one'}", f"b={runs / 'two'}", "--json", table, "--markdown", page]
    ended = deepmac(*given)
    assert ended.code == 0, ended.err
    found = read_result(table, Collected)
    assert [(row.name, row.seeds) for row in found.rows] == [("a", ()), ("b", (0, 1))]
    assert found.splits == ("all", "seen", "unseen")
    one, two = (row.figures["unseen"] for row in found.rows)
    summary = json.loads((runs / "one" / "evaluate-teacher" / "summary.json").read_text())
    assert one.iou.value == pytest.approx(summary["given_boxes"]["unseen"]["class_mean_iou"]["model"])
    assert one.mask_AP.value == summary["detected"]["segm"]["unseen"]["AP"] and one.mask_AP.low is None
    assert (one.iou.seeds_df, two.iou.seeds_df) == (0, 1)  # two equal seeds: no training noise
    assert two.iou.value == pytest.approx(one.iou.value)
    assert two.mask_AP_of_each_seed == (one.mask_AP.value,) * 2
    assert "versions of all: deepmac-distill" in ended.out and "| a | 1 |" in page.read_text()


def test_average_precision_has_an_interval_over_seeds(runs: Path, deepmac) -> None:
    path = runs / "two" / "seed-1" / "evaluate-teacher" / "summary.json"
    summary = json.loads(path.read_text())
    summary["detected"]["segm"]["unseen"]["AP"] += 0.01
    path.write_text(json.dumps(summary))
    path.with_name("done.json").unlink()  # which holds its digest
    ended = deepmac("results", f"a={runs / 'one'}", f"b={runs / 'two'}", "--json", runs / "table.json")
    assert ended.code == 0, ended.err
    one, two = (row.figures["unseen"].mask_AP for row in read_result(runs / "table.json", Collected).rows)
    half = 12.706 * 0.01 / 2  # t of two seeds; their standard deviation over the root of 2
    assert two.value == pytest.approx(one.value + 0.005) and two.seeds_df == 1
    assert (two.low, two.high) == pytest.approx((two.value - half, two.value + half), rel=1e-3)
    assert f"[{100 * two.low:.1f}, {100 * two.high:.1f}]" in ended.out
    assert "AP is the mean over seeds, its interval training noise alone" in " ".join(ended.out.split())


def test_other_versions_are_printed_a_line_each(runs: Path, deepmac) -> None:
    packages = {"deepmac-distill": "0.1", "torch": "1.0"}
    change(runs / "one" / "environment.json", packages=packages)
    ended = deepmac("results", f"a={runs / 'one'}", f"b={runs / 'two'}")
    assert "versions of a: deepmac-distill 0.1, torch 1.0" in ended.out and "versions of b: " in ended.out


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"seen": ["disk"]}, "seen classes differ from those of"),
        ({"splits": {"odd": ["disk"]}}, "evaluation.splits differ from those of"),
    ],
)
def test_other_classes_and_splits_are_refused_by_name(
    runs: Path, deepmac, changed: dict[str, Any], says: str
) -> None:
    change(runs / "two" / "seed-1" / "evaluate-teacher" / "evaluation.json", **changed)
    ended = deepmac("results", runs / "one", runs / "two")
    assert ended.code == 2 and ended.out == ""
    (line,) = ended.err.splitlines()
    assert "two/seed-1/evaluate-teacher: " in line and says in line and "one/evaluate-teacher" in line


def test_other_data_are_refused_by_name(runs: Path, chain, deepmac) -> None:
    import pyarrow.parquet as pq

    path = runs / "two" / "seed-0" / "evaluate-teacher" / "ious.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    ended = deepmac("results", runs / "one", runs / "two")
    assert ended.code == 2 and "ious.parquet: was changed since the stage was done" in ended.err
    path.with_name("done.json").unlink()
    ended = deepmac("results", runs / "one", runs / "two")
    assert ended.code == 2 and "seed-0/evaluate-teacher: evaluated on other data" in ended.err


def test_one_split_of_runs_that_saw_different_classes(runs: Path, chain, deepmac) -> None:
    """As in appendix C: each saw one class, and all are evaluated on the same others."""
    names = [
        row["name"]
        for row in json.loads((runs / "one/evaluate-teacher/summary.json").read_text())["per_class"]
    ]
    for run, seen in (("one", names[0]), ("two/seed-0", names[1]), ("two/seed-1", names[1])):
        change(runs / run / "evaluate-teacher" / "evaluation.json", seen=[seen], splits={"last": names[-3:]})
    given = ["results", runs / "one", runs / "two"]
    assert deepmac(*given).code == 2
    ended = deepmac(*given, "--split", "last", "--json", runs / "out.json")
    assert ended.code == 0, ended.err
    found = read_result(runs / "out.json", Collected)
    assert found.splits == ("last",) and {row.figures["last"].classes for row in found.rows} == {3}
    assert deepmac(*given, "--split", "all").code == 0
    for split in ("seen", "unseen"):  # other classes in each row
        ended = deepmac(*given, "--split", split)
        assert ended.code == 2 and "seen classes differ from those of" in ended.err
    change(runs / "one" / "evaluate-teacher" / "evaluation.json", splits={"last": names[-2:]})
    ended = deepmac(*given, "--split", "last")
    assert ended.code == 2 and "split 'last': other classes than in" in ended.err
    ended = deepmac(*given, "--split", "none")
    assert ended.code == 2 and "split 'none': not there; expected one of all, seen, unseen, last" in ended.err


def test_a_path_without_an_evaluation_and_a_name_given_twice_are_refused(runs: Path, deepmac) -> None:
    ended = deepmac("results", runs / "nowhere")
    assert ended.code == 2 and "nowhere: no evaluation; expected a run" in ended.err
    ended = deepmac("results", f"a={runs / 'one'}", f"a={runs / 'two'}")
    assert ended.code == 2 and "expected RUN or NAME=RUN, each name once" in ended.err
