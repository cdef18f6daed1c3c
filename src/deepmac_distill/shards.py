"""Which part of a stage's units one of several processes does."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from deepmac_distill.errors import ConfigError

_SHOWN = 5  # units, in a message


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `count`-th unit from `index` on."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, units: Iterable[int]) -> list[int]:
        """Its own among the numbers of units.

        >>> Shard(1, 3).of(range(8))
        [1, 4, 7]
        """
        return [unit for unit in units if unit % self.count == self.index]


def parse_shard(text: str, where: str = "--shard") -> Shard:
    """The shard that I/N names, from 0/N on.

    Raises:
        ConfigError: it is none.

    >>> parse_shard("2/7")
    Shard(index=2, count=7)
    """
    words = text.split("/")
    if len(words) == 2 and all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
        index, count = map(int, words)
        if index < count:
            return Shard(index, count)
    raise ConfigError(f"{where}: got {text!r}, expected I/N, I from 0 to N - 1, such as 0/4")


def missing_words(missing: Collection[int], units: int, counts: Iterable[int]) -> str:
    """Which units are missing, and which shards have them.

    Args:
        missing: their numbers, at least one.
        units: how many there are.
        counts: into how many shards the units were divided, as far as that is known.

    >>> missing_words([1, 4, 7], 8, {3})
    '3 of 8 units are missing (1, 4, 7): shard 1/3'
    >>> missing_words(range(7), 8, ())
    '7 of 8 units are missing (0, 1, 2, 3, 4, ...)'
    """
    numbers = ", ".join(map(str, sorted(missing)[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
    found = f"{len(missing)} of {units} units are missing ({numbers})"
    count = max(counts, default=0)
    if not count:
        return found
    shards = sorted({unit % count for unit in missing})
    named = ", ".join(f"{shard}/{count}" for shard in shards[:_SHOWN])
    return f"{found}: shard{'s' if len(shards) > 1 else ''} {named}{', ...' if len(shards) > _SHOWN else ''}"
