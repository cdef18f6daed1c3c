"""The whole chain through the command line: its files, what a second call does, and what may not leak."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO

from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.report.contact_sheet import PANEL_PX

SEEN = ",".join(SEEN_SHAPES)


STAGES = {
    "scenes-train": {"instances.json", "images"},
    "scenes-val": {"instances.json", "images"},
    "teacher": {"weights.safetensors", "metrics.jsonl"},
    "evaluate-teacher": {
        "summary.json",
        "ious.parquet",
        "masks.parquet",
        "detections.json",
        "evaluation.json",
    },
    "pseudolabel": {"masks.parquet"},
    "select": {"instances.json", "counts.json"},
    "student": {"weights.safetensors", "metrics.jsonl"},
    "evaluate-student": {
        "summary.json",
        "ious.parquet",
        "masks.parquet",
        "detections.json",
        "evaluation.json",
    },
    "report": {"summary.json", "contact_sheet.png"},
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_chain_ends_well_and_every_stage_has_its_files(chain) -> None:
    run, ended = chain
    assert ended.code == 0, ended.err
    for stage, files in STAGES.items():
        assert {path.name for path in (run / stage).iterdir()} == files | {"done.json"}
    assert {path.name for path in run.iterdir()} == {
        *STAGES,
        *("config.toml", "config.json", "environment.json", "validation_readings.jsonl"),
    }
    assert "unseen" in ended.out and f"report: {run / 'report'}" in ended.out
    assert "Traceback" not in ended.err


def test_every_reading_of_the_validation_set_is_in_the_run(chain) -> None:
    lines = (chain[0] / "validation_readings.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines] == ["evaluate-teacher", "evaluate-student", "report"]


def test_every_box_has_a_label_row(chain) -> None:
    run, _ = chain
    source = read(run / "scenes-train" / "instances.json")
    table = pq.read_table(run / "pseudolabel" / "masks.parquet")
    keys = sorted((a["image_id"], a["id"]) for a in source["annotations"])
    assert list(zip(table["image_id"].to_pylist(), table["annotation_id"].to_pylist(), strict=True)) == keys
    assert set(table["status"].to_pylist()) == {"labeled"}
    assert table["rle_counts"].null_count == 0


def test_the_students_file_is_coco_and_keeps_human_masks_verbatim(chain) -> None:
    run, _ = chain
    source = COCO(str(run / "scenes-train" / "instances.json"))
    labeled = COCO(str(run / "select" / "instances.json"))
    assert labeled.imgs == source.imgs and labeled.cats == source.cats
    assert labeled.anns.keys() == source.anns.keys()
    seen = {id for id, category in source.cats.items() if category["name"] in SEEN_SHAPES}
    for id, annotation in labeled.anns.items():
        before = source.anns[id]
        human = before["category_id"] in seen
        assert annotation["source"] == ("human" if human else "teacher")
        assert annotation["bbox"] == before["bbox"]
        assert (annotation["segmentation"] == before["segmentation"]) == human
        assert annotation["area"] == labeled.annToMask(annotation).sum()
        assert human == (annotation["mask_score"] is None)
    counts = read(run / "select" / "counts.json")
    assert counts["human"] + counts["teacher"] == counts["written"] == len(source.anns)


def test_the_report_shows_both_models_side_by_side(chain) -> None:
    run, _ = chain
    report = read(run / "report" / "summary.json")
    for role in ("teacher", "student"):
        assert report[role] == read(run / f"evaluate-{role}" / "summary.json")
    unseen = report["student_minus_teacher"]["given_boxes"]["unseen"]
    means = [report[role]["given_boxes"]["unseen"]["model"]["value"] for role in ("student", "teacher")]
    assert unseen["a_minus_b"]["value"] == pytest.approx(means[0] - means[1])
    with Image.open(run / "report" / "contact_sheet.png") as sheet:
        assert sheet.width > 4 * PANEL_PX and sheet.height > 6 * PANEL_PX  # 3 rows for each model


def test_a_second_call_skips_everything_and_changes_no_byte(chain, deepmac, scenes_toml) -> None:
    run, first = chain
    before = content(run)
    ended = deepmac("run", scenes_toml, "--out", run)
    assert ended.code == 0 and content(run) == before
    assert ended.out == first.out
    for stage in STAGES:
        assert f"{stage}: done before, skipped" in ended.err


def with_garbage_masks(source: Path, target: Path) -> None:
    """The same file, but for other polygons and areas wherever a class is not seen."""
    raw, rng = read(source), random.Random(0)
    unseen = {c["id"] for c in raw["categories"] if c["name"] not in SEEN_SHAPES}
    for annotation in raw["annotations"]:
        if annotation["category_id"] in unseen:
            annotation["segmentation"] = [[rng.uniform(0, 64) for _ in range(2 * rng.randint(3, 6))]]
            annotation["area"] = rng.uniform(1, 4096)
    target.write_text(json.dumps(raw))


def test_unseen_masks_cannot_leak(chain, deepmac, small_toml, tmp_path) -> None:
    scenes = chain[0] / "scenes-train"
    shutil.copy(scenes / "instances.json", tmp_path / "truth.json")
    with_garbage_masks(scenes / "instances.json", tmp_path / "garbage.json")
    assert (tmp_path / "truth.json").read_bytes() != (tmp_path / "garbage.json").read_bytes()
    for kind in ("truth", "garbage"):
        given = ["--config", small_toml, "--out", tmp_path / kind, "--seen", SEEN]
        given += ["--annotations", tmp_path / f"{kind}.json", "--images", scenes / "images"]
        assert deepmac("teach", *given).code == 0
        assert deepmac("pseudolabel", *given).code == 0
        assert deepmac("student", "--out", tmp_path / kind).code == 0
    for name in (
        "teacher/weights.safetensors",
        "teacher/metrics.jsonl",
        "pseudolabel/masks.parquet",
        "select/instances.json",
        "student/weights.safetensors",
    ):
        truth, garbage = ((tmp_path / kind / name).read_bytes() for kind in ("truth", "garbage"))
        assert truth == garbage, name


def test_labels_say_which_teacher_drew_them(chain) -> None:
    told = Labels.open(chain[0] / "pseudolabel" / "masks.parquet").provenance
    weights = chain[0] / "teacher" / "weights.safetensors"
    assert told["teacher"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert told["teacher_card"]["steps"] > 0 and sorted(told["seen"]) == sorted(SEEN_SHAPES)
    assert told["teacher_card"]["model"]["mask_head"] and told["deepmac-distill"]


def test_a_run_parses_each_annotation_file_once(chain_and_parses) -> None:
    (folder, _), parsed = chain_and_parses
    names = sorted(str(path.relative_to(folder)) for path in parsed)
    assert names == ["scenes-train/instances.json", "scenes-val/instances.json"]
