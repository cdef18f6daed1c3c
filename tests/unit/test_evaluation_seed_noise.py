from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from deepmac_distill.evaluation.mean_result import mean_result
from deepmac_distill.evaluation.means import interval
from deepmac_distill.evaluation.power import t_quantile
from deepmac_distill.evaluation.results import Interval, Ratio
from deepmac_distill.evaluation.seed_noise import fieller, mean_interval

IMAGES, RESAMPLES, REPEATS = 80, 300, 1200
COVERAGE = pytest.approx(0.95, abs=0.03)  # of REPEATS, whose own noise is 0.006
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
    """Three seeds of one model."""
    covered = alone = 0
    for (seeds,) in experiments(spread, 1, 3):
        covered += holds(interval(weights @ seeds.T))
        alone += holds(interval(weights @ seeds.mean(axis=0)))
    assert covered / REPEATS == COVERAGE
    if spread[1] >= 0.5:
        assert alone / REPEATS < 0.94  # what resampled images alone leave out


@pytest.mark.parametrize("shared", [0.0, 0.7, 0.95])
def test_each_row_of_a_table_covers_though_rows_are_alike_by_seed_and_vary_unequally(shared, weights) -> None:
    """A student learns from its teacher's masks, so what a seed does to one it does to the other.

    The second row varies 2.5 times as much; a spread pooled over both covers it in less than 90 %.
    """
    rng, covered = np.random.default_rng(3), np.zeros(2)
    spreads = np.array([[0.3], [0.75]])
    for rows in experiments((0.2, 0.0, 0.1), 2, 3):
        both = shared**0.5 * rng.normal(size=3) + (1 - shared) ** 0.5 * rng.normal(size=(2, 3))
        seeds = rows + (spreads * both)[..., None]
        covered += [holds(interval(weights @ row.T)) for row in seeds]
    assert list(covered / REPEATS) == [COVERAGE, COVERAGE]


@pytest.mark.parametrize("spread", SPREADS[:3])
def test_differences_paired_by_seed_cover_too_whatever_a_seed_does_to_all_rows(spread, weights) -> None:
    covered = 0
    common = np.random.default_rng(2).normal(0, 2.0, (REPEATS, 1, 3, 1))
    for a, b in experiments(spread, 2, 3) + common:
        covered += holds(interval(weights @ (b - a).T))
    assert covered / REPEATS == COVERAGE


def test_an_interval_of_a_ratio_covers_as_often_as_it_promises(weights) -> None:
    """Retention of 0.6 of a gain of 3 points, three seeds."""
    covered, made = 0, 0
    for rows in experiments((0.2, 0.2, 0.1), 3, 3):
        a, b, c = rows + np.array([0.0, 1.8, 3.0])[:, None, None]
        ratio = fieller(*(interval(weights @ one.T) for one in (b - a, c - a, c - b)), "gain")
        if ratio.value is not None:
            made += 1
            covered += holds(Interval(ratio.value, ratio.low, ratio.high), 0.6)
    assert made > 0.9 * REPEATS and covered / made == COVERAGE


def test_an_interval_says_how_much_of_it_seeds_make() -> None:
    seeds = [0.61, 0.64, 0.60]
    found = interval(np.tile(seeds, (4, 1)))  # every resampling alike: images add nothing
    half = 4.302653 * np.std(seeds, ddof=1) / 3**0.5
    assert found.value == pytest.approx(np.mean(seeds)) and found.seeds_df == 2
    assert [found.seeds_half, found.high - found.value] == pytest.approx([half, half])


def test_seeds_that_are_alike_by_chance_make_no_interval_narrower_than_images_alone() -> None:
    """Of images that each seed finds otherwise, a third of the variance is left in the mean of three."""
    draws = np.random.default_rng(0).normal(0.02, 0.01, (200, 3))
    draws[0] = [0.0200, 0.0201, 0.0199]  # of the data themselves
    alone = interval(draws.mean(axis=1))
    found = interval(draws)
    assert found.seeds_half is not None and found.seeds_half < 0.1 * (alone.high - alone.low)
    assert found.high - found.low == pytest.approx(alone.high - alone.low)


def test_a_single_seed_knows_no_noise() -> None:
    draws = np.random.default_rng(0).normal(size=(50, 1))
    assert interval(draws) == interval(draws[:, 0])
    assert interval(draws).seeds_half is None and interval(draws).seeds_df == 0
    whole = Interval(0.2, 0.1, 0.35)
    assert mean_interval([whole]) is whole
    assert mean_interval([whole, Interval(None)]) == Interval(None)
    assert mean_interval([whole, Interval(0.3)]) == Interval(0.25)


def test_a_row_that_learns_nothing_has_no_seed_noise() -> None:
    """GrabCut as the teacher of several seeds."""
    one = np.random.default_rng(0).normal(size=50)
    alike = interval(np.stack([one, one], axis=1))
    assert alike.seeds_half == 0.0
    images = interval(one)
    assert alike.high - alike.low == pytest.approx(images.high - images.low)


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
    ratio: Ratio
    classes: int
    share: float | None = None


def test_a_mean_of_results_widens_every_interval_and_averages_every_number() -> None:
    def leaf(value: float, share: float | None = None) -> Leaf:
        return Leaf(Interval(value, value - 0.01, value + 0.01), Ratio(value), 3, share)

    found = mean_result([leaf(0.1, 0.1), leaf(0.3, 0.3)])
    half = np.hypot(0.01, t_quantile(0.975, 1) * np.sqrt(0.02 / 2))
    assert [found.value.low, found.value.high] == pytest.approx([0.2 - half, 0.2 + half])
    assert (found.classes, found.share, found.value.value) == (3, pytest.approx(0.2), pytest.approx(0.2))
    assert found.ratio == Ratio(pytest.approx(0.2))
    assert mean_result([leaf(0.1), leaf(0.3, 0.3)]).share is None
    assert mean_result([leaf(0.1, 0.1)]) == leaf(0.1, 0.1)
