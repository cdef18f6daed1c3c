"""What a student is shown is what the exported file would show it, without the way through that file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deepmac_distill.data.augment import evaluation_views, training_views
from deepmac_distill.data.dataset import AnnotatedImages, BoxDataset, Sample
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.synthetic import SEEN_SHAPES, write_scenes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.exports.masks import of_labels
from deepmac_distill.inference import SegmentedBoxes
from deepmac_distill.labels.cut import Cut
from deepmac_distill.labels.describe import label_unit
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.lesson import ChosenLabels
from deepmac_distill.labels.recutting import CutOf
from deepmac_distill.labels.rules import OnRejected, Rules
from deepmac_distill.labels.table import LABELS_SCHEMA, label_writer

SEEN = list(SEEN_SHAPES)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes with masks of every kind: polygons of people, runs, a crowd, a box without area, a teacher's."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, images=20, seed=1, size_px=64)
    raw = json.loads((folder / "instances.json").read_text())
    for annotation in raw["annotations"][::2]:
        x, y, w, h = annotation["bbox"]
        corners = [x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 3]
        annotation["segmentation"] = [corners, [x, y, x + 1, y + 1]]
    raw["annotations"][1] |= {"iscrowd": 1}
    raw["annotations"][3]["bbox"][2] = 0
    raw["annotations"][5]["source"] = "teacher"
    (folder / "a.json").write_text(json.dumps(raw))
    return folder / "a.json"


@pytest.fixture(scope="module")
def labels(scenes: Path) -> Labels:
    """A teacher that draws noise in every usable box without a human's mask, but for the first of these."""
    view = Dataset.open(scenes, seen=SEEN).for_training()
    usable = np.array([status == "ok" for status in view.annotations["status"].to_pylist()])
    rows = np.flatnonzero(usable & ~view.has_human_mask())[1:]
    grids = np.random.default_rng(0).integers(0, 256, (len(rows), 5, 5)).astype(np.uint8)
    batch = SegmentedBoxes(rows, np.sort(grids, axis=2), np.ones(len(rows), bool))
    table = label_unit(
        view, range(len(view.annotations)), [batch], {}, keep_soft=True, probabilities=True, lattice="centers"
    )
    with label_writer(scenes.parent / "masks.parquet", {}) as writer:
        writer.write(table)
    return Labels.open(scenes.parent / "masks.parquet")


def samples(annotations: Annotations, folder: Path, **more: Any) -> list[Sample]:
    views = training_views(32)
    source = AnnotatedImages(annotations, ImageFolder(folder / "images"), mask_size=9, **more)
    dataset = BoxDataset(source, views, seed=3)
    return [dataset[position, draw] for draw in range(3) for position in range(len(dataset))]


@pytest.mark.parametrize("on_rejected", ["keep_box", "drop", "ignore"])
@pytest.mark.parametrize("cut", [0.5, 0.3])
def test_the_student_sees_what_the_exported_file_would_show_it(
    scenes: Path, labels: Labels, on_rejected: OnRejected, cut: float
) -> None:
    rules = Rules(min_mask_score=0.75 if cut == 0.5 else 0.65, on_rejected=on_rejected)
    chosen = ChosenLabels(labels=labels.with_cut(cut), rules=rules)
    lesson = chosen.lesson(Dataset.open(scenes, seen=SEEN).for_training())
    assert lesson.counts["teacher"] > 1 and lesson.counts["human"] > 1
    assert lesson.counts["dropped" if on_rejected == "drop" else "without a mask"] > 1
    exported = scenes.parent / "exported.json"
    chosen.labels.export_coco(Dataset.open(scenes, seen=SEEN).for_training().document(), rules, exported)
    expected = Dataset.open(exported, seen=SEEN).for_training()
    for name in ("annotation_id", "bbox", "iscrowd", "status", "polygons", "rle_counts", "source"):
        assert lesson.annotations.annotations[name].to_pylist() == expected.annotations[name].to_pylist(), (
            name
        )
    for mine, theirs in zip(
        samples(lesson.annotations, scenes.parent), samples(expected, scenes.parent), strict=True
    ):
        for name in Sample.__slots__:
            assert np.array_equal(np.asarray(getattr(mine, name)), np.asarray(getattr(theirs, name))), name


