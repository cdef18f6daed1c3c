"""The `deepmac` command: parse, call one stage, print.

Nothing here imports torch before a command's pipeline is read: a mistake in it is reported at once.
"""

from deepmac_distill.cli import (  # importing adds their commands
    bench,
    chain,
    check,
    evaluation,
    forecast,
    models,
    predict,
    recipes,
    show,
    status,
)
from deepmac_distill.cli.app import main

__all__ = [
    "bench",
    "chain",
    "check",
    "evaluation",
    "forecast",
    "main",
    "models",
    "predict",
    "recipes",
    "show",
    "status",
]
