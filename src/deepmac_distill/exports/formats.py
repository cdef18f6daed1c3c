"""The formats: what each can hold, and who writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never, get_args

from deepmac_distill.errors import ConfigError
from deepmac_distill.exports.coco import write_polygons, write_rle
from deepmac_distill.exports.cvat import write_cvat
from deepmac_distill.exports.label_studio import write_label_studio
from deepmac_distill.exports.labelme import write_labelme
from deepmac_distill.exports.masks import MaskSet, WithoutMask
from deepmac_distill.exports.polygons import Loss
from deepmac_distill.exports.voc import write_voc
from deepmac_distill.exports.yolo_seg import write_yolo_seg

FormatName = Literal["coco-polygons", "coco-rle", "yolo-seg", "voc", "labelme", "cvat", "label-studio"]
FORMATS: tuple[FormatName, ...] = get_args(FormatName)
ALL: tuple[WithoutMask, ...] = get_args(WithoutMask)
Writer = Callable[[MaskSet, Path, float], list[tuple[int, Loss]]]  # to a path, with a tolerance in pixels


@dataclass(frozen=True, slots=True)
class Format:
    """What a format holds."""

    name: FormatName
    write: Writer
    suffix: str = ""  # of its file; none: a folder
    without: tuple[WithoutMask, ...] = ALL  # what can become of a box without a mask
    has_crowds: bool = True  # others leave crowds out
    turns: bool = False  # its readers open the images it leads to, and turn them by their EXIF orientation


def format_of(name: str) -> Format:
    """A format by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in FORMATS:
        raise ConfigError(f"--format {name}: expected one of {', '.join(FORMATS)}")
    known: FormatName = name
    match known:
        case "coco-polygons":
            return Format(known, write_polygons, ".json")
        case "coco-rle":
            return Format(known, write_rle, ".json")
        case "yolo-seg":
            return Format(known, write_yolo_seg, "", ("drop",), has_crowds=False, turns=True)
        case "voc":
            return Format(known, write_voc)
        case "labelme":
            return Format(known, write_labelme, "", ("drop", "keep"), has_crowds=False, turns=True)
        case "cvat":
            return Format(known, write_cvat, ".xml")
        case "label-studio":
            return Format(known, write_label_studio, "", ("drop", "keep"), has_crowds=False)
    assert_never(known)


def require_holds(chosen: Format, without: str) -> WithoutMask:
    """What becomes of boxes without a mask, where the format can hold that.

    Raises:
        ConfigError: it cannot, or there is no such word.
    """
    for word in chosen.without:
        if word == without:
            return word
    raise ConfigError(f"--without-mask {without}: {chosen.name} holds {' or '.join(chosen.without)} alone")
