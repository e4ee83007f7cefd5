"""Copies of the repository's graph with a tiny paper, run by Snakemake."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]

TIER = {
    "title": "tiny",
    "seeds": 2,
    "block": 2,
    "shard_by": "paper",
    "base": {
        "dataset": "digits",
        "split": {"test": 200, "validation": 100, "labels": 100},
        "model": {"name": "bn_mlp", "hidden": [16]},
        "lr": 0.1,
        "batch": 50,
        "epochs": 5,
        "evaluations": 1,
    },
}
PAPER = {
    "title": "A tiny paper",
    "authors": "Nobody",
    "year": 2026,
    "summary": "Says little.",
    "experiments": {
        "main": {
            "title": "main",
            "tiers": {"smoke": {}},
            "range": {"low": 0.001, "high": 3, "epochs": 10, "points": 20},
            "arms": {
                "plain": {"role": "baseline"},
                "smooth": {"method": {"name": "supervised", "label_smoothing": 0.1}},
                "range": {"lr": "range", "role": "method"},
            },
        },
        # Its baseline is the same run as main/plain.
        "other": {
            "title": "other",
            "tiers": {"smoke": {}},
            "arms": {"plain": {"role": "baseline"}, "fast": {"lr": 0.2}},
        },
    },
    "claims": {
        "T-1": {
            "statement": "the range test helps",
            "comparisons": [{"experiment": "main", "arm": "range", "against": "plain"}],
        },
        "T-2": {
            "statement": "faster is better",
            "comparisons": [{"experiment": "other", "arm": "fast", "against": "plain"}],
        },
        "T-3": {"statement": "it scales", "not_run": {"all": "needs a larger machine"}},
    },
}


class Copy:
    """A copy of the repository's graph with one tiny paper."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in ("Snakefile", "workflow", "profiles", "src", "config/datasets"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source,
                    folder / name,
                    ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
                )
            else:
                shutil.copy(source, folder / name)
        self.paper = json.loads(json.dumps(PAPER))
        self.tier = json.loads(json.dumps(TIER))
        self.write("config/config.yaml", {"tier": "smoke", "device": "cpu"})
        self.save()

    def write(self, path: str, data: object) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(yaml.safe_dump(data, sort_keys=False))

    def save(self) -> None:
        self.write("config/tiers/smoke.yaml", self.tier)
        self.write("config/papers/tiny.yaml", self.paper)

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments], self.environment

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment in which the copy's own package comes first."""
        others = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([str(self.root / "src"), *([others] if others else [])])
        return {**os.environ, "PYTHONPATH": path}

    def snakemake(self, *arguments: str, expect: int = 0) -> str:
        command, environment = self.command(*arguments)
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=300
        )
        output = done.stdout + done.stderr
        assert done.returncode == expect, output[-4000:]
        return output

    def nothing_to_do(self) -> bool:
        """Say whether the graph has nothing left to do for the report."""
        return "Nothing to be done" in self.snakemake("--dry-run", "report")

    def _training_logs(self) -> list[Path]:
        logs = self.root / "results/smoke/logs"
        return [p for name in ("records", "checkpoints") for p in (logs / name).rglob("*.log")]

    def trained(self) -> int:
        """Return how many runs were trained, by the newest log of every job that can train."""
        ended = re.compile(r": (?:done|diverged) in [\d.]+ s$", re.MULTILINE)
        return sum(len(ended.findall(log.read_text())) for log in self._training_logs())

    def forget_logs(self) -> None:
        for log in self._training_logs():
            log.unlink()

    def records(self, group: str, level: str) -> str:
        """Return the text of the only file of records of a group at a level."""
        [path] = (self.root / "results/smoke/records" / group).glob(f"{level}-*.jsonl")
        return path.read_text()

    def figures(self) -> dict[str, object]:
        """Return what must be identical between two reproductions, by run key."""
        found = {}
        for path in (self.root / "results/store").rglob("record.json"):
            record = json.loads(path.read_text())
            found[record["key"]] = [
                record.get(name) for name in ("status", "curve", "final", "bounds", "accuracy")
            ]
        return found

    def evidence(self) -> dict[str, dict[str, object]]:
        data = json.loads((self.root / "results/smoke/evidence/tiny.json").read_text())
        return {claim["id"]: claim for claim in data["claims"]}
