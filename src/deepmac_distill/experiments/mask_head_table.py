"""The comparison of mask heads as tables: the rows, and the differences beside the paper's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from deepmac_distill.evaluation.results import Interval
from deepmac_distill.experiments.mask_head_costs import Cost
from deepmac_distill.experiments.mask_head_figures import HeadFigures, PairFigures, RowFigures
from deepmac_distill.experiments.mask_head_results import HeadRun, Results
from deepmac_distill.experiments.mask_head_rows import HEADS, ROWS, SEEDS, Pair
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import MISSING, Cell, Column, Table, columns, names, percent
from deepmac_distill.report.tables import LEAST, least_cell

# Points by which the paper's tables 5 and 6 differ on unseen classes for the same ResNet-20: its own noise.
PAPERS_NOISE = 1.1
MARGIN = 0.001  # of an interval beyond zero: drawing images anew moves its ends by less


def rows_table(found: HeadFigures) -> Table:
    """The rows, the best of unseen classes first."""
    return Table(
        "Mask heads, each in a model that was trained whole",
        (
            *names("mask head"),
            Column("seeds", "count"),
            *columns("percent", ("seen", "unseen")),
            Column("unseen of each seed", "figure"),
            *columns("points", ("unseen − seen", "unseen − ellipse")),
        ),
        tuple((name, *_row_cells(row)) for name, row in _ordered(found)),
    )


def details_table(found: HeadFigures, costs: Mapping[str, Cost]) -> Table:
    """Sizes, edges, training loss and costs of the rows, in the order of `rows_table`."""
    return Table(
        "Mask heads in detail",
        (
            *names("mask head"),
            *columns("percent", ("unseen, small", "medium", "large", "boundary IoU, unseen", "seen")),
            Column("missed", "percent"),
            *columns("figure", ("training loss", "parameters", "GMACs")),
            *columns("figure", ("forward ms", "training ms", "saved MiB")),
        ),
        tuple((name, *_detail_cells(row), *_cost_cells(costs.get(name))) for name, row in _ordered(found)),
    )


def pairs_table(found: HeadFigures) -> Table:
    """The differences, on seen and on unseen classes, and their difference."""
    return Table(
        "Differences of mask heads",
        (
            *names("a − b"),
            Column("seeds", "count"),
            *columns("points", ("on seen", "on unseen", "interaction: unseen − seen")),
            Column(LEAST, "percent"),
            Column("the paper's: seen, unseen, interaction", "figure"),
            Column("interaction as in the paper", "text"),
        ),
        tuple(_pair_cells(row) for row in found.pairs),
    )


def page(results: Results, found: HeadFigures) -> str:
    """Markdown: all tables, what made them, and what is missing."""
    costs = results.costs
    lines = [*_comparison(found), markdown_table(details_table(found, costs.costs if costs else {})), ""]
    lines += _made_by(results, found, "make mask-heads DATA=FOLDER")
    if costs:
        lines.append(
            f"Costs are of one instance at the widths trained, on the CPU: {costs.environment.hardware}."
        )
    if missing := missing_runs({(run.row, run.seed) for run in results.runs}):
        lines.append(f"Not there yet: {missing}.")
    return "\n".join(lines)


def page_of_some(results: Results, found: HeadFigures, command: str) -> str:
    """Markdown of a comparison that was asked for some rows alone: rows, pairs, and what made them."""
    return "\n".join([*_comparison(found), *_made_by(results, found, command)])


def _comparison(found: HeadFigures) -> list[str]:
    pairs = [markdown_table(pairs_table(found)), ""] if found.pairs else []
    return [markdown_table(rows_table(found)), "", *pairs]


def _made_by(results: Results, found: HeadFigures, command: str) -> list[str]:
    """The command, its schedule and hardware, which noise the brackets hold, and the time."""
    learned = next((run for run in results.runs if run.training_loss is not None), None)
    on: dict[str, list[HeadRun]] = {}
    for run in results.runs:
        if learned is None or run.row in HEADS:
            on.setdefault(f"{run.environment.hardware}, torch {run.environment.torch}", []).append(run)
    minutes = [sum(run.seconds.values()) / 60 for run in results.runs if run.row in HEADS]
    lines = [
        f"`{command}`: {_schedule(learned) if learned else 'no head is trained yet'}, "
        f"{' and '.join(on)}. Mask IoU in given boxes, mean over classes.",
        _noise(found),
    ]
    if len(on) > 1:
        lines += [f"On {machine}: {_in_words(runs)}." for machine, runs in on.items()]
        lines.append("So a pair of one seed may be of two machines, whose convolutions round otherwise.")
    if minutes:
        least_to_most = " to ".join(dict.fromkeys(f"{end:.0f}" for end in (min(minutes), max(minutes))))
        lines.append(f"A training with its evaluation took {least_to_most} minutes.")
    return lines


def _in_words(runs: Sequence[HeadRun]) -> str:
    """Rows with their seeds."""
    rows = dict.fromkeys(run.row for run in runs)
    seeds = {row: ", ".join(str(run.seed) for run in runs if run.row == row) for row in rows}
    return "; ".join(f"{row} {each}" for row, each in seeds.items())


def _noise(found: HeadFigures) -> str:
    """Which noise the brackets hold."""
    if not any(len(row.seeds) > 1 for row in found.rows.values()):
        return (
            "One seed: brackets are 95 % intervals of image sampling only, and show no difference of heads."
        )
    return (
        "Brackets are 95 % intervals of image sampling and of the row's or pair's own seeds; where it has "
        "one seed, of image sampling only."
    )


def _schedule(run: HeadRun) -> str:
    keys = ("teacher.train.steps", "teacher.train.batch_size", "teacher.look.window_size_px")
    steps, windows, size_px = (run.recipe.get(key, MISSING) for key in keys)
    return f"{steps} steps of {windows} windows of {size_px} px"


def missing_runs(there: Collection[tuple[str, int]], seeds: int = SEEDS) -> str:
    """Which trainings a complete table lacks, in words.

    >>> there = {(row, seed) for row in ROWS for seed in range(3)} - {("resnet-4", 2), ("hourglass-10", 0)}
    >>> missing_runs(there)
    'resnet-4 (seed 2), hourglass-10 (seed 0)'
    """
    parts = []
    for row in ROWS:
        lacking = [seed for seed in range(seeds if row in HEADS else 1) if (row, seed) not in there]
        if lacking:
            word = "seeds" if len(lacking) > 1 else "seed"
            parts.append(f"{row} ({word} {', '.join(map(str, lacking))})")
    return ", ".join(parts)


def as_in_the_paper(interaction: Interval, papers: float | None) -> str:
    """Whether our interaction has the sign of the paper's: only an interval can show it.

    Args:
        papers: the paper's interaction in points; None: it does not print one.

    >>> as_in_the_paper(Interval(0.02, 0.01, 0.03, 0.005, 2), 13.3)
    'yes'
    >>> as_in_the_paper(Interval(0.02, -0.01, 0.05, 0.005, 2), 13.3)
    'not shown'
    >>> as_in_the_paper(Interval(-0.02, -0.03, -0.01, 0.005, 2), 13.3)
    'no, the other way round'
    >>> as_in_the_paper(Interval(0.02, 0.01, 0.03, 0.005, 2), 0.3)
    'the paper has none'
    >>> as_in_the_paper(Interval(0.02, 0.01, 0.03), 13.3)
    'one seed shows nothing'
    """
    if papers is None:
        return "the paper prints none"
    if abs(papers) <= PAPERS_NOISE:
        return "the paper has none"
    return as_stated(interaction, papers)


def as_stated(difference: Interval, sign: float) -> str:
    """Whether our difference has a sign that does not hang on how images are drawn.

    >>> as_stated(Interval(0.02, 0.0006, 0.03, 0.005, 2), 1)
    'not shown'
    """
    if difference.low is None or difference.high is None:
        return "not measured"
    if not difference.seeds_df:
        return "one seed shows nothing"
    if sign_of(difference) * sign > 0:
        return "yes"
    return "no, the other way round" if sign_of(difference) else "not shown"


def sign_of(difference: Interval) -> int:
    """Of a difference whose interval leaves out zero by a tenth of a point; 0 of any other."""
    if difference.low is None or difference.high is None:
        return 0
    return 1 if difference.low >= MARGIN else -1 if difference.high <= -MARGIN else 0


def _ordered(found: HeadFigures) -> list[tuple[str, RowFigures]]:
    return sorted(found.rows.items(), key=lambda item: -(item[1].iou.unseen.value or 0))


def _row_cells(row: RowFigures) -> tuple[Cell, ...]:
    return (
        *(len(row.seeds), row.iou.seen.value, row.iou.unseen.value),
        *(", ".join(map(percent, row.unseen_of_each_seed)), row.iou.gap, row.minus_ellipse.unseen),
    )


def _detail_cells(row: RowFigures) -> tuple[Cell, ...]:
    loss = "" if row.training_loss is None else f"{row.training_loss:.3f}"
    sizes = (value for _, value in row.unseen_by_size.items())
    return (*sizes, row.boundary_iou.unseen, row.boundary_iou.seen, row.missed, loss)


def _pair_cells(row: PairFigures) -> tuple[Cell, ...]:
    seen, unseen, gap = papers_differences(row.pair)
    papers = ", ".join(MISSING if value is None else f"{value:+.1f}" for value in (seen, unseen, gap))
    ours = row.difference
    return (
        *(f"{row.pair.a} − {row.pair.b}", len(row.seeds), ours.seen, ours.unseen, ours.gap),
        *(least_cell(ours.gap), f"{papers} ({row.pair.where})"),
        as_in_the_paper(ours.gap, gap),
    )


def papers_differences(pair: Pair) -> tuple[float | None, float, float | None]:
    """The paper's a - b on seen and on unseen classes, and the interaction, in points."""
    a, b = pair.paper
    unseen = a.unseen - b.unseen
    if a.seen is None or b.seen is None:
        return None, unseen, None
    return a.seen - b.seen, unseen, unseen - (a.seen - b.seen)


def _cost_cells(cost: Cost | None) -> tuple[Cell, ...]:
    if cost is None:
        return ("",) * 5
    times = (f"{value:.1f}" for value in (cost.forward_ms, cost.training_ms, cost.saved_mib))
    return (f"{cost.parameters:,}", f"{cost.gmacs:.3f}", *times)
