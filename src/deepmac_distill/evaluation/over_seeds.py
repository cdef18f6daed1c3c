"""Evaluations and comparisons of several trainings that differ in their seed alone, as one.

IoUs are averaged instance by instance, so that images are resampled for all seeds at once; average
precision is averaged over the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.results import Comparison, Evaluation
from deepmac_distill.evaluation.seed_noise import mean_over_seeds, over_seeds
from deepmac_distill.evaluation.summary import compare_given_boxes, summarize_given_boxes


def mean_table(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of `mask_iou.IOU_SCHEMA`, ordered by row: the IoUs of an instance are means over the tables.

    Raises:
        DataError: they are not of the same instances.
    """
    first, *others = ordered = [table.sort_by("row") for table in tables]
    for other in others:
        if not first["row"].equals(other["row"]):
            raise DataError(
                f"seeds evaluated on other instances: got {len(first)} and {len(other)}, expected the same"
            )
    for position, column in enumerate(first.schema):
        if pa.types.is_floating(column.type):
            total = reduce(pc.add, [table[column.name] for table in ordered])
            first = first.set_column(position, column.name, pc.divide(total, float(len(ordered))))
    return first


def evaluations_over_seeds(
    ious: Sequence[Mapping[int, pa.Table]],
    each: Sequence[Mapping[int, Evaluation]],
    classes: Classes,
    resamples: int = 1000,
    seed: int = 0,
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
) -> list[Evaluation]:
    """Of each model of one recipe the mean over its seeds; training noise is pooled over the models.

    Args:
        ious: of each model and seed, its table of `mask_iou.IOU_SCHEMA`.
        each: of each model and seed, its evaluation.
    """
    wholes = [
        replace(
            mean_over_seeds(list(by_seed.values())),
            given_boxes=summarize_given_boxes(
                mean_table(list(tables.values())), classes, resamples, seed, shown_elsewhere=shown_elsewhere
            ),
        )
        for tables, by_seed in zip(ious, each, strict=True)
    ]
    return over_seeds(wholes, each)


def comparison_over_seeds(
    ious_a: Mapping[int, pa.Table],
    ious_b: Mapping[int, pa.Table],
    each: Mapping[int, Comparison],
    classes: Classes,
    resamples: int = 1000,
    seed: int = 0,
    *,
    shown_elsewhere: frozenset[str] = frozenset(),
) -> Comparison:
    """Two models paired by seed: first the difference of each seed, then their mean.

    Args:
        ious_a, ious_b: of each seed, a table of `mask_iou.IOU_SCHEMA`.
        each: the comparison of each seed.
    """
    a, b = (mean_table([ious[seed] for seed in each]) for ious in (ious_a, ious_b))
    whole = replace(
        mean_over_seeds(list(each.values())),
        given_boxes=compare_given_boxes(a, b, classes, resamples, seed, shown_elsewhere=shown_elsewhere),
        seeds=tuple(each),
    )
    return over_seeds([whole], [each])[0]
