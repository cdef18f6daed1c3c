"""The `deepmac` command: parse, call one stage, print.

Nothing here imports torch before a command's pipeline is read: a mistake in it is reported at once.
"""

from deepmac_distill.cli import (  # isort: skip  importing adds their commands, in the order of --help
    chain,
    assembling,
    holdout,
    status,
    show,
    exchange,
    quality,
    evaluation,
    collecting,
    predict,
    recipes,
    importing,
    check,
    forecast,
    bench,
    models,
)
from deepmac_distill.cli.app import main

__all__ = [
    "assembling",
    "bench",
    "chain",
    "check",
    "collecting",
    "evaluation",
    "exchange",
    "forecast",
    "holdout",
    "importing",
    "main",
    "models",
    "predict",
    "quality",
    "recipes",
    "show",
    "status",
]
