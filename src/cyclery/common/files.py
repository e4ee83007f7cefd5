"""Atomic writes, locks between processes, and clear errors of the disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

from cyclery.common.errors import UserError

_BLOCK = 1 << 20
_AT_ONCE: ContextVar[bool] = ContextVar("_AT_ONCE", default=False)
_FULL = (errno.ENOSPC, errno.EDQUOT)
# The path is no file: a pipe, a folder, a link that leads to itself.
_NO_FILE = (errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


def is_full(error: BaseException | None) -> bool:
    """Return whether the disk or the quota is full."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def disk_errors(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn an operating system's refusal to write `path` (of `size` bytes) into a UserError."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            need = "" if size is None else f" It needs {megabytes(size)}."
            raise UserError(
                f"no space on disk to write {path}.{need} Nothing half-written was kept; "
                "free some space and run the same command again."
            ) from error
        raise UserError(
            f"cannot write {path}: {error.strerror or error}. "
            "Make that possible, or choose another folder, and run the same command again."
        ) from error


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn a transient failure to read `path` into a UserError: the file may be intact.

    Other OSErrors are passed on: a FileNotFoundError, and those of what is no regular file.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in _NO_FILE:
            raise
        raise UserError(
            f"cannot read {path}: {error.strerror or error}. It stays as it is; "
            "make that possible and run the same command again."
        ) from error


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read; an OSError where it is a pipe or a device, which is never waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path) -> bytes:
    """Return the content of a file; an OSError where it is none, as in `open_regular`."""
    with open_regular(path) as stream:
        return stream.read()


def require_regular(path: Path) -> None:
    """Raise an OSError unless a library, which would wait for a pipe, can open the file."""
    open_regular(path).close()


def parse_json(text: bytes | str) -> Any:
    """Parse a JSON text; a ValueError also where it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it; a UserError names a link that leads nowhere."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError):
        for each in (path, *path.parents):
            if each.is_symlink() and not each.exists():
                raise UserError(
                    f"{each}: is a link to {each.readlink()}, where nothing is. Bring that back, "
                    "or delete the link, and run the same command again."
                ) from None
        raise


def megabytes(size: int) -> str:
    """Return a size in bytes as text in MB, rounded up so that it is never 0."""
    return f"{max(1, -(-size // 1_000_000))} MB"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `path` atomically: it is complete or as it was, even after a crash or a full disk.

    In a block of `synced_at_once` that is not said of a power cut.
    """
    data = content.encode() if isinstance(content, str) else content
    with writing(path, len(data)) as stream:
        stream.write(data)


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """Yield a stream whose content replaces `path` atomically when the block succeeds.

    The content goes to a temporary name in the same folder, to the disk, and only then to its name.
    Temporary files of killed processes are removed first.
    """
    with disk_errors(path, size):
        make_folder(path.parent)
        _clear(path)
        handle, temporary = _temporary(path)
        try:
            with os.fdopen(handle, "wb") as stream:
                os.fchmod(stream.fileno(), 0o666 & ~_umask())
                yield stream
                stream.flush()
                _sync(stream.fileno())
                # Before the lock goes with the stream, lest another writer clears it away.
                replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> tuple[int, Path]:
    """Open a new temporary file for `path`, locked as long as its writer lives."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = temporary.exists()
        except BlockingIOError:
            ours = False
        except OSError:
            # Some network file systems cannot lock; nobody else can lock the file there either.
            ours = True
        if ours:
            return handle, temporary
        os.close(handle)  # Cleared away by another writer before it was locked.


def _clear(path: Path) -> None:
    """Remove temporary files for `path` that no living process has locked."""
    with suppress(OSError):
        for left in list(path.parent.iterdir()):
            if left.name.startswith(f".{path.name}.") and left.suffix == ".part":
                with suppress(OSError), left.open("r+b") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()


def replace(temporary: Path, path: Path) -> None:
    """Give a complete file its name and make the renaming itself survive a crash."""
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Some network file systems cannot sync a folder; the renaming has been done all the same.
        with suppress(OSError):
            _sync(folder)
    finally:
        os.close(folder)


@contextmanager
def synced_at_once() -> Iterator[None]:
    """Let what the block writes go to the disk when it ends, all at once.

    Else each of thousands of small files waits for the disk twice. A kill leaves each file as ever,
    complete or as it was, but a power cut may leave new ones empty: only for files whose damage is
    seen, by whoever writes them again.
    """
    before = _AT_ONCE.set(True)
    try:
        yield
    finally:
        _AT_ONCE.reset(before)
        os.sync()


def _sync(handle: int) -> None:
    """Wait until a file or folder is on the disk, unless that comes later, at once with others."""
    if not _AT_ONCE.get():
        os.fsync(handle)


def _umask() -> int:
    """Return the umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold `path` locked against other processes; wait for whoever holds it, or raise Busy.

    The system frees the lock when its process ends, however it ends. The empty file stays:
    removing it would let a third process lock a new file of the same name while a second one waits.
    """
    with disk_errors(path):
        make_folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with disk_errors(path):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Busy from None
        try:
            yield
        finally:
            # Closing alone would leave the lock to a child that was forked while it was held.
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def digest(stream: BinaryIO, *algorithms: str) -> tuple[list[str], int]:
    """Return the hex checksums of the rest of a stream by each algorithm, and its size."""
    hashes = [hashlib.new(name, usedforsecurity=False) for name in algorithms]
    size = 0
    while block := stream.read(_BLOCK):
        size += len(block)
        for each in hashes:
            each.update(block)
    return [each.hexdigest() for each in hashes], size
