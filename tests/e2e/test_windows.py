"""A teacher that sees each box in a window of its own, through the whole chain."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import deepmac_distill
from deepmac_distill.errors import ConfigError
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.weights.card import read_card

WINDOWS = """
[teacher.look]
boxes = "windows"
window_size_px = 32
"""
CONTEXT = ["--set", "teacher.look.window_context=2"]
WEIGHTS = Path("teacher", "weights.safetensors")
ROLES = ("teacher", "student")
THEIRS = """
import torch
from deepmac_distill.contract import ModelSpec, SegmentedMasks
from deepmac_distill.geometry.crop import crop_features

class Bright:
    spec = ModelSpec(mask_size=8, input_size_px=None, size_divisibility=4, seen_mask_classes=(), identity="b")

    def segment(self, images, instances):
        gray = images.float().mean(1, keepdim=True) / 255
        return SegmentedMasks.of(crop_features(gray, instances.boxes, instances.image_index, 8)[:, 0])
"""


@pytest.fixture(scope="module")
def in_windows(scenes_toml: Path, deepmac, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose teacher trains on windows and is looked at through them, and its pipeline file."""
    folder = tmp_path_factory.mktemp("windows")
    text = scenes_toml.read_text().replace("[teacher.model]", "[teacher.model]\ndetection = false")
    text = text.replace("[teacher.train]", '[teacher.train]\nviews = "windows"') + WINDOWS
    (folder / "windows.toml").write_text(text)
    ended = deepmac("run", folder / "windows.toml", "--out", folder / "run")
    assert ended.code == 0, ended.err
    assert "teacher: deepmac, tiny with hourglass-10, 12 steps of 4 windows at 32 px" in ended.err
    return folder / "run", folder / "windows.toml"


def test_the_card_says_how_the_teacher_looks(in_windows: tuple[Path, Path]) -> None:
    card = read_card(in_windows[0] / "teacher" / "weights.safetensors")
    assert (card.look.boxes, card.look.window_size_px, card.image_size_px) == ("windows", 32, 64)
    assert card.views == "windows"
    assert read_card(in_windows[0] / "student" / "weights.safetensors").look.boxes == "image"


def test_every_box_has_its_mask(in_windows: tuple[Path, Path], chain) -> None:
    ours, whole = (pq.read_table(run / "pseudolabel" / "masks.parquet") for run in (in_windows[0], chain[0]))
    assert ours["annotation_id"] == whole["annotation_id"] and ours["status"] == whole["status"]
    assert ours["soft"] != whole["soft"]
    evaluated = [
        pq.read_table(run / "evaluate-teacher" / "masks.parquet") for run in (in_windows[0], chain[0])
    ]
    assert evaluated[0]["row"] == evaluated[1]["row"]


def test_from_python_a_model_looks_as_it_was_trained_to_unless_it_is_asked_otherwise(
    in_windows: tuple[Path, Path],
) -> None:
    """One image's masks are those that its boxes have in the evaluation."""
    run = in_windows[0]
    model = deepmac_distill.load(run)
    assert model.look.boxes == "windows"
    document = json.loads((run / "scenes-val" / "instances.json").read_text())
    image = document["images"][0]
    given = [one for one in document["annotations"] if one["image_id"] == image["id"]]
    path = run / "scenes-val" / "images" / image["file_name"]
    boxes = [one["bbox"] for one in given]
    masks = model.masks(path, boxes, fmt="xywh")
    table = pq.read_table(run / "evaluate-teacher" / "masks.parquet").to_pylist()
    expected = {row["annotation_id"]: row["rle_counts"] for row in table}
    assert list(masks.counts) == [expected[one["id"]] for one in given]
    whole = model.masks(path, boxes, fmt="xywh", look=deepmac_distill.Look())
    assert not np.array_equal(whole.grids, masks.grids)
    for misfit in (
        lambda look: deepmac_distill.load(run, look=look),
        lambda look: model.masks(path, boxes, fmt="xywh", look=look),
    ):
        with pytest.raises(ConfigError, match=r"window_size_px: got 60, expected a multiple of"):
            misfit(deepmac_distill.Look(boxes="windows", window_size_px=60))
    otherwise = deepmac_distill.load(run, look=deepmac_distill.Look()).masks(path, boxes, fmt="xywh")
    assert np.array_equal(otherwise.grids, whole.grids)


