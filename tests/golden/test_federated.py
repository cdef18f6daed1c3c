"""LVIS's federated rule, by hand and against hotcoco's LVIS mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Truth
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.average_precision import CocoTruth, IouType, coco_average_precision
from deepmac_distill.evaluation.paired_precision import compare_average_precision

HEIGHT, WIDTH = 60, 80
KINDS = ("segm", "bbox")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def shape(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    rle = coco_mask.encode(mask)
    return {"bbox": [x, y, w, h], "segmentation": {**rle, "counts": rle["counts"].decode()}}


def found(image: int, category: int, score: float, *box: int) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "score": score, **shape(*box)}


def data_of(
    images: dict[int, dict[str, Any]], objects: list[tuple[int, int, tuple[int, ...]]]
) -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH, **keys}
            for i, keys in images.items()
        ],
        "categories": [{"id": k, "name": f"class {k}"} for k in (1, 2, 3)],
        "annotations": [
            {**shape(*box), "id": at, "image_id": i, "category_id": k, "area": box[2] * box[3], "iscrowd": 0}
            for at, (i, k, box) in enumerate(objects, start=1)
        ],
    }


def opened(path: Path, data: dict[str, Any]) -> Truth:
    path.write_text(json.dumps(data))
    return Dataset.open(path, seen="all").for_evaluation()


def lists(negative: list[int], not_exhaustive: list[int]) -> dict[str, list[int]]:
    return {"neg_category_ids": negative, "not_exhaustive_category_ids": not_exhaustive}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reference", [False, True])
def test_a_class_nobody_looked_for_costs_nothing(kind: IouType, reference: bool, tmp_path: Path) -> None:
    """One cat, found. A better score in an image where nobody looked for cats; in one where cats are not."""
    hit, elsewhere = found(1, 1, 0.5, 5, 5, 20, 20), found(2, 1, 0.9, 5, 5, 20, 20)

    def ap(keys: dict[str, Any]) -> float | None:
        images = {1: lists([], []) if keys else {}, 2: keys}
        truth = opened(tmp_path / "t.json", data_of(images, [(1, 1, (5, 5, 20, 20))]))
        return coco_average_precision(truth, [hit, elsewhere], kind, reference=reference).per_class[0]

    assert ap(lists([], [])) == pytest.approx(1.0)  # not looked for
    assert ap(lists([1], [])) == pytest.approx(0.5)  # looked for, and not there
    assert ap({}) == pytest.approx(0.5)  # a file of COCO


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reference", [False, True])
def test_where_not_all_are_marked_a_miss_is_no_error(kind: IouType, reference: bool, tmp_path: Path) -> None:
    """One of two cats is marked; the other, found with a better score, and one over the edge are ignored."""
    detections = [found(1, 1, 0.5, 5, 5, 20, 20), found(1, 1, 0.9, 50, 30, 20, 20)]
    detections.append({**found(1, 1, 0.8, 60, 5, 20, 20), "bbox": [70, 5, 20, 20]})

    def ap(not_exhaustive: list[int]) -> float | None:
        data = data_of({1: lists([], not_exhaustive)}, [(1, 1, (5, 5, 20, 20))])
        truth = opened(tmp_path / "t.json", data)
        whole = coco_average_precision(truth, detections, kind, reference=reference)
        assert whole.splits.all.instances == 1 and whole.splits.all.ignored == 0
        return whole.per_class[0]

    assert ap([1]) == pytest.approx(1.0)
    assert ap([2]) == pytest.approx(1 / 3)


def federated(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A file with every kind of list, and detections near its objects and elsewhere."""
    rng, objects, detections = np.random.default_rng(seed), [], []
    images = {}
    for image in range(1, 13):
        present = [int(k) for k in (1, 2, 3) if rng.random() < 0.5]
        absent = [k for k in (1, 2, 3) if k not in present]
        images[image] = lists(
            [k for k in absent if rng.random() < 0.5], [k for k in present if rng.random() < 0.4]
        )
        for k in present:
            for _ in range(rng.integers(1, 4)):
                w, h = rng.integers(6, 50, 2)
                x, y = rng.integers(0, [WIDTH - w, HEIGHT - h])
                objects.append((image, k, (int(x), int(y), int(w), int(h))))
                w, h = max(int(w + rng.integers(-4, 4)), 2), max(int(h + rng.integers(-4, 4)), 2)
                box = (int(min(x, WIDTH - w)), int(min(y, HEIGHT - h)), w, h)
                detections.append(found(image, k, float(rng.random()), *box))
        for k in (1, 2, 3):
            box = (*rng.integers(0, 30, 2).tolist(), *rng.integers(5, 30, 2).tolist())
            detections.append(found(image, k, float(rng.random()), *box))
    return data_of(images, objects), detections


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_an_lvis_evaluation(kind: IouType, seed: int, tmp_path: Path) -> None:
    data, detections = federated(seed)
    truth = opened(tmp_path / "t.json", data)
    only = "segmentation" if kind == "segm" else "bbox"
    other = "bbox" if kind == "segm" else "segmentation"
    stripped = [{key: value for key, value in one.items() if key != other} for one in detections]
    assert all(only in one for one in stripped)
    coco = hotcoco.COCO(data)
    lvis = hotcoco.COCOeval(coco, coco.load_res(stripped), kind, lvis_style=True)
    lvis.evaluate()
    lvis.accumulate()
    precision = lvis.eval["precision"][:, :, :, 0, -1]  # (T, R, K)
    expected = [float(np.mean(precision[:, :, k])) for k in range(3)]
    ours = coco_average_precision(truth, detections, kind)
    assert ours.per_class == pytest.approx(expected, abs=1e-12)
    slow = coco_average_precision(truth, detections, kind, reference=True)
    assert slow.per_class == pytest.approx(expected, abs=1e-12)
    plain = {**data, "images": [{k: v for k, v in i.items() if "_ids" not in k} for i in data["images"]]}
    assert coco_average_precision(opened(tmp_path / "p.json", plain), detections, kind) != ours
    paired = compare_average_precision(
        CocoTruth.of(truth, kind), [detections], [detections[::2]], resamples=3
    )
    assert paired.all.AP.a == ours.splits.all.AP


@pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
@pytest.mark.parametrize("value", [3, [None], {"1": 2}, [True], [1.5], None])
def test_lists_of_something_else_are_refused_when_the_file_is_read(
    key: str, value: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"image 7: {key} .*: expected a list of ids of categories"):
        opened(tmp_path / "t.json", data_of({7: {key: value}}, [(7, 1, (5, 5, 20, 20))]))


def test_ids_may_be_words(tmp_path: Path) -> None:
    """Categories with words for ids get numbers, and the lists name the words still."""
    data = data_of({1: lists([], []), 2: {"neg_category_ids": ["cat"]}}, [(1, 1, (5, 5, 20, 20))])
    data["categories"] = [{"id": "cat", "name": "cat"}, {"id": "dog", "name": "dog"}]
    data["annotations"][0]["category_id"] = "cat"
    truth = opened(tmp_path / "t.json", data)
    cat = truth.classes.category_ids[truth.classes.names.index("cat")]
    detections = [found(1, cat, 0.5, 5, 5, 20, 20), found(2, cat, 0.9, 5, 5, 20, 20)]
    per_class = coco_average_precision(truth, detections, "bbox").per_class
    assert per_class[truth.classes.names.index("cat")] == pytest.approx(0.5)


def test_ids_of_classes_that_the_file_lacks_do_no_harm(tmp_path: Path) -> None:
    truth = opened(tmp_path / "t.json", data_of({7: lists([99], [98])}, [(7, 1, (5, 5, 20, 20))]))
    ap = coco_average_precision(truth, [found(7, 1, 0.5, 5, 5, 20, 20)], "segm").per_class[0]
    assert ap == pytest.approx(1.0)
