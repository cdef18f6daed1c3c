"""What a teacher's masks are worth to a student on windows, each seed with the labels of its own teacher.

    python benchmarks/retention.py --teachers runs/coco_sample --data FOLDER [--seeds 0 1 2]
        [--out runs/retention] [--set KEY=VALUE ...]

TEACHERS is a folder of runs, `seed-N`, that have labeled (`deepmac run coco_sample --seeds 3`). A student
looks and trains as those of `student_targets.py`. What is done is not done again. `results.py record` keeps
the figures. A training that is set shorter needs `student.train.warmup_steps` set too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from deepmac_distill.chain import SEED, STAGES
from student_targets import STUDENT, deepmac

LABELS = STAGES["pseudolabel"].makes[0].file


def commands(given: argparse.Namespace, seed: int) -> list[list[str]]:
    """The words after `deepmac`: the student, its figures, those of the students that it is compared with."""
    out = ["--out", str(given.out / f"{SEED}{seed}")]
    labels = given.teachers / f"{SEED}{seed}" / "pseudolabel" / LABELS
    keys = (*STUDENT, "evaluation.gt_boxes_only=true", *given.overrides)
    first = ["student", "--config", "coco_sample", "--data", given.data, "--labels", str(labels)]
    sets = [word for key in keys for word in ("--set", key)]
    return [[*first, "--seed", str(seed), *out, *sets], ["evaluate", "student", *out], ["retention", *out]]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/retention"))
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    return parser.parse_args(arguments)


if __name__ == "__main__":
    told = parsed(None)
    for each in told.seeds:
        for words in commands(told, each):
            deepmac(*words)