def test_an_evaluation_again_finds_all_done(in_windows: tuple[Path, Path], deepmac) -> None:
    run, pipeline = in_windows
    before = (run / "evaluate-teacher" / "summary.json").stat().st_mtime_ns
    ended = deepmac("evaluate", "teacher", "--config", pipeline, "--out", run)
    assert ended.code == 0, ended.err
    assert (run / "evaluate-teacher" / "summary.json").stat().st_mtime_ns == before


def test_another_window_is_another_training(in_windows: tuple[Path, Path], deepmac) -> None:
    run, pipeline = in_windows
    inputs = json.loads((run / "teacher" / "done.json").read_text())["inputs"]
    assert inputs["teacher.look.window_size_px"] == 32 and inputs["teacher.train.views"] == "windows"
    ended = deepmac("teach", "--config", pipeline, "--out", run, *CONTEXT)
    assert ended.code == 2 and "teacher.look.window_context" in ended.err


def test_jitter_of_boxes_is_another_training_and_named_only_where_it_is_set(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path
) -> None:
    run, pipeline = in_windows
    before = json.loads((run / "teacher" / "done.json").read_text())["inputs"]
    assert not any("box_jitter" in key for key in before)
    jitter = ["--set", "teacher.train.box_jitter=0.1"]
    ended = deepmac("teach", "--config", pipeline, "--out", run, *jitter)
    assert ended.code == 2 and "teacher.train.box_jitter" in ended.err
    assert deepmac("teach", "--config", pipeline, "--out", tmp_path / "run", *jitter).code == 0
    after = json.loads((tmp_path / "run" / "teacher" / "done.json").read_text())["inputs"]
    assert after["teacher.train.box_jitter"] == 0.1
    losses = [
        [json.loads(line)["mask"] for line in (at / "teacher" / "metrics.jsonl").read_text().splitlines()]
        for at in (run, tmp_path / "run")
    ]
    assert len(losses[0]) == len(losses[1]) and losses[0] != losses[1]


def test_a_training_on_both_trains_detection_and_looks_through_windows(
    scenes_toml: Path, deepmac, tmp_path: Path
) -> None:
    keys = ["teacher.train.views=both", "teacher.look.boxes=by-size", "teacher.look.window_size_px=32"]
    given = [word for key in keys for word in ("--set", key)]
    ended = deepmac("teach", "--config", scenes_toml, "--out", tmp_path, *given)
    assert ended.code == 0, ended.err
    assert "4 images at 64 px and windows at 32 px in turn" in ended.err
    assert read_card(tmp_path / "teacher" / "weights.safetensors").look.boxes == "by-size"


def look_of(run: Path) -> set[str | None]:
    table = pq.read_table(run / "pseudolabel" / "masks.parquet")
    drawn = table.filter(pc.equal(table["source"], "teacher"))
    assert table["look"].null_count == len(table) - len(drawn)
    return set(drawn["look"].to_pylist())


def test_each_row_and_the_provenance_say_how_the_teacher_looked(in_windows: tuple[Path, Path], chain) -> None:
    assert look_of(in_windows[0]) == {"window 32 px x 1.5"} and look_of(chain[0]) == {"image 64 px"}
    provenance = Labels.open(in_windows[0] / "pseudolabel" / "masks.parquet").provenance
    assert provenance["look"] == dataclasses.asdict(read_card(in_windows[0] / WEIGHTS).look)


