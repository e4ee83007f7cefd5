"""A remote in S3-compatible storage: pushed to and pulled from, and dead."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from factories.sharing import Repository, published

# Run in processes of their own, and slow to import.
for package in ("dvc", "dvc_s3", "moto", "flask"):
    if find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)
SECRET = "hunter2-is-no-secret"


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Yield a server of S3's interface on this machine, with one bucket, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                request = urllib.request.Request(f"{address}/bucket", method="PUT")
                with urllib.request.urlopen(request, timeout=60) as answer:
                    assert answer.status == 200
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, "the server stopped"
                time.sleep(0.2)
        yield process, address
    finally:
        process.kill()
        process.wait()


def connect(repository: Repository, address: str) -> None:
    repository.dvc("remote", "add", "--local", "team", "s3://bucket/cyclery")
    for key, value in (
        ("endpointurl", address),
        ("access_key_id", "somebody"),
        ("secret_access_key", SECRET),
    ):
        repository.dvc("remote", "modify", "--local", "team", key, value)


@pytest.mark.slow
def test_s3(tmp_path: Path, server: tuple[subprocess.Popen[bytes], str]) -> None:
    process, address = server
    origin = published()
    publisher, reader = (origin.clone(tmp_path / name) for name in ("publisher", "reader"))
    publisher.cyclery("fetch")
    publisher.snakemake("tiny")
    for each in (publisher, reader):
        connect(each, address)
        shutil.rmtree(each.root / "published")
    said = publisher.cyclery("publish", "--remote", "team")
    assert "on remote 'team'" in said and "git add dvc.lock results/published/smoke\n" in said
    assert not (publisher.root / "published").exists()
    said += reader.cyclery("fetch", "--remote", "team")
    assert "nothing to train; evidence and report are made in minutes" in said
    assert reader.results() == origin.results() and reader.nothing_to_train()

    process.kill()
    process.wait()
    for name in (".dvc/cache", "results/published/smoke/packs"):
        shutil.rmtree(reader.root / name)
    dead = reader.cyclery("fetch", "--remote", "team", expect=2)
    assert dead.count("\n") == 1
    assert dead.startswith("cyclery: DVC could not pull from remote 'team' (s3://bucket/cyclery): ")
    assert "Could not connect to the endpoint URL" in dead
    assert SECRET not in said + dead and "Traceback" not in dead
