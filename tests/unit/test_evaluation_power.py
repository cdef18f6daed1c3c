from __future__ import annotations

import math

import numpy as np
import pytest

from deepmac_distill.evaluation.power import least_difference, t_quantile
from deepmac_distill.evaluation.results import Interval

PRINTED, NEXT = 60, 2000  # experiments that print a least difference, and for each those that look for it


def test_t_quantiles_are_those_of_the_tables() -> None:
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 14: 2.145, 120: 1.980}
    assert {df: round(t_quantile(0.975, df), 3) for df in printed} == printed
    assert [round(t_quantile(0.8, df), 3) for df in (1, 4, 1000)] == [1.376, 0.941, 0.842]


def halves(images: float, seeds: float, squares: np.ndarray, df: int) -> tuple[np.ndarray, np.ndarray]:
    """Half-widths of experiments, and their part of seeds; `seeds` and `images` are the true errors."""
    of_seeds = t_quantile(0.975, df) * seeds * np.sqrt(squares / df)
    return np.hypot(1.95996 * images, of_seeds), of_seeds


@pytest.mark.parametrize("df", [1, 2, 4])
@pytest.mark.parametrize(("images", "seeds"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.2)])
def test_a_least_difference_is_found_in_four_of_five_experiments(
    df: int, images: float, seeds: float
) -> None:
    """One experiment prints it, the next has that true difference: found, if its interval is above zero."""
    rng = np.random.default_rng(0)
    even = np.sort(rng.chisquare(df, (100, PRINTED)), axis=1).mean(axis=0)  # evenly over what may be printed
    printed = zip(*halves(images, seeds, even, df), strict=True)
    least = np.array([least_difference(Interval(0.0, -half, half, part, df)) for half, part in printed])
    estimates = least + rng.normal(0, math.hypot(images, seeds), (NEXT, PRINTED))
    found = np.mean(estimates > halves(images, seeds, rng.chisquare(df, (NEXT, PRINTED)), df)[0])
    assert 0.785 < found < 0.88  # of mixed errors a little more than promised, never less
    if not images:
        assert found == pytest.approx(0.8, abs=0.015)


def test_of_images_alone_it_is_bloom_s() -> None:
    rng = np.random.default_rng(0)
    least = least_difference(Interval(0.0, -1.95996, 1.95996))
    assert np.mean(rng.normal(least, 1.0, 100_000) > 1.95996) == pytest.approx(0.8, abs=0.005)


def test_an_interval_of_no_width_knows_no_least_difference() -> None:
    assert least_difference(Interval(0.1, 0.1, 0.1)) is least_difference(Interval(0.1)) is None
