"""Pipeline files and run directories that cannot be used: code 2 and one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from refusals import assert_refused


def test_a_student_that_cannot_be_built_is_refused_before_the_teacher_is_trained(
    teach, tmp_path: Path
) -> None:
    ended = teach("--set", "student.train.image_size_px=60", command="run")
    assert_refused(ended, "student.train.image_size_px: got 60, expected a multiple of 16", tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[teacher.trian]\nsteps = 1", "teacher.trian: unknown key; did you mean train?"),
        ("seed = 'one'", "seed: got 'one', expected int"),
        ("steps = ", "cannot be read: "),
        ("{}", "cannot be read: "),
    ],
)
def test_a_pipeline_file_that_cannot_be_used_is_refused(
    deepmac, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "p.toml").write_text(text)
    ended = deepmac("run", tmp_path / "p.toml", "--out", tmp_path / "run")
    assert_refused(ended, f"{tmp_path / 'p.toml'}: {says}", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["p.toml"]


ENDS_WITHOUT_TORCH = """
import json, sys
from deepmac_distill.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as ended:
        assert ended.code == 2, (arguments, ended.code)
    assert "torch" not in sys.modules, arguments
"""


def test_a_mistake_in_a_pipeline_is_reported_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[teacher.train]\nlr = 'fast'")
    given = ["--data", "anywhere", "--set"]
    commands = {
        f"{tmp_path / 'bad.toml'}: teacher.train.lr: got 'fast'": ["run", f"{tmp_path / 'bad.toml'}"],
        "gone.toml: no such pipeline file": ["run", f"{tmp_path / 'gone.toml'}"],
        "--set: wrong: unknown key": ["teach", *given, "wrong=1"],
        "--set: labels.soft: got 1, expected bool": ["pseudolabel", *given, "labels.soft=1"],
        "--set: student.model.mask_size: got 0": ["student", *given, "student.model.mask_size=0"],
        "--set: seed: got -1, expected at least 0": ["retention", *given, "seed=-1"],
        "evaluation.bootstrap: got 0": ["evaluate", *given, "evaluation.bootstrap=0"],
        "gone.safetensors: no such file; expected weights": [
            "evaluate",
            "--model",
            "gone.safetensors",
        ],
        "--box 1,2: expected four numbers": ["predict", "a.png", "--box", "1,2", "--model", "run"],
        "--cut: got 'best', expected a number, 0 <= cut < 1, or 'expected-iou'": [
            *("predict", "a.png", "--box", "1,1,9,9", "--model", "run", "--cut", "best")
        ],
        "--cut: got 1.0, expected a number": ["detect", "a.png", "--model", "run", "--cut", "1"],
    }
    program = [sys.executable, "-c", ENDS_WITHOUT_TORCH, json.dumps(list(commands.values()))]
    ended = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    told = ended.stderr.splitlines()
    assert len(told) == len(commands)
    for line, says in zip(told, commands, strict=True):
        assert line.startswith("deepmac: ") and says in line


def test_an_output_directory_of_another_kind_is_refused_and_left_alone(teach, data: Path, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    assert_refused(teach(), f"{tmp_path / 'run'}: holds files but no run", tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]
    (tmp_path / "run" / "thesis.tex").unlink()
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("")
    assert_refused(teach(), "is a file; expected a run directory", tmp_path)


def test_a_stage_that_lacks_the_one_before_it_says_which(deepmac, teach, tmp_path: Path) -> None:
    assert_refused(
        teach(command="pseudolabel"),
        "no teacher/weights.safetensors; expected `deepmac teach --out",
        tmp_path,
    )
    given = ["--out", tmp_path / "run", "--set", "data.val_annotations=x.json"]
    assert_refused(
        deepmac("student", *given),
        "no pseudolabel/masks.parquet; expected `deepmac pseudolabel --out",
        tmp_path,
    )
    assert_refused(deepmac("evaluate", "student", *given), "no student/weights.safetensors", tmp_path)
    assert_refused(
        deepmac("evaluate", "--out", tmp_path / "run"), "run: no run there and no data named", tmp_path
    )
    ended = deepmac("compare", tmp_path, tmp_path / "run")
    assert_refused(
        ended, f"{tmp_path}: no evaluation; expected a folder that deepmac evaluate wrote", tmp_path
    )
