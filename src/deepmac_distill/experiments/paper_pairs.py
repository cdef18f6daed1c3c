"""Differences of two rows of a table, paired by seed and by image, beside the paper's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.means import Floats, Means, interval
from deepmac_distill.evaluation.results import Interval
from deepmac_distill.evaluation.seed_noise import seeds_alone
from deepmac_distill.evaluation.splits import BySplit
from deepmac_distill.experiments.mask_head_figures import RESAMPLES
from deepmac_distill.experiments.mask_head_table import as_in_the_paper, as_stated, sign_of
from deepmac_distill.experiments.paper_kept import Aps, Kept, Scores
from deepmac_distill.experiments.paper_tables import PaperRow, PaperTable
from deepmac_distill.experiments.paper_trainings import Scale
from deepmac_distill.report.table import MISSING, Column, Table, columns, names
from deepmac_distill.report.tables import LEAST, least_cell

Labels = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Of two rows, the first minus the second, in fractions."""

    seeds: tuple[int, ...]  # that both have
    unseen: Interval  # of the classes that both are about: all where all were shown
    seen: Interval | None  # None where the two were shown masks of different classes, as the next one
    gap: Interval | None  # unseen - seen: whether the first carries over better, and is not just better


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """A pair of rows that a table is about, and what the paper has of it."""

    a: str
    b: str
    paper: float | None  # points on the same classes; None: it prints none, be it that it states the order
    ours: Difference
    verdict: str


@dataclass(frozen=True, slots=True)
class _Draws:
    """Class means (1 + R, S) of the S seeds of a row: of the data, and of resampled images."""

    scores: Scores
    seen: Floats
    unseen: Floats

    def of(self, seeds: Sequence[int], draws: Floats) -> Floats:
        known = list(self.scores.by_seed)
        places = [known.index(seed) if self.scores.learns else 0 for seed in seeds]
        return draws[:, places] if len(places) > 1 else draws[:, places[0]]


def differences_of(
    of: PaperTable, rows: Sequence[PaperRow], scale: Scale, kept: Kept
) -> dict[Labels, Difference]:
    """Of every two rows that are about the same classes and share seeds, by their labels.

    Raises:
        RunError: two rows were evaluated on different instances.
    """
    scores = {row.label: one for row in rows if (one := kept.scores_of(of, row, scale)) is not None}
    _require_one_data_set(of, scores)
    draws = {label: _draws(one) for label, one in scores.items()}
    aps = {row.label: found for row in rows if (found := kept.aps_of(of, row, scale)) is not None}
    pairs = [((a, b), _difference(draws[a], draws[b])) for a, b in itertools.permutations(draws, 2)]
    pairs += [((a, b), _difference_of_ap(aps[a], aps[b])) for a, b in itertools.permutations(aps, 2)]
    return {labels: difference for labels, difference in pairs if difference is not None}


def pairs_of(
    of: PaperTable, rows: Sequence[PaperRow], differences: Mapping[Labels, Difference]
) -> tuple[PairResult, ...]:
    """The pairs that a table names, as far as both rows are there."""
    papers = {row.label: row.papers.get("unseen", row.papers.get("all")) for row in rows}
    found = []
    for a, b in (*of.pairs, *(pair for pair in of.stated if pair not in of.pairs)):
        ours = differences.get((a, b))
        if ours is None:
            continue
        first, second = papers[a], papers[b]
        paper = None if first is None or second is None else first - second
        verdict = as_stated(ours.unseen, 1) if (a, b) in of.stated else as_in_the_paper(ours.unseen, paper)
        found.append(PairResult(a=a, b=b, paper=paper, ours=ours, verdict=verdict))
    return tuple(found)


def pairs_table(title: str, pairs: Sequence[PairResult], about: str = "unseen") -> Table:
    """The pairs of a table, a line each.

    Args:
        about: which classes its rows are about, in a word.
    """
    return Table(
        f"{title}: differences",
        (
            *names("a − b"),
            Column("seeds", "count"),
            *columns("points", ("on seen", f"on {about}", "unseen − seen")),
            Column(f"{LEAST} on {about}", "percent"),
            Column(f"the paper's on {about}", "figure"),
            Column(f"the paper's order on {about}", "text"),
        ),
        tuple(
            (
                f"{pair.a} − {pair.b}",
                len(pair.ours.seeds),
                pair.ours.seen,
                pair.ours.unseen,
                pair.ours.gap,
                least_cell(pair.ours.unseen) if pair.ours.unseen.seeds_df else None,
                MISSING if pair.paper is None else f"{pair.paper:+.1f}",
                pair.verdict,
            )
            for pair in pairs
        ),
    )


