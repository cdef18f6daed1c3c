from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA
from deepmac_distill.evaluation.results import (
    AveragePrecision,
    CocoStats,
    Evaluation,
    from_json,
    read_result,
    to_json,
)
from deepmac_distill.evaluation.retention_results import Retention
from deepmac_distill.evaluation.splits import BySplit
from deepmac_distill.evaluation.summary import summarize

CLASSES = Classes(("cat", "dog"), (1, 2), (True, False))
ROW = [[0], [1], [1], [2], [100], [0.1 + 0.2], [0.5], [0.6], [0.3], [0.2], [0.25], [0]]
IOUS = pa.table([pa.array(c, f.type) for c, f in zip(ROW, IOU_SCHEMA, strict=True)], IOU_SCHEMA)
STATS = CocoStats(*[1 / 3] * 11, None, instances=2, ignored=0)
FOUND = summarize(CLASSES, IOUS, segm=AveragePrecision(BySplit(STATS, STATS, STATS), (None, 1 / 3)))


def test_a_result_comes_back_from_its_file_to_the_last_bit(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(to_json(FOUND), allow_nan=False))
    assert read_result(tmp_path / "summary.json", Evaluation) == FOUND


def test_an_evaluation_of_before_there_was_a_split_shown_elsewhere_is_read() -> None:
    plain = to_json(FOUND)
    del plain["given_boxes"]["shown_elsewhere"]
    for row in plain["per_class"]:
        del row["shown_elsewhere"]
    assert from_json(plain, Evaluation, "here") == FOUND


def test_an_evaluation_of_before_boundaries_were_measured_is_read() -> None:
    plain = to_json(FOUND)
    for split in ("all", "seen", "unseen"):
        del plain["given_boxes"][split]["boundary"]
        for size in plain["given_boxes"][split]["by_size"].values():
            del size["boundary"], size["model_minus_ellipse"]
    for row in plain["per_class"]:
        del row["boundary"]
    found = from_json(plain, Evaluation, "here")
    assert found.given_boxes.all.boundary is None and found.given_boxes.all.by_size.small.boundary is None
    assert found.given_boxes.all.model == FOUND.given_boxes.all.model


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ('"\\ud800', "not JSON"),
        ("\x00", "not JSON"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `given_boxes`"),
        (json.dumps(to_json(FOUND)).replace('"instances": 1', '"instances": "one"'), "Expected `int`"),
        (json.dumps(to_json(FOUND)).replace("0.5", "NaN"), "not JSON"),
    ],
)
def test_a_broken_summary_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(RunError, match=r"summary\.json: ") as refused:
        read_result(tmp_path / "summary.json", Evaluation)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_a_foreign_summary_and_a_missing_one_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(to_json(FOUND)))
    with pytest.raises(RunError, match=r"missing required field .*; expected Retention figures"):
        read_result(tmp_path / "summary.json", Retention)
    with pytest.raises(RunError, match="cannot be read"):
        read_result(tmp_path / "nothing.json", Evaluation)
