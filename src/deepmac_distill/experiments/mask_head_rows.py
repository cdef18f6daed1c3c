"""The rows of the comparison of mask heads: which model, and what the paper (arXiv:2104.00613) has of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deepmac_distill.paper import figure

GRABCUTS = {"grabcut": "none", "grabcut-or-box": "box"}  # the rows that learn nothing, and their fallback


@dataclass(frozen=True, slots=True)
class Row:
    """One model of the comparison, and the paper's figures for it and its rival from one table."""

    base: Literal["deepmac", "mask_rcnn"]  # of which trained model it is the mask head
    keys: Mapping[str, Any]  # of that model that differ
    against: str  # the row it is compared with
    paper: tuple[float, float]  # mask AP of unseen classes, of the row and of its rival
    where: str  # both stand there


def _deepmac(head: str, where: str, against: str = "hourglass-20") -> Row:
    pair = figure(where, head), figure(where, against)
    return Row("deepmac", {"mask_head": head, "detection": False}, against, pair, where)


def _deep_marc(boxes: str, against: str, rivals_boxes: str) -> Row:
    keys = {"mask_head": "default-batch-norm", "mask_crop": 14, "mask_boxes": boxes, "class_agnostic": True}
    own, rivals = (
        figure("table 1", f"mask_rcnn resnet50, default-batch-norm, {of}") for of in (boxes, rivals_boxes)
    )
    return Row("mask_rcnn", keys, against, (own, rivals), "table 1")


ROWS = {
    "resnet-4": _deepmac("resnet-4", "table 3"),
    "resnet-20": _deepmac("resnet-20", "table 5"),
    "hourglass-10": _deepmac("hourglass-10", "table 3"),
    "hourglass-20": _deepmac("hourglass-20", "table 3", "resnet-4"),
    "hourglass-20-no-long-skips": _deepmac("hourglass-20-no-long-skips", "table 5"),
    "hourglass-20-no-encoder-decoder": _deepmac("hourglass-20-no-encoder-decoder", "table 5"),
    "hourglass-52": _deepmac("hourglass-52", "figure 3"),
    "fully-connected-2": _deepmac("fully-connected-2", "table 11", "hourglass-52"),
    "deep-marc-gt": _deep_marc("gt", "deep-marc-proposals", "proposals+gt"),
    "deep-marc-proposals": _deep_marc("proposals+gt", "deep-marc-gt", "gt"),
}
