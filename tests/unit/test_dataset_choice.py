"""Seen classes by how many masks they have, and classes hidden by name and by fold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deepmac_distill.dataset.choice import folds_of
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def write(path: Path, masks: dict[str, int]) -> Path:
    """A file of these classes, each with so many masks and one box without."""
    annotations: list[dict[str, object]] = []
    for category_id, count in enumerate(masks.values(), start=1):
        for position in range(count + 1):
            box = {"id": len(annotations), "image_id": 1, "category_id": category_id}
            mask = {"segmentation": SQUARE} if position else {}
            annotations.append(box | {"bbox": [10, 10, 20, 20], "iscrowd": 0} | mask)
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(masks, start=1)],
        "annotations": annotations,
    }
    path.write_text(json.dumps(document))
    return path


def test_with_masks_sees_the_classes_with_enough_and_names_the_strays(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", {"ant": 10, "bee": 9, "cow": 0})
    found = Dataset.open(path, seen="with-masks")
    assert found.classes.seen_names == ("ant",)
    assert found.notes == (f"{path}: seen are the 1 classes with at least 10 masks; strays are bee (9)",)
    assert Dataset.open(path, seen=["with-masks"], min_masks=9).classes.seen_names == ("ant", "bee")


def test_voc_means_with_masks_where_no_class_of_voc_is_in_the_file_and_that_is_said(tmp_path: Path) -> None:
    found = Dataset.open(write(tmp_path / "a.json", {"ant": 10, "bee": 0}), seen=("voc",))
    assert found.classes.seen_names == ("ant",)
    assert "no class of VOC is in the file" in found.notes[0]
    of_voc = Dataset.open(write(tmp_path / "b.json", {"ant": 10, "dog": 0}), seen=("voc",))
    assert (of_voc.classes.seen_names, of_voc.notes) == (("dog",), ())


def test_no_class_with_masks_enough_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none is in the file with masks; expected a class of at least 10"):
        Dataset.open(write(tmp_path / "a.json", {"ant": 9}), seen="voc")


def test_a_file_without_masks_hides_nothing_unless_masks_were_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", {"parcel": 0, "pallet": 0})
    found = Dataset.open(path, seen="voc")
    assert found.classes.seen_names == ("parcel", "pallet")
    assert found.notes == (f"{path}: no mask is in the file, so none is hidden",)
    with pytest.raises(DataError, match="none is in the file with masks"):
        Dataset.open(path, seen="with-masks")


def test_folds_share_classes_and_masks_evenly() -> None:
    names = tuple(f"class {i}" for i in range(20))
    counts = np.array([957, *range(19, 0, -1)])
    folds = folds_of(Classes(names, tuple(range(20)), (True,) * 20), counts, 2)
    assert sorted(name for fold in folds for name in fold) == sorted(names)
    assert [len(fold) for fold in folds] == [10, 10]
    assert set(folds[1]) == set(names[1:11])  # the one giant goes with the smallest


def test_hidden_classes_are_unseen_in_training_and_counted_so_in_evaluation(tmp_path: Path) -> None:
    dataset = Dataset.open(write(tmp_path / "a.json", {"ant": 5, "bee": 4, "cow": 3}), seen="all")
    hide = dataset.hidden_names(["fold:1/2"])
    assert hide == ("bee", "cow")
    training, truth = dataset.for_training(hide), dataset.for_evaluation(hide)
    assert training.classes == truth.classes and training.classes.seen_names == ("ant",)
    assert (training.has_mask().sum(), truth.has_mask().sum()) == (5, 12)
    assert training.fingerprint == Dataset.open(dataset.path, seen="ant").for_training().fingerprint
    assert training.fingerprint != dataset.for_training().fingerprint


def test_choices_are_made_by_masks_of_hidden_classes_and_no_others(tmp_path: Path) -> None:
    dataset = Dataset.open(write(tmp_path / "a.json", {"ant": 5, "bee": 4, "cow": 3}), seen="ant,bee")
    truth = dataset.of_hidden(["bee"])
    ids = truth.annotations["category_id"].to_numpy()[truth.has_human_mask()]
    assert set(ids.tolist()) == {dataset.classes.category_ids[1]} and len(ids) == 4
    assert truth.classes.seen_names == ("ant",) and len(truth.annotations) == len(dataset.tables.annotations)
    others = {dataset.for_training(["bee"]).fingerprint, dataset.for_evaluation(["bee"]).fingerprint}
    assert truth.fingerprint not in others


@pytest.mark.parametrize(
    ("hide", "message"),
    [
        (["tree"], 'class to hide "tree": no seen class; expected one such as'),
        (["fold:2/2"], "hide 'fold:2/2': expected fold:I/K with I < K and K from 2 to"),
        (["fold:0/9"], "the number of seen classes, 2"),
        (["fold:x"], "hide 'fold:x'"),
        (["ant", "bee"], "all seen classes are to be hidden"),
    ],
)
def test_what_cannot_be_hidden_is_refused(tmp_path: Path, hide: list[str], message: str) -> None:
    dataset = Dataset.open(write(tmp_path / "a.json", {"ant": 5, "bee": 4}), seen="all")
    with pytest.raises(DataError) as error:
        dataset.for_training(dataset.hidden_names(hide))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
