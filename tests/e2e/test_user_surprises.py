"""What a first user stumbled over."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from deepmac_distill.cli.options import names_of
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.weights.card import read_card


def test_seen_classes_may_be_repeated_or_listed() -> None:
    assert names_of(["a,b", "c"]) == ["a", "b", "c"]


def test_a_run_that_is_not_there_is_named(deepmac, tmp_path: Path) -> None:
    for command in ("pseudolabel", "student", "evaluate", "teach"):
        ended = deepmac(command, "--out", tmp_path / "none")
        assert ended.code == 2 and "none: no run there and no data named" in ended.err
    assert not (tmp_path / "none").exists()


def test_predict_scores_its_masks_and_takes_a_name_with_a_suffix(chain, deepmac, tmp_path: Path) -> None:
    image = chain[0] / "scenes-val" / "images" / "000001.png"
    weights = chain[0] / "student" / "weights.safetensors"
    ended = deepmac(
        "predict", image, "--box", "4,4,30,30", "--model", weights, "--out", tmp_path / "seen.png"
    )
    assert ended.code == 0 and "score" in ended.out
    assert {path.name for path in tmp_path.iterdir()} == {"seen.png", "seen.json"}
    (annotation,) = json.loads((tmp_path / "seen.json").read_text())["annotations"]
    assert annotation["source"] == "student"
    assert 0 <= annotation["mask_score"] <= 1 and 0 <= annotation["mask_bbox_iou"] <= 1


def test_other_rules_say_that_the_student_is_out_of_date(chain, deepmac, tmp_path: Path) -> None:
    run = shutil.copytree(chain[0], tmp_path / "run")
    ended = deepmac("pseudolabel", "--out", run, "--set", "labels.min_mask_score=0.9")
    assert ended.code == 0 and f"next: deepmac student --out {run} --force" in ended.err
    (line,) = re.findall("labels changed: .* next: (.*)", ended.err)
    for typed in line.split(" && "):
        assert deepmac(*shlex.split(typed)[1:]).code == 0, typed


def test_a_folder_of_images_that_is_not_there_is_one_line(chain, deepmac, tmp_path: Path) -> None:
    scenes = chain[0] / "scenes-val" / "instances.json"
    ended = deepmac("check", scenes, "--images", tmp_path / "gone", "--seen", ",".join(SEEN_SHAPES))
    assert ended.code == 2 and ended.out.count("no such folder") == 1


def test_a_run_with_every_mask_seen_ends_well(deepmac, scenes_toml, tmp_path: Path) -> None:
    """No unseen class to compare: the tables have dashes and the sheet shows seen ones."""
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "run", "--seen", "all")
    assert ended.code == 0, ended.err
    assert (tmp_path / "run" / "report" / "contact_sheet.png").stat().st_size > 0


def test_labels_that_were_edited_are_not_learned_from(run_copy, deepmac) -> None:
    run = run_copy("student", "evaluate-student", "report")
    labels = run / "pseudolabel" / "masks.parquet"
    labels.write_bytes(labels.read_bytes() + b" ")
    ended = deepmac("student", "--out", run)
    assert ended.code == 2 and "masks.parquet: was changed since" in ended.err.splitlines()[-1]
    assert not (run / "student").exists()


def test_labels_of_classes_under_other_ids_are_matched_by_name(run_copy, deepmac, tmp_path: Path) -> None:
    """Another tool numbers the classes anew: the student is the same to the bit."""
    run = run_copy("student", "evaluate-student", "report")
    labels = run / "select" / "instances.json"
    raw = json.loads(labels.read_text())
    found = []
    for number in (0, 1):
        name = tmp_path / f"labels-{number}.json"
        name.write_text(json.dumps(raw))
        ended = deepmac("student", "--out", run, "--labels", name, "--force")
        assert ended.code == 0, ended.err
        card = read_card(run / "student" / "weights.safetensors")
        found.append(
            (load_file(run / "student" / "weights.safetensors"), card.class_names, card.category_ids)
        )
        for category in raw["categories"]:
            category["id"] = 100 - category["id"]
        for annotation in raw["annotations"]:
            annotation["category_id"] = 100 - annotation["category_id"]
    (weights, *classes), (others, *other_classes) = found
    assert classes == other_classes
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_teacher_whose_masks_belong_to_classes_is_reported_of(chain, deepmac, tmp_path: Path) -> None:
    toml = tmp_path / "mask_rcnn.toml"
    train = chain[0] / "scenes-train"
    for agnostic, told in (("false", True), ("true", False)):
        toml.write_text(
            f"""
            data.seen = {list(SEEN_SHAPES)}
            teacher.train = {{ steps = 1, batch_size = 2, image_size_px = 64 }}
            [teacher.model]
            architecture = "mask_rcnn"
            backbone = "tiny"
            backbone_width = 8
            fpn_channels = 8
            box_channels = 8
            mask_channels = 8
            anchor_sizes = [8, 16, 32, 64]
            class_agnostic = {agnostic}
            """
        )
        given = ["--annotations", train / "instances.json", "--images", train / "images"]
        ended = deepmac("teach", "--config", toml, "--out", tmp_path / agnostic, *given)
        assert ended.code == 0, ended.err
        assert ("unseen classes learn nothing" in ended.err) == told
