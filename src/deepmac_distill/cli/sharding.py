"""The option `--shard` of commands whose work has units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer

from deepmac_distill.errors import ConfigError
from deepmac_distill.shards import Shard, parse_shard
from deepmac_distill.torchrun import Place


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """Which part of the units this process does."""

    meets: ClassVar[bool] = False  # whether processes of torchrun do the units together, and join them

    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Do every N-th unit from the I-th on, beside N - 1 other processes with this run; `deepmac "
            "assemble` joins them. Default: what torchrun sets, else everything.",
        ),
    ] = None

    @property
    def apart(self) -> bool:
        """Whether this process does its part alone, and leaves joining to another."""
        return self.shard is not None or not self.meets

    def asked(self, place: Place, force: bool) -> Shard | None:
        """The shard that is asked for; None: everything.

        Args:
            place: of this process among those that torchrun has started, each of which does a shard.

        Raises:
            ConfigError: it is none, or what others do at this time is to be redone.
        """
        if self.shard is not None:
            shard: Shard | None = parse_shard(self.shard)
        else:
            shard = Shard(place.rank, place.world) if place.world > 1 else None
        if shard is not None and force:
            raise ConfigError(
                f"--force: got it for shard {shard}; expected one process to redo it, or a new --out"
            )
        return shard


@dataclass(frozen=True, kw_only=True)
class SharedBy(Sharding):
    """The same where processes of torchrun work together."""

    meets: ClassVar[bool] = True
