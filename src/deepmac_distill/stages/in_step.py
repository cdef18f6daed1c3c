"""Stages of a run that several processes do: the first one keeps the run, the others follow it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepmac_distill.ranks import Ranks

Work = Callable[[Path], None]  # in the folder of a stage


def in_step(ranks: Ranks, work: Work, run_stage: Callable[[Work], Path], *, together: bool = False) -> Path:
    """Have the first process run a stage; the others hear where it works, and its folder in the end.

    Only the first one reads or changes the state of the run, so they cannot disagree on what is done.

    Args:
        run_stage: does the work it is given in the stage's folder, unless it is done; returns that folder.
        together: all processes do the work; else the first one does, and the others wait for it.
    """
    if ranks.leads:

        def announced(folder: Path) -> None:
            ranks.announce(("works in", folder))
            work(folder)

        whole = run_stage(announced)
        ranks.announce(("ended with", whole))
        return whole
    state, folder = ranks.announce()
    while state == "works in":
        if together:
            work(folder)
        state, folder = ranks.announce()
    return Path(folder)
