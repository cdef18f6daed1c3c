from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation import average_precision
from deepmac_distill.evaluation.average_precision import (
    STATS,
    CocoTruth,
    coco_average_precision,
)
from deepmac_distill.evaluation.mask_iou import given_box_ious
from deepmac_distill.evaluation.paired_precision import compare_average_precision
from deepmac_distill.evaluation.results import CocoStats, Interval

# pycocotools 2.0.11 decodes through an array protocol that numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "coco-tiny" / "instances.json"
HEIGHT, WIDTH = 90, 120
SEEN = [2, 4]


def polygon(rng: np.random.Generator, box: list[float]) -> list[float]:
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(0.5, 1, 9)
    x = box[0] + box[2] * (0.5 + 0.5 * radii * np.cos(angles))
    y = box[1] + box[3] * (0.5 + 0.5 * radii * np.sin(angles))
    return np.stack([x, y], axis=1).ravel().tolist()


def uncompressed(mask: np.ndarray) -> list[int]:
    pixels = mask.ravel("F")
    changes = np.flatnonzero(np.diff(pixels)) + 1
    return [0] * int(pixels[0]) + np.diff(np.r_[0, changes, pixels.size]).tolist()


def write_truth(path: Path) -> dict[str, Any]:
    """Polygons, both kinds of RLE, crowds, objects of all sizes, an empty image, a class without truth."""
    rng = np.random.default_rng(0)
    annotations = []
    for number in range(120):
        w, h = rng.uniform(8, 110), rng.uniform(8, 85)
        box = [rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h), w, h]
        shape: Any = [polygon(rng, box)]
        rle = coco_mask.frPyObjects(shape, HEIGHT, WIDTH)[0]
        crowd = number % 17 == 0
        if crowd:
            shape = {"size": [HEIGHT, WIDTH], "counts": uncompressed(coco_mask.decode(rle))}
        elif number % 5 == 0:
            shape = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
        entry = {
            "id": 1000 - number,
            "image_id": int(rng.integers(1, 12)),
            "category_id": int(rng.integers(2, 6)),
        }
        entry |= {
            "bbox": box,
            "area": float(coco_mask.area(rle)),
            "iscrowd": int(crowd),
            "segmentation": shape,
        }
        annotations.append(entry)
    data = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(1, 14)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in (6, 5, 4, 3, 2)],
        "annotations": annotations,
    }
    path.write_text(json.dumps(data))
    return data


