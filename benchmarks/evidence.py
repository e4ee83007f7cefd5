"""Time and memory of evidence and report for many runs, curves included.

    python benchmarks/evidence.py [--atlas] [runs ...]

Makes records of 20 papers (each: 5 experiments, 10 arms, as many seeds as it takes; 20 claims),
reads and judges them, and renders the report, each stage in a process of its own. Prints a line of
JSON for each size: seconds and peak memory of each stage, and of all. The goal is 15,000 runs in
60 s and 1.5 GB on two cores, linear in the runs. `--atlas` makes 21 papers at two tiers instead,
8,400 runs unless told, whose goal is 60 s and 1 GB.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

Json = dict[str, Any]
PAPERS, EXPERIMENTS, ARMS, CLAIMS = 20, 5, 10, 20
TIERS = ("smoke",)
ATLAS = {"PAPERS": 21, "TIERS": ("smoke", "laptop")}
EPOCHS, EVALUATIONS = 100, 20


def main() -> None:
    """Measure every size."""
    atlas = ["--atlas"] if "--atlas" in sys.argv else []
    sizes = [int(text) for text in sys.argv[1:] if text.isdigit()]
    for runs in sizes or ([8400] if atlas else [3750, 7500, 15000]):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cells = PAPERS * len(TIERS) * EXPERIMENTS * ARMS
            seeds = max(2, round(runs / cells))
            for paper in range(PAPERS):
                write(folder, paper, seeds)
            found: Json = {"runs": cells * seeds}
            for stage in ("read", "judge", "render"):
                options = ["--stage", stage, str(folder), str(seeds), *atlas]
                command = [sys.executable, __file__, *options]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[stage] = json.loads(done.stdout.splitlines()[-1])
            # Judging reads, too: what it takes alone is the difference.
            found["seconds"] = round(found["judge"]["seconds"] + found["render"]["seconds"], 1)
            found["peak_mb"] = max(found[stage]["peak_mb"] for stage in ("judge", "render"))
            page = folder / "report/index.html"
            found["page_mb"] = round(page.stat().st_size / 1e6, 1)
            print(json.dumps(found), flush=True)


def key(paper: int, experiment: int, arm: int, seed: int) -> str:
    """Return a run key; of 24 digits, as they are."""
    return f"{paper:06x}{experiment:06x}{arm:06x}{seed:06x}"


def write(folder: Path, paper: int, seeds: int) -> None:
    """Write the records of a paper as its shards have them."""
    from cyclery.common.seals import seal

    rng = np.random.default_rng(paper)
    lines = []
    for experiment in range(EXPERIMENTS):
        for arm in range(ARMS):
            for seed in range(seeds):
                lines.append(json.dumps(seal(record(rng, paper, experiment, arm, seed))) + "\n")
    path = folder / f"records/p{paper}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))


def record(rng: np.random.Generator, paper: int, experiment: int, arm: int, seed: int) -> Json:
    """Return a record with curves of the usual length; a later arm is a little better."""
    end = 0.9 + 0.002 * arm + 0.005 * rng.standard_normal()
    epochs = list(range(1, EPOCHS + 1))
    at = epochs[EPOCHS // EVALUATIONS - 1 :: EPOCHS // EVALUATIONS]
    rising = [end * (1 - 0.6 / (1 + e / 5)) + 0.003 * rng.standard_normal() for e in at]
    final = {f"{part}_{name}": float(end * scale) for part in ("val", "test", "train")
             for name, scale in (("accuracy", 1), ("nll", 0.3), ("ece", 0.02))}  # fmt: skip
    schedules = {name: {"kind": "constant", "value": 0.1} for name in
                 ("lr", "momentum", "weight_decay", "batch")}  # fmt: skip
    split = {"test": 600, "validation": 200, "labels": 200, "per_class": None, "choose": "random",
             "imbalance": None, "unlabelled": None, "share": 1, "folds": None,
             "fold": None}  # fmt: skip
    return {
        "schema": 1, "kind": "run", "key": key(paper, experiment, arm, seed), "status": "done",
        "settings": {
            "engine": 1, "method": {"name": "supervised", "version": 1, "settings": {}},
            "dataset": {"name": "digits", "identity": "d"}, "split": split,
            "model": {"name": "mlp", "settings": {}}, "optimiser": {"name": "sgd", "settings": {}},
            "schedules": schedules, "augment": [], "strong": [], "mu": None, "epoch_images": None,
            "ema_buffers": None, "init": None, "init_share": None, "draw": None, "epochs": EPOCHS,
            "precision": "fp32", "compile": False, "deterministic": True, "threads": 1,
            "evaluations": EVALUATIONS, "seed": seed, "parents": {}, "range": None,
        },
        "inputs": {"dataset": "c", "range": None, "parents": {}},
        "curve": {
            "epoch": epochs, "train_loss": [float(2 / (1 + e)) for e in epochs], "eval_epoch": at,
            **dict.fromkeys(("val_accuracy", "val_nll", "test_accuracy", "test_nll"), rising),
        },
        "final": {**final, "test_class_accuracy": [float(end)] * 10,
                  "train_class_count": [20] * 10},
        "images": 20000, "views": 20000, "updates": 400, "seconds": 2.0,
        "images_per_second": 10000.0, "device": "CPU", "commit": "abc", "cohort": 1,
        "versions": {"python": "3.11", "torch": "2.14.1", "cyclery": "0.1.0"},
        "started": "2026-01-01T00:00:00+00:00", "diverged_step": None,
    }  # fmt: skip


def experiments(paper: int, seeds: int) -> list[Json]:
    """Return a paper's experiments as the plan gives them."""
    grid = [float(e) for e in np.linspace(0, EPOCHS, 240)]
    return [
        {
            "id": f"e{e}", "title": f"Experiment {e}", "command": "snakemake", "settings": {},
            "description": "", "selection_rule": "last checkpoint", "not_run": {}, "chain": [],
            "arms": [
                {
                    "id": f"a{a}", "label": f"arm {a}", "role": "method", "own_definition": None,
                    "tuned": None, "runs": {seed: key(paper, e, a, seed) for seed in range(seeds)},
                    "schedules": {"lr": {"epoch": grid, "value": [a * x for x in grid]}},
                }
                for a in range(ARMS)
            ],
        }
        for e in range(EXPERIMENTS)
    ]  # fmt: skip


