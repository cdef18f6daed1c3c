from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from deepmac_distill.evaluation.means import interval
from deepmac_distill.evaluation.results import Interval
from deepmac_distill.evaluation.seed_noise import (
    fieller,
    mean_over_seeds,
    over_seeds,
    paired_noise,
    pooled_noise,
    t_quantile,
    widened,
)

IMAGES, RESAMPLES, REPEATS = 80, 300, 1200
COVERAGE = pytest.approx(0.95, abs=0.025)  # of REPEATS, whose own noise is 0.006
Floats = NDArray[np.float64]
# Standard deviations of a class mean that come from images, from seeds, and from both together, in points.
# What was measured: seeds 0.6 on photographs, images 0.5 of a level and 0.2 to 0.3 of a difference.
SPREADS = [(0.7, 0.5, 0.3), (0.3, 0.5, 0.3), (0.1, 0.5, 0.5), (0.7, 0.1, 0.1), (0.02, 0.6, 0.05)]


@pytest.fixture(scope="module")
def weights() -> Floats:
    """Row 0 the images themselves, then resamplings of them, as weights (1 + R, I)."""
    draws = np.random.default_rng(0).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), RESAMPLES)
    return np.concatenate([np.ones((1, IMAGES)), draws]) / IMAGES


def experiments(spread: tuple[float, float, float], rows: int, seeds: int, generator: int = 1) -> Floats:
    """Figures (REPEATS, rows, seeds, I) of images, all of whose true means are 0."""
    rng, (images, of_seeds, together) = np.random.default_rng(generator), spread
    shape = (REPEATS, rows, seeds, IMAGES)
    found = rng.normal(0, together * IMAGES**0.5, shape)
    found += rng.normal(0, images * IMAGES**0.5, (REPEATS, rows, 1, IMAGES))
    return found + rng.normal(0, of_seeds, (REPEATS, rows, seeds, 1))


def holds(found: Interval, truth: float = 0.0) -> bool:
    assert found.low is not None and found.high is not None
    return found.low <= truth <= found.high


@pytest.mark.parametrize("spread", SPREADS)
def test_intervals_over_seeds_cover_as_often_as_they_promise(spread, weights) -> None:
    """Two rows, three seeds: what a run with three seeds makes of teacher and student."""
    covered = alone = 0
    for rows in experiments(spread, 2, 3):
        each = [{seed: interval(weights @ row[seed]) for seed in range(3)} for row in rows]
        wholes = [interval(weights @ row.mean(axis=0)) for row in rows]
        covered += holds(over_seeds(wholes, each)[0])
        alone += holds(wholes[0])
    assert covered / REPEATS == COVERAGE
    if spread[1] >= 0.5:
        assert alone / REPEATS < 0.94  # what resampled images alone leave out


@pytest.mark.parametrize("spread", SPREADS[:3])
def test_differences_paired_by_seed_cover_too_whatever_a_seed_does_to_all_rows(spread, weights) -> None:
    covered = 0
    common = np.random.default_rng(2).normal(0, 2.0, (REPEATS, 1, 3, 1))
    for rows in experiments(spread, 3, 3) + common:
        differences = rows[1] - rows[0]
        noise = paired_noise([dict(enumerate(row.mean(axis=1))) for row in rows])
        each = [interval(weights @ one) for one in differences]
        covered += holds(widened(interval(weights @ differences.mean(axis=0)), each, noise))
    assert noise.df == 4 and covered / REPEATS == COVERAGE


def test_an_interval_of_a_ratio_covers_as_often_as_it_promises(weights) -> None:
    """Retention of 0.6 of a gain of 3 points, three seeds."""
    covered, made = 0, 0
    for rows in experiments((0.2, 0.4, 0.2), 3, 3):
        rows = rows + np.array([0.0, 1.8, 3.0])[:, None, None]
        noise = paired_noise([dict(enumerate(row.mean(axis=1))) for row in rows])
        found = [
            widened(
                interval(weights @ (a - b).mean(axis=0)), [interval(weights @ one) for one in a - b], noise
            )
            for a, b in ((rows[1], rows[0]), (rows[2], rows[0]), (rows[2], rows[1]))
        ]
        ratio = fieller(*found, "gain")
        if ratio.value is not None:
            made += 1
            covered += holds(Interval(ratio.value, ratio.low, ratio.high), 0.6)
    assert made > 0.9 * REPEATS and covered / made == COVERAGE


def test_t_quantiles_are_those_of_the_tables() -> None:
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 14: 2.145, 120: 1.980}
    assert {df: round(t_quantile(0.975, df), 3) for df in printed} == printed
    assert [round(t_quantile(0.8, df), 3) for df in (1, 4, 1000)] == [1.376, 0.941, 0.842]


