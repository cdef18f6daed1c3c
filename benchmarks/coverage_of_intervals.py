"""How often a 95 % interval over seeds holds the truth, on real photographs with made-up training noise.

    python benchmarks/coverage_of_intervals.py DATA [--repeats 1000] [--images 236] [--seeds 3]

DATA is a folder as of `make coco-sample`. All its photographs are the population; an experiment draws some of
them. A training is the ellipse in each box plus a gain, an error of its own and one of each object. Three
arms of one recipe are trained with each seed. Printed are the coverages of a class mean on unseen classes, of
a difference, of a retention, and of the class mean by resampled images alone.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import DistillError
from deepmac_distill.evaluation.mask_iou import given_box_ious
from deepmac_distill.evaluation.means import Floats, Means, interval
from deepmac_distill.evaluation.results import Interval, Ratio
from deepmac_distill.evaluation.seed_noise import fieller, over_seeds, paired_noise, widened

GAINS = (0.0, 0.018, 0.03)  # of the arms: a retention of 0.6
OF_SEEDS, OF_OBJECTS = 0.006, 0.08  # standard deviations of a training's errors; the first as was measured
RESAMPLES = 400


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
    population: Population, images: int, seeds: int, rng: np.random.Generator
) -> dict[str, Interval | Ratio]:
    """The intervals of one experiment: three arms, each trained with every seed."""
    rows, draws = population.sample(images, rng)
    columns: dict[str, Floats] = {}
    for arm, gain in enumerate(GAINS):
        for seed in range(seeds):
            errors = rng.normal(0, OF_SEEDS) + rng.normal(0, OF_OBJECTS, len(rows))
            columns[f"{arm} {seed}"] = population.ellipse[rows] + gain + errors
        columns[f"{arm}"] = np.mean([columns[f"{arm} {seed}"] for seed in range(seeds)], axis=0)
    means = population.means(rows, draws, columns)
    each = [{seed: interval(means[f"{arm} {seed}"]) for seed in range(seeds)} for arm in range(3)]
    wholes = [interval(means[f"{arm}"]) for arm in range(3)]
    noise = paired_noise([{seed: one.value or 0.0 for seed, one in by_seed.items()} for by_seed in each])

    def difference(a: int, b: int) -> Interval:
        of_seeds = [interval(means[f"{a} {seed}"] - means[f"{b} {seed}"]) for seed in range(seeds)]
        return widened(interval(means[f"{a}"] - means[f"{b}"]), of_seeds, noise)

    added, gain, missing = difference(1, 0), difference(2, 0), difference(2, 1)
    return {
        "class mean": over_seeds(wholes, each)[0],
        "difference": added,
        "retention": fieller(added, gain, missing, "gain"),
        "class mean, images alone": wholes[0],
    }


def _held(one: Interval | Ratio, truth: float) -> bool | None:
    """Whether an interval holds the truth; None where there is none."""
    return None if one.low is None or one.high is None else one.low <= truth <= one.high


def main() -> int:
    """Print how often each interval holds the truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    for name, default in (("repeats", 1000), ("images", 236), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    try:
        population = Population.of(given.data)
    except DistillError as error:
        print(f"coverage: {error}", file=sys.stderr)
        return error.exit_code
    every = np.arange(len(population.image))
    level = population.means(every, population.image, {"ellipse": population.ellipse})["ellipse"][0]
    truths = {"class mean": level, "difference": GAINS[1], "retention": GAINS[1] / GAINS[2]}
    rng, found = np.random.default_rng(0), []
    for _ in range(given.repeats):
        found.append(experiment(population, given.images, given.seeds, rng))
    for name in found[0]:
        truth = truths[name.split(",")[0]]
        held = [found_it for one in found if (found_it := _held(one[name], truth)) is not None]
        print(f"{name}: {100 * sum(held) / max(len(held), 1):.1f} % of {len(held)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
