"""The mean of several results of one type, where only the results are kept and not their instances."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from deepmac_distill.evaluation.results import Interval, R, from_json, to_json
from deepmac_distill.evaluation.seed_noise import mean_interval

_INTERVAL = set(to_json(Interval(None)))


def mean_result(each: Sequence[R]) -> R:
    """Results of trainings that differ in their seed: every number their mean, every interval over seeds.

    A number that one of them lacks is None; whole numbers and words are the first's.
    """
    return from_json(_mean([to_json(one) for one in each]), type(each[0]), "mean over seeds")


def _mean(each: list[Any]) -> Any:
    """The mean of JSON values of one shape."""
    first = each[0]
    if any(one is None for one in each):
        return None
    if isinstance(first, dict) and first.keys() >= _INTERVAL:
        return to_json(mean_interval([from_json(one, Interval, "interval") for one in each]))
    if isinstance(first, dict):
        return {key: _mean([one[key] for one in each]) for key in first}
    if isinstance(first, list) and len({len(one) for one in each}) == 1:
        return [_mean(list(parts)) for parts in zip(*each, strict=True)]
    return fmean(each) if all(isinstance(one, float) for one in each) else first
