"""Snakemake's metadata: whether a tier is finished, and the provenance of its outputs.

Snakemake keeps a file for each output, named by the output's path in URL-safe base64. With it, it
compares parameters and the checksums of inputs instead of times, which git and DVC do not keep.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.files import parse_json, write_atomic

# The longest name of a file on the common file systems; Snakemake splits longer ones into folders.
_LONGEST = 255
# Set for a Snakemake that is asked something from here.
NESTED = "CYCLERY_NESTED"


def snakemake_version() -> str:
    """Return the version of Snakemake that is installed."""
    return version("snakemake")


def same_minor(one: str, other: str) -> bool:
    """Say whether two versions of Snakemake keep what they remember in the same way."""
    return one.split(".")[:2] == other.split(".")[:2]


def memory(root: Path, output: str) -> Path:
    """Return the file in which Snakemake remembers how an output was made."""
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _LONGEST - 1] for i in range(0, len(name), _LONGEST - 1)]
    return root.joinpath(".snakemake", "metadata", *(f"@{p}" for p in parts[:-1]), parts[-1])


def forget(root: Path, outputs: Iterable[str]) -> None:
    """Let Snakemake forget how outputs were made, and that any was left incomplete."""
    for output in outputs:
        path = memory(root, output)
        path.unlink(missing_ok=True)
        incomplete = (
            root / ".snakemake" / "incomplete" / path.relative_to(root / ".snakemake" / "metadata")
        )
        incomplete.unlink(missing_ok=True)


def remember(root: Path, memories: Mapping[str, bytes]) -> None:
    """Let Snakemake remember how outputs were made elsewhere."""
    # Without it, Snakemake takes the folder for one of an old version, and converts it.
    (root / ".snakemake" / "incomplete").mkdir(parents=True, exist_ok=True)
    for output, content in memories.items():
        write_atomic(memory(root, output), content)


def is_memory(content: bytes) -> bool:
    """Say whether this is what Snakemake remembers of an output."""
    try:
        found = parse_json(content)
    except ValueError:
        return False
    return isinstance(found, dict) and {"rule", "params", "input"} <= found.keys()


def _locks(root: Path) -> Path:
    return root / ".snakemake" / "locks"


def is_locked(root: Path) -> bool:
    """Say whether Snakemake is at work in the folder, or was killed."""
    locks = _locks(root)
    return locks.is_dir() and any(locks.iterdir())


def refuse_locked(root: Path) -> None:
    """Raise a UserError where Snakemake is at work in the folder, or was killed."""
    if is_locked(root):
        raise UserError(
            f"{_locks(root)}: Snakemake is at work here; wait for it. If it was killed, run "
            "`snakemake --unlock` once."
        )


def selection(overrides: Mapping[str, Any]) -> list[str]:
    """Return overrides as arguments of Snakemake."""
    pairs = [f"{key}={json.dumps(value)}" for key, value in sorted(overrides.items())]
    return ["--config", *pairs] if pairs else []


def snakemake(
    cores: str, targets: Sequence[str], overrides: Mapping[str, Any], *options: str
) -> list[str]:
    """Return the command that makes targets, as a list of its words."""
    command = [sys.executable, "-m", "snakemake", "--cores", cores, *targets]
    return [*command, *selection(overrides), *options]


def to_do(root: Path, overrides: Mapping[str, Any], targets: Sequence[str]) -> dict[str, int]:
    """Return how many jobs of each rule targets still need; the targets do nothing themselves."""
    said = _snakemake(root, "--dry-run", *targets, *selection(overrides))
    if "Nothing to be done" in said:
        return {}
    counts = dict(re.findall(r"^([\w.-]+) +(\d+)$", said, flags=re.MULTILINE))
    for name in ("total", *targets):
        counts.pop(name, None)
    return {rule: int(count) for rule, count in counts.items()}


def told(jobs: Mapping[str, int]) -> str:
    """Return jobs in words, as in ``3 train, 1 evidence``."""
    return ", ".join(f"{count} {rule}" for rule, count in jobs.items())


def touch(root: Path, outputs: list[str], overrides: Mapping[str, Any]) -> None:
    """Let Snakemake take outputs, and all that they are made from, for what it would make."""
    if outputs:
        _snakemake(
            root, "--touch", "--forceall", "--quiet", "all", "--",
            *outputs, overrides=overrides,
        )  # fmt: skip


def _snakemake(root: Path, *arguments: str, overrides: Mapping[str, Any] | None = None) -> str:
    done = subprocess.run(
        snakemake("1", [], overrides or {}, *arguments),
        cwd=root,
        # Whoever asks holds the lock, and has put in place what there is to put.
        env={**os.environ, NESTED: "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    if done.returncode:
        last = [line for line in said.splitlines() if line.strip()][-3:]
        raise UserError(f"Snakemake failed: {' '.join(last)}")
    return said
