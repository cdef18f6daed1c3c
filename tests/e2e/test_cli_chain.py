"""The whole chain through the command line: files, exit codes, resume, and what may not leak."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from safetensors.torch import load_file

from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.report.contact_sheet import PANEL_PX
from deepmac_distill.stages import pseudolabel as pseudolabeling
from deepmac_distill.training import loop

SEEN = ",".join(SEEN_SHAPES)
TINY = ["backbone='tiny'", "backbone_width=8", "head_channels=8", "mask_width=8", "mask_size=8"]
FEW = ["steps=3", "batch_size=4", "image_size_px=64"]
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


def smallness(*roles: str) -> list[str]:
    """Flags that make a model small and its training short, where there is no pipeline file."""
    keys = [f"{role}.model.{text}" for role in roles for text in TINY]
    keys += [f"{role}.train.{text}" for role in roles for text in FEW]
    keys += ["threads=1", "teacher.model.mask_head=hourglass-10", "evaluation.bootstrap=10"]
    return [part for key in keys for part in ("--set", key)]


def test_the_chain_ends_well_and_every_stage_has_its_files(chain) -> None:
    run, ended = chain
    assert ended.code == 0, ended.err
    for stage, files in STAGES.items():
        assert {path.name for path in (run / stage).iterdir()} == files | {"done.json"}
    assert {path.name for path in run.iterdir()} == {
        *STAGES,
        *(".lock", "config.toml", "config.json", "environment.json", "validation_readings.jsonl"),
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


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--seed", "1"], "seed = 0, now 1"),
        (["--set", "teacher.train.lr=0.5"], "teacher was made with teacher.train.lr = 0.001, now 0.5"),
        (["--set", "student.train.lr=0.5"], "student was made with student.train.lr = 0.001, now 0.5"),
        (["--seen", "bar"], "made with other teacher annotations: data.seen (now without "),
        (["--set", "labels.soft=false"], "pseudolabel was made with labels.soft = True, now False"),
        (["--set", "data.scenes.train_images=25"], "data.scenes.train_images = 24, now 25"),
        (["--set", "evaluation.bootstrap=21"], "evaluation.bootstrap = 20, now 21"),
    ],
)
def test_other_inputs_are_refused_by_name_and_change_no_byte(
    chain, deepmac, scenes_toml, flags: list[str], named: str
) -> None:
    run, _ = chain
    before = content(run)
    ended = deepmac("run", scenes_toml, "--out", run, *flags)
    assert ended.code == 2
    last = ended.err.splitlines()[-1]
    assert last.startswith("deepmac: ") and named in last and "--force" in last
    assert content(run) == before


def test_changed_annotations_are_refused_with_what_changed(run_copy, deepmac, tmp_path: Path) -> None:
    run = run_copy()
    scenes, fewer = run / "scenes-train", tmp_path / "fewer.json"
    raw = read(scenes / "instances.json")
    fewer.write_text(json.dumps(raw | {"annotations": raw["annotations"][1:]}))
    ended = deepmac("teach", "--out", run, "--annotations", fewer, "--images", scenes / "images")
    count, last = len(raw["annotations"]), ended.err.splitlines()[-1]
    assert ended.code == 2 and "teacher was made with other teacher annotations: file (" in last
    assert f"now {fewer})" in last and f"annotations ({count}, now {count - 1})" in last


def test_force_redoes_a_stage_and_the_next_one_then_knows_its_input_changed(run_copy, deepmac) -> None:
    run = run_copy("evaluate-*", "report", "student")
    before = content(run)
    assert deepmac("teach", "--out", run, "--force").code == 0
    weights = "teacher/weights.safetensors"
    assert content(run)[weights] == before[weights]  # the same work, the same bytes
    assert deepmac("teach", "--out", run, "--force", "--set", "teacher.train.lr=0.01").code == 0
    assert content(run)[weights] != before[weights]
    ended = deepmac("pseudolabel", "--out", run)
    assert ended.code == 2 and "pseudolabel was made with teacher = " in ended.err
    assert deepmac("pseudolabel", "--out", run, "--force").code == 0


def test_a_changed_rule_selects_again_without_labeling_again(run_copy, deepmac) -> None:
    run = run_copy("student")
    before = content(run)
    rule = ["--set", "labels.min_mask_score=0.999", "--set", "labels.on_rejected='drop'"]
    ended = deepmac("pseudolabel", "--out", run, *rule)
    assert ended.code == 0 and "pseudolabel: done before, skipped" in ended.err
    after = content(run)
    assert after["pseudolabel/masks.parquet"] == before["pseudolabel/masks.parquet"]
    counts = read(run / "select" / "counts.json")
    assert counts["rejected"] > 0 and counts["written"] == counts["human"] + counts["teacher"]
    for cut in (0.6, "expected-iou"):  # soft grids are cut again
        ended = deepmac("pseudolabel", "--out", run, "--set", f"labels.cut={cut}")
        assert ended.code == 0 and "pseudolabel: done before, skipped" in ended.err
        assert read(run / "select" / "done.json")["inputs"]["labels.cut"] == cut
    ended = deepmac("pseudolabel", "--out", run, "--config", run / "config.toml")
    assert ended.code == 0
    assert content(run)["select/instances.json"] == before["select/instances.json"]


@pytest.mark.parametrize(
    "output", ["teacher/weights.safetensors", "pseudolabel/masks.parquet", "select/instances.json"]
)
def test_an_edited_output_is_refused_by_name(run_copy, deepmac, scenes_toml, output: str) -> None:
    run = run_copy()
    with (run / output).open("ab") as file:
        file.write(b" ")
    ended = deepmac("run", scenes_toml, "--out", run)
    assert ended.code == 2
    assert f"deepmac: {run / output}: was changed since" in ended.err


def test_labeling_that_was_stopped_goes_on_to_the_same_bytes(chain, run_copy, deepmac, monkeypatch) -> None:
    run = run_copy("pseudolabel", "select", "student")
    write_unit, written = pseudolabeling.write_unit, []

    def once(folder: Path, unit: int, rows: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(unit)
        write_unit(folder, unit, rows)

    monkeypatch.setattr(pseudolabeling, "write_unit", once)
    assert deepmac("pseudolabel", "--out", run).code == 130
    assert not (run / "pseudolabel").exists() and written == [0]
    rest = []
    monkeypatch.setattr(
        pseudolabeling, "write_unit", lambda *given: (rest.append(given[1]), write_unit(*given))
    )
    ended = deepmac("pseudolabel", "--out", run)
    assert ended.code == 0 and rest == [1, 2, 3, 4, 5]  # 24 images in units of 4, the first one kept
    for name in ("pseudolabel/masks.parquet", "select/instances.json"):
        assert (run / name).read_bytes() == (chain[0] / name).read_bytes()


def test_training_that_was_stopped_goes_on_to_the_same_bytes(
    chain, run_copy, deepmac, scenes_toml, monkeypatch
) -> None:
    run = run_copy("teacher", "evaluate-*", "pseudolabel", "select", "student", "report")
    accumulate = loop._accumulate_gradients

    def stopping(model: Any, batches: Any, settings: Any, device: Any, step: int) -> Any:
        if step == 6:  # between the checkpoints after 4 and 8 steps
            raise KeyboardInterrupt
        return accumulate(model, batches, settings, device, step)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_accumulate_gradients", stopping)
        assert deepmac("teach", "--config", scenes_toml, "--out", run).code == 130
    assert (run / "teacher.part" / "state.pt").exists() and not (run / "teacher").exists()
    ended = deepmac("teach", "--config", scenes_toml, "--out", run)
    assert ended.code == 0 and "teacher: goes on where it was stopped" in ended.err
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (run / "teacher" / name).read_bytes() == (chain[0] / "teacher" / name).read_bytes()


def kill_once_there(process: subprocess.Popen[str], path: Path, timeout_s: float = 600) -> None:
    """SIGKILL, which no process can answer, as soon as `path` is there."""
    deadline = time.monotonic() + timeout_s
    try:
        while process.poll() is None and not path.exists():
            assert time.monotonic() < deadline, f"{path} was not written in {timeout_s} s"
            time.sleep(0.005)
    finally:
        process.kill()
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"ended before it was killed: {err}"


def test_a_teacher_that_was_killed_goes_on_to_the_same_bytes(
    deepmac, scenes_toml, tmp_path: Path, monkeypatch
) -> None:
    accumulate, taken = loop._accumulate_gradients, []
    monkeypatch.setattr(
        loop, "_accumulate_gradients", lambda *given: (taken.append(given[-1]), accumulate(*given))[1]
    )
    steps = ["--set", "teacher.train.steps=80"]  # the last one is over a hundred polls after the fourth
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "deepmac_distill", "teach", "--config", scenes_toml, "--out", killed]
    process = subprocess.Popen([*command, *steps], stderr=subprocess.PIPE, text=True)
    kill_once_there(process, killed / "teacher.part" / "state.pt")
    assert not (killed / "teacher").exists()
    ended = deepmac("teach", "--config", scenes_toml, "--out", killed, *steps)
    assert ended.code == 0 and "teacher: goes on where it was stopped" in ended.err, ended.err
    assert taken == list(range(taken[0], 80)) and taken[0] >= 4  # what the checkpoint holds is not redone
    assert deepmac("teach", "--config", scenes_toml, "--out", whole, *steps).code == 0
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (killed / "teacher" / name).read_bytes() == (whole / "teacher" / name).read_bytes()
    assert {path.name for path in (killed / "teacher").iterdir()} == STAGES["teacher"] | {"done.json"}


def test_a_stage_that_goes_on_alone_has_the_threads_of_the_pipeline(run_copy, deepmac) -> None:
    run, threads = run_copy("pseudolabel", "select", "student"), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert deepmac("pseudolabel", "--out", run).code == 0
        assert torch.get_num_threads() == 1  # or its bits could differ from those of the whole chain
    finally:
        torch.set_num_threads(threads)


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
    assert (other / "select" / "instances.json").read_bytes() == labels.read_bytes()
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


def test_check_finds_nothing_wrong_with_the_scenes(chain, deepmac) -> None:
    scenes = chain[0] / "scenes-train"
    ended = deepmac(
        *("check", scenes / "instances.json", "--images", scenes / "images", "--seen", SEEN),
        *("--against", chain[0] / "scenes-val" / "instances.json"),
    )
    assert ended.code == 0 and "0 errors" in ended.out
    assert "images are in" in ended.out  # both sets call their first image 000001.png


def test_check_names_every_problem_and_ends_with_two(chain, deepmac, tmp_path) -> None:
    raw = read(chain[0] / "scenes-train" / "instances.json")
    raw["annotations"][0]["bbox"][0] = None
    raw["annotations"][1]["category_id"] = 99
    raw["annotations"][2]["bbox"][2] = 0
    (tmp_path / "a.json").write_text(json.dumps(raw))
    ended = deepmac("check", tmp_path / "a.json", "--seen", "all")
    assert ended.code == 2
    ids = [annotation["id"] for annotation in raw["annotations"]]
    for level, id in zip(("error", "error", "warning"), ids, strict=False):
        assert f"{level}: {tmp_path / 'a.json'}: annotation {id}: " in ended.out
    assert ended.out.endswith("a.json: 2 errors, 1 warnings\n")


def test_check_is_strict_on_request_and_opens_the_images(chain, deepmac, tmp_path) -> None:
    raw = read(chain[0] / "scenes-train" / "instances.json")
    raw["annotations"][0]["bbox"][2] = 0
    (tmp_path / "a.json").write_text(json.dumps(raw))
    assert deepmac("check", tmp_path / "a.json", "--seen", "all").code == 0
    assert deepmac("check", tmp_path / "a.json", "--seen", "all", "--strict").code == 2
    shutil.copytree(chain[0] / "scenes-train" / "images", tmp_path / "images")
    (tmp_path / "images" / "000002.png").write_bytes(b"no picture")
    ended = deepmac("check", tmp_path / "a.json", "--seen", "all", "--images", tmp_path / "images")
    assert ended.code == 2 and "image 2: " in ended.out and "cannot be decoded" in ended.out


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


@pytest.mark.parametrize(
    "command", [["-m", "deepmac_distill"], [str(Path(sys.executable).with_name("deepmac"))]]
)
def test_the_installed_command_is_the_module(command: list[str]) -> None:
    if command[0] == "-m":
        command = [sys.executable, *command]
    ended = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stdout.strip().count(".") == 2


def test_a_process_of_its_own_ends_with_the_code_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deepmac_distill", "run", "nowhere.toml"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr == "deepmac: nowhere.toml: no such pipeline file; expected a TOML file\n"
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_stage(deepmac: Callable[..., Any]) -> None:
    ended = deepmac("--help")
    assert ended.code == 0
    for command in ("run", "teach", "pseudolabel", "student", "evaluate", "compare", "check", "predict"):
        assert command in ended.out
        assert deepmac(command, "--help").code == 0


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
