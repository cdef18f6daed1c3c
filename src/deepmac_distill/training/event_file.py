"""TensorBoard's event files: scalars by step, in a format that its readers have kept since TensorFlow 1.

A file is TFRecords (length, data, and a masked CRC-32C of each), the data is the message `Event` of
tensorflow/core/util/event.proto. Only what scalars need of it is written, so nothing has to be installed.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

import google_crc32c

_MASK = 0xA282EAD8  # of TFRecord's checksums
_WALL_TIME, _STEP, _VERSION, _SUMMARY, _SESSION = 1, 2, 3, 5, 7  # fields of Event
_START = b"\x08\x01"  # SessionLog: what the file before it has of this step and later ones is dropped


class EventFile:
    """A new event file in a folder, to be closed.

    Args:
        folder: of one training; each start of it adds a file.
        first_step: steps from here on, of earlier files, are not shown any more.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**6}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._event(0, _message(_VERSION, b"brain.Event:2"))
        self._event(first_step, _message(_SESSION, _START))

    def write(self, step: int, **figures: float) -> None:
        """Append one point of each figure and flush it."""
        values = (
            _message(1, name.encode()) + _tag(2, 5) + struct.pack("<f", value)
            for name, value in figures.items()
        )
        self._event(step, _message(_SUMMARY, b"".join(_message(1, value) for value in values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _event(self, step: int, content: bytes) -> None:
        when = _tag(_WALL_TIME, 1) + struct.pack("<d", time.time())
        data = when + _tag(_STEP, 0) + _varint(step) + content
        length = struct.pack("<Q", len(data))
        self._file.write(length + _checksum(length) + data + _checksum(data))
        self._file.flush()


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)


def _message(field: int, content: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(content)) + content


def _tag(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(number: int) -> bytes:
    """A number of 0 or more in groups of seven bits, the lowest first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
