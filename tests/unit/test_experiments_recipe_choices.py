"""The variants of a recipe: each is a pipeline that can be built, and a row is read back as it was kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deepmac_distill.config import load_pipeline, located
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.evaluation.results import Interval, MeanIoU, SizeIoU, SplitIoU
from deepmac_distill.evaluation.sizes import BySize
from deepmac_distill.experiments.recipe_choices import (
    BASE,
    RECIPE,
    SHARES,
    VARIANTS,
    Choice,
    hidden_names,
    keep,
    kept_in,
    table,
    thinned,
    thinned_file,
)
from deepmac_distill.experiments.run_record import Environment


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_differs_from_the_base_alone_in_what_it_names(variant: str) -> None:
    base = load_pipeline(located(Path(RECIPE)), values=dict(BASE))
    other = load_pipeline(located(Path(RECIPE)), values={**BASE, **VARIANTS[variant]})
    assert (other == base) == (variant == "base" or variant in SHARES)
    if variant == "second round":  # its student is a second teacher
        assert other.teacher == base.teacher and other.student.model == base.teacher.model
        assert other.labels.targets == "soft" and other.student.look == base.teacher.look
    else:
        assert replace(other, teacher=base.teacher) == base, "a variant changes the teacher alone"


def test_a_share_of_the_masks_stays_and_every_box_does() -> None:
    square = [[1, 1, 9, 1, 9, 9, 1, 9]]
    annotations = [
        {"id": i, "category_id": i % 2, "bbox": [1, 1, 8, 8], "area": 64, "segmentation": square}
        for i in range(40)
    ] + [{"id": 40, "category_id": 1, "bbox": [1, 1, 8, 8]}]
    found = thinned(annotations, 0.3, {0}, seed=5)
    assert [one["id"] for one in found] == list(range(41)), "every box"
    assert sum("segmentation" in one for one in found if one["category_id"]) == 6
    assert all("segmentation" in one for one in found if not one["category_id"])
    assert all(("area" in one) == ("segmentation" in one) for one in found), "no area of a mask that is gone"
    assert found == thinned(annotations, 0.3, {0}, seed=5) != thinned(annotations, 0.3, {0}, seed=6)


def row(variant: str, iou: float, seed: int = 0, gpus: tuple[str, ...] = ()) -> Choice:
    mean = MeanIoU(iou, 0.5, 0.55)
    size = SizeIoU(mean, mean, 4, 2)
    hidden = SplitIoU(
        class_mean_iou=mean,
        instance_mean_iou=mean,
        instances=12,
        classes=2,
        truth_outside_boxes=0.0,
        model=Interval(iou, iou - 0.01, iou + 0.01),
        model_minus_box=Interval(iou - 0.5, 0.1, 0.2),
        model_minus_ellipse=Interval(iou - 0.55, 0.1, 0.2),
        by_size=BySize(size, size, size),
    )
    machine = Environment("3.11", "Linux", "a processor", 2, gpus, {"torch": "2"})
    return Choice(variant, "fold:0/2", seed, 480.0, machine, hidden)


def test_rows_are_kept_one_by_one_and_shown_in_the_order_of_the_variants(tmp_path: Path) -> None:
    rows = [row("base", 0.66), row("base", 0.67, seed=1), row("160 px", 0.68)]
    for one in reversed(rows):
        keep(one, tmp_path)
    assert kept_in(tmp_path) == rows
    shown = table(kept_in(tmp_path)).texts()
    assert [line[0] for line in shown] == ["base", "160 px"], "a row for all seeds of a variant"
    assert shown[0][3:6] == ["0, 1", "8.0", "66.5"]
    assert [line[-1] for line in shown] == ["–", "+2.0"], "against the base of the same seed"


def test_rows_of_a_gpu_stand_apart_without_a_cost_in_cpu_time(tmp_path: Path) -> None:
    for one in (row("base", 0.66), row("base", 0.7, gpus=("a card",)), row("160 px", 0.71, gpus=("a card",))):
        keep(one, tmp_path)
    shown = {(line[0], line[2]): line for line in table(kept_in(tmp_path)).texts()}
    assert len(shown) == 3
    assert shown["base", "a card"][4:6] == ["–", "70.0"]
    assert shown["160 px", "a card"][-1] == "+1.0", "a card is compared with itself"


def test_a_variant_that_is_gone_comes_last(tmp_path: Path) -> None:
    for one in (row("a first try", 0.7), row("base", 0.66)):
        keep(one, tmp_path)
    assert [one.variant for one in kept_in(tmp_path)] == ["base", "a first try"]


def test_a_share_hides_the_classes_that_the_whole_file_hides(tmp_path: Path) -> None:
    # Few masks make other folds: they follow the number of a class's masks.
    names, square = ("person", "car", "dog", "cat"), [[1, 1, 9, 1, 9, 9, 1, 9]]
    annotations = [
        {"id": 10 * kind + i, "image_id": 1, "category_id": kind, "bbox": [1, 1, 8, 8], "area": 64}
        | {"segmentation": square, "iscrowd": 0}
        for kind in range(len(names))
        for i in range(8 - kind)
    ]
    coco = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 20, "height": 20}],
        "categories": [{"id": kind, "name": name} for kind, name in enumerate(names)],
        "annotations": annotations,
    }
    (tmp_path / "instances_train.json").write_text(json.dumps(coco), encoding="utf-8")
    keys = {**BASE, "data.root": str(tmp_path)}
    hidden = hidden_names(keys, "fold:0/2")
    assert len(hidden) == 2 and set(hidden) < set(names)
    path = thinned_file(keys, 0.2, hidden, 0, tmp_path / "thinned.json")
    found = Dataset.open(path, seen=["voc"]).hidden_names(hidden)
    assert sorted(found) == hidden
    masks = {one["category_id"] for one in json.loads(path.read_text())["annotations"] if "area" in one}
    assert {names[kind] for kind in masks} >= set(hidden), "hidden classes keep their masks: the truth"
