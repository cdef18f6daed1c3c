"""A calibration at the command line: columns of exports, a rule, a weight, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepmac_distill.calibration.calibration import write_calibration
from deepmac_distill.calibration.fitting import calibrate
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.stages.quality import KnownQuality, calibrated
from tried_masks import HELD_OUT, tried


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
    quality = sorted(one["attributes"]["quality"] for one in drawn)
    assert all(0 <= one["attributes"]["quality_low"] <= one["attributes"]["quality"] for one in drawn)
    least = quality[len(quality) // 2]
    assert deepmac(*given, "--out", tmp_path / "some.json", "--min-quality", f"{least - 1e-6:.7f}").code == 0
    kept = [one for one in annotations(tmp_path / "some.json") if one["source"] == "teacher"]
    assert len(kept) == sum(value >= least for value in quality) < len(drawn)


def test_without_a_calibration_the_output_names_the_reason(chain, deepmac, tmp_path: Path) -> None:
    ended = deepmac("export", chain[0], "-f", "coco-rle", "--out", tmp_path / "a.json")
    assert "quality: no calibration of their teacher (deepmac holdout, then deepmac calibrate" in ended.err
    assert not any("quality" in one["attributes"] for one in annotations(tmp_path / "a.json"))


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
        ("labels.min_quality=0.5", "labels.min_quality = 0.5: expected a quality of each mask, got no"),
        ("labels.mask_weight=quality", "labels.mask_weight = 'quality': expected a quality of each mask"),
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
