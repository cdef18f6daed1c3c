"""A run in a bucket: what is fetched and uploaded, whoever is killed when, and who may work in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bucket_server import Buckets, bucket_server, error
from deepmac_distill.errors import ConfigError, RunError, StorageError
from deepmac_distill.lease import NAME, Patience, this_process
from deepmac_distill.remote_run.lease import RemoteLease
from deepmac_distill.remote_run.mirror import Mirror
from deepmac_distill.remote_run.session import run_in_bucket
from deepmac_distill.rundir import RunDir
from deepmac_distill.shards import Shard
from deepmac_distill.storage import store as store_module
from deepmac_distill.storage.failures import Retries
from deepmac_distill.storage.location import Location
from deepmac_distill.storage.store import Store, store_of

RUN = Location("s3", "bucket", "runs/a")
FAST = Patience(beat=0.05, stale=0.3)
DENIED = (403, error("AccessDenied"))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Buckets]:
    with bucket_server("bucket") as buckets:
        buckets.reached_by(monkeypatch)
        monkeypatch.setenv("DEEPMAC_SCRATCH", str(tmp_path / "scratch"))
        monkeypatch.setattr(store_module, "PATIENT", Retries(tries=2, first_wait_s=0.01))
        store_module._store.cache_clear()
        yield buckets
        store_module._store.cache_clear()


@pytest.fixture
def store(held: Buckets) -> Store:
    return store_of(RUN)


def write(folder: Path, **files: str) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def stage(folder: Path, name: str, content: str) -> None:
    """A stage that is done, of two files and their record."""
    for file in ("one", "two"):
        write(folder / name, **{file: f"{content} {file}"})
    write(folder / name, done_dot_json=json.dumps({"inputs": {}, "outputs": {}, "is": content}))


def consistent(found: dict[str, str], name: str) -> str:
    """Of what a stage is; its files belong together."""
    if f"{name}/done.json" not in found:
        assert not any(file.startswith(f"{name}/") for file in found)
        return ""
    content = json.loads(found[f"{name}/done.json"])["is"]
    assert (found[f"{name}/one"], found[f"{name}/two"]) == (f"{content} one", f"{content} two")
    return content


def test_what_is_uploaded_is_fetched_elsewhere_and_only_changes_travel(
    store: Store, held: Buckets, tmp_path: Path
) -> None:
    here = Mirror(store, RUN, tmp_path / "one" / "a")
    write(here.folder, environment_dot_json="{}", teacher_dot_part__state_dot_pt="state", _dot_lock="lease")
    stage(here.folder, "teacher", "old")
    here.upload()
    assert held.keys("bucket") == [
        "runs/a/environment.json",
        "runs/a/teacher.part/state.pt",
        *(f"runs/a/teacher/{name}" for name in ("done.json", "one", "two")),
    ]
    there = Mirror(store, RUN, tmp_path / "two" / "a")
    there.fetch()
    assert files(there.folder) == {name: it for name, it in files(here.folder).items() if name != ".lock"}
    held.requests.clear()
    Mirror(store, RUN, tmp_path / "two" / "a").fetch()
    assert here.upload() == there.upload() == 0
    assert len(held.requests) == 1  # a listing
    shutil.rmtree(there.folder / "teacher.part")
    there.upload()
    Mirror(store, RUN, tmp_path / "one" / "a").fetch()
    assert not (here.folder / "teacher.part").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_an_upload_that_ends_anywhere_leaves_one_whole_stage_or_none(
    store: Store, held: Buckets, tmp_path: Path, replaced: bool
) -> None:
    """The k-th request that changes the bucket fails, for every k, as if the machine had been lost there."""
    outcomes = []
    for k in range(30):
        held.objects["bucket"] = {}
        held.refuse = lambda method, path: None
        here = Mirror(store, RUN, tmp_path / str(k) / "here")
        write(here.folder, environment_dot_json="{}")
        if replaced:
            stage(here.folder, "teacher", "old")
        write(here.folder, teacher_dot_part__state_dot_pt="state")
        here.upload()
        shutil.rmtree(here.folder / "teacher.part")
        stage(here.folder, "teacher", "new")
        left = [k]

        def refuse(method: str, path: str, left: list[int] = left) -> tuple[int, bytes] | None:
            if method in ("PUT", "DELETE"):
                left[0] -= 1
                return DENIED if left[0] < 0 else None
            return None

        held.refuse = refuse
        failed = False
        try:
            here.upload()
        except StorageError as ended:
            failed = True
            assert "no permission" in str(ended)
        held.refuse = lambda method, path: None
        there = Mirror(store, RUN, tmp_path / str(k) / "there")
        there.fetch()
        found = files(there.folder)
        outcomes.append(consistent(found, "teacher"))
        assert outcomes[-1] or "teacher.part/state.pt" in found  # else the work would be lost
        again = Mirror(store, RUN, tmp_path / str(k) / "here")  # the next start on the first machine
        again.fetch()
        again.upload()
        last = Mirror(store, RUN, tmp_path / str(k) / "last")
        last.fetch()
        assert consistent(files(last.folder), "teacher") == "new"
        assert "teacher.part/state.pt" not in files(last.folder)
        if not failed:
            break
    assert outcomes[-1] == "new" and not failed
    assert len(outcomes) > 4
    assert set(outcomes) == ({"", "new", "old"} if replaced else {"", "new"})


def test_a_run_that_was_removed_from_the_bucket_begins_anew(
    store: Store, held: Buckets, tmp_path: Path
) -> None:
    here = Mirror(store, RUN, tmp_path / "a")
    write(here.folder, environment_dot_json="{}", config_dot_json="{}")
    stage(here.folder, "teacher", "old")
    here.upload()
    write(here.folder, not_there_yet="x")
    held.objects["bucket"] = {}
    again = Mirror(store, RUN, tmp_path / "a")
    again.fetch()
    assert not again.folder.exists() or files(again.folder) == {}


def test_a_stage_that_was_removed_there_is_not_brought_back(
    store: Store, held: Buckets, tmp_path: Path
) -> None:
    here = Mirror(store, RUN, tmp_path / "a")
    write(here.folder, environment_dot_json="{}")
    stage(here.folder, "teacher", "old")
    here.upload()
    for name in ("one", "two", "done.json"):
        del held.objects["bucket"][f"runs/a/teacher/{name}"]
    again = Mirror(store, RUN, tmp_path / "a")
    again.fetch()
    assert not (again.folder / "teacher").exists()


def test_a_strangers_keys_stay_out_of_other_folders(store: Store, held: Buckets, tmp_path: Path) -> None:
    for name in ("environment.json", "../../out", "x//y", ".lock", "./z"):
        held.put("bucket", f"runs/a/{name}", b"{}")
    here = Mirror(store, RUN, tmp_path / "deep" / "er" / "a")
    here.fetch()
    assert files(here.folder) == {"environment.json": "{}"}
    assert not (tmp_path / "deep" / "out").exists()


def test_a_shard_touches_its_own_units_alone(store: Store, held: Buckets, tmp_path: Path) -> None:
    for unit in range(4):
        held.put("bucket", f"runs/a/pseudolabel.part/units/unit-{unit:06d}.parquet", b"theirs")
    held.put("bucket", "runs/a/pseudolabel.part/inputs.json", b'{"inputs": 1}')
    here = Mirror(store, RUN, tmp_path / "a", Shard(1, 2))
    here.fetch()
    assert sorted(path.name[5:11] for path in here.folder.rglob("unit-*")) == ["000001", "000003"]
    (here.folder / "pseudolabel.part/units/unit-000003.parquet").unlink()
    write(here.folder, pseudolabel_dot_part__units__unit_000005="mine")
    (here.folder / "pseudolabel.part/units/unit_000005").rename(
        here.folder / "pseudolabel.part/units/unit-000005.parquet"
    )
    here.upload()
    assert [key[-14:-8] for key in held.keys("bucket", "runs/a/pseudolabel.part/units/")] == [
        *("000000", "000001", "000002", "000003", "000005"),
    ]
    held.put("bucket", "runs/a/pseudolabel.part/inputs.json", b'{"inputs": 2}')
    (here.folder / "pseudolabel.part/units/unit-000005.parquet").write_text("other")
    with pytest.raises(RunError, match="another shard was begun with other inputs"):
        here.upload()
    assert held.read("bucket", "runs/a/pseudolabel.part/units/unit-000005.parquet") == b"mine"


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("", "", False),
        ("", "pseudolabel 0/2", False),
        ("pseudolabel 0/2", "", False),
        ("pseudolabel 0/2", "pseudolabel 0/2", False),
        ("pseudolabel 0/2", "pseudolabel 1/2", True),
    ],
)
def test_who_may_work_beside_whom(
    store: Store, held: Buckets, first: str, second: str, together: bool
) -> None:
    one = RemoteLease(store, RUN, first, patience=FAST)
    try:
        if together:
            RemoteLease(store, RUN, second, patience=FAST).end()
        else:
            with pytest.raises(RunError, match=r"process \d+ on .*; expected one at a time"):
                RemoteLease(store, RUN, second, patience=FAST)
        assert one.held()
    finally:
        one.end()
    assert held.keys("bucket") == []


def test_a_holder_elsewhere_that_counts_lives_and_one_that_does_not_is_dead(
    store: Store, held: Buckets
) -> None:
    elsewhere = replace(this_process(), machine="another", host="node7")
    notes: list[str] = []
    beats = iter(range(1, 100))

    def counting(seconds: float) -> None:
        held.put("bucket", f"runs/a/{NAME}", replace(elsewhere, beat=next(beats)).line)

    held.put("bucket", f"runs/a/{NAME}", elsewhere.line)
    with pytest.raises(RunError, match="on node7 works in this run"):
        RemoteLease(store, RUN, note=notes.append, patience=replace(FAST, sleep=counting))
    lease = RemoteLease(store, RUN, note=notes.append, patience=FAST)
    assert "watching for up to 0.3 s" in notes[-1]
    held.put("bucket", f"runs/a/{NAME}", elsewhere.line)  # somebody takes it over
    assert not lease.held()
    lease.end()
    assert held.keys("bucket") == [f"runs/a/{NAME}"]  # theirs stays


def test_a_lease_that_cannot_be_read_is_not_lost(store: Store, held: Buckets) -> None:
    lease = RemoteLease(store, RUN, patience=replace(FAST, beat=60, sleep=lambda seconds: None))
    held.refuse = lambda method, path: (503, error("SlowDown"))
    assert lease.held()
    held.refuse = lambda method, path: None
    held.put("bucket", f"runs/a/{NAME}", b"")  # as of a write that is on its way
    assert lease.held()
    lease.end()
    other = replace(this_process(), token="other")
    held.put("bucket", f"runs/a/{NAME}", other.line)
    assert not lease.held()


def test_who_lost_a_run_uploads_nothing(store: Store, held: Buckets) -> None:
    uncounted = Patience(beat=60, sleep=lambda seconds: None)  # a count on its way would win by chance
    with (
        pytest.raises(RunError, match="took this run over"),
        run_in_bucket("s3://bucket/runs/a", patience=uncounted, every_s=60) as folder,
    ):
        write(folder, environment_dot_json="{}")
        held.put("bucket", f"runs/a/{NAME}", replace(this_process(), token="other").line)
    assert held.keys("bucket") == [f"runs/a/{NAME}"]


def test_work_goes_up_while_it_goes_on_through_failures_and_at_any_end(held: Buckets) -> None:
    notes: list[str] = []
    with (
        pytest.raises(KeyboardInterrupt),
        run_in_bucket("s3://bucket/runs/a", patience=FAST, every_s=0.02, note=notes.append) as folder,
    ):
        write(folder, environment_dot_json="{}")
        waits_for(lambda: held.keys("bucket", "runs/a/environment") == ["runs/a/environment.json"])
        held.refuse = lambda method, path: (503, error("SlowDown")) if "teacher" in path else None
        write(folder, teacher_dot_part__state_dot_pt="state")
        waits_for(lambda: any("the work goes on" in note for note in notes))
        held.refuse = lambda method, path: None
        waits_for(lambda: "runs/a/teacher.part/state.pt" in held.keys("bucket"))
        write(folder, teacher_dot_part__state_dot_pt="later state")
        raise KeyboardInterrupt
    assert held.read("bucket", "runs/a/teacher.part/state.pt") == b"later state"
    assert f"runs/a/{NAME}" not in held.keys("bucket")


def waits_for(true: Callable[[], bool]) -> None:
    import time

    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_bucket_that_cannot_be_written_to_is_refused_before_any_work(held: Buckets) -> None:
    held.refuse = lambda method, path: DENIED if method == "PUT" else None
    with (
        pytest.raises(StorageError, match="no permission \\(writing\\)"),
        run_in_bucket("s3://bucket/runs/a", patience=FAST),
    ):
        raise AssertionError("worked")


def test_what_is_no_run_in_a_bucket_is_refused(held: Buckets) -> None:
    for uri in ("runs/a", "s3://bucket"):
        with pytest.raises(ConfigError, match="names no run in a bucket"), run_in_bucket(uri):
            pass
    with pytest.raises(RunError, match="s3://bucket/runs/a: is in a bucket"):
        RunDir(Path("s3://bucket/runs/a"))
