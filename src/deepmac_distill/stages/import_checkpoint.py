"""Stage `import`: a checkpoint of the authors becomes weights of ours with a card."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from deepmac_distill.chain import WEIGHTS
from deepmac_distill.config import flatten_model
from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.files import write_json
from deepmac_distill.labels.checks import MAX_CELLS
from deepmac_distill.stages.import_architecture import Architecture, architecture_of, counters_of, tensors_of
from deepmac_distill.weights.card import DETECTOR, ModelCard, save_weights
from deepmac_distill.weights.tensorflow.coco import CHANNELS, COCO_CLASSES
from deepmac_distill.weights.tensorflow.convert import Converted, TfModel, convert, misfit
from deepmac_distill.weights.tensorflow.files import OpenCheckpoint, opened

CARD = "card.json"
MASK_SIZE = 32  # where nothing names it: that of the authors' configurations
_SIZE_IN_NAME = re.compile(r"(\d{3,4})x\1(?!\d)")
_SIZE_IN_CONFIG = re.compile(r"\bmax_dimension:\s*(\d{2,5})\b")
_MASK_SIZE_IN_CONFIG = re.compile(r"\bmask_size:\s*(\d{1,4})\b")
_DIVISIBILITY = 128  # of hourglasses
_LARGEST_PX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwritten:
    """What a checkpoint may not have, as the user named it."""

    image_size_px: int | None = None
    mask_size: int | None = None
    classes: tuple[str, ...] = ()  # of the channels, in their order; none: COCO's, or numbers
    masks_of: tuple[str, ...] | None = None  # classes whose masks it saw; None: by what it is


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a checkpoint."""

    weights: Path
    card: ModelCard
    tensors: int  # of the checkpoint, each checked and converted
    numbers: int
    without_place: tuple[str, ...]  # keys of its other tensors


