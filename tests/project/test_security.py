"""Nothing listens, nothing is unpickled, no name becomes a command, and no secret is written."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import checkout as checkout_factory
from factories import data as data_factory
from factories import engine as factory
from factories import fault as fault_factory
from factories.checkout import tracked_files
from factories.project import PAPER, TIER, refused, trained, write
from factories.sharing import Repository

from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.data.prepare import open_prepared, prepare
from cyclery.data.readers import cifar10
from cyclery.engine.checkpoint import load_weights, read_state
from cyclery.records.run_store import Store
from cyclery.report.build import build
from cyclery.sharing.archives import Archive, extract

ROOT = checkout_factory.ROOT
SOURCES = checkout_factory.files("src/**/*.py")
SECRET = "hunter2-is-no-secret"


# What the code may not do at all.


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            parts, at = [], node.func
            while isinstance(at, ast.Attribute):
                parts, at = [at.attr, *parts], at.value
            yield ".".join([at.id if isinstance(at, ast.Name) else "", *parts]).strip("."), node


def imported(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


UNPICKLES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
SERVERS = {"http.server", "socketserver", "xmlrpc.server", "flask", "asyncio", "wsgiref"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
          "pty.spawn", "eval", "exec", "yaml.unsafe_load", "yaml.full_load",
          "__import__"}  # fmt: skip


def misuse(text: str) -> list[str]:
    """Return what a source does that none may."""
    tree = ast.parse(text)
    found = [name for name in imported(tree) if name.split(".")[0] in UNPICKLES or name in SERVERS]
    for name, call in called(tree):
        asked = ("shell", "weights_only", "allow_pickle", "Loader")
        options = {k.arg: ast.unparse(k.value) for k in call.keywords if k.arg in asked}
        last = name.rpartition(".")[2]
        if (
            name in SHELLS
            or options.get("shell", "False") != "False"
            or (name == "torch.load" and options.get("weights_only") != "True")
            or options.get("allow_pickle", "False") != "False"
            or (name == "yaml.load" and options.get("Loader") != "SafeLoader")
            or last in ("listen", "create_server", "start_server")
            or (last == "bind" and "socket" in name)
        ):
            found.append(ast.unparse(call))
    return found


def test_no_source_unpickles_listens_or_hands_text_to_a_shell() -> None:
    assert len(SOURCES) > 100
    for path in SOURCES:
        assert not misuse(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "bad",
    ["import pickle", "from dill import loads", "import http.server", "os.system('x')", "exec(x)",
     "subprocess.run(x, shell=True)", "torch.load(p)", "torch.load(p, weights_only=False)",
     "np.load(p, allow_pickle=True)", "yaml.load(x, Loader=yaml.Loader)", "s.listen()",
     "my_socket.bind(a)"],
)  # fmt: skip
def test_misuse_would_be_seen(bad: str) -> None:
    assert misuse(bad)


def test_no_text_makes_yaml_construct_an_object() -> None:
    from cyclery.common import yaml_values
    from cyclery.config import load

    assert "yaml.load" not in Path(yaml_values.__file__).read_text(encoding="utf-8")
    text = "!!python/object/apply:os.system ['touch trap']"
    assert load.read_value(text) == text  # a text like any other


# Commands and names.


def test_every_name_in_a_rules_command_is_quoted() -> None:
    rules = checkout_factory.files("workflow/rules/*.smk")
    commands = [
        c for p in rules for c in re.findall(r'cyclery\("""(.*?)"""\)', p.read_text(), re.S)
    ]
    assert len(commands) >= 6
    placed = [place for command in commands for place in re.findall(r"\{(.*?)\}", command)]
    # Hashes that this package makes, and a number.
    safe = {"params.claims", "params.runs", "params.key", "threads"}
    for place in placed:
        assert place.endswith(":q") or place in safe, place
    assert sum(place.endswith(":q") for place in placed) >= 20


HOSTILE = ["; touch trap", "$(touch trap)", "`touch trap`", "a b", "a\nb", "a'b", 'a"b', "../a",
           "a/b", "-rf", "a;b", "a|b", "a&b", "a>b", "{a}", "*", "~", "", "a\\b", "é"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("arm", "experiment", "claim"):
        paper = copy.deepcopy(PAPER)
        within = paper["experiments"]["main"]["arms"] if kind == "arm" else paper[f"{kind}s"]
        within[name] = copy.deepcopy(next(iter(within.values())))
        root = tmp_path / kind
        write(root, TIER, paper)
        said = refused(root, capsys)
        assert "papers/one.yaml" in said
    assert not list(tmp_path.rglob("*trap*"))


def test_an_override_reaches_the_command_as_one_word(tmp_path: Path) -> None:
    """Whatever it holds: here a text that a shell would run and that Snakemake would fill in."""
    import shlex

    from cyclery.plan.snakemake_api import Graph

    write(tmp_path, TIER, PAPER)
    graph = Graph.of(load(tmp_path, {}))
    hostile = "x'; touch trap; $(touch trap) {wildcards}"
    made = Graph(graph.plan, {"papers": [hostile]}).overrides.format()
    assert len(shlex.split(made)) == 2 and hostile in shlex.split(made)[1]


def test_text_of_a_paper_is_text_on_the_page(tmp_path: Path) -> None:
    from cyclery.records.readers import read_evidence

    found = read_evidence(trained() / "results/smoke/evidence/one.json")
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
    found["title"] = found["paper"]["title"] = found["paper"]["summary"] = evil
    for each in (*found["claims"], *found["experiments"]):
        each["statement" if "statement" in each else "title"] = evil
    page = build([found], tmp_path, "smoke").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


# Hostile files.


class Malice:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.fault
def test_a_pickle_in_anothers_clothes_is_not_run(
    tmp_path: Path, record_property: fault_factory.Properties
) -> None:
    trap = tmp_path / "trap"
    manifest = tmp_path / "digits.json"
    prepare(data_factory.DIGITS, tmp_path, manifest)
    data = tmp_path / "digits.safetensors"
    weights, resume = tmp_path / "checkpoint.safetensors", tmp_path / "resume.safetensors"
    for path in (data, weights, resume):
        torch.save({"images": Malice(trap), "labels": Malice(trap)}, path)
    with pytest.raises(UserError, match="is damaged"):
        open_prepared(manifest)
    with pytest.raises(UserError, match="not a complete safetensors file"):
        load_weights(weights)
    assert read_state(resume, "stamp", Store(tmp_path)) is None
    assert not trap.exists()
    # The trap works where it is sprung.
    torch.load(tmp_path / "resume.safetensors.damaged", weights_only=False)
    assert trap.exists()
    fault_factory.note(record_property, "pickle instead of weights", "refused and not run", 3)


def headers() -> dict[str, tarfile.TarInfo]:
    found = {name: tarfile.TarInfo(name) for name in ("../escaped", "/escaped", "a/../../escaped")}
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
                 tarfile.FIFOTYPE):  # fmt: skip
        header = tarfile.TarInfo("escaped")
        header.type, header.linkname = kind, "../../escaped"
        found[f"type {kind.decode()}"] = header
    return found


@pytest.mark.fault
def test_hostile_archives_write_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: fault_factory.Properties
) -> None:
    inside = tmp_path / "deep/folder"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    dataset, members, *_ = data_factory.small_cifar10()
    for name, header in headers().items():
        path = inside / "p.tar"
        with tarfile.open(path, "w") as tar:
            tar.addfile(header)
        pack = Archive(sha256(path.read_bytes()).hexdigest(), path.stat().st_size, 100_000, 1)
        with pytest.raises(UserError, match="refused"):
            extract(path, pack, inside / "out")
        # A dataset's reader takes members by name, and none of these.
        archive = data_factory.tar_gz([(name, header), *members])
        cifar10.read(dataset, [io.BytesIO(archive)])
        path.unlink()
    # A member that claims more than it may, in an archive of a few kilobytes.
    bomb = data_factory.tar_gz([(members[1][0], bytes(30_000_000)), *members[2:]])
    assert len(bomb) < 500_000
    with pytest.raises(UserError, match="30000000 bytes where"):
        cifar10.read(dataset, [io.BytesIO(bomb)])
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] in (
        ["deep", "deep/folder"], ["deep", "deep/folder", "deep/folder/out"],
    )  # fmt: skip
    fault_factory.note(record_property, "hostile archive", "refused, nothing written", 17)


# Listeners.


def listening(pids: list[int]) -> set[str]:
    """Return the sockets on which these processes listen, by inode; Linux."""
    waiting = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    waiting.add(fields[9])
    held = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
                    held |= {found[1]} if found else set()
    return waiting & held


def family(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(member for child in children for member in family(int(child)))]
    return []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_training_listens_on_nothing(tmp_path: Path) -> None:
    import os
    import socket

    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()
        assert listening([os.getpid()])  # it would be seen
    jobs = [factory.job(factory.settings(epochs=60, seed=seed)) for seed in range(4)]
    process = factory.start(jobs, tmp_path, "--workers", "2")
    seen, looks, most = set(), 0, 0
    while process.poll() is None:
        members = family(process.pid)
        seen |= listening(members)
        looks, most = looks + 1, max(most, len(members))
        time.sleep(0.02)
    assert process.communicate() and process.returncode == 0
    assert not seen and looks > 20 and most >= 2


# Secrets.

PRIVATE = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE " + rb"KEY|AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{34}"
    rb"|xox[bp]-[0-9A-Za-z-]{20}|aws_secret_access_key\s*=\s*[A-Za-z0-9/+]{40}"
)


def test_no_committed_file_holds_a_key() -> None:
    assert PRIVATE.search(b"x AKIA" + b"ABCDEFGHIJKLMNOP") and PRIVATE.search(
        b"-----BEGIN RSA PRIVATE " + b"KEY-----"
    )
    for path in tracked_files():
        assert not PRIVATE.search(path.read_bytes()), path


def test_dvcs_local_settings_stay_out_of_git() -> None:
    done = subprocess.run(
        ["git", "check-ignore", ".dvc/config.local"], cwd=ROOT, capture_output=True, check=False
    )
    if done.returncode == 128:
        pytest.skip("no git repository here")
    assert done.returncode == 0
    assert ROOT / ".dvc/config.local" not in tracked_files()


@pytest.mark.slow
def test_a_secret_is_in_nothing_that_is_written_or_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From raw data to the publication, and where the remote fails."""
    pytest.importorskip("dvc", reason="DVC is not installed")
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    # Nothing is downloaded here, so nobody asks it.
    monkeypatch.setenv("ALL_PROXY", f"http://me:{SECRET}@127.0.0.1:9")
    (tmp_path / "project").mkdir()
    project = Repository(tmp_path / "project")
    # One experiment is enough, and its claim.
    del project.paper["experiments"]["main"], project.paper["claims"]["T-1"]
    project.save()
    project.commit("less")
    project.dvc("remote", "add", "--local", "web", f"http://me:{SECRET}@127.0.0.1:9/x")
    project.dvc("remote", "modify", "--local", "web", "password", SECRET)
    said = project.snakemake("report", "--verbose")
    said += project.cyclery("publish", "--verbose")
    said += project.cyclery("publish", "--remote", "web", expect=2)
    project.commit("results")
    said += project.cyclery("fetch", "--verbose")
    assert SECRET not in said
    files = [path for path in project.root.rglob("*") if path.is_file()]
    folders = {path.relative_to(project.root).parts[0] for path in files}
    assert {"results", ".snakemake", ".dvc", "published", ".git"} <= folders
    for path in files:
        assert path.name == "config.local" or SECRET.encode() not in path.read_bytes(), path
    assert "config.local" not in project.git("ls-files")
