"""Class-agnostic masks ask for no class list; masks that belong to classes are matched by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from deepmac_distill.config import MaskRcnnConfig, load_pipeline
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.errors import DataError
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.models.build import build_model
from deepmac_distill.progress import Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.evaluate import require_validation
from deepmac_distill.stages.job import Job
from deepmac_distill.weights.card import read_card, save_weights

PER_CLASS = MaskRcnnConfig(
    backbone="tiny",
    backbone_width=8,
    fpn_channels=8,
    mask_channels=8,
    box_channels=8,
    anchor_sizes=(8, 16, 32, 64),
)


def a_new_class(document: dict[str, Any]) -> None:
    """A product arrives in the warehouse."""
    document["categories"].append({"id": 99, "name": "parcel"})
    for annotation in document["annotations"][::3]:
        annotation["category_id"] = 99


def fewer_classes(document: dict[str, Any]) -> None:
    """Half of them."""
    document["categories"] = document["categories"][::2]
    kept = {category["id"] for category in document["categories"]}
    document["annotations"] = [a for a in document["annotations"] if a["category_id"] in kept]


def other_classes(document: dict[str, Any]) -> None:
    """None that the model knows."""
    for category in document["categories"]:
        category["name"] = f"part {category['id']}"


def another_order(document: dict[str, Any]) -> None:
    """The same names under other ids."""
    for category in document["categories"]:
        category["id"] = 100 - category["id"]
    for annotation in document["annotations"]:
        annotation["category_id"] = 100 - annotation["category_id"]


@pytest.fixture
def boxes(chain, tmp_path: Path) -> Callable[..., list[Any]]:
    """Flags for the validation scenes without masks, changed."""

    def flags(change: Callable[[dict[str, Any]], None]) -> list[Any]:
        scenes = chain[0] / "scenes-val"
        document = json.loads((scenes / "instances.json").read_text())
        for annotation in document["annotations"]:
            annotation.pop("segmentation")
        change(document)
        (tmp_path / "boxes.json").write_text(json.dumps(document))
        return ["--annotations", tmp_path / "boxes.json", "--images", scenes / "images"]

    return flags


@pytest.fixture(scope="module")
def per_class(chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with a mask for each class; random, which is all that matching classes needs."""
    card = read_card(chain[0] / "teacher" / "weights.safetensors")
    torch.manual_seed(0)
    model = build_model(PER_CLASS, len(card.class_names), load_weights=False)
    path = tmp_path_factory.mktemp("weights") / "per_class.safetensors"
    save_weights(path, model.state_dict(), replace(card, model=asdict(PER_CLASS)))
    return path


def masks_by_annotation(run: Path) -> dict[int, bytes]:
    rows = pq.read_table(run / "pseudolabel" / "masks.parquet").to_pylist()
    return {row["annotation_id"]: row["soft"] for row in rows if row["source"] == "teacher"}


@pytest.mark.parametrize("change", [a_new_class, fewer_classes, other_classes, another_order])
def test_boxes_of_any_classes_are_labeled(change, chain, boxes, deepmac, tmp_path: Path) -> None:
    weights, out = chain[0] / "teacher" / "weights.safetensors", tmp_path / "run"
    given = boxes(change)
    ended = deepmac("pseudolabel", "--model", weights, *given, "--out", out)  # no mask there, nothing to say
    assert ended.code == 0, ended.err
    document = json.loads((tmp_path / "boxes.json").read_text())
    drawn = masks_by_annotation(out)
    assert drawn.keys() == {annotation["id"] for annotation in document["annotations"]}
    provenance = Labels.open(out / "pseudolabel" / "masks.parquet").provenance
    assert provenance["seen_mask_classes"] == sorted(SEEN_SHAPES)  # whose masks the teacher saw
    for row in pq.read_table(out / "pseudolabel" / "masks.parquet").to_pylist():
        saw = row["category_name"] in SEEN_SHAPES if row["source"] == "teacher" else None
        assert row["teacher_saw_class"] is saw


def test_a_run_stands_for_its_teacher(chain, boxes, deepmac, tmp_path: Path) -> None:
    given = boxes(other_classes)
    runs = {"file": chain[0] / "teacher" / "weights.safetensors", "run": chain[0]}
    for name, model in runs.items():
        ended = deepmac("pseudolabel", "--model", model, *given, "--out", tmp_path / name)
        assert ended.code == 0, ended.err
    assert masks_by_annotation(tmp_path / "file") == masks_by_annotation(tmp_path / "run")
    ended = deepmac("pseudolabel", "--model", tmp_path, *given, "--out", tmp_path / "none")
    assert ended.code == 2 and "no weights of a teacher there" in ended.err.splitlines()[-1]


def test_other_names_change_no_mask(chain, boxes, deepmac, tmp_path: Path) -> None:
    weights = chain[0] / "teacher" / "weights.safetensors"
    found = []
    for position, change in enumerate((other_classes, another_order)):
        out = tmp_path / f"run-{position}"
        given = ["pseudolabel", "--model", weights, *boxes(change), "--seen", "all", "--out", out]
        assert deepmac(*given).code == 0
        found.append(masks_by_annotation(out))
    assert found[0] == found[1]


