"""The checksum of TensorFlow's files: CRC-32C, turned and shifted so that a checksum of checksums is one."""

from __future__ import annotations

import google_crc32c

_SHIFT = 0xA282EAD8  # of LevelDB, whose format the files follow


def masked_crc(*parts: bytes) -> int:
    """Of some bytes, one after the other, as it stands in a file."""
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return (((crc >> 15) | (crc << 17)) + _SHIFT) & 0xFFFFFFFF
