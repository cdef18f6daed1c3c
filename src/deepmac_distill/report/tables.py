"""Every result as a table: IoU and AP in percent, differences in points."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from deepmac_distill.evaluation.power import least_difference
from deepmac_distill.evaluation.results import (
    ClassRow,
    Detected,
    Evaluation,
    Interval,
    MeanIoU,
    PairedDetections,
    PairedIoU,
    PairedMeans,
    SizeIoU,
    SplitIoU,
)
from deepmac_distill.evaluation.seed_results import SeedsReport
from deepmac_distill.evaluation.splits import BySplit
from deepmac_distill.report.table import Cell, Column, Table, columns, names, percent, points

GIVEN_BOXES = "Mask IoU in given boxes, mean over classes (%)"
BOUNDARIES = "Boundary IoU in given boxes, mean over classes (%)"
DETECTED = "COCO average precision (%)"
LEAST = "least difference"  # the smallest true one that 80 % of such experiments would find
NAMES_SHOWN = 3  # of classes in one line


def given_boxes_table(given_boxes: BySplit[SplitIoU]) -> Table:
    """Class-mean mask IoU in given boxes."""
    return Table(
        GIVEN_BOXES,
        (
            *names("split"),
            *columns("count", ("classes", "instances")),
            *columns("percent", ("model", "ellipse", "box")),
            *columns("points", ("model − ellipse", "model − box")),
        ),
        tuple(
            (
                *(split, row.classes, row.instances, *_means(row.class_mean_iou)),
                *(row.model_minus_ellipse, row.model_minus_box),
            )
            for split, row in given_boxes.items()
        ),
    )


def boundary_table(given_boxes: BySplit[SplitIoU]) -> Table:
    """Class-mean boundary IoU in given boxes; no rows where it was not measured."""
    return Table(
        BOUNDARIES,
        (
            *names("split"),
            *columns("percent", ("model", "ellipse", "box")),
            Column("model − ellipse", "points"),
        ),
        tuple(
            (split, *_means(row.boundary.class_mean_iou), row.boundary.model_minus_ellipse)
            for split, row in given_boxes.items()
            if row.boundary is not None
        ),
    )


def sizes_table(given_boxes: BySplit[SplitIoU]) -> Table:
    """Class-mean mask IoU and boundary IoU by the size of the truth."""
    return Table(
        "Mask IoU by size, mean over classes (%)",
        (
            *names("split", "size"),
            Column("instances", "count"),
            *columns("percent", ("model", "ellipse", "box")),
            Column("model − ellipse", "points"),
            *columns("percent", ("boundary IoU", "of the ellipse")),
        ),
        tuple(
            (split, size, row.instances, *_means(row.class_mean_iou), *_size_cells(row))
            for split, whole in given_boxes.items()
            for size, row in whole.by_size.items()
        ),
    )


def detected_table(detected: Detected) -> Table:
    """COCO average precision of masks and boxes."""
    kinds = (("masks", detected.segm), ("boxes", detected.bbox))
    return Table(
        DETECTED,
        (
            *names("of", "split"),
            *columns("percent", ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")),
            Column("instances", "count"),
        ),
        tuple(
            (kind, split, row.AP, row.AP50, row.AP75, row.APs, row.APm, row.APl, row.AR100, row.instances)
            for kind, splits in kinds
            if splits is not None
            for split, row in splits.items()
        ),
    )


def per_class_table(per_class: Sequence[ClassRow]) -> Table:
    """One row a class, by class index."""
    return Table(
        "Per class (%)",
        (
            *names("class", "masks in training"),
            Column("instances", "count"),
            *columns("percent", ("model IoU", "ellipse IoU", "box IoU", "boundary IoU", "mask AP", "box AP")),
        ),
        tuple(
            (
                row.name,
                _split_of(row),
                row.instances,
                row.model,
                row.ellipse,
                row.box,
                row.boundary,
                row.segm_AP,
                row.bbox_AP,
            )
            for row in per_class
        ),
    )


def comparison_table(given_boxes: BySplit[PairedIoU], a: str, b: str) -> Table:
    """Two models on the same instances; `a` and `b` name them."""
    return Table(
        GIVEN_BOXES,
        (*names("split"), *columns("count", ("classes", "instances")), *_pair_columns(a, b)),
        tuple((split, row.classes, row.instances, *_pair_cells(row)) for split, row in given_boxes.items()),
    )


def boundary_comparison_table(given_boxes: BySplit[PairedIoU], a: str, b: str) -> Table:
    """Two models' boundary IoU on the same instances."""
    return Table(
        BOUNDARIES,
        (*names("split"), *_pair_columns(a, b)),
        tuple(
            (split, *_pair_cells(row.boundary))
            for split, row in given_boxes.items()
            if row.boundary is not None
        ),
    )


