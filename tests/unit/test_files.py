from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from deepmac_distill.errors import RunError
from deepmac_distill.files import (
    remove_leftovers,
    sha256_of_file,
    sha256_of_json,
    write_json,
    written_whole,
)
from deepmac_distill.links import inner


def test_a_file_appears_only_when_its_block_has_ended_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    with written_whole(path) as aside:
        aside.write_text("half")
        assert not path.exists() and aside.parent == path.parent
    assert path.read_text() == "half"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as aside:
        aside.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_found_and_nothing_else_is_removed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "deep" / "a.txt") as aside:
        kept = aside.name
        raise FileNotFoundError
    for name in (kept, "a.part", ".hidden", "a.txt"):  # the first is what a SIGKILL would have left
        (tmp_path / "deep" / name).write_text("")
    remove_leftovers(tmp_path)
    assert {p.name for p in (tmp_path / "deep").iterdir()} == {"a.part", ".hidden", "a.txt"}
    remove_leftovers(tmp_path / "nowhere")


def test_json_is_written_for_people_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Zürich", "n": [1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Zürich" in text and text.endswith("}\n") and json.loads(text) == {"name": "Zürich", "n": [1]}


def test_hashes_are_sha256_of_the_bytes_and_of_canonical_json(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9c")
    assert sha256_of_json({"b": [1, 2], "a": 1}) == hashlib.sha256(b'{"a":1,"b":[1,2]}').hexdigest()
    assert sha256_of_json([1, 2]) != sha256_of_json([2, 1])


@pytest.mark.parametrize("link", ["a", "a/b", "a/b/c.json"])
def test_a_path_below_a_folder_leads_through_no_link(tmp_path: Path, link: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / link).parent.mkdir(parents=True)
    assert inner(tmp_path / "run", "a", "b", "c.json") == tmp_path / "run" / "a" / "b" / "c.json"
    (tmp_path / "run" / link).symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match=f"run/{link}: is a link"):
        inner(tmp_path / "run", "a", "b", "c.json")
