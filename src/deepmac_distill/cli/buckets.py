"""Words of a command that are URIs become paths before the command begins."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepmac_distill.cli.terminal import Terminal
from deepmac_distill.errors import ConfigError
from deepmac_distill.shards import parse_shard
from deepmac_distill.storage.location import is_remote, is_uri, place_of, shown
from deepmac_distill.teachers.sam.naming import sam_named
from deepmac_distill.torchrun import place_of as rank_of

_OUTPUTS = ("out", "as_json")  # what commands write


def with_copies(given: Mapping[str, object], but: Collection[str] = ()) -> dict[str, object]:
    """The values of options, in which copies stand for what is read from buckets.

    Args:
        but: options that name a run to work in; so does `run` of any command.

    Raises:
        StorageError: nothing is there, or the store cannot be read.
        ConfigError: a URI that cannot be used, or one of an output.
    """
    return {name: it if name in (*but, "run") else _local(name, it) for name, it in given.items()}


@contextmanager
def worked_in(out: Path | None, command: str, shard: str | None) -> Iterator[Path | None]:
    """Where a command works for its --out: there, or for a run in a bucket in its copy here.

    Raises:
        ConfigError: processes of torchrun would need one copy for all.
        RunError, StorageError: as `run_in_bucket`.
    """
    if out is None or not is_uri(str(out)):
        yield out
    elif not is_remote(out):
        yield Path(str(place_of(out)))
    elif rank_of(os.environ).world > 1 and shard is None:
        raise ConfigError(
            f"--out {shown(out)}: got {rank_of(os.environ).world} processes, expected one, or each with its "
            "own --shard; processes that train together need a run directory on a disk"
        )
    elif shard is not None and command == "holdout":
        raise ConfigError(
            f"--out {shown(out)}: got shard {shard} of a hold-out, expected a run directory on a disk, which "
            "all trials are kept in"
        )
    else:
        from deepmac_distill.remote_run.session import run_in_bucket  # imports Arrow

        part = None if shard is None else parse_shard(shard)
        with run_in_bucket(out, part, command=command, note=Terminal().note) as folder:
            yield folder


@contextmanager
def groups_here(groups: Mapping[str, Any], run: type, command: str) -> Iterator[dict[str, Any]]:
    """Groups of options, in which for a run in a bucket its copy stands.

    Args:
        run: the group whose `out` is a run directory.

    Raises:
        ConfigError, RunError, StorageError: as `worked_in`.
    """
    runs: dict[str, Any] = {name: group for name, group in groups.items() if isinstance(group, run)}
    shards = [group.shard for group in groups.values() if isinstance(getattr(group, "shard", None), str)]
    out = next((one.out for one in runs.values()), None)
    with worked_in(out, command, shards[0] if shards else None) as here:
        yield {**groups, **{name: replace(one, out=here) for name, one in runs.items()}}


def copy_named(word: str) -> Path:
    """The path of a word, or of the copy of what a URI names.

    Raises:
        StorageError, ConfigError: as `with_copies`.
    """
    found = _local("", Path(word))
    return found if isinstance(found, Path) else Path(word)


def _local(name: str, value: object) -> object:
    if isinstance(value, list):
        return [_local(name, one) for one in value]
    if not (isinstance(value, Path) and is_uri(str(value))) or sam_named(value):
        return value
    if not is_remote(value):
        return place_of(value)
    if name in _OUTPUTS:
        raise ConfigError(f"{shown(value)}: is in a bucket; expected a path of this machine to write to")
    from deepmac_distill.storage.fetching import fetched, of_models, of_run  # imports Arrow

    return fetched(value, of_models if name == "model" else of_run)