def detections_of(data: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Jittered truth with errors of class and place, tied scores, and both a box and a mask."""
    rng = np.random.default_rng(seed)
    sizes = {i["id"]: (i["height"], i["width"]) for i in data["images"]}
    found = []
    for a in data["annotations"]:
        height, width = sizes[a["image_id"]]
        for _ in range(rng.integers(0, 3)):
            x, y, w, h = np.array(a["bbox"]) * rng.uniform(0.9, 1.1, 4)
            box = [min(x, width - 2), min(y, height - 2), max(w, 1.0), max(h, 1.0)]
            rle = coco_mask.frPyObjects([polygon(rng, box)], height, width)[0]
            wrong = rng.random() < 0.15
            category = int(rng.choice([c["id"] for c in data["categories"]])) if wrong else a["category_id"]
            entry = {"image_id": a["image_id"], "category_id": category, "bbox": [float(v) for v in box]}
            shape = {"size": [height, width], "counts": rle["counts"].decode()}
            found.append(entry | {"score": round(float(rng.random()), 1), "segmentation": shape})
    return found


def pycocotools_stats(
    path: Path, detections: list[dict[str, Any]], iou_type: str, categories: list[int] | None = None
) -> list[float]:
    other = "bbox" if iou_type == "segm" else "segmentation"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        found = truth.loadRes([{k: v for k, v in d.items() if k != other} for d in detections])
        evaluation = COCOeval(truth, found, iou_type)
        if categories:
            evaluation.params.catIds = categories
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def numbers(split: CocoStats) -> list[float]:
    found = [getattr(split, stat) for stat in STATS]
    return [-1.0 if value is None else value for value in found]


@pytest.fixture
def truth_path(tmp_path: Path) -> Path:
    write_truth(tmp_path / "truth.json")
    return tmp_path / "truth.json"


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_splits_are_what_pycocotools_gives_for_their_classes(truth_path: Path, iou_type: str) -> None:
    truth = Dataset.open(truth_path, seen=["class 2", "class 4"]).for_evaluation()
    detections = detections_of(json.loads(truth_path.read_text()), 1)
    result = coco_average_precision(truth, detections, iou_type)
    for split, categories in {"all": None, "seen": SEEN, "unseen": [3, 5, 6]}.items():
        expected = pycocotools_stats(truth_path, detections, iou_type, categories)
        assert numbers(result.splits[split]) == pytest.approx(expected, abs=1e-12), split
    assert result.per_class[-1] is None  # class 6: detected now and then, and never there
    found = [ap for ap in result.per_class if ap is not None]
    everything = result.splits.all
    assert np.mean(found) == pytest.approx(everything.AP, abs=1e-12)
    assert everything.instances + everything.ignored == 120


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("count", [0, 1, None])
def test_reference_and_hotcoco_agree(truth_path: Path, iou_type: str, count: int | None) -> None:
    truth = Dataset.open(truth_path, seen=["class 2", "class 4"]).for_evaluation()
    detections = detections_of(json.loads(truth_path.read_text()), 2)[:count]
    fast, slow = (coco_average_precision(truth, detections, iou_type, reference=r) for r in (False, True))
    for split in ("all", "seen", "unseen"):
        assert numbers(fast.splits[split]) == pytest.approx(numbers(slow.splits[split]), abs=1e-12)
    assert fast.per_class == pytest.approx(slow.per_class, abs=1e-12)


def test_evaluation_says_nothing(truth_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    truth = Dataset.open(truth_path, seen="all").for_evaluation()
    detections = detections_of(json.loads(truth_path.read_text()), 3)
    coco_average_precision(truth, detections, "segm")
    coco_average_precision(truth, detections, "segm", reference=True)
    compare_average_precision(CocoTruth.of(truth, "bbox"), [detections], [detections], resamples=2)
    assert capfd.readouterr() == ("", "")


def test_truth_without_a_mask_is_neither_right_nor_wrong(truth_path: Path) -> None:
    data = json.loads(truth_path.read_text())
    detections = detections_of(data, 4)
    hidden = Dataset.open(truth_path, seen=["class 2", "class 4"]).for_training()
    result = coco_average_precision(hidden, detections, "segm")
    for annotation in data["annotations"]:
        if annotation["category_id"] not in SEEN:
            x, y, w, h = annotation["bbox"]
            centers = [np.arange(n) + 0.5 for n in (HEIGHT, WIDTH)]
            rows, columns = (c >= a for c, a in zip(centers, (y, x), strict=True))
            rows, columns = rows & (centers[0] < y + h), columns & (centers[1] < x + w)
            rle = coco_mask.encode(np.asfortranarray(np.outer(rows, columns).astype(np.uint8)))
            annotation |= {"iscrowd": 1, "segmentation": {**rle, "counts": rle["counts"].decode()}}
    crowds = truth_path.with_name("crowds.json")
    crowds.write_text(json.dumps(data))
    assert numbers(result.splits.all) == pytest.approx(
        pycocotools_stats(crowds, detections, "segm"), abs=1e-12
    )
    assert result.splits.unseen.instances == 0 and result.splits.unseen.AP is None


def test_size_without_an_area_is_that_of_the_mask_or_box(truth_path: Path) -> None:
    data = json.loads(truth_path.read_text())
    detections = detections_of(data, 5)
    with_area = coco_average_precision(
        Dataset.open(truth_path, seen="all").for_evaluation(), detections, "segm"
    )
    for annotation in data["annotations"]:
        del annotation["area"]
    truth_path.write_text(json.dumps(data))
    assert (
        coco_average_precision(Dataset.open(truth_path, seen="all").for_training(), detections, "segm")
        == with_area
    )
    for annotation in data["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    boxes = truth_path.with_name("boxes.json")
    boxes.write_text(json.dumps(data))
    result = coco_average_precision(Dataset.open(truth_path, seen="all").for_training(), detections, "bbox")
    assert numbers(result.splits.all) == pytest.approx(
        pycocotools_stats(boxes, detections, "bbox"), abs=1e-12
    )


def test_paired_difference_is_that_of_the_two_results(truth_path: Path) -> None:
    truth = Dataset.open(truth_path, seen=["class 2", "class 4"]).for_evaluation()
    a = detections_of(json.loads(truth_path.read_text()), 6)
    b = a[::3]
    masks = CocoTruth.of(truth, "segm")
    result = compare_average_precision(masks, [a], [b], resamples=50, seed=1)
    for split, stats in result.items():
        apart = [coco_average_precision(truth, d, "segm").splits[split].AP for d in (a, b)]
        assert [stats.AP.a, stats.AP.b] == pytest.approx(apart, abs=1e-12)
        difference = stats.AP.a_minus_b
        assert difference.value == pytest.approx(apart[0] - apart[1], abs=1e-12)
        assert difference.low < difference.value < difference.high
    same = compare_average_precision(masks, [a], [a], resamples=5)
    assert same.seen.AP50.a_minus_b == Interval(0.0, 0.0, 0.0)
    everything_seen = CocoTruth.of(Dataset.open(truth_path, seen="all").for_evaluation(), "segm")
    assert compare_average_precision(everything_seen, [a], [b], resamples=2).unseen is None


def test_a_comparison_builds_its_truth_once(truth_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = Dataset.open(truth_path, seen=["class 2", "class 4"]).for_evaluation()
    drawn: list[int] = []
    rasterize = average_precision.mask_rle
    monkeypatch.setattr(average_precision, "mask_rle", lambda *a: drawn.append(1) or rasterize(*a))
    detections = detections_of(json.loads(truth_path.read_text()), 6)
    compare_average_precision(CocoTruth.of(truth, "segm"), [detections], [detections[::2]], resamples=2)
    assert len(drawn) == len(truth.annotations)


def test_classes_shown_elsewhere_have_a_split_of_their_own(truth_path: Path) -> None:
    truth = Dataset.open(truth_path, seen=["class 2", "class 4"]).for_evaluation()
    detections = detections_of(json.loads(truth_path.read_text()), 1)
    apart = coco_average_precision(truth, detections, "segm", shown_elsewhere=frozenset({"class 5"}))
    for split, categories in {"unseen": [3, 6], "shown elsewhere": [5]}.items():
        expected = pycocotools_stats(truth_path, detections, "segm", categories)
        assert numbers(apart.splits[split]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("reference", [False, True])
def test_as_many_detections_as_there_are_objects_reach_average_precision(
    tmp_path: Path, reference: bool
) -> None:
    """400 objects on one image, each found exactly: COCO's own 100 would give an AP of 0.257."""
    boxes = [[20.0 * (i % 20), 20.0 * (i // 20), 12.0, 14.0] for i in range(400)]
    objects = [
        {"id": i, "image_id": 1, "category_id": 2, "bbox": box, "area": 168, "iscrowd": 0}
        for i, box in enumerate(boxes, start=1)
    ]
    image = {"id": 1, "file_name": "1.jpg", "height": 400, "width": 400}
    data = {"images": [image], "categories": [{"id": 2, "name": "cell"}], "annotations": objects}
    (tmp_path / "cells.json").write_text(json.dumps(data))
    truth = Dataset.open(tmp_path / "cells.json", seen="all").for_evaluation()
    found = [
        {"image_id": 1, "category_id": 2, "bbox": box, "score": 0.9 - i / 1000} for i, box in enumerate(boxes)
    ]
    whole = coco_average_precision(truth, found, "bbox", reference=reference).splits.all
    assert (whole.AP, whole.APs, whole.ARs, whole.AR100) == (1.0, 1.0, 1.0, 0.25)
    best = coco_average_precision(truth, found[:100], "bbox", reference=reference).splits.all
    assert abs(best.AP - 0.2574) < 1e-3
    paired = compare_average_precision(CocoTruth.of(truth, "bbox"), [found], [found[:100]], resamples=2)
    assert (paired.all.AP.a, paired.all.AP.b, paired.all.ARs.a) == (1.0, best.AP, 1.0)


def test_detection_in_an_unknown_image_is_refused_by_its_place(truth_path: Path) -> None:
    truth = Dataset.open(truth_path, seen="all").for_evaluation()
    detections = detections_of(json.loads(truth_path.read_text()), 7)[:3]
    with pytest.raises(DataError, match=r"detection 1: image_id 404: expected one of those in .*truth\.json"):
        coco_average_precision(truth, [detections[0], {**detections[1], "image_id": 404}], "bbox")


def naive_iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def naive_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask that a square of rings around reaches outside it, or outside the image."""
    distance = max(round(0.02 * math.hypot(*mask.shape)), 1)
    square = np.ones((2 * distance + 1,) * 2, np.uint8)
    padded = np.pad(mask.astype(np.uint8), distance)
    return mask & (cv2.erode(padded, square)[distance:-distance, distance:-distance] == 0)


def check_ious(path: Path) -> None:
    """Every IoU of `given_box_ious` against full-size arrays decoded by pycocotools."""
    truth = Dataset.open(path, seen="all").for_evaluation()
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    boxes = dict(zip(truth.annotations["annotation_id"].to_pylist(), truth.boxes_xyxy(), strict=True))
    row_of = {id: row for row, id in enumerate(truth.annotations["annotation_id"].to_pylist())}
    rng = np.random.default_rng(1)
    masks = {}
    for i, annotation in coco.anns.items():
        size = [coco.imgs[annotation["image_id"]][key] for key in ("height", "width")]
        masks[i] = coco_mask.frPyObjects([polygon(rng, annotation["bbox"])], *size)[0]["counts"]
    rows = [row_of[id] for id in masks]
    predicted = pa.table({"row": rows, "rle_counts": pa.array(masks.values(), pa.binary())})
    ious = given_box_ious(truth, predicted).to_pylist()
    evaluated = [i for i, a in coco.anns.items() if not a["iscrowd"] and coco.annToMask(a).any()]
    assert sorted(row["annotation_id"] for row in ious) == sorted(evaluated)
    for row in ious:
        annotation = coco.anns[row["annotation_id"]]
        expected = coco.annToMask(annotation).astype(bool)
        mask = coco_mask.decode({"size": expected.shape, "counts": masks[annotation["id"]]}).astype(bool)
        x1, y1, x2, y2 = boxes[annotation["id"]]
        y, x = (np.arange(n) + 0.5 for n in expected.shape)
        y, x = y[:, None], x[None]
        box = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
        ellipse = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 < 1
        found = [row[key] for key in ("iou", "box_baseline_iou", "ellipse_iou")]
        assert found == [naive_iou(m, expected) for m in (mask, box, ellipse)]
        edges = [row[key] for key in ("boundary_iou", "box_boundary_iou", "ellipse_boundary_iou")]
        edge = naive_boundary(expected)
        assert edges == [naive_iou(naive_boundary(m), edge) for m in (mask, box, ellipse)]
        assert row["area"] == expected.sum()


def test_given_box_ious_are_those_of_decoded_masks(truth_path: Path) -> None:
    check_ious(truth_path)


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.exists(), reason="no photographs beside the repository")
def test_both_measures_hold_on_real_annotations() -> None:
    check_ious(PHOTOS)
    truth = Dataset.open(PHOTOS, seen="voc").for_evaluation()
    detections = detections_of(json.loads(PHOTOS.read_text()), 8)
    for iou_type in ("segm", "bbox"):
        result = coco_average_precision(truth, detections, iou_type)
        expected = pycocotools_stats(PHOTOS, detections, iou_type)
        assert numbers(result.splits.all) == pytest.approx(expected, abs=1e-12)
