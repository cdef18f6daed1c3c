"""The `deepmac` command: parse, call one stage, print.

Nothing here imports torch before a command's pipeline is read: a mistake in it is told at once.
"""

from deepmac_distill.cli import (  # commands in files of their own: importing adds them
    forecast,
    models,
    status,
)
from deepmac_distill.cli.app import main

__all__ = ["forecast", "main", "models", "status"]
