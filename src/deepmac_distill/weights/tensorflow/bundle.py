"""The tensors of a checkpoint: an index of their places in the data files (TensorFlow's "bundle").

Everything is checked before it is used: places against the sizes of the files, sizes against shapes, bytes
against their CRC-32C. Nothing is allocated by a number that a file alone states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepmac_distill.weights.tensorflow.crc import masked_crc
from deepmac_distill.weights.tensorflow.graph import ObjectGraph
from deepmac_distill.weights.tensorflow.table import read_table
from deepmac_distill.weights.tensorflow.wire import content, fields, number, read_varint

_HEADER = b""
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_FLOAT, _STRING = 1, 7  # of DataType
_MAX_SHARDS = 1000
_MAX_DIMENSIONS = 8
_MAX_GRAPH_BYTES = 2**26  # of the object graph; the authors' largest has less than one in a hundred

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor, as the index describes it."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    crc: int  # masked


@dataclass(frozen=True, slots=True)
class Bundle:
    """The tensors of a checkpoint by key; data is read when it is asked for."""

    entries: Mapping[str, Entry]
    shards: Sequence[BinaryIO]

    def graph(self) -> ObjectGraph:
        """The object graph.

        Raises:
            ValueError: there is none, as in checkpoints of TensorFlow 1, or it is broken.
        """
        entry = self.entries.get(_GRAPH)
        if entry is None:
            raise ValueError(
                "got no object graph, expected a checkpoint of TensorFlow 2 (tf.train.Checkpoint)"
            )
        if entry.dtype != _STRING or entry.shape:
            raise ValueError(f"{_GRAPH}: got type {entry.dtype} of {entry.shape}, expected one string")
        if entry.size > _MAX_GRAPH_BYTES:
            raise ValueError(f"{_GRAPH}: got {entry.size:,} bytes, expected {_MAX_GRAPH_BYTES:,} at most")
        data = _bytes(self.shards, _GRAPH, entry)
        length, at = read_varint(data, 0)
        of_length, text = data[at : at + 4], data[at + 4 :]
        if length != len(text) or masked_crc(length.to_bytes(4, "little"), of_length, text) != entry.crc:
            raise ValueError(f"{_GRAPH}: its checksum differs: the file is damaged")
        return ObjectGraph.parse(text)

    def array(self, key: str) -> Array:
        """A tensor of float32.

        Raises:
            ValueError: there is none of that key, it is of another type, or fails its checksum.
        """
        entry = self.entries.get(key)
        if entry is None:
            raise ValueError(f"{key}: the object graph names it, and the index does not")
        if entry.dtype != _FLOAT:
            raise ValueError(f"{key}: got a tensor of type {entry.dtype}, expected float32 ({_FLOAT})")
        if entry.size != 4 * math.prod(entry.shape):
            raise ValueError(f"{key}: got {entry.size} bytes, expected those of a float32 of {entry.shape}")
        data = _bytes(self.shards, key, entry)
        if masked_crc(data) != entry.crc:
            raise ValueError(f"{key}: its checksum differs: the data file is damaged")
        values: Array = np.frombuffer(data, dtype="<f4").reshape(entry.shape)
        if not np.isfinite(values).all():
            raise ValueError(f"{key}: got values that are not finite")
        return values


def read_index(index: bytes) -> tuple[dict[str, Entry], int]:
    """What a checkpoint holds by key, and how many data files it has, by the bytes of its index.

    Raises:
        ValueError: the bytes are no index, are broken, or hold what no checkpoint of ours has.
    """
    table = read_table(index)
    shards = _shards_of(table)
    entries = {}
    for key, value in table.items():
        if key == _HEADER:
            continue
        name = key.decode("utf-8")
        entry = _entry(name, value)
        if entry.shard >= shards:
            raise ValueError(f"{name}: got data file {entry.shard}, expected one of {shards}")
        entries[name] = entry
    return entries, shards


def _shards_of(table: Mapping[bytes, bytes]) -> int:
    """From the header, whose order of bytes must be ours."""
    if _HEADER not in table:
        raise ValueError("got an index without a header, expected a checkpoint's")
    header = dict(fields(table[_HEADER]))
    if header.get(2, 0) != 0:
        raise ValueError("got numbers in big-endian order, expected little-endian ones")
    shards = number(header.get(1, 1))
    if not 1 <= shards <= _MAX_SHARDS:
        raise ValueError(f"got {shards} data files, expected 1 to {_MAX_SHARDS}")
    return shards


def _entry(name: str, message: bytes) -> Entry:
    found = dict(fields(message))
    if 7 in found:
        raise ValueError(f"{name}: is stored in slices, expected a whole tensor")
    return Entry(
        dtype=number(found.get(1, 0)),
        shape=_shape(name, content(found.get(2, b""))),
        shard=number(found.get(3, 0)),
        offset=number(found.get(4, 0)),
        size=number(found.get(5, 0)),
        crc=number(found.get(6, 0)),
    )


def _shape(name: str, message: bytes) -> tuple[int, ...]:
    sides = []
    for field, value in fields(message):
        if field == 2:
            sides.append(number(dict(fields(content(value))).get(1, 0)))
        elif field == 3 and value:
            raise ValueError(f"{name}: got a shape of unknown rank, expected a tensor's")
    if len(sides) > _MAX_DIMENSIONS or math.prod(sides) >= 2**40:
        raise ValueError(f"{name}: got a shape of {sides[:_MAX_DIMENSIONS]}, expected a weight's")
    return tuple(sides)


def _bytes(shards: Sequence[BinaryIO], name: str, entry: Entry) -> bytes:
    file = shards[entry.shard]
    end = file.seek(0, 2)
    if entry.offset + entry.size > end:
        raise ValueError(
            f"{name}: got a data file of {end:,} bytes, expected {entry.offset + entry.size:,} or more: "
            "the file is cut off, or of another checkpoint"
        )
    file.seek(entry.offset)
    data = file.read(entry.size)
    if len(data) != entry.size:
        raise ValueError(f"{name}: the data file ends early")
    return data
