"""The `deepmac` command: parse, call one stage, print.

Nothing here imports torch before a command's pipeline is read: a mistake in it is told at once.
"""

from deepmac_distill.cli import forecast, models  # commands in files of their own: importing adds them
from deepmac_distill.cli.app import main

__all__ = ["forecast", "main", "models"]
