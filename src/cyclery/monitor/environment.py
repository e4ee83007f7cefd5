"""The command ``cyclery doctor``: check packages, device, data and tools of this machine.

A line for each thing. What the configured tier cannot run without is needed; the rest serves the
report, sharing or a cluster.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from cyclery.common.errors import UserError, choices
from cyclery.config.load import read_yaml
from cyclery.data import outliers
from cyclery.engine.machine import computes_bf16, no_bf16
from cyclery.plan.graph import Plan

OLDEST_PYTHON = (3, 11)
# External commands that do not answer within so many seconds are reported as wrong.
PATIENCE = 60
SLURM = ("sbatch", "srun", "squeue", "scancel", "scontrol")


@dataclass(frozen=True)
class Finding:
    """The result of one check; ``needed`` where the tier does not run without it."""

    name: str
    state: Literal["ok", "missing", "wrong"]
    text: str
    needed: bool = False

    def __str__(self) -> str:
        return f"{self.state:<8}{self.name:<9} {self.text}"


def examine(plan: Plan) -> Iterator[Finding]:
    """Yield the result of each check, in the order in which they matter."""
    root = plan.project.root
    yield python(sys.version_info[:2])
    yield packages(root)
    yield device(plan.project.config.device)
    yield from precision(plan)
    yield from datasets(plan)
    yield disk(plan)
    yield dvc(root)
    yield latex()
    yield slurm(root)


def python(version: tuple[int, int]) -> Finding:
    """Compare the running Python with the oldest that the package takes."""
    if version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        text = f"{version[0]}.{version[1]}; install {oldest} or newer, then `make setup`"
        return Finding("Python", "wrong", text, needed=True)
    return Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def packages(root: Path) -> Finding:
    """Compare what is installed with the lock; other versions work, but move the last digits."""
    lock = root / "requirements.lock"
    if not lock.exists():
        return Finding("packages", "missing", f"{lock}; a clone of the repository has it")
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), re.M))
    found = {name: version for name in pins if (version := _version(name)) is not None}
    absent = [name for name in _declared() if name in pins and name not in found]
    if absent:
        text = f"{choices(absent)}; `make setup`, or pip install --requirement requirements.lock"
        return Finding("packages", "missing", text, needed=True)
    other = [f"{n} {v} (lock: {pins[n]})" for n, v in found.items() if not _same(v, pins[n])]
    if other:
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        text = f"{', '.join(other[:5])}{more}; `make setup` installs what results were made with"
        return Finding("packages", "wrong", text)
    return Finding("packages", "ok", f"{len(found)} installed, all as in requirements.lock")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _same(version: str, pin: str) -> bool:
    """Compare two versions; a local build, as in 2.14.1+cpu, is of the same version."""
    return version.partition("+")[0] == pin


def _declared() -> list[str]:
    """Return what the package needs at run time, without its extras."""
    try:
        lines = metadata.requires("cyclery") or []
    except metadata.PackageNotFoundError:
        # Run from its sources, without an installation.
        return []
    plain = (re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line)
    return [match[0].lower() for match in plain if match]


def device(wanted: str) -> Finding:
    """Check that torch sees the device that the configuration requires."""
    if wanted == "cpu":
        return Finding("device", "ok", "device: cpu, no GPU is requested")
    try:
        import torch
    except ImportError as error:
        text = f"torch cannot be imported ({error}); `make setup`"
        return Finding("device", "missing", text, needed=True)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("device", "ok", f"device: {wanted}, torch sees {', '.join(names)}")
    build = f"a build for CUDA {torch.version.cuda}" if torch.version.cuda else "a build for CPUs"
    if wanted == "auto":
        text = f"device: auto, torch {torch.__version__} ({build}) sees no GPU: runs train on CPUs"
        return Finding("device", "ok", text)
    remedy = (
        "look for its driver with nvidia-smi (a login node has none: srun --gpus=1)"
        if torch.version.cuda
        else "install the build for CUDA: `make setup`"
    )
    text = f"device: cuda, but torch {torch.__version__} ({build}) sees no GPU; {remedy}"
    return Finding("device", "wrong", text, needed=True)


def precision(plan: Plan) -> Iterator[Finding]:
    """Check that the processor computes bfloat16, where runs that want it would train on it."""
    names = [name for paper in plan.project.papers for name in plan.part_arms(paper)]
    wanted = ["/".join(n) for n in names if plan.arm(*n).settings["precision"] == "bf16"]
    if wanted and _on_cpu(plan.project.config.device) and not computes_bf16():
        yield Finding("precision", "wrong", f"{no_bf16()} ({wanted[0]} wants it)", needed=True)


def _on_cpu(wanted: str) -> bool:
    """Return whether runs would train on the CPU of this machine."""
    try:
        import torch
    except ImportError:
        return wanted == "cpu"
    return wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available())


def datasets(plan: Plan) -> Iterator[Finding]:
    """Verify the prepared datasets of the selected papers by their checksums."""
    from cyclery.data.prepare import open_prepared

    for name in _datasets(plan):
        manifest = plan.project.data / f"{name}.json"
        if not manifest.exists():
            text = f"{name}: not prepared yet, the first job does that, {_raw(plan, name)}"
            yield Finding("dataset", "missing", text)
            continue
        try:
            made, arrays = open_prepared(manifest, plan.project.datasets[name])
        except UserError as error:
            yield Finding("dataset", "wrong", f"{name}: {error}", needed=True)
        else:
            count = len(arrays["labels"])
            text = f"{name}: {count} images, checksum {made['content_sha256'][:12]}"
            yield Finding("dataset", "ok", text)


def _datasets(plan: Plan) -> list[str]:
    papers = plan.project.selected()
    arms = (arm for paper in papers for shard in plan.closure(paper) for arm in shard.arms)
    return sorted({name for arm in arms for name in outliers.names(arm.settings)})


def _raw(plan: Plan, name: str) -> str:
    """Say where the raw files of a dataset will come from."""
    from cyclery.data.raw import candidates
    from cyclery.data.sources import unverified

    dataset = plan.project.datasets[name]
    if dataset.place is not None:
        return f"from {dataset.place}"
    kept = plan.project.data / "raw" / name
    for folder, _, _ in candidates(dataset, kept):
        if all(
            any((folder / each).is_file() for each in (raw.name, raw.name.removesuffix(".gz")))
            for raw in dataset.files
        ):
            return f"from {folder}"
    if (other := unverified(dataset, kept)) is not None:
        return f"from {other}"
    size = sum(raw.bytes or 0 for raw in dataset.files) / 1e6
    return f"by a download of {size:.0f} MB; without a network, put its files into {kept}"


def disk(plan: Plan) -> Finding:
    """Compare the free space with what the plan will write."""
    from cyclery.plan.cost import amount, rows

    folder = plan.project.results
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    names = plan.project.selected()
    total = list(rows(plan, names))[-1]
    left = total["bytes"] * (1 - total["done"] / max(1, total["runs"]))
    for name in _datasets(plan):
        if not (plan.project.data / f"{name}.json").exists():
            dataset = plan.project.datasets[name]
            channels, height, width = dataset.shape
            left += sum(raw.bytes or 0 for raw in dataset.files)
            left += (dataset.train + dataset.test) * channels * height * width
    text = f"{amount(free)}B free in {folder}, about {amount(left)}B to be written"
    if free < left:
        text += "; free some space, or set `results` to another disk"
        return Finding("disk", "wrong", text, needed=True)
    return Finding("disk", "ok", f"{text} beside weights")


def dvc(root: Path) -> Finding:
    """Check that DVC's remote holds all that this version publishes."""
    from cyclery.sharing.dvc import Dvc

    if find_spec("dvc") is None:
        return Finding("DVC", "missing", "to share results: pip install 'dvc>=3.60,<4'")
    if not (root / "dvc.yaml").exists() or not (root / "dvc.lock").exists():
        return Finding("DVC", "ok", "nothing is published in this version")
    try:
        carrier = Dvc(root)
        remote = carrier.remote(None)
    except UserError as error:
        return Finding("DVC", "wrong", str(error))
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "status", "--cloud", "--json",
               "--remote", remote.name]  # fmt: skip
    code, out, errors = _ask(command, root)
    try:
        found = json.loads(out) if code == 0 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        lines = [line for line in errors.splitlines() if line.startswith("ERROR")] or errors.split(
            "\n"
        )
        text = f"{remote}: {lines[0].removeprefix('ERROR:').strip()}; see docs/sharing.md"
        return Finding("DVC", "wrong", carrier.redact(text))
    lacking = [name for name, state in found.items() if state in ("missing", "new")]
    if lacking:
        text = f"{remote} lacks {choices(lacking[:3])}; who has them: dvc push -r {remote.name}"
        return Finding("DVC", "wrong", carrier.redact(text))
    return Finding("DVC", "ok", carrier.redact(f"{remote} holds all that dvc.lock names"))


