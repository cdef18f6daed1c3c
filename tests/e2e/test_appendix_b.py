"""`make appendix-b`: the commands in their order, on tiny models; the table beside the paper's figures."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import appendix_b
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.evaluation.results import (
    CocoStats,
    Detected,
    Evaluation,
    Interval,
    MeanIoU,
    SizeIoU,
    SplitIoU,
    to_json,
)
from deepmac_distill.evaluation.sizes import BySize
from deepmac_distill.evaluation.splits import BySplit
from deepmac_distill.experiments import appendix_b_table
from deepmac_distill.experiments.appendix_b import RUNS, Runs, Step, plan
from deepmac_distill.experiments.appendix_b_table import Figures
from deepmac_distill.paper import claims, speeds

ROOT = Path(__file__).parents[2]
SMALL = """
threads = 1
device = "cpu"
[data]
train_annotations = "instances_train.json"
train_images = "images"
val_annotations = "instances_val.json"
seen = ["voc"]
[teacher.model]
backbone = "tiny"
backbone_width = 8
head_channels = 8
mask_width = 8
mask_size = 8
mask_head = "hourglass-10"
[teacher.train]
steps = 6
batch_size = 4
image_size_px = 64
[evaluation]
bootstrap = 20
[student.train]
steps = 6
batch_size = 4
image_size_px = 64
[student.model]
backbone = "tiny"
backbone_width = 8
"""
DEEPMAC = """
head_channels = 8
mask_width = 8
mask_size = 8
"""
MASK_RCNN = """
architecture = "mask_rcnn"
fpn_channels = 8
mask_channels = 8
box_channels = 8
anchor_sizes = [8, 16, 32, 64]
proposals = 50
sampled_proposals = 16
"""
VOC = ("cat", "dog", "bird", "horse", "sheep", "cow")
OTHERS = ("zebra", "kite", "pizza", "bed", "oven", "vase")


def make(*words: str) -> subprocess.CompletedProcess:
    """`make` in the project, without what a make or a shell around the tests may have set."""
    set_outside = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "COCO", "LVIS", "SMALL", "DATA", "ANYWAY")
    set_outside += ("TENTH", "STEPS", "SEEDS")
    environment = {name: value for name, value in os.environ.items() if name not in set_outside}
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def planned_by_make(*words: str) -> list[Step]:
    """The steps behind a `make` target."""
    told = make("--dry-run", "--old-file=.venv/.ready", "BIN=bin", *words)
    assert told.returncode == 0, told.stderr
    program, script, action, *rest = shlex.split(told.stdout.splitlines()[-1])
    assert (program, script, action) == ("bin/python", "benchmarks/appendix_b.py", "run")
    return appendix_b.planned(appendix_b.parsed([action, *rest]))


def stages_of(steps: list[Step]) -> list[str]:
    return [step[0] for step in steps]


@pytest.mark.parametrize(
    "words", [("appendix-b",), ("appendix-b1", "SMALL=1", "COCO=x"), ("appendix-b2", "LVIS=x")]
)
def test_without_data_one_line_says_what_to_name_and_nothing_is_set_up(words: tuple[str, ...]) -> None:
    ended = make(*words)
    assert ended.returncode == 2 and ended.stdout == ""
    ours = [line for line in ended.stderr.splitlines() if not line.startswith("make")]
    assert len(ours) == 1 and "expected COCO=FOLDER" in ours[0]


def test_the_first_part_is_the_teacher_alone() -> None:
    steps = planned_by_make("appendix-b1", "COCO=/coco")
    assert stages_of(steps) == ["forecast", "teach", "evaluate"]
    assert steps[0][1:] == [
        *(str(ROOT / "src/deepmac_distill/recipes/paper/teacher_hg100.toml"), "--data", "/coco"),
        *("--out", "runs/teacher_hg100", "--teacher"),
    ]


def test_every_forecast_comes_before_any_work() -> None:
    own = ["teach", "evaluate", "pseudolabel", "student", "evaluate"]
    another = ["student", "evaluate"]
    small = stages_of(planned_by_make("appendix-b2", "SMALL=1", "DATA=/d"))
    assert small == ["forecast"] * 2 + own + another + ["sheet", "bench"]
    whole = planned_by_make("appendix-b", "COCO=/coco", "LVIS=l/lvis_v1_val.json")
    lvis = ["teach", "evaluate"] * 2
    assert stages_of(whole) == ["forecast"] * 5 + own + another * 2 + lvis + ["sheet", "bench"]
    begun = [step for step in whole if step[0] == "forecast" and "lvis_" in step[1]]
    assert {words[-2] for words in begun} == {
        f"data.val_annotations={Path.cwd() / 'l' / 'lvis_v1_val.json'}"  # not relative to COCO's folder
    }
    without = stages_of(planned_by_make("appendix-b", "COCO=/coco"))
    assert without == ["forecast"] * 3 + own + another * 2 + ["sheet", "bench"]
    anyway = planned_by_make("appendix-b", "COCO=/coco", "ANYWAY=1")
    assert [step[-1] for step in anyway if step[0] == "forecast"] == ["--anyway"] * 3


def lengths(step: Step) -> list[str]:
    return [word for word in step if ".train." in word]


def test_a_tenth_and_a_trial_train_so_much_apart_from_the_whole_runs() -> None:
    tenth = planned_by_make("table-13", "COCO=/coco", "TENTH=1")
    begun = {Path(step[1]).stem: lengths(step) for step in tenth if step[0] == "forecast"}
    own = [
        f"{role}.train.{key}"
        for role in ("student", "teacher")
        for key in ("steps=5000", "warmup_steps=500", "decay_steps=[]")
    ]
    assert begun["teacher_hg100"] == own
    assert begun["student_mask_rcnn_r50"] == [
        f"student.train.{key}" for key in ("steps=7000", "warmup_steps=50", "decay_steps=[5000, 6500]")
    ]
    teach = next(step for step in tenth if step[0] == "teach")
    assert lengths(teach) == own and "runs/appendix-b-tenth/teacher_hg100" in teach
    trial = planned_by_make("appendix-b1", "SMALL=1", "DATA=/d", "STEPS=20")
    assert [lengths(step) for step in trial if step[0] == "teach"] == [
        ["student.train.steps=20", "teacher.train.steps=20"]
    ]
    assert all("runs/coco_sample" not in step for step in trial)


def test_several_seeds_are_refused_in_one_line(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert appendix_b.main(["run", "b2", "paper", "--data", "/coco", "--seeds", "3"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("appendix_b: appendix B: seeds: got 3, expected 1") and told.out == ""
    assert told.err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_the_first_step_that_fails_ends_the_run(capfd) -> None:
    steps = [["check", "no-such-file"], ["--help"]]
    assert appendix_b.run(steps) == 2
    told = capfd.readouterr()
    assert "no-such-file: cannot be read" in told.out and "$ deepmac --help" not in told.out


@pytest.fixture
def sample(chain, tmp_path: Path) -> Path:
    """Generated scenes in the layout of a sample of COCO, under names that VOC has and has not."""
    shutil.copytree(chain[0] / "scenes-train" / "images", tmp_path / "sample" / "images")
    for split in ("train", "val"):
        raw = json.loads((chain[0] / f"scenes-{split}" / "instances.json").read_text())
        names = iter(VOC), iter(OTHERS)
        for category in raw["categories"]:
            category["name"] = next(names[category["name"] not in SEEN_SHAPES])
        if split == "val":
            for image in raw["images"]:
                source = chain[0] / "scenes-val" / "images" / image["file_name"]
                image["file_name"] = f"val-{image['file_name']}"
                shutil.copy(source, tmp_path / "sample" / "images" / image["file_name"])
        (tmp_path / "sample" / f"instances_{split}.json").write_text(json.dumps(raw))
    return tmp_path / "sample"


def test_the_steps_of_the_sample_run_and_end_in_a_table(
    sample: Path, deepmac, tmp_path: Path, capsys
) -> None:
    """The steps that are planned, on smaller pipelines and without a process for each."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "coco_sample.toml").write_text(SMALL + DEEPMAC)
    (tmp_path / "files" / "coco_sample_mask_rcnn.toml").write_text(SMALL + MASK_RCNN)
    runs = tmp_path / "runs"
    steps = plan(Runs("small", str(sample), runs, tmp_path / "files"), "b")
    for step in steps:
        brief = ["--images-count", "2", "--rounds", "1"] if step[0] == "bench" else []
        ended = deepmac(*step, *brief)
        assert ended.code == 0, (step, ended.err)
    assert appendix_b.main(["table", "small", "--runs", str(runs)]) == 0
    told = capsys.readouterr().out
    assert "not run" in told and "appendix_b.json" in told
    written = json.loads((runs / "appendix_b_small" / "appendix_b.json").read_text())
    assert [row["ours"] is not None for row in written["rows"]] == [True] * 4 + [False] * 3 + [True] * 2
    assert any("24 images" in line for line in written["cut"])
    teacher = json.loads((runs / "coco_sample" / "evaluate-teacher" / "summary.json").read_text())
    iou = teacher["given_boxes"]["unseen"]["class_mean_iou"]["model"]
    assert written["rows"][0]["ours"]["unseen"] == pytest.approx(100 * iou)
    assert (
        written["rows"][-2]["ours"]["all"] > 0 and "hourglass-10 on tiny, 64 px" in written["rows"][-2]["ran"]
    )
    assert [list(run["minutes"]) for run in written["runs"]] == [
        ["teacher", "evaluate-teacher", "pseudolabel", "select", "student", "evaluate-student"],
        ["student", "evaluate-student"],
    ]
    assert (runs / "appendix_b_small" / "contact_sheet.png").stat().st_size > 1000
    inputs = [
        json.loads((runs / run / "student" / "done.json").read_text())["inputs"]
        for run in ("coco_sample", "coco_sample_mask_rcnn")
    ]
    for name in ("student annotations", "student labels"):  # the same labels
        assert inputs[0][name] == inputs[1][name]


