"""What a URI names: an object in a bucket, or with `file:` a local path."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from deepmac_distill.errors import ConfigError

BUCKETS = ("s3", "gs")
_FILE = "file:"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*")
_EXPECTED = "expected s3://BUCKET/KEY, gs://BUCKET/KEY, file:///PATH or a path"


@dataclass(frozen=True, slots=True)
class Location:
    """An object in a bucket, or what begins the keys of several."""

    scheme: str  # of BUCKETS
    bucket: str
    key: str = ""  # without slashes at its ends; empty: the whole bucket

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}{'/' if self.key else ''}{self.key}"

    def __truediv__(self, name: str) -> Location:
        return replace(self, key=f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> Location:
        """The same without the last part of the key."""
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def path(self) -> str:
        """As Arrow's file systems call it."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket


def place_of(named: str | Path) -> Path | Location:
    """What a path or a URI names. A URI that went through `Path` has one slash left of two, and counts too.

    Raises:
        ConfigError: a URI of another kind, one without a bucket, or one with a password or a query in it, of
            which nothing is repeated.

    >>> place_of("s3://bucket/coco/a.json"), place_of(Path("s3://bucket/coco") / "a.json")
    (Location(scheme='s3', bucket='bucket', key='coco/a.json'), Location(scheme='s3', bucket='bucket', \
key='coco/a.json'))
    >>> place_of("file:///data/a%20b.json"), place_of("data/a.json")
    (PosixPath('/data/a b.json'), PosixPath('data/a.json'))
    """
    text = str(named)
    if not is_uri(text):
        return Path(named)
    scheme, _, rest = text.partition(":")
    if scheme == "file":
        return _local(text)
    if scheme not in BUCKETS:
        raise ConfigError(f"{without_secrets(text)}: {scheme} is not supported; {_EXPECTED}")
    bucket, _, key = rest.lstrip("/").partition("/")
    if "@" in bucket or (":" in bucket and bucket.partition(":")[2].isdecimal() is False):
        raise ConfigError(
            f"{scheme}://...@...: holds a user or a password; expected credentials in the environment, "
            "and none in a URI"
        )
    if "?" in text or "#" in text:
        raise ConfigError(
            f"{without_secrets(text)}: holds a query; expected a bucket and a key alone, and the rest in the "
            "environment"
        )
    if rest.startswith("///") or not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"{without_secrets(text)}: names no bucket; {_EXPECTED}")
    parts = [part for part in key.split("/") if part]
    if ".." in parts or "." in parts:
        raise ConfigError(f"{text}: has a . or .. in its key; expected the key itself")
    return Location(scheme, bucket, "/".join(parts))


def is_uri(text: str) -> bool:
    """Whether a text begins with the scheme of a URI; one letter is a disk of Windows.

    >>> [is_uri(text) for text in ("s3://b/k", "file:/a", "ftp://a", "C:/a", "data/a.json", "a.py:Mine")]
    [True, True, True, False, False, False]
    """
    found = _SCHEME.match(text)
    return bool(found and len(found[1]) > 1)


def is_remote(named: str | Path) -> bool:
    """Whether a path or URI names something in a bucket.

    Raises:
        ConfigError: as `place_of`.
    """
    return isinstance(place_of(named), Location)


def joined(root: str, named: str) -> Path:
    """`root`/`named`, either of which may be a URI; one that `named` is stands alone, as absolute paths do.

    >>> str(joined("s3://bucket/coco", "a.json")), str(joined("/data", "s3://bucket/a.json"))
    ('s3:/bucket/coco/a.json', 's3:/bucket/a.json')
    """
    path = Path(named) if is_uri(named) else Path(root) / named
    if str(path).startswith(_FILE):
        return _local(str(path))
    place_of(path)
    return path


def shown(path: Path | str) -> str:
    """A path as people write it: a URI with both of its slashes.

    >>> shown(Path("s3://bucket/coco")), shown(Path("data"))
    ('s3://bucket/coco', 'data')
    """
    place = place_of(path)
    return str(place)


def require_written_out(word: str) -> None:
    """Refuse a word of a command line that is a URI with a slash too few: a typo, not a folder `s3:`.

    Raises:
        ConfigError: names it.
    """
    found = re.match(r"(?:[^:=]*=)*((?:s3|gs):(?!//).*)", word)
    if found and (found[1].startswith(("s3:/", "gs:/")) or not Path(found[1]).exists()):
        raise ConfigError(f"{without_secrets(found[1])}: is no URI; {_EXPECTED}")


def without_secrets(text: str) -> str:
    """A URI without what may be a user, a password or a signature.

    >>> without_secrets("s3://me:secret@bucket/key?signature=1")
    's3://...@bucket/key?...'
    """
    text = re.sub(r"(:/+)[^/\s]*@", r"\1...@", text)
    return re.sub(r"[?#].*", "?...", text, flags=re.DOTALL)


def _local(uri: str) -> Path:
    rest = uri.removeprefix(_FILE)
    if rest.startswith("//") and not rest.startswith("///"):
        host, _, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise ConfigError(f"{uri}: is on the machine {host!r}; expected file:///PATH of this one")
        rest = f"/{path}"
    return Path("/" + unquote(rest).lstrip("/"))
