"""What a stage was made with, and how that differs from what is asked for now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from deepmac_distill.chain import STAGES, command_line, redo_after
from deepmac_distill.comparing import CONTENT, Comparing
from deepmac_distill.errors import RunError
from deepmac_distill.files import sha256_of_file
from deepmac_distill.regular import UnfitFile, read_small


def read_done(path: Path) -> dict[str, Any]:
    """What a stage that is done keeps of itself: at least its inputs by name, and a hash of every output.

    Raises:
        RunError: the file is not there, is broken, or names an output outside the stage.
    """
    record = _read(path)
    if not (_is_named(record.get("inputs")) and _are_outputs(record.get("outputs"))):
        raise _unreadable(path)
    return _with_known_facts(record)


def read_begun(path: Path) -> dict[str, Any]:
    """What a stage that has begun keeps of itself: at least its inputs by name.

    Raises:
        RunError: the file is not there or is broken.
    """
    record = _read(path)
    record = record if "inputs" in record else {"inputs": record}  # of earlier versions
    if not _is_named(record["inputs"]):
        raise _unreadable(path)
    return _with_known_facts(record)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(read_small(path).decode())
    except (FileNotFoundError, UnfitFile, ValueError, RecursionError):
        raise _unreadable(path) from None
    if not _is_named(record):
        raise _unreadable(path)
    return dict(record)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict)


def _are_outputs(value: Any) -> bool:
    """Whether these are hashes of files below the folder of a stage: a record may be a stranger's."""
    return isinstance(value, dict) and all(
        isinstance(sha256, str) and not Path(name).is_absolute() and ".." not in Path(name).parts
        for name, sha256 in value.items()
    )


def _with_known_facts(record: dict[str, Any]) -> dict[str, Any]:
    """Facts are only reported: those of another shape are as good as none."""
    known = {key: record.get(key) for key in ("about", "made_from")}
    about, made_from = (value if isinstance(value, dict) else {} for value in known.values())
    return record | {
        "about": {name: facts for name, facts in about.items() if _is_named(facts)},
        "made_from": {name: digest for name, digest in made_from.items() if isinstance(digest, str)},
    }


def _unreadable(path: Path) -> RunError:
    return RunError(f"{path}: cannot be read; --force redoes the stage")


def why_made_anew(
    run: Path, stage: str, before: dict[str, Any], now: dict[str, Any], comparing: Comparing
) -> str:
    """Which inputs changed, if a stage is made anew for them; empty where none did.

    Args:
        before, now: records, the latter with the inputs that count.

    Raises:
        RunError: other inputs changed.
    """
    recorded = comparing.compared(before["inputs"])
    unrecorded = {
        name: value
        for name, value in now["inputs"].items()
        if name.endswith(CONTENT) and name not in recorded
    }
    before = {**before, "inputs": recorded | unrecorded}  # nobody knows better
    if not (why := comparing.why_redone(before["inputs"], now["inputs"])):
        refuse_changes(run, stage, before, now)
    return why


def refuse_changes(run: Path, stage: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Name an input that differs: before others one of which the cause is known."""
    old, new = before["inputs"], now["inputs"]
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if not changed:
        return
    facts = [record.get("about", {}) for record in (before, now)]
    causes = {name: _differences(*(about.get(name, {}) for about in facts)) for name in changed}
    name = next(filter(causes.get, changed), changed[0])
    made_with = f"{name} = {old.get(name)!r}, now {new.get(name)!r}"
    if causes[name]:
        made_with = f"other {name}: {causes[name]}"
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    raise RunError(
        f"{run}: {stage} was made with {made_with}{more}; "
        f"expected the same; {_how_redone(run, stage)}, another output directory keeps both"
    )


def _how_redone(run: Path, stage: str) -> str:
    """What redoes a stage, and for what follows from another also what leaves that one as it is."""
    if stage not in STAGES or not STAGES[stage].reads:
        return "--force redoes it"
    own = command_line(STAGES[stage].command, out=run, force=True)
    return f"--force redoes it, `{' && '.join(filter(None, (own, redo_after(run, stage))))}` it alone"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In which facts two inputs differ; empty where none is known of both.

    >>> _differences({"file": "a.json", "annotations": 8}, {"file": "a.json", "annotations": 9})
    'annotations (8, now 9)'
    >>> _differences({"data.seen": ["cat", "dog"]}, {"data.seen": ["cat", "owl"]})
    'data.seen (now with owl, without dog)'
    >>> _differences({"file": "a.json", "annotations": 8}, {"file": "a.json", "annotations": 8})
    'content (same file, annotations)'
    """
    known = [fact for fact in now if fact in before]
    differing = [fact for fact in known if before[fact] != now[fact]]
    if known and not differing:
        return f"content (same {', '.join(known)})"
    return ", ".join(f"{fact} ({_difference(before[fact], now[fact])})" for fact in differing)


def _difference(before: Any, now: Any) -> str:
    if not (isinstance(before, list) and isinstance(now, list)):
        return f"{before}, now {now}"
    lists = {
        "with": [name for name in now if name not in before],
        "without": [name for name in before if name not in now],
    }
    changes = [
        f"{word} {', '.join(map(str, names[:3]))}{' ...' if len(names) > 3 else ''}"
        for word, names in lists.items()
        if names
    ]
    return f"now {', '.join(changes) or 'in another order'}"


def hashes_of(folder: Path, but: Set[str]) -> dict[str, str]:
    """SHA-256 of every file of a folder by its name, but of files and folders that have one of some names."""
    return {
        str(path.relative_to(folder)): sha256_of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not but & {*path.relative_to(folder).parts}
    }


def refuse_edits(folder: Path, outputs: Mapping[str, str]) -> None:
    """Refuse a folder in which an output is not as it was made.

    Raises:
        RunError: names the file.
    """
    for name, sha256 in outputs.items():
        path = folder / name
        if not path.exists() or sha256_of_file(path) != sha256:
            state = "was changed" if path.exists() else "is missing"
            raise RunError(
                f"{path}: {state} since the stage was done; expected it untouched; --force redoes it"
            )


def refuse_edit(path: Path) -> None:
    """Refuse a file of a stage that is done where it is not as it was made; without a record nobody knows.

    Raises:
        RunError: names the file.
    """
    record = path.with_name("done.json")
    if record.exists() and (sha256 := read_done(record)["outputs"].get(path.name)):
        refuse_edits(path.parent, {path.name: sha256})