def summary(iou: float, ap: float | None) -> dict[str, Any]:
    """Figures of one evaluation; of unseen classes half, of seen ones the rest."""

    def given_boxes(share: float) -> SplitIoU:
        means = MeanIoU(iou * share, 0.5, 0.5)
        size, nothing = SizeIoU(means, means, 1, 1), Interval(None)
        return SplitIoU(means, means, 1, 1, 0.0, nothing, nothing, nothing, BySize(size, size, size))

    def detected(share: float) -> CocoStats:
        return CocoStats(*[(ap or 0) * share] * 12, instances=1, ignored=0)

    shares = BySplit(all=1.0, seen=1.5, unseen=0.5)
    segm = None if ap is None else shares.map(detected)
    return to_json(Evaluation(shares.map(given_boxes), Detected(segm, segm), ()))


def fabricate(runs: Path, name: str, role: str, figures: dict[str, Any], seen: str = "voc") -> None:
    """The files of a run that the table looks at."""
    (runs / name / f"evaluate-{role}").mkdir(parents=True, exist_ok=True)
    (runs / name / f"evaluate-{role}" / "summary.json").write_text(json.dumps(figures))
    done = {"inputs": {}, "outputs": {}, "seconds_since_last_start": 90.0}
    (runs / name / f"evaluate-{role}" / "done.json").write_text(json.dumps(done))
    config = {
        "seed": 7,
        "data": {"seen": [seen]},
        "teacher": {"train": {"steps": 1234, "gradient_accumulation_steps": 2}},
    }
    (runs / name / "config.json").write_text(json.dumps(config))
    environment = {"python": "3", "platform": "y", "processor": "x", "cores": 3, "gpus": ["Z100"]}
    environment["packages"] = {"torch": "9.9"}
    (runs / name / "environment.json").write_text(json.dumps(environment))


