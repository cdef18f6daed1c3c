"""Files from a stranger, broken in any way, are read or refused in one line: no traceback, no crash."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile import KINDS, Kind, at_random, fault_of, mutated

BYTES = st.integers(0, 255)
EDITS = st.lists(st.tuples(st.floats(0, 1), BYTES), min_size=1, max_size=8)
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound file of each kind, in a folder of its own."""
    files = {}
    for kind in KINDS:
        files[kind.name] = tmp_path_factory.mktemp("kind") / kind.name
        kind.write(files[kind.name])
    return files


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_sound_file_is_read(whole: dict[str, Path], kind: Kind) -> None:
    kind.read(whole[kind.name])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@EXAMPLES
@given(edits=EDITS, cut=st.none() | st.floats(0, 1))
def test_a_broken_file_is_refused_in_one_line_or_read(
    whole: dict[str, Path], kind: Kind, edits: list[tuple[float, int]], cut: float | None
) -> None:
    path = whole[kind.name]
    sound = path.read_bytes()
    try:
        path.write_bytes(mutated(sound, edits, cut))
        assert fault_of(kind, path) is None
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_files_that_are_broken_at_their_ends_are_refused_or_read(whole: dict[str, Path], kind: Kind) -> None:
    path, chance = whole[kind.name], random.Random(kind.name)
    sound = path.read_bytes()
    try:
        for _ in range(100):
            path.write_bytes(broken := at_random(chance, sound))
            assert fault_of(kind, path) is None, broken
    finally:
        path.write_bytes(sound)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name.endswith(".json")], ids=lambda kind: kind.name
)
@EXAMPLES
@given(value=JSON, data=st.data())
def test_json_of_any_shape_is_refused_in_one_line_or_read(
    whole: dict[str, Path], kind: Kind, value: object, data: st.DataObject
) -> None:
    import json

    path = whole[kind.name]
    sound = path.read_text()
    document = json.loads(sound)
    key = data.draw(st.sampled_from(sorted(document)))
    try:
        for broken in (value, {**document, key: value}):
            path.write_text(json.dumps(broken))
            assert fault_of(kind, path) is None, broken
    finally:
        path.write_text(sound)