def test_an_evaluation_that_looks_otherwise_stands_beside_the_models(
    in_windows: tuple[Path, Path], deepmac
) -> None:
    run, pipeline = in_windows
    given = ["evaluate", "teacher", "--config", pipeline, "--out", run, "--look"]
    ended = deepmac(*given, "boxes=by-size,image_from=0.3,mirror=true")
    assert ended.code == 0, ended.err
    assert (
        "was trained on windows alone, and looks at whole images too with look.boxes = by-size" in ended.err
    )
    found = run / "evaluate-teacher-by-size-from-0.3-mirror"
    inputs = json.loads((found / "done.json").read_text())["inputs"]
    assert (inputs["look.boxes"], inputs["look.mirror"], inputs["look.window_size_px"]) == (
        "by-size",
        True,
        32,
    )
    masks, own = (pq.read_table(at / "masks.parquet") for at in (found, run / "evaluate-teacher"))
    assert sorted(masks["row"].to_pylist()) == sorted(own["row"].to_pylist()) and masks != own
    as_it_is = deepmac(*given, "boxes=windows,mirror=false")  # as the model does, asked for in words
    assert as_it_is.code == 0 and "evaluate-teacher: done before, skipped" in as_it_is.err
    assert not list(run.glob("evaluate-teacher-windows*"))


def test_labels_of_a_named_model_are_not_made_anew_for_another_look(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path
) -> None:
    """The run does not keep how it looked, so a look that was forgotten must not replace them."""
    run, pipeline = in_windows
    given = ["--config", pipeline, "--out", tmp_path / "run", "--model", run / WEIGHTS]
    ended = deepmac("pseudolabel", *given, "--look", "boxes=average,window_context=2")
    assert ended.code == 0, ended.err
    assert look_of(tmp_path / "run") == {"image 64 px + window 32 px x 2"}
    refused = deepmac("pseudolabel", *given, "--look", "boxes=average")
    assert refused.code == 2
    assert "made with look.window_context = 2.0, now 1.5; expected the same" in refused.err.splitlines()[-1]


@pytest.mark.parametrize("command", ["evaluate", "pseudolabel"])
def test_the_look_of_the_run_is_not_set_beside_a_model_that_is_named(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path, command: str
) -> None:
    """It would not act: a weights file looks as its card has it."""
    given = ["--config", in_windows[1], "--out", tmp_path / "run", "--model", in_windows[0] / WEIGHTS]
    ended = deepmac(command, *given, "--set", "teacher.look.mirror=true")
    assert ended.code == 2 and not (tmp_path / "run").exists()
    assert "is how the run's own teacher looks; expected --look mirror=true for" in ended.err.splitlines()[-1]


