"""Commands that use a model on pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.options import Code, Device, command
from deepmac_distill.cli.terminal import Terminal
from deepmac_distill.errors import ConfigError


@command(app)
def predict(
    on: Device,
    code: Code,
    image: Annotated[Path, typer.Argument(help="JPEG or PNG.")],
    box: Annotated[
        list[str], typer.Option("--box", help="x,y,w,h in pixels of the image as stored; once per object.")
    ],
    model: Annotated[Path, typer.Option("--model", help="Weights, or a run directory (its teacher).")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Path without suffix; default: IMAGE-masks.")
    ] = None,
) -> None:
    """Masks for boxes you give: an overlay PNG and a COCO JSON."""
    boxes_xywh = [_box(text) for text in box]
    import numpy as np

    from deepmac_distill import stages
    from deepmac_distill.devices import pick_device

    out = out or image.with_name(f"{image.stem}-masks")
    out = out.with_suffix("") if out.suffix in (".png", ".json") else out
    boxes = np.array(boxes_xywh, dtype=np.float64)
    for annotation in stages.predict(
        model, pick_device(on.device or "auto"), image, boxes, out, code.allow_code
    )["annotations"]:
        print(
            f"box {annotation['bbox']}: mask of {annotation['area']} px, "
            f"score {annotation['mask_score']:.2f}, fills the box {annotation['mask_bbox_iou']:.2f}"
        )
    print(f"{out}.png {out}.json")


@command(app)
def detect(
    on: Device,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Annotated[Path, typer.Option("--model", help="Weights, or a run directory (its student).")],
    min_score: Annotated[
        float, typer.Option("--min-score", min=0, max=1, help="Objects below it are left out.")
    ] = 0.3,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for a picture of each image, and detections.json.")
    ] = Path("detections"),
) -> None:
    """Objects on new pictures, with boxes and masks: drawn PNGs and one COCO JSON."""
    from deepmac_distill import stages
    from deepmac_distill.devices import pick_device

    device = pick_device(on.device or "auto")
    found = stages.detect(model, device, images, out, Terminal(), min_score=min_score)
    unreadable = f", {found.unreadable} unreadable" if found.unreadable else ""
    print(f"{found.objects} objects on {found.images} images{unreadable}: {found.results}")


def _box(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"--box {text}: expected four numbers x,y,w,h in pixels")
    return numbers
