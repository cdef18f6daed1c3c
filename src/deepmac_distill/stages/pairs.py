"""Two evaluations, or two recipes of several seeds, side by side: what `deepmac compare` is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deepmac_distill.chain import SEED, seed_runs
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.results import Comparison
from deepmac_distill.progress import Progress
from deepmac_distill.stages.compare import compare_on, truth_of

RECORD = "evaluation.json"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Evaluation folders, paired by seed."""

    a: tuple[Path, ...]
    b: tuple[Path, ...]
    seeds: tuple[int, ...]  # empty: of no runs of several seeds
    left_out: tuple[str, ...] = ()  # what has no partner, a line each


def compare(pairs: Pairs, resamples: int, seed: int, progress: Progress | None = None) -> Comparison:
    """Paired differences, a minus b, on one validation set; of several seeds first of each, then their mean.

    Raises:
        RunError: a folder holds no evaluation.
        DataError: they were evaluated on other instances, or the set has changed since.
    """
    truth = truth_of((*pairs.a, *pairs.b))
    return replace(compare_on(truth, pairs.a, pairs.b, resamples, seed, progress), seeds=pairs.seeds)


def paired_evaluations(a: Path, b: Path) -> Pairs:
    """What two paths stand for: each an evaluation folder, or RUNS/evaluate-student of runs of several seeds.

    One seed's evaluation is paired with that seed of the other.

    Raises:
        RunError: a path stands for none, or they have no seed in common.
    """
    of_a, of_b = _by_seed(a), _by_seed(b)
    if of_a is None and of_b is None:
        return Pairs((a,), (b,), ())
    of_a, of_b = ({_seed_of(at): at} if found is None else found for at, found in ((a, of_a), (b, of_b)))
    common = [seed for seed in of_a if seed in of_b and seed >= 0]
    if not common:
        raise RunError(f"compare: {_named(a, of_a)} and {_named(b, of_b)}; expected a seed that both have")
    lines = (*_left_out(a, of_a, common), *_left_out(b, of_b, common))
    return Pairs(
        tuple(of_a[seed] for seed in common), tuple(of_b[seed] for seed in common), tuple(common), lines
    )


def _by_seed(path: Path) -> dict[int, Path] | None:
    """The evaluations by seed that RUNS/evaluate-student stands for; None: it is one itself."""
    if (path / RECORD).exists():
        return None
    if not path.exists() and (runs := seed_runs(path.parent)):
        found = {seed: run / path.name for seed, run in runs.items() if (run / path.name / RECORD).exists()}
        if found:
            return found
        path = path.parent
    inside = sorted(at.parent for at in path.glob(f"evaluate-*/{RECORD}"))
    runs = {} if inside else seed_runs(path)
    of_seeds = sorted({at.parent.name for run in runs.values() for at in run.glob(f"evaluate-*/{RECORD}")})
    inside = inside or [path / name for name in of_seeds]
    got = "holds runs of several seeds" if runs else "is a run" if inside else "no evaluation"
    expected = " or ".join(map(str, inside)) or "a folder that deepmac evaluate wrote"
    raise RunError(f"{path}: {got}; expected {expected}")


def _seed_of(evaluation: Path) -> int:
    """The seed of a run among several, by its folder's name; -1 of any other."""
    number = evaluation.absolute().parent.name.removeprefix(SEED)
    return int(number) if number.isdecimal() and evaluation.absolute().parent.name.startswith(SEED) else -1


def _named(path: Path, by_seed: Mapping[int, Path]) -> str:
    seeds = [str(seed) for seed in by_seed if seed >= 0]
    return f"{path} of seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" if seeds else f"{path} of one run"


def _left_out(path: Path, by_seed: Mapping[int, Path], common: list[int]) -> tuple[str, ...]:
    alone = [str(seed) for seed in by_seed if seed not in common]
    missing = [str(seed) for seed in seed_runs(path.parent) if seed not in by_seed and not path.exists()]
    lines = []
    if alone:
        lines.append(f"{path}: seed{'s' * (len(alone) > 1)} {', '.join(alone)} left out: not in the other")
    if missing:
        lines.append(f"{path}: seed{'s' * (len(missing) > 1)} {', '.join(missing)} left out: not evaluated")
    return tuple(lines)
