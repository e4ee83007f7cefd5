"""A tiny project that is a git repository with DVC, and clones of it."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from factories.graph import ROOT, Copy

AS_SOMEBODY = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
# What makes a repository share.
FILES = ("dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitattributes", ".gitignore")
# Of a publication without archives.
INDEX: dict[str, Any] = {
    "format": 2, "tier": "smoke", "papers": ["one"], "seeds": 3, "checkpoints": "parents",
    "results": "results", "data": "results/data", "snakemake": "9.27.1",
    "packs": {}, "datasets": {}, "without_checkpoints": [],
}  # fmt: skip


class Repository(Copy):
    """A tiny project under git and DVC; its paper has a teacher and a student."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        # What is declared and not published, a plain `dvc pull` cannot bring.
        declared = yaml.safe_load((folder / "dvc.yaml").read_text())
        declared["stages"]["publish"]["foreach"] = ["smoke"]
        del declared["stages"]["atlas"]
        self.write("dvc.yaml", declared)
        self.paper["experiments"]["other"]["arms"]["student"] = {
            "parents": {"teacher": "plain"},
            "init": "teacher",
        }
        self.save()
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("a project")

    def git(self, *arguments: str) -> str:
        command = ["git", *AS_SOMEBODY, *arguments]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=self.root, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str, expect: int = 0) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == expect, output
        return output

    def cyclery(self, *arguments: str, expect: int = 0) -> str:
        return self.run("cyclery", *self.whole(*arguments), expect=expect)

    def whole(self, *arguments: str) -> list[str]:
        """Return a command that publishes weights, too: a tiny project's train again in no time."""
        return [*arguments, *(["--all-weights"] if arguments[0] == "publish" else [])]

    def dvc(self, *arguments: str) -> str:
        return self.run("dvc", *arguments)

    def clone(self, folder: Path) -> Repository:
        return _Clone(self, folder)

    def reproduce_and_publish(self, message: str) -> None:
        self.snakemake("report")
        self.cyclery("publish")
        self.commit(message)

    def nothing_to_train(self) -> bool:
        """Say whether all that the report lacks is made of records."""
        said = self.snakemake("--dry-run", "report")
        rules = set(re.findall(r"^(\w+) +\d+$", said, flags=re.MULTILINE))
        return rules <= {"evidence", "render", "report", "total"}

    def results(self, *names: str) -> dict[str, bytes]:
        """Return every file in folders of the results, by name; what is published by default."""
        folder = self.root / "results/smoke"
        names = names or ("records", "lr-range")
        paths = [p for name in names for p in (folder / name).rglob("*") if p.is_file()]
        # LaTeX's own log names paths.
        paths = [p for p in paths if p.name != "report.log"]
        return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


class _Clone(Repository):
    """A fresh clone of a repository."""

    def __init__(self, source: Repository, folder: Path) -> None:
        command = ["git", "clone", "--quiet", "--no-hardlinks", str(source.root), str(folder)]
        subprocess.run(command, check=True)
        self.root, self.tier, self.paper = folder, source.tier, source.paper


@cache
def published() -> Repository:
    """Return a repository whose tier is published and committed, made once. Do not write."""
    root, owner = Path(tempfile.mkdtemp(prefix="cyclery-published-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in processes that tests fork
            shutil.rmtree(root, ignore_errors=True)

    atexit.register(remove)
    found = Repository(root)
    found.reproduce_and_publish("results")
    return found
