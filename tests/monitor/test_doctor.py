"""`cyclery doctor`: each thing found, missing and wrong, with its remedy, and the exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories.graph import Copy

from cyclery.cli.main import main
from cyclery.config.load import load
from cyclery.engine import machine
from cyclery.monitor import environment
from cyclery.plan.graph import Plan
from cyclery.plan.project_checks import check


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Copy(tmp_path).root


def plan(root: Path, **overrides: Any) -> Plan:
    return check(load(root, overrides))


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def bin_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_a_line_for_each_thing_and_the_exit_code(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(root), "doctor", "--set", "device=cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[1] for line in lines]
    assert names == ["Python", "packages", "device", "dataset", "disk", "DVC", "LaTeX", "SLURM"]
    assert {line.split()[0] for line in lines} <= {"ok", "missing", "wrong"}


def test_something_needed_that_is_wrong_ends_with_1(root: Path) -> None:
    (root / "results/data").mkdir(parents=True)
    (root / "results/data/digits.json").write_text("{}")
    said: list[str] = []
    assert environment.show(plan(root), said.append) == 1
    assert any(line.startswith("wrong   dataset") for line in said)


def test_python() -> None:
    assert environment.python((3, 11)).state == "ok"
    found = environment.python((3, 10))
    assert (found.state, found.needed) == ("wrong", True)
    assert "install 3.11 or newer" in found.text


def test_packages(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.packages(root).state == "missing"
    lock = root / "requirements.lock"
    numpy = environment.metadata.version("numpy")
    lock.write_text(f"numpy=={numpy}\n    # via us\nabsent-tool==1 ; python_version > '3'\n")
    found = environment.packages(root)
    assert (found.state, found.text[:11]) == ("ok", "1 installed")
    lock.write_text("numpy==0.1\n")
    found = environment.packages(root)
    assert (found.state, found.needed) == ("wrong", False)
    assert f"numpy {numpy} (lock: 0.1)" in found.text
    # What the package declares, and the lock has, must be there.
    monkeypatch.setattr(
        environment.metadata, "requires", lambda _: ["absent-tool>=1", "other>=2; extra == 'dev'"]
    )
    lock.write_text("absent-tool==1\nother==2\n")
    found = environment.packages(root)
    assert (found.state, found.needed) == ("missing", True)
    assert found.text.startswith("absent-tool;")


@pytest.mark.parametrize(
    ("there", "built", "wanted", "state", "said"),
    [
        (False, "13.0", "cpu", "ok", "no GPU is requested"),
        (False, "13.0", "auto", "ok", "runs train on CPUs"),
        (False, "13.0", "cuda", "wrong", "nvidia-smi"),
        (False, None, "cuda", "wrong", "install the build for CUDA"),
        (True, "13.0", "cuda", "ok", "torch sees A GPU"),
        (True, "13.0", "auto", "ok", "torch sees A GPU"),
    ],
)
def test_device(
    monkeypatch: pytest.MonkeyPatch, there: bool, built: str, wanted: str, state: str, said: str
) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: there, device_count=lambda: 1, get_device_name=lambda _: "A GPU"
    )
    torch = SimpleNamespace(__version__="2.14.1", version=SimpleNamespace(cuda=built), cuda=cuda)
    monkeypatch.setitem(sys.modules, "torch", torch)
    found = environment.device(wanted)
    assert (found.state, found.needed) == (state, state != "ok")
    assert said in found.text


def test_datasets(root: Path) -> None:
    [found] = environment.datasets(plan(root))
    assert (found.state, found.needed) == ("missing", False)
    assert "sklearn" in found.text, "the package brings the raw file of digits"
    assert main(["--root", str(root), "prepare", "digits"]) == 0
    [found] = environment.datasets(plan(root))
    assert found.state == "ok" and "1797 images" in found.text
    data = root / "results/data/digits.safetensors"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    [found] = environment.datasets(plan(root))
    assert (found.state, found.needed) == ("wrong", True)


def test_a_dataset_that_is_to_be_downloaded(root: Path, tmp_path: Path) -> None:
    said = environment._raw(plan(root), "cifar10")
    assert "a download of 170 MB" in said and "results/data/raw/cifar10" in said


def test_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.disk(plan(root)).state == "ok"
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    found = environment.disk(plan(root))
    assert (found.state, found.needed) == ("wrong", True)
    assert found.text.startswith("1 kB free") and "free some space" in found.text


@pytest.mark.slow
def test_dvc(root: Path, tmp_path: Path) -> None:
    assert environment.dvc(root).text == "nothing is published in this version"
    (root / "data.txt").write_text("data")
    (root / "dvc.yaml").write_text("stages: {one: {cmd: 'true', outs: [data.txt]}}\n")
    run = [sys.executable, "-m", "dvc"]
    for command in (
        ["git", "init", "--quiet"],
        [*run, "init", "--quiet"],
        [*run, "remote", "add", "--default", "team", str(tmp_path / "far")],
        [*run, "commit", "--force", "--quiet"],
    ):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    found = environment.dvc(root)
    assert found.state == "wrong" and "lacks data.txt" in found.text
    subprocess.run([*run, "push", "--quiet"], cwd=root, check=True, capture_output=True)
    assert environment.dvc(root).state == "ok"
    # Who has pulled nothing has nothing to complain of.
    shutil.rmtree(root / ".dvc/cache")
    assert environment.dvc(root).state == "ok"
    (root / ".dvc/config").write_text("[core]\n    remote = other\n")
    assert "no remote 'other'" in environment.dvc(root).text


def test_latex(bin_: Path) -> None:
    assert environment.latex().state == "missing"
    program(bin_, "pdflatex", "")
    assert environment.latex() == environment.Finding("LaTeX", "ok", str(bin_ / "pdflatex"))


def test_slurm(root: Path, bin_: Path) -> None:
    found = environment.slurm(root)
    assert (found.state, found.needed) == ("missing", False)
    for name in environment.SLURM:
        program(bin_, name, "")
    program(bin_, "sinfo", "echo gpu; echo cpu; echo debug")
    assert environment.slurm(root) == environment.Finding("SLURM", "ok", "partitions cpu, gpu")
    program(bin_, "sinfo", "echo long")
    found = environment.slurm(root)
    assert found.state == "wrong" and "no partition cpu, gpu here; there are long" in found.text
    program(bin_, "sinfo", "echo cannot reach the controller >&2; exit 1")
    assert "cannot reach the controller" in environment.slurm(root).text


def test_a_command_that_does_not_answer(
    root: Path, bin_: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "PATIENCE", 0.2)
    for name in environment.SLURM:
        program(bin_, name, "")
    program(bin_, "sinfo", "exec /bin/sleep 20")
    assert "no answer within 0.2 s" in environment.slurm(root).text


def test_it_is_light_at_import() -> None:
    code = (
        "import cyclery.monitor.environment, sys; "
        "sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False)
    assert done.returncode == 0


def test_bf16_on_a_processor_without_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message names the processor, who wants it, and both ways out."""
    monkeypatch.setattr(environment, "computes_bf16", lambda: False)
    assert not [*environment.precision(plan(root, device="cpu"))]
    tier = root / "config" / "tiers" / "smoke.yaml"
    tier.write_text(f"{tier.read_text()}  precision: bf16\n")
    wants = plan(root, device="cpu")
    [found] = environment.precision(wants)
    assert found.state == "wrong"
    assert found.needed
    assert "precision: bf16 needs a processor with AMX or AVX512-BF16" in found.text
    assert "set `precision: fp32`, or train on a GPU" in found.text
    assert machine.cpu_name() in found.text
    assert not [*environment.precision(plan(root, device="cuda"))]
    monkeypatch.setattr(environment, "computes_bf16", lambda: True)
    assert not [*environment.precision(wants)]
