"""The first table of photographs: its figures are those of the records, its times medians of rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import photographs

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def recorded(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


@pytest.fixture
def given() -> list[Any]:
    teachers = [recorded(f"coco_sample_teacher/seed-{seed}") for seed in range(3)]
    return [recorded("latency"), recorded("coco_sample"), recorded("coco_sample_mask_rcnn"), *teachers]


def rows(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_a_row_for_the_teacher_over_its_seeds_and_one_for_each_student(given: list[Any]) -> None:
    teacher, first, second = rows(photographs.page(*given))
    assert teacher[0] == "teacher, seeds 0, 1, 2"
    assert first[0].startswith("student, seed 0: ") and second[0].startswith("student, seed 0: mask_rcnn")
    (alone, *_) = rows(photographs.page(*given[:4]))
    assert alone[0] == "teacher, seeds 0" and alone[1] != teacher[1]


def test_figures_are_those_of_the_records_and_times_are_medians(given: list[Any]) -> None:
    given[1]["student"]["given_boxes"]["unseen"]["class_mean_iou"]["model"] = 0.1234
    given[0]["models"]["student"]["segment"] = [7000.0, 11.4, 9.0]
    given[0]["models"]["student"]["detect"] = None
    (_, student, _) = rows(photographs.page(*given))
    assert student[1] == "12.3" and student[-2:] == ["11", "–"]
    del given[2]["student"]["given_boxes"]
    with pytest.raises(Exception, match="student"):
        photographs.page(*given)
