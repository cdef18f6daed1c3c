"""Masks in given boxes of other classes than the model's, as of LVIS by a model of COCO."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deepmac_distill.config import MaskRcnnConfig
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.models.build import build_model
from deepmac_distill.weights.card import read_card, save_weights

ALONE = ["--set", "evaluation.gt_boxes_only=true"]
URL = "http://images.cocodataset.org"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def lvis(chain, tmp_path: Path) -> Path:
    """A COCO root with a file as LVIS v1 has it: images of both folders, no file_name and no iscrowd."""
    scenes, root = chain[0] / "scenes-val", tmp_path / "coco"
    raw = read(scenes / "instances.json")
    for position, image in enumerate(raw["images"]):
        split = ("train2017", "val2017")[position % 2]
        (root / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes / "images" / image["file_name"], root / split)
        image["coco_url"] = f"{URL}/{split}/{image.pop('file_name')}"
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for annotation in raw["annotations"]:
        annotation.pop("iscrowd", None)
        annotation["category_id"] = 1 + annotation["id"] % 7
    names = [f"class {i}" for i in range(1, 8)]
    raw["categories"] = [
        {"id": i, "name": name, "frequency": "r", "synonyms": [name]} for i, name in enumerate(names, start=1)
    ]
    (root / "lvis_v1_val.json").write_text(json.dumps(raw))
    return root


def flags_of(root: Path) -> list:
    return ["--data", root, "--val-annotations", "lvis_v1_val.json", "--val-images", ".", "--seen", "all"]


def ious(folder: Path) -> dict[int, float]:
    table = pq.read_table(folder / "ious.parquet").to_pylist()
    return {row["annotation_id"]: row["iou"] for row in table}


def test_a_class_agnostic_model_is_evaluated_on_boxes_of_other_classes(
    chain, deepmac, lvis, tmp_path
) -> None:
    run, _ = chain
    weights, out = run / "teacher" / "weights.safetensors", tmp_path / "out"
    given = ["--config", run / "config.toml", "--out", out, *flags_of(lvis)]
    ended = deepmac("evaluate", "--model", weights, *given, *ALONE)
    assert ended.code == 0, ended.err
    (folder,) = out.glob("evaluate-*")
    assert not (folder / "detections.json").exists()
    summary = read(folder / "summary.json")
    assert summary["detected"] == {"segm": None, "bbox": None}
    assert summary["given_boxes"]["all"]["classes"] == 7
    assert summary["given_boxes"]["unseen"]["classes"] == 0  # every mask may be seen: nothing is held back
    assert ious(folder) == ious(run / "evaluate-teacher")  # the same boxes and images, under other names


def test_without_the_key_its_detection_is_left_out_with_a_note(chain, deepmac, lvis, tmp_path) -> None:
    run, _ = chain
    out = tmp_path / "out"
    given = ["--config", run / "config.toml", "--out", out, *flags_of(lvis)]
    ended = deepmac("evaluate", "--model", run / "teacher" / "weights.safetensors", *given)
    assert ended.code == 0, ended.err
    assert "detection is not evaluated: trained on 12 classes, the data has 7; the model lacks" in ended.err
    (folder,) = out.glob("evaluate-*")
    assert not (folder / "detections.json").exists() and ious(folder) == ious(run / "evaluate-teacher")


def test_a_model_with_a_mask_for_each_class_is_refused_on_other_classes(
    chain, deepmac, lvis, tmp_path: Path
) -> None:
    run, _ = chain
    recipe = MaskRcnnConfig(
        backbone="tiny",
        backbone_width=8,
        fpn_channels=8,
        mask_channels=8,
        box_channels=8,
        anchor_sizes=(8, 16, 32, 64),
    )
    card = read_card(run / "teacher" / "weights.safetensors")
    model = build_model(recipe, len(card.class_names), load_weights=False)
    weights = tmp_path / "mask_rcnn.safetensors"
    save_weights(weights, model.state_dict(), replace(card, model=asdict(recipe)))
    given = ["--config", run / "config.toml", "--out", tmp_path / "out"]
    ended = deepmac("evaluate", "--model", weights, *given, *flags_of(lvis), *ALONE)
    assert ended.code == 2
    last = ended.err.splitlines()[-1]
    assert "has a mask for each of its classes" in last and "weights of a class-agnostic mask head" in last
    assert list((tmp_path / "out").rglob("done.json")) == []
    ended = deepmac(
        "evaluate", "--model", weights, *given, *ALONE
    )  # on its own classes it is asked for each box's
    assert ended.code == 0, ended.err


def test_a_class_whose_masks_the_model_saw_is_never_among_the_unseen(chain, deepmac, tmp_path: Path) -> None:
    """Its figures stand in a split of their own, whatever the data says is seen."""
    run, _ = chain
    out = tmp_path / "out"
    given = ["--config", run / "config.toml", "--out", out, "--seen", SEEN_SHAPES[0], *ALONE]
    ended = deepmac("evaluate", "--model", run / "teacher" / "weights.safetensors", *given)
    assert ended.code == 0, ended.err
    elsewhere = len(SEEN_SHAPES) - 1
    assert f"{elsewhere} unseen classes count as shown elsewhere: it saw their masks" in ended.err
    (folder,) = out.glob("evaluate-*")
    rows = {row["name"]: row for row in read(folder / "summary.json")["per_class"]}
    assert {name for name, row in rows.items() if row["shown_elsewhere"]} == set(SEEN_SHAPES[1:])
    assert read(folder / "evaluation.json")["shown_elsewhere"] == sorted(SEEN_SHAPES[1:])
    figures = read(folder / "summary.json")["given_boxes"]
    assert figures["shown_elsewhere"]["classes"] == elsewhere
    assert figures["unseen"] == read(run / "evaluate-teacher" / "summary.json")["given_boxes"]["unseen"]


def test_evaluations_made_before_a_key_was_named_are_still_valid(run_copy, deepmac) -> None:
    """Without a name the key was off, and the cut was 0.5."""
    run = run_copy("report", "retention")
    done = run / "evaluate-teacher" / "done.json"
    record = read(done)
    for name in ("evaluation.gt_boxes_only", "labels.cut"):
        del record["inputs"][name]
    done.write_text(json.dumps(record))
    same = deepmac("evaluate", "--out", run, "--set", "labels.cut=0.5")
    assert same.code == 0 and "evaluate-teacher: done before, skipped" in same.err, same.err
    other = deepmac("evaluate", "--out", run, "--set", "labels.cut=0.4")
    assert other.code == 0 and "made anew, since a key changed: labels.cut (0.5, now 0.4)" in other.err


def test_a_missing_image_of_either_folder_is_named(chain, deepmac, lvis, tmp_path: Path) -> None:
    run, _ = chain
    gone = next((lvis / "train2017").iterdir())
    gone.unlink()
    given = ["--config", run / "config.toml", "--out", tmp_path / "out", *flags_of(lvis), *ALONE]
    ended = deepmac("evaluate", "--model", run / "teacher" / "weights.safetensors", *given)
    assert ended.code == 2 and f"train2017/{gone.name}: no such file" in ended.err


@pytest.mark.parametrize("cut", [0.2, 0.4])
def test_masks_are_evaluated_at_the_cut_of_the_labels(run_copy, deepmac, cut: float | str) -> None:
    run = run_copy("report", "retention")
    before = {role: read(run / f"evaluate-{role}" / "summary.json") for role in ("teacher", "student")}
    for role in ("teacher", "student"):
        ended = deepmac("evaluate", role, "--out", run, "--set", f"labels.cut={cut}", "--force")
        assert ended.code == 0, ended.err
        after = read(run / f"evaluate-{role}" / "summary.json")
        for split in ("all", "unseen"):
            assert after["given_boxes"][split]["model"] != before[role]["given_boxes"][split]["model"]
        assert after["detected"]["bbox"] == before[role]["detected"]["bbox"]
        assert read(run / f"evaluate-{role}" / "done.json")["inputs"]["labels.cut"] == cut
