"""Which of several processes this one is, by the variables that torchrun sets; nothing here imports torch."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from deepmac_distill.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Place:
    """One process among those that do one thing together."""

    rank: int = 0
    world: int = 1  # how many there are
    local_rank: int = 0  # among those of this machine

    @property
    def called(self) -> str:
        """How messages name it; nothing where it is alone."""
        return f"rank {self.rank} on {socket.gethostname()}" if self.world > 1 else ""


ALONE = Place()


def place_of(environment: Mapping[str, str]) -> Place:
    """The place that torchrun gave this process; that of a single one where nothing started several.

    Raises:
        ConfigError: a variable is missing or is no number in its range.

    >>> place_of({})
    Place(rank=0, world=1, local_rank=0)
    >>> place_of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"})
    Place(rank=3, world=4, local_rank=1)
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return ALONE
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise ConfigError(
                f"{name}: is not set beside WORLD_SIZE; expected torchrun to start the processes"
            )
    world = _number(environment, "WORLD_SIZE", 1, None)
    rank = _number(environment, "RANK", 0, world)
    return Place(rank, world, _number(environment, "LOCAL_RANK", 0, world))


def _number(environment: Mapping[str, str], name: str, least: int, below: int | None) -> int:
    text = environment.get(name, "")
    number = int(text) if text.isascii() and text.isdecimal() else -1
    if number < least or (below is not None and number >= below):
        upto = "or more" if below is None else f"to {below - 1}"
        raise ConfigError(f"{name}: got {text!r}, expected a number, {least} {upto}, as torchrun sets it")
    return number
