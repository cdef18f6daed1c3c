"""What must hold before rows of a table are run: data of what is recorded, one recipe for what is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepmac_distill.config import load_pipeline
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import ConfigError, RunError
from deepmac_distill.experiments.paper_kept import Kept, classes_of
from deepmac_distill.experiments.paper_plan import Runs, overrides_of
from deepmac_distill.experiments.paper_runs import (
    any_kept,
    decisive,
    decisive_words,
    different,
    kept_file,
    kept_runs,
)
from deepmac_distill.experiments.paper_tables import PaperRow
from deepmac_distill.experiments.paper_trainings import resolved, training
from deepmac_distill.stages.preflight import require_evaluable
from deepmac_distill.storage.fetching import fetched


def recorded_rows(rows: Sequence[PaperRow], runs: Runs, kept: Kept) -> list[PaperRow]:
    """The rows that are taken over as they were recorded: on the user's data, by the recipe asked for."""
    if runs.steps or runs.tenth or decisive_words(runs.overrides):
        return []
    found = [row for row in rows if kept.is_recorded(row, runs.scale)]
    if not found or kept.recorded is None:
        return []
    path, instances = _val_annotations(found[0].training, runs), kept.recorded.instances
    return found if _is_of(Dataset.open(path, seen="all"), instances.classes, instances.truth) else []


def require_start(runs: Runs) -> None:
    """Refuse weights to start from that are not there, before anything is trained.

    Raises:
        ConfigError, StorageError: there is no such file or object.
    """
    if runs.start and not fetched(runs.start).is_file():
        raise ConfigError(f"start: got {runs.start}, expected a file of weights")


def require_validation(names: Sequence[str], runs: Runs) -> None:
    """Refuse validation files that an evaluation would fail on, after its training.

    Raises:
        DataError: one cannot be read, or nothing can be evaluated on it.
    """
    for path in dict.fromkeys(_val_annotations(name, runs) for name in names):
        require_evaluable(Dataset.open(path, seen="all").for_evaluation())


def require_kept_data(names: Sequence[str], runs: Runs, results: Path) -> None:
    """Refuse to skip rows that were kept of other data than is given now, or to add to them.

    Raises:
        RunError: names both files.
    """
    opened: dict[Path, Dataset] = {}
    for name in dict.fromkeys([*names, *any_kept(results)]):
        path = _val_annotations(name, runs)
        for one in kept_runs(results, name):
            if one.record.teacher is None:
                continue
            if path not in opened:
                opened[path] = Dataset.open(path, seen="all")
            if not _is_of(opened[path], classes_of(one.record.teacher), one.truth):
                raise RunError(
                    f"{path}: other data than {kept_file(results, name, one.record.seed)} is of; "
                    "expected the same, or --results FOLDER (make: RESULTS=FOLDER) for rows of this data"
                )


def _val_annotations(name: str, runs: Runs) -> Path:
    return runs.data / str(resolved(name, runs.scale)["data.val_annotations"])


def _is_of(data: Dataset, classes: Classes, truth: str) -> bool:
    """Whether the truth that a row was evaluated on, of so many classes, is this data's."""
    same = set(data.classes.names) == set(classes.names)  # those of another file may not be there to see
    return same and data.seeing(classes.seen_names).for_evaluation().fingerprint == truth


def require_kept_recipe(names: Sequence[str], runs: Runs, results: Path) -> None:
    """Refuse to skip or complete rows that were kept with other keys than are asked for now.

    Raises:
        RunError: names the file, the key and both values.
    """
    for name in names:
        kept = kept_runs(results, name)
        if not kept:
            continue
        asked = keys_of(name, runs)
        for one in kept:
            path = kept_file(results, name, one.record.seed)
            for key, theirs, ours in different(one.keys, asked):
                raise RunError(
                    f"{path}: made with {key} = {theirs!r}, asked for {ours!r}; expected one recipe for all "
                    "rows of a folder: --results FOLDER names another"
                )


def keys_of(name: str, runs: Runs) -> Mapping[str, Any]:
    """What decides the figures of a training as it is asked for."""
    pipeline = load_pipeline(runs.pipeline(name), overrides_of(name, runs, seed=0))
    return decisive(pipeline, runs.start if training(name).start else "")
