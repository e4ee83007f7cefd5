"""A tiny project with a random search, and one that has run through every command."""

from __future__ import annotations

import atexit
import copy
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from factories.project import PAPER, TIER, run, write

Json = dict[str, Any]

SEARCH: Json = {
    "trials": 6,
    "grace_epochs": 2,
    "last": 2,
    "space": {
        "lr": {"low": 1e-4, "high": 3, "scale": "log"},
        "weight_decay": {"low": 1e-5, "high": 0.1},
        "batch": [10, 20, 25],
    },
    "tied": {"weight_decay_norm": "weight_decay"},
}


def searched(tier: Json, paper: Json) -> None:
    """Search the values of two arms, of which one has a schedule; a third keeps its own."""
    main = paper["experiments"]["main"]
    main["search"] = copy.deepcopy(SEARCH)
    main["tiers"]["smoke"]["search"] = {}
    main["base"] = {
        "split": {"test": 200, "validation": 100, "labels": 100, "share": 2, "retrain": True},
        "epochs": 6,
    }
    main["arms"] = {
        "plain": {"searched": False},
        "fast": {"lr": {"kind": "cosine", "peak": 0.2, "end": 0.0}},
        "focal": {
            "method": {"name": "cyclical_focal"},
            "role": "method",
        },
    }


@cache
def trained() -> Path:
    """Return the root of a project whose searches have run, made once. Do not write."""
    root, owner = Path(tempfile.mkdtemp(prefix="cyclery-searches-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in processes that tests fork
            shutil.rmtree(root, ignore_errors=True)

    atexit.register(remove)
    tier, paper = copy.deepcopy(TIER), copy.deepcopy(PAPER)
    tier["seeds"] = 4
    searched(tier, paper)
    write(root, tier, paper, {"tier": "smoke", "device": "cpu"})
    out = root / "results/smoke"
    for command in (
        ["prepare", "digits"],
        ["train", "one/L0-0000", "--output", f"{out}/records/one/L0-0000.jsonl"],
        ["train", "one/L1-0000", "--output", f"{out}/records/one/L1-0000.jsonl"],
        [
            "evidence",
            "one",
            "--output",
            f"{out}/evidence/one.json",
            "--table",
            f"{out}/tables/one.csv",
        ],
        ["report", f"{out}/evidence/one.json", "--output", f"{out}/report/index.html"],
    ):
        run(root, *command, "--log", f"{root}/log.txt")
    return root