def size_comparison_table(given_boxes: BySplit[PairedIoU], a: str, b: str) -> Table:
    """Two models on the same instances by the size of the truth, mask IoU and boundary IoU."""
    return Table(
        "In given boxes by size, mean over classes (%)",
        (*names("of", "split", "size"), Column("instances", "count"), *_pair_columns(a, b)),
        tuple(
            (measure, split, size, row.instances, *_pair_cells(means))
            for measure in ("mask", "boundary")
            for split, whole in given_boxes.items()
            if whole.by_size is not None
            for size, row in whole.by_size.items()
            for means in (row.mask if measure == "mask" else row.boundary,)
        ),
    )


def _pair_columns(a: str, b: str) -> tuple[Column, ...]:
    return (*columns("percent", (a, b)), Column(f"{a} − {b}", "points"), Column(LEAST))


def _pair_cells(means: PairedMeans | PairedIoU) -> tuple[Cell, ...]:
    pair, difference = means.class_mean_iou, means.a_minus_b
    return pair.a, pair.b, difference, least_cell(difference)


def least_cell(*differences: Interval) -> Cell:
    """The largest least difference of some differences; a bound where it is too small to be printed.

    >>> least_cell(Interval(0.0, 0.0, 0.0)), least_cell(Interval(0.0, -1e-6, 1e-6))
    (None, '< 0.1')
    """
    found = [least for one in differences if (least := least_difference(one)) is not None]
    if not found:
        return None
    return max(found) if percent(max(found)) != percent(0.0) else "< 0.1"


def detection_comparison_table(detected: PairedDetections, a: str, b: str) -> Table:
    """Two models' COCO AP of masks and boxes."""
    kinds = (("masks", detected.segm), ("boxes", detected.bbox))
    return Table(
        DETECTED,
        (*names("of", "split"), *_pair_columns(a, b)),
        tuple(
            (kind, split, row.AP.a, row.AP.b, row.AP.a_minus_b, least_cell(row.AP.a_minus_b))
            for kind, splits in kinds
            for split, row in splits.items()
            if row is not None
        ),
    )


def seeds_table(found: SeedsReport) -> Table:
    """Each seed's class-mean mask IoU in given boxes, and how far seeds are apart."""
    rows: list[tuple[Cell, ...]] = []
    for role, by_seed in found.class_mean_iou.items():
        each = [(one.all, one.seen, one.unseen) for one in by_seed.values()]
        rows += [(role, seed, *values) for seed, values in zip(by_seed, each, strict=True)]
        spreads = zip(*each, strict=True)
        rows.append((role, "standard deviation", *map(_spread, spreads)))
    return Table(
        GIVEN_BOXES, (*names("model", "seed"), *columns("percent", ("all", "seen", "unseen"))), tuple(rows)
    )


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def interval_note(seeds: Sequence[int]) -> str:
    """One line: which noise the intervals of a table hold."""
    if len(seeds) < 2:
        return "95 % intervals of image sampling only"
    return f"95 % intervals of image sampling and training noise ({len(seeds)} seeds)"


def headline(evaluation: Evaluation) -> str | None:
    """The figure to read first, in one line: masks of unseen classes over the ellipse; None without any."""
    unseen = evaluation.given_boxes.unseen
    if unseen.class_mean_iou.model is None:
        return None
    lead = points(unseen.model_minus_ellipse)
    return (
        f"unseen classes: mask IoU {percent(unseen.class_mean_iou.model)} % in given boxes, {lead} points "
        "over the ellipse inscribed in the box"
    )


def why_nothing_is_unseen(evaluation: Evaluation) -> str | None:
    """One line that explains rows without figures for unseen classes; None where there are figures."""
    if evaluation.given_boxes.unseen.instances:
        return None
    hidden = [row for row in evaluation.per_class if not row.seen]
    unseen = [row.name for row in hidden if not row.shown_elsewhere]
    if not hidden:
        return "unseen: no figures: data.seen names every class (--seen)"
    if not unseen:
        return (
            "unseen: no figures: the model saw, or may have seen, masks of every class that is not seen here"
        )
    some = ", ".join(unseen[:NAMES_SHOWN]) + (", ..." if len(unseen) > NAMES_SHOWN else "")
    return f"unseen: no figures: the validation set has no human masks of the unseen classes ({some})"


def _means(means: MeanIoU) -> tuple[float | None, float | None, float | None]:
    return means.model, means.ellipse, means.box


def _size_cells(row: SizeIoU) -> tuple[Cell, ...]:
    """The lead over the ellipse, and the boundary IoU of model and ellipse."""
    if row.boundary is None:
        return row.model_minus_ellipse, None, None
    means = row.boundary.class_mean_iou
    return row.model_minus_ellipse, means.model, means.ellipse


def _split_of(row: ClassRow) -> str:
    return "seen" if row.seen else "shown elsewhere" if row.shown_elsewhere else "unseen"
