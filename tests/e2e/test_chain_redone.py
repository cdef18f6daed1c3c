"""Other inputs, --force and edited outputs: what a run redoes, skips and refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


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


def test_another_cut_acts_and_a_student_of_other_masks_is_refused_with_commands_that_mend_it(
    run_copy, deepmac, scenes_toml
) -> None:
    run = run_copy("report")
    before = content(run)
    given = ["run", scenes_toml, "--out", run, "--set", "labels.cut=0.3"]
    ended = deepmac(*given)
    assert ended.code == 2
    assert "evaluate-teacher: made anew, since a key changed: labels.cut (expected-iou, now 0.3)" in ended.err
    again = f"deepmac student --out {run} --force && deepmac evaluate student --out {run} --force"
    last = ended.err.splitlines()[-1]
    assert "student was made with labels.cut = 'expected-iou', now 0.3" in last and f"`{again}`" in last
    after = content(run)
    kept = ("teacher/weights.safetensors", "pseudolabel/masks.parquet", "student/weights.safetensors")
    assert all(after[name] == before[name] for name in kept)
    assert after["select/instances.json"] != before["select/instances.json"]
    for command in again.split(" && "):
        assert deepmac(*shlex.split(command)[1:]).code == 0
    ended = deepmac(*given)
    assert ended.code == 0 and "student: done before, skipped" in ended.err
    assert read(run / "config.json")["labels"]["cut"] == 0.3
