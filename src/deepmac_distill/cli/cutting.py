"""The option `--cut` of commands that draw or evaluate masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.errors import ConfigError

if TYPE_CHECKING:  # importing labels costs start-up time that --help should not pay
    from deepmac_distill.labels.cut import Cut


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """Where masks end."""

    cut: Annotated[
        str | None,
        typer.Option(
            "--cut",
            help="A pixel is foreground where its probability exceeds this number; or expected-iou: each "
            "mask is cut where its own probabilities expect the largest IoU. Default: the run's labels.cut, "
            "else expected-iou.",
        ),
    ] = None

    @property
    def asked(self) -> Cut | None:
        """The cut that is asked for, if any.

        Raises:
            ConfigError: neither a number in [0, 1) nor the rule.
        """
        if self.cut is None:
            return None
        from deepmac_distill.labels.cut import require_cut

        try:
            number: float | str = float(self.cut)
        except ValueError:
            number = self.cut
        try:
            return require_cut(number)
        except ValueError as error:
            raise ConfigError(f"--{error}") from None