def test_a_look_that_is_set_after_training_acts_and_is_no_reason_to_train_again(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(in_windows[0], run)
    weights = (run / WEIGHTS).read_bytes()
    mirrored = ["--config", in_windows[1], "--out", run, "--set", "teacher.look.mirror=true"]
    for command, stage in ((["evaluate", "teacher"], "evaluate-teacher"), (["pseudolabel"], "pseudolabel")):
        ended = deepmac(*command, *mirrored)
        assert ended.code == 0, ended.err
        why = f"{stage}: made anew, since a key changed: look.mirror (False, now True)"
        assert why in ended.err
        assert ("labels changed: the student learned from others" in ended.err) == (stage == "pseudolabel")
        again = deepmac(*command, "--out", run)  # the run keeps it
        assert again.code == 0 and f"{stage}: done before, skipped" in again.err
    assert look_of(run) == {"window 32 px x 1.5, mirrored too"}
    assert json.loads((run / "evaluate-teacher" / "evaluation.json").read_text())["how"]["look"]["mirror"]
    assert deepmac_distill.load(run).look.mirror
    ended = deepmac("teach", *mirrored)
    assert ended.code == 0 and "teacher: done before, skipped" in ended.err
    assert (run / WEIGHTS).read_bytes() == weights
    student = deepmac("student", *mirrored)
    assert student.code == 2 and "--force redoes it" in student.err.splitlines()[-1]


def test_labels_that_were_stopped_are_begun_anew_with_another_look(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(in_windows[0], run)
    (run / "pseudolabel").rename(run / "pseudolabel.part")
    record = json.loads((run / "pseudolabel.part" / "done.json").read_text())
    (run / "pseudolabel.part" / "inputs.json").write_text(json.dumps(record))
    ended = deepmac("pseudolabel", "--out", run, "--set", "teacher.look.image_from=0.4")
    assert ended.code == 0 and "look.image_from (0.5, now 0.4)" in ended.err
    assert "goes on where it was stopped" not in ended.err


def test_a_run_keeps_the_look_that_it_was_asked_for(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path
) -> None:
    """A window of another context too, which its training does not take over."""
    run = tmp_path / "run"
    shutil.copytree(in_windows[0], run, ignore=shutil.ignore_patterns("pseudolabel", "select", "*student"))
    assert deepmac("pseudolabel", "--out", run, "--look", "window_context=2").code == 0
    assert look_of(run) == {"window 32 px x 2"}
    kept = json.loads((run / "config.json").read_text())["teacher"]
    assert (kept["look"]["window_context"], kept["train"]["window_context"]) == (2.0, 1.5)
    (command,) = [line for line in deepmac("status", run).out.splitlines() if "deepmac run" in line]
    ended = deepmac(*command.split()[1:])
    assert ended.code == 0 and "teacher: done before, skipped" in ended.err, ended.err
    assert "pseudolabel: done before, skipped" in ended.err and look_of(run) == {"window 32 px x 2"}
    why = "evaluate-teacher: made anew, since a key changed: look.window_context (1.5, now 2.0)"
    assert why in ended.err


def test_a_run_whose_teacher_knows_windows_alone_is_not_asked_for_images(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path
) -> None:
    ended = deepmac("run", in_windows[1], "--out", tmp_path / "run", "--look", "boxes=image")
    assert ended.code == 2 and not (tmp_path / "run").exists()
    assert "--look: teacher.look.boxes: got 'image', expected windows, by-size" in ended.err.splitlines()[-1]


def test_records_of_earlier_versions_are_read_as_they_were_meant(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path
) -> None:
    """They named what was set of a look, all of it in a training, and no cut of 0.5 in an evaluation."""
    run = tmp_path / "run"
    shutil.copytree(in_windows[0], run)
    for stage in ("teacher", "evaluate-teacher", "pseudolabel"):
        record = json.loads((run / stage / "done.json").read_text())
        inputs = {key: value for key, value in record["inputs"].items() if "look." not in key}
        if stage == "teacher":
            inputs |= {"teacher.look.boxes": "by-size", "teacher.look.window_size_px": 32}
        (run / stage / "done.json").write_text(json.dumps({**record, "inputs": inputs}))
    commands = {"teacher": "teach", "evaluate-teacher": "evaluate", "pseudolabel": "pseudolabel"}
    for stage, command in commands.items():
        ended = deepmac(command, "--out", run)
        assert ended.code == 0 and f"{stage}: done before, skipped" in ended.err, ended.err


def test_the_chain_can_be_run_with_another_look_of_the_teacher(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(in_windows[0], run, ignore=shutil.ignore_patterns("evaluate-*", "pseudolabel", "select"))
    ended = deepmac("run", in_windows[1], "--out", run, "--look", "mirror=true", "--force")
    assert ended.code == 0, ended.err
    assert look_of(run) == {"window 32 px x 1.5, mirrored too"}
    inputs = [json.loads((run / f"evaluate-{who}" / "done.json").read_text())["inputs"] for who in ROLES]
    assert inputs[0]["look.mirror"] and not inputs[1]["look.mirror"]


def test_predict_looks_as_it_is_asked_to(in_windows: tuple[Path, Path], deepmac, tmp_path: Path) -> None:
    run = in_windows[0]
    image = run / "scenes-val" / "images" / "000001.png"
    for name, look in (
        ("own", []),
        ("same", ["--look", "boxes=windows"]),
        ("other", ["--look", "boxes=image"]),
    ):
        given = ["predict", image, "--box", "4,6,30,20", "--model", run, "--out", tmp_path / name]
        ended = deepmac(*given, *look)
        assert ended.code == 0, ended.err
    own, same, other = (
        json.loads((tmp_path / f"{name}.json").read_text())["annotations"]
        for name in ("own", "same", "other")
    )
    assert own == same and own != other


@pytest.mark.parametrize(
    ("look", "says"),
    [
        ("boxes=zoom", "--look: boxes: got 'zoom', expected one of image, windows, by-size, average"),
        ("zoom=2", "--look: zoom: unknown key; expected one of boxes, window_context"),
        ("box=windows", "--look: box: unknown key; did you mean boxes?"),
        ("mirror", "--look mirror: expected key=value, each key once, such as boxes=windows"),
        ("mirror=true,mirror=false", "expected key=value, each key once"),
        ("mirror=2", "--look: mirror: got 2, expected bool"),
        ("window_context=0.5", "--look: window_context: got 0.5, expected 1 to 20"),
        ("window_context=1e6", "--look: window_context: got 1000000.0, expected 1 to 20"),
        ("window_size_px=100000", "--look: window_size_px: got 100000, expected 1 to 4096"),
        ("", "--look : expected key=value"),
        ("window_size_px=60", "weights.safetensors: look.window_size_px: got 60, expected a multiple of 16"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "pseudolabel", "predict"])
def test_a_look_that_no_model_has_is_refused(
    in_windows: tuple[Path, Path], deepmac, tmp_path: Path, command: str, look: str, says: str
) -> None:
    run, pipeline = in_windows
    model = ["--model", run / WEIGHTS, "--look", look, "--out", tmp_path / "out"]
    image = run / "scenes-val" / "images" / "000001.png"
    own = [image, "--box", "4,6,30,20"] if command == "predict" else ["--config", pipeline]
    ended = deepmac(command, *own, *model)
    assert ended.code == 2 and says in ended.err.splitlines()[-1], ended.err
    assert not list(tmp_path.rglob("masks.*"))


def test_a_teacher_of_somebody_else_can_look_through_windows(
    scenes_toml: Path, deepmac, tmp_path: Path
) -> None:
    """One that takes the bright part of each canvas's middle for the object, at any size of canvas."""
    (tmp_path / "bright.py").write_text(THEIRS)
    text = re.sub(
        r"\[teacher\.model\].*?\[student\.model\]", "[student.model]", scenes_toml.read_text(), flags=re.S
    )
    named = f'[teacher]\nsegmenter = "{tmp_path / "bright.py"}:Bright"\n'
    (tmp_path / "theirs.toml").write_text(f"{text}{named}{WINDOWS}")
    given = ["--config", tmp_path / "theirs.toml", "--out", tmp_path / "run", "--allow-code"]
    assert (ended := deepmac("pseudolabel", *given)).code == 0, ended.err
    assert look_of(tmp_path / "run") == {"window 32 px x 1.5"}
    inputs = json.loads((tmp_path / "run" / "pseudolabel" / "done.json").read_text())["inputs"]
    assert inputs["teacher.look.boxes"] == "windows"
    again = deepmac("pseudolabel", *given, "--set", "teacher.look.boxes=average")
    assert again.code == 0, again.err
    why = "pseudolabel: made anew, since a key changed: teacher.look.boxes (windows, now average)"
    assert why in again.err and look_of(tmp_path / "run") == {"image + window 32 px x 1.5"}
    refused = deepmac("pseudolabel", *given, "--set", "teacher.look.window_size_px=30")
    assert refused.code == 2 and "look.window_size_px: got 30, expected a multiple of 4" in refused.err
