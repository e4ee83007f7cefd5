"""Networks that fail: a transfer is tried again where that helps, and nothing bad is kept."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
import threading
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from factories import data as factory
from factories import fault as fault_factory
from factories.data import CIFAR10, replace

from cyclery.common.errors import UserError
from cyclery.data import raw as raw_module
from cyclery.data.dataset import Dataset
from cyclery.data.raw import open_raw

pytestmark = pytest.mark.fault
CONTENT = b"the content of an archive " * 4000
NAME = CIFAR10.files[0].name


class Flaky(ThreadingHTTPServer):
    """A server whose path names its fault: ``/<fault>`` always has it, ``/<fault>/4`` 4 times."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        # A download asks twice: for the address after all redirections, then for the content.
        self.failed: dict[str, int] = {}
        self.over = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class _Answer(BaseHTTPRequestHandler):
    server: Flaky

    def do_GET(self) -> None:
        fault, _, times = self.path.strip("/").partition("/")
        failed = self.server.failed.get(self.path, 0)
        if times and failed >= int(times):
            fault = "none"
        self.server.failed[self.path] = failed + 1
        getattr(self, fault.replace("-", "_"))()

    def none(self, body: bytes = CONTENT, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def error(self) -> None:
        self.send_error(500)

    def busy(self) -> None:
        self.send_error(503)

    def gone(self) -> None:
        self.send_error(404)

    def truncate(self) -> None:
        self.none(CONTENT[:5000], len(CONTENT))

    def wrong(self) -> None:
        self.none(b"<html>log in to this network first</html>")

    def altered(self) -> None:
        self.none(CONTENT[:-1] + b"?")

    def loop(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path)
        self.end_headers()

    def stall(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100])
        self.wfile.flush()
        self.server.over.wait(20)

    def reset(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100])
        self.wfile.flush()
        # A socket that closes so sends RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        pass

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # reset above
            super().finish()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr(raw_module, "_PAUSES", (0.0, 0.0))
    with Flaky() as made:
        made.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.over.set()
        made.shutdown()
        thread.join()


def archive(*urls: str) -> Dataset:
    return factory.with_archive(replace(CIFAR10, shared=None), CONTENT, *urls)


def read(dataset: Dataset, kept: Path) -> bytes:
    with open_raw(dataset, kept) as ([stream], _):
        return stream.read()


TRANSIENT = ("error", "busy", "truncate", "stall", "reset")
LASTING = {
    "error": "HTTP Error 500", "busy": "HTTP Error 503", "gone": "HTTP Error 404",
    "truncate": "truncated at 5000 of", "wrong": "expected MD5", "altered": "expected MD5",
    "loop": "redirect", "stall": "timed out", "reset": "reset by peer",
}  # fmt: skip


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_network_that_recovers_costs_no_more_than_time(
    fault: str, server: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    record_property: fault_factory.Properties,
) -> None:  # fmt: skip
    if fault == "stall":
        monkeypatch.setattr(raw_module, "_TIMEOUT", 1.0)
    # A transfer asks twice, unless the first answer says that it cannot be.
    bad = 2 if fault in ("error", "busy") else 4
    assert read(archive(server.url(f"{fault}/{bad}")), tmp_path) == CONTENT
    assert server.failed[f"/{fault}/{bad}"] > bad
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    fault_factory.note(
        record_property, "download that fails and recovers", "tried again, then whole", 2
    )


@pytest.mark.parametrize("fault", LASTING)
def test_a_network_that_stays_bad_is_one_message_and_nothing_is_kept(
    fault: str, server: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    record_property: fault_factory.Properties,
) -> None:  # fmt: skip
    if fault == "stall":
        monkeypatch.setattr(raw_module, "_TIMEOUT", 1.0)
    with pytest.raises(UserError) as caught:
        read(archive(server.url(fault)), tmp_path)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(f"could not get {NAME}")
    assert LASTING[fault] in said and server.url(fault) in said
    assert "run the same command again" in said
    assert not list(tmp_path.iterdir())
    # What will not pass is not asked for three times.
    transfers = server.failed[f"/{fault}"]
    assert transfers >= 3 if fault in TRANSIENT else transfers <= 11
    if fault in ("gone", "altered"):
        assert transfers <= 2
    # The next command begins anew, from another address.
    assert read(archive(server.url(fault), server.url("none")), tmp_path) == CONTENT
    fault_factory.note(record_property, "download that fails", "named, and nothing of it kept", 2)


def test_a_password_in_an_address_is_not_shown(server: Flaky, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(archive("nowhere://me:hunter2@127.0.0.1/a"), tmp_path)
    assert "hunter2" not in str(caught.value) and "://***@127.0.0.1" in str(caught.value)


def test_pauses_grow_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(raw_module.time, "sleep", slept.append)

    def fail(*_: Any) -> None:
        raise raw_module._Transient("gone")

    monkeypatch.setattr(raw_module, "_fetch", fail)
    with pytest.raises(UserError, match="could not get"):
        read(archive("u"), tmp_path)
    assert slept == [2.0, 8.0]


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (urllib.error.URLError(ConnectionResetError()), True),
        (TimeoutError("timed out"), True),
        (urllib.error.URLError(ssl.SSLCertVerificationError("expired")), False),
        (PermissionError(errno.EACCES, "Permission denied", "data/raw/x"), False),
        (ValueError("unknown url type"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, passes: bool) -> None:
    assert raw_module._may_pass(error) == passes
