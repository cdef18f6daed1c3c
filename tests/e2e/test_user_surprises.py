"""What a first user stumbled over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from deepmac_distill.cli.jobs import names_of
from deepmac_distill.data.synthetic import SEEN_SHAPES


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
    assert 0 <= annotation["mask_score"] <= 1 and 0 <= annotation["box_fill_iou"] <= 1


def test_other_rules_say_that_the_student_is_out_of_date(chain, deepmac, tmp_path: Path) -> None:
    run = shutil.copytree(chain[0], tmp_path / "run")
    ended = deepmac("pseudolabel", "--out", run, "--set", "labels.min_mask_score=0.9")
    assert ended.code == 0 and "next: deepmac student --force" in ended.err


def test_a_folder_of_images_that_is_not_there_is_one_line(chain, deepmac, tmp_path: Path) -> None:
    scenes = chain[0] / "scenes-val" / "instances.json"
    ended = deepmac("check", scenes, "--images", tmp_path / "gone", "--seen", ",".join(SEEN_SHAPES))
    assert ended.code == 2 and ended.out.count("no such folder") == 1


def test_a_run_with_every_mask_seen_ends_well(deepmac, scenes_toml, tmp_path: Path) -> None:
    """No unseen class to compare: the tables have dashes and the sheet shows seen ones."""
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "run", "--seen", "all")
    assert ended.code == 0, ended.err
    assert (tmp_path / "run" / "report" / "contact_sheet.png").stat().st_size > 0
