"""COCO's sizes of objects, by the area of their masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

T = TypeVar("T")
U = TypeVar("U")
Size = Literal["small", "medium", "large"]
# In pixels, half-open.
_LIMITS: dict[Size, tuple[int, int | None]] = {
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, None),
}


@dataclass(frozen=True, slots=True)
class BySize(Generic[T]):
    """One value for each size.

    >>> dict(BySize.of(lambda size: len(size)).items())
    {'small': 5, 'medium': 6, 'large': 5}
    """

    small: T
    medium: T
    large: T

    @classmethod
    def of(cls, function: Callable[[Size], T]) -> BySize[T]:
        """`function` of each name."""
        return BySize(function("small"), function("medium"), function("large"))

    def __getitem__(self, size: Size) -> T:
        return dict(self.items())[size]

    def map(self, function: Callable[[T], U]) -> BySize[U]:
        """`function` of each value."""
        return BySize(function(self.small), function(self.medium), function(self.large))

    def items(self) -> Iterator[tuple[Size, T]]:
        """Name and value of each size."""
        yield from (("small", self.small), ("medium", self.medium), ("large", self.large))


def of_size(ious: pa.Table, size: Size) -> pa.Table:
    """The rows whose truth has a size.

    Args:
        ious: with a column `area`, pixels of the truth mask.
    """
    low, high = _LIMITS[size]
    inside = pc.greater_equal(ious["area"], low)
    return ious.filter(inside if high is None else pc.and_(inside, pc.less(ious["area"], high)))
