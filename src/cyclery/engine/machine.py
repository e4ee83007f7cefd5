"""Facts for the records: processor, versions, code hashes and git commit."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cyclery import __version__, methods
from cyclery.common.errors import UserError
from cyclery.common.source_hash import source_digest
from cyclery.records.record import Facts, Inputs, Job, Spent

# What computes, among the files of the package.
COMPUTING = (
    "__init__.py", "augment/*.py", *(f"data/{name}.py" for name in (
        "outliers", "resolution", "sizes", "split_parts", "split_settings", "splits",
    )), "models/**/*.py", "optim/**/*.py",
    "records/range_bounds.py", "records/trial_selection.py",
    "probes/*.py", "schedules/*.py", *(f"engine/{name}.py" for name in (
        "arithmetic", "cuda", "evaluation", "feeds", "halving", "hooks", "made", "masks",
        "measuring", "metrics", "networks", "packs", "parts", "program", "replay", "run",
        "samplers", "stack", "stacking", "stream", "study", "sweep", "table", "tape", "teachers",
        "widths",
    )),
)  # fmt: skip

if TYPE_CHECKING:
    import torch


def device_name(device: torch.device) -> str:
    """Return the name of the processor that computes."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_name()


def cpu_name() -> str:
    """Return the name of this machine's processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU {line.partition(':')[2].strip()}"
    return f"CPU {platform.machine()}"


@cache
def computes_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 by itself; else it is slower than float32.

    That is AMX or AVX512-BF16 on x86, the extension of the same name on ARM.
    """
    with contextlib.suppress(OSError):
        words = Path("/proc/cpuinfo").read_text().split()
        return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(words)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
        found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)
        return found.stdout.strip() == "1"
    return False


def check_precision(jobs: Iterable[Job], device: str) -> None:
    """Raise a UserError where jobs want bfloat16 of a CPU that does not have it."""
    wanted = [job["label"] for job in jobs if job["settings"]["precision"] == "bf16"]
    if device == "cpu" and wanted and not computes_bf16():
        raise UserError(f"{no_bf16()} ({len(wanted)} runs want it, such as {wanted[0]})")


def no_bf16() -> str:
    """Return what is wrong with bfloat16 on this processor, and what to do."""
    return (
        f"precision: bf16 needs a processor with AMX or AVX512-BF16, or bf16 on ARM, and this one "
        f"({cpu_name()}) has none; set `precision: fp32`, or train on a GPU"
    )


def facts(
    job: Job,
    inputs: Inputs,
    device: torch.device,
    commit: str | None,
    started: str,
    spent: Spent,
) -> Facts:
    """Return the facts that a record holds besides the outcome."""
    return {
        "schema": 1,
        "settings": job["settings"],
        "inputs": inputs,
        "images_per_second": spent["views"] / max(spent["seconds"], 1e-9),
        "device": device_name(device),
        "versions": versions(),
        "code": code(job["settings"]["method"]["name"]),
        "commit": commit,
        "started": started,
    }


@cache
def code(method: str) -> dict[str, str]:
    """Return the hashes of the code that decides a run's numbers: its method's, and the engine's.

    Versions say what is meant to be another computation; these say what is other code.
    """
    package = Path(__file__).parents[1]
    files = sorted(file for pattern in COMPUTING for file in package.glob(pattern))
    return {"method": methods.code(method), "engine": _digest(tuple(files))}


@cache
def _digest(files: tuple[Path, ...]) -> str:
    return source_digest(files)


def versions() -> dict[str, str]:
    """Return the versions that numbers may depend on."""
    import numpy
    import torch

    return {
        "cyclery": __version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def commit(root: Path) -> str | None:
    """Return the code's git commit, with ``+`` where files differ from it; None without git.

    A file of code or configuration that git does not have, nor ignores, is a difference too.
    """
    try:
        found = _git(root, "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+")
        if not found.endswith("+"):
            kinds = [f"{folder}/*.{kind}" for folder in ("src", "workflow", "config")
                     for kind in ("py", "smk", "yaml", "yml")]  # fmt: skip
            others = _git(root, "ls-files", "--others", "--exclude-standard", "--", *kinds)
            found += "+" if others else ""
    except (OSError, subprocess.SubprocessError):
        return None
    return found


def _git(root: Path, *command: str) -> str:
    found = subprocess.run(
        ["git", *command], cwd=root, capture_output=True, text=True, check=True, timeout=20
    )
    return found.stdout.strip()
