"""The hidden masks of a hold-out as calibration takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepmac_distill.calibration.calibration import HeldOut
from deepmac_distill.calibration.tried import SCORES, TriedMasks
from deepmac_distill.evaluation.holdout_masks import HoldoutMasks
from deepmac_distill.labels.cut import EXPECTED_IOU


def tried_masks(holdout: HoldoutMasks, teacher: str) -> TriedMasks:
    """The masks that a teacher drew of classes that it never saw a mask of.

    Raises:
        DataError: there is no such teacher.
    """
    rows = holdout.of(teacher)
    rows = rows.filter(rows["answered"])  # of a box without a mask there is no quality
    names = rows["category_name"].combine_chunks().dictionary_encode()
    cut_ious = pc.list_flatten(rows["cut_ious"]).to_numpy().reshape(len(rows), len(holdout.record.cuts))
    return TriedMasks(
        scores={
            name: np.asarray(pc.cast(rows[name], pa.float64()).fill_null(float("nan"))) for name in SCORES
        },
        cuts=(EXPECTED_IOU, *holdout.record.cuts),
        ious=np.c_[rows["iou_at_rule"].to_numpy(), cut_ious].astype(np.float64),
        classes=names.indices.to_numpy().astype(np.int64),
        images=rows["image_id"].to_numpy(),
        folds=rows["fold"].to_numpy().astype(np.int64),
        class_names=tuple(names.dictionary.to_pylist()),
    )


def held_out(holdout: HoldoutMasks, teacher: str, tried: TriedMasks, made_with: Mapping[str, Any]) -> HeldOut:
    """What a calibration of a teacher in a hold-out was learned from.

    Args:
        made_with: see `HeldOut`.
    """
    (found,) = (one for one in holdout.record.teachers if one.name == teacher)
    return HeldOut(
        teacher=teacher,
        identity=found.identity,
        trained=found.trained,
        made_with=dict(made_with),
        data_sha256=holdout.record.data_sha256,
        quick=holdout.record.quick,
        folds=len(np.unique(tried.folds)),
        classes=tuple(sorted(set(tried.class_names))),
        masks=len(tried),
    )
