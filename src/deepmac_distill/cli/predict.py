"""Commands that use a model on pictures."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.cutting import Cutting
from deepmac_distill.cli.image_reading import ReadingImages
from deepmac_distill.cli.options import Code, Device, Looking, command
from deepmac_distill.cli.terminal import Terminal, say
from deepmac_distill.errors import ConfigError

FullSize = Annotated[
    bool, typer.Option("--full-size", help="Draw at the image's own size; otherwise on at most 2,000 px.")
]


@command(app)
def predict(
    on: Device,
    code: Code,
    looking: Looking,
    cutting: Cutting,
    of_images: ReadingImages,
    images: Annotated[
        list[Path] | None, typer.Argument(help="JPEG or PNG files; with --boxes also their folders.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Weights, a run (its teacher), or sam:MODEL; default: the starter."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option("--box", help="x,y,w,h in pixels of the image as --exif has it; once per object."),
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option("--boxes", help="COCO file of boxes; images beside it, if none are named.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Path without suffix; of several images a folder. [IMAGE-masks, masks]"
        ),
    ] = None,
    full_size: FullSize = False,
) -> None:
    """Segment boxes that you give: a picture with numbered boxes for each image, and a COCO JSON."""
    if (box is None) == (boxes is None):
        raise ConfigError("predict: expected either --box, once per object, or --boxes FILE.json")
    changes, cut = looking.changes, cutting.asked
    by_hand = [_box(text) for text in box or []]
    if by_hand and not images:
        raise ConfigError("predict: got no image, expected at least one beside --box")
    reader = of_images.reader
    from deepmac_distill.devices import pick_device
    from deepmac_distill.report.contact_sheet import OVERLAY_PX
    from deepmac_distill.stages.given_boxes import boxes_of_file, the_same_in_each
    from deepmac_distill.stages.pictures import files_of
    from deepmac_distill.stages.predict import outputs_of
    from deepmac_distill.stages.predict import predict as predict_masks

    if boxes is None:
        given = the_same_in_each(files_of(images or []), by_hand)
    else:
        given = boxes_of_file(boxes, images or [], reader)
    device = pick_device(on.device or "auto")
    longest = None if full_size else OVERLAY_PX
    found = predict_masks(
        model, device, given, out, Terminal(), code.allow_code, changes, cut, reader, longest
    )
    pictures, results = outputs_of(given.files, out)
    if by_hand:
        _print_masks(found)
    if given.left_out:
        say(f"{given.left_out} crowds and boxes without area are left out")
    say(f"{len(found['annotations'])} masks: {results} {pictures[0] if len(pictures) == 1 else ''}".rstrip())


def _print_masks(found: dict[str, Any]) -> None:
    """A line for each box, numbered as on its picture."""
    names = {image["id"]: image["file_name"] for image in found["images"]}
    number: Counter[int] = Counter()
    for mask in found["annotations"]:
        image = mask["image_id"]
        number[image] += 1
        say(
            f"{names[image]}: box {number[image]} {mask['bbox']}: mask of {mask['area']} px, "
            f"score {mask['mask_score']:.2f}, fills the box {mask['mask_bbox_iou']:.2f}"
        )


@command(app)
def detect(
    on: Device,
    cutting: Cutting,
    of_images: ReadingImages,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Annotated[Path, typer.Option("--model", help="Weights, or a run directory (its student).")],
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            min=0,
            max=1,
            help="Objects below it are left out; default: 0.3, with --image-info 0.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for a picture of each image, and detections.json.")
    ] = Path("detections"),
    full_size: FullSize = False,
    image_info: Annotated[
        Path | None,
        typer.Option(
            "--image-info",
            help="COCO's image_info_*.json of a folder of images: write results.json in the form of its "
            "evaluation server instead, and no pictures.",
        ),
    ] = None,
) -> None:
    """Detect and segment objects in new images: a drawn PNG for each, and one COCO JSON."""
    cut, reader = cutting.asked, of_images.reader
    if image_info is not None and (full_size or len(images) != 1):
        raise ConfigError("detect: --image-info: expected one folder of images and no --full-size")
    from deepmac_distill.devices import pick_device
    from deepmac_distill.report.contact_sheet import OVERLAY_PX
    from deepmac_distill.stages.detect import detect as detect_on

    device = pick_device(on.device or "auto")
    if image_info is not None:
        from deepmac_distill.stages.image_info import RESULTS, server_results

        least = 0.0 if min_score is None else min_score
        asked = (model, device, image_info, images[0], out / RESULTS, Terminal())
        found = server_results(*asked, min_score=least, cut=cut, reader=reader)
    else:
        found = detect_on(
            model,
            device,
            images,
            out,
            Terminal(),
            min_score=0.3 if min_score is None else min_score,
            cut=cut,
            reader=reader,
            longest_px=None if full_size else OVERLAY_PX,
        )
    unreadable = f", {found.unreadable} unreadable" if found.unreadable else ""
    say(f"{found.objects} objects on {found.images} images{unreadable}: {found.results}")


def _box(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"--box {text}: expected four numbers x,y,w,h in pixels")
    return numbers
