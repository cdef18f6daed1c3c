"""Masks that people corrected, put into the annotations that they belong to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from pycocotools import mask as coco_mask

from deepmac_distill.dataset.ingest import MARK
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.exports.masks import FACTS, MaskObject, MaskSet, Picture, of_annotations
from deepmac_distill.exports.matching import believed_ids, matched, tight_box
from deepmac_distill.exports.polygons import outlined
from deepmac_distill.labels.export import OF_TEACHER

SAME_IOU = 0.99  # with the mask as it went out: nobody has moved more than rounding does
_NEAR_IOU = 0.8  # below it polygons of the mask cannot be the same either
UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded image
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Corrected:
    """Annotations after the corrections, and what became of both sides."""

    annotations: list[Entry]
    counts: Counter[str]  # changed, drawn, added, unchanged, relabeled, removed, and reasons of the unmatched
    unknown_classes: tuple[str, ...]


def corrected(base: Annotations, given: Annotations, *, reviewed: bool, drop_removed: bool) -> Corrected:
    """The annotations of `base` with the masks of `given` where those are new.

    Args:
        reviewed: somebody has looked at every mask of `given`: those that are as they were are human too.
        drop_removed: leave out objects with a mask that their image in `given` no longer has.

    Raises:
        DataError: no image of `given` is in `base`, or one has another size.
    """
    return _Merge(base, given).done(reviewed, drop_removed)


def plain_name(name: str) -> str:
    """The path of an image as exports write it: no address before it, nothing that leads upward.

    >>> plain_name("/data/local-files/?d=sub/a%20b.jpg"), plain_name("..\\\\images\\\\a.jpg")
    ('sub/a b.jpg', 'images/a.jpg')
    """
    path = unquote(name.partition("?d=")[2]) or name
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in ("/", "..", ".")) or name


class _Merge:
    """Both files side by side."""

    def __init__(self, base: Annotations, given: Annotations) -> None:
        before, after = of_annotations(base, "keep"), of_annotations(given, "keep")
        self.entries: dict[int, Entry] = {one["id"]: one for one in base.document()["annotations"]}
        self.raw: dict[int, Entry] = {one["id"]: one for one in given.document()["annotations"]}
        self.sources = {t.id: t.source for p in before.pictures() for t in p.objects}
        ids = {name: id for id, name in before.classes.items()}
        self.class_of = {id: ids[name] for id, name in after.classes.items() if name in ids}
        self.class_names = after.classes
        self.ours = MARK in base.head
        self.counts: Counter[str] = Counter()
        self.unknown: set[str] = set()
        self.pairs = list(self._pairs(before, after, str(given.path)))
        self.claims = self._claims()

    def done(self, reviewed: bool, drop_removed: bool) -> Corrected:
        for before, after in self.pairs:
            found = matched(before, after, self.claims, self.class_of)
            old = {thing.id: thing for thing in before.objects}
            for thing in after.objects:
                if thing.rle is None:
                    self.counts["without a mask"] += 1
                elif thing.category_id not in self.class_of:
                    self.counts["of other classes"] += 1
                    self.unknown.add(self.class_names[thing.category_id])
                elif thing.id in found:
                    self._replace(old[found[thing.id]], thing, before, reviewed)
                else:
                    self._add(thing, before)
            for thing in before.objects:
                if thing.rle is not None and thing.source != "none" and thing.id not in found.values():
                    self.counts["removed"] += 1
                    if drop_removed:
                        del self.entries[thing.id]
        foreign = {} if self.ours else {"mask_score": None}  # what such a key means elsewhere nobody knows
        marked = [
            {"mask_score": None, **entry, **foreign, "source": self.sources[id]}
            for id, entry in self.entries.items()
        ]
        return Corrected(marked, self.counts, tuple(sorted(self.unknown)))

    def _pairs(self, before: MaskSet, after: MaskSet, where: str) -> Iterator[tuple[Picture, Picture]]:
        pictures = {picture.file_name: picture for picture in before.pictures()}
        bare = {name: PurePosixPath(name).name for name in pictures}
        shared = Counter(bare.values())
        by_bare = {bare[name]: picture for name, picture in pictures.items() if shared[bare[name]] == 1}
        common = False
        for picture in after.pictures():
            name = PurePosixPath(picture.file_name).name
            found = pictures.get(picture.file_name) or by_bare.get(name) or by_bare.get(UPLOAD.sub("", name))
            if found is None:
                self.counts["on other images"] += len(picture.objects)
                continue
            size, expected = (picture.height, picture.width), (found.height, found.width)
            if size != expected:
                raise DataError(
                    f"{where}: image {picture.file_name}: got {size[0]} x {size[1]} (H x W), expected "
                    f"{expected[0]} x {expected[1]} as in the data set"
                )
            common = True
            yield found, picture
        if not common:
            raise DataError(f"{where}: none of its images is in the data set; expected the same file names")

    def _claims(self) -> dict[int, int]:
        """The id that each object had: by its attribute, else by its own where a file has kept those."""
        believed = believed_ids(self.pairs)
        claims = {}
        for id, entry in self.raw.items():
            attributes = entry.get("attributes")
            stated: Any = attributes.get("annotation_id") if isinstance(attributes, dict) else None
            try:
                claims[id] = int(float(stated))
            except (TypeError, ValueError, OverflowError):
                if believed:
                    claims[id] = id
        return claims

    def _replace(self, old: MaskObject, new: MaskObject, picture: Picture, reviewed: bool) -> None:
        entry, category = self.entries[old.id], self.class_of[new.category_id]
        if category != old.category_id:
            self.counts["relabeled"] += 1
            entry["category_id"] = category
        if old.rle is not None and old.source != "none" and _is_same(old, new, picture):
            self.counts["unchanged"] += 1
            if reviewed and self.sources[old.id] == "teacher":
                self.sources[old.id] = "human"
                self.entries[old.id] = _by_a_person(entry)
            return
        self.counts["drawn" if old.rle is None or old.source == "none" else "changed"] += 1
        self._draw(old.id, entry | {"iscrowd": int(old.is_crowd and old.source != "none")}, new)

    def _add(self, new: MaskObject, picture: Picture) -> None:
        self.counts["added"] += 1
        id = max(self.entries, default=0) + 1
        entry = {"image_id": picture.id, "category_id": self.class_of[new.category_id]}
        self._draw(id, {"id": id, **entry, "iscrowd": int(new.is_crowd)}, new)

    def _draw(self, id: int, entry: Entry, new: MaskObject) -> None:
        drawn = {
            "bbox": tight_box(new),
            "segmentation": self.raw[new.id]["segmentation"],
            "area": int(coco_mask.area(new.rle)),
        }
        self.entries[id] = _by_a_person(entry | drawn)
        self.sources[id] = "human"


def _by_a_person(entry: Mapping[str, Any]) -> Entry:
    """An annotation without what was known of a teacher's mask."""
    kept = {key: value for key, value in entry.items() if key not in OF_TEACHER} | {"mask_score": None}
    if isinstance(attributes := kept.get("attributes"), dict):
        kept["attributes"] = {k: v for k, v in attributes.items() if k not in FACTS} | {"source": "human"}
    return kept


def _is_same(old: MaskObject, new: MaskObject, picture: Picture) -> bool:
    """Whether a mask came back as it went out, as pixels or as polygons."""
    iou = float(coco_mask.iou([old.rle], [new.rle], [0])[0, 0])
    if iou >= SAME_IOU or iou < _NEAR_IOU:
        return iou >= SAME_IOU
    rings = [ring.ravel().tolist() for ring in outlined(old, picture).rings]
    went_out = coco_mask.merge(coco_mask.frPyObjects(rings, picture.height, picture.width))
    return float(coco_mask.iou([went_out], [new.rle], [0])[0, 0]) >= SAME_IOU
