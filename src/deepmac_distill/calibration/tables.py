"""A calibration as tables: how right it is, what thresholds leave, which cut is best."""

from __future__ import annotations

from deepmac_distill.calibration.calibration import Calibration
from deepmac_distill.calibration.expected import RECOMMENDED, Kept
from deepmac_distill.calibration.reliability import Reliability
from deepmac_distill.calibration.review import Review
from deepmac_distill.evaluation.results import Interval
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Column, Table, columns, names, percent, points, share


def reliability_table(found: Reliability) -> Table:
    """Masks by their quality, in ten bins of equal weight."""
    return Table(
        "Quality against truth, masks of hidden classes by folds without them (%)",
        (
            *names("bin"),
            Column("masks", "count"),
            *columns("percent", ("quality", "true IoU", "reach the lower bound")),
        ),
        tuple(
            (str(number), one.masks, one.quality, one.iou, one.coverage)
            for number, one in enumerate(found.bins, start=1)
        ),
    )


def by_class_table(found: Reliability) -> Table:
    """The same by class, the least quality first."""
    rows = sorted(found.by_class, key=lambda one: (one.quality, one.name))
    return Table(
        "By hidden class (%)",
        (
            *names("class"),
            Column("masks", "count"),
            *columns("percent", ("quality", "true IoU", "reach the lower bound")),
        ),
        tuple((one.name, one.masks, one.quality, one.iou, one.coverage) for one in rows),
    )


def cuts_table(calibration: Calibration) -> Table:
    """Where masks of hidden classes are best cut."""
    rule, *others = calibration.cuts
    return Table(
        "Cuts on hidden classes, mean over classes (%)",
        (*names("labels.cut"), Column("IoU"), Column("− the rule", "points")),
        (
            (str(rule.cut), rule.iou, None),
            *((f"{one.cut:g}", one.iou, one.minus_rule) for one in others if isinstance(one.cut, float)),
        ),
    )


def thresholds_table(kept: tuple[Kept, ...]) -> Table:
    """What `labels.min_quality` leaves of the masks of a label file."""
    return Table(
        "What labels.min_quality leaves (expected IoU in %)",
        (
            *names("min_quality"),
            *columns("count", ("kept", "rejected")),
            *columns("percent", ("expected IoU of the kept", "of the rejected")),
        ),
        tuple((f"{one.least:g}", one.kept, one.rejected, one.quality, one.rejected_quality) for one in kept),
    )


def classes_to_draw_table(found: Review, most: int = 20) -> Table:
    """Classes by what drawing all of their masks is expected to be worth."""
    return Table(
        "Classes by expected gain: boxes x (100 % − quality), an estimate",
        (
            *names("class"),
            Column("masks", "count"),
            Column("quality"),
            Column("gain (masks)", "figure"),
            Column("in the list", "count"),
        ),
        tuple(
            (one.name, one.masks, one.quality, f"{one.gain:.1f}", one.listed) for one in found.by_class[:most]
        ),
    )


def words_of(calibration: Calibration) -> list[str]:
    """What a reader of the tables should know, a line each."""
    held, found = calibration.held_out, calibration.reliability
    quick = ", trained for fewer steps than the recipe has" if held.quick else ""
    half = " Each fold's teacher saw fewer classes than the one that labels." if held.trained else ""
    tried = ", ".join(f"{one.score} {one.squared_error:.4f}" for one in calibration.scores)
    return [
        f"{held.teacher}: {held.masks} masks of {len(held.classes)} classes hidden in {held.folds} folds"
        f"{quick}.{half}",
        f"quality is of {calibration.score} (squared error of expected IoU: {tried})",
        f"quality − true IoU: {points(found.quality_minus_iou)} points; calibration error "
        f"{share(found.calibration_error)} %; rank correlation {found.rank_correlation or 0:.3f}, "
        f"{_plain(found.minus_mask_score)} more than that of mask_score",
        f"the lower bound is reached by {share(found.coverage)} % of masks, {percent(calibration.coverage)} "
        "aimed at: classes weighted alike, on average over classes like those tried, never for every mask",
        _cut_words(calibration),
        f"labels.min_quality = {RECOMMENDED} is recommended: a mask below matches its object at none of "
        "COCO's thresholds",
    ]


def page_of(calibration: Calibration) -> str:
    """All of it as a Markdown page."""
    lines = [f"# Quality of the masks of {calibration.held_out.teacher}", ""]
    lines += [f"- {line}" for line in words_of(calibration)]
    for table in (
        reliability_table(calibration.reliability),
        by_class_table(calibration.reliability),
        cuts_table(calibration),
    ):
        lines += ["", f"## {table.title}", "", markdown_table(table)]
    return "\n".join(lines) + "\n"


def _cut_words(calibration: Calibration) -> str:
    best = max(calibration.cuts[1:], key=lambda one: one.iou, default=None)
    if best is None or calibration.cut != calibration.cuts[0].cut:
        return f"cut: {calibration.cut} is best on hidden classes; labels.cut = calibrated applies it"
    lead = points(best.minus_rule)
    return f"cut: {calibration.cut} stays; the best number, {best.cut}, differs by {lead} points"


def _plain(figure: Interval) -> str:
    if figure.value is None:
        return "unknown"
    ends = "" if figure.low is None or figure.high is None else f" [{figure.low:+.3f}, {figure.high:+.3f}]"
    return f"{figure.value:+.3f}{ends}"
