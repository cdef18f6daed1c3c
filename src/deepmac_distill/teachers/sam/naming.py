"""How a SAM is named where a command takes a model."""

from __future__ import annotations

from pathlib import Path

PREFIX = "sam:"


def sam_named(model: Path) -> str:
    """The folder or hub name that `sam:` stands before; empty where it does not, or a file has that name.

    >>> sam_named(Path("sam:facebook/sam-vit-base")), sam_named(Path("sam.safetensors"))
    ('facebook/sam-vit-base', '')
    """
    text = str(model)
    return text.removeprefix(PREFIX) if text.startswith(PREFIX) and not model.exists() else ""
