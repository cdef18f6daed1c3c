"""The flags that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA = "Data"
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Pipeline file; default: the run's own, else built-in values."),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run directory; default: runs/NAME of the pipeline.")
]
Root = Annotated[
    str | None,
    typer.Option("--data", help="Folder that the data paths are relative to.", rich_help_panel=DATA),
]
TrainFile = Annotated[
    str | None,
    typer.Option("--annotations", help="COCO JSON to train on and to label.", rich_help_panel=DATA),
]
TrainImages = Annotated[
    str | None, typer.Option("--images", help="Folder of its images.", rich_help_panel=DATA)
]
ValFile = Annotated[
    str | None, typer.Option("--val-annotations", help="COCO JSON to evaluate on.", rich_help_panel=DATA)
]
ValImages = Annotated[
    str | None,
    typer.Option(
        "--val-images",
        help="Folder of its images; default: the pipeline's, else --images.",
        rich_help_panel=DATA,
    ),
]
Seen = Annotated[
    list[str] | None,
    typer.Option(
        "--seen",
        help="Classes whose masks may be used: voc (default), non-voc, all, names, or a .txt file of names.",
        rich_help_panel=DATA,
    ),
]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict",
        help="Refuse boxes without area or over the edge, and polygon parts of two points or less.",
        rich_help_panel=DATA,
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override any key: --set teacher.train.lr=1e-4.")
]
Force = Annotated[bool, typer.Option("--force", help="Redo what was done before, also with other inputs.")]
