"""What a hold-out found, as tables and as a page."""

from __future__ import annotations

from collections.abc import Iterator

from deepmac_distill.evaluation.holdout_results import HeldOut, Holdout
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Cell, Column, Table, columns, names

INTERVALS = "95 % intervals of images, classes and, for trained teachers, folds; for classes like these"
BIAS = (
    "A trained teacher saw fewer classes and masks here than it will when it labels, so its figure is more "
    "likely too low than too high."
)


def holdout_table(found: Holdout) -> Table:
    """A row for each teacher, and the floor."""
    floor = ("ellipse inscribed in the box", None, None, found.ellipse, None, None, None, None, None, "")
    return Table(
        f"Teachers on classes hidden from them{_how(found)}: mask IoU in given boxes, mean over classes (%)",
        (
            *names("teacher"),
            *columns("count", ("classes", "masks")),
            *columns("percent", ("IoU",)),
            Column("− ellipse", "points"),
            *columns("percent", ("boundary IoU", "mean over masks", "shown elsewhere: IoU")),
            Column("classes", "count"),
            *columns("figure", ("seconds",)),
        ),
        (*(_row(one) for one in found.teachers), floor),
    )


def pairs_table(found: Holdout) -> Table:
    """Paired differences of the teachers that can be ranked."""
    return Table(
        "Differences, paired",
        (*names("teachers"), Column("classes", "count"), Column("difference", "points")),
        tuple((f"{pair.a} − {pair.b}", pair.classes, pair.a_minus_b) for pair in found.pairs),
    )


def classes_table(found: Holdout) -> Table:
    """A row for each class, as information."""
    teachers = [teacher.name for teacher in found.teachers]
    return Table(
        "By class, as information: a class alone decides nothing",
        (
            *names("class"),
            *columns("count", ("fold", "masks")),
            *columns("percent", ("ellipse", *teachers)),
            Column("shown elsewhere to", "text"),
        ),
        tuple(
            (
                *(row.name, row.fold, row.instances, row.ellipse),
                *(row.iou.get(name) for name in teachers),
                ", ".join(row.shown_elsewhere_to),
            )
            for row in found.per_class
        ),
    )


def conclusions(found: Holdout) -> Iterator[str]:
    """What follows, a line each."""
    if found.winner is None:
        yield "no winner: every teacher saw masks of classes that were tried, or may have"
    elif found.tied:
        yield f"tie of {', '.join(found.tied)}: {found.winner} is the cheapest"
    else:
        yield f"winner: {found.winner}"
    for one in found.teachers:
        if one.ranked and (one.minus_ellipse.value or 0) < 0:
            yield f"{one.name} is below the ellipse: a drawn ellipse is better"
        if not one.ranked:
            yield (
                f"{one.name} is not ranked: it saw masks of {one.elsewhere_classes} classes elsewhere, "
                "or nobody knows"
            )
    if found.quick:
        yield "quick: trainings had fewer steps than the recipe, so these are not the recipe's figures"


def holdout_page(found: Holdout) -> str:
    """``holdout.md``: the same for people."""
    parts = ["# Hold-out"]
    for table in (holdout_table(found), pairs_table(found), classes_table(found)):
        if table.rows:
            parts += [f"{table.title}.", markdown_table(table)]
        if table.title.startswith("Teachers"):
            parts.append("\n".join(f"- {line}" for line in conclusions(found)))
    return "\n\n".join([*parts, f"{INTERVALS}. {BIAS}"]) + "\n"


def _row(one: HeldOut) -> tuple[Cell, ...]:
    return (
        one.name,
        one.classes,
        one.instances,
        one.iou,
        one.minus_ellipse,
        one.boundary_iou,
        one.instance_mean_iou,
        one.elsewhere_iou,
        one.elsewhere_classes,
        f"{one.seconds:.0f}",
    )


def _how(found: Holdout) -> str:
    return f", {len(found.folds)} folds{', quick' if found.quick else ''}"
