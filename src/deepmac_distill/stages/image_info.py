"""Detections of images that nobody has annotations of, as an evaluation server takes them.

COCO publishes the images of its test sets as `image_info_*.json`: images and categories, no annotations. Its
server takes a JSON list of results by these ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from deepmac_distill.data.images import ImageReader
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


class _Image(msgspec.Struct):
    id: int
    file_name: str
    height: int
    width: int


class _Category(msgspec.Struct):
    id: int
    name: str


class ImageInfo(msgspec.Struct):
    """Images and categories; whatever else the file has is not read."""

    images: list[_Image]
    categories: list[_Category]


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
    if lacking := [one.file_name for one in info.images if not (folder / one.file_name).is_file()]:
        raise DataError(
            f"{folder / lacking[0]}: no such image ({len(lacking)} of {len(info.images)} are missing); "
            f"expected the images of {image_info}"
        )
    objects = 0
    with written_whole(out) as aside, aside.open("w", encoding="utf-8") as file:
        file.write("[")
        with progress.bar("detection", len(info.images), unit="image") as bar:
            for one in info.images:
                image = _read(folder, one, reader, image_info)
                found = detect_image(
                    detector, image, device, min_score=min_score, max_detections=max_detections, cut=cut
                )
                for result in _results(one, found, ids):
                    file.write(("," if objects else "") + "\n" + json.dumps(result))
                    objects += 1
                bar.advance()
        file.write("\n]\n")
    return Found(out, len(info.images), objects, 0)


def read_image_info(path: Path) -> ImageInfo:
    """COCO's image info.

    Raises:
        DataError: it cannot be read or lacks images or categories.
    """
    try:
        info = msgspec.json.decode(path.read_bytes(), type=ImageInfo)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; expected COCO's image info") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; expected COCO's image info: images and categories") from None
    if not info.images:
        raise DataError(f"{path}: images: got none, expected at least one")
    return info


def _category_ids(source: Weights, info: ImageInfo, path: Path) -> list[int]:
    """The file's category id of each class of the model, by name."""
    card: ModelCard = source.card
    ids = {one.name: one.id for one in info.categories}
    if set(card.class_names) != ids.keys():
        raise ConfigError(f"{source.name}: {path}: {other_classes(card.class_names, tuple(ids))}")
    return [ids[name] for name in card.class_names]


def _read(folder: Path, info: _Image, reader: ImageReader, path: Path) -> Tensor:
    image = reader.read(folder / info.file_name)
    height, width = image.shape[1:]
    if (height, width) != (info.height, info.width):
        raise DataError(
            f"{folder / info.file_name}: got {width} x {height} px, expected {info.width} x {info.height} "
            f"as in {path}"
        )
    return image


def _results(info: _Image, found: ImageObjects, ids: list[int]) -> Iterator[dict[str, Any]]:
    columns = (found.class_index.tolist(), found.scores.tolist(), found.masks.counts)
    for index, score, counts in zip(*columns, strict=True):
        yield {
            "image_id": info.id,
            "category_id": ids[index],
            "segmentation": {"size": [info.height, info.width], "counts": counts.decode("ascii")},
            "score": score,
        }
