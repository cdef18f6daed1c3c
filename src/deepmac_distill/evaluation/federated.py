"""Which classes somebody looked for in which image: LVIS's federated rule (Gupta et al., arXiv:1908.03195).

An LVIS file does not say of every class whether it is in an image. A class was looked for where the image has
an object of it or names it in `neg_category_ids`; elsewhere a detection of it is neither right nor wrong and
is left out. In an image that names it in `not_exhaustive_category_ids` not all of its objects are marked: a
detection that matches none of them is ignored. A file whose images name neither is COCO's: every class was
looked for in every image.

What does not become LVIS's: all detections count (it takes the best 300 of an image), sizes, and means over
classes of each split; there are no means over rare, common and frequent classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deepmac_distill.dataset.problems import NEGATIVE, NOT_EXHAUSTIVE
from deepmac_distill.dataset.views import Truth

Pairs = frozenset[tuple[int, int]]  # of an image's and a category's id


@dataclass(frozen=True, slots=True)
class Federated:
    """Pairs of image and class of one file."""

    looked_for: Pairs
    not_exhaustive: Pairs

    @classmethod
    def of(cls, truth: Truth) -> Federated | None:
        """None of a file in which every class was looked for everywhere."""
        keys = _keys_of_images(truth)
        if not keys:
            return None
        known = set(truth.classes.category_ids)
        named = {
            key: frozenset(
                (image, category)
                for image, lists in keys.items()
                for category in lists[key]
                if category in known
            )
            for key in (NEGATIVE, NOT_EXHAUSTIVE)
        }
        ids = (truth.annotations[name].to_pylist() for name in ("image_id", "category_id"))
        present = frozenset(zip(*ids, strict=True))
        incomplete = named[NOT_EXHAUSTIVE]
        return cls(present | named[NEGATIVE] | incomplete, incomplete)


def _keys_of_images(truth: Truth) -> dict[int, dict[str, list[int]]]:
    """Both lists of every image that has one of them."""
    numbers = {row["original_id"]: row["id"] for row in truth.head["categories"] if "original_id" in row}
    found = {}
    rows = zip(truth.images["image_id"].to_pylist(), truth.images["extra"].to_pylist(), strict=True)
    for image_id, extra in rows:
        if extra is None or b"_category_ids" not in extra:
            continue
        keys: dict[str, Any] = json.loads(extra)
        if NEGATIVE in keys or NOT_EXHAUSTIVE in keys:
            lists = {key: keys.get(key, []) for key in (NEGATIVE, NOT_EXHAUSTIVE)}
            found[image_id] = {key: [numbers.get(one, one) for one in ids] for key, ids in lists.items()}
    return found
