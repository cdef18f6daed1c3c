"""A teacher that somebody else wrote: one file outside the package, through the whole chain."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deepmac_distill.errors import ContractError
from deepmac_distill.teachers.installed import load_segmenter
from deepmac_distill.weights.card import read_card

TEACHER = '''
import torch
from deepmac_distill.contract import ModelSpec, SegmentedMasks

class Ellipses:
    """The ellipse in each box: a teacher in fifteen lines."""

    def __init__(self, cells: int = 16, seen: list[str] | None = None):
        self.spec = ModelSpec(mask_size=cells, input_size_px=None, probabilities=False,
                              seen_mask_classes=None if seen is None else tuple(seen),
                              identity=f"ellipses of {cells} cells")

    def segment(self, images, instances):
        line = torch.linspace(-1, 1, self.spec.mask_size, device=images.device)
        ellipse = (line[:, None] ** 2 + line**2 <= 1).float()
        return SegmentedMasks.of(ellipse.repeat(len(instances), 1, 1))
'''
NO_MARK = "imported.txt"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def pipeline(scenes_toml: Path, folder: Path, segmenter: str, arguments: str = "") -> Path:
    """The small pipeline on generated scenes with another teacher."""
    teacher = f'[teacher]\nsegmenter = "{segmenter}"\n[teacher.arguments]\n{arguments}\n[student.model]'
    path = folder / "pipeline.toml"
    text = re.sub(
        r"\[teacher\.model\].*?\[student\.model\]", lambda _: teacher, scenes_toml.read_text(), flags=re.S
    )
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the teacher's file and nothing else."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "ellipses.py").write_text(TEACHER)
    return folder


@pytest.fixture(scope="module")
def run(deepmac, scenes_toml: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole chain with it. To be looked at only."""
    folder = tmp_path_factory.mktemp("runs") / "ellipses"
    toml = pipeline(scenes_toml, home, f"{home / 'ellipses.py'}:Ellipses", "cells = 8\nseen = []")
    ended = deepmac("run", toml, "--out", folder, "--allow-code")
    assert ended.code == 0, ended.err
    return folder


def test_fifteen_lines_label_the_whole_chain(run: Path) -> None:
    rows = pq.read_table(run / "pseudolabel" / "masks.parquet").to_pylist()
    drawn = [row for row in rows if row["source"] == "teacher"]
    assert drawn and all(row["soft_size"] == 8 and row["expected_iou"] is None for row in drawn)
    assert not (run / "teacher").exists() and read_card(run / "student" / "weights.safetensors").steps == 12
    report = read(run / "report" / "summary.json")
    assert report["teacher"]["given_boxes"]["unseen"]["classes"] > 0  # it says that it has seen no mask
    inputs = read(run / "pseudolabel" / "done.json")["inputs"]
    assert inputs["teacher"].endswith("ellipses of 8 cells") and len(inputs["teacher code"]) == 64


def test_the_same_chain_is_skipped_and_changed_code_is_refused(
    run: Path, home: Path, deepmac, tmp_path: Path
) -> None:
    again = deepmac("run", home / "pipeline.toml", "--out", run, "--allow-code")
    assert again.code == 0 and "pseudolabel: done before, skipped" in again.err
    (home / "ellipses.py").write_text(TEACHER + "\n# changed")
    changed = deepmac("pseudolabel", "--config", home / "pipeline.toml", "--out", run, "--allow-code")
    (home / "ellipses.py").write_text(TEACHER)
    assert changed.code == 2 and "teacher code" in changed.err.splitlines()[-1]


COMMANDS: list[Callable[[Path], list[Any]]] = [
    lambda run: ["evaluate", "teacher", "--out", run, "--force"],
    lambda run: ["pseudolabel", "--out", run, "--force"],
    lambda run: ["run", run / "config.json", "--out", run],
    lambda run: ["predict", run / "scenes-val/images/000001.png", "--box", "4,6,30,20", "--model", run],
]


@pytest.mark.parametrize("command", COMMANDS, ids=["evaluate", "pseudolabel", "run", "predict"])
def test_a_run_directory_runs_no_code_unless_the_user_says_so(
    command: Callable[[Path], list[Any]], run: Path, deepmac
) -> None:
    ended = deepmac(*command(run))
    last = ended.err.splitlines()[-1]
    assert (
        ended.code == 2 and "is code that is not installed as a segmenter" in last and "--allow-code" in last
    )


