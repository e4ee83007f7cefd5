"""The Dockerfile, the lock and the conda environments agree, and the image is as it should be."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from factories import checkout as checkout_factory

ROOT = checkout_factory.ROOT


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each in one line, without comments."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (word, rest.strip()) for line in lines if line for word, _, rest in [line.partition(" ")]
    ]


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def test_python_is_that_of_the_conda_environments() -> None:
    images = arguments("FROM")
    pythons = {re.match(r"python:(\d+\.\d+)-", image)[1] for image in images}  # type: ignore[index]
    for env in ("train", "report"):
        listed = yaml.safe_load((ROOT / f"workflow/envs/{env}.yaml").read_text())["dependencies"]
        [python] = [item for item in listed if isinstance(item, str) and item.startswith("python ")]
        assert pythons == {python.removeprefix("python =")}


def test_packages_are_those_of_the_lock_alone() -> None:
    installs = [run for run in arguments("RUN") if "pip install" in run]
    assert installs == ["python -m pip install --requirement /tmp/requirements.lock"]
    assert "requirements.lock /tmp/requirements.lock" in arguments("COPY")


def test_jobs_run_as_an_ordinary_user_and_install_nothing() -> None:
    words = [word for word, _ in instructions()]
    assert arguments("USER") == ["1000"]
    assert "--uid 1000" in " ".join(arguments("RUN"))
    assert set(words[words.index("USER") + 1 :]) == {"ENTRYPOINT", "CMD"}
    assert "PYTHONPATH=/cyclery/src" in " ".join(arguments("ENV"))


def ignored(path: str) -> bool:
    """Say whether the build does not see a file of the repository."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    parts = path.split("/")
    heads = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return any(
        fnmatch(head, pattern) or (pattern.startswith("**/") and fnmatch(name, pattern[3:]))
        for pattern in patterns
        for head, name in zip(heads, parts, strict=True)
    )


def test_the_build_sees_the_graph_and_nothing_that_is_made_or_secret() -> None:
    folders = ("workflow", "config", "profiles", "src")
    kept = {path.relative_to(ROOT).as_posix() for path in checkout_factory.files(*folders)}
    assert len(kept) > 100
    for path in {"Snakefile", "requirements.lock", "pyproject.toml", "dvc.yaml", *kept}:
        assert not ignored(path), path
    for path in (".git/config", ".venv/bin/python", ".snakemake/log/x", "results/store/x",
                 ".dvc/config.local", "src/cyclery/__pycache__/plan.pyc"):  # fmt: skip
        assert ignored(path), path


def test_it_is_clean() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (the extra `dev` brings it on Linux, x86_64)")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
