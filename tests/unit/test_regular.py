"""What has the name of a file and is none is refused unopened, and no file is larger than its kind."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from deepmac_distill.config.reading import load_pipeline
from deepmac_distill.errors import ConfigError, RunError
from deepmac_distill.evaluation.results import read_result
from deepmac_distill.files import sha256_of_file
from deepmac_distill.machine import refused_by_the_machine
from deepmac_distill.made_with import read_done
from deepmac_distill.regular import MOST_HOLES_BYTES, UnfitFile, opened, read_small, require_regular


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def holes(path: Path, size: int = 20 * 2**30) -> None:
    with path.open("wb") as file:
        file.write(b"{}")
        file.truncate(size)


ODD = {
    "is a pipe": os.mkfifo,
    "is a folder": Path.mkdir,
    "is a device": lambda path: path.symlink_to("/dev/zero"),
    "is a socket": a_socket,
    "has holes of": holes,
}


@pytest.mark.parametrize(("what", "make"), ODD.items())
def test_what_is_no_file_is_refused_by_all_that_read_one(
    tmp_path: Path, what: str, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "done.json"
    make(path)
    for read in (require_regular, opened, read_small, sha256_of_file):
        with pytest.raises(UnfitFile) as caught:
            read(path)
        assert (refused_by_the_machine(caught.value) or "").startswith(f"{path}: {what}")
    with pytest.raises(RunError, match=r"done.json: cannot be read; --force redoes"):
        read_done(path)
    with pytest.raises(RunError, match=f"done.json: cannot be read: {what}"):
        read_result(path, dict)
    with pytest.raises(ConfigError, match=f"done.json: {what}"):
        load_pipeline(path)


def test_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * 10)
    assert read_small(path, 10) == b"x" * 10
    with pytest.raises(UnfitFile, match="holds more than 0 MiB"):
        read_small(path, 9)


def test_few_holes_are_no_reason(tmp_path: Path) -> None:
    holes(tmp_path / "a", MOST_HOLES_BYTES // 2)
    require_regular(tmp_path / "a")
