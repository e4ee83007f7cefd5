"""The files around the code agree: hooks, CI, profiles, texts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from factories.checkout import ROOT, project, read, tracked_files
from factories.makefile import recipe
from packaging.requirements import Requirement
from packaging.version import Version

import cyclery
from cyclery.sharing.inside import MOST_INSIDE

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
    assert usage["report"] is True is usage["software-stack-deployment"]["report"]


def test_nothing_points_outside_the_repository() -> None:
    # Written in two parts, so that this file passes its own test.
    forbidden = [".." + "/shared", "/tmp/" + "venv", "/work" + "/main", "/root" + "/"]
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        for name in forbidden:
            assert name not in text, f"{path.relative_to(ROOT)} names {name}"


def test_no_committed_file_is_large() -> None:
    published = [path for path in tracked_files() if path.is_relative_to(ROOT / "published")]
    assert sum(path.stat().st_size for path in published) <= MOST_INSIDE
    for path in set(tracked_files()) - set(published):
        assert path.stat().st_size < 5 * 2**20, f"{path.relative_to(ROOT)}: over 5 MiB"
