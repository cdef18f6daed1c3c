"""The values of a weights file's card, which anybody may have written: checked one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from deepmac_distill.errors import CheckpointError
from deepmac_distill.look import Look

LARGEST = 2**31 - 1  # of a number on a card: pixels, steps, ids


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


_NAMES = _is_list_of(_is_text)
FITS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "role": (_is_text, "a word"),
    "model": (_is_table, "a table"),
    "class_names": (_NAMES, "names"),
    "category_ids": (_is_list_of(lambda value: type(value) is int), "whole numbers"),
    "seen": (_is_list_of(lambda value: isinstance(value, bool)), "true or false for each class"),
    "image_size_px": (_is_count, "a whole number"),
    "steps": (_is_count, "a whole number"),
    "data_sha256": (_is_text, "a hash"),
    "pretrained_mask_classes": (_NAMES, "names"),
    "teacher_mask_classes": (lambda value: value is None or _NAMES(value), "names, or null"),
    "about": (_is_text, "text"),
    "look": (_is_table, "a table"),
    "views": (_is_text, "a word"),
    "train": (_is_table, "a table"),
}
_OPTIONAL = {"pretrained_mask_classes", "teacher_mask_classes", "about", "look", "views", "train"}


def read_values(text: str, version: str, path: Path) -> dict[str, Any]:
    """The fields of a `ModelCard` from the JSON text of a card.

    Args:
        version: the `format` that the card has to name.

    Raises:
        CheckpointError: the text is no JSON, or a key is missing, unknown or of another kind.
    """
    try:
        card = json.loads(text)
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise CheckpointError(f"{path}: card: got no JSON object, expected the card of deepmac's weights")
    if (found := card.pop("format", None)) != version:
        raise CheckpointError(f"{path}: format {_short(found)}, expected {version!r}")
    for key, value in card.items():
        if key not in FITS:
            raise CheckpointError(f"{path}: card: {_short(key)}: unknown; written by a later version?")
        fits, expected = FITS[key]
        if not fits(value):
            raise CheckpointError(f"{path}: card: {key}: got {_short(value)}, expected {expected}")
    if missing := [key for key in FITS if key not in card and key not in _OPTIONAL]:
        raise CheckpointError(f"{path}: card: {missing[0]}: missing; expected the card of deepmac's weights")
    names = card["class_names"]
    if not len(set(names)) == len(names) == len(card["category_ids"]) == len(card["seen"]):
        raise CheckpointError(f"{path}: card: class_names: expected each name once, with an id and a `seen`")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in card.items()}
    return values | ({"look": _look(card["look"], path)} if "look" in card else {})


def _look(values: dict[str, Any], path: Path) -> Look:
    kinds = {field.name: type(field.default) for field in fields(Look)}
    for key, value in values.items():
        if key not in kinds:
            raise CheckpointError(f"{path}: look: {_short(key)}: unknown; written by a later version?")
        if type(value) is not kinds[key] and not (kinds[key] is float and type(value) is int):
            raise CheckpointError(f"{path}: look: {key}: got {_short(value)}, expected another kind")
    try:
        return Look(**values)
    except ValueError as error:
        raise CheckpointError(f"{path}: look: {error}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
