"""Figures of a training for trackers: TensorBoard's files, read here by their public format."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest
import torch

from deepmac_distill.training.event_file import EventFile
from deepmac_distill.training.sinks import Pace, peak_bytes


def records(path: Path) -> Iterator[bytes]:
    """TFRecords, their checksums looked at."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        content = data[at + 12 : at + 12 + length]
        for some, crc in ((data[at : at + 8], at + 8), (content, at + 12 + length)):
            plain = google_crc32c.value(some)
            masked = (((plain >> 15) | (plain << 17)) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack_from("<I", data, crc) == (masked,)
        yield content
        at += 16 + length


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers of fields and their values, by the wire format of protocol buffers."""
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(message):
        key = varint()
        match key & 7:
            case 0:
                yield key >> 3, varint()
            case 2:
                length = varint()
                yield key >> 3, message[at : at + length]
                at += length
            case kind:
                size = {1: 8, 5: 4}[kind]
                yield key >> 3, message[at : at + size]
                at += size


def test_an_event_file_holds_the_figures_of_each_step_and_drops_those_after_a_resume(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "board", first_step=300)
    file.write(300, loss=1.5, lr=0.25)
    file.write(70_000, loss=-2.0)
    file.close()
    (path,) = (tmp_path / "board").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    version, start, *written = [dict(fields(record)) for record in records(path)]
    assert version[3] == b"brain.Event:2" and (start[2], start[7]) == (300, b"\x08\x01")
    found = []
    for event in written:
        values = [dict(fields(value)) for _, value in fields(event[5])]
        found.append((event[2], {v[1].decode(): struct.unpack("<f", v[2])[0] for v in values}))
    assert found == [(300, {"loss": 1.5, "lr": 0.25}), (70_000, {"loss": -2.0})]


def test_the_pace_is_that_since_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 6.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    pace = Pace(images=8, first_step=30, device=torch.device("cpu"))
    first, second = pace.figures(31), pace.figures(32)
    assert (first["seconds"], first["images_per_second"]) == (4.0, 4.0)
    assert (second["seconds"], second["images_per_second"]) == (6.0, 4.0)
    assert first["peak_memory_bytes"] == pytest.approx(peak_bytes(torch.device("cpu")), rel=0.5)
