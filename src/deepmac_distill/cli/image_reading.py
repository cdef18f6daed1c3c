"""How commands read images, where no pipeline file states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer

from deepmac_distill.cli.options import DATA
from deepmac_distill.errors import ConfigError

if TYPE_CHECKING:  # importing torch costs start-up time that --help should not pay
    from deepmac_distill.data.images import Exif, ImageReader


@dataclass(frozen=True, kw_only=True)
class ReadingImages:
    """The keys `data.exif` and `data.max_megapixels` of commands without a pipeline."""

    exif: Annotated[
        str,
        typer.Option(
            "--exif", help="as-stored, or apply: turn images by their EXIF orientation.", rich_help_panel=DATA
        ),
    ] = "as-stored"
    max_megapixels: Annotated[
        int, typer.Option("--max-megapixels", min=1, help="A larger image is refused.", rich_help_panel=DATA)
    ] = 178

    @property
    def reader(self) -> ImageReader:
        """What was asked for.

        Raises:
            ConfigError: an unknown word.
        """
        if self.exif not in ("as-stored", "apply"):
            raise ConfigError(f"--exif {self.exif}: expected as-stored or apply")
        from deepmac_distill.data.images import ImageReader

        return ImageReader(cast("Exif", self.exif), self.max_megapixels)
