"""Masks in boxes that are loose: `deepmac evaluate --box-noise`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Truth
from deepmac_distill.evaluation.box_noise import BoxNoise, with_box_noise
from deepmac_distill.evaluation.mask_iou import given_box_ious
from deepmac_distill.evaluation.results import read_result


@pytest.fixture(scope="module")
def truth(chain) -> Truth:
    return Dataset.open(chain[0] / "scenes-val" / "instances.json", seen=list(SEEN_SHAPES)).for_evaluation()


@pytest.fixture(scope="module")
def found(chain, deepmac, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """How the command ended, and its folder."""
    at = tmp_path_factory.mktemp("noise") / "run"
    model = ["--model", chain[0] / "teacher" / "weights.safetensors", "--config", chain[0] / "config.toml"]
    scenes = chain[0] / "scenes-val"
    data = ["--val-annotations", scenes / "instances.json", "--val-images", scenes / "images"]
    data += ["--seen", ",".join(SEEN_SHAPES)]
    ended = deepmac("evaluate", *model, *data, "--out", at, "--box-noise", "0,10,40")
    assert ended.code == 0, ended.err
    (folder,) = at.glob("box-noise-*")
    return ended, folder


def test_each_side_moves_within_its_share_and_stronger_noise_further(truth: Truth) -> None:
    boxes = truth.boxes_xyxy()
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moves = [(with_box_noise(truth, p, seed=3).boxes_xyxy() - boxes) / sides for p in (5, 20)]
    for moved, share in zip(moves, (0.05, 0.2), strict=True):
        assert np.abs(moved).max() <= share + 1e-9
        assert np.abs(moved).max() > 0.9 * share and (np.abs(moved).max(axis=0) > 0.8 * share).all()
    inside = np.abs(moves[1]) * sides > 1e-6  # not cut at the image
    grown = moves[1][inside] / moves[0][inside]
    assert np.isclose(grown, 4, atol=1e-6).mean() > 0.8
    assert not np.array_equal(moves[0], (with_box_noise(truth, 5, seed=4).boxes_xyxy() - boxes) / sides)


def test_no_noise_changes_nothing_and_noise_changes_boxes_alone(truth: Truth) -> None:
    assert with_box_noise(truth, 0, seed=3) is truth
    loose = with_box_noise(truth, 20, seed=3)
    others = [name for name in truth.annotations.column_names if name != "bbox"]
    assert loose.annotations.select(others).equals(truth.annotations.select(others))
    assert loose.annotations.schema.equals(truth.annotations.schema) and isinstance(loose, Truth)
    assert (loose.fingerprint, loose.classes) == (truth.fingerprint, truth.classes)


def test_without_noise_the_figures_are_those_of_an_evaluation(found, chain) -> None:
    levels = read_result(found[1] / "summary.json", BoxNoise).levels
    assert [level.percent for level in levels] == [0, 10, 40]
    plain = json.loads((chain[0] / "evaluate-teacher" / "summary.json").read_text())["given_boxes"]
    kept = json.loads((found[1] / "summary.json").read_text())["levels"][0]["given_boxes"]
    assert kept == plain


def test_pixels_outside_a_loose_box_count_against_it(found, truth: Truth) -> None:
    table = pq.read_table(found[1] / "ious.parquet")
    at = {
        percent: {
            name: column.to_numpy() for name, column in zip(table.column_names, part.columns, strict=True)
        }
        for percent in (0, 10, 40)
        for part in (table.filter(pc.equal(table["box_noise"], percent)),)
    }
    assert at[0]["row"].tolist() == at[10]["row"].tolist() == at[40]["row"].tolist()
    assert at[40]["area"].tolist() == at[0]["area"].tolist()
    assert at[40]["outside_box"].mean() > at[10]["outside_box"].mean() > at[0]["outside_box"].mean()
    for name in ("iou", "box_baseline_iou", "ellipse_iou", "boundary_iou"):
        assert at[40][name].mean() < at[0][name].mean()
    loose = with_box_noise(truth, 40, seed=0)
    nothing = pa.table({"row": pa.array([], pa.int64()), "rle_counts": pa.array([], pa.binary())})
    expected = given_box_ious(loose, nothing)
    assert expected["box_baseline_iou"].to_pylist() == at[40]["box_baseline_iou"].tolist()


def test_the_table_has_a_row_for_each_split_and_strength(found) -> None:
    told = found[0].out
    for split in ("all", "seen", "unseen"):
        for noise in ("0 %", "10 %", "40 %"):
            assert any(line.split()[:3] == [split, *noise.split()] for line in told.splitlines())
    assert f"figures: {found[1]}" in told


def test_each_strength_is_one_stage_and_one_reading(found, deepmac) -> None:
    run = found[1].parent
    readings = [json.loads(line) for line in (run / "validation_readings.jsonl").read_text().splitlines()]
    assert [reading["stage"] for reading in readings] == [found[1].name]
    inputs = json.loads((found[1] / "done.json").read_text())["inputs"]
    assert inputs["box noise"] == [0.0, 10.0, 40.0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--box-noise", "x"], "--box-noise: got 'x', expected percents such as 0,5,10,20"),
        (["--box-noise", "0,,5"], "--box-noise: got '0,,5', expected percents such as 0,5,10,20"),
        (["--box-noise", "0,50"], "box noise: got 0,50, expected percents from 0 to below 50, each once"),
        (["--box-noise", "-1"], "box noise: got -1, expected percents from 0 to below 50"),
        (["--box-noise", "nan"], "box noise: got nan, expected percents from 0 to below 50"),
        (["--box-noise", "5,5"], "box noise: got 5,5, expected percents from 0 to below 50, each once"),
        (
            ["--box-noise", "5,5.0000001"],
            "box noise: got 5,5, expected percents from 0 to below 50, each once",
        ),
        (["--box-noise", "5", "--per-class"], "--box-noise: its table has no classes and no AP"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(chain, deepmac, given: list[str], says: str) -> None:
    ended = deepmac("evaluate", "teacher", "--out", chain[0], *given)
    assert ended.code == 2 and ended.out == "" and says in ended.err.splitlines()[-1]
    assert len(ended.err.splitlines()) == 1 and not list(chain[0].glob("box-noise-*"))


def test_hidden_classes_are_evaluated_in_loose_boxes_without_a_reading(
    chain, deepmac, tmp_path: Path
) -> None:
    model = ["--model", chain[0] / "teacher" / "weights.safetensors", "--config", chain[0] / "config.toml"]
    given = ["--out", tmp_path / "run", "--hide", "fold:0/2", "--hidden", "--box-noise", "10"]
    ended = deepmac("evaluate", *model, *given)
    assert ended.code == 0, ended.err
    (folder,) = (tmp_path / "run").glob("box-noise-*")
    assert folder.name.endswith("-hidden")
    assert not (tmp_path / "run" / "validation_readings.jsonl").exists()
    (level,) = read_result(folder / "summary.json", BoxNoise).levels
    hidden = len(SEEN_SHAPES) // 2
    assert level.given_boxes.all.classes in (hidden, hidden + len(SEEN_SHAPES) % 2)
