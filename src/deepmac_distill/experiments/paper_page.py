"""A table or figure of the paper with ours beside it: terminal, Markdown, JSON."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepmac_distill import paper
from deepmac_distill.evaluation.power import least_difference
from deepmac_distill.evaluation.results import Interval
from deepmac_distill.experiments.mask_head_table import PAPERS_NOISE, sign_of
from deepmac_distill.experiments.paper_kept import Found, Kept
from deepmac_distill.experiments.paper_pairs import (
    Difference,
    Labels,
    PairResult,
    differences_of,
    pairs_of,
    pairs_sentence,
    pairs_table,
)
from deepmac_distill.experiments.paper_tables import (
    LOOSE_PERCENT,
    Measure,
    PaperRow,
    PaperTable,
    cut_of,
    same_rows,
)
from deepmac_distill.experiments.paper_trainings import Scale
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import MISSING, Cell, Column, Table, columns, names, share

MEASURES: dict[Measure, str] = {
    "AP": "COCO mask AP",
    "IoU": "mask IoU in given boxes, mean over classes",
    "IoU in loose boxes": f"mask IoU in boxes whose sides move by up to {LOOSE_PERCENT} %, mean over classes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One row: the paper's figures in percent, and ours as fractions."""

    label: str
    training: str
    paper: Mapping[str, float]
    split: str  # the classes that the row is about
    ours: Found | None  # None: not run
    group: str = ""  # rows of other groups are not compared
    same_as: str = ""  # label of an earlier row that is the same run at this scale


@dataclass(frozen=True, slots=True, kw_only=True)
class TableResult:
    """What `--json` writes of a table."""

    id: str
    title: str
    scale: Scale
    papers_measure: str
    our_measure: str
    cut: str  # what the small scale leaves out; empty at the paper's
    note: str = ""  # what holds at either scale
    changed: tuple[str, ...] = ()  # rows that were made with other keys than their pipeline files have
    rows: tuple[RowResult, ...]
    pairs: tuple[PairResult, ...] = ()  # paired differences of the rows that the table is about
    ranges: tuple[str, ...] = ()  # of the paper's rows whose figures it draws and does not print
    agreement: str


def result_of(of: PaperTable, rows: Sequence[PaperRow], scale: Scale, kept: Kept) -> TableResult:
    """Some rows of a table, with ours where they have been run.

    Rows that are one run at a scale have the same figures: they are compared with others once.
    """
    same = same_rows(rows, scale)
    found = tuple(
        RowResult(
            label=row.label,
            training=row.training,
            paper=row.papers,
            split=row.split,
            ours=kept.found_of(of, row, scale),
            group=row.group,
            same_as=same.get(row.label, ""),
        )
        for row in rows
    )
    own = [row for row in rows if row.label not in same]
    differences = differences_of(of, own, scale, kept)
    return TableResult(
        id=of.id,
        title=of.title,
        scale=scale,
        papers_measure=MEASURES[of.figures],
        our_measure=MEASURES[of.measure(scale)],
        cut=cut_of(of, kept.whole) if scale == "small" else "",
        note=of.note,
        changed=tuple(words for row in rows if (words := kept.changed(row, scale))),
        rows=found,
        pairs=pairs_of(of, own, differences),
        ranges=tuple(f"{name} {' to '.join(map(str, paper.span(name)))}" for name in of.ranges),
        agreement=agreement([row for row in found if not row.same_as], differences),
    )


def table_of(found: TableResult, only_run: bool = False) -> Table:
    """The rows, or those that were run, the paper's figures first."""
    others = any(set(row.paper) - set(paper.SPLITS) for row in found.rows)
    floor = found.our_measure != MEASURES["AP"]
    return Table(
        f"{found.id}: {found.title}",
        (
            *names("row"),
            *(Column(f"paper's {split}, {_short(found.papers_measure)}", "figure") for split in paper.SPLITS),
            *((Column("paper's others", "text"),) if others else ()),
            Column("seeds", "count"),
            *(Column(f"our {split}, {_short(found.our_measure)}", "figure") for split in paper.SPLITS),
            *(columns("points", ("our unseen − ellipse",)) if floor else ()),
        ),
        tuple(_cells(row, others, floor) for row in found.rows if row.ours or not only_run),
    )