def latex() -> Finding:
    """Look for a LaTeX that makes a PDF of the report."""
    from cyclery.report.tex import COMPILERS

    for name in COMPILERS:
        if path := shutil.which(name):
            return Finding("LaTeX", "ok", path)
    text = "no report.pdf; Debian: apt-get install latexmk texlive-latex-extra texlive-science"
    return Finding("LaTeX", "missing", text)


def slurm(root: Path) -> Finding:
    """Look for SLURM's commands, and for the partitions that the profile names."""
    lacking = [name for name in SLURM if shutil.which(name) is None]
    if lacking:
        text = f"no {', '.join(lacking)}; needed on a cluster's login node alone"
        return Finding("SLURM", "missing", text)
    code, out, errors = _ask(["sinfo", "--noheader", "--format", "%R"], root)
    if code:
        errors = " ".join(errors.split())[:200]
        return Finding("SLURM", "wrong", f"sinfo: {errors}; see docs/cluster.md")
    there = sorted(set(out.split()))
    file = root / "profiles" / "slurm" / "partitions.yaml"
    try:
        named = list(read_yaml(file).get("partitions") or {})
    except UserError as error:
        return Finding("SLURM", "wrong", str(error))
    if unknown := [name for name in named if name not in there]:
        text = f"{file}: no partition {choices(unknown)} here; there are {choices(there)}"
        return Finding("SLURM", "wrong", text)
    return Finding("SLURM", "ok", f"partitions {choices(named)}")


def _ask(command: list[str], root: Path) -> tuple[int, str, str]:
    """Return the exit code, output and error output of a command."""
    try:
        done = subprocess.run(
            command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 1, "", f"no answer within {PATIENCE} s"
    except OSError as error:
        return 1, "", str(error)
    return done.returncode, done.stdout, done.stderr.strip() or done.stdout.strip()


def show(plan: Plan, say: Callable[[str], None] = print) -> int:
    """Print a line for each thing; return 1 where something needed is missing or wrong."""
    bad = False
    for finding in examine(plan):
        say(str(finding))
        bad |= finding.needed and finding.state != "ok"
    return int(bad)
