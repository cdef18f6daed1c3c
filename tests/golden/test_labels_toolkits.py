"""What pycocotools and torchvision do with an exported box whose mask was rejected: the docs cite this."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

from deepmac_distill.dataset.findings import runs_of
from deepmac_distill.labels.export import write_instances_json
from deepmac_distill.labels.rules import Rules
from deepmac_distill.labels.table import label_table

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
HUMAN, REJECTED = 1, 2


@pytest.fixture
def exported(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A person's mask and a box whose mask was rejected, written under the rule that the test names."""
    boxes = {HUMAN: [10.0, 10.0, 20.0, 20.0], REJECTED: [35.0, 5.0, 20.0, 10.0]}
    annotations = [{"id": i, "image_id": 1, "category_id": 1, "bbox": b} for i, b in boxes.items()]
    annotations[0] |= {"segmentation": SQUARE, "area": 400.0}
    source = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": annotations,
    }
    labels = label_table(
        {
            "annotation_id": list(boxes),
            "image_id": [1, 1],
            "category_id": [1, 1],
            "file_name": ["a.png", "a.png"],
            "category_name": ["cat", "cat"],
            "bbox": list(boxes.values()),
            "height": [40, 40],
            "width": [60, 60],
            "source": ["human", "teacher"],
            "status": ["labeled", "labeled"],
            "reason": ["", ""],
            "rle_counts": [None, b"52203"],
            "mask_area": [None, 4],
            "mask_score": [None, 0.1],
        }
    )
    rules = Rules(min_mask_score=0.5, on_rejected=request.param)
    write_instances_json(source, labels, rules, tmp_path / "instances.json")
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    return tmp_path / "instances.json"


def under(rule: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("exported", [rule], indirect=True)


def detection_scores(path: Path, iou_type: str) -> np.ndarray:
    """COCOeval's 12 numbers for the human mask found first and a detection on the rejected box after it."""
    truth = COCO(str(path))
    found: list[dict[str, Any]] = []
    for score, bbox in ((0.9, [35.0, 5.0, 20.0, 10.0]), (0.8, [10.0, 10.0, 20.0, 20.0])):
        x, y, w, h = bbox
        polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        found.append({"image_id": 1, "category_id": 1, "score": score, "bbox": bbox, "segmentation": polygon})
    if iou_type == "bbox":
        found = [{k: v for k, v in d.items() if k != "segmentation"} for d in found]
    else:
        found = [{k: v for k, v in d.items() if k != "bbox"} for d in found]
        for entry in found:
            entry["segmentation"] = truth.annToRLE(entry)
    evaluation = COCOeval(truth, truth.loadRes(found), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


@under("keep_box")
def test_keep_box_is_a_box_to_pycocotools_but_its_mask_paths_fail(exported: Path) -> None:
    truth = COCO(str(exported))
    assert truth.getAnnIds(iscrowd=False) == [HUMAN, REJECTED]
    with pytest.raises(KeyError, match="segmentation"):
        truth.annToMask(truth.anns[REJECTED])
    assert detection_scores(exported, "bbox")[1] == pytest.approx(1)
    with pytest.raises(KeyError, match="segmentation"):
        detection_scores(exported, "segm")


@under("drop")
def test_drop_makes_a_true_object_a_false_positive(exported: Path) -> None:
    assert COCO(str(exported)).getAnnIds() == [HUMAN]
    for iou_type in ("bbox", "segm"):
        assert detection_scores(exported, iou_type)[1] == pytest.approx(0.5)


@under("ignore")
def test_ignore_neither_counts_nor_costs(exported: Path) -> None:
    truth = COCO(str(exported))
    assert truth.getAnnIds(iscrowd=True) == [REJECTED]
    assert truth.annToMask(truth.anns[REJECTED]).sum() == 200
    for iou_type in ("bbox", "segm"):
        assert detection_scores(exported, iou_type)[1] == pytest.approx(1)


def torchvision_target(path: Path) -> dict[str, Any]:
    dataset = CocoDetection(str(path.parent), str(path))
    keys = ["boxes", "labels", "masks", "iscrowd"]
    return wrap_dataset_for_transforms_v2(dataset, target_keys=keys)[0][1]


@under("keep_box")
def test_keep_box_gives_torchvision_fewer_masks_than_boxes_without_a_word(exported: Path) -> None:
    target = torchvision_target(exported)
    assert (len(target["boxes"]), len(target["masks"])) == (2, 1)


@under("drop")
def test_drop_gives_torchvision_what_is_left(exported: Path) -> None:
    target = torchvision_target(exported)
    assert (len(target["boxes"]), len(target["masks"])) == (1, 1)


@under("ignore")
def test_ignore_gives_torchvision_a_filled_box_that_only_iscrowd_tells_apart(exported: Path) -> None:
    target = torchvision_target(exported)
    assert target["iscrowd"] == [0, 1]
    assert torch.equal(target["masks"].sum(dim=(1, 2)), torch.tensor([400, 200]))


@under("keep_box")
def test_the_file_is_compact_json_with_source_and_score_on_every_annotation(exported: Path) -> None:
    text = exported.read_text()
    assert ", " not in text
    for annotation in json.loads(text)["annotations"]:
        assert {"source", "mask_score", "iscrowd", "area"} <= set(annotation)


def test_runs_are_those_of_the_pixels_pycocotools_encodes() -> None:
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(0)
    for density in (0.0, 0.01, 0.5, 1.0):
        mask = np.asfortranarray(rng.random((37, 53)) < density).astype(np.uint8, order="F")
        runs = runs_of({"size": [37, 53], "counts": coco_mask.encode(mask)["counts"].decode()}, 37, 53)
        values = np.arange(len(runs)) % 2
        assert np.array_equal(np.repeat(values, runs), mask.ravel(order="F"))
