"""Runs of any pipeline files in one table: `deepmac results`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pyarrow as pa

from deepmac_distill.chain import seed_runs
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.errors import ConfigError, DataError, RunError
from deepmac_distill.evaluation.collected_results import Collected, Row, SplitFigures
from deepmac_distill.evaluation.results import CocoStats, Evaluation, read_result
from deepmac_distill.evaluation.seed_noise import seeds_alone
from deepmac_distill.evaluation.splits import BySplit
from deepmac_distill.evaluation.summary import summarize_given_boxes
from deepmac_distill.made_with import refuse_edit
from deepmac_distill.stages.compare import (
    EvaluationRecord,
    read_ious,
    read_record,
    require_one_way,
    seen_elsewhere,
)

RECORD = "evaluation.json"
VERSIONS = ("deepmac-distill", "torch", "python")
FROM_SEEN = ("seen", "unseen")  # splits that the seen classes make
INSTANCE = ("annotation_id", "image_id", "category_id", "area")  # what two evaluations have to agree on


@dataclass(frozen=True, slots=True)
class _Found:
    """The evaluations of one row, one of each seed."""

    name: str
    folders: tuple[Path, ...]
    seeds: tuple[int, ...]

    @property
    def first(self) -> Path:
        return self.folders[0]


def collect(runs: Mapping[str, Path], split: str = "", resamples: int = 1000, seed: int = 0) -> Collected:
    """The figures of all evaluations in some runs.

    Args:
        runs: name -> a run, a folder of runs of several seeds, or one evaluation.
        split: the only split that is shown. Rows may then have seen different classes, as long as the split
            has the same ones, as "all" and named splits may; else all rows have the same seen classes, and
            the same splits where all are shown.
        resamples, seed: of the images behind each interval.

    Raises:
        RunError: a path holds no evaluation.
        DataError: rows were evaluated on different data or splits, or seeds of one in different ways.
        ConfigError: a row has no such split.
    """
    found = [row for name, path in runs.items() for row in _evaluations(name, path)]
    first = found[0]
    for row in found:
        require_one_way(row.folders)
        for folder in row.folders:
            if folder != first.first:
                _require_one_table(first.first, folder, split)
    return _collected(found, split, resamples, seed)


def _collected(found: Sequence[_Found], split: str, resamples: int, seed: int) -> Collected:
    rows = tuple(_row(one, split, resamples, seed) for one in found)
    return Collected(tuple(rows[0].figures), rows)


def _evaluations(name: str, path: Path) -> list[_Found]:
    """Each model that was evaluated in a run, or in every seed of a recipe that has it."""
    if (path / RECORD).exists():
        return [_Found(name, (path,), ())]
    seeds = seed_runs(path)
    by_name: dict[str, dict[int, Path]] = {}
    for number, run in (seeds or {-1: path}).items():
        for record in sorted(run.glob(f"evaluate-*/{RECORD}")):
            by_name.setdefault(record.parent.name, {})[number] = record.parent
    if not by_name:
        raise RunError(f"{path}: no evaluation; expected a run that deepmac evaluate has been in")
    rows = []
    for evaluation, by_seed in by_name.items():
        label = name if len(by_name) == 1 else f"{name}, {evaluation.removeprefix('evaluate-')}"
        rows.append(_Found(label, tuple(by_seed.values()), tuple(n for n in by_seed if n >= 0)))
    return rows


def _require_one_table(first: Path, other: Path, split: str) -> None:
    """Refuse two evaluations that do not belong into one table, with what they differ in."""
    one, two = read_record(first), read_record(other)
    if split in ("", *FROM_SEEN):
        _require_same_splits(first, one, other, two, split)
    elif (theirs := one.splits.get(split)) is not None and two.splits.get(split, theirs) != theirs:
        raise DataError(f"{other}: split {split!r}: other classes than in {first}; expected the same")
    a, b = (read_ious(folder).select(["row", *INSTANCE]).sort_by("row") for folder in (first, other))
    if not _same_instances(a, b):
        raise DataError(
            f"{other}: evaluated on other data ({len(b)} instances of {two.annotations}) than {first} "
            f"({len(a)} of {one.annotations}); expected one validation set in a table"
        )


def _require_same_splits(
    first: Path, one: EvaluationRecord, other: Path, two: EvaluationRecord, split: str
) -> None:
    """Refuse other seen or hidden classes, and where all splits are shown other named ones."""
    kinds: tuple[tuple[str, Set[str], Set[str]], ...] = (
        ("seen classes", set(one.seen), set(two.seen)),
        ("hidden classes", set(one.hidden), set(two.hidden)),
        ("evaluation.splits", _named(one), _named(two)),
    )
    for kind, ours, theirs in kinds[: 2 if split else 3]:
        if ours != theirs:
            named = ", ".join(sorted(ours ^ theirs)[:3])
            raise DataError(
                f"{other}: {kind} differ from those of {first}: {named}; expected the same in one table, or "
                "--split NAME, a split that all have"
            )


def _named(record: EvaluationRecord) -> set[str]:
    return {f"{name} ({', '.join(members)})" for name, members in record.splits.items()}


def _same_instances(a: pa.Table, b: pa.Table) -> bool:
    return len(a) == len(b) and all(
        a[name].combine_chunks().equals(b[name].combine_chunks()) for name in INSTANCE
    )


def _row(found: _Found, split: str, resamples: int, seed: int) -> Row:
    record, each = read_record(found.first), [_read(folder) for folder in found.folders]
    rows = each[0].per_class
    classes = Classes(
        tuple(row.name for row in rows),
        tuple(row.category_id for row in rows),
        tuple(row.seen for row in rows),
    )
    given = summarize_given_boxes(
        *([read_ious(folder) for folder in found.folders], classes, resamples, seed),
        shown_elsewhere=seen_elsewhere(found.folders),
        named=record.splits,
    )
    masks = each[0].detected.segm is not None
    figures = {
        name: SplitFigures(
            classes=one.classes,
            instances=one.instances,
            iou=one.model,
            mask_AP=seeds_alone(_aps(each, "segm", name)),
            box_AP=seeds_alone(_aps(each, "bbox", name)),
            mask_AP_of_each_seed=_aps(each, "segm", name) if masks else (),
        )
        for name, one in given.items()
    }
    if split and split not in figures:
        raise ConfigError(f"{found.first}: split {split!r}: not there; expected one of {', '.join(figures)}")
    return Row(
        name=found.name,
        evaluation=found.first.name,
        runs=tuple(str(folder.parent) for folder in found.folders),
        seeds=found.seeds,
        how=replace(record.how, identity="").words,
        versions=_versions(found.folders),
        figures={split: figures[split]} if split else figures,
    )


class _Environment(msgspec.Struct):
    """Of a run's `environment.json`."""

    python: str
    packages: dict[str, str | None]


def _versions(folders: Sequence[Path]) -> dict[str, str | None]:
    """Of Python, this package and torch; several where seeds differ. None: nothing was recorded."""
    found: dict[str, dict[str, None]] = {name: {} for name in VERSIONS}
    for folder in folders:
        path = folder.parent / "environment.json"
        if path.exists():
            made = read_result(path, _Environment)
            for name, version in {"python": made.python, **made.packages}.items():
                if name in found and version is not None:
                    found[name][version] = None
    return {name: " and ".join(versions) or None for name, versions in found.items()}


def _read(folder: Path) -> Evaluation:
    found = read_result(folder / "summary.json", Evaluation)
    refuse_edit(folder / "summary.json")
    return found


def _aps(each: Sequence[Evaluation], kind: str, split: str) -> tuple[float | None, ...]:
    found: list[BySplit[CocoStats] | None] = [getattr(one.detected, kind) for one in each]
    of_split = [None if one is None else dict(one.items()).get(split) for one in found]
    return tuple(None if stats is None else stats.AP for stats in of_split)
