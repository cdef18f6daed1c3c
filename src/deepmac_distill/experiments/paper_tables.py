"""Which rows each table and figure of the paper has, and what trains them: `paper_tables.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from deepmac_distill import paper
from deepmac_distill.errors import ConfigError
from deepmac_distill.experiments.paper_trainings import Scale, same_run, schedule_of

Measure = Literal["AP", "IoU", "IoU in loose boxes"]
LOOSE_PERCENT = 10  # how far a side of a loose box moves, of its width or height
NO_AP = "AP of a detector that a few hundred photographs taught is near zero"
IN_PLACE_OF_AP: dict[Measure, str] = {
    "IoU": "masks are measured in given boxes",
    "IoU in loose boxes": f"masks are measured in boxes whose sides move by up to {LOOSE_PERCENT} %",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRow:
    """One row: what is trained for it, and where its figures stand in the paper."""

    label: str
    training: str
    paper: tuple[str, str] | None = None  # place and model in paper.toml; None: the paper prints none
    recorded: str = ""  # at the small scale: a row of the comparison of mask heads, not trained again
    swapped: bool = False  # its seen classes are this row's unseen ones: of a row that learns nothing
    split: str = "unseen"  # the classes that the row is about
    family: str = ""  # of a figure: the line on which it is drawn
    group: str = ""  # rows of other groups are not compared: other classes, or other start weights
    baseline: bool = False  # of a figure: what its rows are compared with

    @property
    def papers(self) -> Mapping[str, float]:
        """The paper's figures in percent, by kind; empty where it prints none."""
        return paper.row(*self.paper) if self.paper else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """One table or figure."""

    id: str
    title: str
    figures: Measure  # what the paper measures
    small: Measure  # what the small scale measures in its place
    cut: str  # what the small scale leaves out; see `cut_of`
    rows: tuple[PaperRow, ...]
    pairs: tuple[
        tuple[str, str], ...
    ] = ()  # labels of rows, the first expected to be better: what it is about
    stated: tuple[tuple[str, str], ...] = ()  # pairs whose order the paper states without figures
    note: str = ""  # what a reader has to know at either scale
    ranges: tuple[str, ...] = ()  # of the paper's rows that it draws and does not print: names in paper.toml
    server: str = ""  # image info of a test set whose results a server evaluates

    def measure(self, scale: Scale) -> Measure:
        """What is measured at a scale."""
        return self.figures if scale == "coco" else self.small


@cache
def tables() -> dict[str, PaperTable]:
    """All of them, in the order of the paper."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return {name: _table(name, entry) for name, entry in tomllib.loads(text).items()}


def table(name: str) -> PaperTable:
    """The table or figure of a name such as ``table-5``.

    Raises:
        ConfigError: there is none.
    """
    if name not in tables():
        raise ConfigError(f"table: got {name!r}, expected one of {', '.join(tables())}")
    return tables()[name]


def rows_of(of: PaperTable, only: tuple[str, ...]) -> tuple[PaperRow, ...]:
    """The rows whose label or training is named; all where none is.

    Raises:
        ConfigError: a name is of no row.
    """
    known = {name for row in of.rows for name in (row.label, row.training)}
    for name in only:
        if name not in known:
            labels = ", ".join(row.label for row in of.rows)
            raise ConfigError(f"{of.id}: row: got {name!r}, expected one of {labels}")
    return tuple(row for row in of.rows if not only or {row.label, row.training} & set(only))


def cut_of(of: PaperTable, whole: bool = True) -> str:
    """In words: what the small scale measures, leaves out and, of whole trainings, how long they are."""
    schedules = (schedule_of(row.training, "small") for row in of.rows if whole)
    measured = [NO_AP, IN_PLACE_OF_AP[of.small]] if of.figures == "AP" else []
    return "; ".join([*measured, of.cut, *filter(None, dict.fromkeys(schedules))])


def same_rows(rows: Sequence[PaperRow], scale: Scale) -> dict[str, str]:
    """Label -> that of an earlier row whose run it shares at a scale, and so its figures.

    >>> same_rows(table("table-1").rows, "small")["ResNet-101-FPN, gt"]
    'ResNet-50-FPN, gt'
    """
    first: dict[tuple[str, bool, str], str] = {}
    found = {}
    for row in rows:
        recorded = row.recorded if scale == "small" else ""
        run = (recorded or same_run(row.training, scale), row.swapped, row.split)
        if first.setdefault(run, row.label) != row.label:
            found[row.label] = first[run]
    return found


def _table(name: str, entry: Mapping[str, Any]) -> PaperTable:
    rows = tuple(
        PaperRow(**{**row, "paper": tuple(row["paper"]) if "paper" in row else None}) for row in entry["rows"]
    )
    kinds = ("pairs", "stated")
    pairs = {kind: tuple((first, second) for first, second in entry.get(kind, ())) for kind in kinds}
    whole = {**entry, "id": name, "rows": rows, **pairs, "ranges": tuple(entry.get("ranges", ()))}
    return PaperTable(**whole)
