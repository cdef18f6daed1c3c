"""GrabCut as the teacher, through the command line: nothing is trained, and every box gets its mask."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.config import DeepMacConfig, ModelConfig, RoleConfig
from deepmac_distill.config.schema import EvaluationConfig
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.forecast.cost import Rates
from deepmac_distill.forecast.inventory import Inventory
from deepmac_distill.forecast.stage_need import evaluation_need
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.weights.card import read_card

GRABCUT = """[teacher]
segmenter = "grabcut"
[teacher.arguments]
mask_size = 16
input_size_px = 64
[student.model]"""
STAGES = (["teach"], ["evaluate", "teacher"], ["pseudolabel"], ["student"], ["evaluate", "student"])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def labels(run: Path) -> list[dict[str, Any]]:
    return pq.read_table(run / "pseudolabel" / "masks.parquet").to_pylist()


@pytest.fixture(scope="module")
def toml(scenes_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small pipeline on generated scenes, with GrabCut for its teacher."""
    path = tmp_path_factory.mktemp("pipelines") / "grabcut.toml"
    small = scenes_toml.read_text()
    path.write_text(re.sub(r"\[teacher\.model\].*?\[student\.model\]", GRABCUT, small, flags=re.DOTALL))
    return path


@pytest.fixture(scope="module")
def run(deepmac, toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every stage, each by its own command. To be looked at only."""
    folder = tmp_path_factory.mktemp("runs") / "grabcut"
    for stage in STAGES:
        ended = deepmac(*stage, "--config", toml, "--out", folder)
        assert ended.code == 0, ended.err
        assert "Traceback" not in ended.err
        if stage == ["teach"]:
            assert "teacher: grabcut is not trained" in ended.err and ended.out == ""
    return folder


def test_nothing_is_trained_and_no_weights_are_written(run: Path) -> None:
    assert not (run / "teacher").exists()
    inputs = read(run / "pseudolabel" / "done.json")["inputs"]
    assert inputs["teacher"].startswith("grabcut, 5 iterations, context 0.5, 16 cells, 64 px, OpenCV ")
    assert inputs["teacher.segmenter"] == "grabcut" and inputs["teacher.arguments.mask_size"] == 16
    provenance = Labels.open(run / "pseudolabel" / "masks.parquet").provenance
    assert provenance["seen_mask_classes"] == [] and provenance["teacher_card"]["segmenter"] == "grabcut"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("{sides = 4}", "teacher.arguments: grabcut: got an unexpected keyword argument 'sides'"),
        ("{iterations = 0}", "iterations: got 0, expected a whole number of at least 1"),
        ("{mask_size = 2}", "mask_size: got 2, expected a whole number of at least 4"),
        ('{iterations = "x"}', "iterations: got 'x', expected a whole number of at least 1"),
        ('{context = "x"}', "context: got 'x', expected a number"),
        ("{context = -1.0}", "context, input_size_px: got -1.0, 512, expected > 0, >= 0"),
        ('{fallback = "ellipse"}', "fallback: got 'ellipse', expected none or box"),
        ("{fallback = 1}", "fallback: got 1, expected none or box"),
        ("3", "teacher.arguments: got 3, expected a table"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(
    deepmac, toml: Path, tmp_path: Path, arguments: str, says: str
) -> None:
    ended = deepmac("run", toml, "--out", tmp_path / "run", "--set", f"teacher.arguments={arguments}")
    assert ended.code == 2 and says in ended.err.splitlines()[-1], ended.err
    assert not (tmp_path / "run").exists()


def test_the_old_name_is_refused_with_the_new_one(deepmac, scenes_toml, tmp_path) -> None:
    named = ("--set", "teacher.model={architecture = 'grabcut'}")
    ended = deepmac("teach", "--config", scenes_toml, "--out", tmp_path / "run", *named)
    assert ended.code == 2 and 'set teacher.segmenter = "grabcut"' in ended.err.splitlines()[-1]


def test_every_box_is_labeled_and_every_mask_lies_in_its_box(run: Path) -> None:
    source = read(run / "scenes-train" / "instances.json")
    seen = {c["id"] for c in source["categories"] if c["name"] in SEEN_SHAPES}
    boxes = {a["id"]: a["bbox"] for a in source["annotations"]}
    rows = labels(run)
    assert sorted(row["annotation_id"] for row in rows) == sorted(boxes)
    assert any(row["source"] == "teacher" for row in rows)
    for row in rows:
        human = row["category_id"] in seen
        if row["status"] == "unanswered":
            assert not human and row["source"] == "none" and row["rle_counts"] is None
            continue
        assert (row["status"], row["source"]) == ("labeled", "human" if human else "teacher")
        if human:
            continue
        mask = coco_mask.decode({"size": [row["height"], row["width"]], "counts": row["rle_counts"]})
        x, y, w, h = boxes[row["annotation_id"]]
        outside = mask.copy()
        outside[int(np.floor(y)) : int(np.ceil(y + h)), int(np.floor(x)) : int(np.ceil(x + w))] = 0
        assert not outside.any() and mask.sum() == row["mask_area"]
        assert row["soft_size"] == 16


def test_most_masks_are_neither_empty_nor_the_whole_box(run: Path) -> None:
    fills = [row["mask_area"] / np.prod(row["bbox"][2:]) for row in labels(run) if row["source"] == "teacher"]
    assert np.mean([0.1 < fill < 0.9 for fill in fills]) > 0.5


def test_other_batches_give_the_same_masks(run: Path, deepmac, toml: Path, tmp_path: Path) -> None:
    given = ["--config", toml, "--out", tmp_path / "run"]
    assert deepmac("pseudolabel", *given, "--set", "labels.batch_size=1").code == 0
    assert labels(tmp_path / "run") == labels(run)


def test_with_the_box_as_fallback_every_box_has_a_mask(
    run: Path, deepmac, toml: Path, tmp_path: Path
) -> None:
    given = ["--config", toml, "--out", tmp_path / "run", "--set", "teacher.arguments.fallback=box"]
    assert deepmac("pseudolabel", *given).code == 0
    before = {row["annotation_id"]: row for row in labels(run)}
    assert any(row["status"] == "unanswered" for row in before.values())
    for row in labels(tmp_path / "run"):
        was = before[row["annotation_id"]]
        assert row["status"] == "labeled"
        if was["status"] == "unanswered":
            x, y, w, h = row["bbox"]
            pixels = (round(x + w) - round(x)) * (round(y + h) - round(y))
            assert row["mask_area"] == pytest.approx(pixels, rel=0.15)
        elif was["mask_area"]:
            assert row == was


def test_there_is_no_detection_in_the_teacher_s_figures(run: Path, deepmac) -> None:
    folder = run / "evaluate-teacher"
    summary = read(folder / "summary.json")
    assert summary["detected"] == {"segm": None, "bbox": None}
    assert not (folder / "detections.json").exists()
    truth = read(run / "scenes-val" / "instances.json")["annotations"]
    figures = summary["given_boxes"]
    assert figures["all"]["instances"] == len(truth)
    assert 0 < figures["unseen"]["model"]["value"] < 1
    told = deepmac("evaluate", "teacher", "--out", run)
    assert told.code == 0 and "unseen" in told.out and "box AP" not in told.out


def test_the_student_learns_from_its_masks_and_detects(run: Path) -> None:
    written = read(run / "select" / "instances.json")["annotations"]
    drawn = {row["annotation_id"]: row for row in labels(run)}
    assert {a["source"] for a in written} >= {"human", "teacher"}
    for a in written:
        empty = drawn[a["id"]]["status"] == "unanswered"
        assert (a["source"] == "none") == empty  # the box stays, for the detector
        assert ("segmentation" in a) != empty
    assert read_card(run / "student" / "weights.safetensors").steps == 12
    assert read(run / "evaluate-student" / "summary.json")["detected"]["segm"] is not None


def test_the_chain_reports_both_side_by_side(run: Path, deepmac, toml: Path) -> None:
    ended = deepmac("run", toml, "--out", run)
    assert ended.code == 0, ended.err
    for stage in ("evaluate-teacher", "pseudolabel", "select", "student", "evaluate-student"):
        assert f"{stage}: done before, skipped" in ended.err
    report = read(run / "report" / "summary.json")
    assert report["student_minus_teacher"]["detected"] is None  # only one of them detects
    assert (run / "report" / "contact_sheet.png").exists()


def test_a_forecast_measures_the_student_alone(run: Path, deepmac, toml: Path, tmp_path: Path) -> None:
    ended = deepmac("forecast", toml, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    told = {line.split()[0]: line for line in ended.out.splitlines() if line.strip()}
    assert "teacher" not in told
    for stage in ("evaluate-teacher", "pseudolabel"):
        assert "not measured" in told[stage]
    for stage in ("student", "evaluate-student"):
        assert "under a minute" in told[stage]
    again = deepmac("forecast", toml, "--out", run)
    assert again.code == 0 and again.out.count("done before") == 5


def test_predict_draws_the_masks_of_given_boxes(run: Path, deepmac, tmp_path: Path) -> None:
    row = next(row for row in labels(run) if row["source"] == "teacher")
    image = run / "scenes-train" / "images" / f"{row['image_id']:06d}.png"
    box = ",".join(map(str, row["bbox"]))
    ended = deepmac("predict", image, "--box", box, "--model", run, "--out", tmp_path / "one")
    assert ended.code == 0, ended.err
    (annotation,) = read(tmp_path / "one.json")["annotations"]
    assert annotation["segmentation"]["counts"].encode() == row["rle_counts"]
    assert (tmp_path / "one.png").exists()


@pytest.mark.parametrize("model", [DeepMacConfig(detection=False)])
def test_an_evaluation_without_detection_is_forecast_as_one(model: ModelConfig) -> None:
    rates = Rates(
        fixed_bytes=0.0,
        bytes_per_image=0.0,
        bytes_per_pixel=0.0,
        bytes_per_mask=0.0,
        seconds_per_pixel=1e-6,
        seconds_per_mask=1e-3,
    )
    data = Inventory(annotations=Path("a.json"), folder=Path("images"), images=50, boxes=200)
    given = (data, EvaluationConfig(), rates)
    detecting = evaluation_need("evaluate-teacher", RoleConfig(), *given)
    without = evaluation_need("evaluate-teacher", RoleConfig(model=model), *given)
    assert without.seconds == pytest.approx(50 * 512**2 * 1e-6 / 3)
    assert detecting.seconds > 2 * without.seconds
    assert detecting.disk_bytes > without.disk_bytes > 0


@pytest.mark.parametrize("command", ["run", "student", "retention", "forecast"])
def test_a_student_that_cannot_learn_is_refused(command: str, run: Path, deepmac, toml, tmp_path) -> None:
    config = [toml] if command in ("run", "forecast") else ["--config", toml]
    given = ["--out", tmp_path / "run", "--set", "student.model={architecture='grabcut'}"]
    if command == "student":
        given += ["--labels", run / "select" / "instances.json"]
    ended = deepmac(command, *config, *given)
    assert ended.code == 2 and ended.out == ""
    last = ended.err.splitlines()[-1]
    assert "student.model.architecture: got 'grabcut', expected one of deepmac, mask_rcnn" in last
    assert not (tmp_path / "run" / "student").exists()


@pytest.mark.parametrize("command", [["run"], ["pseudolabel"], ["evaluate", "teacher"], ["predict"]])
def test_without_opencv_one_line_says_what_to_install(
    command: list[str], run: Path, deepmac, toml, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # its import fails
    given: list[Any] = ["--config", toml, "--out", tmp_path / "run"]
    match command:
        case ["run"]:
            given = [toml, "--out", tmp_path / "run"]
        case ["predict"]:
            image = run / "scenes-val" / "images" / "000001.png"
            given = [image, "--box", "4,6,30,20", "--model", run, "--out", tmp_path / "one"]
    ended = deepmac(*command, *given)
    assert ended.code == 2 and "Traceback" not in ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("deepmac: ") and "grabcut needs OpenCV; install it with " in last
    assert not list((tmp_path / "run").rglob("masks.parquet"))
