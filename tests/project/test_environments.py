"""What is installed agrees: metadata, lock, imports, conda environments and their scripts."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from factories import checkout as checkout_factory
from factories.checkout import ROOT, project, read
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENVS = checkout_factory.files("workflow/envs/*.yaml")
# What `import NAME` calls the packages whose distribution has another name.
DISTRIBUTIONS = {
    "PIL": "pillow", "dp_accounting": "dp-accounting", "sklearn": "scikit-learn",
    "typing_extensions": "typing-extensions", "yaml": "pyyaml",
}  # fmt: skip


def requirements(*extras: str) -> dict[str, Requirement]:
    metadata = project()
    lines = [*metadata["dependencies"]]
    for extra in extras:
        lines += metadata["optional-dependencies"][extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def lock() -> dict[str, Requirement]:
    text = re.sub(r"^\s*#.*\n", "", read("requirements.lock"), flags=re.MULTILINE)
    pins = [Requirement(line) for line in text.splitlines()]
    assert len({r.name for r in pins}) == len(pins), "a package is pinned twice"
    return {canonicalize_name(r.name): r for r in pins}


def pinned(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not an exact pin"
    return specifier.version


def pip_section(env: Path) -> list[Requirement]:
    dependencies = yaml.safe_load(env.read_text(encoding="utf-8"))["dependencies"]
    (section,) = [item["pip"] for item in dependencies if isinstance(item, dict)]
    return [Requirement(line) for line in section]


# --- lock, metadata, environments


def test_lock_holds_exact_pins_and_no_index() -> None:
    for requirement in lock().values():
        pinned(requirement)
        assert requirement.url is None
    text = read("requirements.lock")
    assert "://" not in text
    assert not re.search(r"^\s*-", text, flags=re.MULTILINE), "an option of pip in the lock"


def test_lock_satisfies_the_metadata() -> None:
    pins = lock()
    for name, requirement in requirements("dev").items():
        assert name in pins, f"{name} is not in the lock: run `make lock`"
        assert requirement.specifier.contains(pinned(pins[name])), f"{requirement} excludes the pin"
    for name in requirements("tresnet").keys() - requirements("dev").keys():
        assert name not in pins, f"the optional {name} is in the lock"


def test_lock_names_the_pair_of_torch_and_torchvision_that_works() -> None:
    assert pinned(lock()["torch"]) == "2.14.1"
    assert pinned(lock()["torchvision"]) == "0.29.1"


def test_the_package_imports_only_what_it_declares() -> None:
    declared = requirements("tresnet", "tensorboard").keys()
    for path in checkout_factory.files("src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for name in {module.split(".")[0] for module in modules}:
                if name in sys.stdlib_module_names or name == "cyclery":
                    continue
                assert name not in ("dvc", "snakemake"), f"{path}: {name} is run, never imported"
                assert DISTRIBUTIONS.get(name, name) in declared, f"{path} imports {name}"


def test_there_is_one_training_and_one_report_environment() -> None:
    assert [env.stem for env in ENVS] == ["report", "train"]


@pytest.mark.parametrize("env", ENVS, ids=lambda env: env.stem)
def test_conda_environment_repeats_the_lock(env: Path) -> None:
    pins, direct = lock(), requirements("dev")
    section = pip_section(env)
    assert [r.name for r in section] == [canonicalize_name(r.name) for r in section]
    for requirement in section:
        assert pinned(requirement) == pinned(pins[requirement.name])
        # cuda-toolkit follows from torch; train.yaml lists it to name the CUDA build.
        assert requirement.name in direct or requirement.name == "cuda-toolkit"


@pytest.mark.parametrize("env", ENVS, ids=lambda env: env.stem)
def test_conda_environment_brings_python_and_pip(env: Path) -> None:
    content = yaml.safe_load(env.read_text(encoding="utf-8"))
    assert content["channels"] == ["conda-forge", "nodefaults"]
    plain = dict(item.split(" ") for item in content["dependencies"] if isinstance(item, str))
    assert plain.keys() == {"python", "pip"}
    (supported,) = Requirement(f"python{project()['requires-python']}").specifier
    assert supported.contains(plain["python"].lstrip("="))


def test_environments_cover_the_run_time_dependencies() -> None:
    listed = {r.name for env in ENVS for r in pip_section(env)}
    missing = requirements().keys() - listed
    # No rule exports, and so needs pyarrow.
    controlling = {"dvc", "pyarrow", "snakemake", "snakemake-executor-plugin-slurm"}
    assert missing == controlling, "no job of the graph needs those"


# --- the post-deploy scripts of the conda environments


def run_post_deploy(
    env: Path, checkout: Path, cwd: Path, bin_: Path
) -> subprocess.CompletedProcess:
    """Run the copy that Snakemake makes, with a `python` that prints its arguments."""
    script = checkout / ".snakemake" / "conda" / "0123abcd_.post-deploy.sh"
    script.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(env.with_suffix(".post-deploy.sh"), script)
    bin_.mkdir(exist_ok=True)
    stub = bin_ / "python"
    stub.write_text('#!/bin/sh\necho "python $*"\n', encoding="utf-8")
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        ["bash", str(script)], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("env", ENVS, ids=lambda env: env.stem)
@pytest.mark.parametrize("place", ["root", "below", "elsewhere"])
def test_post_deploy_installs_the_checkout(env: Path, place: str, tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    cwd = {"root": checkout, "below": checkout / "sub" / "folder", "elsewhere": tmp_path}[place]
    cwd.mkdir(parents=True, exist_ok=True)
    checkout.mkdir(exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    result = run_post_deploy(env, checkout, cwd, tmp_path / "bin")
    assert result.returncode == 0, result.stderr
    first, *rest = result.stdout.splitlines()
    assert first.startswith("python -m pip install --no-deps --no-build-isolation")
    assert first.endswith(f"--editable {checkout}")
    assert bool(rest) == (env.stem == "train"), "only the training one checks for CUDA"


@pytest.mark.parametrize("env", ENVS, ids=lambda env: env.stem)
def test_post_deploy_says_when_there_is_no_checkout(env: Path, tmp_path: Path) -> None:
    result = run_post_deploy(env, tmp_path, tmp_path, tmp_path / "bin")
    assert result.returncode != 0
    assert "No checkout of cyclery" in result.stderr
    assert "python" not in result.stdout
