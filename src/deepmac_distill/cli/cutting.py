"""The option `--cut` of commands that use a model on pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.errors import ConfigError

if TYPE_CHECKING:  # importing labels costs start-up time that --help should not pay
    from deepmac_distill.labels.cut import Cut


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """Where masks end, for commands that use a model on pictures."""

    cut: Annotated[
        str | None,
        typer.Option(
            "--cut",
            help="A pixel is foreground where its probability exceeds this number; or expected-iou, the "
            "default: each mask is cut where its own probabilities expect the largest IoU.",
        ),
    ] = None

    @property
    def at(self) -> Cut:
        """The cut.

        Raises:
            ConfigError: neither a number in [0, 1) nor the rule.
        """
        from deepmac_distill.labels.cut import DEFAULT_CUT, require_cut

        if self.cut is None:
            return DEFAULT_CUT
        try:
            number: float | str = float(self.cut)
        except ValueError:
            number = self.cut
        try:
            return require_cut(number)
        except ValueError as error:
            raise ConfigError(f"--{error}") from None
