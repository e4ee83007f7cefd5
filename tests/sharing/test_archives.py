"""Tars: the same bytes for the same contents, and nothing that escapes the folder."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from cyclery.common.errors import UserError
from cyclery.sharing.archives import Archive, extract, is_plain, write_archive

FILES = {"tier/records/a.jsonl": b"one\n" * 1000, "tier/b.csv": b"", "data/c.json": b"{}"}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


@pytest.mark.parametrize("name", ["p.tar", "p.tar.xz"])
def test_the_same_contents_are_the_same_bytes(name: str, tmp_path: Path) -> None:
    on_disk = {}
    for order, each in enumerate(reversed(FILES)):
        path = tmp_path / str(order)
        path.write_bytes(FILES[each])
        path.chmod(0o600 + order)
        os.utime(path, (order, order))
        on_disk[each] = path
    first = write_archive(tmp_path / "one" / name, FILES)
    second = write_archive(tmp_path / "two" / name, on_disk)
    assert first == second and first.files == 3
    bytes_ = (tmp_path / "one" / name).read_bytes()
    assert bytes_ == (tmp_path / "two" / name).read_bytes()
    assert first.size == len(bytes_) and first.sha256 == sha256(bytes_).hexdigest()
    assert (first.size < 1000) == name.endswith(".xz")
    with tarfile.open(tmp_path / "one" / name) as tar:
        assert tar.getnames() == sorted(FILES)
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.mode == 0o644
    names = extract(tmp_path / "one" / name, first, tmp_path / "out")
    assert names == sorted(FILES) and contents(tmp_path / "out") == FILES


def test_a_long_name_and_a_file_that_is_missing(tmp_path: Path) -> None:
    name = f"tier/{'long-folder/' * 30}x.json"
    made = write_archive(tmp_path / "p.tar", {name: b"1"})
    assert extract(tmp_path / "p.tar", made, tmp_path / "out") == [name]
    with pytest.raises(UserError, match="missing: cannot be read"):
        write_archive(tmp_path / "q.tar", {"a": tmp_path / "missing"})
    assert not list(tmp_path.glob("*q.tar*"))


def described(path: Path, files: int = 1, unpacked: int = 100_000) -> Archive:
    data = path.read_bytes()
    return Archive(sha256(data).hexdigest(), len(data), unpacked, files)


def hostile(path: Path, *members: tarfile.TarInfo, data: bytes = b"x") -> Archive:
    with tarfile.open(path, "w") as tar:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))
    return described(path, len(members))


@contextmanager
def refused(tmp_path: Path, what: str) -> Iterator[None]:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=what) as caught:
        yield
    assert "Nothing of it was used" in str(caught.value)
    assert "\n" not in str(caught.value)
    # At most the folder that it was to go to.
    assert set(tmp_path.iterdir()) - set(before) <= {tmp_path / "out", tmp_path / "more"}


@pytest.mark.parametrize(
    "name",
    ["../escaped", "/etc/escaped", "a/../../escaped", "a//b", "./a", "..", "a/./b", "C:\\x", "a\nb",
     "a\\..\\b", "c:x"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    assert not is_plain(name)
    made = hostile(tmp_path / "p.tar", tarfile.TarInfo(name))
    with refused(tmp_path, "no plain path"):
        extract(tmp_path / "p.tar", made, tmp_path / "out")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
     tarfile.DIRTYPE],
)  # fmt: skip
def test_what_is_no_plain_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("a")
    member.type, member.linkname = kind, "/etc/passwd"
    made = hostile(tmp_path / "p.tar", member)
    with refused(tmp_path, "no plain file"):
        extract(tmp_path / "p.tar", made, tmp_path / "out")


def test_a_name_twice_or_too_few_files_are_refused(tmp_path: Path) -> None:
    made = hostile(tmp_path / "p.tar", tarfile.TarInfo("a"), tarfile.TarInfo("a"))
    with refused(tmp_path, "twice"):
        extract(tmp_path / "p.tar", made, tmp_path / "out")
    made = hostile(tmp_path / "q.tar", tarfile.TarInfo("a"))
    with refused(tmp_path, "holds 1 files, not 2"):
        extract(tmp_path / "q.tar", replace(made, files=2), tmp_path / "more")


def test_a_bomb_stops_at_what_the_index_says(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        member = tarfile.TarInfo("zeros")
        member.size = 50_000_000
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    path = tmp_path / "p.tar.xz"
    path.write_bytes(lzma.compress(raw.getvalue()))
    assert path.stat().st_size < 100_000
    with refused(tmp_path, "unpacks to more than 1 MB"):
        extract(path, described(path), tmp_path / "out")
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file()) < 200_000


def test_what_was_cut_or_altered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.tar.xz"
    made = write_archive(path, FILES)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with refused(tmp_path, "its SHA-256 is"):
        extract(path, made, tmp_path / "out")
    # Also where the index was made for it.
    with refused(tmp_path, "no complete tar"):
        extract(path, described(path), tmp_path / "out")
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        extract(path, made, tmp_path / "out")
