"""The files around the code agree: lock, metadata, environments, Makefile, hooks, texts."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import checkout as checkout_factory
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import cyclery

ROOT = checkout_factory.ROOT
ENVS = checkout_factory.files("workflow/envs/*.yaml")
# What `import NAME` calls the packages whose distribution has another name.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))["project"]


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


def tracked_files() -> list[Path]:
    """Return the tracked files, and none that a user left here."""
    try:
        return checkout_factory.tracked()
    except FileNotFoundError:
        pytest.skip("not a git checkout")


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
    declared = requirements("tresnet").keys()
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
    controlling = {"dvc", "snakemake", "snakemake-executor-plugin-slurm"}
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


# --- the Makefile


def make(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # A make that runs these tests must not hand its own flags and settings on.
    ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PAPER", "PYTHON", "SEEDS", "TIER", "ARGS", "CORES")
    clean = {key: value for key, value in os.environ.items() if key not in ours}
    return subprocess.run(
        ["make", *arguments], cwd=cwd, env=clean | environment, capture_output=True, text=True
    )


def recipe(*arguments: str) -> list[str]:
    result = make("--dry-run", "--assume-old", ".venv/ready", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder with our Makefile and an interpreter that only pretends to install."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    stub = tmp_path / "fake-python"
    stub.write_text(
        "#!/bin/sh\n"
        'echo "$*" >> calls\n'
        'case "$*" in\n'
        "  *_base_executable*) echo ./fake-python;;\n"
        '  *"venv --clear"*) rm -rf .venv; mkdir -p .venv/bin; cp fake-python .venv/bin/python;;\n'
        '  *"pip install"*) test ! -e broken;;\n'
        "esac\n",
        encoding="utf-8",
    )
    stub.chmod(0o755)
    return tmp_path


def calls(folder: Path) -> list[str]:
    log = folder / "calls"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line for line in lines if line.startswith("-m ")]


def test_make_alone_documents_every_target() -> None:
    shown = make().stdout
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), flags=re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^  make {target} +\w", shown, flags=re.MULTILINE), target


def test_reproduce_passes_its_settings_on() -> None:
    first = recipe("reproduce")[0].rstrip()
    assert first == ".venv/bin/snakemake --cores all report --config tier=smoke"
    assert recipe("reproduce", "PAPER=clr", "SEEDS=20", "TIER=desk", "CORES=2")[0] == (
        '.venv/bin/snakemake --cores 2 report --config tier=desk "papers=[clr]" seeds=20'
    )
    assert recipe("reproduce", "TARGET=clr.CLR-2") == [
        ".venv/bin/snakemake --cores all clr.CLR-2 --config tier=smoke"
    ]


def test_reproduce_ends_with_what_is_whole_and_where_the_report_is() -> None:
    assert recipe("reproduce")[1] == ".venv/bin/cyclery verify --set tier=smoke"
    assert recipe("reproduce", "PAPER=clr,kd", "SEEDS=20", "PLANNED=20")[1] == (
        '.venv/bin/cyclery verify --set tier=smoke --set "papers=[clr,kd]" --set seeds=20'
        " --set planned=20"
    )


def test_tests_run_on_all_cores_unless_told_otherwise() -> None:
    assert recipe("test")[0].rstrip() == '.venv/bin/python -m pytest -n auto -m "not slow" --cov'
    assert recipe("test-all")[0].rstrip() == ".venv/bin/python -m pytest -n auto --cov"
    chosen = recipe("test", "ARGS=-n 0 --no-cov tests/plan/test_plan.py")[0]
    assert chosen.endswith(" --cov -n 0 --no-cov tests/plan/test_plan.py")


def test_pull_fetches_the_tier() -> None:
    assert recipe("pull")[0].rstrip() == ".venv/bin/cyclery fetch --set tier=smoke"
    assert recipe("pull", "TIER=desk", "ARGS=--remote team")[0] == (
        ".venv/bin/cyclery fetch --set tier=desk --remote team"
    )


def test_no_target_but_the_one_that_says_so_removes_results() -> None:
    assert not any("results" in line for line in recipe("clean"))
    assert any("results" in line for line in recipe("clean-results"))


def test_published_results_outlive_the_others(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("published/bench", "store", "smoke/report", ".hidden"):
        (tmp_path / "results" / name).mkdir(parents=True)
    assert make("clean-results", cwd=tmp_path).returncode == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["published"]
    (tmp_path / "results" / "published" / "bench").rmdir()
    (tmp_path / "results" / "published").rmdir()
    (tmp_path / "results").rmdir()
    assert make("clean-results", cwd=tmp_path).returncode == 0


def test_set_up_is_done_once(scratch: Path) -> None:
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    venv, dependencies, package = calls(scratch)
    assert venv == "-m venv --clear .venv"
    assert dependencies == "-m pip install --requirement requirements.lock"
    assert package.endswith("--editable .")
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    assert calls(scratch) == []


def test_an_interrupted_set_up_starts_afresh(scratch: Path) -> None:
    (scratch / "broken").touch()
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode != 0
    assert not (scratch / ".venv" / "ready").exists()
    (scratch / "broken").unlink()
    calls(scratch)
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    assert calls(scratch)[0] == "-m venv --clear .venv"


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_updates_the_environment(scratch: Path, name: str) -> None:
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    calls(scratch)
    later = (scratch / ".venv" / "ready").stat().st_mtime + 10
    os.utime(scratch / name, (later, later))
    assert make("setup", "PYTHON=./fake-python", cwd=scratch).returncode == 0
    assert [line.split()[1] for line in calls(scratch)] == ["pip", "pip"]


def test_no_usable_python_is_said_clearly(scratch: Path) -> None:
    result = make("reproduce", "PYTHON=/nowhere/python3.9", cwd=scratch)
    assert result.returncode == 2
    assert "No Python 3.11 or newer" in result.stderr
    assert "/nowhere/python3.9" in result.stderr
    assert not (scratch / ".venv").exists()


# --- hooks, CI, profile


def test_hooks_are_the_checks_of_make_lint() -> None:
    config = yaml.safe_load(read(".pre-commit-config.yaml"))
    entries = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    assert entries == recipe("lint")


def test_ci_ends_with_the_tests_and_the_workflow_calls_it() -> None:
    assert read(".ci/run").rstrip().endswith("make lint\nmake test")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    (job,) = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    assert job["steps"][-1]["run"] == ".ci/run"
    supported = Requirement(f"python{project()['requires-python']}").specifier
    pythons = job["strategy"]["matrix"]["python"]
    assert len(pythons) == 2
    assert all(supported.contains(version) for version in pythons)


def test_what_the_lock_pins_is_audited_every_week() -> None:
    workflow = yaml.safe_load(read(".github/workflows/audit.yml"))
    # YAML 1.1 reads the key `on` as true.
    assert workflow[True]["schedule"]
    assert workflow["jobs"]["audit"]["steps"][-1]["run"] == "make audit"
    assert "--requirement requirements.lock" in recipe("audit")[0]


def test_profile_is_found_and_limits_the_gpu(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "Snakefile").write_text(
        'rule one:\n    output: "x"\n    resources: gpu=1\n    shell: "touch {output}"\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    shown = result.stdout + result.stderr
    assert result.returncode == 0, shown
    assert "profiles/default" in shown
    assert re.search(r"Provided resources: .*gpu.*\b1\b", shown)
    assert "Host:" not in shown


def test_profile_holds_what_the_graph_relies_on() -> None:
    profile = yaml.safe_load(read("profiles/default/config.yaml"))
    assert profile["resources"] == {"gpu": 1}
    assert profile["scheduler"] == "greedy"
    assert profile["rerun-triggers"] == ["mtime", "params", "input"]
    assert profile["rerun-incomplete"] is True
    assert profile["max-checksum-file-size"] == 64 * 2**20
    assert "cores" not in profile, "how many cores is the user's choice"


def test_the_profile_for_slurm_repeats_the_default_but_for_its_limit() -> None:
    default, slurm = (
        yaml.safe_load(read(f"profiles/{name}/config.yaml")) for name in ("default", "slurm")
    )
    del default["resources"]
    assert default.items() <= slurm.items()
    assert slurm["executor"] == "slurm" and "resources" not in slurm
    assert slurm["slurm-requeue"] is True and slurm["retries"] >= 1
    # Relative names are looked for beside the profile.
    config, partitions = (
        yaml.safe_load(read(f"profiles/slurm/{slurm[key]}"))
        for key in ("configfile", "slurm-partition-config")
    )
    assert config == {"device": "cuda", "gres": None}
    gpus = {name: limits.get("max_gpu", 0) for name, limits in partitions["partitions"].items()}
    assert gpus == {"gpu": 1, "cpu": 0}


# --- the texts


def test_version_is_stated_once_and_repeated_rightly() -> None:
    assert str(Version(cyclery.__version__)) == cyclery.__version__
    assert yaml.safe_load(read("CITATION.cff"))["version"] == cyclery.__version__
    assert "version" in project()["dynamic"]


def test_licence_is_mit_everywhere() -> None:
    text = read("LICENSE")
    assert text.startswith("MIT License\n")
    assert "The Cyclery authors" in text
    assert project()["license"] == "MIT"
    assert yaml.safe_load(read("CITATION.cff"))["license"] == "MIT"


def test_changelog_has_a_place_for_the_next_entry() -> None:
    assert "\n## [Unreleased]\n" in read("CHANGELOG.md")


def test_catalog_entry_offers_conda_and_report() -> None:
    usage = yaml.safe_load(read(".snakemake-workflow-catalog.yml"))["usage"]
    assert usage["software-stack-deployment"]["conda"] is True
    assert usage["report"] is True


def test_nothing_points_outside_the_repository() -> None:
    # Written in two parts, so that this file passes its own test.
    forbidden = [".." + "/shared", "/tmp/" + "venv", "/work" + "/main", "/root" + "/"]
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        for name in forbidden:
            assert name not in text, f"{path.relative_to(ROOT)} names {name}"


def test_no_committed_file_is_large() -> None:
    published = [path for path in tracked_files() if path.is_relative_to(ROOT / "published")]
    assert sum(path.stat().st_size for path in published) <= 20_000_000
    for path in set(tracked_files()) - set(published):
        assert path.stat().st_size < 5 * 2**20, f"{path.relative_to(ROOT)}: over 5 MiB"
