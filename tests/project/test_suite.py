"""The suite itself: it looks at tracked files only, ends in time, and starts with what is long."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from factories import checkout as checkout_factory
from factories import slurm as slurm_factory
from factories.kill import running

# By its path: a folder of tests may have a conftest.py, too, which is a module of the same name.
_SPEC = spec_from_file_location("suite", checkout_factory.ROOT / "tests/conftest.py")
assert _SPEC is not None and _SPEC.loader is not None
conftest = module_from_spec(_SPEC)
_SPEC.loader.exec_module(conftest)

TIMES = """
import time
import pytest

def test_quick():
    time.sleep(60)

@pytest.mark.slow
def test_slow():
    time.sleep(3)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("src/one.py", "src/deep/two.py", "config/one.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    for name in ("train.log", "src/three.py", "config/mine.yaml"):
        (tmp_path / name).touch()
    return tmp_path


def test_what_a_user_left_is_not_seen(repository: Path) -> None:
    def found(*places: str) -> list[str]:
        paths = checkout_factory.tracked(*places, root=repository)
        return [path.relative_to(repository).as_posix() for path in paths]

    assert found() == ["config/one.yaml", "src/deep/two.py", "src/one.py"]
    assert found("src") == found("src/**/*.py") == ["src/deep/two.py", "src/one.py"]
    assert found("src/*.py", "config/*.yaml") == ["config/one.yaml", "src/one.py"]
    (repository / "src/one.py").unlink()
    assert found("src") == ["src/deep/two.py"]


def test_without_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(FileNotFoundError, match="not a git repository"):
        checkout_factory.tracked(root=tmp_path)


def test_a_copy_has_the_tracked_files(tmp_path: Path) -> None:
    checkout_factory.copy(tmp_path, "config/tiers", "Snakefile")
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    tracked = checkout_factory.files("config/tiers", "Snakefile")
    assert made == {path.relative_to(checkout_factory.ROOT).as_posix() for path in tracked}
    assert {"Snakefile", "config/tiers/smoke.yaml"} <= made


def test_a_test_that_hangs_ends_and_a_slow_one_has_more_time(tmp_path: Path) -> None:
    (tmp_path / "test_times.py").write_text(TIMES)
    (tmp_path / "conftest.py").write_text(Path(conftest.__file__).read_text())
    command = [sys.executable, "-m", "pytest", "-c", str(checkout_factory.ROOT / "pyproject.toml"),
               "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path),
               "-o", "timeout=1"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "Timeout (>1.0s)" in done.stdout


def test_everything_has_a_time_limit(pytestconfig: pytest.Config) -> None:
    assert 0 < float(pytestconfig.getini("timeout")) <= 300 < conftest.SLOW


def test_files_that_come_first_are_there() -> None:
    names = {path.name for path in checkout_factory.files("tests/**/*.py")}
    assert names.issuperset(conftest.FIRST)


def test_workers_follow_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers in ((1, 2), (2, 3), (64, 8)):
        monkeypatch.setattr(conftest.os, "sched_getaffinity", lambda _, n=cores: range(n))
        assert conftest.pytest_xdist_auto_num_workers() == workers


@pytest.mark.skipif(not slurm_factory.WITH_PARENT, reason="setpriv is not installed (util-linux)")
def test_daemons_end_with_the_tests_that_started_them() -> None:
    program = (
        "import subprocess, sys; from factories import slurm\n"
        "daemon = subprocess.Popen([*slurm.WITH_PARENT, 'sleep', '60'], start_new_session=True)\n"
        "print(daemon.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    daemon = parent.stdout.readline().strip()
    slurm_factory.wait_for(lambda: Path(f"/proc/{daemon}/comm").read_text() == "sleep\n")
    parent.kill()
    parent.communicate()
    slurm_factory.wait_for(lambda: not running(daemon), 20)