def test_masks_that_belong_to_classes_are_matched_by_name(per_class, boxes, deepmac, tmp_path: Path) -> None:
    found = []
    for position, change in enumerate((lambda document: None, another_order, fewer_classes)):
        out = tmp_path / f"run-{position}"
        given = ["pseudolabel", "--model", per_class, *boxes(change), "--seen", "all", "--out", out]
        assert deepmac(*given).code == 0
        found.append(masks_by_annotation(out))
    whole, reordered, fewer = found
    assert reordered == whole
    assert fewer and fewer == {id: mask for id, mask in whole.items() if id in fewer}


@pytest.mark.parametrize("change", [a_new_class, other_classes])
def test_masks_that_belong_to_classes_are_refused_where_one_is_lacking(
    change, per_class, boxes, deepmac, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = deepmac("pseudolabel", "--model", per_class, *boxes(change), "--seen", "all", "--out", out)
    last = ended.err.splitlines()[-1]
    assert ended.code == 2 and "expected boxes of its classes, or weights of a class-agnostic" in last
    assert not list(out.rglob("done.json"))


def test_detections_are_matched_by_name(per_class, chain, deepmac, tmp_path: Path) -> None:
    """The same validation set with its ids turned round: the same average precision."""
    scenes = chain[0] / "scenes-val"
    document = json.loads((scenes / "instances.json").read_text())
    another_order(document)
    (tmp_path / "turned.json").write_text(json.dumps(document))
    found = []
    for position, truth in enumerate((scenes / "instances.json", tmp_path / "turned.json")):
        out = tmp_path / f"out-{position}"
        given = ["--config", chain[0] / "config.toml", "--out", out, "--val-annotations", truth]
        weights = ["--model", chain[0] / "student" / "weights.safetensors"]
        ended = deepmac("evaluate", *weights, *given, "--val-images", scenes / "images")
        assert ended.code == 0, ended.err
        (folder,) = out.glob("evaluate-*")
        rows = json.loads((folder / "summary.json").read_text())["per_class"]
        found.append({row["name"]: (row["segm_AP"], row["bbox_AP"], row["model"]) for row in rows})
    assert found[0] == found[1]


def test_a_student_carries_the_masks_that_its_teacher_saw(chain, deepmac, tmp_path: Path) -> None:
    """Labels of a teacher that saw more classes than this run's seen ones: the student did too."""
    out, scenes = tmp_path / "run", chain[0] / "scenes-train"
    seen = ["--seen", SEEN_SHAPES[0]]
    data = ["--annotations", scenes / "instances.json", "--images", scenes / "images"]
    weights = ["--model", chain[0] / "teacher" / "weights.safetensors"]
    given = ["--config", chain[0] / "config.toml", "--out", out, *data, *seen]
    assert deepmac("pseudolabel", *weights, *given).code == 0
    ended = deepmac("student", "--config", chain[0] / "config.toml", "--out", out, *data, *seen)
    assert ended.code == 0, ended.err
    card = read_card(out / "student" / "weights.safetensors")
    assert card.shown == {SEEN_SHAPES[0]} and card.teacher_mask_classes == tuple(sorted(SEEN_SHAPES[1:]))
    assert card.seen_mask_classes == tuple(sorted(SEEN_SHAPES))


def test_a_plain_student_s_card_is_as_it_was(chain) -> None:
    card = read_card(chain[0] / "student" / "weights.safetensors")
    assert card.teacher_mask_classes == () and "teacher_mask_classes" not in card.as_dict()


class Told(Silent):
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("change", [a_new_class, other_classes])
def test_a_run_takes_validation_boxes_of_other_classes_unless_masks_belong_to_classes(
    change, chain, small_toml: Path, tmp_path: Path
) -> None:
    scenes = chain[0] / "scenes-val"
    document = json.loads((scenes / "instances.json").read_text())
    change(document)
    (tmp_path / "val.json").write_text(json.dumps(document))
    data = {
        "seen": list(SEEN_SHAPES),
        "train_annotations": str(chain[0] / "scenes-train" / "instances.json"),
        "train_images": str(chain[0] / "scenes-train" / "images"),
        "val_annotations": str(tmp_path / "val.json"),
        "val_images": str(scenes / "images"),
    }
    pipeline = load_pipeline(small_toml, values={f"data.{key}": value for key, value in data.items()})
    told = Told()
    assert require_validation(Job(pipeline, None, RunDir(tmp_path / "run"), told))
    assert any("masks in given boxes are evaluated, detection is not" in note for note in told.notes)
    student = replace(pipeline.student, model=PER_CLASS)
    job = Job(replace(pipeline, student=student), None, RunDir(tmp_path / "run"), told)
    with pytest.raises(DataError, match=r"student\.model has a mask for each class"):
        require_validation(job)
