"""Tables of the cache are those of the file as it is now, whatever happened to file or cache."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.dataset import cache as cache_module
from deepmac_distill.dataset.cache import TableCache
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DataError
from deepmac_distill.storage.copies import cache_folder

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def write(path: Path, **yak: Any) -> Path:
    """A seen cat with a mask, and an unseen yak that is what `yak` says."""
    shape = {"bbox": [10, 10, 20, 20], "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "yak"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": SQUARE, "area": 400, **shape},
            {"id": 2, "image_id": 1, "category_id": 2, **shape, **yak},
        ],
    }
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were parsed."""
    seen: list[Path] = []
    ingest = cache_module.ingest

    def counted(path: Path, folder: Path, sizes: Any) -> Any:
        seen.append(path)
        return ingest(path, folder, sizes)

    monkeypatch.setattr(cache_module, "ingest", counted)
    return seen


def opened(path: Path, root: Path) -> Dataset:
    return Dataset.open(path, seen="cat", cache=root)


def settle(path: Path) -> None:
    """Make a file look as if nobody had touched it for a while."""
    os.utime(path, (time.time() - 100, time.time() - 100))


def entry(root: Path) -> Path:
    [folder] = [path for path in (root / "tables").iterdir() if not path.name.startswith(".")]
    return folder


def test_a_file_is_parsed_once_and_a_copy_of_it_not_at_all(
    tmp_path: Path, root: Path, parses: list[Path]
) -> None:
    path = write(tmp_path / "a.json")
    first = opened(path, root)
    shutil.copy(path, tmp_path / "b.json")
    again = opened(tmp_path / "b.json", root)
    assert parses == [path]
    assert again.tables.annotations.equals(first.tables.annotations)
    assert again.for_training().fingerprint == first.for_training().fingerprint


def test_a_changed_file_is_read_anew_even_at_the_same_size_and_time(tmp_path: Path, root: Path) -> None:
    path = write(tmp_path / "a.json", area=111)
    opened(path, root)
    stat = path.stat()
    write(path, area=222)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert opened(path, root).for_evaluation().annotations["area"].to_pylist() == [400, 222]


