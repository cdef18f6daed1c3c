"""A calibration at the command line: columns of exports, a rule, a weight, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from pycocotools.coco import COCO

from deepmac_distill import Run
from deepmac_distill.calibration.applied import TRAIN, Calibrated
from deepmac_distill.calibration.calibration import write_calibration
from deepmac_distill.calibration.fitting import calibrate
from deepmac_distill.chain import CHAIN
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.holdout_masks import (
    CUTS,
    HoldoutMasks,
    HoldoutRecord,
    HoldoutTeacher,
    holdout_table,
    read_holdout,
    write_holdout,
)
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.stages.quality import KnownQuality, calibrated, quality_pages
from deepmac_distill.status import status_of
from tried_masks import HELD_OUT, tried

CALIBRATION = "calibration/recipe.calibration.json"  # of a run


@pytest.fixture
def calibration(chain, tmp_path: Path) -> Path:
    """A file for the teacher of the chain."""
    provenance = Labels.open(chain[0] / "pseudolabel" / "masks.parquet").provenance
    card = provenance["teacher_card"]
    made_with = {"teacher_card.model": card["model"], "teacher_card.steps": card["steps"]}
    held_out = dataclasses.replace(HELD_OUT, made_with=made_with, classes=tuple("abcdefgh"))
    write_calibration(tmp_path / "c.json", calibrate(tried(), held_out, resamples=5))
    return tmp_path / "c.json"


def annotations(path: Path) -> list[dict[str, object]]:
    return list(json.loads(path.read_bytes())["annotations"])


def test_an_export_has_quality_and_a_rule_by_it(chain, deepmac, tmp_path: Path, calibration: Path) -> None:
    given = ("export", chain[0], "-f", "coco-rle", "--calibration", calibration)
    ended = deepmac(*given, "--out", tmp_path / "all.json")
    assert ended.code == 0, ended.err
    assert "quality: expected mean IoU 0." in ended.err and "classes like those tried" in ended.err
    drawn = [one for one in annotations(tmp_path / "all.json") if one["source"] == "teacher"]
    assert {one["attributes"]["teacher"] for one in drawn} == {"recipe"}
    quality = sorted(one["attributes"]["quality"] for one in drawn)
    assert all(0 <= one["attributes"]["quality_low"] <= one["attributes"]["quality"] for one in drawn)
    least = quality[len(quality) // 2]
    assert deepmac(*given, "--out", tmp_path / "some.json", "--min-quality", f"{least - 1e-6:.7f}").code == 0
    kept = [one for one in annotations(tmp_path / "some.json") if one["source"] == "teacher"]
    assert len(kept) == sum(value >= least for value in quality) < len(drawn)


def test_the_cut_that_a_calibration_chose_is_where_its_masks_end(
    run_copy, deepmac, calibration: Path
) -> None:
    run = run_copy("student", "evaluate-*", "report")
    made_with = json.loads(calibration.read_text())["held_out"]["made_with"]
    held_out = dataclasses.replace(HELD_OUT, made_with=made_with, classes=tuple("abcdefgh"))
    write_calibration(calibration, calibrate(tried(lead=0.1), held_out, resamples=50))
    assert json.loads(calibration.read_text())["cut"] == 0.25
    keys = ("--set", f"labels.calibration={calibration}")
    assert deepmac("pseudolabel", "--out", run, *keys).code == 0
    inputs = json.loads((run / "select" / "done.json").read_text())["inputs"]
    assert inputs["labels.cut of recipe"] == 0.25 and inputs["labels.cut"] == "expected-iou"
    labels = Labels.open(run / "pseudolabel" / "masks.parquet").with_own_cuts({"recipe": 0.25})
    drawn = labels.table.filter(pc.is_valid(labels.table["cut"]))
    assert set(drawn["cut"].to_pylist()) == {0.25}
    by_file = {one["id"]: one for one in annotations(run / "select" / "instances.json")}
    for row in drawn.to_pylist():
        assert by_file[row["annotation_id"]]["segmentation"]["counts"] == row["rle_counts"].decode()
    ended = deepmac("evaluate", "teacher", "--out", run)
    assert ended.code == 0 and "labels.cut: the teacher's masks end at 0.25" in ended.err
    made = json.loads((run / "evaluate-teacher" / "done.json").read_text())["inputs"]
    assert made["labels.cut"] == 0.25
    assert deepmac("pseudolabel", "--out", run, "--set", "labels.cut=expected-iou").code == 0
    assert "labels.cut of recipe" not in (run / "select" / "done.json").read_text()


def test_without_a_calibration_the_output_names_the_reason(chain, deepmac, tmp_path: Path) -> None:
    ended = deepmac("export", chain[0], "-f", "coco-rle", "--out", tmp_path / "a.json")
    assert "quality: no calibration of their teacher (deepmac holdout, then deepmac calibrate" in ended.err
    assert not any("quality" in one["attributes"] for one in annotations(tmp_path / "a.json"))


def test_a_calibration_alone_leaves_the_student_as_it_is(run_copy, deepmac, calibration: Path) -> None:
    run = run_copy()
    ended = deepmac("pseudolabel", "--out", run, "--set", f"labels.calibration={calibration}")
    assert ended.code == 0 and "the student learned from others" not in ended.err
    drawn = annotations(run / "select" / "instances.json")
    assert any(one.get("quality") for one in drawn)
    states = {one.stage: one.state for one in status_of(run, CHAIN)}
    assert states["student"] == states["evaluate-student"] == "done"
    ended = deepmac("pseudolabel", "--out", run, "--set", "labels.min_quality=0.5")
    assert ended.code == 0 and "the student learned from others" in ended.err
    states = {one.stage: one.state for one in status_of(run, CHAIN)}
    assert states["student"] == states["evaluate-student"] == "stale"


def test_rules_and_weights_of_a_run_go_by_quality(run_copy, deepmac, calibration: Path) -> None:
    run = run_copy("evaluate-student", "report")
    before = (run / "student" / "weights.safetensors").read_bytes()
    labels, _ = calibrated(Labels.open(run / "pseudolabel" / "masks.parquet"), calibration)
    least = round(float(np.median(KnownQuality.of(labels).quality)), 4)
    keys = ("--set", f"labels.calibration={calibration}", "--set", f"labels.min_quality={least}")
    ended = deepmac("pseudolabel", "--out", run, *keys)
    assert ended.code == 0, ended.err
    rows = annotations(run / "select" / "instances.json")
    drawn = [one for one in rows if one["source"] == "teacher"]
    assert len(drawn) > 0 and all(one["quality"] >= least for one in drawn)
    assert any(one["source"] == "none" for one in rows)
    ended = deepmac("student", "--out", run, *keys, "--set", "labels.mask_weight=quality", "--force")
    assert ended.code == 0, ended.err
    assert (run / "student" / "weights.safetensors").read_bytes() != before


def test_labels_that_were_copied_have_the_quality_of_a_calibration_beside_them(
    held_out: Path, deepmac, tmp_path: Path
) -> None:
    assert deepmac("calibrate", held_out).code == 0
    for name in ("pseudolabel", "calibration"):
        shutil.copytree(held_out / name, tmp_path / "copied" / name)
    found = [
        calibrated(Labels.open(at / "pseudolabel" / "masks.parquet"))[0]
        for at in (held_out, tmp_path / "copied")
    ]
    assert found[1].table["quality"].null_count < len(found[1].table)
    assert found[1].table["quality"].equals(found[0].table["quality"])


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, ["--min-quality", "0.5"], "expected a quality of each mask, got no calibration"),
        ({}, ["--min-quality", "2"], "min_quality: got 2.0, expected 0 to 1"),
        ({}, ["--cut", "0.31"], "calibration: cut 0.31: got no trial of it, expected one of expected-iou"),
        ({"steps": 99}, [], "is of another teacher than "),
        ({"version": 7}, [], "calibration version: got 7, expected 1"),
    ],
)
def test_what_does_not_fit_is_one_line(
    chain, deepmac, tmp_path: Path, calibration: Path, change: dict | None, arguments: list[str], message: str
) -> None:
    found = json.loads(calibration.read_text())
    change = change or {}
    found["version"] = change.get("version", 1)
    found["held_out"]["made_with"]["teacher_card.steps"] += change.get("steps", 0)
    calibration.write_text(json.dumps(found))
    given = [] if "--min-quality" in arguments and "0.5" in arguments else ["--calibration", calibration]
    ended = deepmac("export", chain[0], "-f", "coco-rle", "--out", tmp_path / "a.json", *given, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err.splitlines()[-1] and "Traceback" not in ended.err
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "labels.min_quality=0.5",
            "labels.min_quality = 0.5: got no calibration, expected labels.calibration",
        ),
        ("labels.mask_weight=quality", "labels.mask_weight = 'quality': got no calibration, expected"),
        ("labels.min_quality=1", "labels.min_quality: got 1.0, expected in [0, 1)"),
        ("labels.calibration=gone.json", "gone.json: cannot be read"),
    ],
)
def test_keys_that_cannot_be_served_are_one_line(
    run_copy: Callable[..., Path], deepmac, key: str, message: str
) -> None:
    ended = deepmac("pseudolabel", "--out", run_copy("student", "evaluate-student", "report"), "--set", key)
    assert ended.code == 2 and "Traceback" not in ended.err
    assert message in ended.err.splitlines()[-1]


@pytest.fixture
def held_out(run_copy) -> Path:
    """A run with a hold-out as `deepmac holdout` leaves it, its masks made up."""
    run = run_copy("student", "evaluate-*", "report")
    trial = run / "holdout-folds" / "2" / "recipe-fold-0"
    trial.mkdir(parents=True)
    shutil.copy(run / "config.json", trial)
    masks = tried()
    n, names = len(masks), [masks.class_names[one] for one in masks.classes]
    columns = {
        **{"teacher": ["recipe"] * n, "split": ["hidden"] * n, "answered": [True] * n},
        **{"fold": masks.folds, "annotation_id": np.arange(n), "image_id": masks.images},
        **{"category_name": names, "area": np.full(n, 9)},
        **dict.fromkeys(("box_width", "box_height"), np.ones(n)),
        **dict.fromkeys(("boundary_iou", "box_baseline_iou", "ellipse_iou"), np.zeros(n)),
        **{name: masks.scores[name].clip(0, 1) for name in ("expected_iou", "mask_score", "mask_bbox_iou")},
        **dict.fromkeys(("iou", "iou_at_rule"), masks.ious[:, 0]),
        "cut_ious": [[one] * len(CUTS) for one in masks.ious[:, 0].tolist()],
    }
    folds = (tuple(sorted(set(names[::2]))), tuple(sorted(set(names[1::2]))))
    teachers = (HoldoutTeacher("recipe", True, "abc"), HoldoutTeacher("starter", False, "def"))
    record = HoldoutRecord("r", "d", 0, False, folds, teachers)
    (run / "holdout").mkdir()
    write_holdout(run / "holdout" / "masks.parquet", HoldoutMasks(holdout_table(columns), record))
    return run


def test_a_hold_out_gives_the_labels_of_its_run_a_quality(held_out: Path, deepmac, tmp_path: Path) -> None:
    ended = deepmac("calibrate", held_out)
    assert ended.code == 0, ended.err
    assert "not calibrated: starter: calibration: got 0 masks of hidden classes, expected at" in ended.err
    for words in ("Quality against truth", "− the rule", "labels.min_quality = 0.5 is recommended"):
        assert words in ended.out
    assert "never for every mask" in ended.out and "quality: expected mean IoU 0." in ended.out
    page = (held_out / "calibration" / "recipe.md").read_text(encoding="utf-8")
    assert "## By hidden class (%)" in page
    assert deepmac("calibrate", held_out).code == 0  # done before
    (held_out / "calibration" / "recipe.md").write_text("mine")
    ended = deepmac("calibrate", held_out)
    assert (
        ended.code == 2 and "recipe.md: was changed since" in ended.err and "--force redoes it" in ended.err
    )
    assert deepmac("calibrate", held_out, "--force").code == 0
    assert (held_out / "calibration" / "recipe.md").read_text(encoding="utf-8") == page
    ended = deepmac("pseudolabel", "--out", held_out)
    assert ended.code == 0 and "quality: expected mean IoU 0." in ended.err
    drawn = [one for one in annotations(held_out / "select" / "instances.json") if "quality" in one]
    assert drawn and all((one["source"], one["teacher"]) == ("teacher", "recipe") for one in drawn)


def test_a_calibration_is_of_the_trial_that_its_hold_out_made(held_out: Path, deepmac) -> None:
    own = held_out / "holdout-folds" / "2" / "recipe-fold-0" / "config.json"
    for other in ("10", "2-quick", "1"):  # of other hold-outs of the run, sorted before and behind
        trial = held_out / "holdout-folds" / other / "recipe-fold-0"
        trial.mkdir(parents=True)
        config = json.loads(own.read_text())
        config["teacher"]["train"] |= {"steps": 77, "lr": 0.5}
        (trial / "config.json").write_text(json.dumps(config))
    assert deepmac("calibrate", held_out).code == 0
    card = Labels.open(held_out / "pseudolabel" / "masks.parquet").provenance["teacher_card"]
    made = json.loads((held_out / CALIBRATION).read_text())["held_out"]["made_with"]
    trained = {
        name.removeprefix(TRAIN + "."): value for name, value in made.items() if name.startswith(TRAIN)
    }
    assert made["teacher_card.steps"] == card["steps"] != 77
    assert trained == {key: value for key, value in card["train"].items() if key != "init_from"}
    assert {"lr", "batch_size", "weight_decay", "views", "ema_decay"} <= trained.keys()
    assert not {"checkpoint_every", "recompute"} & trained.keys()
    own.unlink()
    ended = deepmac("calibrate", held_out, "--force")
    assert ended.code == 2 and "holdout-folds/2: no trial of recipe" in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.lr", "teacher_card.train.lr: got 0.0"),
        ("train.batch_size", "teacher_card.train.batch_size: got "),
        ("data_sha256", "teacher_card.data_sha256: got "),
    ],
)
def test_a_calibration_of_another_recipe_or_of_other_data_is_refused(
    held_out: Path, deepmac, tmp_path: Path, key: str, message: str
) -> None:
    path = held_out / "holdout" / "masks.parquet"
    masks = read_holdout(path)
    card = Labels.open(held_out / "pseudolabel" / "masks.parquet").provenance["teacher_card"]
    record = dataclasses.replace(masks.record, training_sha256=card["data_sha256"])
    write_holdout(path, dataclasses.replace(masks, record=record))
    assert deepmac("calibrate", held_out).code == 0
    shutil.copy(held_out / CALIBRATION, named := tmp_path / "named.json")
    export = ("export", held_out, "-f", "coco-rle", "--calibration", named, "--out")
    assert deepmac(*export, tmp_path / "a.json").code == 0
    found = json.loads(named.read_text())
    assert found["held_out"]["made_with"][f"teacher_card.{key}"]
    found["held_out"]["made_with"][f"teacher_card.{key}"] = 0.5
    named.write_text(json.dumps(found))
    ended = deepmac(*export, tmp_path / "b.json")
    (line,) = ended.err.splitlines()[-1:]
    assert ended.code == 2 and "is of another teacher than " in line and message in line, line
    assert line.endswith("expected 0.5")


def test_quality_by_a_quick_hold_out_is_named_wherever_it_stands(
    held_out: Path, deepmac, tmp_path: Path
) -> None:
    path = held_out / "holdout" / "masks.parquet"
    masks = read_holdout(path)
    (held_out / "holdout-folds" / "2").rename(held_out / "holdout-folds" / "2-quick")
    files = {}
    for quick in (True, False):
        record = dataclasses.replace(masks.record, quick=quick)
        write_holdout(path, dataclasses.replace(masks, record=record))
        ended = deepmac("calibrate", held_out, "--force")
        assert ended.code == 0, ended.err
        made = json.loads((held_out / CALIBRATION).read_text())["held_out"]
        assert made["quick"] is quick and (f"{TRAIN}.steps" in made["made_with"]) is not quick
        assert (f"{TRAIN}.lr" in made["made_with"]) and "teacher_card.model" in made["made_with"]
        outputs = [
            ended.out,
            deepmac("pseudolabel", "--out", held_out).err,
            deepmac("export", held_out, "-f", "coco-rle", "--out", tmp_path / f"{quick}.json").err,
        ]
        words = "on average over classes like those tried, by a quick hold-out; "
        assert [words in one for one in outputs] == [quick] * 3, outputs
        files[quick] = [
            json.loads(one.read_text())["deepmac_distill"]
            for one in (held_out / "select" / "instances.json", tmp_path / f"{quick}.json")
        ]
        if quick:
            (held_out / "holdout-folds" / "2-quick").rename(held_out / "holdout-folds" / "2")
    assert files[True][0]["quality_by_quick_holdout"] == ["recipe"]
    assert files[True][1]["provenance"]["quality_by_quick_holdout"] == ["recipe"]
    assert "quality_by_quick_holdout" not in json.dumps(files[False])


def test_a_hold_out_that_is_too_small_leaves_no_calibration_begun(held_out: Path, deepmac) -> None:
    masks = read_holdout(held_out / "holdout" / "masks.parquet")
    few = HoldoutMasks(masks.table.slice(0, 3), masks.record)
    write_holdout(held_out / "holdout" / "masks.parquet", few)
    ended = deepmac("calibrate", held_out)
    assert ended.code == 2 and "no teacher can be calibrated: recipe: " in ended.err.splitlines()[-1]
    assert not list(held_out.glob("calibration*"))
    assert "calibration" not in deepmac("status", held_out).out


def test_the_report_has_how_right_quality_is_and_python_the_same_stages(
    held_out: Path, deepmac, tmp_path: Path
) -> None:
    run = Run(held_out)
    (found,) = run.calibrate()
    done = run.review_list(tmp_path / "r.json", budget=3)
    assert found.held_out.teacher == "recipe" and len(done.review.rows) == 3
    ended = deepmac("run", held_out / "config.json", "--out", held_out)
    assert ended.code == 0, ended.err
    assert "recipe: Quality against truth" in ended.out
    page = (held_out / "report" / "quality-recipe.md").read_text(encoding="utf-8")
    assert page.count("\n| ") > 10 and sum(one.masks for one in found.reliability.bins) == 240


@pytest.mark.parametrize("name", ["../../../escaped", "..", "a/b", "n" * 201, ""])
def test_a_teacher_in_a_hold_out_is_called_by_a_name_of_a_file(held_out: Path, deepmac, name: str) -> None:
    path = held_out / "holdout" / "masks.parquet"
    masks = read_holdout(path)
    teachers = (*masks.record.teachers, HoldoutTeacher(name, False, "x"))
    write_holdout(
        path, dataclasses.replace(masks, record=dataclasses.replace(masks.record, teachers=teachers))
    )
    before = sorted(held_out.parent.rglob("*"))
    ended = deepmac("calibrate", held_out)
    (line,) = ended.err.splitlines()
    assert (
        ended.code == 2 and "masks.parquet: teacher '" in line and "expected a name without folders" in line
    )
    assert sorted(held_out.parent.rglob("*")) == before


def test_a_page_of_quality_is_called_by_a_name_of_a_file(calibration: Path) -> None:
    known = Calibrated.read(calibration)
    assert list(quality_pages({"recipe": known})) == ["quality-recipe.md"]
    with pytest.raises(DataError, match=r"teacher '/\.\./\.\./escaped': expected a name without folders"):
        quality_pages({"/../../escaped": known})


def test_the_least_sure_masks_are_listed(held_out: Path, deepmac, tmp_path: Path) -> None:
    assert deepmac("calibrate", held_out).code == 0
    ended = deepmac("review-list", held_out, "--budget", "5", "--out", tmp_path / "r.json")
    assert ended.code == 0, ended.err
    listed = annotations(tmp_path / "r.json")
    labels, _ = calibrated(Labels.open(held_out / "pseudolabel" / "masks.parquet"))
    low = np.sort(KnownQuality.of(labels).low)
    assert sorted(one["attributes"]["quality_low"] for one in listed) == pytest.approx(low[:5], abs=1e-6)
    assert "r.json: 5 of " in ended.out and "an estimate" in ended.out and "gain (masks)" in ended.out
    COCO(str(tmp_path / "r.json"))
    again = deepmac("review-list", held_out, "--out", tmp_path / "r.json")
    assert again.code == 2 and "r.json: is there already" in again.err


def test_a_cut_that_was_not_tried_has_no_quality_and_stops_nothing(
    held_out: Path, deepmac, tmp_path: Path
) -> None:
    assert deepmac("calibrate", held_out).code == 0
    ended = deepmac("export", held_out, "-f", "coco-rle", "--cut", "0.33", "--out", tmp_path / "a.json")
    assert ended.code == 0 and "recipe.calibration.json: cut 0.33: was not tried" in ended.err
    assert not any("quality" in one["attributes"] for one in annotations(tmp_path / "a.json"))
    ended = deepmac("export", held_out, "-f", "coco-rle", "--cut", "0.35", "--out", tmp_path / "b.json")
    assert ended.code == 0 and any("quality" in one["attributes"] for one in annotations(tmp_path / "b.json"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["calibrate", "RUN"], "no holdout/masks.parquet; expected `deepmac holdout` to be done before"),
        (["calibrate", "gone"], "no holdout/masks.parquet"),
        (["review-list", "RUN"], "a review list: expected a quality of each mask, got no calibration"),
        (["review-list", "RUN", "--budget", "0"], "--budget 0: expected at least 1"),
        (["review-list", "gone"], "gone: nothing there; expected a run directory or a masks.parquet"),
    ],
)
def test_without_a_hold_out_there_is_nothing_to_learn_from(
    chain, deepmac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = deepmac(*(chain[0] if word == "RUN" else word for word in command))
    assert ended.code == 2 and message in ended.err.splitlines()[-1] and "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []
