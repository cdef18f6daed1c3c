"""How a run ends: what it made, and what one can do next, as commands that run when pasted."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

from deepmac_distill.chain import command_line, products
from deepmac_distill.cli.terminal import say
from deepmac_distill.regular import read_small

SUFFIXES = (".jpg", ".jpeg", ".png")


def print_ending(run: Path) -> None:
    """Name the files of a run that is done, and the commands that follow."""
    say("made:")
    found = products(run)
    width = max((len(title) for title, _ in found), default=0)
    for title, path in found:
        say(f"  {title:<{width}}  {path}")
    say("next:")
    for command in [shlex.join(["deepmac", "status", str(run)]), *next_commands(run)]:
        say(f"  {command}")


def next_commands(run: Path) -> list[str]:
    """What one can do with a run that is done, as lines for a shell; only what this run has the files for."""
    commands = []
    if _read(run / "select" / "counts.json").get("teacher"):
        commands.append(command_line("show", run, out=run / "teacher_masks.png"))
    if (run / "evaluate-student").exists():
        commands.append(command_line("evaluate student --per-class", out=run))
    if (run / "report" / "contact_sheet.png").exists():
        headings = [f"{role}={run / f'evaluate-{role}'}" for role in ("teacher", "student")]
        commands.append(command_line("sheet", *headings, "--of-each", "4", out=run / "sheet.png"))
    if (run / "evaluate-student" / "detections.json").exists() and (image := _an_image(run)):
        commands.append(command_line("detect", image, "--model", run, out=run / "detections"))
    if (run / "scenes-train").exists():  # drawn with the masks of all classes, which retention asks for
        commands.append(command_line("retention", out=run))
    return commands


def _an_image(run: Path) -> Path | None:
    """The first image that the student was evaluated on."""
    evaluation = run / "evaluate-student"
    named = _read(evaluation / "evaluation.json")
    for folder in (named.get("images_from_here"), named.get("images")):
        if isinstance(folder, str) and (at := Path(os.path.normpath(evaluation / folder))).is_dir():
            return min((path for path in at.iterdir() if path.suffix.lower() in SUFFIXES), default=None)
    return None


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of a run; empty where it is not there or broken, which `deepmac status` reports."""
    try:
        found = json.loads(read_small(path).decode())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
