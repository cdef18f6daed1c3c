"""A deep mask head on few masks, with the keys that change what a step and batch norm see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import batch_norm

KEYS = (
    "teacher.model.mask_head=hourglass-52",
    "teacher.model.mask_size=32",
    "teacher.model.batch_norm_boxes=all",
    "teacher.train.batch_size=1",
    "teacher.train.gradient_accumulation_steps=3",
)


def test_a_deep_head_trains_on_one_image_a_pass(scenes_toml: Path, deepmac, tmp_path: Path) -> None:
    flags = [word for key in KEYS for word in ("--set", key)]
    ended = deepmac("teach", "--config", scenes_toml, "--out", tmp_path / "run", "--steps", "3", *flags)
    assert ended.code == 0, ended.err
    assert "gradient norm" not in ended.err
    lines = (tmp_path / "run" / "teacher" / "metrics.jsonl").read_text().splitlines()
    assert all(0 < json.loads(line)["grad_norm"] < 1e4 for line in lines)


def test_the_measurement_behind_the_rule_runs_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"HEADS": ("hourglass-10",), "MASKS": (1,), "LEAST": (2, 16), "SEEDS": (0,), "STEPS": 2}
    for name, value in (small | {"TRAIN_IMAGES": 6, "VAL_IMAGES": 3}).items():
        monkeypatch.setattr(batch_norm, name, value)
    out = tmp_path / "batch_norm.json"
    batch_norm.measure(out)
    found = json.loads(out.read_text())
    assert set(found["training"]) == {"2", "16"} and list(found["initialization"]["hourglass-10"]) == ["1"]
    monkeypatch.setattr(batch_norm, "train", None)  # everything is there
    batch_norm.measure(out)
    assert json.loads(out.read_text()) == found
    assert "| hourglass-10 | 1 |" in batch_norm.page(found)
