"""And back: an export is corrected, goes through a tool's own reader and writer, and comes home.

One mask is drawn anew, as a person would. `import-masks` has to find that one and no other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from deepmac_distill.stages.export import export
from deepmac_distill.stages.import_masks import import_masks
from figures import MASKS, H, W, write_figures

X1, Y1, X2, Y2 = 208, 48, 288, 128  # the square, moved
CORRECTED = [float(v) for v in (X1, Y1, X2, Y1, X2, Y2, X1, Y2)]
Tool = Callable[[Path, Path, Path], Path]  # export, images, folder to work in -> the tool's COCO file


def by_datumaro(kind: str) -> Tool:
    def back(given: Path, images: Path, work: Path) -> Path:
        from datumaro import Dataset

        source = work / "in"
        if kind == "coco_instances":
            (source / "annotations").mkdir(parents=True)
            shutil.copy(given, source / "annotations" / "instances_all.json")
            shutil.copytree(images, source / "images" / "all")
        else:
            source.mkdir()
            shutil.copy(given, source / "figures.xml")
            shutil.copytree(images, source / "images")
        Dataset.import_from(str(source), kind).export(str(work / "out"), "coco_instances", save_media=False)
        (written,) = (work / "out" / "annotations").glob("instances_*.json")
        return written

    return back


def by_supervision(given: Path, images: Path, work: Path) -> Path:
    import supervision

    found = supervision.DetectionDataset.from_coco(str(images), str(given), force_masks=True)
    found.as_coco(annotations_path=str(work / "out.json"))
    return work / "out.json"


def by_sahi(given: Path, images: Path, work: Path) -> Path:
    from sahi.utils.coco import Coco

    coco = Coco.from_coco_dict_or_path(str(given), image_dir=str(images))
    (work / "out.json").write_text(json.dumps(coco.json))
    return work / "out.json"


def by_label_studio(given: Path, images: Path, work: Path) -> Path:
    from label_studio_sdk.converter import Converter

    interface = (given / "interface.xml").read_text()
    converter = Converter(config=interface, project_dir=str(work), download_resources=False)
    converter.convert_to_coco(str(given / "tasks.json"), str(work / "out"), is_dir=False)
    return work / "out" / "result.json"


def correct_coco(path: Path, id: int) -> None:
    document = json.loads(path.read_text())
    (one,) = (one for one in document["annotations"] if one["id"] == id)
    one |= {"segmentation": [CORRECTED], "bbox": [X1, Y1, X2 - X1, Y2 - Y1]}
    path.write_text(json.dumps(document))


def correct_cvat(path: Path, id: int) -> None:
    """In CVAT's form a mask is run lengths in its box, background first, along the rows."""
    from xml.etree import ElementTree

    tree = ElementTree.parse(path)
    for mask in tree.iter("mask"):
        stated = [one.text for one in mask.iter("attribute") if one.get("name") == "annotation_id"]
        if stated and int(float(stated[0] or 0)) == id:
            box = {"left": X1, "top": Y1, "width": X2 - X1, "height": Y2 - Y1}
            mask.attrib |= {name: str(value) for name, value in box.items()}
            mask.set("rle", f"0, {(X2 - X1) * (Y2 - Y1)}")
    tree.write(path)


def correct_label_studio(folder: Path, id: int) -> None:
    path = folder / "tasks.json"
    tasks = json.loads(path.read_text())
    points = np.array(CORRECTED).reshape(-1, 2) * 100 / (W, H)
    for task in tasks:
        for result in (task.get("annotations") or task.get("predictions"))[0]["result"]:
            if result["id"] == str(id):
                result["value"]["points"] = points.tolist()
    path.write_text(json.dumps(tasks))


Case = tuple[str, str, Tool, Callable[[Path, int], None], int, int]
CASES: list[Case] = [  # how many masks come back changed, and how many do not come back
    ("coco-polygons", "datumaro", by_datumaro("coco_instances"), correct_coco, 1, 0),
    ("coco-rle", "datumaro", by_datumaro("coco_instances"), correct_coco, 3, 0),  # polygons of codes
    ("cvat", "datumaro", by_datumaro("cvat"), correct_cvat, 3, 0),  # likewise
    ("coco-polygons", "supervision", by_supervision, correct_coco, 3, 0),  # it draws all a pixel larger
    ("coco-polygons", "sahi", by_sahi, correct_coco, 2, 0),  # it fills the ring
    ("label-studio", "label-studio-sdk", by_label_studio, correct_label_studio, 1, 1),  # crowds stay here
]


@pytest.mark.parametrize(
    ("name", "tool", "back", "correct", "changed", "removed"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES]
)
def test_a_corrected_mask_comes_home_through_a_tool(
    name: str,
    tool: str,
    back: Tool,
    correct: Callable[[Path, int], None],
    changed: int,
    removed: int,
    tmp_path: Path,
) -> None:
    source = write_figures(tmp_path / "source")
    images = source.parent / "images"
    before = COCO(str(source))
    id = _id_of(before, MASKS["polygon"])
    out = tmp_path / ("given.json" if name.startswith("coco") else "given.xml" if name == "cvat" else "given")
    export(source, name, out, images=images)
    correct(out, id)
    (tmp_path / "work").mkdir()
    written = back(out, images, tmp_path / "work")
    done = import_masks(written, source, tmp_path / "corrected.json")
    assert (done.added, done.drawn, done.removed, done.relabeled) == (0, 0, removed, 0), done
    after = COCO(str(tmp_path / "corrected.json"))
    assert after.anns.keys() == before.anns.keys()
    expected = np.zeros((H, W), bool)
    expected[Y1:Y2, X1:X2] = True
    assert _iou(after.annToMask(after.anns[id]).astype(bool), expected) > 0.9
    assert after.anns[id]["source"] == "human"
    assert done.changed == changed, done


def _id_of(coco: COCO, mask: np.ndarray) -> int:
    drawn: dict[int, Any] = {id: one for id, one in coco.anns.items() if one.get("segmentation")}
    return max(drawn, key=lambda id: _iou(coco.annToMask(drawn[id]).astype(bool), mask))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1)) if a.shape == b.shape else 0.0
