"""What every format holds, structurally; the tools that read them are asked in interop/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import ConfigError, DataError, RunError
from deepmac_distill.exports.formats import FORMATS, format_of
from deepmac_distill.exports.voc import colors
from deepmac_distill.stages.export import Choice, Exported, export

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

H, W = 60, 80
NAMES = {1: 'naïve "cat" & co', 7: "ヤク"}
FOLDERS = ("yolo-seg", "voc", "labelme", "label-studio")


def ring() -> np.ndarray:
    """A disk with a hole: a polygon has none."""
    y, x = np.mgrid[:H, :W]
    away = np.hypot(y - 20, x - 20)
    return (away < 14) & (away > 5)


def pair() -> np.ndarray:
    """Two parts."""
    mask = np.zeros((H, W), bool)
    mask[40:55, 5:20] = mask[42:50, 30:44] = True
    return mask


def code(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [H, W], "counts": rle["counts"].decode()}


def box(mask: np.ndarray) -> list[float]:
    return coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))).tolist()


POLYGON = [[50.0, 10.0, 70.0, 10.0, 70.0, 30.0, 50.0, 30.0]]
CROWD = np.zeros((H, W), bool)
CROWD[50:58, 60:78] = True


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """1 a person's polygon, 2 a ring and 3 two parts by a teacher, 4 a box, 5 a crowd; an empty image."""
    of_teacher = {"source": "teacher", "mask_score": 0.75}
    annotations: list[dict[str, Any]] = [
        {"id": 1, "category_id": 1, "bbox": [50, 10, 20, 20], "segmentation": POLYGON, "source": "human"},
        {"id": 2, "category_id": 7, "bbox": box(ring()), "segmentation": code(ring()), **of_teacher},
        {"id": 3, "category_id": 7, "bbox": box(pair()), "segmentation": code(pair()), **of_teacher},
        {"id": 4, "category_id": 1, "bbox": [50, 34, 12, 12], "source": "none"},
        {"id": 5, "category_id": 1, "bbox": box(CROWD), "segmentation": code(CROWD), "iscrowd": 1},
    ]
    document = {
        "deepmac_distill": {"schema": 3, "seen_mask_classes": ["cat"]},
        "images": [
            {"id": 3, "file_name": "sub/a b.png", "height": H, "width": W},
            {"id": 9, "file_name": "empty.png", "height": H, "width": W},
        ],
        "categories": [{"id": id, "name": name} for id, name in NAMES.items()],
        "annotations": [one | {"image_id": 3} for one in annotations],
    }
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for image in document["images"]:
        Image.new("RGB", (W, H)).save(tmp_path / "images" / image["file_name"])
    (tmp_path / "in.json").write_text(json.dumps(document))
    return tmp_path / "in.json"


def written(source: Path, name: str, without: str = "drop") -> tuple[Path, Exported]:
    out = source.parent / f"out-{name}-{without}"
    images = source.parent / "images"
    return out, export(source, name, out, choice=Choice(without_mask=without), images=images)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("name", FORMATS)
def test_every_box_and_mask_is_accounted_for(source: Path, name: str) -> None:
    _, done = written(source, name)
    crowds = int(not format_of(name).has_crowds)
    assert done.masks == {"human": 2 - crowds, "teacher": 2} and done.crowds_left_out == crowds
    assert done.without_mask == {"rejected": 0, "unlabeled": 1} and done.images == 2
    assert 0.9 < done.losses.worst_iou <= done.losses.mean_iou <= 1
    exact = name in ("coco-rle", "cvat", "voc")
    assert (done.losses.worst_iou == 1) >= exact
    assert done.losses.holes_cut == (0 if exact else 1)
    assert done.losses.parts_joined == (1 if name in ("yolo-seg", "label-studio") else 0)


def test_a_mean_over_no_mask_is_no_loss(source: Path) -> None:
    raw = json.loads(source.read_text())
    source.write_text(json.dumps(raw | {"annotations": raw["annotations"][3:4]}))
    for name in FORMATS:
        _, done = written(source, name)
        assert (done.losses.masks, done.losses.mean_iou) == (0, 1.0)


