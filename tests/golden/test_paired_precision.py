"""Resampled average precision, against hotcoco on sets in which images stand as often as they were drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.evaluation.average_precision import RANKS, STATS, CocoTruth, IouType, stats_by_split
from deepmac_distill.evaluation.means import image_draws
from deepmac_distill.evaluation.paired_precision import compare_average_precision, resampled_stats
from deepmac_distill.evaluation.splits import split_classes

HEIGHT, WIDTH, SEEN = 90, 120, ("class 2", "class 4")
KINDS = ("segm", "bbox")


def rectangle(box: list[float]) -> dict[str, Any]:
    x, y, w, h = (round(v) for v in box)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    rle = coco_mask.encode(mask)
    return {**rle, "counts": rle["counts"].decode()}


def scenes(images: int = 14) -> dict[str, Any]:
    """Objects of several sizes, crowds, an image without objects, a class without truth."""
    rng, annotations = np.random.default_rng(0), []
    for number in range(90):
        w, h = rng.uniform(8, 110), rng.uniform(8, 85)
        box = [rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h), w, h]
        entry = {"id": number + 1, "image_id": int(rng.integers(1, images)), "bbox": box, "area": w * h}
        entry |= {"category_id": int(rng.integers(2, 6)), "iscrowd": int(number % 13 == 0)}
        annotations.append(entry | {"segmentation": rectangle(box)})
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(1, images + 1)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in (6, 5, 4, 3, 2)],
        "annotations": annotations,
    }


def detections_of(data: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Jittered truth with errors of class and place, and doubles; no two scores are equal."""
    rng, found = np.random.default_rng(seed), []
    for a in data["annotations"]:
        for _ in range(rng.integers(0, 4)):
            x, y, w, h = np.array(a["bbox"]) * rng.uniform(0.85, 1.15, 4)
            box = [float(v) for v in (min(x, WIDTH - 2), min(y, HEIGHT - 2), max(w, 1), max(h, 1))]
            category = int(rng.integers(2, 7)) if rng.random() < 0.2 else a["category_id"]
            entry = {"image_id": a["image_id"], "category_id": category, "score": float(rng.random())}
            found.append(entry | {"bbox": box, "segmentation": rectangle(box)})
    return found


def as_drawn(rows: list[dict[str, Any]], times: np.ndarray) -> list[dict[str, Any]]:
    """The rows of each image as often as it was drawn, each time of an image of its own."""
    copies = [(image + 1, copy) for image, n in enumerate(times) for copy in range(n)]
    return [
        {**row, "image_id": new, **({"id": 1000 * new + row["id"]} if "id" in row else {})}
        for new, (image, _) in enumerate(copies, start=1)
        for row in rows
        if row["image_id"] == image
    ]


def opened(path: Path, data: dict[str, Any], kind: IouType) -> CocoTruth:
    path.write_text(json.dumps(data))
    return CocoTruth.of(Dataset.open(path, seen=SEEN).for_evaluation(), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resampling_is_the_set_with_its_images_as_often_as_drawn(kind: IouType, tmp_path: Path) -> None:
    data, resamples = scenes(), 6
    found, truth = detections_of(data, 1), opened(tmp_path / "one.json", data, kind)
    splits = split_classes(truth.truth.classes)
    ours = resampled_stats(truth, [found], splits, resamples=resamples, seed=3)
    draws = np.concatenate(list(image_draws(len(data["images"]), resamples, 3))).astype(int)
    assert draws[1:].max() > 2 and draws.min() == 0
    for row, times in enumerate(draws):
        images = [{**data["images"][0], "id": i, "file_name": f"{i}.jpg"} for i in range(1, times.sum() + 1)]
        drawn = {**data, "images": images, "annotations": as_drawn(data["annotations"], times)}
        again = opened(tmp_path / f"{row}.json", drawn, kind)
        expected = stats_by_split(again.truth, again.evaluate(as_drawn(found, times)), splits)
        for split, stats in expected.items():
            assert [None if np.isnan(v) else v for v in ours[split][:, row, 0]] == pytest.approx(
                list(stats.values()), abs=1e-12
            )


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_hotcoco_s_bit_by_bit(kind: IouType, tmp_path: Path) -> None:
    data = scenes()
    truth, a = opened(tmp_path / "one.json", data, kind), detections_of(data, 1)
    for found in (a, [{**one, "score": round(one["score"], 1)} for one in a], []):  # with ties, and none
        b = detections_of(data, 2)
        ours = compare_average_precision(truth, [found], [b], resamples=2)
        for split, members in split_classes(truth.truth.classes).items():
            ids = np.array(truth.truth.classes.category_ids)[members].tolist()
            theirs = hotcoco.compare(*(truth.matched(truth.found(one), RANKS, ids) for one in (b, found)))
            for name in STATS:
                stat, expected = getattr(ours[split], name), theirs["metrics_b"][name]
                assert stat.a == (None if expected == -1 else expected)
                if stat.a is not None:
                    assert stat.a_minus_b.value == theirs["deltas"][name]


def test_an_interval_is_that_of_a_naive_bootstrap(tmp_path: Path) -> None:
    """hotcoco's own counts an image once however often it is drawn, and is too narrow."""
    data = scenes()
    truth, a, b = opened(tmp_path / "one.json", data, "bbox"), detections_of(data, 1), detections_of(data, 2)
    ours = compare_average_precision(truth, [a], [b], resamples=200, seed=1).all.AR100.a_minus_b
    theirs = hotcoco.compare(
        *(truth.matched(truth.found(one), RANKS) for one in (b, a)), n_bootstrap=200, seed=1
    )
    width = theirs["ci"]["AR100"]["upper"] - theirs["ci"]["AR100"]["lower"]
    assert ours.high - ours.low > 1.1 * width


def test_all_detections_count_and_the_best_hundred_for_ar100(tmp_path: Path) -> None:
    data = scenes()
    truth = opened(tmp_path / "one.json", data, "bbox")
    first = next(a for a in data["annotations"] if not a["iscrowd"])
    hit = {"image_id": first["image_id"], "category_id": first["category_id"], "bbox": first["bbox"]}
    far = [{**hit, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.9 - i / 1000} for i in range(100)]
    for found in ([*far, {**hit, "score": 0.1}], [*far[1:], {**hit, "score": 0.1}]):
        stats = compare_average_precision(truth, [found], [[]], resamples=3).all
        expected = stats_by_split(truth.truth, truth.evaluate(found), split_classes(truth.truth.classes)).all
        for name in STATS:
            assert getattr(stats, name).a == expected[name]
        assert (stats.AR100.a > 0) == (len(found) == 100) and stats.AP.a > 0


def test_seeds_are_averaged_on_the_same_images_and_widen_by_their_spread(tmp_path: Path) -> None:
    data = scenes()
    truth = opened(tmp_path / "one.json", data, "bbox")
    a, b, c = (detections_of(data, seed) for seed in (1, 2, 3))
    both = compare_average_precision(truth, [a, b], [c, c], resamples=30).all.AP
    each = [compare_average_precision(truth, [one], [c], resamples=30).all.AP for one in (a, b)]
    assert both.a == pytest.approx(np.mean([one.a for one in each]), abs=1e-15)
    spread = np.std([one.a_minus_b.value for one in each], ddof=1)
    assert both.a_minus_b.seeds_half == pytest.approx(12.7062 * spread / 2**0.5, rel=1e-4)