def by_model(found: list[Any]) -> dict[str, Any]:
    return {row.model: row for row in found}


def test_figures_stand_beside_those_of_the_paper(tmp_path: Path) -> None:
    fabricate(tmp_path, "teacher_hg100", "teacher", summary(0.5, 0.2))
    fabricate(tmp_path, "teacher_hg100", "student", summary(0.4, 0.3))
    found = appendix_b_table.write(tmp_path, "paper").rows
    iou, ap, student = found[0], found[1], found[2]
    assert (iou.paper, iou.ours) == (Figures(81.4), Figures(50.0, 75.0, 25.0))
    assert ap.paper == Figures(unseen=35.5) and ap.ours.unseen == pytest.approx(10.0)
    assert student.paper.all == 37.8 and student.ours.all == pytest.approx(30.0)
    assert "1,234 steps of 16 images" in iou.ran
    assert all(row.ours is None for row in found[3:])
    assert found[3].ran == "not run: no evaluate-student in student_mask_rcnn_r50"
    text = (tmp_path / "appendix_b" / "appendix_b.md").read_text()
    assert "| 81.4 / – / – | 50.0 / 75.0 / 25.0 |" in text and "| 232 / – / – | not run |" in text
    assert "Z100, torch 9.9; minutes since each stage's last start: evaluate-" in text and "1.5" in text
    assert "Cut" not in text
    assert "  teacher_hg100, teacher: 1,234 steps in place of its recipe's 50,000" in text


