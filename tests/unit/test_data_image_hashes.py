"""Hashes of image files: made once, in the order of the files, under a bar where that takes long."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deepmac_distill.data import image_hashes
from deepmac_distill.data.image_hashes import sha256_of_files
from deepmac_distill.files import sha256_of_file
from deepmac_distill.progress import Bar, Silent


class Bars(Silent):
    def __init__(self) -> None:
        self.totals: list[int] = []
        self.done = 0

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0, unit: str = "it") -> Iterator[Bar]:
        self.totals.append(total)
        yield self

    def advance(self, count: int = 1, **figures: float) -> None:
        self.done += count


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("DEEPMAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_hashes, "SETTLED_SECONDS", -1)  # written just now, and nobody writes again
    for name in "cab":
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return [tmp_path / name for name in "cab"]


def test_hashes_are_in_the_order_of_the_files_known_or_not(files: list[Path], tmp_path: Path) -> None:
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert sha256_of_files(tmp_path, files[1:]) == expected[1:]
    assert sha256_of_files(tmp_path, files) == expected
    assert sha256_of_files(tmp_path, [*files[::-1], files[0]]) == [*expected[::-1], expected[0]]


def test_many_bytes_show_a_bar_that_ends_and_known_ones_none(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many, again = Bars(), Bars(), Bars()
    sha256_of_files(tmp_path, files[:1], few)
    monkeypatch.setattr(image_hashes, "WORTH_A_BAR", 1500)
    sha256_of_files(tmp_path, files, many)
    sha256_of_files(tmp_path, files, again)
    assert (few.totals, many.totals, many.done, again.totals) == ([], [2], 2, [])


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from now on."""
    read: list[str] = []
    monkeypatch.setattr(
        image_hashes, "sha256_of_file", lambda path: read.append(path.name) or sha256_of_file(path)
    )
    return read


def test_a_file_is_read_again_only_where_it_changed(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256_of_files(tmp_path, files)
    read = hashed(monkeypatch)
    files[1].write_bytes(b"other")
    assert sha256_of_files(tmp_path, files)[1] == hashlib.sha256(b"other").hexdigest()
    assert sha256_of_files(tmp_path, [*files[1:], tmp_path / "a"])[0] == hashlib.sha256(b"other").hexdigest()
    assert read == ["a"]


@pytest.mark.parametrize("at", [0, 40, -1])
def test_hashes_that_were_damaged_are_made_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    expected = sha256_of_files(tmp_path, files)
    (kept,) = (tmp_path / "cache" / "images").iterdir()
    held = bytearray(kept.read_bytes())
    held[at] ^= 1
    kept.write_bytes(held)
    read = hashed(monkeypatch)
    assert sha256_of_files(tmp_path, files) == expected and read == ["c", "a", "b"]


def test_a_name_that_is_no_utf_8_has_a_hash(files: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.jpg")
    odd.write_bytes(b"odd")
    for _ in range(2):
        assert sha256_of_files(tmp_path, [odd]) == [hashlib.sha256(b"odd").hexdigest()]