def test_a_file_that_lies_still_is_not_even_hashed_again(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.json")
    monkeypatch.setattr(cache_module, "SETTLED_SECONDS", -1.0)
    opened(path, root)
    monkeypatch.setattr(cache_module, "sha256_of_file", lambda _: pytest.fail("hashed"))
    opened(path, root)


def edit_a_byte(folder: Path) -> None:
    tables = folder / "annotations.arrow"
    content = bytearray(tables.read_bytes())
    content[len(content) // 2] ^= 1
    tables.write_bytes(content)


def cut(folder: Path) -> None:
    (folder / "annotations.arrow").write_bytes((folder / "annotations.arrow").read_bytes()[:-40])


def lose_a_table(folder: Path) -> None:
    (folder / "images.arrow").unlink()


def say_another_version(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["value"]["format"] = 0
    cache_module.write_checked(folder / "manifest.json", manifest["value"])


def edit_the_manifest(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("yak", "gnu"))


@pytest.mark.parametrize("harm", [edit_a_byte, cut, lose_a_table, say_another_version, edit_the_manifest])
def test_a_cache_that_does_not_fit_is_made_again(
    tmp_path: Path, root: Path, parses: list[Path], harm: Any
) -> None:
    path = write(tmp_path / "a.json")
    expected = opened(path, root).for_training()
    harm(entry(root))
    found = opened(path, root).for_training()
    assert len(parses) == 2
    assert found.annotations.equals(expected.annotations) and found.classes == expected.classes
    opened(path, root)
    assert len(parses) == 2


def test_good_tables_that_another_process_made_meanwhile_stay(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may write to their folder: what training sees of them is kept there."""
    path, ingest, made = write(tmp_path / "a.json"), cache_module.ingest, []

    def overtaken(*given: Any) -> Any:
        if not made:
            made.append(None)
            opened(path, root)
            made.append(entry(root).stat().st_ino)
        return ingest(*given)

    monkeypatch.setattr(cache_module, "ingest", overtaken)
    opened(path, root)
    assert entry(root).stat().st_ino == made[1]


def test_tables_of_another_file_are_not_believed(tmp_path: Path, root: Path, parses: list[Path]) -> None:
    path, other = write(tmp_path / "a.json"), write(tmp_path / "b.json", area=5)
    opened(path, root)
    own = entry(root)
    opened(other, root)
    [foreign] = [folder for folder in (root / "tables").iterdir() if folder != own]
    shutil.rmtree(own)
    shutil.copytree(foreign, own)
    assert opened(path, root).for_evaluation().annotations["area"].to_pylist() == [400, None]
    assert len(parses) == 3


def test_an_edited_fingerprint_is_computed_again(tmp_path: Path, root: Path) -> None:
    path = write(tmp_path / "a.json")
    expected = opened(path, root).for_training().fingerprint
    [kept] = entry(root).glob("training-*.json")
    kept.write_text(kept.read_text().replace(expected, "0" * 64))
    assert opened(path, root).for_training().fingerprint == expected


GARBAGE = [
    {"segmentation": SQUARE, "area": 400},
    {"segmentation": [[1, 2, 3]], "area": "big"},
    {"segmentation": [[8, 8, 4294967295, 8, 8, 24]]},
    {"segmentation": {"size": [1, 1], "counts": "??"}},
    {"segmentation": "nonsense", "area": float("nan")},
    {"segmentation": [[10, 10, 10, 10, 10, 10]]},
]


@pytest.mark.parametrize("warm", [False, True])
def test_garbage_in_hidden_masks_leaves_no_trace_on_a_cold_and_on_a_warm_cache(
    tmp_path: Path, root: Path, warm: bool
) -> None:
    clean = opened(write(tmp_path / "clean.json"), root).for_training()
    for number, garbage in enumerate(GARBAGE):
        path = write(tmp_path / f"{number}.json", **garbage)
        if warm:
            opened(path, root).for_training()
        found = opened(path, root).for_training()
        assert found.fingerprint == clean.fingerprint
        for name in ("polygons", "rle_counts", "area", "source", "status", "reason", "bbox", "segmentation"):
            assert found.annotations[name].to_pylist() == clean.annotations[name].to_pylist()
        assert found.document() == clean.document()


def test_a_hidden_mask_gives_no_box(tmp_path: Path, root: Path) -> None:
    views = [
        opened(write(tmp_path / f"{number}.json", bbox=None, **garbage), root).for_training()
        for number, garbage in enumerate(GARBAGE)
    ]
    assert len({view.fingerprint for view in views}) == 1
    assert views[0].annotations["status"].to_pylist() == ["ok", "degenerate"]
    assert views[0].annotations["reason"][1].as_py() == "its box comes from a hidden mask"
    shown = opened(tmp_path / "0.json", root).for_evaluation()
    assert shown.annotations["bbox"].to_pylist() == [[10, 10, 20, 20]] * 2


def test_an_error_in_a_hidden_mask_is_raised_by_the_view_that_sees_it(tmp_path: Path, root: Path) -> None:
    for garbage in ({"segmentation": [[1, 2, 3]]}, {"segmentation": [[8, 8, 4294967295, 8, 8, 24]]}):
        path = write(tmp_path / "a.json", **garbage)
        for _ in range(2):
            opened(path, root).for_training()
            with pytest.raises(DataError, match="annotation 2: segmentation"):
                opened(path, root).for_evaluation()


def test_a_cache_that_cannot_be_written_gives_way_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = TableCache(tmp_path / "file" / "cache")
    assert "cannot be written" in kept.note
    assert Dataset.open(write(tmp_path / "a.json"), seen="cat", cache=tmp_path / "file" / "cache").notes


def test_the_environment_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPMAC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/deepmac-distill")
    monkeypatch.setenv("DEEPMAC_CACHE", "/y")
    assert cache_folder() == Path("/y")


def test_sizes_from_images_are_those_of_the_images_as_they_are_now(
    tmp_path: Path, root: Path, parses: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.json")
    document = json.loads(path.read_text())
    del document["images"][0]["height"], document["images"][0]["width"]
    path.write_text(json.dumps(document))
    for folder, width in (("one", 60), ("two", 80)):
        (tmp_path / folder / "images").mkdir(parents=True)
        Image.new("RGB", (width, 40)).save(tmp_path / folder / "images" / "a.jpg")

    def width_in(folder: str) -> int:
        monkeypatch.chdir(tmp_path / folder)  # the same relative path means another folder
        images = ImageFolder(Path("images"))
        return int(Dataset.open(path, seen="cat", sizes=images, cache=root).tables.images["width"][0].as_py())

    assert [width_in("one"), width_in("one"), width_in("two")] == [60, 60, 80]
    assert len(parses) == 2
    Image.new("RGB", (70, 40)).save(tmp_path / "two" / "images" / "a.jpg")
    assert width_in("two") == 70
