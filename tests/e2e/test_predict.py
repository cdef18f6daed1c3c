"""`deepmac predict`: masks for boxes that a person gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from deepmac_distill.labels.cut import DEFAULT_CUT


@pytest.fixture
def photos(chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images in a folder of their own, below the working directory."""
    (tmp_path / "photos").mkdir()
    for name in ("000001.png", "000002.png"):
        shutil.copy(chain[0] / "scenes-val" / "images" / name, tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def written(folder: Path = Path()) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"photos"}


def test_it_writes_a_picture_and_coco_to_the_working_directory(chain, deepmac, photos: Path) -> None:
    image = (photos / "000001.png").rename(photos / "photo.v1.png")
    ended = deepmac("predict", image, "--box", "4,6,30,20", "--box", "50,50,40,40", "--model", chain[0])
    assert ended.code == 0, ended.err
    assert written() == {"photo.v1-masks.png", "photo.v1-masks.json"}
    assert "2 masks: photo.v1-masks.json photo.v1-masks.png" in ended.out
    assert "photo.v1.png: box 2 [50.0, 50.0, 40.0, 40.0]: mask of " in ended.out
    with Image.open("photo.v1-masks.png") as picture:
        assert picture.size == (64, 64)
    coco = COCO("photo.v1-masks.json")
    assert [a["bbox"] for a in coco.anns.values()] == [[4, 6, 30, 20], [50, 50, 40, 40]]
    for annotation in coco.anns.values():
        x, y, w, h = map(int, annotation["bbox"])
        mask = coco.annToMask(annotation)
        assert mask.shape == (64, 64) and mask.sum() == annotation["area"]
        assert mask[y : y + h, x : x + w].sum() == mask.sum()


def test_masks_end_where_they_are_cut(chain, deepmac, photos: Path) -> None:
    found = {}
    for cut in ("0.2", "0.5", "expected-iou", None):
        asked = [] if cut is None else ["--cut", cut]
        given = ["--box", "4,6,30,20", "--model", chain[0], "--out", f"{cut}"]
        assert deepmac("predict", photos / "000001.png", *given, *asked).code == 0
        (found[cut],) = json.loads(Path(f"{cut}.json").read_text())["annotations"]
    assert found["0.2"]["area"] >= found["0.5"]["area"] and found["0.2"]["cut"] == pytest.approx(0.2)
    by_rule = found["expected-iou"]
    assert by_rule["expected_iou"] >= max(found[cut]["expected_iou"] for cut in ("0.2", "0.5"))
    assert by_rule["cut"] == pytest.approx(by_rule["expected_iou"] / (1 + by_rule["expected_iou"]))
    assert found[None] == found[DEFAULT_CUT if isinstance(DEFAULT_CUT, str) else str(DEFAULT_CUT)]


def test_a_box_over_the_edge_is_clipped_and_said_so(chain, deepmac, photos: Path) -> None:
    given = ["--box", "4,6,30,20", "--box", "50,50,40,40", "--model", chain[0]]
    ended = deepmac("predict", photos / "000001.png", *given)
    note = "box 2 [50.0, 50.0, 40.0, 40.0]: over the edge, clipped to [50.0, 50.0, 14.0, 14.0]"
    assert note in ended.err and "box 1" not in ended.err


def test_several_images_get_a_folder_of_pictures_and_one_file(chain, deepmac, photos: Path) -> None:
    ended = deepmac("predict", photos, "--box", "4,6,30,20", "--box", "8,8,9,9", "--model", chain[0])
    assert ended.code == 0 and "4 masks: masks/masks.json" in ended.out
    assert written(Path("masks")) == {"000001.png", "000002.png", "masks.json"}
    coco = COCO("masks/masks.json")
    assert [(a["id"], a["image_id"]) for a in coco.anns.values()] == [(1, 1), (2, 1), (3, 2), (4, 2)]


def boxes_file(chain) -> dict:
    raw = json.loads((chain[0] / "scenes-val" / "instances.json").read_text())
    for annotation in raw["annotations"]:
        annotation.pop("segmentation"), annotation.pop("area", None)
    return raw


