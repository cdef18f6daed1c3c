"""SAM as a teacher on the command line, with small random weights of transformers' own models."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

import deepmac_distill
from deepmac_distill.labels.label_file import Labels
from random_sams import save_small


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small("sam", tmp_path_factory.mktemp("weights") / "sam")


@pytest.fixture(scope="module")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small("sam2", tmp_path_factory.mktemp("weights") / "sam2")


def pipeline(scenes_toml: Path, folder: Path, arguments: str) -> Path:
    """The small pipeline on generated scenes with a SAM as the teacher."""
    teacher = f'[teacher]\nsegmenter = "sam"\n[teacher.arguments]\n{arguments}\n[student.model]'
    replaced = r"\[teacher\.model\].*?\[student\.model\]"
    path = folder / "sam.toml"
    path.write_text(re.sub(replaced, lambda _: teacher, scenes_toml.read_text(), flags=re.DOTALL))
    return path


@pytest.fixture(scope="module")
def run(deepmac, sam: Path, scenes_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole chain, without --allow-code. To be looked at only."""
    folder = tmp_path_factory.mktemp("runs")
    toml = pipeline(scenes_toml, folder, f'model = "{sam}"\nmask_size = 8\nboxes_at_once = 3')
    ended = deepmac("run", toml, "--out", folder / "run")
    assert ended.code == 0, ended.err
    assert "Loading" not in ended.err and "[transformers]" not in ended.err
    return folder / "run"


def drawn_in(run: Path) -> list[dict[str, Any]]:
    rows = pq.read_table(run / "pseudolabel" / "masks.parquet").to_pylist()
    return [row for row in rows if row["source"] == "teacher"]


def test_it_labels_the_whole_chain(run: Path) -> None:
    drawn = drawn_in(run)
    assert drawn and all(row["soft_size"] == 8 and 0 <= row["model_iou"] <= 1 for row in drawn)
    assert all(0 < row["expected_iou"] <= 1 for row in drawn if row["mask_area"])
    assert all(row["teacher_saw_class"] is None for row in drawn)  # nobody knows whose masks it saw
    report = json.loads((run / "report" / "summary.json").read_text())
    assert report["teacher"]["given_boxes"]["unseen"]["classes"] == 0
    assert report["teacher"]["given_boxes"]["shown_elsewhere"]["classes"] > 0
    inputs = json.loads((run / "pseudolabel" / "done.json").read_text())["inputs"]
    assert re.fullmatch(r"sam sam sha256:[0-9a-f]{64}, 8 cells", inputs["teacher"])  # named by its content
    provenance = Labels.open(run / "pseudolabel" / "masks.parquet").provenance
    assert provenance["teacher"] == inputs["teacher"] and provenance["teacher_card"]["segmenter"] == "sam"


def test_what_boxes_cut_off_of_its_masks_is_reported(run: Path, deepmac) -> None:
    kept = Labels.open(run / "pseudolabel" / "masks.parquet").provenance["outside_box"]
    assert kept["masks"] == len(drawn_in(run)) and 0 < kept["mean_share"] < 1
    assert 0 < kept["above_a_tenth"] <= kept["masks"]
    before = (run / "pseudolabel" / "masks.parquet").read_bytes()
    again = deepmac("pseudolabel", "--out", run, "--force")
    assert f"of {kept['above_a_tenth']} of {kept['masks']} masks" in again.err, again.err
    assert (run / "pseudolabel" / "masks.parquet").read_bytes() == before