def lines_of(found: TableResult) -> list[str]:
    """What the table has to be read with."""
    lines = [f"The paper's: {found.papers_measure}, in percent. Ours: {found.our_measure}, in percent."]
    if found.cut:
        lines.append(f"A small scale: {found.cut}.")
    if found.note:
        lines.append(f"{found.note}.")
    if found.changed:
        lines.append(f"Changed: {'; '.join(found.changed)}.")
    if found.ranges:
        named = "; ".join(found.ranges)
        lines.append(f"The paper draws rows without their figures, of which it gives the range: {named}.")
    if same := [f"{row.label} is {row.same_as}" for row in found.rows if row.same_as and row.ours]:
        lines.append(f"One run at this scale, compared once: {'; '.join(same)}.")
    if below := _below_the_ellipse(found.rows):
        lines.append(f"Worse than an ellipse that fills the box, on a row's unseen classes: {below}.")
    if lacking := [row.label for row in found.rows if row.ours is None]:
        lines.append(f"Not run: {'; '.join(lacking)}.")
    if named := ", ".join(dict.fromkeys(row.split for row in found.rows if row.split != "unseen")):
        lines.append(f"Of rows that see other classes than VOC's, unseen stands for {named}.")
    minutes = [row.ours.minutes for row in found.rows if row.ours is not None and row.ours.minutes]
    if minutes:
        ends = dict.fromkeys(f"{end:.0f}" for end in (min(minutes), max(minutes)))
        lines.append(f"Minutes a training with its evaluation: {' to '.join(ends)}. {_machines(found.rows)}")
    if words := pairs_sentence(found.pairs, about_of(found.rows)):
        how = (
            "Differences are paired by seed, intervals hold the noise of seeds alone"
            if found.our_measure == MEASURES["AP"]
            else "Differences are paired by image and seed, intervals hold both"
        )
        lines.append(f"{how}. {words}")
    return [*lines, found.agreement]


def page_of(found: TableResult) -> str:
    """Markdown."""
    shown = differences_table(found)
    differences = [] if shown is None else [markdown_table(shown), ""]
    heading = [f"## {found.title} ({found.id})", ""]
    return "\n".join([*heading, markdown_table(table_of(found)), "", *differences, bullets(lines_of(found))])


def bullets(lines: Sequence[str]) -> str:
    """Markdown of lines that stand by themselves."""
    return "\n".join(f"- {line}" for line in lines)


def differences_table(found: TableResult) -> Table | None:
    """The paired differences that a table is about; None where there is none."""
    return pairs_table(found.id, found.pairs, about_of(found.rows)) if found.pairs else None


def agreement(rows: Sequence[RowResult], paired: Mapping[Labels, Difference]) -> str:
    """How far ours order the rows as the paper does, in a sentence: only intervals that part count.

    Rows whose instances are not kept are taken as independent, which widens what shared images would narrow.
    A row of one seed separates nothing, since its interval holds no training noise. Each pair is taken by
    itself, at 95 %.
    """
    differences = []
    about = about_of(rows)
    for a, b in itertools.combinations([row for row in rows if row.ours and about in row.paper], 2):
        papers, pair = a.paper[about] - b.paper[about], paired.get((a.label, b.label))
        ours = _minus(_unseen(a), _unseen(b)) if pair is None else pair.unseen
        if a.group == b.group and abs(papers) > PAPERS_NOISE and ours is not None:
            differences.append((papers, ours))
    if not differences:
        return "No two rows of ours can be compared with two that the paper sets apart."
    with_noise = [(papers, ours) for papers, ours in differences if ours.seeds_df]
    signs = [sign * papers for papers, ours in with_noise if (sign := sign_of(ours))]
    same, other = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
    pairs = len(differences)
    words = (
        f"Of {pairs} {'pair' if pairs == 1 else 'pairs'} of rows whose figures the paper prints and sets "
        f"apart by more than {PAPERS_NOISE} points on {about} classes, ours order {same} in the same way and "
        f"{other} in the other, each at 95 %; {pairs - same - other} not separated"
    )
    if one_seed := pairs - len(with_noise):
        words += f", {one_seed} of them since a row has one seed"
    least = [found for _, ours in with_noise if (found := least_difference(ours)) is not None]
    if not least:
        return f"{words}."
    points = f"{100 * statistics.median(least):.1f} points"
    return f"{words}. A true difference of {points} would be found four times in five."


