"""Objects in buckets: what a URI names, what is read and written, and which failures are waited out."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as fs
import pytest

from bucket_server import CUT, Answer, Buckets, bucket_server, error
from deepmac_distill.errors import ConfigError, StorageError
from deepmac_distill.stopping import Stopped, signals_raise
from deepmac_distill.storage import store as store_module
from deepmac_distill.storage.copies import copy_of
from deepmac_distill.storage.failures import Gone, Retries
from deepmac_distill.storage.fetching import fetched, fetched_folder
from deepmac_distill.storage.location import Location, joined, place_of, require_written_out
from deepmac_distill.storage.store import Store, store_of

HERE = Location("s3", "bucket", "data")
QUICK = Retries(tries=4, first_wait_s=0.01)
BUSY: Answer = (503, error("SlowDown", "Reduce your request rate"))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Buckets]:
    with bucket_server("bucket") as buckets:
        buckets.reached_by(monkeypatch)
        monkeypatch.setenv("DEEPMAC_CACHE", str(tmp_path / "cache"))
        store_module._store.cache_clear()
        yield buckets
        store_module._store.cache_clear()


@pytest.fixture
def store(held: Buckets) -> Store:
    return Store(store_of(HERE)._filesystem, QUICK)


def failing(times: int, answer: Answer, method: str = "") -> object:
    """A `refuse` that fails so many requests, of one method or of all."""
    left = [times]

    def refuse(got: str, path: str) -> Answer | None:
        if left[0] and method in ("", got):
            left[0] -= 1
            return answer
        return None

    return refuse


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3:///key", "names no bucket"),
        ("s3://me:hush@bucket/key", "holds a user or a password"),
        ("s3://AKIA:hush@bucket/key?x=hush", "holds a user or a password"),
        ("s3://bucket/key?X-Amz-Signature=hush", "holds a query"),
        ("s3://bucket/../key", "has a . or .."),
        ("ftp://host/key", "is not supported"),
        ("http://169.254.169.254/latest", "is not supported"),
        ("file://other/data", "is on the machine 'other'"),
    ],
)
def test_uris_that_cannot_be_used_are_refused_without_their_secrets(uri: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        place_of(uri)
    assert words in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_uri_stands_alone_and_a_path_is_joined() -> None:
    assert place_of(joined("s3://bucket/coco", "images/a.jpg")) == Location(
        "s3", "bucket", "coco/images/a.jpg"
    )
    assert place_of(joined("/data", "gs://other/a.json")) == Location("gs", "other", "a.json")
    assert joined("data", "a.json") == Path("data/a.json")
    assert joined("s3://bucket/coco", "file:///data/a.json") == Path("/data/a.json")


@pytest.mark.parametrize("word", ["s3:/typo/key", "--out=s3:/typo", "s3:typo", "data.root=gs:/b/k"])
def test_a_slash_too_few_is_a_typo(word: str) -> None:
    with pytest.raises(ConfigError, match="is no URI"):
        require_written_out(word)


@pytest.mark.parametrize("word", ["s3://bucket/key", "runs/s3", "--out=runs/x", "--set=data.root=s3://b/k"])
def test_other_words_are_no_typos(word: str) -> None:
    require_written_out(word)


def test_what_is_put_is_read_listed_and_removed(store: Store, held: Buckets, tmp_path: Path) -> None:
    store.put(HERE / "a.json", b"{}")
    (tmp_path / "large").write_bytes(bytes(range(256)) * 44_000)  # more than one part
    store.upload(tmp_path / "large", HERE / "below/large")
    (tmp_path / "none").write_bytes(b"")
    store.upload(tmp_path / "none", HERE / "none")
    assert {name: one.size for name, one in store.listed(HERE).items()} == {
        "a.json": 2,
        "below/large": 11_264_000,
        "none": 0,
    }
    assert store.read(HERE / "below/large", 250, 12) == bytes(
        [250, 251, 252, 253, 254, 255, 0, 1, 2, 3, 4, 5]
    )
    store.download(HERE / "below/large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()
    store.remove(HERE / "a.json")
    store.remove(HERE / "a.json")
    assert store.info(HERE / "a.json") is None
    store.remove_below(HERE)
    assert held.keys("bucket") == []


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_tried_again(store: Store, held: Buckets, status: int) -> None:
    held.put("bucket", "data/a", b"abc")
    held.refuse = failing(3, (status, error("InternalError")))  # type: ignore[assignment]
    assert store.read(HERE / "a") == b"abc"
    held.refuse = failing(3, BUSY, "PUT")  # type: ignore[assignment]
    store.put(HERE / "b", b"b")
    assert held.read("bucket", "data/b") == b"b"


def test_an_answer_that_breaks_off_is_never_a_file(store: Store, held: Buckets, tmp_path: Path) -> None:
    held.put("bucket", "data/a", b"abcdefgh" * 1000)
    held.refuse = failing(1, (CUT, b""), "GET")  # type: ignore[assignment]
    store.download(HERE / "a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"abcdefgh" * 1000
    held.refuse = failing(99, (CUT, b""), "GET")  # type: ignore[assignment]
    with pytest.raises(StorageError, match="reading failed"):
        store.download(HERE / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_failing_for_good_ends_after_some_tries_in_one_line(store: Store, held: Buckets) -> None:
    held.refuse = lambda method, path: BUSY
    with pytest.raises(StorageError) as ended:
        store.put(HERE / "a", b"a")
    assert str(ended.value) == (
        "s3://bucket/data/a: writing failed: AWS Error SLOW_DOWN during PutObject operation: "
        "Reduce your request rate, tried 4 times; expected a store that answers; the same command goes on "
        "from what is done"
    )
    assert len(held.requests) == 4


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, error("AccessDenied")), "no permission"),
        ((403, error("InvalidAccessKeyId")), "the credentials are refused|no permission"),
        ((403, error("SignatureDoesNotMatch")), "the credentials are refused|no permission"),
        ((301, error("PermanentRedirect")), "the bucket is in another region"),
        ((400, error("AuthorizationHeaderMalformed")), "AWS_DEFAULT_REGION"),
    ],
)
def test_what_stays_is_not_tried_again(store: Store, held: Buckets, answer: Answer, words: str) -> None:
    held.refuse = lambda method, path: answer
    for call in (
        lambda: store.put(HERE / "a", b"a"),
        lambda: store.listed(HERE),
        lambda: store.read(HERE / "a"),
    ):
        held.requests.clear()
        with pytest.raises(StorageError, match=words) as ended:
            call()
        assert "hush" not in str(ended.value)
        assert len(held.requests) == 1


def test_a_signal_in_the_middle_of_an_upload_leaves_no_part_of_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Arrow ends an object with what is there when a stream is left, also by what a signal raises."""
    objects: list[bytes] = []

    class Stream(io.BytesIO):
        def write(self, block: pa.Buffer) -> int:  # type: ignore[override]
            if not self.tell():
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)
            return super().write(block)

        def __exit__(self, *_: object) -> None:
            objects.append(self.getvalue())

    class Slow:
        def open_output_stream(self, path: str, compression: None) -> Stream:
            return Stream()

        def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
            return [fs.FileInfo(paths[0], fs.FileType.File, size=len(objects[-1]))]

    monkeypatch.setattr(store_module, "_BLOCK", 4)
    with pytest.raises(Stopped), signals_raise():
        Store(Slow()).put(HERE, b"0123456789")
    until = time.monotonic() + 5
    while not objects and time.monotonic() < until:
        time.sleep(0.01)
    assert objects == [b"0123456789"]


