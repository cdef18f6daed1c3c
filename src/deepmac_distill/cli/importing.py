"""`deepmac import`: weights of the authors."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.options import Redo, command, names_of
from deepmac_distill.cli.terminal import say
from deepmac_distill.errors import ConfigError
from deepmac_distill.files import read_text

if TYPE_CHECKING:
    from deepmac_distill.stages.import_checkpoint import Imported

_KEYS_SHOWN = 3


@command(app, "import")
def import_weights(
    redo: Redo,
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Of the authors' TensorFlow code: a .tar.gz, a folder, a prefix, or a SavedModel."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for weights.safetensors and card.json.")],
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size", help="Side of its images in pixels, where neither name nor config has it."
        ),
    ] = None,
    mask_size: Annotated[
        int | None,
        typer.Option("--mask-size", min=4, help="Cells a side of its masks, where no config has it. [32]"),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--classes", help="Names of its channels in their order, or a .txt file; default: COCO's."
        ),
    ] = None,
    masks_of: Annotated[
        list[str] | None,
        typer.Option(
            "--masks-of",
            help="Classes whose masks it saw: names, all or none; default: of COCO's channels all.",
        ),
    ] = None,
) -> None:
    """Turn a Deep-MAC or CenterNet checkpoint of the authors into weights of this program."""
    named = _names(classes)
    from deepmac_distill.stages.import_checkpoint import Unwritten, import_checkpoint

    unwritten = Unwritten(
        image_size_px=image_size,
        mask_size=mask_size,
        classes=named,
        masks_of=None if masks_of is None else tuple(names_of(masks_of)),
    )
    _report(import_checkpoint(checkpoint, out, unwritten, force=redo.force))


def _names(given: list[str] | None) -> tuple[str, ...]:
    if given is None or len(given) != 1 or not given[0].endswith(".txt"):
        return tuple(names_of(given or []))
    try:
        lines = read_text(Path(given[0])).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--classes {given[0]}: {error}; expected a file of names, one a line") from None
    return tuple(line.strip() for line in lines if line.strip())


def _report(found: Imported) -> None:
    card, model = found.card, found.card.model
    head = model.get("mask_head", "no mask head")
    say(
        f"{model['backbone']}, {head}, {len(card.class_names)} classes, {card.image_size_px} px, "
        f"lattice {card.lattice}"
    )
    every = found.tensors + len(found.without_place)
    say(f"{found.tensors:,} of {every:,} tensors, {found.numbers:,} numbers; every checksum holds")
    if found.without_place:
        more = ", ..." if every > found.tensors + _KEYS_SHOWN else ""
        say(f"without a place here: {', '.join(found.without_place[:_KEYS_SHOWN])}{more}")
    say(card.about)
    weights = shlex.quote(str(found.weights))
    use = (
        f"a training starts from it: --set teacher.train.init_from={weights}"
        if "mask_head" not in model
        else f"deepmac pseudolabel --model {weights} --annotations FILE --images FOLDER --out RUN"
    )
    say(f"{found.weights}; next: {use}")
