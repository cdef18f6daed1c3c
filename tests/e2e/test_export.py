"""`deepmac export`: the masks of a run for other tools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import deepmac_distill
from deepmac_distill.errors import RunError
from deepmac_distill.exports.formats import FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_is_written_in_every_format(chain, deepmac, tmp_path: Path, name: str) -> None:
    ended = deepmac("export", chain[0], "--format", name, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    rows = pq.read_table(chain[0] / "pseudolabel" / "masks.parquet", columns=["source"]).num_rows
    assert f"out: {rows} masks on 24 images: " in ended.out and "IoU with the masks: mean " in ended.out


def test_rules_are_those_of_the_run_or_those_that_are_given(chain, deepmac, tmp_path: Path) -> None:
    given = ["export", chain[0], "-f", "coco-rle", "--min-mask-score", "1", "--out"]
    ended = deepmac(*given, tmp_path / "dropped.json")
    coco, everything = COCO(str(tmp_path / "dropped.json")), COCO(str(chain[0] / "select" / "instances.json"))
    human = {id for id, one in everything.anns.items() if one["source"] == "human"}
    assert set(coco.anns) == human and len(coco.imgs) == len(everything.imgs)
    without = len(everything.anns) - len(human)
    assert f"{without} boxes without a mask ({without} rejected, 0 never drawn): dropped" in ended.out
    ended = deepmac(*given, tmp_path / "kept.json", "--without-mask", "keep")
    assert (
        len(COCO(str(tmp_path / "kept.json")).anns) == len(everything.anns) and "kept as boxes" in ended.out
    )


def test_a_label_file_alone_holds_the_same_masks(chain, deepmac, tmp_path: Path) -> None:
    labels = chain[0] / "pseudolabel" / "masks.parquet"
    for given, name in ((chain[0], "run.json"), (labels, "labels.json")):
        assert deepmac("export", given, "-f", "coco-rle", "--out", tmp_path / name).code == 0
    run, alone = (COCO(str(tmp_path / name)) for name in ("run.json", "labels.json"))
    assert run.anns == alone.anns


def test_the_python_interface_writes_the_same(chain, deepmac, tmp_path: Path) -> None:
    deepmac("export", chain[0], "-f", "coco-polygons", "--out", tmp_path / "a.json")
    done = deepmac_distill.Run(chain[0]).export("coco-polygons", tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert done.losses.masks == sum(done.masks.values())
    with pytest.raises(RunError, match="is there already"):
        deepmac_distill.Run(chain[0]).export("coco-polygons", tmp_path / "b.json")


def coco(folder: Path, segmentation: object, size: tuple[int, int] = (64, 64)) -> Path:
    """A file of one image, and the image, which is turned when viewed."""
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", size).save(folder / "a.jpg", exif=exif)
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 64, 64], "segmentation": segmentation}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 64, "width": 64}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [one | {"area": 64, "iscrowd": 0}],
    }
    (folder / "a.json").write_text(json.dumps(document))
    return folder / "a.json"


@pytest.mark.parametrize(("name", "turns"), [("yolo-seg", True), ("labelme", True), ("cvat", False)])
def test_images_that_readers_of_a_format_turn_are_counted(deepmac, tmp_path, name: str, turns: bool) -> None:
    file = coco(tmp_path, [[8, 8, 24, 8, 24, 24, 8, 24]])
    given = ["export", file, "-f", name, "--out"]
    ended = deepmac(*given, tmp_path / "out", "--images", tmp_path)
    says = f"1 images have an EXIF orientation, such as a.jpg: tools that read {name} turn them"
    assert ended.code == 0 and (says in ended.err) == turns
    assert "EXIF" not in deepmac(*given, tmp_path / "unknown").err  # whoever brings images knows them


def test_masks_that_a_format_holds_poorly_are_counted(deepmac, tmp_path: Path) -> None:
    dots = [(x, y) for x in range(0, 64, 4) for y in range(0, 64, 4)]
    mask = np.zeros((64, 64), np.uint8, order="F")
    mask[tuple(np.array(dots).T)] = 1
    code = coco_mask.encode(mask)
    file = coco(tmp_path, code | {"counts": code["counts"].decode()})
    lines = {}
    for name in ("yolo-seg", "coco-rle"):
        lines[name] = deepmac("export", file, "-f", name, "--out", tmp_path / name).out
    says = "1 masks lose more than a tenth; coco-rle and cvat hold them exactly"
    assert says in lines["yolo-seg"] and says not in lines["coco-rle"], lines


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["RUN"], "export: missing option '--format'"),
        (["RUN", "-f", "yolo"], "--format yolo: expected one of coco-polygons, coco-rle, yolo-seg"),
        (["RUN", "-f", "yolo-seg", "--without-mask", "ignore"], "yolo-seg holds drop alone"),
        (["RUN", "-f", "voc", "--min-mask-score", "7"], "min_mask_score: got 7.0, expected 0 to 1"),
        (["RUN", "-f", "voc", "--cut", "2"], "--cut: got 2.0, expected a number"),
        (["RUN", "-f", "voc", "--tolerance", "-1"], "--tolerance -1.0: expected 0 to 100 pixels"),
        (["RUN", "-f", "voc", "--tolerance", "nan"], "--tolerance nan: expected 0 to 100 pixels"),
        (["RUN", "-f", "voc", "--images", "gone"], "--images gone: no such folder"),
        (["RUN", "-f", "voc", "--out", "taken"], "taken: is there already; expected a new path"),
        (["gone", "-f", "voc"], "gone: nothing there; expected a run directory, a masks.parquet or a COCO"),
        (["folder", "-f", "voc"], "folder: no pseudolabel/masks.parquet; expected `deepmac pseudolabel"),
        (["bad.parquet", "-f", "voc"], "bad.parquet: cannot be read"),
        (["bad.json", "-f", "voc"], "bad.json: not JSON"),
        (["a.json", "-f", "voc", "--min-mask-score", "0.5"], "a.json: its masks are decided"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    chain, deepmac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("mine")
    Path("folder").mkdir()
    Path("bad.parquet").write_bytes(b"PAR1")
    Path("bad.json").write_text("{")
    Path("a.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    before = sorted(tmp_path.rglob("*"))
    ended = deepmac("export", *(chain[0] if word == "RUN" else word for word in arguments))
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err.splitlines()[-1] and "Traceback" not in ended.err
    assert sorted(tmp_path.rglob("*")) == before and Path("taken").read_text() == "mine"