def test_boxes_come_from_a_coco_file_and_keep_their_ids_and_classes(chain, deepmac, photos: Path) -> None:
    raw = boxes_file(chain)
    raw["annotations"][0]["bbox"][2] = 0
    Path("boxes.json").write_text(json.dumps(raw))
    ended = deepmac("predict", *photos.iterdir(), "--boxes", "boxes.json", "--model", chain[0])
    assert ended.code == 0, ended.err
    assert "1 crowds and boxes without area are left out" in ended.out
    found = json.loads(Path("masks/masks.json").read_text())
    assert found["categories"] == [{"id": c["id"], "name": c["name"]} for c in raw["categories"]]
    asked = {a["id"]: a for a in raw["annotations"][1:] if a["image_id"] in (1, 2)}
    assert {a["id"] for a in found["annotations"]} == set(asked)
    for annotation in found["annotations"]:
        for key in ("image_id", "category_id", "bbox"):
            assert annotation[key] == asked[annotation["id"]][key]
    everything = chain[0] / "scenes-val" / "images"
    ended = deepmac("predict", everything, "--boxes", "boxes.json", "--model", chain[0], "--out", "all")
    assert ended.code == 0 and len(written(Path("all"))) == 9


def test_nothing_is_written_over_what_it_did_not_make(chain, deepmac, photos: Path) -> None:
    given = ["predict", photos / "000001.png", "--box", "4,6,30,20", "--model", chain[0]]
    assert deepmac(*given).code == deepmac(*given).code == 0  # its own
    Path("000001-masks.json").write_text('{"info": {}}')
    ended = deepmac(*given)
    assert ended.code == 2 and "000001-masks.json: is there and deepmac did not make it" in ended.err
    ended = deepmac(*given, "--out", photos / "000001")
    assert ended.code == 2 and "000001.png: is an input; expected another --out" in ended.err
    assert written(photos) == {"000001.png", "000002.png"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["photos"], "predict: expected either --box, once per object, or --boxes FILE.json"),
        (["photos", "--box", "1,1,9,9", "--boxes", "b.json"], "predict: expected either --box"),
        (["--box", "1,1,9,9"], "predict: got no image, expected at least one beside --box"),
        (["--boxes", "gone.json"], "gone.json: cannot be read"),
        (["photos", "--boxes", "empty.json"], "empty.json: no box on the images given"),
        (["--boxes", "boxes.json"], "000001.png: no such file; expected an image"),
        (["photos", "--box", "1,1,9,9", "--box", "70,70,9,9"], "no area in the 64 x 64 image"),
        (["photos", "gone.png", "--box", "1,1,9,9"], "gone.png: no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    chain, deepmac, photos: Path, arguments: list[str], says: str
) -> None:
    raw = boxes_file(chain)
    Path("boxes.json").write_text(json.dumps(raw))
    Path("empty.json").write_text(json.dumps({**raw, "annotations": []}))
    ended = deepmac("predict", *arguments, "--model", chain[0])
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err.splitlines()[-1]
    assert written() == {"boxes.json", "empty.json"}


def test_a_large_photograph_gets_a_picture_to_look_at_or_a_whole_one(chain, deepmac, photos: Path) -> None:
    with Image.open(photos / "000001.png") as image:
        image.resize((2600, 1300)).save(photos / "large.png")
    given = ["predict", photos / "large.png", "--box", "400,600,900,500", "--model", chain[0]]
    for flags, size in (([], (2000, 1000)), (["--full-size"], (2600, 1300))):
        ended = deepmac(*given, "--out", f"out{len(flags)}", *flags)
        assert ended.code == 0, ended.err
        with Image.open(f"out{len(flags)}.png") as picture:
            assert picture.size == size
        found = json.loads(Path(f"out{len(flags)}.json").read_text())
        assert found["annotations"][0]["segmentation"]["size"] == [1300, 2600]
