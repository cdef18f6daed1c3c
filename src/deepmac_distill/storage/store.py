"""Objects of a bucket: read, listed, put whole and removed, each call repeated while its failure may pass."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as fs

from deepmac_distill.errors import ConfigError, StorageError
from deepmac_distill.files import written_whole
from deepmac_distill.storage.failures import PATIENT, Gone, Retries, tried
from deepmac_distill.storage.location import Location

Result = TypeVar("Result")
_BLOCK = 2**24  # bytes read or sent at a time
CONNECT_S = 10.0  # until a try fails that meets no answer
SILENCE_S = 60.0  # without a byte, until a try fails of a store that has stopped answering


@dataclass(frozen=True, slots=True)
class Object:
    """What a listing gives of an object."""

    size: int  # bytes
    changed_ns: int  # since 1970, by the store's clock


class Store:
    """One bucket, reached through a file system of Arrow."""

    def __init__(self, filesystem: Any, retries: Retries = PATIENT) -> None:
        self._filesystem, self._retries = filesystem, retries

    def info(self, place: Location) -> Object | None:
        """Size and time of an object; None where there is none."""

        def ask() -> Object | None:
            (found,) = self._filesystem.get_file_info([place.path])
            return _object(found) if found.type == fs.FileType.File else None

        return tried(place, "looking it up", ask, self._retries)

    def listed(self, place: Location, below: bool = True) -> dict[str, Object]:
        """Every object below a place by its name from there on; none where there is nothing.

        Args:
            below: those in folders too.

        Raises:
            StorageError: there is no such bucket, or it may not be listed.
        """
        selector = fs.FileSelector(place.path, recursive=below, allow_not_found=True)
        begin = len(place.path) + 1

        def ask() -> dict[str, Object]:
            found = self._filesystem.get_file_info(selector)
            if not found and self._has_no_bucket(place):
                raise OSError("NO_SUCH_BUCKET")
            return {one.path[begin:]: _object(one) for one in found if one.type == fs.FileType.File}

        return tried(place, "listing", ask, self._retries)

    def _has_no_bucket(self, place: Location) -> bool:
        """Arrow lists a bucket that is not there as an empty one."""
        try:
            (found,) = self._filesystem.get_file_info([place.bucket])
        except OSError:  # whoever may list some keys need not be allowed to ask
            return False
        return bool(found.type == fs.FileType.NotFound)

    def read(self, place: Location, start: int = 0, size: int | None = None) -> bytes:
        """The bytes of an object, or `size` of them from `start` on; fewer than that are an error."""

        def ask() -> bytes:
            with self._filesystem.open_input_file(place.path) as file:
                wanted = file.size() - start if size is None else size
                got: bytes = file.read_at(wanted, start)
            if len(got) != wanted:
                raise OSError(f"got {len(got)} of {wanted} bytes")
            return got

        return tried(place, "reading", ask, self._retries)

    def opened(self, place: Location, use: Callable[[Any], Result]) -> Result:
        """What `use` makes of an object as a file that can be searched; tried again as a whole."""

        def ask() -> Result:
            with self._filesystem.open_input_file(place.path) as file:
                return use(file)

        return tried(place, "reading", ask, self._retries)

    def download(self, place: Location, path: Path) -> Object:
        """Write an object to a file, whole or not at all, with the time that the store gives it.

        Raises:
            Gone: there is none.
        """

        def ask() -> Object:
            (info,) = self._filesystem.get_file_info([place.path])
            if info.type != fs.FileType.File:
                raise FileNotFoundError
            found = _object(info)
            with written_whole(path) as aside:
                with self._filesystem.open_input_stream(place.path, compression=None) as source:
                    got = _copied(source, aside)
                if got != found.size:
                    raise OSError(f"got {got} of {found.size} bytes")
                os.utime(aside, ns=(found.changed_ns, found.changed_ns))
            return found

        return tried(place, "reading", ask, self._retries)

    def put(self, place: Location, content: bytes) -> None:
        """Make an object of some bytes: whole or not at all, in place of what is there."""
        self._put(place, pa.py_buffer(content))

    def upload(self, path: Path, place: Location) -> Object:
        """`put` for the bytes of a file, which is mapped: a read that fails half-way would end the object."""
        if path.stat().st_size:
            with pa.memory_map(str(path)) as mapped:
                return self._put(place, mapped.read_buffer())
        return self._put(place, pa.py_buffer(b""))

    def _put(self, place: Location, content: pa.Buffer) -> Object:
        def send() -> Object:
            with self._filesystem.open_output_stream(place.path, compression=None) as stream:
                for start in range(0, content.size, _BLOCK):
                    stream.write(content[start : start + _BLOCK])
            (found,) = self._filesystem.get_file_info([place.path])
            if found.type != fs.FileType.File or found.size != content.size:
                raise OSError(f"the store has {found.size} of {content.size} bytes")
            return _object(found)

        return _undisturbed(lambda: tried(place, "writing", send, self._retries))

    def remove(self, place: Location) -> None:
        """Remove an object; none at all is no error."""
        with suppress(Gone):
            tried(place, "removing", lambda: self._filesystem.delete_file(place.path), self._retries)

    def remove_below(self, place: Location) -> None:
        """Remove every object below a place."""
        with suppress(Gone):
            tried(place, "removing", lambda: self._filesystem.delete_dir(place.path), self._retries)


def store_of(place: Location) -> Store:
    """The store that holds a place; one for each process, since connections do not survive a fork."""
    return _store(place.scheme, place.bucket, os.getpid())


@lru_cache(maxsize=16)
def _store(scheme: str, bucket: str, process: int) -> Store:
    del process
    try:
        made = _s3(bucket, os.environ) if scheme == "s3" else fs.GcsFileSystem()
    except (OSError, ValueError, AttributeError) as error:  # the last: Arrow was built without it
        reason = " ".join(str(error).split())
        raise StorageError(f"{scheme}://{bucket}: cannot be opened: {reason}; expected others") from error
    return Store(made, PATIENT)


def _s3(bucket: str, environment: Mapping[str, str]) -> Any:
    """Credentials are found by the SDK: variables of the environment, profiles, roles of the machine."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    where: dict[str, Any] = {}
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ConfigError("AWS_ENDPOINT_URL: expected http(s)://HOST:PORT, without a user or a password")
        where = {"scheme": parts.scheme, "endpoint_override": parts.netloc}
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if not (region or endpoint):
        with suppress(OSError):  # then the SDK guesses
            region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        region=region,
        allow_delayed_open=True,  # so that what is small is one request
        connect_timeout=CONNECT_S,
        request_timeout=SILENCE_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),  # `tried` waits longer than it does
        **where,
    )


def _object(found: Any) -> Object:
    """Times are whole seconds: some answers of a store have no parts of them, and some do."""
    return Object(size=int(found.size), changed_ns=int(found.mtime_ns or 0) // 10**9 * 10**9)


def _copied(source: Any, path: Path) -> int:
    """Copy a stream to a file; returns the number of bytes."""
    count = 0
    with path.open("wb") as file:
        while block := source.read(_BLOCK):
            file.write(block)
            count += len(block)
    return count


def _undisturbed(call: Callable[[], Result]) -> Result:
    """The result of a call in a thread of its own, where no signal is heard.

    Arrow makes an object of what has been written when a stream is left, even by an exception: what a signal
    raises in the middle would leave a part of a file under its name. So the caller alone is interrupted, and
    the upload ends whole, or with the process and leaves nothing.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="upload", daemon=True).start()
    return future.result()
