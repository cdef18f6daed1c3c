"""The index file of a checkpoint: a sorted table of keys and values, in the format of LevelDB.

It is read whole. Blocks are stored as they are, each with a checksum; the writers of checkpoints never
compress them.
"""

from __future__ import annotations

from collections.abc import Iterator

from deepmac_distill.weights.tensorflow.crc import masked_crc
from deepmac_distill.weights.tensorflow.wire import read_varint

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48  # bytes: two places of blocks, filled up with zeros, and the magic number
_TRAILER = 5  # bytes after a block: how it is compressed, and its checksum


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All keys and values of a table.

    Raises:
        ValueError: the bytes are no table, end too early, or fail a checksum.
    """
    if len(data) < _FOOTER or data[-8:] != _MAGIC:
        raise ValueError("got no index of a TensorFlow 2 checkpoint, expected one (ckpt-0.index)")
    footer = data[-_FOOTER:]
    _, after = _place(footer, 0)  # of statistics, which no writer fills
    (start, size), _ = _place(footer, after)
    found: dict[bytes, bytes] = {}
    for _, value in _entries(_block(data, start, size)):
        (start, size), _ = _place(value, 0)
        for key, content in _entries(_block(data, start, size)):
            if key in found:
                raise ValueError(f"key {key[:80]!r}: got it twice, expected each once")
            found[key] = content
    return found


def _place(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Start and size of a block, and the position after them."""
    start, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (start, size), at


def _block(data: bytes, start: int, size: int) -> bytes:
    end = start + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise ValueError(f"block at byte {start}: got a size of {size}, expected one inside the file")
    if data[end]:
        raise ValueError(f"block at byte {start}: is compressed ({data[end]}), expected plain bytes")
    stored = int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    if masked_crc(data[start : end + 1]) != stored:
        raise ValueError(f"block at byte {start}: its checksum differs: the file is damaged")
    return data[start:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key leaves out the bytes that it shares with the one before."""
    restarts = int.from_bytes(block[-4:], "little")
    end, at, key = len(block) - 4 * (restarts + 1), 0, b""
    if len(block) < 4 or end < 0:
        raise ValueError(f"a block of {len(block)} bytes: got {restarts} restarts, expected fewer")
    while at < end:
        shared, at = read_varint(block, at)
        fresh, at = read_varint(block, at)
        size, at = read_varint(block, at)
        if shared > len(key) or at + fresh + size > end:
            raise ValueError("an entry of the index reaches beyond its block")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + size]
        at += fresh + size
