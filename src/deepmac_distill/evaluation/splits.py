"""The groups of classes for which every number is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.dataset.classes import Classes

T = TypeVar("T")
U = TypeVar("U")
Split = Literal["all", "seen", "unseen", "shown elsewhere"]


@dataclass(frozen=True, slots=True)
class BySplit(Generic[T]):
    """One value for each group of classes.

    >>> counts = BySplit(all=3, seen=1, unseen=2)
    >>> dict(counts.map(str).items()), counts["unseen"]
    ({'all': '3', 'seen': '1', 'unseen': '2'}, 2)
    """

    all: T
    seen: T  # classes whose masks training may use
    unseen: T  # classes whose masks the model never saw: what the method is for
    shown_elsewhere: T | None = None  # not seen here, but the model saw (or may have seen) such masks before

    def items(self) -> Iterator[tuple[Split, T]]:
        """Name and value of each split; `shown elsewhere` only where there is one."""
        yield from (("all", self.all), ("seen", self.seen), ("unseen", self.unseen))
        if self.shown_elsewhere is not None:
            yield "shown elsewhere", self.shown_elsewhere

    def __getitem__(self, split: Split) -> T:
        return dict(self.items())[split]

    def map(self, function: Callable[[T], U]) -> BySplit[U]:
        """`function` of each value."""
        return self.map_named(lambda _, value: function(value))

    def map_named(self, function: Callable[[Split, T], U]) -> BySplit[U]:
        """`function` of each name and value."""
        elsewhere = self.shown_elsewhere
        return BySplit(
            function("all", self.all),
            function("seen", self.seen),
            function("unseen", self.unseen),
            None if elsewhere is None else function("shown elsewhere", elsewhere),
        )


def split_classes(
    classes: Classes, shown_elsewhere: frozenset[str] = frozenset()
) -> BySplit[NDArray[np.int64]]:
    """Class indices (ascending) of each split.

    Args:
        shown_elsewhere: names of classes whose masks the model saw, or may have seen, in other data. Those
            of them that are not seen here leave `unseen`.
    """
    seen = np.array(classes.seen, dtype=bool)
    elsewhere = ~seen & np.array([name in shown_elsewhere for name in classes.names], dtype=bool)
    return BySplit(
        all=np.arange(len(seen)),
        seen=np.flatnonzero(seen),
        unseen=np.flatnonzero(~seen & ~elsewhere),
        shown_elsewhere=np.flatnonzero(elsewhere) if elsewhere.any() else None,
    )