def about_of(rows: Sequence[RowResult]) -> str:
    """The classes that the paper's figures of some rows are about: unseen, or all where all were shown."""
    return "unseen" if any("unseen" in row.paper for row in rows) else "all"


def _short(measure: str) -> str:
    return "AP" if measure == MEASURES["AP"] else "IoU"


def _machines(rows: Sequence[RowResult]) -> str:
    """Where rows were trained, by seed where they were not all trained on one machine."""
    on: dict[str, list[str]] = {}
    for row in rows:
        for machine, seeds in row.ours.machines.items() if row.ours and not row.same_as else ():
            on.setdefault(machine, []).append(f"{row.label} {', '.join(map(str, seeds))}")
    if len(on) == 1:
        return f"All on {next(iter(on))}."
    named = " ".join(f"Seeds on {machine}: {'; '.join(of)}." for machine, of in on.items())
    return f"{named} So a pair of one seed may be of two machines and versions."


def _below_the_ellipse(rows: Sequence[RowResult]) -> str:
    """The rows of several seeds whose masks are worse than no look at the image, by the interval."""
    own = [row for row in rows if row.ours and not row.same_as]
    leads = [(row.label, row.ours.over_ellipse.get(row.split)) for row in own if row.ours]
    below = [label for label, lead in leads if lead is not None and lead.seeds_df and sign_of(lead) < 0]
    return "; ".join(below)


def _unseen(row: RowResult) -> Interval | None:
    return None if row.ours is None else row.ours.figures.get(row.split)


def _minus(a: Interval | None, b: Interval | None) -> Interval | None:
    """Of two independent figures; without an interval where one has none."""
    if a is None or b is None or a.value is None or b.value is None:
        return None
    value = a.value - b.value
    halves = [one.high - one.low for one in (a, b) if one.low is not None and one.high is not None]
    if len(halves) < 2:
        return Interval(value)
    half = math.hypot(*halves) / 2
    seeds = [one.seeds_half for one in (a, b) if one.seeds_half is not None and one.seeds_df]
    if len(seeds) < 2:
        return Interval(value, value - half, value + half)
    return Interval(value, value - half, value + half, math.hypot(*seeds), a.seeds_df + b.seeds_df)


def _cells(row: RowResult, others: bool, floor: bool) -> tuple[Cell, ...]:
    papers = (f"{row.paper[split]:.1f}" if split in row.paper else MISSING for split in paper.SPLITS)
    rest = ", ".join(f"{kind} {value:.1f}" for kind, value in row.paper.items() if kind not in paper.SPLITS)
    figures = row.ours.figures if row.ours else {}
    of = {split: row.split if split == "unseen" else split for split in paper.SPLITS}
    ours = (share(figures[of[split]]) if of[split] in figures else MISSING for split in paper.SPLITS)
    seeds = len(row.ours.seeds) if row.ours else 0
    lead = row.ours.over_ellipse.get(row.split) if row.ours else None
    return (
        row.label,
        *papers,
        *((rest or MISSING,) if others else ()),
        seeds,
        *ours,
        *((lead,) if floor else ()),
    )