def test_a_teacher_s_file_may_hold_dataclasses_and_takes_no_module_s_place(tmp_path: Path) -> None:
    lines = "from __future__ import annotations\nfrom dataclasses import dataclass\n" + TEACHER
    (tmp_path / "json.py").write_text(lines + "\n@dataclass\nclass Box(Ellipses):\n    cells: int = 4\n")
    before = sys.modules["json"]
    with pytest.raises(ContractError, match="spec: got NoneType"):  # a dataclass that makes no spec
        load_segmenter(f"{tmp_path / 'json.py'}:Box", {}, allow_code=True)
    assert sys.modules["json"] is before


@pytest.mark.parametrize("form", ["evil.py:Teacher", "evil:Teacher"])
def test_a_stranger_s_pipeline_file_imports_nothing(
    form: str, deepmac, scenes_toml: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({NO_MARK!r}, 'w').close()\nclass Teacher: ...")
    toml = pipeline(scenes_toml, tmp_path, form)
    for command in (["run", toml], ["forecast", toml], ["pseudolabel", "--config", toml]):
        ended = deepmac(*command, "--out", tmp_path / "run")
        assert ended.code == 2 and "--allow-code" in ended.err.splitlines()[-1], ended.err
    assert not (tmp_path / NO_MARK).exists()
    allowed = deepmac("run", toml, "--out", tmp_path / "run", "--allow-code")
    assert allowed.code == 2 and "spec: got NoneType, expected a ModelSpec" in allowed.err.splitlines()[-1]
    assert (tmp_path / NO_MARK).exists()


def test_an_installed_entry_point_needs_no_flag(
    deepmac, scenes_toml: Path, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "their_ellipses.py").write_text(TEACHER)
    info = tmp_path / "their_ellipses-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-ellipses\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deepmac.segmenters]\nellipses = their_ellipses:Ellipses\n")
    monkeypatch.syspath_prepend(tmp_path)
    toml = pipeline(scenes_toml, tmp_path, "ellipses")
    ended = deepmac("pseudolabel", "--config", toml, "--out", tmp_path / "run")
    sys.modules.pop("their_ellipses", None)
    assert ended.code == 0, ended.err
    inputs = read(tmp_path / "run" / "pseudolabel" / "done.json")["inputs"]
    assert inputs["teacher"] == "ellipses of 16 cells" and inputs["teacher.segmenter"] == "ellipses"


def test_of_a_teacher_whose_history_nobody_knows_no_class_is_unseen(
    deepmac, scenes_toml: Path, home: Path, tmp_path: Path
) -> None:
    toml = pipeline(scenes_toml, tmp_path, f"{home / 'ellipses.py'}:Ellipses")
    ended = deepmac("evaluate", "teacher", "--config", toml, "--out", tmp_path / "run", "--allow-code")
    assert ended.code == 0 and "nobody knows whose masks it saw" in ended.err, ended.err
    figures = read(tmp_path / "run" / "evaluate-teacher" / "summary.json")["given_boxes"]
    assert figures["unseen"]["classes"] == 0
    assert figures["shown_elsewhere"]["classes"] == figures["all"]["classes"] - figures["seen"]["classes"]


def test_its_student_cannot_claim_what_its_teacher_cannot(
    deepmac, scenes_toml: Path, home: Path, tmp_path: Path
) -> None:
    toml = pipeline(scenes_toml, tmp_path, f"{home / 'ellipses.py'}:Ellipses")
    out = tmp_path / "run"
    assert deepmac("run", toml, "--out", out, "--allow-code").code == 0
    weights = out / "student" / "weights.safetensors"
    assert read_card(weights).seen_mask_classes is None
    assert read(out / "report" / "summary.json")["student"]["given_boxes"]["unseen"]["classes"] == 0
    for labels in (out / "select" / "instances.json", out / "pseudolabel" / "masks.parquet"):
        other = tmp_path / f"by-{labels.suffix[1:]}"
        ended = deepmac("student", "--labels", labels, "--config", toml, "--out", other)
        assert ended.code == 0, ended.err
        assert read_card(other / "student" / "weights.safetensors").seen_mask_classes is None
    start = ["--set", f"student.train.init_from={weights}"]
    refused = deepmac("run", scenes_toml, "--out", tmp_path / "leak", *start)
    last = refused.err.splitlines()[-1]
    assert (
        refused.code == 2 and "may have been shown masks of" in last and "data.seen makes it unseen" in last
    )


