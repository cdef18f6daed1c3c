"""Hashes of image files: made once, in the order of the files, under a bar where that takes long."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deepmac_distill.data import image_hashes
from deepmac_distill.data.image_hashes import sha256_of_files
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