def test_what_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(Gone, match="s3://bucket/data/a: no such object"):
        store.read(HERE / "a")
    nowhere = Location("s3", "nobucket", "a")
    with pytest.raises(StorageError, match="s3://nobucket/a: no such bucket"):
        store.listed(nowhere)
    with pytest.raises(StorageError, match="s3://nobucket/a: no such bucket"):
        store.put(nowhere, b"a")


def test_a_server_that_is_away_is_waited_for_and_named(
    monkeypatch: pytest.MonkeyPatch, held: Buckets
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    store_module._store.cache_clear()
    waits: list[float] = []
    store = Store(store_of(HERE)._filesystem, Retries(tries=5, sleep=waits.append))
    with pytest.raises(StorageError, match="looking it up failed: AWS Error NETWORK_CONNECTION"):
        store.info(HERE)
    assert len(waits) == 4
    assert all(0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))


def test_copies_are_made_once_and_again_where_the_object_changed(held: Buckets) -> None:
    held.put("bucket", "data/a.json", b"one")
    place = HERE / "a.json"
    path = fetched(Path("s3://bucket/data/a.json"))
    assert path == copy_of(place)
    assert path.read_bytes() == b"one"
    held.requests.clear()
    assert fetched(str(place)) == path
    assert held.requests == []  # a process asks once in a while
    held.objects["bucket"]["data/a.json"] = (b"two", time.time() + 5)
    from deepmac_distill.storage import fetching

    fetching._fetched.cache_clear()
    assert fetched(place.__str__()).read_bytes() == b"two"


def test_a_folder_of_copies_has_what_is_wanted_and_nothing_of_a_strangers_names(held: Buckets) -> None:
    for name in (
        "images.parquet",
        "categories.parquet",
        "annotations.parquet",
        "huge.bin",
        "../../out",
        "x//y",
    ):
        held.put("bucket", f"data/{name}", b"rows")
    folder = fetched("s3://bucket/data")
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "annotations.parquet",
        "categories.parquet",
        "images.parquet",
    ]
    with pytest.raises(Gone, match="nothing of use there"):
        fetched_folder(HERE / "nowhere", lambda name: True)


def test_local_paths_are_what_they_were(tmp_path: Path) -> None:
    assert fetched(tmp_path / "a.json") == tmp_path / "a.json"
    assert fetched(f"file://{tmp_path}/a%20b.json") == tmp_path / "a b.json"
