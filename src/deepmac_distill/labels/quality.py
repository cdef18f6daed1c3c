"""What a mask is worth, as something outside the label file estimates it when the file is read."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.labels.recutting import CutOf

QUALITY, QUALITY_LOW = "quality", "quality_low"  # expected IoU, and a lower bound of it
# In a file of masks: names of the teachers whose quality is by a quick hold-out; only where there are some
BY_QUICK_HOLDOUT = "quality_by_quick_holdout"


class Quality(Protocol):
    """Estimates the IoU of a teacher's masks with the truth."""

    @property
    def sha256(self) -> str:
        """What changes with the estimates."""

    @property
    def by_quick_holdout(self) -> tuple[str, ...]:
        """Names of the teachers of whose masks a quick hold-out estimates it."""

    def estimate(self, rows: pa.Table, cut_of: CutOf) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) expected IoU of each mask and its lower bound; NaN where nothing is known.

        Args:
            rows: of LABELS_SCHEMA, as they were written.
            cut_of: where the masks of each teacher end as they are read.

        Raises:
            DataError: nothing is known of masks of this cut.
        """


def quick_mark(quality: Quality | None) -> dict[str, list[str]]:
    """What a file of masks states of a quality by a quick hold-out; empty where it is by none."""
    names = quality.by_quick_holdout if quality else ()
    return {BY_QUICK_HOLDOUT: list(names)} if names else {}


def with_quality(rows: pa.Table, quality: Quality | None, cut_of: CutOf, facts: pa.Table) -> pa.Table:
    """Rows with `quality` and `quality_low`; null where no teacher drew a mask, or nobody estimates it.

    Args:
        rows: as they are read.
        facts: the same as they were written.
    """
    for name, values in zip((QUALITY, QUALITY_LOW), _estimates(quality, cut_of, facts), strict=True):
        rows = rows.append_column(pa.field(name, pa.float32()), values)
    return rows


def _estimates(quality: Quality | None, cut_of: CutOf, facts: pa.Table) -> tuple[pa.Array, pa.Array]:
    if quality is None:
        nothing = pa.nulls(len(facts), pa.float32())
        return nothing, nothing
    drawn = np.asarray(pc.equal(facts["source"], "teacher")) & np.asarray(pc.is_valid(facts["rle_counts"]))
    values, low = (np.asarray(found, dtype=np.float32) for found in quality.estimate(facts, cut_of))
    missing = ~drawn | np.isnan(values)
    return pa.array(values, mask=missing), pa.array(low, mask=missing)
