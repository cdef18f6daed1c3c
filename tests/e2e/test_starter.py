"""The starter: a model that is named without a path."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

import deepmac_distill
from deepmac_distill.data.synthetic import write_scenes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.evaluation.mask_iou import given_box_ious
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.stages.predict import NO_MODEL
from deepmac_distill.weights import starter
from deepmac_distill.weights.card import read_card
from deepmac_distill.weights.half import write_half

BOX = ["--box", "4,6,30,20"]


@pytest.fixture
def photo(chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture in the working directory, and a starter made of the chain's teacher."""
    monkeypatch.chdir(tmp_path)
    write_half(chain[0] / "teacher" / "weights.safetensors", tmp_path / "made" / "w.safetensors", "small")
    monkeypatch.setattr(starter, "WEIGHTS", tmp_path / "made" / "w.safetensors")
    shutil.copy(chain[0] / "scenes-val" / "images" / "000001.png", tmp_path / "photo.png")
    return Path("photo.png")


def test_what_travels_states_what_it_is() -> None:
    """The file in the package, not the one that other tests make."""
    card = read_card(starter.WEIGHTS)
    assert card.role == "teacher" and all(card.seen) and card.look.boxes == "windows"
    for fact in ("100 photographs", "66 CC BY 2.0 and 34 CC BY-SA 2.0", "ATTRIBUTION.csv"):
        assert fact in card.about
    with (starter.WEIGHTS.parent / "ATTRIBUTION.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["file_name"] for row in rows}) == len(rows) == 100
    assert {row["license"] for row in rows} == {"CC BY 2.0", "CC BY-SA 2.0"}
    assert all(row["photograph"].startswith("http") and row["license_url"] for row in rows)


def test_what_travels_draws_better_masks_than_the_ellipse(tmp_path: Path) -> None:
    """On generated scenes, which are no photographs: it leads by 20 points there."""
    write_scenes(tmp_path, images=2, seed=0, size_px=256)
    truth = Dataset.open(tmp_path / "instances.json", seen="all").for_evaluation()
    model = deepmac_distill.load("starter", device="cpu")
    rows, codes = [], []
    for position, name in enumerate(truth.images["file_name"].to_pylist()):
        of_image = np.arange(*truth.rows_by_image()[position : position + 2])
        found = model.masks(tmp_path / "images" / name, truth.boxes_xyxy()[of_image])
        rows, codes = [*rows, *of_image.tolist()], [*codes, *found.counts]
    ious = given_box_ious(truth, pa.table({"row": pa.array(rows, pa.int64()), "rle_counts": codes}))
    assert pc.mean(ious["iou"]).as_py() > pc.mean(ious["ellipse_iou"]).as_py() + 0.1


def masks(out: str) -> list[dict]:
    return [a["segmentation"] for a in json.loads(Path(out).read_text())["annotations"]]


def test_predict_without_a_model_is_the_starter_and_is_noted(deepmac, photo: Path) -> None:
    ended = deepmac("predict", photo, *BOX, "--out", "default")
    assert ended.code == 0 and NO_MODEL in ended.err
    named = deepmac("predict", photo, *BOX, "--model", "starter", "--out", "named")
    assert named.code == 0 and NO_MODEL not in named.err
    assert masks("default.json") == masks("named.json")


def test_a_path_of_that_name_comes_first_and_a_missing_starter_is_one_line(
    chain, deepmac, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "WEIGHTS", Path("gone.safetensors"))
    ended = deepmac("predict", photo, *BOX)
    assert ended.code == 2 and ended.err.splitlines()[-1] == (
        "deepmac: gone.safetensors: no such file; expected weights"
    )
    assert not list(Path().glob("*-masks.*"))
    shutil.copytree(chain[0] / "teacher", Path("starter") / "teacher")  # a run directory
    assert deepmac("predict", photo, *BOX, "--model", "starter").code == 0
    with pytest.warns(UserWarning, match="starter: is the file or folder of that name here"):
        deepmac_distill.load("starter", device="cpu")
    shutil.move(Path("starter") / "teacher" / "weights.safetensors", "w")
    shutil.rmtree("starter")
    Path("w").rename("starter")  # a weights file
    assert deepmac("predict", photo, *BOX, "--model", "starter").code == 0


def test_labels_of_the_starter_record_what_it_is(chain, deepmac, photo: Path) -> None:
    scenes = chain[0] / "scenes-val"
    given = ["--annotations", scenes / "instances.json", "--images", scenes / "images", "--seen", "ellipse"]
    ended = deepmac("pseudolabel", "--model", "starter", *given, "--out", "run")
    assert ended.code == 0, ended.err
    provenance = Labels.open(Path("run/pseudolabel/masks.parquet")).provenance
    assert provenance["teacher_card"]["about"] == "small"


@pytest.mark.parametrize("named", [["starter"], ["--model", "starter"], ["--model", "RUN"]])
def test_it_is_evaluated_by_name_and_a_run_by_its_folder(
    chain, deepmac, photo: Path, named: list[str]
) -> None:
    scenes = chain[0] / "scenes-val"
    given = ["--val-annotations", scenes / "instances.json", "--val-images", scenes / "images"]
    named = [str(chain[0]) if word == "RUN" else word for word in named]
    ended = deepmac("evaluate", *named, *given, "--seen", "all", "--set", "evaluation.bootstrap=20")
    assert ended.code == 0 and "figures: " in ended.out, ended.err
    ended = deepmac("evaluate", "started", *given)
    assert ended.code == 2 and "student-human or starter; --model names" in ended.err


def test_it_does_not_detect_where_it_was_not_trained_to(deepmac, photo: Path, monkeypatch) -> None:
    monkeypatch.setattr(starter, "WEIGHTS", Path("gone.safetensors"))
    ended = deepmac("detect", photo, "--model", "starter")
    assert ended.code == 2 and "gone.safetensors: no such file" in ended.err


def test_python_loads_it_by_name(photo: Path) -> None:
    found = deepmac_distill.load("starter").masks(photo, [[4, 6, 34, 26]])
    by_path = deepmac_distill.load(starter.WEIGHTS).masks(photo, [[4, 6, 34, 26]])
    assert np.array_equal(found.grids, by_path.grids) and found.rle == by_path.rle
    with Image.open(photo) as image:
        assert found.dense().shape == (1, image.height, image.width)
