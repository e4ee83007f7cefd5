"""Tiny projects on digits: one tier, one paper, one experiment, two arms, and what a test adds."""

from __future__ import annotations

import atexit
import copy
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cyclery.cli.main import main
from factories.checkout import ROOT

Json = dict[str, Any]

TIER: Json = {
    "title": "tiny",
    "seeds": 2,
    "shard_by": "paper",
    "base": {
        "dataset": "digits",
        "split": {"test": 200, "validation": 100, "labels": 100},
        "model": "bn_mlp",
        "lr": 0.1,
        "batch": 50,
        "epochs": 5,
    },
}
PAPER: Json = {
    "title": "A paper",
    "authors": "-",
    "year": 2026,
    "summary": "-",
    "experiments": {
        "main": {
            "title": "main",
            "tiers": {"smoke": {}},
            "arms": {"plain": {}, "fast": {"lr": 0.2}},
        }
    },
    "claims": {
        "C-1": {
            "statement": "-",
            "comparisons": [{"experiment": "main", "arm": "fast", "against": "plain"}],
        }
    },
}


def arms(paper: Json) -> Json:
    found: Json = paper["experiments"]["main"]["arms"]
    return found


def comparison(paper: Json) -> Json:
    found: Json = paper["claims"]["C-1"]["comparisons"][0]
    return found


def write(root: Path, tier: Json, paper: Json, config: Json | None = None) -> None:
    shutil.copytree(ROOT / "config/datasets", root / "config/datasets", dirs_exist_ok=True)
    files = {
        "config.yaml": config or {"tier": "smoke"},
        "tiers/smoke.yaml": tier,
        "papers/one.yaml": paper,
    }
    for name, data in files.items():
        path = root / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(data, sort_keys=False))


def refused(root: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Return the one message that `cyclery check` refuses the configuration with."""
    assert main(["--root", str(root), *options, "check"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    assert said.err.startswith("cyclery: ")
    return said.err.strip()


def rich_paper() -> Json:
    """Return a paper that uses range tests, chains, tuning, best-of controls and sharing."""
    found = copy.deepcopy(PAPER)
    found["experiments"]["main"]["range"] = {"low": 0.01, "high": 3, "epochs": 20, "seeds": 2}
    arms(found).update(
        {
            "found": {"lr": "range", "role": "method", "label": "range & test"},
            "student": {"parents": {"teacher": "plain"}, "init": "teacher"},
            "moving": {
                "batch": {"kind": "cycle", "easy": 25, "hard": 50, "factor": 2},
                "clip_norm": {"kind": "cycle", "easy": 0.5, "hard": 2},
                "method": {"name": "cyclical_focal", "control": "scale_matched"},
            },
        }
    )
    found["experiments"]["twin"] = {
        "title": "twin", "tiers": {"smoke": {}}, "arms": {"plain": {}, "slow": {"lr": 0.01}},
    }  # fmt: skip
    found["claims"] |= {
        "C-2": {
            "statement": "the range test finds a good rate",
            "comparisons": [
                {
                    "experiment": "main",
                    "arm": "found",
                    "against": {"best_of": ["plain", "fast"], "by": "val_accuracy"},
                    "test": "non-inferiority",
                    "margin": 1,
                },
                {
                    "experiment": "main",
                    "arm": "range-test",
                    "against": {"constant": 0},
                    "metric": "range_deviation",
                    "test": "non-inferiority",
                    "margin": 0.477,
                    "lower_is_better": True,
                },
            ],
        },
        "C-3": {
            "statement": "the end is better than the middle",
            "comparisons": [
                {
                    "experiment": "twin",
                    "arm": "slow",
                    "against": "slow",
                    "metric": "test_accuracy@1",
                    "against_metric": "test_accuracy@0.4",
                }
            ],
        },
    }
    return found


def run(root: Path, *command: str, expect: int = 0) -> None:
    assert main(["--root", str(root), *command]) == expect


@cache
def trained() -> Path:
    """Return the root of a project that has run through every command, made once. Do not write."""
    root, owner = Path(tempfile.mkdtemp(prefix="cyclery-project-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in processes that tests fork
            shutil.rmtree(root, ignore_errors=True)

    atexit.register(remove)
    tier = copy.deepcopy(TIER)
    tier["base"]["evaluations"] = 5
    tier["seeds"] = 3
    write(root, tier, rich_paper(), {"tier": "smoke", "device": "cpu"})
    reported = root / "config/reported/one.csv"
    reported.parent.mkdir()
    reported.write_text("paper,table,metric,value,std,runs\none,1,accuracy,92.5,,5\none,2,a,,,\n")
    out = root / "results/smoke"
    for command in (
        ["prepare", "digits"],
        ["lr-range", "one", "--output", f"{out}/lr-range/one.jsonl"],
        ["train", "one/L0-0000", "--output", f"{out}/records/one/L0-0000.jsonl"],
        ["train", "one/L1-0000", "--output", f"{out}/records/one/L1-0000.jsonl"],
        ["evidence", "one", "--output", f"{out}/evidence/one.json", "--table", f"{out}/one.csv"],
        ["report", f"{out}/evidence/one.json", "--output", f"{out}/report/index.html"],
    ):
        run(root, *command, "--log", f"{root}/log.txt")
    return root


def evidence(project: Path) -> Json:
    found: Json = json.loads((project / "results/smoke/evidence/one.json").read_bytes())
    return found
