"""Several seeds of one recipe: each a run, then what they have in common."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deepmac_distill.chain import command_line
from deepmac_distill.cli.results import print_retention, print_seeds_report
from deepmac_distill.cli.terminal import say

if TYPE_CHECKING:
    from deepmac_distill.progress import Progress
    from deepmac_distill.stages.job import Job


def run_seeds(out: Path, jobs: Mapping[int, Job]) -> None:
    """The whole chain of each seed, then the report over all."""
    from deepmac_distill.stages.run import run
    from deepmac_distill.stages.seeds import report_seeds

    reports = {seed: run(_begun(seed, job)) for seed, job in jobs.items()}
    if all(reports.values()):
        print_seeds_report(report_seeds(out, *_to_read(jobs), _progress(jobs)))
        say(f"report: {out / 'report'}")
    _print_next(out, jobs, command_line("retention", "--seeds", str(len(jobs)), out=out))


def retain_seeds(out: Path, jobs: Mapping[int, Job]) -> None:
    """Retention of each seed, then over all."""
    from deepmac_distill.stages.retention import retention
    from deepmac_distill.stages.seeds import retention_of_seeds

    for seed, job in jobs.items():
        retention(_begun(seed, job))
    print_retention(retention_of_seeds(out, *_to_read(jobs), _progress(jobs)))
    say(f"figures: {out / 'retention'}")


def _begun(seed: int, job: Job) -> Job:
    job.progress.note(f"seed {seed}: {job.run.path}")
    return job


def _to_read(jobs: Mapping[int, Job]) -> tuple[dict[int, Path], int, int]:
    """The runs by seed, and how images are resampled."""
    first = next(iter(jobs.values())).pipeline
    return {seed: job.run.path for seed, job in jobs.items()}, first.evaluation.bootstrap, first.seed


def _progress(jobs: Mapping[int, Job]) -> Progress:
    return next(iter(jobs.values())).progress


def _print_next(out: Path, jobs: Mapping[int, Job], *commands: str) -> None:
    say("made:")
    for seed, job in jobs.items():
        say(f"  seed {seed}  {job.run.path}")
    say("next:")
    status = shlex.join(["deepmac", "status", str(out)])
    say(*(f"  {command}" for command in (status, *commands)))
