"""`deepmac evaluate --boxes-of`: a model behind a detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_boxes_are_the_detector_s_and_the_masks_the_model_s(run_copy, deepmac) -> None:
    """A detector that finds every true box: each gets the mask that the model draws in that box anyway."""
    run = run_copy()
    detector, truth = run / "evaluate-student", read(run / "scenes-val" / "instances.json")["annotations"]
    kept = ("image_id", "category_id", "bbox")
    found = [{key: one[key] for key in kept} | {"score": 0.5} for one in truth]
    (detector / "detections.json").write_text(json.dumps(found))
    ended = deepmac("evaluate", "teacher", "--out", run, "--boxes-of", detector)
    assert ended.code == 2 and "detections.json: was changed since the stage was done" in ended.err
    (detector / "done.json").unlink()  # as of a detector of somebody else
    ended = deepmac("evaluate", "teacher", "--out", run, "--boxes-of", detector)
    assert ended.code == 0, ended.err
    (folder,) = run.glob("evaluate-teacher-behind-*")
    alone = run / "evaluate-teacher"
    masks = pq.read_table(alone / "masks.parquet").to_pydict()
    in_given_boxes = dict(zip(masks["annotation_id"], masks["rle_counts"], strict=True))
    results = read(folder / "detections.json")
    assert [one["segmentation"]["counts"] for one in results] == [
        in_given_boxes[one["id"]].decode() for one in truth
    ]
    assert [one["bbox"] for one in results] == [one["bbox"] for one in truth]
    behind = read(folder / "summary.json")
    assert behind["given_boxes"] == read(alone / "summary.json")["given_boxes"]
    assert behind["detected"]["bbox"]["all"]["AP"] == pytest.approx(1.0)
    again = deepmac("evaluate", "teacher", "--out", run, "--boxes-of", detector)
    assert again.code == 0 and "done before, skipped" in again.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--boxes-of", "nowhere"], "nowhere: no detections.json; expected the evaluation of a model"),
        (["--boxes-of", "nowhere", "--box-noise", "5"], "--boxes-of: expected no --box-noise"),
    ],
)
def test_what_is_no_detector_is_one_line(run_copy, deepmac, more: list[str], says: str) -> None:
    ended = deepmac("evaluate", "teacher", "--out", run_copy(), *more)
    assert ended.code == 2 and says in ended.err.splitlines()[-1]


def test_a_detector_on_another_set_is_refused(run_copy, deepmac) -> None:
    run = run_copy()
    detector = run / "evaluate-student"
    record = read(detector / "evaluation.json")
    (detector / "evaluation.json").write_text(json.dumps(record | {"annotations_sha256": "0" * 64}))
    ended = deepmac("evaluate", "teacher", "--out", run, "--boxes-of", detector)
    assert ended.code == 2 and "evaluated on other annotations or seen classes" in ended.err.splitlines()[-1]
