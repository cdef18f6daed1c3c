"""What must hold before rows of a table are run: data of what is recorded, one recipe for what is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepmac_distill.config import load_pipeline
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import RunError
from deepmac_distill.experiments.paper_kept import Kept
from deepmac_distill.experiments.paper_plan import Runs, overrides_of
from deepmac_distill.experiments.paper_runs import decisive, different, kept_file, kept_runs
from deepmac_distill.experiments.paper_tables import PaperRow
from deepmac_distill.experiments.paper_trainings import resolved


def recorded_rows(rows: Sequence[PaperRow], runs: Runs, kept: Kept) -> list[str]:
    """Labels of the rows that are shown as they were recorded, if that was on the user's data.

    Raises:
        RunError: they were recorded on other data, which would be shown as the answer for this.
    """
    found = [row for row in rows if row.recorded] if runs.scale == "small" else []
    if not found or kept.recorded is None:
        return []
    path = runs.data / resolved(found[0].training, "small")["data.val_annotations"]
    instances = kept.recorded.instances
    ours, classes = Dataset.open(path, seen="all"), instances.classes
    same = set(ours.classes.names) == set(classes.names)  # those of another file may not be there to see
    if not same or ours.seeing(classes.seen_names).for_evaluation().fingerprint != instances.truth:
        raise RunError(
            f"{path}: other data than {kept.heads} has of {len(found)} recorded rows; expected the sample of "
            "make coco-sample, --only with other rows, or --heads with mask heads compared on this data"
        )
    return [row.label for row in found]


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
    return decisive(load_pipeline(runs.pipeline(name), overrides_of(name, runs, seed=0)))