def test_a_masks_weight_is_its_row_s_and_a_humans_is_one(scenes: Path, labels: Labels) -> None:
    view = Dataset.open(scenes, seen=SEEN).for_training()
    chosen = ChosenLabels(labels=labels, mask_weight="expected_iou")
    lesson = chosen.lesson(view)
    by_teacher = np.array(lesson.annotations.annotations["source"].to_pylist()) == "teacher"
    assert lesson.mask_weight is not None and lesson.mask_weight.dtype == np.float32
    expected = np.array(labels.table["expected_iou"].to_pylist(), dtype=np.float32)
    assert (lesson.mask_weight[by_teacher] == expected[by_teacher]).all()
    assert (lesson.mask_weight[~by_teacher] == 1).all()
    assert chosen.inputs()["labels.mask_weight"] == "expected_iou"
    assert "labels.mask_weight" not in ChosenLabels(labels=labels).inputs()
    shown = samples(lesson.annotations, scenes.parent, mask_weight=lesson.mask_weight)[0]
    assert (shown.mask_weight == lesson.mask_weight[shown.rows]).all()


@pytest.mark.parametrize("on_rejected", ["keep_box", "drop"])
def test_soft_targets_are_the_grids_of_accepted_rows(
    scenes: Path, labels: Labels, on_rejected: OnRejected
) -> None:
    rules = Rules(min_mask_score=0.75, on_rejected=on_rejected)
    lesson = ChosenLabels(labels=labels, rules=rules, targets="soft").lesson(
        Dataset.open(scenes, seen=SEEN).for_training()
    )
    table = lesson.annotations.annotations
    by_teacher = np.flatnonzero(np.array(table["source"].to_pylist()) == "teacher")
    assert sorted(lesson.soft) == by_teacher.tolist()
    stored = {
        row["annotation_id"]: row["soft"]
        for batch in labels._read(["annotation_id", "soft"])
        for row in batch.to_pylist()
    }
    for row, grid in lesson.soft.items():
        assert grid.cells.tobytes() == stored[table["annotation_id"][row].as_py()]
    images = ImageFolder(scenes.parent / "images")
    source = AnnotatedImages(lesson.annotations, images, mask_size=5, soft=lesson.soft)
    whole = BoxDataset(source, evaluation_views(64))
    first = whole[0, 0]
    for row, mask in zip(first.rows.tolist(), first.masks, strict=True):
        if row in lesson.soft:
            assert np.abs(mask.astype(int) - lesson.soft[row].cells).max() <= 1


