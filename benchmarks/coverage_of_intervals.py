"""How often a 95 % interval over seeds holds the truth, on real photographs with made-up training noise.

    python benchmarks/coverage_of_intervals.py DATA [--repeats 500] [--images 236] [--seeds 3] [--json FILE]

DATA is a folder as of `make coco-sample`. All its photographs are the population; an experiment draws some of
them. A training is the ellipse in each box plus a gain, an error of its own and one of each object. Three
arms are trained with each seed; `SCENARIOS` says how much a seed does to all arms alike and how unequally
they vary. Covered are a class mean on unseen classes of the calmest and of the wildest arm, a difference and
a retention; beside them what the wildest arm would be covered by with a spread pooled over the arms, as this
project once had it, and by resampled images alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DistillError
from deepmac_distill.evaluation.mask_iou import given_box_ious
from deepmac_distill.evaluation.means import Floats, Means, interval
from deepmac_distill.evaluation.power import t_quantile
from deepmac_distill.evaluation.results import Interval, Ratio
from deepmac_distill.evaluation.seed_noise import fieller
from deepmac_distill.files import write_json
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Column, Table, names

GAINS = (0.0, 0.018, 0.03)  # of the arms: a retention of 0.6
OF_OBJECTS = 0.08  # standard deviation of a training's error of one object
RESAMPLES = 400
FIGURES = (
    *("class mean", "class mean of the wildest arm", "difference", "retention"),
    *("wildest arm, spread pooled over arms", "wildest arm, images alone"),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """How seeds move the three arms."""

    shared: float  # correlation of two arms of one seed
    spreads: tuple[float, float, float]  # standard deviations over seeds; 0.006 is what was measured


SCENARIOS = {
    "independent": Scenario(0.0, (0.006, 0.006, 0.006)),
    "alike by seed": Scenario(0.9, (0.006, 0.006, 0.006)),
    "unequal": Scenario(0.0, (0.004, 0.006, 0.015)),
    "alike and unequal": Scenario(0.9, (0.004, 0.006, 0.015)),
}


@dataclass(frozen=True, slots=True)
class Population:
    """Every object of the photographs."""

    classes: Classes
    image: NDArray[np.int64]  # (N,) from 0
    category_id: NDArray[np.int64]  # (N,)
    ellipse: Floats  # (N,) IoU

    @classmethod
    def of(cls, data: Path) -> Population:
        """The objects of both splits."""
        none = pa.table({"row": pa.array([], pa.int64()), "rle_counts": pa.array([], pa.binary())})
        truths = [
            Dataset.open(data / f"instances_{split}.json", seen=("voc",)).for_evaluation()
            for split in ("train", "val")
        ]
        table = pa.concat_tables([given_box_ious(truth, none) for truth in truths])
        _, image = np.unique(table["image_id"].to_numpy(), return_inverse=True)
        columns = (table[name].to_numpy() for name in ("category_id", "ellipse_iou"))
        return cls(truths[0].classes, image, *columns)

    def sample(self, images: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of as many images, drawn with replacement, and the draw that each row is of."""
        drawn = rng.integers(0, self.image.max() + 1, images)
        rows = [np.flatnonzero(self.image == image) for image in drawn]
        return np.concatenate(rows), np.repeat(np.arange(images), [len(some) for some in rows])

    def means(
        self, rows: NDArray[np.int64], draws: NDArray[np.int64], columns: dict[str, Floats]
    ) -> dict[str, Floats]:
        """Class means of unseen classes of each column, (1 + R,)."""
        ids = pa.array(self.category_id[rows], pa.int32())
        table = pa.table({"image_id": draws, "category_id": ids, **columns})
        found = Means.of(table, list(columns), self.classes, RESAMPLES, seed=0).class_means["unseen"]
        return dict(zip(columns, found.T, strict=True))


