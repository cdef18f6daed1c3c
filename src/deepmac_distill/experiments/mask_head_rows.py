"""The comparison of mask heads: its rows, which is set against which, and what the paper has of both.

The paper is arXiv:2104.00613; its figures are mask AP in detected boxes, but for those of table 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepmac_distill.paper import figure, figure_of_seen

HEADS = (  # rows that learn: values of `model.mask_head`
    "hourglass-20",
    "resnet-4",
    "hourglass-52",
    "fully-connected-2",
    "resnet-20",
    "hourglass-20-no-encoder-decoder",
    "hourglass-20-no-long-skips",
    "hourglass-10",
)
GRABCUTS = {"grabcut": "none", "grabcut-or-box": "box"}  # the rows that learn nothing, and their fallback
ROWS = (*HEADS, *GRABCUTS)
SEEDS = 3  # of a complete table
GRABCUT_PX = 640  # COCO's photographs as they are; it learns nothing that a smaller canvas would make cheaper


@dataclass(frozen=True, slots=True)
class PaperRow:
    """Where a head's figures stand in the paper: a table of `paper.toml` and a name there."""

    table: str
    name: str

    @property
    def unseen(self) -> float:
        """In percent."""
        return figure(self.table, self.name)

    @property
    def seen(self) -> float | None:
        """In percent; None where the paper does not print it beside that of unseen classes."""
        return figure_of_seen(self.table, self.name)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two heads, of which the first is expected to carry over better, and the paper's rows of both."""

    a: str
    b: str
    paper: tuple[PaperRow, PaperRow]

    @property
    def where(self) -> str:
        """Where both stand in the paper."""
        return " and ".join(dict.fromkeys(row.table for row in self.paper))


def _pair(a: str, b: str, *tables: str) -> Pair:
    first, last = tables[0], tables[-1]
    return Pair(a, b, (PaperRow(first, a), PaperRow(last, b)))


_GIVEN_BOXES, _ALONE = "table 4, mask IoU in given boxes", "{}, without detection"
PAIRS = (
    Pair(
        *("hourglass-20", "resnet-4"),
        (
            PaperRow(_GIVEN_BOXES, _ALONE.format("hourglass-20")),
            PaperRow(_GIVEN_BOXES, _ALONE.format("resnet-4")),
        ),
    ),
    _pair("hourglass-52", "resnet-4", "table 11", "table 3"),
    _pair("hourglass-52", "fully-connected-2", "table 11"),
    _pair("hourglass-52", "hourglass-20", "table 11", "table 5"),
    _pair("hourglass-20", "resnet-20", "table 5"),
    _pair("hourglass-20", "hourglass-20-no-encoder-decoder", "table 5"),
    _pair("hourglass-20", "hourglass-20-no-long-skips", "table 5"),
    _pair("hourglass-20", "hourglass-10", "table 3"),
)


def values_of(row: str) -> Mapping[str, Any]:
    """The keys of the pipeline in which a row differs from the recipe."""
    if row in HEADS:
        return {"teacher.model.mask_head": row}
    return {
        "teacher.segmenter": "grabcut",
        "teacher.arguments": {"input_size_px": GRABCUT_PX, "fallback": GRABCUTS[row]},
        "teacher.train.views": "images",
        "teacher.look.boxes": "image",
    }
