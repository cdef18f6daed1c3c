"""How often a 95 % interval of a difference of average precision holds the truth, on synthetic detections.

    python benchmarks/coverage_of_ap.py [--repeats 200] [--images 100] [--json FILE]

The population is 400 images with two models' boxes (`paired_ap`); its own difference is the truth. An
experiment draws some images and resamples them 200 times: once as here, with an image as often as it was
drawn, and once as hotcoco's own bootstrap does, with an image once however often it was drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.evaluation.average_precision import STATS, CocoTruth
from deepmac_distill.evaluation.means import interval
from deepmac_distill.evaluation.paired_precision import class_stats
from deepmac_distill.evaluation.precision_matches import ClassMatches, matches_of
from deepmac_distill.files import write_json
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Table, columns, names
from paired_ap import Size, make_detections, make_truth

POPULATION = Size(images=400, classes=6, objects=4, detections=16)
RESAMPLES, FIGURES = 200, ("AP", "AP50", "APs", "AR100")


def population() -> tuple[list[ClassMatches], list[ClassMatches]]:
    """Matches of two models' boxes, the second of which loses some of what it finds."""
    rng = np.random.default_rng(0)
    data = make_truth(POPULATION, rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        truth = CocoTruth.of(Dataset.open(path, seen="all").for_evaluation(), "bbox")
    a = make_detections(data, POPULATION, rng)
    b = [one for one in make_detections(data, POPULATION, rng) if rng.random() < 0.9]
    return list(matches_of(truth, a)), list(matches_of(truth, b))


def differences(a: Sequence[ClassMatches], b: Sequence[ClassMatches], draws: np.ndarray) -> np.ndarray:
    """(12, 1 + R) of the first model minus the second, means over classes."""
    one, other = (np.nanmean([class_stats(found, draws) for found in each], axis=0) for each in (a, b))
    return one - other


def experiment(images: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights (1 + R, I) of the population's images: of a drawn set, and of its resamplings in both ways."""
    drawn = np.sort(rng.integers(0, POPULATION.images, images))
    times = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES)  # of each drawn image
    once = np.ones((1, images), dtype=int)
    ways = {"as often as drawn": times, "once": np.minimum(times, 1)}
    return {name: by_image(np.concatenate([once, those]), drawn) for name, those in ways.items()}


def by_image(weights: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Weights of drawn images, (1 + R, n), as those of the population's."""
    found = np.zeros((len(weights), POPULATION.images), dtype=np.uint16)
    for place, image in enumerate(drawn.tolist()):
        found[:, image] += weights[:, place].astype(np.uint16)
    return found


def coverage(images: int, repeats: int) -> dict[str, dict[str, float]]:
    """Of each way and figure the share of experiments whose interval holds the population's difference."""
    a, b = population()
    truth = differences(a, b, np.ones((1, POPULATION.images), dtype=np.uint16))[:, 0]
    rng, held = np.random.default_rng(1), {}
    for _ in range(repeats):
        for way, draws in experiment(images, rng).items():
            found = differences(a, b, draws)
            for name in FIGURES:
                one = interval(found[STATS.index(name)])
                inside = one.low <= truth[STATS.index(name)] <= one.high
                held.setdefault(way, {}).setdefault(name, []).append(inside)
    return {way: {name: float(np.mean(those)) for name, those in row.items()} for way, row in held.items()}


def page(recorded: Mapping[str, Any]) -> str:
    """Markdown: the coverage of each figure in both ways."""
    table = Table(
        "",
        (*names("an image counts"), *columns("percent", FIGURES)),
        tuple((way, *row.values()) for way, row in recorded["coverage"].items()),
    )
    return (
        f"{markdown_table(table)}\n\n"
        f"`python benchmarks/coverage_of_ap.py --json benchmarks/results/coverage_of_ap.json`: share of "
        f"{recorded['repeats']} experiments whose 95 % interval of a difference holds the truth, in percent; "
        f"{recorded['images']} synthetic images drawn from {recorded['of_images']}, {RESAMPLES} resamplings."
    )


def main() -> int:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("repeats", 200), ("images", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, help="keep the figures here")
    given = parser.parse_args()
    recorded = {
        **{"repeats": given.repeats, "images": given.images, "of_images": POPULATION.images},
        "coverage": coverage(given.images, given.repeats),
    }
    print(page(recorded))
    if given.json:
        write_json(given.json, recorded)
    return 0


if __name__ == "__main__":
    sys.exit(main())