@dataclass(frozen=True, slots=True)
class _Classes:
    """The classes that are kept of the channels of a heatmap."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    channels: tuple[int, ...]
    coco: bool = False


def import_checkpoint(path: Path, out: Path, unwritten: Unwritten, *, force: bool = False) -> Imported:
    """Write the weights of a checkpoint, and their card, to a folder.

    Args:
        path: see `weights.tensorflow.files.opened`.
        force: replace weights that are there.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or it is of another model.
        ConfigError: there are weights already, or something has to be named.
    """
    if (out / WEIGHTS).exists() and not force:
        raise ConfigError(f"{out / WEIGHTS}: is there already; expected a new folder, or --force")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}; expected a folder that can be made") from None
    try:
        with opened(path, space=out) as checkpoint:
            return _imported(checkpoint, out, unwritten)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            out.rmdir()  # where nothing came of it


def _imported(checkpoint: OpenCheckpoint, out: Path, unwritten: Unwritten) -> Imported:
    model = TfModel.of(checkpoint.bundle)
    in_config = _MASK_SIZE_IN_CONFIG.search(checkpoint.config)
    mask_size = unwritten.mask_size or (int(in_config[1]) if in_config else MASK_SIZE)
    if mask_size > MAX_CELLS:
        raise ConfigError(
            f"masks of {mask_size} cells a side: expected {MAX_CELLS} at most; --mask-size sets it"
        )
    architecture = architecture_of(model, mask_size)
    classes = _classes_of(architecture.num_classes, unwritten.classes)
    card = _card(checkpoint, architecture, classes, unwritten)
    try:
        expected = tensors_of(architecture, len(classes.names))
    except ConfigError as error:  # such as a mask size that is no multiple of what the head needs
        raise ConfigError(f"{error}; --mask-size sets it") from None
    if why := misfit(model, expected):
        raise CheckpointError(f"{checkpoint.name}: {why}")
    converted = convert(model, expected, classes.channels)
    _write(out, converted, card)
    return Imported(
        weights=out / WEIGHTS,
        card=card,
        tensors=len(converted.tensors),
        numbers=sum(tensor.size for tensor in converted.tensors.values()),
        without_place=converted.without_place,
    )


def _write(out: Path, converted: Converted, card: ModelCard) -> None:
    state = {name: torch.from_numpy(values) for name, values in converted.tensors.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    counters = {name: torch.zeros((), dtype=torch.int64) for name in counters_of(shapes)}
    save_weights(out / WEIGHTS, state | counters, card)
    write_json(out / CARD, card.as_dict())


def _classes_of(channels: int, named: Sequence[str]) -> _Classes:
    """Of a heatmap's channels those that are kept: all that have a name, which of COCO's 90 are 80."""
    if named and (len(named) != channels or len(set(named)) != channels):
        raise ConfigError(f"--classes: got {len(set(named))} different names, expected {channels}")
    if named or channels != CHANNELS:
        names = tuple(named) or tuple(f"class {number + 1}" for number in range(channels))
        return _Classes(names, tuple(range(1, channels + 1)), tuple(range(channels)))
    ids = tuple(sorted(COCO_CLASSES))
    return _Classes(tuple(COCO_CLASSES[id] for id in ids), ids, tuple(id - 1 for id in ids), coco=True)


def _card(
    checkpoint: OpenCheckpoint, architecture: Architecture, classes: _Classes, unwritten: Unwritten
) -> ModelCard:
    seen, why = _seen(architecture, classes, unwritten.masks_of)
    trained = architecture.masks and seen is not None
    index = hashlib.sha256(checkpoint.index).hexdigest()
    return ModelCard(
        role="teacher" if architecture.masks else DETECTOR,
        model=_model_values(architecture),
        class_names=classes.names,
        category_ids=classes.ids,
        seen=tuple(trained and name in (seen or ()) for name in classes.names),
        image_size_px=_image_size(checkpoint, unwritten.image_size_px),
        steps=0,
        data_sha256="",
        pretrained_mask_classes=() if trained or seen is None else tuple(sorted(seen)),
        teacher_mask_classes=None if seen is None else (),
        about=f"imported from {checkpoint.name}, a checkpoint of TensorFlow whose index has the SHA-256 "
        f"{index}; {why}",
    )


def _model_values(architecture: Architecture) -> dict[str, object]:
    """Of a detector the keys of its parts alone: a mask head it does not have."""
    values = flatten_model(architecture.recipe)
    kept = ("architecture", "backbone", "backbone_width", "head_channels", "lattice")
    return values if architecture.masks else {key: values[key] for key in kept}


def _seen(
    architecture: Architecture, classes: _Classes, masks_of: tuple[str, ...] | None
) -> tuple[frozenset[str] | None, str]:
    """Classes whose masks the weights saw, None where nobody knows, and why."""
    if masks_of is not None:
        words: dict[tuple[str, ...], tuple[str, ...]] = {("all",): classes.names, ("none",): ()}
        asked = words.get(masks_of, masks_of)
        if unknown := sorted(set(asked) - set(classes.names)):
            raise ConfigError(f"--masks-of {unknown[0]}: expected classes of the checkpoint, all or none")
        return frozenset(asked), "the masks that it saw are named by who imported it"
    if not classes.coco:
        return None, "nobody knows whose masks it saw"
    if architecture.masks:
        return frozenset(classes.names), "trained on masks of all 80 classes of COCO"
    return frozenset(classes.names), (
        "trained on boxes, from weights of ExtremeNet, whose points were taken from masks of all 80 classes "
        "of COCO"
    )


def _image_size(checkpoint: OpenCheckpoint, asked: int | None) -> int:
    found = _SIZE_IN_CONFIG.search(checkpoint.config) or _SIZE_IN_NAME.search(checkpoint.name)
    if asked is None and found is None:
        raise ConfigError("nothing names the size of its images; expected --image-size, such as 1024")
    size_px = int(found[1]) if asked is None and found else asked or 0
    if not 0 < size_px <= _LARGEST_PX or size_px % _DIVISIBILITY:
        raise ConfigError(
            f"images of {size_px} px: expected a multiple of {_DIVISIBILITY}, at most {_LARGEST_PX}; "
            "--image-size sets it"
        )
    return size_px
