"""Names of strangers, narrow and odd terminals, full disks: one line, and no character that commands."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from deepmac_distill.cli import app
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.errors import DataError
from deepmac_distill.report.table import Table, columns, names
from deepmac_distill.report.terminal import rich_tables

ODD = [
    "cap [/lid]",
    "[red]x[/red]",
    "esc \x1b[31mred\x1b[0m",
    "two\nlines",
    "tab\there",
    "\u202eright",
    "\U0001f600",
]


def test_every_name_of_a_class_is_shown_as_it_is_or_as_escapes(capsys) -> None:
    table = Table("[b]title[/b]", (*names("class"), *columns("count", ("n",))), tuple((n, 7) for n in ODD))
    console = Console(width=60, highlight=False)
    with console.capture() as shown:
        for part in rich_tables(table, 60):
            console.print(part)
    text = shown.get()
    assert "\x1b[31m" not in text and "\u202e" not in text and "\t" not in text
    for name in ("cap [/lid]", "[red]x[/red]", r"esc \x1b[31mred\x1b[0m", r"two\nlines", "\U0001f600"):
        assert name in text
    assert "[b]title[/b]" in text


def test_odd_names_of_classes_pass_through_check_evaluate_and_errors(
    chain, deepmac, small_toml: Path, tmp_path: Path
) -> None:
    document = json.loads((chain[0] / "scenes-val" / "instances.json").read_text())
    for category, name in zip(document["categories"], ODD, strict=False):
        category["name"] = name
    file = tmp_path / "val\x1b[7m.json"
    file.write_text(json.dumps(document))
    images = chain[0] / "scenes-val" / "images"
    ended = deepmac("check", file, "--images", images, "--seen", "all")
    assert ended.code == 0 and r"\x1b[31mred" in ended.out, ended.err
    given = [
        "--val-annotations",
        file,
        "--val-images",
        images,
        "--seen",
        "all",
        "--set",
        "evaluation.bootstrap=5",
    ]
    data = ["--annotations", file, "--images", images, "--config", small_toml, "--out", tmp_path / "run"]
    ended = deepmac("evaluate", "--model", chain[0], "--per-class", *data, *given)
    assert ended.code == 0 and "cap [/lid]" in ended.out, ended.err
    for text in (ended.out, ended.err):
        assert "\x1b" not in text and "\u202e" not in text
    ended = deepmac("check", tmp_path / "not\nthere\x1b.json")
    assert (
        ended.code == 2
        and len((ended.out + ended.err).splitlines()) <= 2
        and "\x1b" not in ended.out + ended.err
    )


def test_an_error_is_one_line_whatever_it_names(deepmac, monkeypatch) -> None:
    def refused(arguments: list[str]) -> None:
        raise DataError("a\x1b]0;title\x07\nb: cannot be used")

    monkeypatch.setattr(app, "_invoke", refused)
    ended = deepmac("check", "x")
    assert (ended.code, ended.err) == (2, "deepmac: a\\x1b]0;title\\x07\\nb: cannot be used\n")


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_no_number_is_cut_off_in_a_narrow_terminal(chain, deepmac, monkeypatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    pair = [chain[0] / "evaluate-teacher", chain[0] / "evaluate-student"]
    for words in (["compare", *pair], ["evaluate", "student", "--per-class", "--out", chain[0]]):
        ended = deepmac(*words)
        assert ended.code == 0 and "\u2026" not in ended.out
    wide = deepmac("compare", *pair, "--json")
    figure = json.loads(wide.out)["given_boxes"]["all"]
    assert figure


def ended(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = f"{sys.executable} -m deepmac_distill"
    return subprocess.run(
        ["bash", "-c", command.format(program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_closed_a_full_and_an_ascii_stdout(chain) -> None:
    status = "{} status " + str(chain[0])
    assert (closed := ended(status + " >&-")).returncode == 0 and closed.stderr == ""
    full = ended(status + " >/dev/full")
    assert full.returncode == 2 and full.stderr == (
        "deepmac: No space left on device; expected free space on the disk\n"
    )
    assert ended(status, PYTHONIOENCODING="ascii").returncode == 0
    assert ended("{} --help > /dev/full").returncode == 2
    assert ended(status + " 2>&- >/dev/full").returncode == 2


def test_a_disk_without_links_to_files_can_hold_a_run(chain, deepmac, monkeypatch, tmp_path) -> None:
    def no_links(*given, **more):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    run = tmp_path / "run"
    shutil.copytree(chain[0], run)
    ended = deepmac("pseudolabel", "--out", run)
    assert ended.code == 0 and "pseudolabel: done before, skipped" in ended.err
    assert not list(run.glob(".lock*"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            MemoryError("Unable to allocate 1 GiB"),
            "teacher: out of memory: Unable to allocate 1 GiB; expected less of "
            "teacher.train.batch_size, teacher.train.image_size_px, teacher.train.mask_instances_per_image",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0"),
            "Tried to allocate 20.00 GiB; expected",
        ),
        (
            OSError(28, "No space left on device", "state.pt"),
            "state.pt: No space left on device; expected free space",
        ),
    ],
)
def test_a_training_without_memory_or_disk_names_what_lowers_it(
    deepmac, scenes_toml: Path, tmp_path: Path, monkeypatch, error: Exception, says: str
) -> None:
    from deepmac_distill.training import loop

    def failing(*given):
        raise error

    monkeypatch.setattr(loop, "accumulate_gradients", failing)
    refused = deepmac("teach", "--config", scenes_toml, "--out", tmp_path / "run", "--device", "cpu")
    assert refused.code == 2 and says in refused.err.splitlines()[-1]


def test_a_path_that_is_not_utf_8_is_refused_before_anything_is_made(
    deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/run-\xff")
    ended = deepmac("run", scenes_toml, "--out", odd)
    assert ended.code == 2 and r"run-\udcff: holds bytes that are not UTF-8; expected a path in" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["\U0001f98a", "caf\u00e9", "\u0644\u0648\u0646"])
def test_paths_in_any_script_are_taken_by_every_path_flag(
    chain, deepmac, small_toml: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    shutil.copytree(chain[0] / "scenes-val", folder, ignore=shutil.ignore_patterns("done.json"))
    boxes = (folder / "instances.json").rename(folder / f"{name}.json")
    weights = shutil.copy(chain[0] / "teacher" / "weights.safetensors", folder / f"{name}.safetensors")
    images, toml = folder / "images", Path(shutil.copy(small_toml, folder / f"{name}.toml"))
    seen = ["--seen", ",".join(SEEN_SHAPES)]
    run, data = folder / "run", ["--annotations", boxes, "--images", images]
    for words in (
        ["check", boxes, "--images", images, *seen],
        ["pseudolabel", "--config", toml, "--model", weights, *data, *seen, "--out", run],
        ["show", run, "--images", images, "--out", folder / "sheet.png"],
        [
            "predict",
            images / "000001.png",
            "--boxes",
            boxes,
            "--model",
            weights,
            "--out",
            folder / f"{name}-masks",
        ],
    ):
        ended = deepmac(*words)
        assert ended.code == 0, ended.err
