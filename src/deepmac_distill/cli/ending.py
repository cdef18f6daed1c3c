"""How a run ends: what it made, and what one can do next, as commands that run when pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

from deepmac_distill.chain import command_line, products


def print_ending(run: Path) -> None:
    """Name the files of a run that is done, and the commands that follow."""
    print("made:")
    found = products(run)
    width = max((len(title) for title, _ in found), default=0)
    for title, path in found:
        print(f"  {title:<{width}}  {path}")
    print("next:")
    for command in [shlex.join(["deepmac", "status", str(run)]), *next_commands(run)]:
        print(f"  {command}")


def next_commands(run: Path) -> list[str]:
    """What one can do with a run that is done, as lines for a shell."""
    commands = []
    if (run / "evaluate-student").exists():
        commands.append(command_line("evaluate student --per-class", out=run))
    if (run / "report" / "contact_sheet.png").exists():
        headings = [f"{role}={run / f'evaluate-{role}'}" for role in ("teacher", "student")]
        commands.append(command_line("sheet", *headings, "--of-each", "4", out=run / "sheet.png"))
    return commands
