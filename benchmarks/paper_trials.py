"""Every small training of the paper's tables once for a few steps, and which of them ran.

    python benchmarks/paper_trials.py FOLDER [--steps 20] [--json benchmarks/results/paper_trials.json]
        [--out runs/paper-trials] [--set KEY=VALUE ...]

FOLDER is a sample as of `make coco-sample`. Each training goes through the command of its table: it is
taught, evaluated, and evaluated in loose boxes where the table asks for them. Rows that are recorded
whole and rows that need weights of the user are left out. What is in the JSON is not run again, unless its
recipe has changed; a JSON is of one number of steps and one list of `--set`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import paper
from deepmac_distill.devices import environment
from deepmac_distill.errors import DistillError, RunError
from deepmac_distill.evaluation.results import from_json, read_result, to_json
from deepmac_distill.experiments.paper_runs import decisive, different, kept_runs
from deepmac_distill.experiments.paper_tables import tables
from deepmac_distill.experiments.paper_trainings import pipeline_of, resolved, same_run, training
from deepmac_distill.experiments.run_record import Environment
from deepmac_distill.files import write_json

RESULTS = Path(__file__).parent / "results" / "paper_trials.json"
WHOLE = Path(__file__).parent / "results" / "paper"  # small files of trainings that ran to their end


@dataclass(frozen=True, slots=True)
class Trial:
    """One training."""

    table: str
    seconds: float
    exit_code: int
    recipe: str = ""  # digest of its keys when it was tried


@dataclass(frozen=True, slots=True)
class Trials:
    """What ran so far."""

    environment: Environment  # of the first trial
    steps: int
    overrides: tuple[str, ...]
    trials: Mapping[str, Trial]  # by training


def wanted(whole: Path = WHOLE) -> dict[str, str]:
    """Training -> the first table that asks for it, of those that are recorded nowhere."""
    found: dict[str, str] = {}
    for of in tables().values():
        for row in of.rows:
            if not row.recorded and not training(row.training).start:
                found.setdefault(same_run(row.training, "small"), of.id)
    return {name: table for name, table in found.items() if not _is_whole(name, whole)}


def _is_whole(name: str, whole: Path) -> bool:
    keys = decisive(pipeline_of(name, "small"))
    return any(not different(run.keys, keys) for run in kept_runs(whole, name))


def recipe_of(name: str) -> str:
    """A digest of a small training's keys: a trial is of these alone."""
    keys = json.dumps(resolved(name, "small"), sort_keys=True)
    return hashlib.sha256(keys.encode()).hexdigest()[:12]


def of_now(trials: Mapping[str, Trial]) -> dict[str, Trial]:
    """Those whose recipe is still the same."""
    return {name: trial for name, trial in trials.items() if trial.recipe == recipe_of(name)}


def tried(path: Path) -> str:
    """In words: how many ran, and which failed or are left."""
    found = read_result(path, Trials)
    asked = wanted()
    trials = {name: trial for name, trial in of_now(found.trials).items() if name in asked}
    done = [name for name, trial in trials.items() if trial.exit_code == 0]
    failed = [name for name, trial in trials.items() if trial.exit_code]
    left = [name for name in asked if name not in trials]
    words = f"{len(done)} of {len(asked)} small trainings ran for {found.steps} steps"
    for what, some in (("failed", failed), ("not tried", left)):
        words += f"; {what}: {', '.join(some)}" if some else ""
    return f"{words}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Try what is not in the JSON yet; 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=Path("runs/paper-trials"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    try:
        found = begun(given.json, given.steps, tuple(given.overrides))
        for name, table in wanted().items():
            if name not in of_now(found.trials):
                trial = _try(table, name, given)
                found = replace(found, trials={**found.trials, name: trial})
                write_json(given.json, to_json(found))
        print(tried(given.json))
    except DistillError as error:
        print(f"paper_trials: {error}", file=sys.stderr)
        return error.exit_code
    return int(any(trial.exit_code for trial in found.trials.values()))


def begun(path: Path, steps: int, overrides: tuple[str, ...]) -> Trials:
    """What a JSON holds, or nothing yet.

    Raises:
        RunError: it was begun with other steps or overrides.
    """
    if not path.exists():
        return Trials(from_json(environment(), Environment, "environment"), steps, overrides, {})
    found = read_result(path, Trials)
    for key, theirs, ours in (("steps", found.steps, steps), ("set", found.overrides, overrides)):
        if theirs != ours:
            raise RunError(
                f"{path}: {key}: tried with {_words(theirs)}, asked for {_words(ours)}; "
                "expected the same, or --json FILE for trials of another kind"
            )
    return found


def _words(given: int | tuple[str, ...]) -> str:
    return str(given) if isinstance(given, int) else " ".join(given) or "none"


def _try(table: str, name: str, given: argparse.Namespace) -> Trial:
    words = ["run", table, "small", "--data", str(given.data), "--only", name, "--seeds", "1"]
    words += ["--steps", str(given.steps), "--out", str(given.out)]
    words += [word for override in given.overrides for word in ("--set", override)]
    began = time.monotonic()
    code = paper.main(words)
    return Trial(table, round(time.monotonic() - began, 1), code, recipe_of(name))


if __name__ == "__main__":
    sys.exit(main())
