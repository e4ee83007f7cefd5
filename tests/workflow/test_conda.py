"""Rules in an environment made by conda: what each runs works with PYTHONPATH unset.

conda itself is not here: a virtual environment with all packages but ours stands for what it makes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from factories import checkout as checkout_factory
from factories.graph import Copy

ROOT = checkout_factory.ROOT
RULES = "\n".join(path.read_text() for path in checkout_factory.files("workflow/rules/*.smk"))
# Rules that run something, with the environment and the command of each.
FOUND = {
    match[1]: (match[2], match[3])
    for match in re.finditer(
        r"^rule (\w+):(?:(?!^rule ).)*?\.\./envs/(\w+)\.yaml(?:(?!^rule ).)*?"
        r'cyclery(?:_at_tier)?\("""\s+([\w-]+)',
        RULES,
        flags=re.MULTILINE | re.DOTALL,
    )
}


def test_every_rule_that_runs_something_has_an_environment_and_our_command() -> None:
    parts = re.split(r"^rule ", RULES, flags=re.MULTILINE)[1:]
    running = {part.split(":")[0] for part in parts if "shell:" in part or "script:" in part}
    assert running == FOUND.keys() and len(running) == 8
    assert {env for env, _ in FOUND.values()} == {"train", "report"}


@pytest.mark.slow
@pytest.mark.parametrize("env", ["train", "report"])
def test_commands_start_with_pythonpath_unset(env: str, tmp_path: Path) -> None:
    (tmp_path / "checkout").mkdir()
    copy = Copy(tmp_path / "checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy.root / name)
    made = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = f"{made / 'bin'}{os.pathsep}{environment['PATH']}"

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=copy.root, env=environment, capture_output=True, text=True, timeout=300
        )

    # An old one that some Pythons bring; the environment files list the lock's.
    run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools")
    [site] = made.glob("lib/python3*/site-packages")
    # Found as they are, but what is installed as editable there is not.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert "No module named" in run("python", "-m", "cyclery", "--version").stderr
    script = copy.root / ".snakemake/conda/0123abcd_.post-deploy.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / f"workflow/envs/{env}.post-deploy.sh", script)
    deployed = run("bash", str(script))
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    where = run("python", "-c", "import cyclery; print(cyclery.__file__)")
    assert where.stdout.strip() == str(copy.root / "src/cyclery/__init__.py"), where.stderr
    for rule, (used, command) in FOUND.items():
        if used == env:
            started = run("python", "-m", "cyclery", command, "--help")
            assert started.returncode == 0, f"{rule}: {started.stderr}"
