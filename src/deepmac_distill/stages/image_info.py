"""Detections of images that nobody has annotations of, as an evaluation server takes them.

COCO publishes the images of its test sets as `image_info_*.json`: images and categories, no annotations. Its
server takes a JSON list of results by these ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.images import ImageReader
from deepmac_distill.dataset.document import KEY_TWICE, BrokenDocument, parse_json
from deepmac_distill.dataset.problems import (
    Problem,
    category_problems,
    document_problems,
    file_name_of,
    image_problems,
    shown,
)
from deepmac_distill.errors import ConfigError, DataError
from deepmac_distill.files import written_whole
from deepmac_distill.labels.cut import Cut
from deepmac_distill.models.load import Weights
from deepmac_distill.one_image import ImageObjects, detect_image
from deepmac_distill.progress import Progress
from deepmac_distill.stages.detect import AS_STORED, Found, detector_of
from deepmac_distill.stages.outputs import require_ours
from deepmac_distill.weights.card import ModelCard, other_classes

RESULTS = "results.json"


@dataclass(frozen=True, slots=True)
class _Image:
    """One entry of `images`."""

    id: int
    file_name: str  # inside the folder of images
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Images and categories; whatever else the file has is not read."""

    images: tuple[_Image, ...]
    category_ids: dict[str, int]  # name -> id


def server_results(
    model: Path,
    device: torch.device,
    image_info: Path,
    folder: Path,
    out: Path,
    progress: Progress,
    *,
    min_score: float = 0.0,
    max_detections: int = 100,
    cut: Cut | None = None,
    reader: ImageReader = AS_STORED,
) -> Found:
    """Write the results of all images of `image_info` to the JSON file `out`.

    A result has `image_id`, `category_id`, `score` and `segmentation` (RLE), as COCO's server asks for masks;
    no box, by which its tools would size the masks.

    Args:
        model: weights, or a run directory: its student.
        folder: where the images are.
        min_score: objects below it are left out.
        max_detections: per image.

    Raises:
        DataError: the file is no image info, or an image is missing, unreadable or of another size.
        ConfigError: the model was trained without detection, or knows other classes.
        RunError: `out` would replace an input, or a file of somebody else.
    """
    info = read_image_info(image_info)
    require_ours([out], [model, image_info])
    detector, source, cut = detector_of(model, device, cut)
    ids = _category_ids(source, info, image_info)
    images = ImageFolder(folder, reader.exif, reader.max_megapixels)
    found = images.find([one.file_name for one in info.images])
    if lacking := [one for one in found if isinstance(one, DataError)]:
        raise DataError(f"{lacking[0]}; {len(lacking)} of {len(found)} images of {image_info} are missing")
    objects = 0
    with written_whole(out) as aside, aside.open("w", encoding="utf-8") as file:
        file.write("[")
        with progress.bar("detection", len(info.images), unit="image") as bar:
            for one in info.images:
                image = images.read_sized(one.file_name, one.height, one.width)
                drawn = detect_image(
                    detector, image, device, min_score=min_score, max_detections=max_detections, cut=cut
                )
                for result in _results(one, drawn, ids):
                    file.write(("," if objects else "") + "\n" + json.dumps(result))
                    objects += 1
                bar.advance()
        file.write("\n]\n")
    return Found(out, len(info.images), objects, 0)


def read_image_info(path: Path) -> ImageInfo:
    """COCO's image info.

    Raises:
        DataError: it cannot be read, lacks images or categories, holds a key twice, or breaks a rule of
            annotation files, such as a name that leads out of the folder of images.
    """
    twice: dict[int, str] = {}
    raw = parse_json(path, twice)
    problems = list(_problems(raw, path))
    if problems:
        raise BrokenDocument(problems)
    if twice:
        raise DataError(f"{path}: {KEY_TWICE.format(shown(next(iter(twice.values()))))}")
    images = tuple(
        _Image(one["id"], file_name_of(one).replace("\\", "/"), one["height"], one["width"])
        for one in raw["images"]
    )
    return ImageInfo(images, {one["name"]: one["id"] for one in raw["categories"]})


def _problems(raw: Any, path: Path) -> Iterator[Problem]:
    """What is wrong with a file, by the rules of every annotation file but that annotations are there."""
    whole = {**raw, "annotations": []} if isinstance(raw, dict) else raw
    if broken := list(document_problems(whole, path)):
        yield from broken
        return
    if not raw["images"]:
        yield Problem("error", str(path), "images: got none, expected at least one")
    yield from category_problems(raw["categories"], str(path))
    yield from image_problems(raw["images"], path)


def _category_ids(source: Weights, info: ImageInfo, path: Path) -> list[int]:
    """The file's category id of each class of the model, by name."""
    card: ModelCard = source.card
    ids = info.category_ids
    if set(card.class_names) != ids.keys():
        raise ConfigError(f"{source.name}: {path}: {other_classes(card.class_names, tuple(ids))}")
    return [ids[name] for name in card.class_names]


def _results(info: _Image, found: ImageObjects, ids: list[int]) -> Iterator[dict[str, Any]]:
    columns = (found.class_index.tolist(), found.scores.tolist(), found.masks.counts)
    for index, score, counts in zip(*columns, strict=True):
        yield {
            "image_id": info.id,
            "category_id": ids[index],
            "segmentation": {"size": [info.height, info.width], "counts": counts.decode("ascii")},
            "score": score,
        }
