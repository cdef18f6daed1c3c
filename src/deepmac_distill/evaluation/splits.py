"""The groups of classes for which every number is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.dataset.classes import Classes, seen_names_of

T = TypeVar("T")
U = TypeVar("U")
Split = str  # all | seen | unseen | shown elsewhere | a name of `evaluation.splits`
Named = Mapping[str, Sequence[str]]  # split of its own -> names of its classes
NO_SPLITS: Named = {}


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
    named: Mapping[str, T] = field(default_factory=dict)  # by splits that `evaluation.splits` names

    def items(self) -> Iterator[tuple[Split, T]]:
        """Name and value of each split; `shown elsewhere` only where there is one; named ones last."""
        yield from (("all", self.all), ("seen", self.seen), ("unseen", self.unseen))
        if self.shown_elsewhere is not None:
            yield "shown elsewhere", self.shown_elsewhere
        yield from self.named.items()

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
            {name: function(name, value) for name, value in self.named.items()},
        )


def split_classes(
    classes: Classes, shown_elsewhere: frozenset[str] = frozenset(), named: Named = NO_SPLITS
) -> BySplit[NDArray[np.int64]]:
    """Class indices (ascending) of each split.

    Args:
        shown_elsewhere: names of classes whose masks the model saw, or may have seen, in other data. Those
            of them that are not seen here leave `unseen`.
        named: more splits, of whatever classes; one may overlap any other.
    """
    seen = np.array(classes.seen, dtype=bool)
    elsewhere = ~seen & np.array([name in shown_elsewhere for name in classes.names], dtype=bool)
    return BySplit(
        all=np.arange(len(seen)),
        seen=np.flatnonzero(seen),
        unseen=np.flatnonzero(~seen & ~elsewhere),
        shown_elsewhere=np.flatnonzero(elsewhere) if elsewhere.any() else None,
        named={
            split: np.flatnonzero([name in members for name in classes.names])
            for split, members in named.items()
        },
    )


def named_splits(asked: Named, names: Sequence[str], where: str) -> dict[str, tuple[str, ...]]:
    """The classes of each split of `evaluation.splits`, in the order of the file.

    Args:
        asked: split -> a preset (`voc`, `non-voc`, `all`), class names, or a file of names.
        names: the classes of the file that is evaluated on.

    Raises:
        DataError: a split picks no class, or one that the file does not have.

    >>> named_splits({"wild": ["non-voc"]}, ["cat", "zebra", "bear"], "val.json")
    {'wild': ('zebra', 'bear')}
    """
    found = {}
    for split, members in asked.items():
        chosen = seen_names_of(tuple(members), names, f"{where}: evaluation.splits.{split}")
        found[split] = tuple(name for name in names if name in chosen)
    return found
