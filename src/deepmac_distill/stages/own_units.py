"""Which units of a stage this process does, and which process joins them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepmac_distill.shards import Shard
from deepmac_distill.shared_stage import mark_shard, require_all
from deepmac_distill.stages.job import Job


def own_units(job: Job, count: int, parts: Path) -> Sequence[int]:
    """Numbers of the units that this process does: of its shard, of its rank, else all.

    Args:
        count: how many units there are.
        parts: the folder of their parts, where a shard leaves word that it has begun.
    """
    if job.shard is not None:
        mark_shard(parts, job.shard)
        return job.shard.of(range(count))
    return Shard(job.ranks.rank, job.ranks.world).of(range(count))


def require_joinable(
    job: Job, stage: str, parts: Path, missing: Sequence[int], count: int, again: str
) -> None:
    """Refuse a job that only joins while units are missing; see `require_all`."""
    if job.joins:
        require_all(job.run.path, stage, parts, missing, count, again)


def joins_here(job: Job) -> bool:
    """Whether this process joins the units, once all that work together have done theirs."""
    job.ranks.wait()
    return job.shard is None and job.ranks.leads
