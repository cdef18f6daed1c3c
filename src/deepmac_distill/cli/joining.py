"""Commands in several processes, as torchrun starts them: the first one prints, and one alone reports an end.

Nothing here imports torch before the processes meet.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from deepmac_distill.errors import ConfigError
from deepmac_distill.torchrun import ALONE, Place, place_of

if TYPE_CHECKING:
    import torch

    from deepmac_distill.ranks import Ranks

# Of these the trainings are done together; all else is done by the first process while the others wait.
COMMANDS = ("evaluate", "retention", "run", "student", "teach")
APART = ("holdout", "pseudolabel")  # processes that do shards never meet
_LINE_SECONDS = 2.0  # that a process which ends leaves to the one that prints why
_met: list[Ranks] = []
_hushed: list[Place] = []  # this one, where another of its machine reports what is refused before they meet


def place_here(command: str) -> Place:
    """This process among those that torchrun has started; stdout leads nowhere in all but the first.

    Raises:
        ConfigError: torchrun's variables cannot be used, or the command is none that several processes do.
    """
    if command in APART:
        return ALONE
    place = place_of(os.environ)
    if place.world > 1 and command not in COMMANDS and not command.startswith("-"):
        raise ConfigError(
            f"{command}: got {place.world} processes, expected one; several do "
            f"{', '.join((*APART, *COMMANDS))}"
        )
    if place.local_rank:
        _hushed.append(place)
    if place.rank:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    return place


def met(place: Place, device: torch.device) -> Ranks:
    """The processes that work together, met once."""
    if not _met:
        from deepmac_distill.ranks import join

        _met.append(join(place, device))
    return _met[0]


def reports(message: str) -> bool:
    """Whether this process is to print why all of them end: the first that ends does."""
    if _met and _met[0].world > 1:
        if _met[0].ends_first(message):
            return True
        time.sleep(_LINE_SECONDS)
        return False
    if not _hushed:
        return True
    time.sleep(_LINE_SECONDS)  # what is refused before they meet is refused in all of them
    return False


def called() -> str:
    """What stands before the message of one of several processes."""
    return f"{_met[0].place.called}: " if _met and _met[0].world > 1 else ""


def part() -> None:
    """End what joined the processes, where they have met."""
    while _met:
        _met.pop().leave()
    _hushed.clear()
