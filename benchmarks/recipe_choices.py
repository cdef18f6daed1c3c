"""The variants that the recipe of `coco_sample` was chosen from, on classes hidden in the training file.

    python benchmarks/recipe_choices.py --data FOLDER --out runs/choices [--only VARIANT ...]
        [--hide fold:0/2] [--seeds 0 1] [--workers 0] [--json benchmarks/results/recipe_choices]

What is done is not done again; several processes may share the variants with `--only`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deepmac_distill.cli.terminal import Terminal
from deepmac_distill.errors import DistillError
from deepmac_distill.experiments.recipe_choices import VARIANTS, choose, keep
from deepmac_distill.stopping import Stopped


def main() -> int:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--hide", default="fold:0/2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/recipe_choices"))
    given = parser.parse_args()
    for seed in given.seeds:
        for variant in given.only:
            try:
                row = choose(variant, given.data, given.hide, seed, given.out, Terminal(), given.workers)
            except DistillError as error:
                sys.stderr.write(f"{error}\n")
                return 2
            except Stopped as stop:
                sys.stderr.write(f"stopped, {stop.kept}; the same command goes on\n")
                return 128 + stop.number
            sys.stdout.write(f"{keep(row, given.json)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
