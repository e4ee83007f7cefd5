"""The Makefile as a user calls it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from factories.checkout import ROOT


def make(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call make, without the flags and settings of one that runs these tests."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PAPER", "PYTHON", "SEEDS", "TIER", "ARGS", "CORES")
    clean = {key: value for key, value in os.environ.items() if key not in ours}
    return subprocess.run(
        ["make", *arguments], cwd=cwd, env=clean | environment, capture_output=True, text=True
    )


def recipe(*arguments: str) -> list[str]:
    """Return the commands that make would run."""
    result = make("--dry-run", "--assume-old", ".venv/ready", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()