@pytest.mark.parametrize("name", ["coco-polygons", "coco-rle"])
def test_coco_holds_the_masks_with_their_source_and_our_reader_takes_it(source: Path, name: str) -> None:
    out, _ = written(source, name)
    coco = COCO(str(out))
    assert sorted(coco.anns) == [1, 2, 3, 5] and len(coco.imgs) == 2
    assert iou(coco.annToMask(coco.anns[2]).astype(bool), ring()) > 0.97
    assert iou(coco.annToMask(coco.anns[3]).astype(bool), pair()) > 0.97
    if name == "coco-polygons":
        assert coco.anns[1]["segmentation"] == POLYGON
        assert all(isinstance(a["segmentation"], list) for a in coco.anns.values())
    assert coco.anns[2]["attributes"] == {"annotation_id": 2, "source": "teacher", "mask_score": 0.75}
    found = Dataset.open(out, seen="all").for_training()
    assert found.annotations["source"].to_pylist() == ["human", "teacher", "teacher", "human"]
    again = source.parent / "again"
    export(out, name, again)
    assert json.loads(again.read_text())["annotations"] == json.loads(out.read_text())["annotations"]


@pytest.mark.parametrize("name", ["coco-polygons", "coco-rle"])
def test_coco_keeps_or_ignores_a_box_without_a_mask(source: Path, name: str) -> None:
    kept, _ = written(source, name, "keep")
    assert COCO(str(kept)).anns[4]["segmentation"] == []
    ignored, done = written(source, name, "ignore")
    coco = COCO(str(ignored))
    assert coco.anns[4]["iscrowd"] == 1 and coco.annToMask(coco.anns[4]).sum() == 144
    assert coco.anns[4]["source"] == "none" and done.masks == {"human": 2, "teacher": 2}
    assert Dataset.open(ignored, seen="all").for_training().annotations["source"].to_pylist()[3] == "none"


def drawn(points: list[list[float]]) -> np.ndarray:
    canvas = Image.new("1", (W, H))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=1, outline=1)
    return np.asarray(canvas)


