"""Evaluation on the classes that are hidden in the training file: the ruler that choices are made by."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.labels.cut import DEFAULT_CUT

ROOT = Path(__file__).parents[2]

HIDDEN = sorted(SEEN_SHAPES)[0]
REST = ("pseudolabel", "select", "student", "evaluate-student", "report", "evaluate-teacher")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def taught(run_copy) -> Path:
    """A run with a teacher, which is evaluated on the validation set already."""
    return run_copy(*REST)


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / name).to_pylist()


def test_hidden_classes_of_the_training_file_are_evaluated_alone(taught: Path, deepmac) -> None:
    before = (taught / "validation_readings.jsonl").read_text()
    ended = deepmac("evaluate", "--out", taught, "--hide", HIDDEN, "--hidden")
    assert ended.code == 0, ended.err
    folder = taught / "evaluate-teacher-hidden"
    document = read(taught / "scenes-train" / "instances.json")
    ids = {one["id"] for one in document["categories"] if one["name"] == HIDDEN}
    ious = rows_of(folder, "ious.parquet")
    drawn = {one["id"] for one in document["annotations"] if one["category_id"] in ids}
    assert {row["annotation_id"] for row in ious} == drawn
    assert {
        row["annotation_id"] for row in rows_of(folder, "masks.parquet")
    } == drawn  # nothing else is segmented
    assert read(folder / "evaluation.json")["hidden"] == [HIDDEN]
    assert not (folder / "detections.json").exists()
    assert (taught / "validation_readings.jsonl").read_text() == before


def test_figures_of_hidden_classes_are_those_of_any_evaluation(taught: Path, deepmac) -> None:
    assert deepmac("evaluate", "--out", taught, "--hide", HIDDEN, "--hidden").code == 0
    hidden = taught / "evaluate-teacher-hidden"
    same = deepmac("evaluate", "--out", taught, "--hide", HIDDEN, "--data", taught / "scenes-train",
                   "--annotations", "instances.json", "--val-annotations", "instances.json")  # fmt: skip
    assert same.code == 0, same.err
    of = {row["row"]: row["iou"] for row in rows_of(taught / "evaluate-teacher", "ious.parquet")}
    ious = rows_of(hidden, "ious.parquet")
    assert ious and all(of[row["row"]] == row["iou"] for row in ious)


def test_evaluations_of_hidden_classes_can_be_compared(taught: Path, deepmac) -> None:
    assert deepmac("evaluate", "--out", taught, "--hide", HIDDEN, "--hidden").code == 0
    folder = taught / "evaluate-teacher-hidden"
    ended = deepmac("compare", folder, folder, "--json")
    found = json.loads(ended.out)["given_boxes"]
    # The teacher of this run saw their masks, and its card gives that away.
    assert found["shown_elsewhere"]["instances"] > 0 and found["unseen"]["instances"] == 0
    assert found["shown_elsewhere"]["a_minus_b"]["value"] == 0


def test_a_teacher_that_did_not_see_the_classes_is_evaluated_on_unseen_ones(
    deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fold"
    assert deepmac("teach", "-c", scenes_toml, "--out", out, "--hide", "fold:0/2").code == 0
    ended = deepmac("evaluate", "--out", out, "--hidden")
    assert ended.code == 0, ended.err
    splits = read(out / "evaluate-teacher-hidden" / "summary.json")["given_boxes"]
    assert splits["unseen"]["instances"] == splits["all"]["instances"] > 0 == splits["seen"]["instances"]
    assert splits["unseen"]["classes"] == len(
        read(out / "evaluate-teacher-hidden" / "evaluation.json")["hidden"]
    )
    assert not (out / "validation_readings.jsonl").exists()
    assert deepmac("pseudolabel", "--out", out).code == 0
    cut = [
        sys.executable,
        ROOT / "benchmarks" / "cut.py",
        out,
        "--cuts",
        "0.4",
        "0.5",
        "--json",
        tmp_path / "cut.json",
    ]
    done = subprocess.run(cut, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = read(tmp_path / "cut.json")[str(out)]
    # The labels' masks of hidden classes are those that the evaluation measured, at the cut of the run.
    measured = splits["unseen"]["model"]["value"]
    assert found["cuts"][str(DEFAULT_CUT)]["class_mean_iou"]["a"] == pytest.approx(measured)
    assert "| 0.4 |" in done.stdout and not (out / "validation_readings.jsonl").exists()


def test_without_hidden_classes_there_is_nothing_to_evaluate(taught: Path, deepmac) -> None:
    ended = deepmac("evaluate", "--out", taught, "--hidden")
    assert ended.code == 2 and "hidden classes: got none, expected data.hide to name some" in ended.err
    assert not (taught / "evaluate-teacher-hidden").exists()
