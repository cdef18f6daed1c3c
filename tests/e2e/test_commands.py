"""The command as it is installed, and its help."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    "command", [["-m", "deepmac_distill"], [str(Path(sys.executable).with_name("deepmac"))]]
)
def test_the_installed_command_is_the_module(command: list[str]) -> None:
    if command[0] == "-m":
        command = [sys.executable, *command]
    ended = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stdout.strip().count(".") == 2


def test_a_process_of_its_own_ends_with_the_code_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deepmac_distill", "run", "nowhere.toml"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr == "deepmac: nowhere.toml: no such pipeline file; expected a TOML file\n"
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_stage(deepmac: Callable[..., Any]) -> None:
    ended = deepmac("--help")
    assert ended.code == 0
    for command in ("run", "teach", "pseudolabel", "student", "evaluate", "compare", "check", "predict"):
        assert command in ended.out
        assert deepmac(command, "--help").code == 0