BROKEN = [
    ("return torch.ones(len(instances), 16, 16)", "got Tensor, expected SegmentedMasks"),
    ("return SegmentedMasks.of(torch.ones(len(instances), 8, 8))", "torch.float32, expected ("),
    ("return SegmentedMasks.of(torch.ones(1 + len(instances), 16, 16))", "grids: got ("),
    ("return SegmentedMasks.of(torch.ones(len(instances), 16, 16).double())", "torch.float64, expected ("),
    ("return SegmentedMasks.of(torch.ones(len(instances), 16, 16) * torch.nan)", "values from nan to nan"),
    (
        "return SegmentedMasks.of(torch.ones(len(instances), 16, 16) * 255)",
        "values from 255 to 255, expected",
    ),
    ("return 1 / 0", "segment: ZeroDivisionError: division by zero ("),
    ("raise SystemExit(0)", "segment: SystemExit: 0 ("),
]


@pytest.mark.parametrize(("body", "says"), BROKEN, ids=[says[:24] for _, says in BROKEN])
def test_a_teacher_that_breaks_the_contract_is_named_with_what_it_returned(
    body: str, says: str, deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    code = TEACHER[: TEACHER.index("        line =")] + f"        {body}\n"
    (tmp_path / "broken.py").write_text(code)
    toml = pipeline(scenes_toml, tmp_path, f"{tmp_path / 'broken.py'}:Ellipses")
    ended = deepmac("pseudolabel", "--config", toml, "--out", tmp_path / "run", "--allow-code")
    last = ended.err.splitlines()[-1]
    assert ended.code == 2 and "Traceback" not in ended.err
    assert last.startswith("deepmac: ") and "broken.py:Ellipses" in last and says in last
    assert not (tmp_path / "run" / "pseudolabel").exists()


NAMES = [
    ("nobody", "", "got 'nobody', expected one of grabcut"),
    ("gone.py:Ellipses", "", "gone.py: no such file"),
    ("no_such_package_of_theirs:Ellipses", "", "ModuleNotFoundError: No module named"),
    ("{home}/ellipses.py:Circles", "", "ellipses.py has no class Circles"),
    (
        "{home}/ellipses.py:Ellipses",
        "radius = 3",
        "teacher.arguments: {home}/ellipses.py:Ellipses: got an unexpected",
    ),
    (
        "{home}/ellipses.py:Ellipses",
        "cells = 0",
        "constructor: ValueError: mask_size: got 0, expected at least 1",
    ),
    ("{home}/ellipses.py:torch", "", "ellipses.py has no class torch"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), NAMES, ids=[says for *_, says in NAMES])
def test_a_name_or_an_argument_that_cannot_be_used_is_refused_before_any_work(
    name: str, arguments: str, says: str, deepmac, scenes_toml: Path, home: Path, tmp_path: Path
) -> None:
    toml = pipeline(scenes_toml, tmp_path, name.format(home=home), arguments)
    ended = deepmac("run", toml, "--out", tmp_path / "run", "--allow-code")
    last = ended.err.splitlines()[-1]
    assert ended.code == 2 and last.startswith("deepmac: ") and says.format(home=home) in last, ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("student.segmenter=grabcut", "student.segmenter: unknown key"),
        ("teacher.segmenter=3", "teacher.segmenter: got 3, expected str"),
        ("teacher.arguments={cells=3}", "teacher.arguments: got {'cells': 3}, expected no arguments without"),
    ],
)
def test_a_segmenter_in_the_wrong_place_is_refused(
    deepmac, scenes_toml, tmp_path, setting: str, says: str
) -> None:
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "run", "--set", setting)
    assert ended.code == 2 and says in ended.err.splitlines()[-1], ended.err
