"""The command that `deepmac check` states for another format runs as it is printed, and makes COCO."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.dataset.check import find_problems
from deepmac_distill.dataset.dataset import Dataset

W, H = 64, 48
BOX = [16, 12, 32, 24]  # xywh, of each data set
OBJECT = f"<bndbox><xmin>{BOX[0]}</xmin><ymin>{BOX[1]}</ymin><xmax>48</xmax><ymax>36</ymax></bndbox>"


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H), (9, 99, 200)).save(path)


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def yolo(folder: Path) -> Path:
    image(folder / "images" / "train" / "a.jpg")
    text(folder / "labels" / "train" / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    text(folder / "data.yaml", "path: .\ntrain: images/train\nnames:\n  0: cat\n")
    return folder


def darknet(folder: Path) -> Path:
    image(folder / "obj_train_data" / "a.jpg")
    text(folder / "obj_train_data" / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    text(folder / "obj.names", "cat\n")
    text(folder / "train.txt", "data/obj_train_data/a.jpg\n")
    text(folder / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n")
    return folder


def voc(folder: Path) -> Path:
    image(folder / "JPEGImages" / "a.jpg")
    size = f"<size><width>{W}</width><height>{H}</height><depth>3</depth></size>"
    named = f"<object><name>cat</name>{OBJECT}</object>"
    content = f"<annotation><filename>a.jpg</filename>{size}{named}</annotation>"
    text(folder / "Annotations" / "a.xml", content)
    text(folder / "ImageSets" / "Main" / "train.txt", "a\n")
    return folder


def cvat(folder: Path) -> Path:
    image(folder / "images" / "a.jpg")
    label = "<meta><task><labels><label><name>cat</name></label></labels></task></meta>"
    box = '<box label="cat" occluded="0" xtl="16" ytl="12" xbr="48" ybr="36"/>'
    one = f'<image id="0" name="a.jpg" width="{W}" height="{H}">{box}</image>'
    return text(folder / "a.xml", f'<?xml version="1.0"?><annotations>{label}{one}</annotations>')


def label_me(folder: Path) -> Path:
    image(folder / "a.jpg")
    corners = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((16, 12), (48, 12), (48, 36), (16, 36)))
    facts = "<name>cat</name><deleted>0</deleted><occluded>no</occluded><attributes></attributes><id>0</id>"
    parts = "<parts><hasparts></hasparts><ispartof></ispartof></parts>"
    size = f"<imagesize><nrows>{H}</nrows><ncols>{W}</ncols></imagesize>"
    polygon = f"<polygon><username></username>{corners}</polygon>"
    one = f"<object>{facts}{parts}{polygon}</object>"
    head = "<filename>a.jpg</filename><folder></folder>"
    return text(folder / "a.xml", f"<annotation>{head}{size}{one}</annotation>")


def datumaro(folder: Path) -> Path:
    image(folder / "images" / "default" / "a.jpg")
    label = {"labels": [{"name": "cat", "parent": "", "attributes": []}], "attributes": []}
    box = {"id": 1, "type": "bbox", "attributes": {}, "group": 1, "label_id": 0, "z_order": 0, "bbox": BOX}
    item = {"id": "a", "annotations": [box], "image": {"path": "a.jpg", "size": [H, W]}}
    content = {"info": {}, "categories": {"label": label}, "items": [item]}
    return text(folder / "annotations" / "default.json", json.dumps(content))


def vott(folder: Path) -> Path:
    image(folder / "a.jpg")
    region = {
        "id": "r",
        "tags": ["cat"],
        "boundingBox": dict(zip(("left", "top", "width", "height"), BOX, strict=True)),
    }
    asset = {"id": "x", "name": "a.jpg", "path": "a.jpg", "size": {"width": W, "height": H}}
    content = {"assets": {"x": {"asset": asset, "regions": [region]}}}
    return text(folder / "a-export.json", json.dumps(content))


@pytest.mark.parametrize("write", [yolo, darknet, voc, cvat, label_me, datumaro, vott])
def test_the_command_in_the_error_makes_coco(write: Callable[[Path], Path], tmp_path: Path) -> None:
    named = write(tmp_path / "my set")
    (problem,) = find_problems(named, "all")
    command = problem.message.partition(": datum convert")[2]
    assert command, problem
    words = shlex.split(f"convert{command}")
    done = subprocess.run(
        [Path(sys.executable).with_name("datum"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    (made,) = tmp_path.glob("*-coco_instances/annotations/*.json")
    (picture,) = (tmp_path / "my set").rglob("a.jpg")
    found = Dataset.open(made, seen="all", sizes=ImageFolder(picture.parent)).for_training()
    assert [found.classes.names[k] for k in found.class_index()] == ["cat"]
    assert found.annotations["bbox"].to_pylist() == [pytest.approx(BOX, abs=1.01)]
