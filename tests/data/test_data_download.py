"""Raw files are found or downloaded, and what is wrong is never kept."""

from __future__ import annotations

import errno
import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from factories import data as factory
from factories.data import CIFAR10, DIGITS, FASHION_MNIST, replace

from cyclery.common.errors import UserError
from cyclery.data import raw as raw_module
from cyclery.data.raw import open_raw, package_folder, system_folders

CONTENT = b"the content of an archive " * 400


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(raw_module, "_PAUSES", (0.0, 0.0))


@pytest.fixture
def server():
    """Serve what tests put into ``pages``: path to (status, promised length or None, body)."""
    pages: dict[str, tuple[int, int | None, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, length, body = pages.get(self.path, (404, None, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        httpd.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.pages, httpd.asked = pages, asked
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def fetched(monkeypatch):
    """Replace the transfer itself: ``fetched[url]`` is bytes to write or an error to raise."""
    answers: dict[str, bytes | Exception] = {}

    def fetch(url: str, folder: Path, raw) -> None:
        answer = answers[url]
        if isinstance(answer, Exception):
            raise answer
        (folder / raw.name).write_bytes(answer)

    monkeypatch.setattr(raw_module, "_fetch", fetch)
    return answers


def archive(*urls: str):
    """Return an entry whose one raw file has CONTENT and can be had from these addresses."""
    return factory.with_archive(replace(CIFAR10, shared=None), CONTENT, *urls)


def read(dataset, kept, search=()) -> tuple[list[bytes], str]:
    with open_raw(dataset, kept, search) as (streams, source):
        return [stream.read() for stream in streams], source


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


# Over a real connection, through torchvision


def test_a_good_download_is_kept_and_used_again(server, tmp_path):
    server.pages["/a.tar.gz"] = (200, None, CONTENT)
    dataset = archive(f"{server.url}/a.tar.gz")
    assert read(dataset, tmp_path) == ([CONTENT], "download")
    assert everything(tmp_path) == [tmp_path / "cifar-10-binary.tar.gz"]
    asked = len(server.asked)
    assert read(dataset, tmp_path) == ([CONTENT], "download")
    assert len(server.asked) == asked


def test_a_truncated_download_is_not_kept_and_a_retry_downloads_again(server, tmp_path):
    server.pages["/a.tar.gz"] = (200, len(CONTENT), CONTENT[:5000])
    dataset = archive(f"{server.url}/a.tar.gz")
    with pytest.raises(UserError) as error:
        read(dataset, tmp_path)
    message = str(error.value)
    assert "cifar-10-binary.tar.gz" in message
    assert "run the same command again" in message
    assert not everything(tmp_path)
    server.pages["/a.tar.gz"] = (200, None, CONTENT)
    assert read(dataset, tmp_path)[0] == [CONTENT]


def test_a_missing_page_and_a_dead_server_are_named(server, tmp_path):
    with pytest.raises(UserError, match=r"/gone: the download failed \(HTTP Error 404") as error:
        read(archive(f"{server.url}/gone"), tmp_path)
    assert "Nothing of a failed download was kept" in str(error.value)
    with pytest.raises(UserError, match=r"the download failed \(.*refused"):
        read(archive("http://127.0.0.1:9/a"), tmp_path)
    assert not everything(tmp_path)


def test_the_second_address_is_tried(server, tmp_path):
    server.pages["/good"] = (200, None, CONTENT)
    server.pages["/bad"] = (200, None, b"an error page")
    dataset = archive(f"{server.url}/gone", f"{server.url}/bad", f"{server.url}/good")
    assert read(dataset, tmp_path)[0] == [CONTENT]


# What is done with what came


def test_a_wrong_checksum_is_named_with_what_was_expected_and_got(fetched, tmp_path):
    wrong = CONTENT[:-1] + b"?"
    fetched["u"] = wrong
    with pytest.raises(UserError) as error:
        read(archive("u"), tmp_path)
    message = str(error.value)
    assert f"expected MD5 {factory.md5(CONTENT)}, got {factory.md5(wrong)}" in message
    assert "truncated" not in message
    assert not everything(tmp_path)

    fetched["u"] = CONTENT[:100]
    with pytest.raises(UserError, match=f"truncated at 100 of {len(CONTENT)} bytes"):
        read(archive("u"), tmp_path)
    assert not everything(tmp_path)


def test_md5_alone_does_not_vouch_for_a_download(fetched, tmp_path):
    dataset = archive("u")
    forged = dataset.files[0].model_copy(update={"sha256": "0" * 64})
    fetched["u"] = CONTENT
    with pytest.raises(UserError, match=f"expected SHA-256 {'0' * 64} of the file, got"):
        read(replace(dataset, files=(forged,)), tmp_path)
    assert not everything(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_during_a_download_keeps_nothing(monkeypatch, tmp_path, code):
    import torchvision.datasets.utils as utils

    def fill(url: str, root: str, filename: str) -> None:
        (Path(root) / filename).write_bytes(CONTENT[:50])
        raise OSError(code, "No space left on device")

    monkeypatch.setattr(utils, "download_url", fill)
    with pytest.raises(UserError, match=r"no space on disk to write .*It needs 1 MB") as error:
        read(archive("u"), tmp_path)
    assert "half-written" in str(error.value)
    assert not everything(tmp_path)


def test_an_interrupted_download_keeps_nothing(monkeypatch, tmp_path):
    def interrupt(url: str, folder: Path, raw) -> None:
        (folder / raw.name).write_bytes(CONTENT[:50])
        raise KeyboardInterrupt

    monkeypatch.setattr(raw_module, "_fetch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read(archive("u"), tmp_path)
    assert not everything(tmp_path)


def test_what_a_killed_download_left_is_swept(fetched, tmp_path):
    left = tmp_path / ".cifar-10-binary.tar.gz.abc.part"
    left.mkdir()
    (left / "cifar-10-binary.tar.gz").write_bytes(CONTENT[:9])
    fetched["u"] = CONTENT
    read(archive("u"), tmp_path)
    assert everything(tmp_path) == [tmp_path / "cifar-10-binary.tar.gz"]


def test_a_damaged_kept_download_is_replaced(fetched, tmp_path):
    kept = tmp_path / "cifar-10-binary.tar.gz"
    kept.write_bytes(CONTENT[:10])
    fetched["u"] = raw_module._Bad("no connection")
    with pytest.raises(UserError, match=rf"{kept} was passed over: expected SHA-256 .* got "):
        read(archive("u"), tmp_path)
    fetched["u"] = CONTENT
    assert read(archive("u"), tmp_path)[0] == [CONTENT]
    assert kept.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_is_named(fetched, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        read(archive("u"), blocked / "raw")


# What is on this machine already


def test_local_files_are_taken_packed_unpacked_and_repacked(tmp_path):
    dataset, contents = factory.small_fashion()
    expected = [gzip.decompress(content) for content in contents.values()]
    packed, plain, repacked = (tmp_path / name for name in ("packed", "plain", "repacked"))
    for folder in (packed, plain / dataset.name, repacked):
        folder.mkdir(parents=True)
    for name, content in contents.items():
        (packed / name).write_bytes(content)
        (plain / dataset.name / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
        (repacked / name).write_bytes(gzip.compress(gzip.decompress(content), 1, mtime=99))
    for folder in (packed, plain, repacked):
        assert read(dataset, tmp_path / "kept", [folder]) == (expected, "local files")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:-20], "a truncated or damaged gzip file"),
        (lambda c: c[:30] + b"\xff\xff\xff" + c[33:], "a truncated or damaged gzip file"),
        (lambda c: gzip.compress(b"other"), "expected SHA-256 .* of the unpacked content, got"),
        (lambda c: b"plain", "expected SHA-256 .* over 5 bytes"),
    ],
)
def test_a_damaged_local_file_is_named_where_nothing_else_is_there(tmp_path, damage, message):
    dataset, contents = factory.small_fashion()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    name = dataset.files[0].name
    (tmp_path / name).write_bytes(damage(contents[name]))
    with pytest.raises(UserError, match=message) as error:
        read(dataset, tmp_path / "kept", [tmp_path])
    assert str(tmp_path / name) in str(error.value)


def test_system_packages_are_looked_for_below_the_prefixes(monkeypatch, tmp_path):
    monkeypatch.setattr(raw_module.sys, "prefix", str(tmp_path))
    assert system_folders(FASHION_MNIST)[0] == tmp_path / "share/datasets/fashion-mnist"
    assert Path("/usr/share/datasets/fashion-mnist") in system_folders(FASHION_MNIST)
    assert system_folders(DIGITS) == []
    dataset, contents = factory.small_fashion()
    folder = tmp_path / "share/datasets/fashion-mnist"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    dataset = replace(dataset, shared="fashion-mnist")
    assert read(dataset, tmp_path / "kept")[1] == "system package"


def test_a_missing_python_package_is_named(monkeypatch, tmp_path):
    assert package_folder(FASHION_MNIST) is None
    monkeypatch.setattr(raw_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"digits\.csv\.gz of digits was not found") as error:
        read(DIGITS, tmp_path)
    assert "Install the Python package scikit-learn" in str(error.value)


def test_missing_torchvision_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(raw_module.sys.modules, "torchvision.datasets.utils", None)
    with pytest.raises(UserError, match=r"downloading cifar-10-binary\.tar\.gz needs torchvision"):
        read(archive("u"), tmp_path)
    assert not everything(tmp_path)
