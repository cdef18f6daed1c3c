"""Where the files of a checkpoint are: in an archive, in a folder, or beside a prefix."""

from __future__ import annotations

import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import BinaryIO

from deepmac_distill.errors import CheckpointError
from deepmac_distill.regular import require_regular
from deepmac_distill.weights.tensorflow.bundle import Bundle, read_index

EXPECTED = "a .tar.gz, a folder, a prefix such as checkpoint/ckpt-0, or a SavedModel"
MAX_INDEX_BYTES = 2**28  # of a checkpoint's index; the authors' largest has 115 kB
MAX_ARCHIVE_BYTES = 2**33  # of what is read of an archive; the authors' have less than a quarter
_MAX_TEXT_BYTES = 2**20
_WANTED = re.compile(r".*\.index|.*\.data-\d{5}-of-\d{5}|checkpoint|pipeline\.config")
_DEPTHS = ("*", "*/*", "*/*/*", "*/*/*/*")  # where in a folder a checkpoint is looked for
_LATEST = re.compile(r'^model_checkpoint_path: "([^"]+)"', re.MULTILINE)

Members = Mapping[str, Callable[[], BinaryIO]]  # path in the archive or folder -> opens it


@dataclass(frozen=True, slots=True)
class OpenCheckpoint:
    """A checkpoint whose files are open."""

    name: str  # of what the user named
    index: bytes
    bundle: Bundle
    config: str  # text of the pipeline.config beside it; empty where there is none


@contextmanager
def opened(path: Path, space: Path) -> Iterator[OpenCheckpoint]:
    """The checkpoint at a path; its files stay open within the block.

    Args:
        path: of an archive, a folder, an index file, a prefix, or a SavedModel.
        space: a folder on a disk that has room for what an archive holds, which stands there without a name.

    Raises:
        CheckpointError: there is no checkpoint, there are several, or a file is broken.
    """
    with ExitStack() as stack:
        try:
            members = _members(path, space, stack)
            prefix = _chosen(members, stack)
            index = _read(stack, members[f"{prefix}.index"], MAX_INDEX_BYTES)
            entries, count = read_index(index)
            names = [f"{prefix}.data-{number:05d}-of-{count:05d}" for number in range(count)]
            if lacking := [name for name in names if name not in members]:
                raise ValueError(f"got no {lacking[0]} beside the index, expected it")
            shards = [stack.enter_context(members[name]()) for name in names]
            yield OpenCheckpoint(path.name, index, Bundle(entries, shards), _config(members, stack))
        except (ValueError, OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from None


def _members(path: Path, space: Path, stack: ExitStack) -> Members:
    if path.is_dir():
        found = sorted(
            file for depth in _DEPTHS for file in path.glob(depth) if _is_wanted(file.name) and file.is_file()
        )
        return {file.relative_to(path).as_posix(): partial(_open, file) for file in found}
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    beside = prefix.with_name(f"{prefix.name}.index")
    if beside.is_file():
        files = [beside, *sorted(beside.parent.glob(f"{_escaped(prefix.name)}.data-*"))]
        files += [
            file
            for folder in (beside.parent, *list(beside.parent.parents)[:2])
            for file in [folder / "pipeline.config"]
            if file.is_file()
        ][:1]
        return {file.name: partial(_open, file) for file in files}
    if not path.is_file():
        raise ValueError(f"no such file or folder; expected {EXPECTED}")
    if not tarfile.is_tarfile(path):
        raise ValueError(f"got a file that is no archive, expected {EXPECTED}")
    return _unpacked(path, space, stack)


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _is_wanted(name: str) -> bool:
    return _WANTED.fullmatch(name) is not None


def _unpacked(path: Path, space: Path, stack: ExitStack) -> Members:
    """What of an archive is of use, in files without a name: nothing is written where a member points."""
    members: dict[str, Callable[[], BinaryIO]] = {}
    total = 0
    require_regular(path)
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise ValueError(f"member {member.name[:80]!r}: leaves the folder, expected a path inside it")
            if not _is_wanted(name.name) or member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise ValueError(f"member {member.name[:80]!r}: is a link or no plain file, expected one")
            total += member.size
            if total > MAX_ARCHIVE_BYTES:
                raise ValueError(f"got more than {MAX_ARCHIVE_BYTES:,} bytes, expected a checkpoint")
            content = archive.extractfile(member)
            if content is not None:
                file: BinaryIO = stack.enter_context(TemporaryFile(dir=space))  # noqa: SIM115 - the stack does
                shutil.copyfileobj(content, file, 2**20)
                members["/".join(part for part in name.parts if part != ".")] = partial(_from_start, file)
    return members


def _open(file: Path) -> BinaryIO:
    require_regular(file)
    return file.open("rb")


def _from_start(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file


def _chosen(members: Members, stack: ExitStack) -> str:
    """The prefix of the checkpoint: the one that a `checkpoint` file names, else the only one.

    A SavedModel counts only where there is no other: it holds the same weights.

    Raises:
        ValueError: there is none, or there are several.
    """
    prefixes = [name.removesuffix(".index") for name in members if name.endswith(".index")]
    saved = [prefix for prefix in prefixes if PurePosixPath(prefix).name == "variables"]
    plain = [prefix for prefix in prefixes if prefix not in saved]
    latest = [
        prefix
        for name in members
        if PurePosixPath(name).name == "checkpoint"
        for text in [_read(stack, members[name], _MAX_TEXT_BYTES).decode("utf-8", errors="replace")]
        for match in [_LATEST.search(text)]
        if match
        for prefix in [(PurePosixPath(name).parent / PurePosixPath(match[1]).name).as_posix()]
        if prefix in plain
    ]
    for found in (latest, plain, saved):
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(
                f"got {len(found)} checkpoints ({', '.join(sorted(found)[:3])}); name one prefix"
            )
    raise ValueError(f"got no checkpoint of TensorFlow 2 (*.index), expected {EXPECTED}")


def _config(members: Members, stack: ExitStack) -> str:
    found = [name for name in members if PurePosixPath(name).name == "pipeline.config"]
    if len(found) != 1:
        return ""
    return _read(stack, members[found[0]], _MAX_TEXT_BYTES).decode("utf-8", errors="replace")


def _read(stack: ExitStack, opens: Callable[[], BinaryIO], limit: int) -> bytes:
    data = stack.enter_context(opens()).read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"got a file of more than {limit:,} bytes, expected fewer")
    return data
