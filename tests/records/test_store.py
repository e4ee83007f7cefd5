"""The run store: whole records or none, locks that die with their process."""

from __future__ import annotations

import errno
import json
import os

import pytest
from factories import engine as factory
from factories.fault import pipe

from cyclery.common import files
from cyclery.common.errors import UserError
from cyclery.common.seals import file_sha256, is_sealed, seal
from cyclery.engine.checkpoint import load_weights, read_state
from cyclery.records.run_store import Store

KEY = "ab" * 12
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_record_comes_back_as_it_was_written(store):
    sealed = store.write(KEY, {"status": "done", "curve": {"loss": [0.1, 1e-300]}, "none": None})
    assert store.read(KEY) == sealed
    assert sealed["key"] == KEY
    assert is_sealed(sealed)
    assert store.folder(KEY) == store.root / "ab" / KEY
    assert store.read("cd" * 12) is None


def test_what_a_kill_leaves_beside_a_record_is_removed(store):
    """Killed between the record and its tidying up, a run is finished with its leavings."""
    store.write(KEY, {"status": "done"})
    left = [store.resume(KEY), store.folder(KEY) / ".record.json.x1.part"]
    for path in left:
        path.write_bytes(b"x")
    with store.lock(KEY, wait=False):
        store.tidy(KEY)  # somebody is at work there
    assert all(path.exists() for path in left)
    store.tidy(KEY)
    assert not any(path.exists() for path in left) and store.read(KEY)["status"] == "done"
    store.tidy("cd" * 12)  # of a run that is not there, nothing


def test_a_seal_covers_every_value(store):
    sealed = seal({"a": 1, "b": [0.5, None, "x"]})
    assert is_sealed(sealed)
    assert seal(sealed) == sealed
    assert seal({"b": [0.5, None, "x"], "a": 1}) == sealed
    for change in ({"a": 2}, {"b": [0.5000000000000001, None, "x"]}, {"c": 1}):
        assert not is_sealed({**sealed, **change})
    assert not is_sealed({"a": 1})
    assert not is_sealed([])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("0.75", "0.95"),
        lambda text: text.replace("0.75", "NaN"),
        lambda text: text.replace('"key"', '"yek"'),
        lambda text: "\udcff",
        lambda text: "[" * 200_000,
        lambda text: '{"sha256": ' + "[" * 900 + "]" * 900 + "}",
        lambda text: json.dumps(seal({"accuracy": 0.75})),
        lambda text: json.dumps(seal({"accuracy": 0.75, "key": "another"})),
    ],
    ids=[
        "cut",
        "empty",
        "list",
        "altered",
        "NaN",
        "key",
        "bytes",
        "bottomless",
        "deep",
        "no key",
        "other key",
    ],
)
def test_a_damaged_record_is_set_aside_with_a_word(store, damage, caplog):
    store.write(KEY, {"accuracy": 0.75})
    path = store.folder(KEY) / "record.json"
    damaged = damage(path.read_text()).encode(errors="surrogateescape")
    path.write_bytes(damaged)
    assert store.read(KEY) is None
    assert not path.exists()
    assert path.with_name("record.json.damaged").read_bytes() == damaged
    assert str(path) in caplog.text
    assert "cut or altered" in caplog.text
    sealed = store.write(KEY, {"accuracy": 0.75})
    assert store.read(KEY) == sealed


def test_writing_a_record_clears_what_is_no_longer_needed(store):
    store.folder(KEY).mkdir(parents=True)
    store.resume(KEY).write_bytes(b"x")
    (store.folder(KEY) / ".resume.safetensors.abc.part").write_bytes(b"left by kill -9")
    store.checkpoint(KEY).write_bytes(b"kept")
    store.write(KEY, {})
    assert sorted(p.name for p in store.folder(KEY).iterdir()) == [
        "checkpoint.safetensors", "record.json",
    ]  # fmt: skip


def test_a_record_that_is_no_json_is_not_written(store):
    with pytest.raises(ValueError):
        store.write(KEY, {"loss": float("nan")})
    assert store.read(KEY) is None
    assert not list(store.root.glob("**/record*"))


def test_a_lock_is_another_processs_until_it_dies(store):
    with factory.locked(store, KEY):
        with store.lock(KEY, wait=False) as held:
            assert not held
        with store.lock("cd" * 12, wait=False) as held:
            assert held
    with store.lock(KEY, wait=True) as held:
        assert held


def test_sha256_is_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == expected


def test_a_pipe_in_the_place_of_a_record_is_set_aside(store, caplog):
    store.write(KEY, {"status": "done"})
    path = store.folder(KEY) / "record.json"
    path.unlink()
    with pipe(path):
        assert store.status(KEY) is None
        assert store.read(KEY) is None
    assert path.with_name("record.json.damaged").is_fifo() and not path.exists()
    assert str(path) in caplog.text
    store.write(KEY, {"status": "done"})
    assert store.status(KEY) == "done"


def test_the_status_is_found_before_any_number_of_trials(store):
    for n in (0, 1, 10_000):
        store.write(KEY, {"status": "failed", "trials": [{"status": "done"}] * n})
        assert store.status(KEY) == "failed"


def test_pipes_in_the_place_of_weights_and_of_a_resume_point(store, caplog):
    store.folder(KEY).mkdir(parents=True)
    with pipe(store.checkpoint(KEY)):
        for digest in (None, "0" * 64):
            with pytest.raises(UserError, match="it is no regular file"):
                load_weights(store.checkpoint(KEY), digest)
    with pipe(store.resume(KEY)):
        assert read_state(store.resume(KEY), "stamp", store) is None
    assert "it is no regular file" in caplog.text


def test_a_run_folder_that_is_a_link_to_nothing_is_named(store):
    store.folder(KEY).parent.mkdir(parents=True)
    store.folder(KEY).symlink_to("/nowhere/at/all")
    assert store.read(KEY) is None and store.status(KEY) is None
    for attempt in (lambda: store.write(KEY, {}), lambda: store.lock(KEY, wait=False).__enter__()):
        with pytest.raises(
            UserError, match="is a link to /nowhere/at/all, where nothing is"
        ) as told:
            attempt()
        assert str(told.value).startswith(f"{store.folder(KEY)}: ")


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_record_that_cannot_be_read_now_stays_as_it_is(store, monkeypatch, code):
    sealed = store.write(KEY, {"status": "done"})

    def refuse(*given):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "open", refuse)
        with pytest.raises(UserError, match=f"cannot read .*record.json: {os.strerror(code)}"):
            store.read(KEY)
    assert store.read(KEY) == sealed


def test_a_folder_or_a_ring_of_links_in_the_place_of_a_record_is_set_aside(store):
    for damage in (os.mkdir, lambda path: path.symlink_to(path)):
        store.write(KEY, {"status": "done"})
        path = store.folder(KEY) / "record.json"
        path.unlink()
        damage(path)
        assert store.read(KEY) is None
        assert not os.path.lexists(path) and os.path.lexists(f"{path}.damaged")
        path.with_name("record.json.damaged").rename(store.root / f"{damage}")


def test_files_written_at_once_wait_for_the_disk_once(store, monkeypatch):
    waited = []
    for name in ("fsync", "sync"):
        monkeypatch.setattr(files.os, name, lambda *handle, name=name: waited.append(name))
    with pytest.raises(KeyError), files.synced_at_once():
        for key in (KEY, "cd" * 12):
            store.write(key, {"status": "done"})
        assert waited == []
        raise KeyError
    assert waited == ["sync"]
    store.write(KEY, {"status": "done"})
    assert waited == ["sync", "fsync", "fsync"]
