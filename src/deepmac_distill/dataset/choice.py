"""Which classes show their masks: chosen by how many they have, and hidden by name or by fold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepmac_distill.dataset.classes import (
    LITERAL,
    VOC_NAMES,
    Classes,
    SeenSpec,
    plain_name,
    rejoined,
    seen_names_of,
)
from deepmac_distill.errors import DataError

WITH_MASKS = "with-masks"
MIN_MASKS = 10  # a class with fewer is a stray
LEAST_CLASSES = 4  # that a hold-out needs: of fewer an interval over classes means nothing
LEAST_MASKS = 10  # that it needs in each fold
_FOLD = re.compile(r"fold:(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class SeenChoice:
    """Which classes show their masks, and what the user should know of the choice."""

    seen: SeenSpec
    note: str = ""


def mask_counts(annotations: pa.Table, category_ids: Sequence[int]) -> NDArray[np.int64]:
    """(K,) usable boxes with a mask, of each class."""
    held = pc.or_(pc.is_valid(annotations["polygons"]), pc.is_valid(annotations["rle_counts"]))
    rows = pc.and_(held, pc.equal(annotations["status"], "ok")).to_numpy()
    index = np.searchsorted(category_ids, annotations["category_id"].to_numpy()[rows])
    return np.bincount(index, minlength=len(category_ids))


def is_by_masks(seen: SeenSpec, names: Sequence[str]) -> bool:
    """Whether the seen classes are those that have masks: asked for, or because `voc` picks nothing."""
    preset = seen if isinstance(seen, str) else seen[0] if len(seen) == 1 else ""
    return preset == WITH_MASKS or (preset == "voc" and not set(VOC_NAMES) & set(names))


def fits(seen: SeenSpec, names: Sequence[str]) -> bool:
    """Whether `seen` picks classes among these names, and names no other."""
    try:
        return bool(seen_names_of(seen, names))
    except DataError:
        return False


def choose_by_masks(
    seen: SeenSpec, names: Sequence[str], counts: NDArray[np.int64], least: int, where: str
) -> SeenChoice:
    """The classes with at least `least` masks, and a note that names the strays.

    Of a file without any mask every class is taken, unless masks were asked for: there is nothing to hide.

    Raises:
        DataError: there is no such class.
    """
    if not counts.any() and WITH_MASKS not in seen:
        return SeenChoice("all", f"{where}: no mask is in the file, so none is hidden")
    chosen = [name for name, count in zip(names, counts.tolist(), strict=True) if count >= least]
    if not chosen:
        raise DataError(
            f"{where}: seen classes {seen!r}: none is in the file with masks; expected a class of at least "
            f"{least} (data.min_masks), or the names of the classes whose masks may be used (--seen)"
        )
    strays = [f"{name} ({n})" for name, n in zip(names, counts.tolist(), strict=True) if 0 < n < least]
    reason = "" if WITH_MASKS in seen else "no class of VOC is in the file, so "
    note = f"{where}: {reason}seen are the {len(chosen)} classes with at least {least} masks"
    return SeenChoice(tuple(chosen), note + (f"; strays are {', '.join(strays)}" if strays else ""))


def hidden_names(
    hide: Sequence[str], classes: Classes, counts: NDArray[np.int64], where: str
) -> tuple[str, ...]:
    """The seen classes that names and folds, such as ``fold:0/2``, pick out.

    Args:
        counts: (K,) masks of each class.

    Raises:
        DataError: a fold that does not exist. (Names are looked at by `Classes.hiding`.)
    """
    found: list[str] = []
    for name in rejoined([plain_name(part) for part in hide], classes.names):
        if not name.startswith("fold:") or name in classes.names or f"{LITERAL}{name}" in hide:
            found.append(name)
            continue
        parts = _FOLD.fullmatch(name)
        fold, folds = (int(part) for part in parts.groups()) if parts else (0, 0)
        if not (fold < folds and 2 <= folds <= len(classes.seen_names)):
            raise DataError(
                f"{where}: hide {name!r}: expected fold:I/K with I < K and K from 2 to the number of seen "
                f"classes, {len(classes.seen_names)}"
            )
        found += folds_of(classes, counts, folds)[fold]
    return tuple(dict.fromkeys(found))


def trial_folds(classes: Classes, counts: NDArray[np.int64], folds: int, where: str) -> list[tuple[str, ...]]:
    """`folds_of` the seen classes that have masks, if these are enough to try a teacher on.

    Args:
        counts: (K,) masks that people drew, of each class.

    Raises:
        DataError: names how many classes and masks there are and how many it takes.
    """
    masked = tuple(shown and count > 0 for shown, count in zip(classes.seen, counts.tolist(), strict=True))
    held, least = sum(masked), max(LEAST_CLASSES, folds)
    if held < least:
        raise DataError(f"{where}: hold-out: got {held} seen classes with masks, expected {least} or more")
    found = folds_of(replace(classes, seen=masked), counts, folds)
    of = dict(zip(classes.names, counts.tolist(), strict=True))
    fewest = min(sum(of[name] for name in fold) for fold in found)
    if fewest < LEAST_MASKS:
        raise DataError(
            f"{where}: hold-out: got a fold of {fewest} masks, expected at least {LEAST_MASKS} in each of "
            f"the {folds}"
        )
    return found


def folds_of(classes: Classes, counts: NDArray[np.int64], folds: int) -> list[tuple[str, ...]]:
    """The seen classes in folds that share masks as evenly as they can and classes evenly.

    The class with the most masks goes first, each to the fold with the fewest masks that is not full.

    >>> classes = Classes(("ant", "bee", "cow", "dog"), (1, 2, 3, 4), (True,) * 4)
    >>> folds_of(classes, np.array([10, 3, 2, 1]), 2)
    [('ant', 'dog'), ('bee', 'cow')]
    """
    by_name = dict(zip(classes.names, counts.tolist(), strict=True))
    members: list[list[str]] = [[] for _ in range(folds)]
    masks = [0] * folds
    most = -(-len(classes.seen_names) // folds)
    for name in sorted(classes.seen_names, key=lambda name: (-by_name[name], name)):
        fold = min((f for f in range(folds) if len(members[f]) < most), key=lambda f: (masks[f], f))
        members[fold].append(name)
        masks[fold] += by_name[name]
    return [tuple(names) for names in members]
