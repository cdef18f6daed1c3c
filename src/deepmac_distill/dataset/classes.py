"""Which classes a file has, and of which of them the masks may be seen."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from deepmac_distill.dataset.problems import category_problems
from deepmac_distill.errors import DataError
from deepmac_distill.files import read_text

SeenSpec = str | Sequence[str]
_COMPARED = 100  # characters of a name: comparing takes the square of it
LITERAL = "name:"  # before a name that a preset, a file or a fold has too

# The 20 classes of PASCAL VOC by their COCO names: the paper's split (section 4).
VOC_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "boat", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "bottle", "chair", "couch", "potted plant", "dining table", "tv"),
)


@dataclass(frozen=True)
class Classes:
    """The K classes of a file in the order of their category ids; a class index is a position here.

    >>> classes = Classes.from_categories([{"id": 7, "name": "fox"}, {"id": 3, "name": "owl"}], "fox")
    >>> classes.names, classes.category_ids, classes.unseen_names
    (('owl', 'fox'), (3, 7), ('owl',))
    """

    names: tuple[str, ...]  # K
    category_ids: tuple[int, ...]  # K, ascending
    seen: tuple[bool, ...]  # K, True where masks may be used

    @classmethod
    def from_categories(
        cls, categories: list[dict[str, Any]], seen: SeenSpec, where: str = "categories"
    ) -> Classes:
        """The classes of COCO's `categories`, matched by name with `seen` (see `seen_names_of`).

        Raises:
            DataError: an id or a name is missing or used twice, or `seen` does not fit the names.
        """
        for problem in category_problems(categories, where):
            raise DataError(str(problem))
        ordered = sorted(categories, key=lambda category: category["id"])
        names = tuple(category["name"] for category in ordered)
        chosen = seen_names_of(seen, names, where)
        ids = tuple(category["id"] for category in ordered)
        return cls(names, ids, tuple(name in chosen for name in names))

    def __len__(self) -> int:
        return len(self.names)

    def hiding(self, names: Collection[str], where: str = "categories") -> Classes:
        """The same classes, those named here unseen.

        Raises:
            DataError: one of the names is no seen class, or no seen class is left.
        """
        for name in sorted(set(names).difference(self.seen_names)):
            raise DataError(
                f'{where}: class to hide "{name}": no seen class; {_expected(name, self.seen_names)}'
            )
        seen = tuple(shown and name not in names for name, shown in zip(self.names, self.seen, strict=True))
        if names and not any(seen):
            raise DataError(f"{where}: all seen classes are to be hidden; expected at least one to be left")
        return replace(self, seen=seen)

    @property
    def seen_names(self) -> tuple[str, ...]:
        """Names of the classes whose masks may be used."""
        return tuple(name for name, seen in zip(self.names, self.seen, strict=True) if seen)

    @property
    def unseen_names(self) -> tuple[str, ...]:
        """Names of the classes whose masks are hidden."""
        return tuple(name for name, seen in zip(self.names, self.seen, strict=True) if not seen)


def seen_names_of(seen: SeenSpec, names: Sequence[str], where: str = "categories") -> frozenset[str]:
    """The names that `seen` picks out of the file's `names`.

    `seen` is a preset (`voc`, `non-voc`, `all`), names between commas, a list of names, or a text file
    (ending in .txt) with a name on each line. A preset takes what the file has; a name must exist.
    ``name:voc`` is the class of that name.

    Raises:
        DataError: nothing is picked, a name is not in the file, or the text file cannot be read.

    >>> sorted(seen_names_of("non-voc", ["cat", "zebra"])), sorted(seen_names_of("cat, tv", ["cat", "tv"]))
    (['zebra'], ['cat', 'tv'])
    """
    if not isinstance(seen, str) and len(seen) == 1:
        (seen,) = seen  # a list of one may hold a preset or a file too
    match seen:
        case "all":
            chosen = frozenset(names)
        case "voc":
            chosen = frozenset(names) & frozenset(VOC_NAMES)
        case "non-voc":
            chosen = frozenset(names) - frozenset(VOC_NAMES)
        case _:
            chosen = frozenset(rejoined(_listed(seen), names))
    for name in sorted(chosen.difference(names)):
        raise DataError(f'{where}: seen class "{name}": no such class; {_expected(name, names)}')
    if not chosen:
        raise DataError(f"{where}: seen classes {seen!r}: none is in the file; expected at least one")
    return chosen


def plain_name(name: str) -> str:
    """The form in which names are compared: no blanks around them, accented letters as one character (NFC).

    >>> plain_name(" cafe\\u0301 ")
    'café'
    """
    return unicodedata.normalize("NFC", name.strip())


def rejoined(parts: Sequence[str], names: Collection[str]) -> list[str]:
    """`parts`, where several that are none of `names` alone, but one with commas between, are that one.

    What ``name:`` is before is a name, whatever else it may be.

    >>> rejoined(["cat", "cap", "red"], ["cat", "cap, red"])
    ['cat', 'cap, red']
    >>> rejoined(["name:all"], ["all"])
    ['all']
    """
    parts = [part if part in names else part.removeprefix(LITERAL) for part in parts]
    with_commas = {tuple(part.strip() for part in name.split(",")): name for name in names if "," in name}
    found, at = [], 0
    while at < len(parts):
        ends = range(len(parts), at + 1, -1) if parts[at] not in names else ()
        end = next((end for end in ends if tuple(parts[at:end]) in with_commas), at + 1)
        found.append(with_commas.get(tuple(parts[at:end]), parts[at]))
        at = end
    return found


def _expected(name: str, names: Sequence[str]) -> str:
    return f"expected one such as {', '.join(nearest(name, names, 3))}"


def nearest(name: str, names: Collection[str], most: int = 1) -> list[str]:
    """Names that may be meant by one that is none of them, else the first three; cut where they are long."""
    cut = dict.fromkeys(one[:_COMPARED] for one in names)
    return get_close_matches(name[:_COMPARED], cut, n=most) or list(cut)[:3]


def _listed(seen: SeenSpec) -> list[str]:
    if isinstance(seen, str) and seen.endswith(".txt") and not seen.startswith(LITERAL):
        try:
            seen = read_text(Path(seen)).splitlines()
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            raise DataError(f"{seen}: list of seen classes: {reason}; expected a text file") from error
        except UnicodeDecodeError as error:
            reason = f"no text in UTF-8 or UTF-16: {error.reason} at byte {error.start}"
            raise DataError(f"{seen}: list of seen classes: {reason}; expected names in UTF-8") from error
    elif isinstance(seen, str):
        seen = seen.split(",")
    return [plain for name in seen if (plain := plain_name(name))]
