"""`deepmac models`: what can be named in a pipeline."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.options import command
from deepmac_distill.cli.results import print_table
from deepmac_distill.cli.terminal import say

if TYPE_CHECKING:
    from deepmac_distill.models.catalog import Entry
    from deepmac_distill.report.table import Table

HEADINGS = {
    "mask head": "Mask heads: 32 x 32 cells, 50 channels; per instance",
    "mask head of mask_rcnn": "Mask heads of Mask R-CNN: the paper's crops, 256 channels; per instance",
    "backbone": "Backbones: 512 x 512 px; per image (and any timm model with maps of strides 4 to 32)",
    "model": "Models of the paper, 80 classes",
}


@command(app)
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List mask heads, backbones and models: name, size, and the paper's row and figure."""
    from deepmac_distill.models.catalog import catalog

    entries = list(catalog())
    if as_json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
        return
    for kind in HEADINGS:
        print_table(_table(kind, [entry for entry in entries if entry.kind == kind]))
    say("Figures of the paper are mask AP of unseen classes (VOC to non-VOC) unless a row names others.")


def _table(kind: str, entries: Sequence[Entry]) -> Table:
    from deepmac_distill.report.table import Column, Table, columns, names

    sizes = ("parameters", *(() if kind == "model" else ("GMACs", "saved in training, MiB")))
    return Table(
        HEADINGS[kind],
        (*names("name"), *columns("figure", sizes), Column("in the paper", "text")),
        tuple((entry.name, *_sizes(entry), _paper(entry.paper, entry.paper_figure)) for entry in entries),
    )


def _sizes(entry: Entry) -> tuple[str, ...]:
    costs = () if entry.gmacs is None else (f"{entry.gmacs:.3f}", f"{entry.saved_mib:.1f}")
    return (f"{entry.parameters:,}", *costs)


def _paper(where: str | None, figure: float | None) -> str:
    return "" if where is None else f"{figure} ({where})"
