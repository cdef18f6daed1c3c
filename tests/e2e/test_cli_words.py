"""The words of the command line: help, mistakes in one line, names that changed, short runs, closed pipes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from deepmac_distill.cli import app
from deepmac_distill.stopping import Stopped


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--sed", "3"], "run: no such option: --sed"),
        (["rnu"], "no such command 'rnu'"),
        (["run"], "pipeline: got none, expected one file"),
        (["run", "a.toml", "--config", "b.toml"], "pipeline: got a.toml and --config b.toml, expected one"),
        (["teach", "--steps", "0"], "teach: invalid value for '--steps'"),
        (["teach", "--seed", "few"], "teach: invalid value for '--seed'"),
        (["detect", "a.png"], "detect: missing option '--model'"),
        (["compare", "a"], "compare: missing argument 'b'"),
        (["pseudolabel", "--teacher", "w"], "pseudolabel: --teacher: it is now called --model"),
        (["teach", "--pipeline", "a.toml"], "teach: --pipeline: it is now called --config"),
        (["evaluate", "w.safetensors"], "w.safetensors: expected teacher, student, student-seen"),
        (
            ["evaluate", "teacher", "--model", "w"],
            "evaluate: got teacher and --model w, expected one of them",
        ),
        (["status", "nothing"], "nothing: no run there; expected a run directory"),
        (["show", "nothing"], "nothing: nothing there; expected a run directory or a masks.parquet"),
        (["status", "x" * 300], f"{'x' * 300}: File name too long; expected a shorter name"),
        (
            ["check", "x" * 300],
            f"{'x' * 300}/annotations.parquet: File name too long; expected a shorter name",
        ),
        (["init", "x" * 300 + ".toml"], f"{'x' * 300}.toml: File name too long; expected a shorter name"),
        (["teach"], "no run and no data named; expected --config, --annotations, or --out of a run"),
    ],
)
def test_a_mistake_in_the_words_is_one_line_and_code_two(deepmac, arguments: list[str], says: str) -> None:
    ended = deepmac(*arguments)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith(f"deepmac: {says}") and "deepmac: deepmac" not in line


@pytest.mark.parametrize("arguments", [["-h"], [], ["run", "-h"], ["forecast", "-h"], ["models", "--help"]])
def test_help_is_at_hand(deepmac, arguments: list[str]) -> None:
    ended = deepmac(*arguments)
    assert ended.code == 0 and "Usage: deepmac" in ended.out and ended.err == ""


def test_completion_is_on() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "deepmac_distill"],
        env={
            **os.environ,
            "_DEEPMAC_COMPLETE": "complete_bash",
            "COMP_WORDS": "deepmac pse",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == ["pseudolabel"]


@pytest.mark.parametrize("arguments", ["--help", "compare {0} {0} --json", "compare {0} {0}"])
def test_a_reader_that_has_read_enough_is_no_error(chain, arguments: str) -> None:
    given = arguments.format(chain[0] / "evaluate-student").split()
    with subprocess.Popen(
        [sys.executable, "-m", "deepmac_distill", *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()  # as `| head -0`
        told = process.stderr.read()  # a bar may be there, and no more
    assert process.returncode == 0
    assert not any(word in told for word in (b"deepmac:", b"Traceback", b"Exception", b"Error")), told


def test_a_short_run_shortens_its_warm_up_and_says_so(deepmac, scenes_toml: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.toml"
    longer.write_text(scenes_toml.read_text().replace("steps = 12", "steps = 60\nwarmup_steps = 30"))
    ended = deepmac("teach", "--config", longer, "--out", tmp_path / "run", "--steps", "2")
    assert ended.code == 0, ended.err
    note = "teacher.train.warmup_steps: 1 instead of 30, as steps are 2 instead of 60"
    assert note in ended.err and "student.train" not in ended.err


def helps(command: Any) -> Iterator[str]:
    """Every text of a command and of those in it."""
    yield command.help or ""
    yield from (getattr(parameter, "help", None) or "" for parameter in command.params)
    for inner in getattr(command, "commands", {}).values():
        yield from helps(inner)


def test_no_word_of_a_help_text_is_taken_for_its_style() -> None:
    """In help texts [word] is markup, and is not printed."""
    texts = list(helps(typer.main.get_command(app.app)))
    assert len(texts) > 200 and not [text for text in texts if re.search(r"(?<!\\)\[[a-z#/@]", text)]


def test_the_chain_comes_first_in_the_list_of_commands(deepmac) -> None:
    said = deepmac("--help").out
    order = [
        said.index(f" {name} ") for name in ("run", "teach", "status", "show", "evaluate", "detect", "check")
    ]
    assert order == sorted(order)


def test_every_command_that_takes_a_pipeline_takes_the_shared_options(deepmac) -> None:
    for name in ("run", "forecast", "teach", "pseudolabel", "student", "evaluate", "retention"):
        said = deepmac(name, "--help").out
        for flag in ("--config", "--seed", "--strict", "--set", "--out", "--device", "--seen", "--data"):
            assert flag in said, (name, flag)
    for name in ("run", "forecast", "teach", "student"):
        assert "--steps" in deepmac(name, "--help").out


def test_a_recipe_is_named_by_its_name_everywhere(deepmac, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (["run", "demo"], ["forecast", "demo"], ["teach", "-c", "demo"]):
        ended = deepmac(*given, "--set", "seed=-1")
        assert ended.code == 2 and "demo.toml: seed: got -1, expected at least 0" in ended.err
    ended = deepmac("run", "dmeo")
    assert ended.code == 2 and "dmeo: no such pipeline file; expected a TOML file, or a recipe: " in ended.err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_one_line(deepmac, monkeypatch) -> None:
    def interrupted(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "_invoke", interrupted)
    ended = deepmac("run", "demo")
    assert (ended.code, ended.err) == (130, "deepmac: stopped; the same command goes on from what is done\n")


def test_a_working_directory_that_is_gone_is_one_line(deepmac, monkeypatch, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    ended = deepmac("status", tmp_path)
    assert ended.code == 2 and ended.err.startswith("deepmac: working directory: No such file"), ended.err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_one_line_that_says_what_was_kept_and_has_the_code_of_shells(
    deepmac, monkeypatch, number: signal.Signals, code: int
) -> None:
    monkeypatch.setattr(app, "_invoke", lambda arguments: signal.raise_signal(number))
    before = signal.default_int_handler  # whoever started the tests may have ignored it
    found = signal.signal(number, before)
    ended = deepmac("run", "demo")
    assert (ended.code, ended.err) == (code, "deepmac: stopped; the same command goes on from what is done\n")
    assert signal.getsignal(number) is before
    signal.signal(number, found)

    def saved(arguments: list[str]) -> None:
        raise Stopped(number, "saved after step 7 of 12")

    monkeypatch.setattr(app, "_invoke", saved)
    ended = deepmac("run", "demo", "--force")
    assert (ended.code, ended.err) == (
        code,
        "deepmac: stopped, saved after step 7 of 12; the same command without --force goes on from what "
        "is done\n",
    )
