"""Each stage of the chain alone: on a folder, on parts of another run, on what does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pycocotools.coco import COCO
from safetensors.torch import load_file

from deepmac_distill.data.synthetic import SEEN_SHAPES

SEEN = ",".join(SEEN_SHAPES)
TINY = ["backbone='tiny'", "backbone_width=8", "head_channels=8", "mask_width=8", "mask_size=8"]


FEW = ["steps=3", "batch_size=4", "image_size_px=64"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def smallness(*roles: str) -> list[str]:
    """Flags that make a model small and its training short, where there is no pipeline file."""
    keys = [f"{role}.model.{text}" for role in roles for text in TINY]
    keys += [f"{role}.train.{text}" for role in roles for text in FEW]
    keys += ["threads=1", "teacher.model.mask_head=hourglass-10", "evaluation.bootstrap=10"]
    return [part for key in keys for part in ("--set", key)]


def test_each_stage_stands_alone_on_a_coco_folder_without_a_pipeline_file(chain, deepmac, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(chain[0] / "scenes-train", data)
    shutil.copy(chain[0] / "scenes-val" / "instances.json", data / "val.json")
    shutil.copytree(chain[0] / "scenes-val" / "images", data / "val")
    run, small = tmp_path / "run", smallness("teacher", "student")
    given = ["--data", data, "--annotations", "instances.json", "--images", "images", "--seen", SEEN]
    ended = deepmac("teach", "--out", run, *given, *small)
    assert ended.code == 0 and ended.out == f"{run / 'teacher' / 'weights.safetensors'}\n"
    ended = deepmac("pseudolabel", "--out", run)  # the run knows its data and its model
    assert ended.code == 0 and ended.out == f"{run / 'select' / 'instances.json'}\n"
    ended = deepmac("student", "--out", run)
    assert ended.code == 0 and ended.out == f"{run / 'student' / 'weights.safetensors'}\n"
    evaluation = ["--val-annotations", "val.json", "--val-images", "val"]
    ended = deepmac("evaluate", "student", "--out", run, *evaluation)
    assert ended.code == 0 and f"figures: {run / 'evaluate-student'}" in ended.out
    assert deepmac("evaluate", "teacher", "--out", run).code == 0  # and by now its validation set

    other = tmp_path / "other"  # parts of one run serve another
    teacher, labels = run / "teacher" / "weights.safetensors", run / "select" / "instances.json"
    assert deepmac("pseudolabel", "--model", teacher, "--out", other, *given, *small).code == 0
    made = (other / "select" / "instances.json").read_text()
    named = made.replace('"weights"', '"recipe"')  # a file's teacher is called by the file
    assert named == labels.read_text() and named != made
    given = ["--data", data, "--images", "images", "--seen", SEEN]
    trained = []
    for number, masks in enumerate((labels, run / "pseudolabel" / "masks.parquet")):
        out = tmp_path / f"taught-{number}"
        if masks.suffix == ".parquet":
            given += ["--set", "data.train_annotations=instances.json"]
        assert deepmac("student", "--labels", masks, "--out", out, *given, *small).code == 0
        trained.append(load_file(out / "student" / "weights.safetensors"))
    own = load_file(run / "student" / "weights.safetensors")
    for weights in trained:  # only the card says from what file they learned
        assert all(torch.equal(weights[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize("kind", ["class", "image"])
def test_a_student_is_not_taught_from_labels_of_other_data(chain, deepmac, tmp_path, kind: str) -> None:
    run = chain[0]
    document = read(run / "select" / "instances.json")
    if kind == "class":
        document["categories"].append({"id": 99, "name": "zebra"})
    else:
        document["images"].append({**document["images"][0], "id": 9999, "file_name": "other.png"})
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(document))
    given = ["--data", run / "scenes-train", "--images", "images", "--seen", SEEN, *smallness("student")]
    given += ["--set", "data.train_annotations=instances.json"]
    ended = deepmac("student", "--labels", labels, "--out", tmp_path / "x", *given)
    assert ended.code == 2 and len(ended.err.strip().splitlines()[-1:]) == 1
    assert (
        f"1 {kind} names differ" in ended.err and {"class": "zebra", "image": "other.png"}[kind] in ended.err
    )


def test_pycocotools_gives_the_same_average_precision(chain, deepmac, tmp_path) -> None:
    run, _ = chain
    weights = run / "student" / "weights.safetensors"
    given = ["--config", run / "config.toml", "--out", tmp_path / "run", "--reference"]
    assert deepmac("evaluate", "--model", weights, *given).code == 0
    (folder,) = (tmp_path / "run").glob("evaluate-*")
    reference = read(folder / "summary.json")
    assert reference == read(run / "evaluate-student" / "summary.json")


def test_two_evaluations_are_compared_in_a_table_or_as_json(chain, deepmac) -> None:
    folders = [chain[0] / "evaluate-student", chain[0] / "evaluate-teacher"]
    table = deepmac("compare", *folders)
    assert table.code == 0 and "unseen" in table.out
    ended = deepmac("compare", *folders, "--json", "--resamples", "20")
    found = json.loads(ended.out)
    reported = read(chain[0] / "report" / "summary.json")["student_minus_teacher"]
    assert found == reported | {"seeds": []}, "two folders do not say by which seeds they were trained"
    same = json.loads(deepmac("compare", folders[0], folders[0], "--json").out)
    nothing = {"value": 0, "low": 0, "high": 0, "seeds_half": None, "seeds_df": 0}
    assert same["given_boxes"]["unseen"]["a_minus_b"] == nothing


def test_predict_gives_the_mask_that_labeling_gives(chain, deepmac, tmp_path) -> None:
    run, _ = chain
    rows = pq.read_table(run / "pseudolabel" / "masks.parquet").to_pylist()
    row = next(row for row in rows if row["source"] == "teacher")
    image = run / "scenes-train" / "images" / f"{row['image_id']:06d}.png"
    box = ",".join(map(str, row["bbox"]))
    assert deepmac("predict", image, "--box", box, "--model", run, "--out", tmp_path / "one").code == 0
    coco = COCO(str(tmp_path / "one.json"))
    labeled = COCO(str(run / "select" / "instances.json"))
    ours, theirs = coco.annToMask(coco.anns[1]), labeled.annToMask(labeled.anns[row["annotation_id"]])
    assert np.mean(ours != theirs) < 0.001  # alone or in a batch, rounding may differ in its last bit


def test_without_a_validation_set_the_chain_ends_well_and_says_so(
    chain, deepmac, small_toml, tmp_path
) -> None:
    scenes = chain[0] / "scenes-train"
    given = ["--annotations", scenes / "instances.json", "--images", scenes / "images", "--seen", SEEN]
    ended = deepmac("run", small_toml, "--out", tmp_path / "run", *given)
    assert ended.code == 0 and ended.out.startswith("made:\n") and "figures" not in ended.out
    assert "nothing was evaluated" in ended.err and "stage 4 of 4: student" in ended.err
    assert {p.name for p in (tmp_path / "run").iterdir() if p.is_dir()} == {
        *("teacher", "pseudolabel", "select", "student")
    }


def test_a_gate_that_fails_stops_the_chain_before_labeling_with_code_three(
    run_copy, deepmac, scenes_toml
) -> None:
    run = run_copy("pseudolabel", "select", "student", "evaluate-student", "report")
    ended = deepmac("run", scenes_toml, "--out", run, "--set", "evaluation.min_lead_over_ellipse=0.9")
    assert ended.code == 3
    last = ended.err.splitlines()[-1]
    assert last.startswith("deepmac: ") and "points over the ellipse on unseen classes" in last
    assert not (run / "pseudolabel").exists()
