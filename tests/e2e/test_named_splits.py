"""`[evaluation.splits]`: groups of classes with figures of their own, from the command line on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def names_of(run: Path) -> list[str]:
    return [
        one["name"] for one in json.loads((run / "scenes-val" / "instances.json").read_text())["categories"]
    ]


def test_a_named_split_is_in_tables_json_and_comparisons_and_trains_nothing(run_copy, deepmac) -> None:
    run = run_copy("evaluate-*", "report")
    first, second, *_ = names_of(run)
    some = ["--set", f"evaluation.splits.some=['{first}', '{second}']"]
    ended = deepmac("evaluate", "teacher", "--out", run, *some)
    assert ended.code == 0, ended.err
    assert any(line.split()[:2] == ["some", "2"] for line in ended.out.splitlines()), ended.out
    summary = json.loads((run / "evaluate-teacher" / "summary.json").read_text())
    named, rows = summary["given_boxes"]["named"]["some"], summary["per_class"]
    mean = sum(row["model"] for row in rows if row["name"] in (first, second)) / 2
    assert named["class_mean_iou"]["model"] == pytest.approx(mean)
    assert summary["detected"]["segm"]["named"]["some"]["instances"] == named["instances"]
    assert deepmac("evaluate", "student", "--out", run).code == 0  # the run keeps them
    compared = deepmac("compare", run / "evaluate-student", run / "evaluate-teacher", "--json")
    assert json.loads(compared.out)["given_boxes"]["named"]["some"]["classes"] == 2


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ("odd=['cow']", 'evaluation.splits.odd: seen class "cow": no such class'),
        ("unseen=['cow']", "evaluation.splits: got 'unseen', expected a name other than all, seen, unseen"),
        ("odd=[]", "evaluation.splits.odd: got (), expected at least one class or a preset"),
        ("odd=3", "evaluation.splits.odd: got 3, expected a list"),
    ],
)
def test_a_split_that_cannot_be_is_refused_before_any_training(
    deepmac, scenes_toml: Path, tmp_path: Path, split: str, says: str
) -> None:
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "run", "--set", f"evaluation.splits.{split}")
    assert ended.code == 2 and says in ended.err.splitlines()[-1]
    assert not (tmp_path / "run" / "teacher").exists()