def test_yolo_has_a_polygon_a_line_an_empty_file_and_links(source: Path) -> None:
    out, _ = written(source, "yolo-seg")
    lines = [line.split() for line in (out / "labels/sub/a b.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["0", "1", "1"] and all(len(line) >= 7 for line in lines)
    for line, mask in zip(lines[1:], (ring(), pair()), strict=True):
        points = np.array(line[1:], float).reshape(-1, 2)
        assert points.min() >= 0 and points.max() <= 1
        assert iou(drawn((points * (W, H)).tolist()), mask) > 0.9
    assert (out / "labels/empty.txt").read_text() == ""
    assert (out / "images/sub/a b.png").resolve() == source.parent / "images/sub/a b.png"
    assert '  0: "naïve \\"cat\\" & co"\n  1: "ヤク"\n' in (out / "data.yaml").read_text()


def test_voc_holds_masks_as_pictures_and_void_where_nobody_knows(source: Path) -> None:
    out, _ = written(source, "voc", "ignore")
    classes, objects = (
        Image.open(out / kind / "sub/a b.png") for kind in ("SegmentationClass", "SegmentationObject")
    )
    assert np.array_equal(np.asarray(objects) == 2, ring()) and np.array_equal(
        np.asarray(objects) == 3, pair()
    )
    assert set(np.unique(np.asarray(classes))) == {0, 1, 2, 255}
    assert (np.asarray(objects) == 255)[34:46, 50:62].all()
    palette = np.array(classes.getpalette()).reshape(-1, 3)
    assert np.array_equal(palette, colors())
    tree = ElementTree.parse(out / "Annotations/sub/a b.xml")
    assert [entry.findtext("difficult") for entry in tree.iter("object")] == ["0", "0", "0", "1", "1"]
    assert tree.findtext("object/name") == NAMES[1] and tree.findtext("object/bndbox/xmax") == "70.0"
    assert (out / "ImageSets/Segmentation/train.txt").read_text() == "sub/a b\nempty\n"
    assert (out / "labelmap.txt").read_text().splitlines()[2] == 'naïve "cat" & co:128,0,0::'


def test_voc_has_a_line_for_each_class_whatever_its_name(source: Path) -> None:
    document = json.loads(source.read_text())
    odd = ["two\nlines", "#comment", "a:b"]
    for category, name in zip(document["categories"], odd, strict=False):
        category["name"] = name
    source.write_text(json.dumps(document))
    out, _ = written(source, "voc")
    lines = (out / "labelmap.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert all(line.count(":") == 3 and not line.startswith("#") for line in lines)
    names = {line.partition(":")[0] for line in lines}
    drawn = {
        one.text for path in out.rglob("*.xml") for one in ElementTree.parse(path).iterfind("object/name")
    }
    assert drawn and drawn <= names


def test_labelme_ties_parts_together_and_leads_to_the_image(source: Path) -> None:
    out, _ = written(source, "labelme", "keep")
    found = json.loads((out / "sub/a b.json").read_text())
    assert [(s["group_id"], s["shape_type"]) for s in found["shapes"]] == [
        *((1, "polygon"), (2, "polygon"), (3, "polygon"), (3, "polygon"), (4, "rectangle")),
    ]
    assert (out / "sub" / found["imagePath"]).resolve() == source.parent / "images/sub/a b.png"
    parts = [drawn(shape["points"]) for shape in found["shapes"] if shape["group_id"] == 3]
    assert np.array_equal(parts[0] | parts[1], pair())
    assert found["shapes"][1]["description"] == "teacher, mask_score 0.75"


def test_cvat_holds_masks_by_rows_and_declares_what_it_states(source: Path) -> None:
    out, _ = written(source, "cvat", "keep")
    tree = ElementTree.parse(out)
    image, empty = tree.iter("image")
    assert (image.get("name"), empty.get("name")) == ("sub/a b.png", "empty.png")
    shape = image.findall("mask")[1]
    runs = list(map(int, shape.get("rle").split(",")))
    height, width = int(shape.get("height")), int(shape.get("width"))
    mask = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width).astype(bool)
    left, top = int(shape.get("left")), int(shape.get("top"))
    assert np.array_equal(mask, ring()[top : top + height, left : left + width])
    given = {entry.get("name"): entry.text for entry in shape.iter("attribute")}
    assert given["source"] == "teacher" and given["annotation_id"] == "2" and given["is_crowd"] == "false"
    declared = {entry.findtext("name") for entry in tree.iter("attribute") if entry.find("name") is not None}
    assert set(given) <= declared
    assert len(image.findall("box")) == 1 and len(image.findall("mask")) == 4


def test_label_studio_has_tasks_with_an_interface_that_fits(source: Path) -> None:
    out, _ = written(source, "label-studio", "keep")
    first, empty = json.loads((out / "tasks.json").read_text())
    assert (
        unquote(first["data"]["image"]).endswith("?d=sub/a b.png") and empty["annotations"][0]["result"] == []
    )
    regions = first["annotations"][0]["result"]
    assert [region["type"] for region in regions] == ["polygonlabels"] * 3 + ["rectanglelabels"]
    points = np.array(regions[2]["value"]["points"]) * (W / 100, H / 100)
    rle = coco_mask.merge(coco_mask.frPyObjects([points.ravel().tolist()], H, W))
    assert iou(coco_mask.decode(rle).astype(bool), pair()) > 0.97
    interface = ElementTree.parse(out / "interface.xml").getroot()
    assert {entry.get("name") for entry in interface} == {"image", "polygon", "rectangle"}
    assert [entry.get("value") for entry in interface.find("PolygonLabels")] == list(NAMES.values())


def test_characters_that_xml_cannot_hold_are_replaced(source: Path) -> None:
    raw = json.loads(source.read_text())
    raw["categories"][0]["name"] = "c\x01at"
    source.write_text(json.dumps(raw))
    out, _ = written(source, "cvat")
    assert "c\ufffdat" in {entry.findtext("name") for entry in ElementTree.parse(out).iter("label")}


@pytest.mark.parametrize(
    ("name", "without", "says"),
    [
        ("png", "drop", "--format png: expected one of coco-polygons, coco-rle"),
        ("yolo-seg", "keep", "--without-mask keep: yolo-seg holds drop alone"),
        ("labelme", "ignore", "--without-mask ignore: labelme holds drop or keep alone"),
        ("voc", "guess", "--without-mask guess: voc holds drop or keep or ignore alone"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(source: Path, name: str, without: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"expected one of|alone") as error:
        written(source, name, without)
    assert says in str(error.value)


def test_images_whose_names_differ_in_the_suffix_alone_are_refused(source: Path) -> None:
    raw = json.loads(source.read_text())
    raw["images"][1]["file_name"] = "sub/a b.jpg"
    source.write_text(json.dumps(raw))
    for name in ("yolo-seg", "voc", "labelme"):
        with pytest.raises(DataError, match="but for the suffix"):
            written(source, name)
    assert list(source.parent.glob("*out*")) == list(source.parent.glob(".*")) == []


@pytest.mark.parametrize("name", ["coco-rle", "labelme"])
def test_nothing_that_is_there_is_written_over(source: Path, name: str) -> None:
    out, _ = written(source, name)
    before = {path: path.read_bytes() for path in [out, *out.rglob("*")] if path.is_file()}
    with pytest.raises(RunError, match="is there already; expected a new path"):
        written(source, name)
    assert before == {path: path.read_bytes() for path in [out, *out.rglob("*")] if path.is_file()}
