"""Keys that a JSON object holds twice: parsers keep the last value, without a word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

Entry = dict[str, Any]


def key_twice_in_skeleton(text: memoryview, parts: dict[str, msgspec.Raw]) -> str | None:
    """The key that the outermost object of a text holds twice.

    The values in `parts`, which lie in the text, are cut out, so that little is left to parse.
    """
    base = _address(text)
    spans = sorted((_address(memoryview(raw)) - base, len(memoryview(raw))) for raw in parts.values())
    rest, at = b"", 0
    for start, length in spans:
        rest += bytes(text[at:start]) + b"0"
        at = start + length
    return _key_twice(rest + bytes(text[at:]))


def key_twice(text: bytes, entry: Entry) -> str | None:
    """The key that an object holds twice, or one of the objects in it, given also as it was parsed.

    An object is looked at closely only where the text has more colons than the keys and strings explain.
    """
    colons = text.count(b":")
    return None if colons == len(entry) or colons == _colons(entry) else _key_twice(text)


def keys_twice(text: bytes, entries: Sequence[Entry]) -> list[tuple[int, str]]:
    """The entries of a table that hold a key twice, by position, and the key."""
    if text.count(b":") == sum(map(_colons, entries)):
        return []
    raw = msgspec.json.decode(text, type=list[msgspec.Raw])
    found = ((position, _key_twice(bytes(one))) for position, one in enumerate(raw))
    return [(position, key) for position, key in found if key is not None]


def _colons(value: Any) -> int:
    """How many colons the JSON of a value holds, if its strings are written plainly."""
    kind = type(value)
    if kind is dict:
        return len(value) + sum(map(_colons, value)) + sum(map(_colons, value.values()))
    if kind is str:
        return int(value.count(":"))
    if kind is list and value and type(value[0]) not in (int, float):
        return sum(map(_colons, value))
    return 0


def _key_twice(text: bytes) -> str | None:
    found: list[str] = []

    def take(pairs: list[tuple[str, Any]]) -> Entry:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            keys = [key for key, _ in pairs]
            found.append(next(key for key in keys if keys.count(key) > 1))
        return entry

    json.loads(text, object_pairs_hook=take)
    return found[0] if found else None


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)