def test_labels_of_other_boxes_are_named(scenes: Path, labels: Labels, tmp_path: Path) -> None:
    raw = json.loads(scenes.read_text())
    raw["annotations"][8]["bbox"][0] += 1
    (tmp_path / "a.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match=f"labels: annotation {raw['annotations'][8]['id']}: bbox: got"):
        ChosenLabels(labels=labels).lesson(Dataset.open(tmp_path / "a.json", seen=SEEN).for_training())


def test_options_that_the_labels_cannot_serve_are_refused(
    scenes: Path, labels: Labels, tmp_path: Path
) -> None:
    view = Dataset.open(scenes, seen=SEEN).for_training()
    poor = labels.table.append_column("soft", pa.nulls(len(labels), pa.binary()))
    poor = poor.set_column(
        poor.schema.get_field_index("expected_iou"), "expected_iou", pa.nulls(len(poor), pa.float32())
    )
    with label_writer(tmp_path / "masks.parquet", {}) as writer:
        writer.write(poor.select(LABELS_SCHEMA.names).cast(LABELS_SCHEMA))
    found = Labels.open(tmp_path / "masks.parquet")
    with pytest.raises(DataError, match=r"labels\.targets = 'soft' expects all"):
        ChosenLabels(labels=found, targets="soft").lesson(view)
    with pytest.raises(DataError, match=r"labels\.mask_weight = 'expected_iou' expects all"):
        ChosenLabels(labels=found, mask_weight="expected_iou").lesson(view)


class Halved:
    """Quality is half of `expected_iou`, its bound a quarter."""

    sha256 = "half"
    by_quick_holdout = ()

    def __init__(self) -> None:
        self.cuts: list[Cut] = []

    def estimate(self, rows: pa.Table, cut_of: CutOf) -> tuple[np.ndarray, np.ndarray]:
        self.cuts.append(cut_of(None))
        values = np.array([value or np.nan for value in rows["expected_iou"].to_pylist()], float)
        return values / 2, values / 4


def test_columns_are_null_where_nobody_knows(labels: Labels) -> None:
    assert labels.table["quality"].null_count == labels.table["quality_low"].null_count == len(labels)
    assert labels.table["quality"].type == pa.float32()


def test_quality_is_of_the_scores_as_written_whatever_the_cut(labels: Labels) -> None:
    quality = Halved()
    at_rule = labels.with_quality(quality).table
    again = labels.with_quality(quality).with_cut(0.3).table
    by_teacher = np.array(at_rule["source"].to_pylist()) == "teacher"
    values = np.array(at_rule["quality"].to_pylist(), float)
    assert np.isnan(values[~by_teacher]).all() and not np.isnan(values[by_teacher]).any()
    expected = np.array(at_rule["expected_iou"].to_pylist(), float)
    assert values[by_teacher] == pytest.approx(expected[by_teacher] / 2)
    assert again["quality"] == at_rule["quality"] and again["expected_iou"] != at_rule["expected_iou"]
    assert set(quality.cuts) == {"expected-iou", 0.3}


def test_a_rule_and_a_weight_go_by_quality(labels: Labels, scenes: Path) -> None:
    known = labels.with_quality(Halved())
    values = np.array([value or 0 for value in known.table["quality"].to_pylist()])
    by_teacher = np.array(known.table["source"].to_pylist()) == "teacher"
    least = float(np.median(values[by_teacher]))
    assert (Rules(min_quality=least).accept(known.table) == (by_teacher & (values >= least))).all()
    assert not Rules(min_quality=least).accept(labels.table).any()  # without a value: 0
    chosen = ChosenLabels(labels=known, mask_weight="quality")
    lesson = chosen.lesson(Dataset.open(scenes, seen=SEEN).for_training())
    assert lesson.mask_weight is not None
    assert lesson.mask_weight[by_teacher] == pytest.approx(values[by_teacher])
    assert chosen.inputs()["calibration"] == "half"
    assert "calibration" not in ChosenLabels(labels=known).inputs()
    with pytest.raises(DataError, match="quality: got none"):
        ChosenLabels(labels=labels, mask_weight="quality").lesson(
            Dataset.open(scenes, seen=SEEN).for_training()
        )


def test_exports_have_it_only_where_it_is_known(labels: Labels, scenes: Path) -> None:
    view = Dataset.open(scenes, seen=SEEN).for_training()
    files = []
    for name, some in (("plain", labels), ("known", labels.with_quality(Halved()))):
        some.export_coco(view.document(), Rules(), scenes.parent / f"{name}.json")
        files.append(json.loads((scenes.parent / f"{name}.json").read_bytes()))
        facts = [
            thing.facts for p in of_labels(some, Rules(), "drop", view).pictures() for thing in p.objects
        ]
        drawn = [fact for fact in facts if "expected_iou" in fact]
        assert drawn and all(("quality" in fact) == (name == "known") for fact in drawn)
    plain, known = files
    assert not any("quality" in one for one in plain["annotations"])
    for before, after in zip(plain["annotations"], known["annotations"], strict=True):
        more = {"quality", "quality_low"} if after["source"] == "teacher" else set()
        assert after.keys() - before.keys() == more
        if more:
            assert after["quality"] == pytest.approx(2 * after["quality_low"], abs=1e-6)
