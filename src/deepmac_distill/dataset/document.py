"""An annotation file taken apart: its annotations stay text that is decoded when asked for."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from deepmac_distill.dataset import foreign
from deepmac_distill.dataset.problems import Problem, document_problems, shown
from deepmac_distill.dataset.repeated_keys import key_twice, key_twice_in_skeleton, keys_twice
from deepmac_distill.errors import DataError
from deepmac_distill.regular import opened

Entry = dict[str, Any]
TABLES = ("images", "annotations", "categories")
KEY_TWICE = "key {} stands twice; expected it once, since parsers keep either"
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

    def twice(self, positions: Sequence[int], entries: Sequence[Entry]) -> list[tuple[int, str]]:
        """Which of some entries, as `at` gave them, hold a key twice; and the key."""
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
        return _parse_fast(_mapped(path), path)
    except (OSError, ValueError, RecursionError):
        return parse_plainly(path)  # which knows what is wrong, and takes NaN


def parse_plainly(path: Path) -> Document:
    """`parse_document` with the parser of Python: slower, all in memory, and more liberal.

    Raises:
        BrokenDocument: as `parse_document`.
    """
    twice: dict[int, str] = {}
    raw = parse_json(path, twice)
    problems = list(document_problems(raw, path))
    if not problems:
        tables = [(raw, "")] + [(e, f"{key}[{i}]") for key in TABLES[::2] for i, e in enumerate(raw[key])]
        problems = [_twice(path, where, twice[id(entry)]) for entry, where in tables if id(entry) in twice]
    if problems:
        raise BrokenDocument(problems)
    other = {key: value for key, value in raw.items() if key not in TABLES}
    return Document(raw["images"], raw["categories"], _Decoded(raw["annotations"], twice), other)


def parse_json(path: Path, twice: dict[int, str] | None = None) -> Any:
    """The JSON value in a file.

    Args:
        twice: is given the key that an object holds twice, by the object's `id`.

    Raises:
        BrokenDocument: the file cannot be read or is not JSON.
    """

    def take(pairs: list[tuple[str, Any]]) -> Entry:
        entry = dict(pairs)
        if twice is not None and len(entry) < len(pairs):
            keys = [key for key, _ in pairs]
            twice[id(entry)] = next(key for key in keys if keys.count(key) > 1)
        return entry

    try:
        with opened(path) as file:
            return json.loads(file.read(), object_pairs_hook=take)
    except OSError as error:
        message = f"cannot be read: {error.strerror}; expected a COCO JSON file"
    except (ValueError, RecursionError) as error:
        kind = foreign.of_file(path)
        message = f"not JSON: {_why_not(error)}; expected a COCO JSON file{foreign.advice(kind, path)}"
    raise BrokenDocument([Problem("error", str(path), message)])


def _why_not(error: Exception) -> str:
    """In words without Python's advice to raise its own limits."""
    if isinstance(error, RecursionError):
        return "lists in lists in lists, deeper than any parser goes"
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return str(error)
    return "a whole number of thousands of digits"


def _mapped(path: Path) -> memoryview:
    with opened(path) as file:
        text = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return text[len(_BOM) :] if text[: len(_BOM)] == _BOM else text


def _parse_fast(text: memoryview, path: Path) -> Document:
    parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    if not all(key in parts for key in TABLES):
        raise ValueError("a table is missing")
    problems = []
    if key := key_twice_in_skeleton(text, parts):
        problems.append(_twice(path, "", key))
    tables = {name: bytes(parts.pop(name)) for name in TABLES[::2]}
    images, categories = (msgspec.json.decode(table, type=list[Entry]) for table in tables.values())
    if not categories:
        raise ValueError("no categories")
    annotations = _Mapped(parts.pop("annotations"))
    for (name, table), entries in zip(tables.items(), (images, categories), strict=True):
        problems += [_twice(path, f"{name}[{at}]", key) for at, key in keys_twice(table, entries)]
    if problems or foreign.of_annotations(annotations.at(range(min(len(annotations), 1)))):
        raise ValueError("the plain parser has words for it")
    return Document(images, categories, annotations, {k: msgspec.json.decode(v) for k, v in parts.items()})


def _twice(path: Path, where: str, key: str) -> Problem:
    place = f"{path}: {where}" if where else str(path)
    return Problem("error", place, KEY_TWICE.format(shown(key)))


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

    def twice(self, positions: Sequence[int], entries: Sequence[Entry]) -> list[tuple[int, str]]:
        pairs = enumerate(zip(positions, entries, strict=True))
        found = ((row, key_twice(bytes(self._entries[at]), entry)) for row, (at, entry) in pairs)
        return [(row, key) for row, key in found if key is not None]


class _Decoded:
    """Annotations that are dictionaries already."""

    def __init__(self, entries: list[Entry], twice: dict[int, str]) -> None:
        self._entries, self._twice = entries, twice

    def __len__(self) -> int:
        return len(self._entries)

    def heads(self) -> Sequence[Head]:
        return [Head(e.get("id"), e.get("image_id"), e.get("category_id")) for e in self._entries]

    def at(self, positions: Sequence[int]) -> list[Entry]:
        return [self._entries[position] for position in positions]

    def twice(self, positions: Sequence[int], entries: Sequence[Entry]) -> list[tuple[int, str]]:
        del entries  # they may be copies
        found = []
        for row, position in enumerate(positions):
            entry = self._entries[position]
            inner = (self._twice.get(id(value)) for value in (entry, *entry.values()))
            found += [(row, key) for key in inner if key is not None][:1]
        return found
