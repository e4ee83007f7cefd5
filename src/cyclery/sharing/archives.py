"""Reproducible tar archives: same bytes everywhere, safe to extract."""

from __future__ import annotations

import io
import lzma
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from cyclery.common.errors import UserError
from cyclery.common.files import digest, disk_errors, megabytes, open_regular, writing

_BLOCK = 1 << 20
# Memory that decompression may take, in bytes; our own archives take 9 MB.
_MEMORY = 100_000_000
# What one part of a name may hold: no control characters, no separators of another system.
_PART = re.compile(r"[^\x00-\x1f\x7f\\/:]+")


@dataclass(frozen=True)
class Archive:
    """A tar as the index describes it; sizes in bytes, ``unpacked`` after decompression."""

    sha256: str
    size: int
    unpacked: int
    files: int

    def as_dict(self) -> dict[str, Any]:
        """Return its fields, for JSON."""
        return asdict(self)


def write_archive(path: Path, files: Mapping[str, Path | bytes]) -> Archive:
    """Write files under their names in the tar as ``path``; one that ends in ``.xz`` is compressed.

    Order, owner, permission and time are fixed, so the same contents give the same bytes.
    """
    with writing(path) as raw, ExitStack() as ending:
        # Text becomes a third smaller than with gzip.
        packed = ending.enter_context(lzma.open(raw, "wb", preset=9)) if _is_xz(path) else raw
        counted = _Counted(cast(BinaryIO, packed))
        stream = cast(BinaryIO, counted)
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name in sorted(files):
                _add(tar, name, files[name])
    with path.open("rb") as written:
        [sha256], size = digest(written, "sha256")
    return Archive(sha256, size, counted.bytes, len(files))


def _add(tar: tarfile.TarFile, name: str, source: Path | bytes) -> None:
    member = tarfile.TarInfo(name)
    member.mode = 0o644
    if isinstance(source, bytes):
        member.size = len(source)
        tar.addfile(member, io.BytesIO(source))
        return
    try:
        stream = source.open("rb")
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror or error}).") from None
    with stream:
        member.size = os.fstat(stream.fileno()).st_size
        tar.addfile(member, stream)


def extract(path: Path, expected: Archive, folder: Path) -> list[str]:
    """Extract a tar into an empty folder and return the names; refuse all but plain files below it.

    Raises:
        UserError: the file is missing or not the one that the index describes; or it holds a link,
            a device, a path that leads elsewhere, a name twice, or more than the index says.
    """
    names: dict[str, None] = {}
    with _checked(path, expected) as tar:
        for member in tar:
            _refuse(path, member, names)
            names[member.name] = None
            source = tar.extractfile(member)
            assert source is not None, "it is a plain file"
            target = folder / member.name
            with disk_errors(target, member.size):
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as stream:
                    while block := source.read(_BLOCK):
                        stream.write(block)
    if len(names) != expected.files:
        raise _bad(path, f"it holds {len(names)} files, not {expected.files}")
    return list(names)


@contextmanager
def _checked(path: Path, expected: Archive) -> Iterator[tarfile.TarFile]:
    """Yield a tar whose bytes are those of the index, read no further than the index says."""
    try:
        with open_regular(path) as stream:
            [sha256], _ = digest(stream, "sha256")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if sha256 != expected.sha256:
        raise _bad(path, f"its SHA-256 is {sha256}, not {expected.sha256}")
    try:
        with path.open("rb") as raw:
            opened = cast(BinaryIO, _Xz(raw)) if _is_xz(path) else raw
            limited = _Counted(opened, expected.unpacked)
            with tarfile.open(fileobj=cast(BinaryIO, limited), mode="r|") as tar:
                yield tar
    except _TooLarge:
        raise _bad(path, f"it unpacks to more than {megabytes(expected.unpacked)}") from None
    except (tarfile.TarError, EOFError, lzma.LZMAError) as error:
        raise _bad(path, f"it is no complete tar ({error})") from None


def _refuse(path: Path, member: tarfile.TarInfo, seen: Mapping[str, None]) -> None:
    """Raise a UserError unless a member is a regular file at a safe path, and new."""
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise _bad(path, f"{member.name!r} is a link or another thing that is no plain file")
    if not is_plain(member.name):
        raise _bad(path, f"{member.name!r} is no plain path below the folder")
    if member.name in seen:
        raise _bad(path, f"{member.name!r} is in it twice")


def is_plain(name: str) -> bool:
    """Return whether a name is a relative path that stays below the target folder."""
    parts = name.split("/")
    plain = all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    return plain and not PurePosixPath(name).is_absolute()


def _bad(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: refused: {what}. Nothing of it was used. Fetch again, or from another remote; "
        "if it stays so, whoever published must do it again."
    )


class _TooLarge(Exception):
    """A tar decompressed to more bytes than the index allows."""


def _is_xz(path: Path) -> bool:
    return path.suffix == ".xz"


class _Xz:
    """Decompresses a stream within a limit of memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)

    def read(self, size: int) -> bytes:
        data = b""
        while not data and not self._decoder.eof:
            packed = self._stream.read(_BLOCK) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not packed:
                raise EOFError("it ends too early")
            data = self._decoder.decompress(packed, size)
        return data


class _Counted:
    """A stream that counts what passes, and raises where more is read than may."""

    def __init__(self, stream: BinaryIO, limit: int | None = None) -> None:
        self._stream, self._limit = stream, limit
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return self._stream.write(data)

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.bytes += len(data)
        if self._limit is not None and self.bytes > self._limit:
            raise _TooLarge
        return data
