"""How each tool reads an export: a list of what it found on the picture with objects, by its own code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from figures import H, W

os.environ |= {"YOLO_AUTOINSTALL": "false", "FIFTYONE_DO_NOT_TRACK": "true", "QT_QPA_PLATFORM": "offscreen"}
Found = list[tuple[str, np.ndarray | None]]  # class name, and (H, W) bool or None for a box alone
Reader = Callable[[Path, Path, Path], Found]  # export, images, folder to work in


def pycocotools(export: Path, images: Path, work: Path) -> Found:
    from pycocotools.coco import COCO

    coco = COCO(str(export))
    return [
        (
            coco.cats[one["category_id"]]["name"],
            coco.annToMask(one).astype(bool) if one["segmentation"] else None,
        )
        for one in coco.loadAnns(coco.getAnnIds(imgIds=[1], iscrowd=False))
    ]


def torchvision(export: Path, images: Path, work: Path) -> Found:
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

    keys = ["boxes", "labels", "masks", "iscrowd"]
    target = wrap_dataset_for_transforms_v2(CocoDetection(str(images), str(export)), target_keys=keys)[0][1]
    names = {entry["id"]: entry["name"] for entry in json.loads(export.read_text())["categories"]}
    masks = [mask.numpy().astype(bool) for mask in target.get("masks", ())]
    masks += [None] * (len(target["boxes"]) - len(masks))
    labels = [names[int(label)] for label in target["labels"]]
    return list(zip(labels, masks, strict=True))


def _of_detections(found: object, names: list[str]) -> Found:
    masks = [None] * len(found) if found.mask is None else list(np.asarray(found.mask).astype(bool))
    return [(names[index], mask) for index, mask in zip(found.class_id, masks, strict=True)]


def _picture(dataset: object, name: str = "figures") -> object:
    (path,) = (path for path in dataset.annotations if Path(path).stem == name)
    return dataset.annotations[path]


def supervision_coco(export: Path, images: Path, work: Path) -> Found:
    import supervision

    found = supervision.DetectionDataset.from_coco(str(images), str(export), force_masks=True)
    return _of_detections(_picture(found), found.classes)


def supervision_yolo(export: Path, images: Path, work: Path) -> Found:
    import supervision

    folders = (str(export / name) for name in ("images", "labels", "data.yaml"))
    found = supervision.DetectionDataset.from_yolo(*folders, force_masks=True)
    return _of_detections(_picture(found), found.classes)


def ultralytics_coco(export: Path, images: Path, work: Path) -> Found:
    """Its converter, then its reader of YOLO's text."""
    from ultralytics.data.converter import convert_coco

    (work / "in").mkdir()
    shutil.copy(export, work / "in" / "instances_all.json")
    convert_coco(str(work / "in"), str(work / "out"), use_segments=True, cls91to80=False)
    return _of_text(work / "out" / "labels" / "all" / "figures.txt", images / "figures.png")


def ultralytics_yolo(export: Path, images: Path, work: Path) -> Found:
    return _of_text(export / "labels" / "figures.txt", export / "images" / "figures.png")


def _of_text(labels: Path, image: Path) -> Found:
    from ultralytics.data.utils import polygon2mask, verify_image_label

    read = verify_image_label((str(image), str(labels), "", False, 2, 0, 0, False))
    rows, segments = read[1], read[3]
    assert rows is not None, read[-1]
    names = [("cat", "yak")[int(row[0])] for row in rows]
    if not segments:
        return [(name, None) for name in names]
    masks = [polygon2mask((H, W), [(s * (W, H)).ravel()]).astype(bool) for s in segments]
    return list(zip(names, masks, strict=True))


def sahi(export: Path, images: Path, work: Path) -> Found:
    from sahi.utils.coco import Coco
    from sahi.utils.cv import get_bool_mask_from_coco_segmentation

    coco = Coco.from_coco_dict_or_path(str(export), image_dir=str(images))
    (image,) = (one for one in coco.images if one.file_name.endswith("figures.png"))
    return [
        (
            one.category_name,
            get_bool_mask_from_coco_segmentation(one.segmentation, W, H) if one.segmentation else None,
        )
        for one in image.annotations
    ]


def fiftyone(export: Path, images: Path, work: Path) -> Found:
    """The objects of its COCO importer; the data base behind its datasets is not started."""
    from fiftyone.utils.coco import load_coco_detection_annotations

    _, classes, _, _, annotations = load_coco_detection_annotations(str(export))
    found: Found = []
    for one in annotations[1]:
        label = one.to_detection((W, H), classes_map=classes, load_segmentation=True)
        mask = None
        if label.mask is not None:
            mask = np.zeros((H, W), bool)
            left, top = (
                round(share * side) for share, side in zip(label.bounding_box[:2], (W, H), strict=True)
            )
            height, width = label.mask.shape
            mask[top : top + height, left : left + width] = label.mask
        found.append((label.label, mask))
    return found