def test_other_classes_do_not_stand_under_the_names_of_voc(tmp_path: Path) -> None:
    fabricate(tmp_path, "lvis_hg100", "teacher", summary(0.6, None), seen="all")
    row = next(row for row in appendix_b_table.rows(tmp_path, "paper") if row.paper == Figures(79.9))
    assert row.ours == Figures(60.0)


def test_an_evaluation_without_detection_has_no_average_precision(tmp_path: Path) -> None:
    fabricate(tmp_path, "teacher_hg100", "teacher", summary(0.6, None))
    found = appendix_b_table.rows(tmp_path, "paper")
    assert found[0].ours is not None and found[1].ours is None
    assert found[1].ran == "not run: evaluated in given boxes only"


def test_the_sample_leaves_rows_out_and_says_what_it_cuts(tmp_path: Path) -> None:
    (tmp_path / "instances_train.json").write_text(json.dumps({"images": [1, 2, 3]}))
    told = "\n".join(appendix_b_table.cuts(tmp_path))
    assert "instances_train.json, 3 images" in told
    assert "tf_efficientnet_lite0, 320 px" in told and "hourglass-104, 1024 px" in told
    assert "2,400 steps of 16 windows" in told and "50,000 steps of 128 images" in told
    rows = appendix_b_table.rows(tmp_path, "small")
    left_out = [row for row in rows if row.ran == "not run: left out of the sample"]
    assert len(left_out) == 3 and all(row.model in told for row in left_out)


def test_every_row_has_a_run_or_a_reason_and_every_run_a_file() -> None:
    names = {claim.id for claim in claims()}
    assert names == RUNS["paper"].keys() | appendix_b_table.TIMED.keys()
    assert RUNS["small"].keys() < RUNS["paper"].keys()
    for protocol in RUNS.values():
        for run, _ in protocol.values():
            assert len(list((ROOT / "src/deepmac_distill/recipes").rglob(f"{run}.toml"))) == 1


def test_the_paper_s_figures_agree_with_each_other() -> None:
    """Overall is the mean over 80 classes, 20 of them VOC's: a slip of the pen would show."""
    whole = [claim.figures for claim in claims() if len(claim.figures) == 3]
    assert len(whole) == 3
    for figures in whole:
        assert figures["all"] == pytest.approx(0.25 * figures["seen"] + 0.75 * figures["unseen"], abs=0.11)


def test_the_paper_s_times_are_those_of_the_benchmark_of_latencies() -> None:
    told = {claim.id: claim.figures["all"] for claim in claims() if claim.id in appendix_b_table.TIMED}
    assert list(told.values()) == [row.milliseconds for row in speeds() if "mask head" in row.model]
    assert told == {"speed hg100": 232, "speed resnet4": 201}
