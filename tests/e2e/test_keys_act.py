"""Which stages read which key: one that acts in one half of the chain alone is an error of its own kind."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill import devices
from deepmac_distill.config.labels import LabelsConfig
from deepmac_distill.config.schema import EvaluationConfig
from deepmac_distill.look import Look
from deepmac_distill.rundir import RunDir

TABLES = {LabelsConfig: "labels", EvaluationConfig: "evaluation", Look: "look"}
EVALUATIONS = {"evaluate-teacher", "evaluate-student"}
LEARNING = {"select", "student"}
READERS = {
    "labels.cut": {"pseudolabel", *LEARNING, *EVALUATIONS},  # pseudolabel notes where it cannot be
    "labels.soft": {"pseudolabel", *LEARNING, "evaluate-teacher"},  # without grids no calibration cuts masks
    "labels.unit_images": {"pseudolabel"},
    "labels.batch_size": {"pseudolabel"},
    "labels.on_unreadable": {"pseudolabel"},
    "labels.min_mask_score": LEARNING,
    "labels.min_expected_iou": LEARNING,
    "labels.min_mask_bbox_iou": LEARNING,
    "labels.min_quality": LEARNING,
    "labels.calibration": {*LEARNING, "report", "evaluate-teacher"},  # whose masks end where it chose
    "labels.teacher": {"teacher", "pseudolabel", "evaluate-teacher"},
    "labels.teacher_by_class": {"teacher", "pseudolabel", "evaluate-teacher"},
    "labels.on_rejected": LEARNING,
    "labels.mask_weight": LEARNING,
    "labels.targets": LEARNING,
    "evaluation.batch_size": EVALUATIONS,
    "evaluation.max_detections": EVALUATIONS,
    "evaluation.bootstrap": {*EVALUATIONS, "report"},
    "evaluation.reference": EVALUATIONS,
    "evaluation.gt_boxes_only": EVALUATIONS,
    "evaluation.min_lead_over_ellipse": {"pseudolabel"},  # before it
    "evaluation.sheet_of_each": {"report"},
    "evaluation.splits": {*EVALUATIONS, "teacher"},  # unknown classes are refused before hours of training
}
# Of the teacher's look; the training has its own windows.
LABEL_TIME = ("look.boxes", "look.mirror", "look.image_from", "look.window_context", "look.window_size_px")
# Who only copies, compares or checks values does not read them.
NO_READERS = {"flatten", "changes", "differences", "_asdict_inner", "_replace", "replace", "__post_init__"}
NO_READERS |= {
    "__eq__",
    "__init__",
    "to_json",
    "<listcomp>",
    "<dictcomp>",
    "<genexpr>",
    "require_quality_to_come",
}


@contextmanager
def traced(patch: pytest.MonkeyPatch) -> Iterator[dict[str, set[str]]]:
    """The stages that read each key: in their work, or before it, since the stage before ended."""
    found: dict[str, set[str]] = defaultdict(set)
    at_work: list[str] = []
    pending: set[str] = set()
    run_stage = RunDir.run_stage

    def reading(kind: type, table: str) -> None:
        names = {field.name for field in fields(kind)}

        def read(self: object, name: str) -> Any:
            if name in names and sys._getframe(1).f_code.co_name not in NO_READERS:
                key = f"{table}.{name}"
                found[key].add(at_work[-1]) if at_work else pending.add(key)
            return object.__getattribute__(self, name)

        patch.setattr(kind, "__getattribute__", read)

    def staged(
        self: RunDir, stage: str, inputs: Any, work: Callable[[Path], None], *more: Any, **named: Any
    ) -> Path:
        def watched(folder: Path) -> None:
            at_work.append(stage)
            work(folder)
            at_work.pop()

        if not stage.startswith("scenes-"):
            for key in pending:
                found[key].add(stage)
            pending.clear()
        return run_stage(self, stage, inputs, watched, *more, **named)

    for kind, table in TABLES.items():
        reading(kind, table)
    patch.setattr(RunDir, "run_stage", staged)
    yield found


def test_each_key_is_read_by_the_stages_that_it_concerns(run_copy, deepmac) -> None:
    run = run_copy("evaluate-*", "pseudolabel", "select", "student", "report")
    look = "teacher.look={boxes='by-size', window_size_px=32, mirror=true, image_from=0.4}"
    with pytest.MonkeyPatch.context() as patch, traced(patch) as found:
        ended = deepmac("run", run / "config.json", "--out", run, "--set", look)
        assert ended.code == 0, ended.err
    assert {key: stages for key, stages in found.items() if not key.startswith("look.")} == READERS
    for kind in (LabelsConfig, EvaluationConfig):
        assert {f"{TABLES[kind]}.{field.name}" for field in fields(kind)} <= READERS.keys()
    for key in LABEL_TIME:
        assert {"pseudolabel", "evaluate-teacher"} <= found[key], key
    for key in ("look.mirror", "look.image_from", "look.window_context"):
        assert "teacher" not in found[key], key
    assert "teacher: done before, skipped" in ended.err


@pytest.mark.parametrize(
    ("role", "command"), [("teacher", ["pseudolabel"]), ("student", ["evaluate", "student"])]
)
def test_autocast_that_a_role_forbids_is_off_in_what_its_model_does_later(
    run_copy, deepmac, monkeypatch: pytest.MonkeyPatch, role: str, command: list[str]
) -> None:
    run, asked = run_copy(), []

    def noted(device: object, choice: str) -> bool:
        asked.append(choice)
        return False

    monkeypatch.setattr(devices, "autocast_allowed", noted)
    off = ["--set", f"{role}.train.autocast='off'"]
    assert deepmac(*command, "--out", run, "--force", *off).code == 0
    assert set(asked) == {"off"}
