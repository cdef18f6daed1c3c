"""An annotation file taken apart: its annotations stay text that is decoded when asked for."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from deepmac_distill.dataset.problems import Problem, document_problems
from deepmac_distill.errors import DataError

Entry = dict[str, Any]
TABLES = ("images", "annotations", "categories")
_BOM = b"\xef\xbb\xbf"


class BrokenDocument(DataError):
    """A file that is no COCO document; `problems` are all the reasons."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(str(problems[0]))
        self.problems = tuple(problems)


class Head(msgspec.Struct):
    """What orders the annotations; of any type, because nothing is checked yet."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None


class Entries(Protocol):
    """The annotations of a document, in file order."""

    def __len__(self) -> int: ...

    def heads(self) -> Sequence[Head]:
        """Ids and references of all."""
        ...

    def at(self, positions: Sequence[int]) -> list[Entry]:
        """Some, decoded."""
        ...


@dataclass(frozen=True, slots=True)
class Document:
    """A COCO document whose three tables are lists of objects; nothing else is checked yet."""

    images: list[Entry]
    categories: list[Entry]
    annotations: Entries
    other: Entry  # every other key of the file


def parse_document(path: Path) -> Document:
    """Map a JSON file into memory and decode all but its annotations, which wait as text.

    Raises:
        BrokenDocument: the file cannot be read, is no JSON, or is no COCO document.
    """
    try:
        return _parse_fast(_mapped(path))
    except (OSError, ValueError, RecursionError):
        return parse_plainly(path)  # which knows what is wrong, and takes NaN


def parse_plainly(path: Path) -> Document:
    """`parse_document` with the parser of Python: slower, all in memory, and more liberal.

    Raises:
        BrokenDocument: as `parse_document`.
    """
    raw = parse_json(path)
    if problems := list(document_problems(raw, path)):
        raise BrokenDocument(problems)
    other = {key: value for key, value in raw.items() if key not in TABLES}
    return Document(raw["images"], raw["categories"], _Decoded(raw["annotations"]), other)


def parse_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        BrokenDocument: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        message = f"cannot be read: {error.strerror}; expected a COCO JSON file"
    except (ValueError, RecursionError) as error:
        message = f"not JSON: {error}; expected a COCO JSON file"
    raise BrokenDocument([Problem("error", str(path), message)])


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        text = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return text[len(_BOM) :] if text[: len(_BOM)] == _BOM else text


def _parse_fast(text: memoryview) -> Document:
    parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    if not all(key in parts for key in TABLES):
        raise ValueError("a table is missing")
    images = msgspec.json.decode(parts.pop("images"), type=list[Entry])
    categories = msgspec.json.decode(parts.pop("categories"), type=list[Entry])
    if not categories:
        raise ValueError("no categories")
    annotations = _Mapped(parts.pop("annotations"))
    return Document(images, categories, annotations, {k: msgspec.json.decode(v) for k, v in parts.items()})


class _Mapped:
    """Annotations as text in the mapped file."""

    def __init__(self, text: msgspec.Raw) -> None:
        self._heads = msgspec.json.decode(text, type=list[Head])  # fails where an entry is no object
        self._entries = msgspec.json.decode(text, type=list[msgspec.Raw])
        self._decode = msgspec.json.Decoder(Entry).decode

    def __len__(self) -> int:
        return len(self._entries)

    def heads(self) -> Sequence[Head]:
        return self._heads

    def at(self, positions: Sequence[int]) -> list[Entry]:
        return [self._decode(self._entries[position]) for position in positions]


class _Decoded:
    """Annotations that are dictionaries already."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def heads(self) -> Sequence[Head]:
        return [Head(e.get("id"), e.get("image_id"), e.get("category_id")) for e in self._entries]

    def at(self, positions: Sequence[int]) -> list[Entry]:
        return [self._entries[position] for position in positions]
