"""Masks to other tools and back: `export` and `import-masks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.cutting import Cutting
from deepmac_distill.cli.options import command
from deepmac_distill.cli.terminal import Terminal, say

if TYPE_CHECKING:  # imports numpy, which --help does without
    from deepmac_distill.stages.export import Exported

FORMATS = "coco-polygons, coco-rle, yolo-seg, voc, labelme, cvat or label-studio."
BECAME = {
    "drop": "dropped; whoever trains on this learns that nothing is there",
    "keep": "kept as boxes; some trainers take a box for a mask",
    "ignore": "regions to ignore; tools without such regions take them for masks",
}


@command(app)
def export(
    cutting: Cutting,
    labels: Annotated[
        Path, typer.Argument(metavar="RUN|LABELS", help="Run directory, masks.parquet, or a COCO file.")
    ],
    format: Annotated[str, typer.Option("--format", "-f", help=FORMATS)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New file or folder. Default: masks-FORMAT.")
    ] = None,
    without_mask: Annotated[
        str,
        typer.Option(
            "--without-mask", metavar="RULE", help="Boxes without a mask: drop, keep, or ignore their region."
        ),
    ] = "drop",
    min_mask_score: Annotated[
        float | None, typer.Option("--min-mask-score", help="Reject masks below it. Default: the run's.")
    ] = None,
    min_mask_bbox_iou: Annotated[
        float | None, typer.Option("--min-mask-bbox-iou", help="Of mask_bbox_iou. Default: the run's.")
    ] = None,
    min_expected_iou: Annotated[
        float | None, typer.Option("--min-expected-iou", help="Of expected_iou. Default: the run's.")
    ] = None,
    min_quality: Annotated[
        float | None, typer.Option("--min-quality", help="Of quality, if known. Default: the run's.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Gives masks a quality. Default: the run's.")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", help="Pixels by which a polygon may differ from its mask's outline."),
    ] = 0.4,
    images: Annotated[
        Path | None, typer.Option("--images", help="Images, to link to. Default: the run's.")
    ] = None,
) -> None:
    """Write the masks for other tools: COCO polygons or RLE, YOLO, VOC, LabelMe, CVAT, Label Studio."""
    cut = cutting.asked
    from deepmac_distill.stages.export import Choice
    from deepmac_distill.stages.export import export as write_masks

    choice = Choice(
        without_mask=without_mask,
        min_mask_score=min_mask_score,
        min_mask_bbox_iou=min_mask_bbox_iou,
        min_expected_iou=min_expected_iou,
        min_quality=min_quality,
        calibration=calibration,
        cut=cut,
    )
    done = write_masks(
        labels, format, out, choice=choice, images=images, tolerance_px=tolerance, progress=Terminal()
    )
    _print_exported(done, format)


@command(app)
def import_masks(
    file: Annotated[Path, typer.Argument(help="COCO file of a tool in which people corrected masks.")],
    into: Annotated[
        Path, typer.Option("--into", help="Run, or the COCO file that the masks belong to; left as it is.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New COCO file, to train and to evaluate on.")],
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="People looked at all of FILE: unchanged masks are human too.")
    ] = False,
    drop_removed: Annotated[
        bool, typer.Option("--drop-removed", help="Leave out objects that FILE no longer has on an image.")
    ] = False,
) -> None:
    """Take back masks that people corrected: what changed becomes human, in a new annotation file."""
    from deepmac_distill.stages.import_masks import import_masks as take_back

    done = take_back(file, into, out, reviewed=reviewed, drop_removed=drop_removed)
    say(
        f"{done.path}: {done.changed} masks changed, {done.drawn + done.added} new "
        f"({done.drawn} in boxes without one, {done.added} objects), {done.unchanged} unchanged"
    )
    if done.removed:
        became = "left out" if drop_removed else "kept; --drop-removed leaves them out"
        say(f"{done.removed} removed there: {became}")
    if done.relabeled:
        say(f"{done.relabeled} of another class now")
    reasons = ", ".join(f"{count} {reason}" for reason, count in done.unmatched.items() if count)
    if reasons:
        names = f" ({', '.join(done.unknown_classes)})" if done.unknown_classes else ""
        say(f"unmatched, left out: {reasons}{names}")


def _print_exported(done: Exported, name: str) -> None:
    losses, masks = done.losses, done.masks
    total = sum(masks.values())
    say(
        f"{done.path}: {total} masks on {done.images} images: {masks['human']} by people, "
        f"{masks['teacher']} by a teacher"
    )
    if without := sum(done.without_mask.values()):
        kinds = f"{done.without_mask['rejected']} rejected, {done.without_mask['unlabeled']} never drawn"
        say(f"{without} boxes without a mask ({kinds}): {BECAME[done.became]}")
    if done.crowds_left_out:
        say(f"{done.crowds_left_out} crowds left out: {name} has none")
    if losses.masks:
        worst = "" if losses.worst_iou == 1 else f" (annotation {losses.worst_id})"
        say(
            f"IoU with the masks: mean {_percent(losses.mean_iou)}, "
            f"worst {_percent(losses.worst_iou)}{worst}; "
            f"{losses.parts_joined} parts joined, {losses.holes_cut} holes cut"
        )
    if losses.poor:
        say(f"{losses.poor} masks lose more than a tenth; coco-rle and cvat hold them exactly")


def _percent(share: float) -> str:
    """Rounded down, so that 100 % is exact.

    >>> _percent(1.0), _percent(0.99999)
    ('100.00 %', '99.99 %')
    """
    return f"{int(share * 10_000) / 100:.2f} %"
