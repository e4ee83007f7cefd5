"""A project as large as the matrix of the re-initialisation paper, and a run store that is full.

The paper (arXiv 2206.10011) trained more than 15,000 networks. Here: experiments are datasets x
networks, arms are methods x weight decays x learning rates, a cell is an arm with 5 seeds. Five
arms of other methods stand in for those of that paper (`reinit`, which came later), the last
with a parent, as born-again networks have: what a graph costs depends on their number.
"""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from evidence import record as made_up

from cyclery.common.seals import seal
from cyclery.config.load import load
from cyclery.engine.lookup import Lookup
from cyclery.plan.job_specs import shard_jobs
from cyclery.plan.snakemake_api import Graph
from cyclery.records.run_store import Store

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
NAME, SEEDS = "reinit-matrix", 5
DATASETS = ("fashion-mnist", "cifar10", "cifar100")
NETWORKS = {"mlp": "bn_mlp", "cnn": "small_cnn", "preresnet": "preresnet", "wrn": "wrn"}
WEIGHT_DECAYS = (0.0, 1e-4, 5e-4, 1e-3, 5e-3)


def _methods(at: Json, standard: str) -> dict[str, Json]:
    """Return the stand-ins for the paper's methods at one setting."""
    restarts = {"kind": "cycle", "easy": at["lr"], "hard": at["lr"] / 10}
    return {
        "standard": at,
        "restarts": {**at, "lr": restarts},
        "shrink": {**at, "method": {"name": "supervised", "label_smoothing": 0.1}},
        "layerwise": {**at, "method": {"name": "cyclical_focal"}},
        "bornagain": {**at, "method": {"name": "kd"}, "parents": {"teacher": standard}},
    }


def _arms(number: int) -> dict[str, Json]:
    """Return so many arms, a multiple of 25: more of them are more learning rates."""
    found: dict[str, Json] = {}
    for i, (j, decay) in product(range(number // 25), enumerate(WEIGHT_DECAYS)):
        at, name = {"lr": 0.01 * (i + 1), "weight_decay": decay}, f"-l{i}-w{j}"
        arms = _methods(at, f"standard{name}")
        found |= {method + name: arm for method, arm in arms.items()}
    return found


def write(folder: Path, cells: int, cells_per_job: int, experiments: int = 12) -> None:
    """Write a project of so many cells, a multiple of 25 for each experiment, so many a job."""
    for name in ("Snakefile", "workflow", "profiles", "config/datasets"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    matrix = list(product(DATASETS, NETWORKS.items()))[:experiments]
    declared = {
        f"{dataset}-{network}": {
            "title": f"{dataset}, {network}",
            "base": {"dataset": dataset, "model": model},
            "tiers": {"paper": {}},
            "arms": _arms(cells // experiments),
        }
        for dataset, (network, model) in matrix
    }
    tier = {
        "title": "the matrix of the re-initialisation paper",
        "seeds": SEEDS,
        "block": SEEDS,
        "cells_per_job": cells_per_job,
        "base": {
            "split": {"validation": 200, "labels": 1000},
            "batch": 100,
            "epochs": 100,
            "evaluations": 20,
        },
    }
    paper = {
        "title": "A matrix of 15,000 runs",
        "authors": "-",
        "year": 2022,
        "summary": "Stands in for the matrix of arXiv 2206.10011.",
        "experiments": declared,
        "claims": {"M-1": {"statement": "-", "not_run": {"all": "it measures the graph"}}},
    }
    # JSON is YAML, and written faster.
    files: dict[str, Json] = {
        "config.yaml": {"tier": "paper", "device": "cpu"},
        "tiers/paper.yaml": tier,
        f"papers/{NAME}.yaml": paper,
    }
    for path, data in files.items():
        target = folder / "config" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(data))


def fill(folder: Path) -> int:
    """Give every run a finished record under its run key; return how many there are."""
    graph = Graph.of(load(folder, {}))
    store, data = Store(folder / "results/store"), folder / graph.data
    data.mkdir(parents=True, exist_ok=True)
    for name in DATASETS:
        identity = graph.plan.project.datasets[name].identity
        manifest = {"identity": identity, "content_sha256": name}
        (data / f"{name}.json").write_text(json.dumps(manifest))
    lookup = Lookup(store, {name: data / f"{name}.json" for name in DATASETS})
    random, count = np.random.default_rng(0), 0
    for shard in graph.plan.closure(NAME):
        for job in shard_jobs(shard):
            key, own = job["key"], made_up(random, 0, 0, 0, 0)
            own |= {"key": key, "settings": job["settings"], "inputs": lookup.inputs(job)}
            place = store.folder(key)
            place.mkdir(parents=True)
            if job["keep"]:
                # Nobody reads weights here: that they are there is all that is asked.
                store.checkpoint(key).touch()
                own["checkpoint_sha256"] = "0" * 64
            # As the store writes it, without waiting for the disk 15,000 times.
            text = json.dumps(seal(own), indent=1, sort_keys=True) + "\n"
            (place / "record.json").write_text(text)
            (place / "lock").touch()
            count += 1
    return count