def test_windows_show_it_each_box_alone(
    run: Path, sam: Path, deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    toml = pipeline(scenes_toml, tmp_path, f'model = "{sam}"\nmask_size = 8')
    ended = deepmac("pseudolabel", "--config", toml, "--out", tmp_path / "run", "--look", "boxes=windows")
    assert ended.code == 0, ended.err
    windowed, whole = drawn_in(tmp_path / "run"), drawn_in(run)
    assert {row["look"] for row in windowed} == {"window 64 px x 1.5"}
    assert [row["annotation_id"] for row in windowed] == [row["annotation_id"] for row in whole]
    assert any(a["soft"] != b["soft"] for a, b in zip(windowed, whole, strict=True))


def test_commands_take_it_by_name(run: Path, sam2: Path, deepmac, tmp_path: Path) -> None:
    data = ("--annotations", run / "scenes-train/instances.json", "--images", run / "scenes-train/images")
    val = ("--val-annotations", run / "scenes-val/instances.json", "--val-images", run / "scenes-val/images")
    named, out = ("--model", f"sam:{sam2}"), ("--out", tmp_path / "run")
    labeled = deepmac("pseudolabel", *named, *out, *data)
    assert labeled.code == 0, labeled.err
    assert all(row["soft_size"] == 64 for row in drawn_in(tmp_path / "run"))
    evaluated = deepmac("evaluate", *named, *out, *val, "--look", "mirror=true")
    assert evaluated.code == 0, evaluated.err
    (folder,) = (tmp_path / "run").glob("evaluate-*-on-*-mirror")
    identity = json.loads((folder / "evaluation.json").read_text())["how"]["identity"]
    assert identity.startswith("sam sam2 sha256:")
    photo = run / "scenes-val/images/000001.png"
    predicted = deepmac("predict", photo, "--box", "4,6,30,20", *named, "--out", tmp_path / "masks")
    assert predicted.code == 0, predicted.err
    model = deepmac_distill.load(f"sam:{sam2}", device="cpu")
    masks = model.masks(photo, [[4, 6, 30, 20]], fmt="xywh")
    found = json.loads((tmp_path / "masks.json").read_text())["annotations"]
    assert masks.rle == [found[0]["segmentation"]] and masks.model_iou is not None
    assert found[0]["model_iou"] == pytest.approx(float(masks.model_iou[0]))


@pytest.mark.parametrize("command", ["predict", "evaluate", "pseudolabel"])
def test_a_sam_that_is_not_there_is_one_line(run: Path, deepmac, tmp_path: Path, command: str) -> None:
    where = (
        [run / "scenes-val/images/000001.png", "--box", "4,6,30,20"]
        if command == "predict"
        else ["--out", run]
    )
    ended = deepmac(command, *where, "--model", f"sam:{tmp_path}/nothing")
    assert (
        ended.code == 2
        and "got no folder, expected one with config.json and model.safetensors"
        in (ended.err.splitlines()[-1])
    )


def test_a_name_on_the_hub_that_is_not_in_the_cache_is_one_line(
    run: Path, deepmac, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    toml = tmp_path / "hub.toml"
    toml.write_text('[teacher]\nsegmenter = "sam"\n[teacher.arguments]\nmodel = "facebook/sam-vit-base"\n')
    named = ("--annotations", run / "scenes-train/instances.json", "--images", run / "scenes-train/images")
    ended = deepmac("pseudolabel", "--config", toml, "--out", tmp_path / "run", *named)
    last = ended.err.splitlines()[-1]
    assert ended.code == 2 and "facebook/sam-vit-base@main: config.json, model.safetensors: not in" in last
    assert str(tmp_path / "hub") in last and "HF_HUB_OFFLINE is set" in last


def test_a_sam_detects_nothing(run: Path, sam: Path, deepmac, tmp_path: Path) -> None:
    ended = deepmac("detect", run / "scenes-val/images", "--model", f"sam:{sam}", "--out", tmp_path / "found")
    assert ended.code == 2 and f"sam:{sam}: " in ended.err.splitlines()[-1]


def test_an_argument_is_named(deepmac, scenes_toml: Path, tmp_path: Path) -> None:
    toml = pipeline(scenes_toml, tmp_path, 'weights = "facebook/sam-vit-base"')
    ended = deepmac("run", toml, "--out", tmp_path / "run")
    last = ended.err.splitlines()[-1]
    assert ended.code == 2 and "teacher.arguments: sam: " in last and not (tmp_path / "run").exists()


def test_without_transformers_one_line_has_what_to_install(
    deepmac, sam: Path, monkeypatch, run: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # its import fails
    photo = run / "scenes-val/images/000001.png"
    ended = deepmac("predict", photo, "--box", "4,6,30,20", "--model", f"sam:{sam}")
    last = ended.err.splitlines()[-1]
    assert (
        ended.code == 2
        and "sam needs transformers; install it with `pip install deepmac-distill[sam]`" in last
    )
