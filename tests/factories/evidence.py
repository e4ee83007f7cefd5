"""Realistic evidence of three papers, made up and deterministic, for the tests of the report."""

from __future__ import annotations

import copy
import hashlib
import random
from math import cos, pi, sqrt
from statistics import fmean, stdev
from typing import Any

from cyclery.evidence.comparison import empty_row
from factories import benchmark_tables

Json = dict[str, Any]
T95 = {2: 12.71, 3: 4.303, 5: 2.776, 8: 2.365, 10: 2.262}
HOSTILE = '</script><b>"x"&amp;\\end{table}%$_#^~{}{{ 1 }}`\\input{/etc/passwd}'
DATA = "digits, 997 labels"
ARABIC = "\u0645\u0639\u062f\u0644 \u202e\u05d0\u05d1\u05d2"

PAPERS: list[Json] = [
    {
        "id": "gct",
        "title": "General Cyclical Training of Neural Networks",
        "authors": "Leslie N. Smith",
        "year": 2022,
        "arxiv": "2202.08835",
        "venue": "Adv. Artif. Intell. Mach. Learn. 3(1), 2023",
        "summary": "Training should be easy at the start, hard in the middle and easy again at the "
        "end. The paper names weight decay, temperature, loss, batch size, augmentation and "
        "clipping as quantities to cycle, and reads pretraining as the easy phase.",
        "deviations": [
            "The batch-size and augmentation cycles have no official code; ours follow the text.",
            "TResNet-M is replaced by a two-layer network with batch norm at this tier.",
        ],
    },
    {
        "id": "clr",
        "title": "Cyclical Learning Rates for Training Neural Networks",
        "authors": "Leslie N. Smith",
        "year": 2017,
        "arxiv": "1506.01186",
        "venue": "WACV 2017",
        "summary": "A learning rate that rises and falls between two bounds trains as well as a "
        "tuned schedule in fewer updates. One short range test finds the bounds.",
        "deviations": [],
    },
    {
        "id": "cfl",
        "title": "Cyclical Focal Loss",
        "authors": "Leslie N. Smith",
        "year": 2022,
        "arxiv": "2202.08978",
        "venue": "",
        "summary": "A loss that weights confident samples early and late, and hard ones between.",
        "deviations": ["Label smoothing 0.1 in every arm, as the official runs have."],
    },
]

CLAIMS: dict[str, list[tuple[str, str, str, str]]] = {
    "gct": [
        ("GCT-1", "Cycling weight decay beats a tuned constant weight decay.", "Table 1", ""),
        ("GCT-2", "Cycling the softmax temperature beats T = 1.", "Section 4", ""),
        ("GCT-3", "Cycling the clipping norm beats no clipping and constant clipping.", "", ""),
        ("GCT-5", "Cycling the batch size beats the best constant batch size.", "", "ours"),
        ("GCT-6", "Cycling augmentation strength beats the best constant one.", "", "ours"),
        ("GCT-8", "An easy last phase after fine-tuning beats the usual end.", "", "ours"),
        ("GCT-10", "Easy-hard-easy beats every other order at the same mean.", "Section 2", ""),
    ],
    "clr": [
        (
            "CLR-1",
            "Staged triangular2 equals the tuned fixed schedule in 36 % of the updates.",
            "Table 1",
            "",
        ),
        ("CLR-2", "The rise is needed: a plain decay does worse.", "Table 1", ""),
        ("CLR-3", "exp_range beats exponential decay with the same gamma.", "Table 1", ""),
        ("CLR-5", "With adaptive optimisers the benefit shrinks.", "Table 3", ""),
        ("CLR-6", "CLR is at least as good as the best fixed rate.", "Table 4", ""),
        ("CLR-10", "One short range test yields usable bounds.", "Section 3.3", ""),
        ("CLR-11", "The result is robust to the length of the cycle.", "Section 3.2", ""),
        ("CLR-12", "Triangular, Welch and Hann windows are equivalent.", "Section 3.1", ""),
        ("CLR-13", "Accuracy peaks at the end of each cycle.", "Figure 1", ""),
    ],
    "cfl": [
        ("CFL-1", "CFL beats label-smoothed cross-entropy and focal loss.", "Table 1", ""),
        ("CFL-3", "With 4,000 samples CFL beats cross-entropy and focal loss.", "Table 2", ""),
        ("CFL-4", "Under two-level imbalance CFL beats cross-entropy and focal loss.", "", ""),
        ("CFL-5", "On long-tailed sets CFL improves the open long-tailed result.", "Table 5", ""),
        ("CFL-7", "CFL takes no extra training time.", "Section 5", ""),
        ("CFL-9", "A cycle beats the one-way form and a constant mix.", "", "ours"),
    ],
}
VERDICTS = {
    "GCT-1": "reproduced", "GCT-2": "inconclusive", "GCT-3": "partly", "GCT-8": "not run",
    "GCT-10": "contradicted", "CLR-1": "reproduced", "CLR-2": "reproduced",
    "CLR-3": "inconclusive", "CLR-5": "partly", "CLR-12": "reproduced", "CLR-13": "contradicted",
    "CLR-6": "not run", "CFL-1": "inconclusive", "CFL-3": "reproduced", "CFL-5": "not run",
    "CFL-9": "contradicted",
}  # fmt: skip
EFFECT = {"reproduced": 1.1, "contradicted": -0.9, "partly": 0.8, "inconclusive": 0.12}
EXPERIMENTS = {
    "gct": ["weight decay", "temperature", "clipping", "batch size", "augmentation", "order"],
    "clr": ["policies", "decay forms", "optimisers", "range", "windows", "cycle length"],
    "cfl": ["full set", "4,000 samples", "imbalance 5:3", "imbalance 6:2", "order", "time"],
}
ARMS = [
    ("easy-hard-easy", "Easy-hard-easy, f = 2", "method"),
    ("easy-hard-easy-4", "Easy-hard-easy, f = 4", "method"),
    ("reversed", "Hard-easy-hard", "control"),
    ("mean", "Constant at the mean of the cycle", "control"),
    ("tuned", "Constant, tuned on validation", "baseline"),
    ("shuffled", "Shuffled in time", "control"),
]


