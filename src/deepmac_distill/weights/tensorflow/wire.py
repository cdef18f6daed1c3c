"""The wire format of protocol buffers, as far as checkpoints use it (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

Value: TypeAlias = int | bytes  # a number, or what has a length: a string, bytes or a message

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it.

    Raises:
        ValueError: the data ends within it, or it is longer than 64 bits.

    >>> read_varint(bytes([0xAC, 0x02]), 0)
    (300, 2)
    """
    value = 0
    for place, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            if value >= 2**64:
                break
            return value, at + place + 1
    raise ValueError(f"byte {at}: got no whole number, expected one of at most 64 bits")


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of each field, in their order; a field that is repeated comes again.

    Raises:
        ValueError: the message ends within a field, or has a field of a group.

    >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02]) + b"hi"))
    [(1, 150), (2, b'hi')]
    """
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        kind = tag & 7
        value: Value
        if kind == _VARINT:
            value, at = read_varint(message, at)
        elif kind in (_FIXED32, _FIXED64, _BYTES):
            size, at = read_varint(message, at) if kind == _BYTES else (8 if kind == _FIXED64 else 4, at)
            if size > len(message) - at:
                raise ValueError(f"byte {at}: got {len(message) - at} bytes, expected the {size} of a field")
            found = message[at : at + size]
            value, at = found if kind == _BYTES else int.from_bytes(found, "little"), at + size
        else:
            raise ValueError(f"byte {at}: got a field of kind {kind}, expected a number or bytes")
        yield tag >> 3, value


def number(value: Value) -> int:
    """A field that must be a number.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int):
        raise ValueError("got bytes in a field, expected a number")
    return value


def content(value: Value) -> bytes:
    """A field that must be bytes, a string or a message.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, bytes):
        raise ValueError("got a number in a field, expected bytes")
    return value
