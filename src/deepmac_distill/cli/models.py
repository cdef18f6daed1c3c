"""`deepmac models`: what can be named in a pipeline."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from deepmac_distill.cli.app import app
from deepmac_distill.cli.options import command

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
    """Mask heads, backbones and models: their names, their sizes, the paper's row and figure."""
    from deepmac_distill.models.catalog import catalog

    entries = list(catalog())
    if as_json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    for kind, heading in HEADINGS.items():
        table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("name", no_wrap=True)
        columns = ["parameters"] + (["GMACs", "saved in training, MiB"] if kind != "model" else [])
        for column in columns:
            table.add_column(column, justify="right")
        table.add_column("in the paper")
        for entry in (entry for entry in entries if entry.kind == kind):
            sizes = [f"{entry.parameters:,}"]
            if kind != "model":
                sizes += [f"{entry.gmacs:.3f}", f"{entry.saved_mib:.1f}"]
            table.add_row(entry.name, *sizes, _paper(entry.paper, entry.paper_figure))
        console.print(table)
    print("Figures of the paper are mask AP of unseen classes (VOC to non-VOC) where not said otherwise.")


def _paper(where: str | None, figure: float | None) -> str:
    return "" if where is None else f"{figure} ({where})"