def key(*parts: object) -> str:
    """Return a run key: 64 hex digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def interval(values: list[float]) -> list[float] | None:
    """Return the 95 % t interval of a mean."""
    if len(values) < 2:
        return None
    half = T95[len(values)] * stdev(values) / sqrt(len(values))
    return [fmean(values) - half, fmean(values) + half]


def metric(values: list[float], seeds: list[int]) -> Json:
    """Return one metric of an arm."""
    sd = stdev(values) if len(values) > 1 else None
    return {"mean": fmean(values), "sd": sd, "ci95": interval(values), "values": values,
            "seeds": seeds}  # fmt: skip


def comparison(claim: str, verdict: str, experiment: str, against: int, seeds: list[int]) -> Json:
    """Return one paired comparison whose effect suits the verdict."""
    rng = random.Random(f"{claim}{against}")
    equal = claim in {"CLR-1", "CLR-12"}
    shift = (
        0.02 if equal else EFFECT[verdict] * (1 if against != 3 or verdict != "partly" else -0.1)
    )
    spread = 0.15 if verdict != "inconclusive" else 0.7
    differences = [shift + rng.gauss(0, spread) for _ in seeds]
    ci = interval(differences) or [0.0, 0.0]
    mid = fmean(differences)
    pairs = [[key(experiment, "a", s), key(experiment, against, s)] for s in seeds]
    one = verdict if verdict != "partly" else ("reproduced" if against != 3 else "inconclusive")
    return {
        **empty_row("", "test_accuracy", "pp", "superiority"),
        "label": f"{ARMS[0][1]} against {ARMS[against][1].lower()}",
        "experiment": experiment, "arm": ARMS[0][0], "against": ARMS[against][0],
        "chosen": ARMS[against][0] if against == 4 else None, "metric": "test_accuracy",
        "unit": "pp", "test": "equivalence" if equal else "superiority",
        "margin": 0.5 if equal else 0.0, "effect": mid, "ci95": ci,
        "ci90": [mid + (ci[0] - mid) * 0.77, mid + (ci[1] - mid) * 0.77],
        "p": 0.004 if one == "reproduced" else 0.31,
        "p_holm": 0.0241 if one == "reproduced" else 1.0,
        "n": len(seeds), "sd": stdev(differences), "verdict": one, "reason": "",
        "seeds": seeds, "differences": differences, "keys": pairs,
    }  # fmt: skip


PRINTED: dict[str, Json] = {
    "CLR-2": {"value": 2.9, "unit": "pp", "source": "Table 1: 81.4 against 78.5",
              "confidence": "read"},
    "CFL-9": {"value": -0.4, "unit": "%", "source": "Figure 2", "confidence": "memory"},
}  # fmt: skip
REASONS = {
    "reproduced": "Every seed gained, and the interval lies above the margin.",
    "contradicted": "The interval lies wholly below the margin.",
    "partly": "Holds against the reversed cycle, not against the constant mean.",
    "inconclusive": "The interval spans the margin; 23 seeds would settle it at this spread.",
    "not run": "Needs ResNet-20 on Fashion-MNIST, which is not part of the smoke tier.",
}


def pooled_of(items: list[Json]) -> Json:
    """Return the row of a pooled mean, as it stands before its members."""
    return {
        **items[0], "label": "pooled over 2 experiments", "experiment": "", "arm": "pooled",
        "against": "all comparators", "chosen": None, "sd": None, "seeds": [], "differences": [],
        "keys": [], "pooled": {"k": 2, "tau2": 0.0, "q": 1.0, "se": 0.1, "experiments": []},
    }  # fmt: skip


def claim_of(entry: tuple[str, str, str, str], experiment: str, seeds: list[int]) -> Json:
    """Return one claim with its comparisons."""
    name, statement, source, own = entry
    verdict = VERDICTS.get(name, "inconclusive")
    picks = [] if verdict == "not run" else [2, 3, 4] if verdict == "partly" else [4]
    picks = [2, 4] if name in {"CFL-3", "CLR-12"} else picks
    picks = [1, 2, 3, 4, 5] if name == "GCT-10" else picks
    items = [comparison(name, verdict, experiment, p, seeds) for p in picks]
    if name == "GCT-10":
        items = [pooled_of(items), *items]
    if name == "GCT-2":
        items[0].update(
            naive95=[-0.5, 0.7],
            look={"number": 2, "of": 4, "seeds": 10, "planned": 20, "level": 0.99},
            fragile=[{"seeds": [3], "verdict": "reproduced"}],
            exploratory={"seeds": [10, 11], "differences": [-0.2, -0.2], "keys": [], "chosen": None,
                         "n": 12, "effect": -0.2, "naive95": None},
            left_out=["seed 7: diverged at step 3"], unequal_budget="a stated reason",
            units=[[0, 1], [2, 3], [4]], bca95=[-1.0, 0.3], against_metric="val_accuracy",
        )  # fmt: skip
    if name == "GCT-5":
        items[0].update(
            effect=None, ci95=None, ci90=None, p=None, p_holm=None, differences=[], seeds=[],
            keys=[], n=0, reason="-0.1 is no effect: too few seeds.",
        )  # fmt: skip
    if name == "CFL-4":
        items[0]["metric"] = "minority_accuracy"
        items.append({**items[0], "metric": "test_balanced_accuracy"})
        items.append({**items[0], "metric": "test_accuracy@0.5"})
        items.append({**items[0], "metric": "test_accuracy@1.0"})
    if name in PRINTED and items:
        items[0]["printed"] = PRINTED[name]
        if PRINTED[name]["unit"] == items[0]["unit"]:
            items[0]["of_printed"] = {"share": 0.38, "ci95": [-0.05, 0.81]}
    open_ = verdict in {"inconclusive", "not run"}
    return {
        "id": name, "statement": statement, "source": source or None,
        "own_definition": "Formula read off the stated principle." if own else None,
        "verdict": verdict, "reason": REASONS[verdict], "planned_seeds": 5,
        "n": len(seeds) if picks else 0, "seeds_to_settle": 23 if open_ else None,
        "seeds_for_power": None,
        "seconds_to_settle": 412.0 if verdict == "inconclusive" else 9100.0 if open_ else None,
        "comparisons": items, "note": "The paper tests this on ImageNet." if own else None,
    }  # fmt: skip


def cycle(arm: int, epoch: int, epochs: int) -> float:
    """Return a quantity between 1 (easy) and 8 (hard)."""
    x = epoch / (epochs - 1)
    eta = [abs(1 - 2 * x), 1 - 4 * x if x < 0.25 else (4 * x - 1) / 3, 1 - abs(1 - 2 * x)]
    hard = eta[arm] if arm < 3 else [0.5, 0.35, abs(1 - 2 * ((x * 7.3) % 1))][arm - 3]
    return 8 - 7 * hard


def experiment_of(paper: str, number: int, title: str, arms: int, seeds: list[int]) -> Json:
    """Return one experiment with its arms, curves and schedules."""
    rng = random.Random(f"{paper}{number}")
    epochs, arm_list, curves, schedules = 41, [], [], []
    for a, (name, label, role) in enumerate(ARMS[:arms]):
        top = 0.955 + rng.gauss(0, 0.006)
        values = [top + rng.gauss(0, 0.004) for _ in seeds]
        arm_list.append({
            "id": name, "label": label, "role": role,
            "own_definition": "The order is ours." if a == 1 else None,
            "method": "cycle (frequency 2)" if a < 2 else "constant", "data": DATA,
            "network": "bn_mlp 128-128", "n": len(seeds),
            "units": None, "ancestors_images": 0.0, "ancestors_views": 0.0,
            "ancestors_forwards": 0.0,
            "diverged": [{"seed": 3, "step": 118}] if (a, number) == (5, 2) else [],
            "metrics": {
                "test_accuracy": metric(values, seeds),
                "val_accuracy": metric([v - 0.004 for v in values], seeds),
                "test_nll": metric([0.16 + rng.random() / 50 for _ in seeds], seeds),
                "test_ece": metric([0.02 + rng.random() / 200 for _ in seeds], seeds),
                "minority_accuracy": metric([v - 0.02 for v in values], seeds),
                "test_balanced_accuracy": metric([v - 0.01 for v in values], seeds),
                "test_accuracy@0.5": metric([v - 0.01 for v in values], seeds),
                "test_accuracy@1.0": metric(values, seeds),
            },
            "images": 41 * 997, "views": 41 * 997, "forwards": 41 * 997, "updates": 41 * 15,
            "seconds": 2.8 + rng.random(),
            "keys": [key(paper, number, name, s) for s in seeds],
            "tuned": {"metric": "val_accuracy",
                      "trials": [{"factors": {"lr": f}, "val_accuracy": 0.9, "values": [0.9],
                                  "diverged": 0} for f in (0.5, 1, 2)],
                      "seeds": [1_000_000], "chosen": {"lr": 2}, "fallback": False}
            if (a, number) == (4, 1) else None,
        })  # fmt: skip
        for quantity in ("test_accuracy", "train_loss"):
            grid = list(range(0, epochs, 4))
            falls = quantity == "train_loss"
            mean = [
                (1 / (1 + e / 3) + 0.1 if falls else top - 0.8 / (1 + e * e / 4)) + 0.002 * a
                for e in grid
            ]
            curves.append({
                "arm": name, "metric": quantity, "epoch": grid, "mean": mean,
                "low": [m - 0.012 for m in mean], "high": [m + 0.012 for m in mean],
                "n": len(seeds),
            })  # fmt: skip
        for quantity in ("lr", "weight_decay", "momentum"):
            value = {
                "lr": [0.15 * (1 + cos(pi * e / epochs)) / 2 for e in range(epochs)],
                "weight_decay": [1e-5 * cycle(a, e, epochs) for e in range(epochs)],
                "momentum": [0.9] * epochs,
            }[quantity]
            schedules.append({"quantity": quantity, "arm": name, "epoch": list(range(epochs)),
                              "value": value})  # fmt: skip
    return {
        "id": f"{paper}-{number}", "title": title.capitalize(),
        "description": f"Arms that differ in the {title} alone, at equal budget, on digits.",
        "selection_rule": "last checkpoint",
        "command": f"make reproduce PAPER={paper} EXPERIMENT={paper}-{number} TIER=smoke",
        "settings": {"Dataset": "digits, 997 labels, 200 validation, 600 test",
                     "Network": "bn_mlp 128-128, relu", "Optimiser": "SGD, Nesterov, momentum 0.9",
                     "Epochs": "41", "Batch": "64", "Augmentation": "shift by 1"},
        "arms": arm_list, "curves": curves, "schedules": schedules,
        "warnings": ["Seed 3 of one arm diverged at step 118."] if number == 2 else [],
        "not_run": {"easy-hard-easy-8": "full control set at desk"} if number == 0 else {},
        "chain": [],
    }  # fmt: skip


def range_of(paper: str, log: bool, seeds: list[int]) -> Json:
    """Return a range test, exponential or linear from zero."""
    rng = random.Random(f"{paper}{log}range")
    lrs = [1e-4 * (1e5 ** (i / 99)) if log else 0.02 * i for i in range(100)]
    place = [i / 99 for i in range(100)]
    accuracy = [
        [max(0.1, 0.93 / (1 + 2.7 ** (-14 * (x - 0.35))) - max(0.0, x - 0.8) * 3)
         + rng.gauss(0, 0.008) for x in place] for _ in seeds
    ]  # fmt: skip
    loss = [
        [2.3 / (1 + 2.7 ** (14 * (x - 0.4))) + 0.2 + max(0.0, x - 0.8) ** 2 * 90 for x in place]
        for _ in seeds
    ]
    del loss[0][-3:]
    readings = {"rise": lrs[22], "steepest": lrs[35], "valley": lrs[50], "minimum_10": lrs[40]}
    return {
        "key": key(paper, "range", log), "label": "digits, bn_mlp, SGD, cross-entropy",
        "settings": {"Sweep": "exponential" if log else "linear", "Updates": "400"},
        "seeds": seeds, "lr": lrs, "accuracy": accuracy, "loss": loss, "base": lrs[22],
        "max": lrs[80], "readings": readings,
        "flags": [] if log else ["no drop seen, raise the upper end"],
    }  # fmt: skip


def evidence(experiments: int = 6, arms: int = 6, n: int = 5) -> list[Json]:
    """Return the evidence of three papers at the smoke tier."""
    seeds, out = list(range(n)), []
    for paper in PAPERS:
        name = paper["id"]
        titles = EXPERIMENTS[name][:experiments]
        ids = [f"{name}-{i}" for i in range(len(titles))]
        printed, tables = benchmark_tables.of_paper(name)
        out.append({
            "schema": 2, "tier": "smoke", "part": name, "title": paper["title"],
            "paper": copy.deepcopy(paper),
            "commands": {"part": f"make reproduce PAPER={name}", "report": "make reproduce"},
            "claims": [claim_of(entry, ids[i % len(ids)], seeds)
                       for i, entry in enumerate(CLAIMS[name])],
            "experiments": [experiment_of(name, i, title, arms, seeds)
                            for i, title in enumerate(titles)],
            "ranges": [range_of(name, True, seeds)]
            + ([range_of(name, False, seeds)] if name == "clr" else []),
            "printed": printed, "tables": tables,
            "provenance": {
                "commits": ["3f2a9c41d0be7713a5c2"], "devices": ["CPU, x86_64, 2 cores"],
                "versions": [{"python": "3.11.7", "torch": "2.14.1", "cyclery": "0.1.0"}],
                "seeds": seeds, "records": 36 * n, "diverged": 1, "seconds": 101.4 * n / 5,
                "images": 36 * n * 41 * 997, "warnings": [], "made": "2026-11-23T21:04:00+00:00"},
            "sha256": "0" * 64,
        })  # fmt: skip
    return out


def hostile() -> list[Json]:
    """Return evidence whose every free text attacks the markup, and whose lists have gaps."""
    [one] = [e for e in evidence(2, 3, 3) if e["part"] == "clr"]
    endless = "w" * 400
    one["paper"].update(title=HOSTILE, authors=ARABIC, summary=HOSTILE + " " + endless)
    one["paper"]["deviations"] = [HOSTILE, endless, ARABIC, "nul\x00 lone\ud800 \u2264 \u4e2d"]
    for claim in one["claims"]:
        claim.update(statement=HOSTILE, reason=ARABIC, source=endless)
        for item in claim["comparisons"]:
            item.update(label=HOSTILE + endless)
            item["printed"] = {"value": 0.5, "unit": HOSTILE, "source": ARABIC + endless,
                               "confidence": "memory"}  # fmt: skip
    for experiment in one["experiments"]:
        experiment.update(title=HOSTILE, command=HOSTILE, description=ARABIC, warnings=[HOSTILE])
        experiment["settings"] = {HOSTILE: endless, ARABIC: HOSTILE, "dataset": HOSTILE,
                                  "split": ARABIC, "network": endless}  # fmt: skip
        for arm in experiment["arms"]:
            arm.update(label=HOSTILE + ARABIC, role=endless, own_definition=HOSTILE)
            arm.update(data=HOSTILE, network=endless, method=ARABIC)
            arm["metrics"]["test_accuracy"]["mean"] = 0.9
            arm["keys"] = []
        for schedule in experiment["schedules"]:
            schedule["quantity"] += HOSTILE
    one["ranges"][0].update(label=HOSTILE, flags=[HOSTILE], readings={HOSTILE: 0.1, "x": None})
    one["printed"][0].update(method=HOSTILE, source=endless, value=None)
    benchmark_tables.attack(one, HOSTILE, ARABIC)
    one["commands"] = {"part": HOSTILE, "report": HOSTILE + endless}
    one["provenance"].update(devices=[HOSTILE], commits=[endless], versions=[{HOSTILE: HOSTILE}])
    return [one]