def _of_datumaro(path: Path, kind: str) -> Found:
    from datumaro import Dataset
    from datumaro.components.annotation import AnnotationType

    dataset = Dataset.import_from(str(path), kind)
    (item,) = (item for item in dataset if item.id == "figures")
    labels = dataset.categories()[AnnotationType.label]
    found: Found = []
    grouped: dict[int, np.ndarray] = {}
    for one in item.annotations:
        name = labels[one.label].name
        if one.type == AnnotationType.mask:
            found.append((name, np.asarray(one.image).astype(bool)))
        elif one.type == AnnotationType.polygon:
            from pycocotools import mask as coco_mask

            drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([one.points], H, W))).astype(bool)
            if one.group in grouped:
                grouped[one.group] |= drawn
            else:
                grouped[one.group] = drawn
                found.append((name, drawn))
        elif one.type == AnnotationType.bbox:
            found.append((name, None))
    return found


def datumaro_coco(export: Path, images: Path, work: Path) -> Found:
    (work / "annotations").mkdir()
    shutil.copy(export, work / "annotations" / "instances_all.json")
    shutil.copytree(images, work / "images" / "all")
    return _of_datumaro(work, "coco_instances")


def datumaro_voc(export: Path, images: Path, work: Path) -> Found:
    return _of_datumaro(export, "voc")


def datumaro_cvat(export: Path, images: Path, work: Path) -> Found:
    shutil.copy(export, work / "figures.xml")
    shutil.copytree(images, work / "images")
    return _of_datumaro(work, "cvat")


def labelme(export: Path, images: Path, work: Path) -> Found:
    from labelme.utils import shape_to_mask

    shapes = json.loads((export / "figures.json").read_text())["shapes"]
    found: dict[int, tuple[str, np.ndarray | None]] = {}
    for shape in shapes:
        drawn = None
        if shape["shape_type"] == "polygon":
            drawn = shape_to_mask((H, W), shape["points"], shape["shape_type"])
            if shape["group_id"] in found:
                drawn = drawn | found[shape["group_id"]][1]
        found[shape["group_id"]] = shape["label"], drawn
    return list(found.values())


def label_studio(export: Path, images: Path, work: Path) -> Found:
    """Its converter to COCO, then pycocotools."""
    from label_studio_sdk.converter import Converter

    interface = (export / "interface.xml").read_text()
    converter = Converter(config=interface, project_dir=str(work), download_resources=False)
    converter.convert_to_coco(str(export / "tasks.json"), str(work / "out"), is_dir=False)
    document = json.loads((work / "out" / "result.json").read_text())
    (image,) = (one["id"] for one in document["images"] if "figures" in one["file_name"])
    document["annotations"] = [
        one | {"image_id": 1} for one in document["annotations"] if one["image_id"] == image
    ]
    document["images"] = [{"id": 1, "file_name": "figures.png", "height": H, "width": W}]
    (work / "coco.json").write_text(json.dumps(document))
    return pycocotools(work / "coco.json", images, work)


def label_studio_converter(export: Path, images: Path, work: Path) -> Found:
    """The older package of the same converter; of COCO it takes segmentations to make regions."""
    from label_studio_converter.imports.coco import convert_coco_to_ls

    convert_coco_to_ls(str(export), str(work / "tasks.json"), out_type="annotations")
    tasks = json.loads((work / "tasks.json").read_text())
    found: Found = []
    from pycocotools import mask as coco_mask

    for task in tasks:
        for region in task["annotations"][0]["result"]:
            value = region["value"]
            for key, names in value.items():
                if key == "polygonlabels":
                    points = np.array(value["points"]) * (W / 100, H / 100)
                    drawn = coco_mask.merge(coco_mask.frPyObjects([points.ravel().tolist()], H, W))
                    found.append((names[0], coco_mask.decode(drawn).astype(bool)))
                elif key == "rectanglelabels":
                    found.append((names[0], None))
    return found


READERS: dict[tuple[str, str], Reader] = {
    ("coco-polygons", "pycocotools"): pycocotools,
    ("coco-polygons", "torchvision"): torchvision,
    ("coco-polygons", "supervision"): supervision_coco,
    ("coco-polygons", "ultralytics"): ultralytics_coco,
    ("coco-polygons", "sahi"): sahi,
    ("coco-polygons", "fiftyone"): fiftyone,
    ("coco-polygons", "datumaro"): datumaro_coco,
    ("coco-polygons", "label-studio-converter"): label_studio_converter,
    ("coco-rle", "pycocotools"): pycocotools,
    ("coco-rle", "torchvision"): torchvision,
    ("coco-rle", "supervision"): supervision_coco,
    ("coco-rle", "ultralytics"): ultralytics_coco,
    ("coco-rle", "sahi"): sahi,
    ("coco-rle", "fiftyone"): fiftyone,
    ("coco-rle", "datumaro"): datumaro_coco,
    ("coco-rle", "label-studio-converter"): label_studio_converter,
    ("yolo-seg", "ultralytics"): ultralytics_yolo,
    ("yolo-seg", "supervision"): supervision_yolo,
    ("voc", "datumaro"): datumaro_voc,
    ("labelme", "labelme"): labelme,
    ("cvat", "datumaro"): datumaro_cvat,
    ("label-studio", "label-studio-sdk"): label_studio,
}


def read(reader: Reader, export: Path, images: Path, work: Path) -> Found:
    """What a reader found, its own words kept back."""
    work.mkdir()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return reader(export, images, work)
