"""A teacher that sees each box in a window of its own, through the whole chain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import deepmac_distill
from deepmac_distill.weights.card import read_card

WINDOWS = """
[teacher.look]
boxes = "windows"
window_size_px = 32
"""
CONTEXT = ["--set", "teacher.look.window_context=2"]


@pytest.fixture(scope="module")
def in_windows(scenes_toml: Path, deepmac, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose teacher trains on windows and is looked at through them, and its pipeline file."""
    folder = tmp_path_factory.mktemp("windows")
    text = scenes_toml.read_text().replace("[teacher.model]", "[teacher.model]\ndetection = false")
    text = text.replace("[teacher.train]", '[teacher.train]\nviews = "windows"') + WINDOWS
    (folder / "windows.toml").write_text(text)
    ended = deepmac("run", folder / "windows.toml", "--out", folder / "run")
    assert ended.code == 0, ended.err
    assert "teacher: deepmac, tiny with hourglass-10, 12 steps of 4 windows at 32 px" in ended.err
    return folder / "run", folder / "windows.toml"


def test_the_card_says_how_the_teacher_looks(in_windows: tuple[Path, Path]) -> None:
    card = read_card(in_windows[0] / "teacher" / "weights.safetensors")
    assert (card.look.boxes, card.look.window_size_px, card.image_size_px) == ("windows", 32, 64)
    assert read_card(in_windows[0] / "student" / "weights.safetensors").look.boxes == "image"


def test_every_box_has_its_mask(in_windows: tuple[Path, Path], chain) -> None:
    ours, whole = (pq.read_table(run / "pseudolabel" / "masks.parquet") for run in (in_windows[0], chain[0]))
    assert ours["annotation_id"] == whole["annotation_id"] and ours["status"] == whole["status"]
    assert ours["soft"] != whole["soft"]
    evaluated = [
        pq.read_table(run / "evaluate-teacher" / "masks.parquet") for run in (in_windows[0], chain[0])
    ]
    assert evaluated[0]["row"] == evaluated[1]["row"]


def test_from_python_a_model_looks_as_it_was_trained_to_unless_it_is_asked_otherwise(
    in_windows: tuple[Path, Path],
) -> None:
    """One image's masks are those that its boxes have in the evaluation."""
    run = in_windows[0]
    model = deepmac_distill.load(run)
    assert model.look.boxes == "windows"
    document = json.loads((run / "scenes-val" / "instances.json").read_text())
    image = document["images"][0]
    given = [one for one in document["annotations"] if one["image_id"] == image["id"]]
    path = run / "scenes-val" / "images" / image["file_name"]
    boxes = [one["bbox"] for one in given]
    masks = model.masks(path, boxes, fmt="xywh", cut=0.5)
    table = pq.read_table(run / "evaluate-teacher" / "masks.parquet").to_pylist()
    expected = {row["annotation_id"]: row["rle_counts"] for row in table}
    assert list(masks.counts) == [expected[one["id"]] for one in given]
    whole = model.masks(path, boxes, fmt="xywh", look=deepmac_distill.Look())
    assert not np.array_equal(whole.grids, masks.grids)
    otherwise = deepmac_distill.load(run, look=deepmac_distill.Look()).masks(path, boxes, fmt="xywh")
    assert np.array_equal(otherwise.grids, whole.grids)


def test_an_evaluation_again_finds_all_done(in_windows: tuple[Path, Path], deepmac) -> None:
    run, pipeline = in_windows
    before = (run / "evaluate-teacher" / "summary.json").stat().st_mtime_ns
    ended = deepmac("evaluate", "teacher", "--config", pipeline, "--out", run)
    assert ended.code == 0, ended.err
    assert (run / "evaluate-teacher" / "summary.json").stat().st_mtime_ns == before


def test_another_window_is_another_training(in_windows: tuple[Path, Path], deepmac) -> None:
    run, pipeline = in_windows
    inputs = json.loads((run / "teacher" / "done.json").read_text())["inputs"]
    assert inputs["teacher.look.window_size_px"] == 32 and inputs["teacher.train.views"] == "windows"
    ended = deepmac("teach", "--config", pipeline, "--out", run, *CONTEXT)
    assert ended.code == 2 and "teacher.look.window_context" in ended.err


def test_a_training_on_both_trains_detection_and_looks_through_windows(
    scenes_toml: Path, deepmac, tmp_path: Path
) -> None:
    keys = ["teacher.train.views=both", "teacher.look.boxes=by-size", "teacher.look.window_size_px=32"]
    given = [word for key in keys for word in ("--set", key)]
    ended = deepmac("teach", "--config", scenes_toml, "--out", tmp_path, *given)
    assert ended.code == 0, ended.err
    assert "4 images at 64 px and windows at 32 px in turn" in ended.err
    assert read_card(tmp_path / "teacher" / "weights.safetensors").look.boxes == "by-size"