def pairs_sentence(pairs: Sequence[PairResult], about: str = "unseen") -> str:
    """Which of a table's pairs have the paper's order, in plain words; empty without pairs.

    An order is less than the paper's claim: a row may be ahead on seen classes by as much.

    Args:
        about: which classes its rows are about, in a word.
    """
    kinds = {
        f"The paper's order on {about} classes": "yes",
        f"The other way round than in the paper on {about} classes": "no, the other way round",
        "Not separated": "not shown",
        "One seed in common, which shows nothing": "one seed shows nothing",
        "No more than its noise in the paper": "the paper has none",
    }
    parts = []
    for words, verdict in kinds.items():
        named = [f"{pair.a} over {pair.b}" for pair in pairs if pair.verdict == verdict]
        if named:
            parts.append(f"{words}: {'; '.join(named)}.")
    gaps = {
        f"{pair.a} over {pair.b}": pair.ours.gap
        for pair in pairs
        if pair.ours.gap is not None and pair.ours.gap.seeds_df and pair.verdict != "the paper has none"
    }
    if gaps:
        carried = [name for name, gap in gaps.items() if sign_of(gap) > 0]
        words = f"Unseen − seen above zero, {len(carried)} of {len(gaps)}"
        parts.append(f"{words}: {'; '.join(carried)}." if carried else f"{words}.")
    return " ".join(parts)


def _require_one_data_set(of: PaperTable, scores: Mapping[str, Scores]) -> None:
    first = next(iter(scores), "")
    for label, one in scores.items():
        if one.instances != scores[first].instances:
            raise RunError(
                f"{of.id}: {label!r} was evaluated on other instances than {first!r}; expected one data set "
                "for all rows (those of the comparison of mask heads: --heads FOLDER)"
            )


def _draws(scores: Scores) -> _Draws:
    kept, classes = scores.instances, scores.classes
    columns_ = {str(seed): pa.array(ious) for seed, ious in scores.by_seed.items()}
    table = pa.table(
        {
            "image_id": pa.array(kept.image_id, pa.int64()),
            "category_id": pa.array(kept.category_id, pa.int32()),
            **columns_,
        }
    )
    about = np.array([name in scores.about for name in classes.names])
    everything, seen = np.arange(len(classes)), np.flatnonzero(classes.seen)
    splits = BySplit(everything, seen, np.flatnonzero(about))
    means = Means.of(table, list(columns_), classes, RESAMPLES, seed=0, splits=splits).class_means
    return _Draws(scores, means.seen, means.unseen)


def _difference(a: _Draws, b: _Draws) -> Difference | None:
    seeds = _common_seeds(a.scores, b.scores)
    if not seeds or a.scores.about != b.scores.about:
        return None
    unseen = a.of(seeds, a.unseen) - b.of(seeds, b.unseen)
    if a.scores.classes.seen != b.scores.classes.seen or all(a.scores.classes.seen):
        return Difference(seeds=seeds, unseen=interval(unseen), seen=None, gap=None)
    seen = a.of(seeds, a.seen) - b.of(seeds, b.seen)
    return Difference(seeds=seeds, unseen=interval(unseen), seen=interval(seen), gap=interval(unseen - seen))


def _common_seeds(a: Scores, b: Scores) -> tuple[int, ...]:
    """Those that both have; what does not learn has any that the other has."""
    if a.learns != b.learns:
        return tuple((a if a.learns else b).by_seed)
    return tuple(seed for seed in a.by_seed if seed in b.by_seed)


def _difference_of_ap(a: Aps, b: Aps) -> Difference | None:
    """Paired by seed alone: images of an AP are not resampled."""
    seeds = tuple(seed for seed in a.by_seed if seed in b.by_seed)
    if not seeds or a.about != b.about:
        return None
    unseen = [_minus(a.by_seed[seed].get(a.split), b.by_seed[seed].get(b.split)) for seed in seeds]
    if a.classes.seen != b.classes.seen or all(a.classes.seen):
        return Difference(seeds=seeds, unseen=seeds_alone(unseen), seen=None, gap=None)
    seen = [_minus(a.by_seed[seed].get("seen"), b.by_seed[seed].get("seen")) for seed in seeds]
    gap = [_minus(*both) for both in zip(unseen, seen, strict=True)]
    return Difference(seeds=seeds, unseen=seeds_alone(unseen), seen=seeds_alone(seen), gap=seeds_alone(gap))


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