def claims() -> list[Json]:
    """Return claims over the arms of every experiment, one of them against the best of several."""
    return [
        {
            "id": f"C-{number}", "statement": f"Arm {number % ARMS} is better.", "not_run": {},
            "comparisons": [
                {
                    "experiment": f"e{e}", "arm": f"a{number % ARMS}", "metric": "test_accuracy",
                    "against": {"best_of": ["a0", "a1", "a2"]} if number % 5 == 4
                    else f"a{(number + 3) % ARMS}",
                }
                for e in range(EXPERIMENTS)
            ],
        }
        for number in range(CLAIMS)
    ]  # fmt: skip


def stage(name: str, folder: Path, seeds: int) -> None:
    """Do one stage and print what it took."""
    from cyclery.evidence import build as evidence
    from cyclery.records.readers import read_records
    from cyclery.report.build import build

    began = time.perf_counter()
    if name == "render":
        build([json.loads(f.read_bytes()) for f in sorted(folder.glob("evidence/*.json"))],
              folder / "report", "smoke")  # fmt: skip
    else:
        for tier, paper in itertools.product(TIERS, range(PAPERS)):
            records = read_records({folder / f"records/p{paper}.jsonl": []})
            if name == "judge":
                judge(evidence, folder, tier, paper, seeds, records)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds, busy = time.perf_counter() - began, time.process_time()
    found = {"seconds": round(seconds, 1), "cpu_seconds": round(busy, 1), "peak_mb": round(peak)}
    print(json.dumps(found))


def judge(evidence: Any, folder: Path, tier: str, paper: int, seeds: int, records: Json) -> None:
    """Write the evidence and the table of one paper at a tier; records are the same at each."""
    from cyclery.common.files import write_atomic

    about = {"id": f"p{paper}", "title": f"Paper {paper}", "authors": "-", "year": 2026,
             "arxiv": None, "venue": "", "family": "other", "summary": "-",
             "deviations": []}  # fmt: skip
    given = experiments(paper, seeds)
    found = evidence.build(tier, f"p{paper}", about, given, claims(), records)
    commands = {"part": "snakemake", "report": "snakemake"}
    found = {**found, "tables": [], "commands": commands, "sha256": ""}
    write_atomic(folder / f"evidence/{tier}-p{paper}.json", json.dumps(found, allow_nan=False))
    evidence.write_csv(evidence.tidy(given, records), folder / f"tables/{tier}-p{paper}.csv")


if __name__ == "__main__":
    if "--atlas" in sys.argv:
        globals().update(ATLAS)
    if sys.argv[1:2] == ["--stage"]:
        stage(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
