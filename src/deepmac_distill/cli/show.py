"""`deepmac show`: the teacher's masks, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.image_reading import ReadingImages
from deepmac_distill.cli.options import command
from deepmac_distill.cli.terminal import say
from deepmac_distill.errors import ConfigError


@command(app)
def show(
    of_images: ReadingImages,
    labels: Annotated[Path, typer.Argument(help="Run directory, or a masks.parquet.")],
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class; may be repeated.")
    ] = None,
    lowest: Annotated[
        int | None, typer.Option("--lowest", min=1, help="Instead: so many masks of lowest score.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images; default: the run's.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write.")] = Path("sheet.png"),
) -> None:
    """Draw the teacher's masks: for each class those of lowest, median and highest score."""
    from deepmac_distill.stages.show import show as draw_labels

    of_run = labels.is_dir() or (labels.resolve().parent.parent / "config.json").is_file()
    if of_run and of_images != ReadingImages():
        raise ConfigError(
            f"{labels}: images of a run are read by its data.exif; expected no --exif or --max-megapixels"
        )
    shown = draw_labels(
        labels,
        out,
        classes=classes or (),
        lowest=lowest or 0,
        images=images,
        reader=of_images.reader,
    )
    left = shown.of_classes - shown.classes
    more = f"; {left} classes are left out, --class names one" if left and not (classes or lowest) else ""
    say(f"{out}: {shown.masks} masks{more}")
