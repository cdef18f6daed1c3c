"""The `deepmac` command: parse, call one stage, print. Nothing here imports torch before a command runs."""

from deepmac_distill.cli.app import main

__all__ = ["main"]