def test_paired_noise_is_the_variance_of_the_differences() -> None:
    a, b = [0.61, 0.64, 0.60], [0.55, 0.59, 0.56]
    noise = paired_noise([dict(enumerate(a)), dict(enumerate(b))])
    assert noise.variance == pytest.approx(np.var(np.subtract(a, b), ddof=1)) and noise.df == 2
    three = [dict(enumerate(row)) for row in (a, b, [0.5, 0.5, 0.4])]
    pairs = [(0, 1), (0, 2), (1, 2)]
    every = [np.var([three[i][s] - three[j][s] for s in range(3)], ddof=1) for i, j in pairs]
    assert paired_noise(three).variance == pytest.approx(np.mean(every)) and paired_noise(three).df == 4


def test_rows_may_lack_seeds_and_a_single_seed_knows_no_noise() -> None:
    assert pooled_noise([{0: 0.1}, {0: 0.4}]).df == 0 == paired_noise([{0: 0.1}, {1: 0.4}]).df
    assert pooled_noise([{0: 0.1, 3: 0.3}, {0: 0.4}]).df == 1
    assert paired_noise([{0: 0.1, 1: 0.3, 2: 0.2}, {0: 0.4, 1: 0.5}, {0: 0.3}]).df == 1
    whole = Interval(0.2, 0.1, 0.35)
    assert widened(whole, [whole], pooled_noise([{0: 0.2}])) is whole
    # A row of one seed in a table whose other rows have several: their noise is its noise.
    wide = widened(whole, [whole], pooled_noise([{0: 0.1, 1: 0.3}]))
    assert wide.high - wide.low > whole.high - whole.low


def test_a_least_difference_is_found_in_four_of_five_experiments() -> None:
    rng = np.random.default_rng(0)
    least = Interval(0.0, -1.95996, 1.95996).least_difference
    assert np.mean(rng.normal(least, 1.0, 100_000) > 1.95996) == pytest.approx(0.8, abs=0.005)


def test_a_ratio_has_its_interval_where_its_denominator_has_one_above_zero() -> None:
    found = fieller(Interval(1.0, 0.8, 1.2), Interval(2.0, 1.8, 2.2), Interval(1.0, 0.72, 1.28), "gain")
    assert found.low < found.value == 0.5 < found.high
    # Independent errors of 0.2: of 1 - 0.5 x 2 they are 0.2 x sqrt(1.25), over 2.
    assert (found.high - found.low) / 2 == pytest.approx(0.2 * 1.25**0.5 / 2, rel=0.03)
    torn = fieller(Interval(1.0, 0.8, 1.2), Interval(0.1, -0.1, 0.3), Interval(-0.9, -1.2, -0.6), "gain")
    assert torn.value is None and torn.undefined.startswith("gain = 0.1000 [-0.1000, 0.3000]")


@dataclass(frozen=True)
class Leaf:
    value: Interval
    classes: int
    share: float | None = None


def test_a_row_that_learns_nothing_has_no_noise_and_lends_none() -> None:
    """GrabCut as the teacher of several seeds."""

    def leaf(value: float) -> Leaf:
        return Leaf(Interval(value, value - 0.01, value + 0.01), 3)

    fixed, student = {0: leaf(0.5), 1: leaf(0.5)}, {0: leaf(0.1), 1: leaf(0.3)}
    still, moved = over_seeds([leaf(0.5), leaf(0.2)], [fixed, student])
    assert [still.value.low, still.value.high] == pytest.approx([0.49, 0.51])
    assert moved == over_seeds([leaf(0.2)], [student])[0]


def test_every_interval_in_a_result_is_widened_and_nothing_else_changes() -> None:
    def leaf(value: float) -> Leaf:
        return Leaf(Interval(value, value - 0.01, value + 0.01), 3, value)

    (found,) = over_seeds([leaf(0.2)], [{0: leaf(0.1), 1: leaf(0.3)}])
    half = np.hypot(0.01, t_quantile(0.975, 1) * np.sqrt(0.02 / 2))
    assert [found.value.low, found.value.high] == pytest.approx([0.2 - half, 0.2 + half])
    assert (found.classes, found.share, found.value.value) == (3, 0.2, 0.2)
    mean = mean_over_seeds([leaf(0.1), leaf(0.3)])
    assert mean.classes == 3 and mean.share == pytest.approx(0.2)
    assert [mean.value.low, mean.value.high] == pytest.approx([0.19, 0.21])
    assert mean_over_seeds([Leaf(Interval(None), 3, 0.5), Leaf(Interval(0.1, 0, 1), 3)]) == Leaf(
        Interval(None), 3
    )
