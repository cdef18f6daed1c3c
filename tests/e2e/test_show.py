"""`deepmac show`: a teacher's masks on a sheet, without any truth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from deepmac_distill.data.synthetic import SEEN_SHAPES


def test_a_sheet_has_a_row_for_each_class_of_teacher_masks(chain, deepmac, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = deepmac("show", chain[0])
    assert ended.code == 0, ended.err
    table = pq.read_table(chain[0] / "pseudolabel" / "masks.parquet")
    drawn = [row for row in table.to_pylist() if row["source"] == "teacher"]
    by_class = {
        name: sum(row["category_name"] == name for row in drawn)
        for name in {r["category_name"] for r in drawn}
    }
    assert not set(by_class) & set(SEEN_SHAPES)
    assert ended.out == f"sheet.png: {sum(min(3, count) for count in by_class.values())} masks\n"
    with Image.open("sheet.png") as picture:
        assert picture.height > 260 * len(by_class) and picture.width > 3 * 260


def test_a_class_and_the_lowest_masks_can_be_asked_for(chain, deepmac, tmp_path: Path) -> None:
    name = next(
        row["category_name"]
        for row in pq.read_table(chain[0] / "pseudolabel" / "masks.parquet").to_pylist()
        if row["source"] == "teacher"
    )
    out = tmp_path / "sheet.png"
    ended = deepmac("show", chain[0], "--class", name, "--out", out)
    assert ended.code == 0 and ended.out.endswith((": 1 masks\n", ": 2 masks\n", ": 3 masks\n"))
    ended = deepmac("show", chain[0], "--lowest", "5", "--out", out)  # over its own sheet
    assert (ended.code, ended.out) == (0, f"{out}: 5 masks\n")


def test_labels_that_lie_in_no_run_need_their_images(chain, deepmac, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    labels = shutil.copy(chain[0] / "pseudolabel" / "masks.parquet", tmp_path / "a" / "masks.parquet")
    ended = deepmac("show", labels, "--out", tmp_path / "sheet.png")
    assert ended.code == 2 and "not in a run, so its images are not known; expected --images" in ended.err
    images = chain[0] / "scenes-train" / "images"
    assert deepmac("show", labels, "--images", images, "--out", tmp_path / "sheet.png").code == 0


def test_images_outside_a_run_are_turned_on_request_and_those_of_a_run_by_its_key(
    chain, deepmac, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    labels = shutil.copy(chain[0] / "pseudolabel" / "masks.parquet", tmp_path / "a" / "masks.parquet")
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    for source in (chain[0] / "scenes-train" / "images").iterdir():
        with Image.open(source) as image:
            image.save(tmp_path / "a" / source.name, exif=exif)
    given = ["show", labels, "--images", tmp_path / "a", "--out"]
    assert deepmac(*given, tmp_path / "stored.png").code == 0
    assert deepmac(*given, tmp_path / "turned.png", "--exif", "apply").code == 0
    assert (tmp_path / "stored.png").read_bytes() != (tmp_path / "turned.png").read_bytes()
    assert deepmac(*given, tmp_path / "x.png", "--exif", "maybe").code == 2
    ended = deepmac("show", chain[0], "--out", tmp_path / "x.png", "--exif", "apply")
    assert ended.code == 2 and "images of a run are read by its data.exif" in ended.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--class", "dorp"], "class dorp: no mask of a teacher; expected one such as drop"),
        (["--lowest", "0"], "show: invalid value for '--lowest'"),
        (["--images", "gone"], "no such file; expected an image"),
        (["--out", "theirs.png"], "theirs.png: is there and deepmac did not make it"),
    ],
)
def test_what_cannot_be_shown_is_one_line(chain, deepmac, tmp_path, monkeypatch, flags, says) -> None:
    if "dorp" in flags:  # a name near one of the classes that the teacher labeled
        names = {row["name"] for row in categories(chain[0])} - set(SEEN_SHAPES)
        near = min(names)
        flags, says = (
            ["--class", f"{near}x"],
            f"class {near}x: no mask of a teacher; expected one such as {near}",
        )
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("theirs.png")
    before = Path("theirs.png").read_bytes()
    ended = deepmac("show", chain[0], *flags)
    assert ended.code == 2 and says in ended.err and len(ended.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.png"]
    assert Path("theirs.png").read_bytes() == before


def categories(run: Path) -> list[dict[str, object]]:
    return json.loads((run / "scenes-train" / "instances.json").read_text())["categories"]


def test_a_run_without_labels_and_no_run_at_all_are_refused(run_copy, deepmac, tmp_path: Path) -> None:
    ended = deepmac("show", run_copy("pseudolabel"))
    assert ended.code == 2 and "no pseudolabel/masks.parquet; expected `deepmac pseudolabel" in ended.err
    ended = deepmac("show", tmp_path / "gone.parquet")
    assert ended.code == 2 and "gone.parquet: nothing there; expected a run" in ended.err
