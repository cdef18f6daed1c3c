"""Each export, read by the tools that people use for it: the masks are there, and no box became one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepmac_distill.exports.formats import format_of
from deepmac_distill.stages.export import Choice, export
from figures import BOXED, CAT, MASKS, YAK, write_figures
from readers import READERS, Found, read

SHOWN = ("polygon", "ring", "two parts")
CLASS_OF = dict(zip(SHOWN, (CAT, YAK, YAK), strict=True))
FILLS_HOLES = 0.85  # what the ring's mask without its hole reaches
FIRST_PART = 0.66  # what the larger of two parts reaches
EXPECTED: dict[tuple[str, str], tuple[dict[str, float], str, str]] = {
    # the least IoU where it is not 0.95; a box without a mask under keep, and under ignore
    ("coco-polygons", "pycocotools"): ({}, "a box", "nothing"),
    ("coco-polygons", "torchvision"): ({}, "an error", "a mask"),
    ("coco-polygons", "supervision"): ({}, "an empty mask", "a mask"),
    ("coco-polygons", "ultralytics"): ({}, "a mask", "nothing"),
    ("coco-polygons", "sahi"): ({"ring": FILLS_HOLES}, "a box", "a mask"),
    ("coco-polygons", "fiftyone"): ({}, "a box", "a mask"),
    ("coco-polygons", "datumaro"): ({}, "a box", "a mask"),
    ("coco-polygons", "label-studio-converter"): ({"two parts": FIRST_PART}, "a box", "a mask"),
    ("coco-rle", "pycocotools"): ({}, "a box", "nothing"),
    ("coco-rle", "torchvision"): ({}, "an error", "a mask"),
    ("coco-rle", "supervision"): ({}, "an empty mask", "a mask"),
    ("coco-rle", "ultralytics"): ({"ring": FILLS_HOLES}, "a mask", "nothing"),
    ("coco-rle", "sahi"): (dict.fromkeys(SHOWN, 0.0), "a box", "a box"),
    ("coco-rle", "fiftyone"): ({}, "a box", "a mask"),
    ("coco-rle", "datumaro"): ({}, "a box", "a mask"),
    ("coco-rle", "label-studio-converter"): (dict.fromkeys(SHOWN, 0.0), "an error", "an error"),
    ("yolo-seg", "ultralytics"): ({}, "", ""),
    ("yolo-seg", "supervision"): ({}, "", ""),
    ("voc", "datumaro"): ({}, "a box", "a box"),
    ("labelme", "labelme"): ({}, "a box", ""),
    ("cvat", "datumaro"): ({}, "a box", "a mask"),
    ("label-studio", "label-studio-sdk"): ({}, "a box", ""),
}
UNREADABLE = {("coco-rle", "label-studio-converter")}  # KeyError: it takes the first polygon of a code


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def best(found: Found, mask: np.ndarray, name: str | None = None) -> float:
    """The IoU of a mask with the nearest that was found, of its class."""
    ious = [iou(mask, other) for of, other in found if other is not None and name in (None, of)]
    return max(ious, default=0.0)


def became(found: Found | None, dropped: Found | None) -> str:
    """What a box without a mask became, beside what is found where such boxes are dropped."""
    if found is None:
        return "an error"
    if best(found, BOXED) > 0.5:
        return "a mask"
    if len(found) == len(dropped or []):
        return "nothing"
    masks = sum(mask is None for _, mask in found) - sum(mask is None for _, mask in dropped or [])
    return "a box" if masks else "an empty mask"


def test_every_reader_is_expected_to_find_something() -> None:
    assert set(EXPECTED) == set(READERS)


@pytest.mark.parametrize(("name", "tool"), READERS, ids=lambda word: word)
def test_a_tool_finds_the_masks_and_what_became_of_boxes(
    name: str, tool: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = write_figures(tmp_path / "source")
    images = source.parent / "images"
    of_rule: dict[str, Found | None] = {}
    for rule in format_of(name).without:
        out = tmp_path / rule
        export(source, name, out, choice=Choice(without_mask=rule), images=images)
        try:
            of_rule[rule] = read(READERS[name, tool], out, images, tmp_path / f"work-{rule}")
        except Exception:  # whatever the tool raises
            of_rule[rule] = None
    dropped = of_rule["drop"]
    least, kept, ignored = EXPECTED[name, tool]
    assert (dropped is None) == ((name, tool) in UNREADABLE)
    ious = {shown: best(dropped or [], MASKS[shown], CLASS_OF[shown]) for shown in SHOWN}
    words = [became(of_rule[rule], dropped) if rule in of_rule else "" for rule in ("keep", "ignore")]
    cells = [name, tool, *(f"{value:.3f}" for value in ious.values()), became(dropped, dropped), *words]
    rows = request.config.stash.setdefault("rows", [])
    rows.append("| " + " | ".join(cells) + " |")
    for shown, value in ious.items():
        assert value >= least.get(shown, 0.95), (shown, value)
    assert words == [kept, ignored]
    assert best(dropped or [], BOXED) < 0.1  # by default no tool makes a mask of a box