def experiment(
    population: Population, scenario: Scenario, images: int, seeds: int, rng: np.random.Generator
) -> dict[str, Interval | Ratio]:
    """`FIGURES` of one experiment: three arms, each trained with every seed."""
    rows, draws = population.sample(images, rng)
    common = scenario.shared**0.5 * rng.normal(size=seeds)
    columns: dict[str, Floats] = {}
    for arm, (gain, spread) in enumerate(zip(GAINS, scenario.spreads, strict=True)):
        own = (1 - scenario.shared) ** 0.5 * rng.normal(size=seeds)
        for seed, error in enumerate(spread * (common + own)):
            of_objects = rng.normal(0, OF_OBJECTS, len(rows))
            columns[f"{arm} {seed}"] = population.ellipse[rows] + gain + error + of_objects
    means = population.means(rows, draws, columns)
    a, b, c = (np.stack([means[f"{arm} {seed}"] for seed in range(seeds)], axis=1) for arm in range(3))
    added, gain_, missing = interval(b - a), interval(c - a), interval(c - b)
    alone = interval(c.mean(axis=1))
    found = (interval(a), interval(c), added, fieller(added, gain_, missing, "gain"))
    return dict(zip(FIGURES, (*found, pooled(interval(c), (a, b, c)), alone), strict=True))


def pooled(own: Interval, arms: Sequence[Floats]) -> Interval:
    """An interval with the spread of all arms and the sum of their degrees of freedom instead of its own."""
    seeds = arms[0].shape[1]
    variance = np.mean([np.var(arm[0], ddof=1) for arm in arms])
    of_seeds = t_quantile(0.975, len(arms) * (seeds - 1)) * math.sqrt(variance / seeds)
    images = math.sqrt(max((own.high - own.value) ** 2 - own.seeds_half**2, 0.0))
    half = math.hypot(images, of_seeds)
    return Interval(own.value, own.value - half, own.value + half)


def coverage(
    population: Population, scenario: Scenario, images: int, seeds: int, repeats: int
) -> dict[str, float | None]:
    """Of each of `FIGURES` the share of experiments whose interval holds the truth; None without any."""
    every = np.arange(len(population.image))
    level = population.means(every, population.image, {"ellipse": population.ellipse})["ellipse"][0]
    wildest = level + GAINS[2]
    truths = dict(
        zip(FIGURES, (level, wildest, GAINS[1], GAINS[1] / GAINS[2], wildest, wildest), strict=True)
    )
    rng, held = np.random.default_rng(0), {name: [] for name in FIGURES}
    for _ in range(repeats):
        for name, found in experiment(population, scenario, images, seeds, rng).items():
            if (it := _held(found, truths[name])) is not None:
                held[name].append(it)
    return {name: float(np.mean(those)) if those else None for name, those in held.items()}


def page(recorded: Mapping[str, Any]) -> str:
    """Markdown: the coverage of each figure in each scenario."""
    table = Table(
        "",
        (*names("95 % interval of a"), *(Column(name, "percent") for name in recorded["coverage"])),
        tuple((name, *(row[name] for row in recorded["coverage"].values())) for name in FIGURES),
    )
    return (
        f"{markdown_table(table)}\n\n"
        f"`python benchmarks/coverage_of_intervals.py DATA --json benchmarks/results/coverage.json`: share "
        f"of {recorded['repeats']} experiments whose interval holds the truth, in percent; "
        f"{recorded['images']} photographs drawn from {recorded['of_images']}, {recorded['seeds']} seeds. "
        "Noise of such a share is 1 point; a retention counts where it has a value."
    )


def _held(one: Interval | Ratio, truth: float) -> bool | None:
    """Whether an interval holds the truth; None where there is none."""
    return None if one.low is None or one.high is None else one.low <= truth <= one.high


def main() -> int:
    """Print how often each interval holds the truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    for name, default in (("repeats", 500), ("images", 236), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, help="keep the figures here")
    given = parser.parse_args()
    try:
        population = Population.of(given.data)
    except DistillError as error:
        print(f"coverage: {error}", file=sys.stderr)
        return error.exit_code
    recorded: dict[str, Any] = {
        **{name: getattr(given, name) for name in ("repeats", "images", "seeds")},
        "of_images": int(population.image.max()) + 1,
        "coverage": {
            name: coverage(population, scenario, given.images, given.seeds, given.repeats)
            for name, scenario in SCENARIOS.items()
        },
    }
    print(page(recorded))
    if given.json:
        write_json(given.json, recorded)
    return 0


if __name__ == "__main__":
    sys.exit(main())
