"""What methods and the engine compute, in a few numbers, and what was recorded of it.

`make record` brings the record up to date: a method that is new, a version that was raised, other
code that computes the same. Comments, docstrings and layout count for nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cyclery import engine, methods
from cyclery.engine.stream import Data
from cyclery.engine.teachers import Trained
from cyclery.records import range_bounds
from factories import engine as factory

Json = dict[str, Any]

RECORDED = Path(__file__).parents[1] / "project" / "versions.json"
# Other processors round otherwise; a change of the computation is far larger than this.
TOLERANCE = 2e-4
RANGE = "reading of a range test"
ENGINE: dict[str, Json] = {
    **{f"optimiser {name}": {"optimiser": name, "lr": lr} for name, lr in {
        "sgd": 0.1, "adam": 0.002, "adamw": 0.002, "rmsprop": 0.001, "adagrad": 0.01,
        "adadelta": 1.0, "lars": 1.0,
    }.items()},
    **{f"network {name}": {"model": name, "lr": 0.02} for name in (
        "small_cnn", "wrn", "stochastic_depth",
    )},
    "range of learning rates": {"lr": {"kind": "one_cycle", "peak": 0.1}},
    "first labels": {"split": {"choose": "first"}},
    "imbalance": {"split": {"imbalance": {"kind": "two_level", "ratio": [5, 3]}}},
    "covering": {"augment": ({"op": "cutout", "size": 3}, {"op": "erasing"})},
    "order shuffled": {"weight_decay": factory.cycle(1e-1, 1e-2, order="shuffled")},
}  # fmt: skip
# Of methods that teach: what their defaults, which stand under `losses`, do not compute.
VARIANTS: dict[str, dict[str, Json]] = {
    "auxilearn": {
        "heads on features": {"embedding": None, "every": 4, "clamp": False, "held_out": 0.3},
    },
    "feature_distillation": {"as in the code": {"teacher": "training", "margins": "new"}},
    "moco": {"one group": {"groups": 1, "own_keys": "left_out", "keys": 100, "hidden": 64}},
    "kd": {
        "no labels": {"hard": 0.0},
        "cross-entropy as TAKD divides": {"form": "cross_entropy", "reduction": "mean"},
        "without T^2": {"squared": False},
        "permuted": {"targets": "permuted"},
        "unlabelled": {"inputs": "unlabelled"},
        "mixtures of both": {"inputs": "both", "mixup": 0.5, "hard": 0.0},
    },
    "ces_kd": {
        **{assignment: {"assignment": assignment}
           for assignment in ("random", "reversed", "single", "mean", "all")},
        **{unlocking: {"unlocking": unlocking} for unlocking in ("static", "easy_first")},
        **{difficulty: {"difficulty": difficulty}
           for difficulty in ("teacher_loss", "student_loss", "first_correct")},
        "unlocked over the whole run": {"rho": 1.0},
    },
    "deep_reference_priors": {
        "of three images, exactly": {"order": 3, "logarithm": "exact", "particles": 2},
        "fixmatch": {"objective": "fixmatch", "particles": 2},
        "supervised": {"objective": "supervised", "particles": 2},
    },
    "fixmatch": {
        "soft": {"target": "soft"},
        "soft, aligned": {"target": "soft", "alignment": "average"},
        "ctaugment": {"prediction_view": "ctaugment"},
    },
    "opencos": {
        "fixmatch": {"core": "fixmatch"},
        "left out, one norm": {"scores": "left_out", "auxiliary": False},
        "whole pool, uniform": {"filter": "none", "outside": "uniform"},
        "by hidden labels": {"filter": "oracle", "confident": 0.3, "balanced": False},
    },
    "proxynca": {
        "original": {"form": "original", "scale": 1.0, "norm": False, "embedding": 8},
    },
    "weak_labels": {"proxies": {"loss": "proxies"}},
    "reinit": {
        "layer by layer, distilled": {"reset": "layerwise", "distil": True, "tau": 2.0},
        "last block": {"reset": "last_block"},
        "full, three stages": {"reset": "full", "stages": 3},
        "norms left out": {"norms": False},
        "early stopping": {"stages": 1, "early_stopping": True},
    },
    "dp_sgd": {
        "calibrated, in parts": {"epsilon": 3.0, "views": 2, "chunk": 16},
        "neither clipped nor noise": {"private": False, "views": 0},
    },
    "remixmatch": {
        "as in OpenCoS": {
            "alignment": "history", "share": "batch", "statistics": "all", "labelled_view": "weak",
            "views": 1, "unmixed": False, "rotation": False,
        },
        "ctaugment": {"prediction_view": "ctaugment", "views": 2},
    },
    "self_training": {
        "fixed": {"kind": "fist", "alpha": 0.25},
        "random": {"kind": "rist", "stages": 4},
        "pseudo-labels": {"kind": "pseudo"},
        "human labels, no teacher": {"kind": "human", "teacher": "given"},
    },
    "simclr": {
        "logistic, semi-hard": {"loss": "nt_logistic", "mining": "semi_hard", "head": "linear"},
        "margin, other view": {"loss": "margin", "negatives": "other", "head": "none"},
        "products, three layers": {"normalise": False, "layers": 3, "loss_scale": "sum"},
    },
    "grad_l2": {"statistics moved twice": {"statistics": "twice"}},
    "cosine_loss": {"with cross-entropy": {"weight": 0.1}},
    "transformation_probe": {task: {"task": task} for task in ("noise", "sobel", "inversion")},
    "soteacher": {penalty: {"penalty": penalty} for penalty in ("l1", "l1_matched")},
    "vat": {
        "reverse, two iterations": {"divergence": "reverse", "iterations": 2},
        "joint": {"forward": "joint", "statistics": "all"},
    },
}  # fmt: skip


@cache
def parent(seed: int) -> Trained:
    """Return a network that was trained a little, so its statistics are not a new one's."""
    given = factory.settings(model="small_cnn", seed=seed, epochs=1, lr=0.02)
    return factory.trained(factory.train(given))


# Of chains: the settings that are changed, and the parents.
CHAINS: dict[str, tuple[str, Json, dict[str, list[int]]]] = {
    "start from a parent": ("supervised", {"init": "start", "init_share": 1.0}, {"start": [5]}),
    "start between networks": ("supervised", {"init": "start", "init_share": 0.3}, {"start": [5]}),
    "another draw": ("supervised", {"draw": "other"}, {}),
    "ensemble": ("kd", {}, {"teacher": [5, 6, 7]}),
    "reference": ("kd", {}, {"teacher": [5], "reference": [6]}),
}


@cache
def official() -> Data:
    """Return the digits in their official order, in which what is recorded was computed."""
    found = factory.data()
    assert found.order is not None and len(found.order) == len(found.labels)
    order = torch.from_numpy(np.argsort(found.order))
    return replace(found, images=found.images[order], labels=found.labels[order],
                   order=np.arange(len(order)))  # fmt: skip


@contextmanager
def in_official_order() -> Iterator[None]:
    """Inside, runs are trained on the digits in their official order."""
    data = official()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "data", lambda: data)
        factory.untrained.cache_clear()
        yield
    factory.untrained.cache_clear()


def losses(given: Json) -> list[float]:
    """Return the losses of a short run on real data."""
    with in_official_order():
        run = factory.train(given)
        final = run.final()
        # Of a head that nothing trains there is none.
        return [*run.curve["train_loss"], *(final[k] for k in ("test_nll",) if k in final)]


def method_values(name: str) -> list[float]:
    return losses(factory.everything(name, epochs=3, clip_norm=factory.cycle(1.0, 0.2)))


def engine_values(name: str) -> list[float]:
    return losses(factory.settings(epochs=2, **ENGINE[name]))


def variant_values(name: str, variant: str) -> list[float]:
    chosen = VARIANTS[name][variant]
    # An expert is unlocked on the way.
    more: Json = {
        "ces_kd": {"progress": {"kind": "linear", "start": 0.0, "end": 1.0}},
        # Of two blocks one can be kept.
        "reinit": {"model_settings": {"hidden": [32, 16]}},
    }.get(name, {})
    return losses(factory.everything(name, epochs=3, method_settings=chosen, **more))


def chain_values(name: str) -> list[float]:
    method, changes, parents = CHAINS[name]
    given = factory.settings(method, model="small_cnn", epochs=2, lr=0.02) | changes
    with in_official_order():
        taken = {key: [parent(seed) for seed in seeds] for key, seeds in parents.items()}
        run = factory.train(given, parents=taken)
        final = run.final()
    figures = [f"{part}_kl" for part in ("test", "val", "train") if f"{part}_kl" in final]
    return [*run.curve["train_loss"], final["test_nll"], *(final[figure] for figure in figures)]


def range_values() -> list[float]:
    accuracy = [0.1, 0.1, 0.12, 0.2, 0.4, 0.6, 0.7, 0.72, 0.71, 0.5, 0.3, 0.1]
    found = range_bounds.bounds([0.01 * 2**i for i in range(12)], accuracy, 10, 20.48)
    return [found["base"], found["max"]]


def values_of(name: str) -> dict[str, list[float]]:
    """Return all that is recorded of what a method computes."""
    variants = {each: variant_values(name, each) for each in VARIANTS.get(name, {})}
    return {"losses": method_values(name), **variants}


def engine_record() -> dict[str, list[float]]:
    """Return all that is recorded of what the engine computes."""
    values = {name: engine_values(name) for name in ENGINE}
    values |= {name: chain_values(name) for name in CHAINS}
    return {**values, RANGE: range_values()}


def update(path: Path, names: Sequence[str] = ()) -> list[str]:
    """Bring the record of these methods, or of all, up to date; return a line for each change.

    Where the code of a method changed under one version, its record stays and the new code is
    noted as computing the same, unless it does not: then SystemExit, which says what to raise.
    """
    before = json.loads(path.read_text())
    found, said = dict(before), []
    anew = before["engine"]["version"] != engine.ENGINE_VERSION
    for name in methods.names() if anew else names or methods.names():
        version, code, old = methods.load(name).version, methods.code(name), before.get(name, {})
        known = {} if anew or old.get("version") != version else old["values"]
        if known.keys() == {"losses", *VARIANTS.get(name, ())} and old["code"] == code:
            continue
        values = values_of(name)
        for what, own in values.items():
            if own != pytest.approx(known.get(what, own), rel=TOLERANCE):
                raise SystemExit(
                    f"{name}, {what}: other results; raise VERSION in methods/{name}.py"
                )
        said.append(f"{name}: other code that computes the same" if known else f"{name}: recorded")
        # What was recorded first stays: what is allowed to differ must not add up.
        values |= {what: own for what, own in known.items() if what in values}
        found[name] = {"version": version, "code": code, "values": values}
    if anew or before["engine"]["values"].keys() != {*ENGINE, *CHAINS, RANGE}:
        known = {} if anew else before["engine"]["values"]
        found["engine"] = {
            "version": engine.ENGINE_VERSION,
            "values": {name: known.get(name, own) for name, own in engine_record().items()},
        }
        said.append("engine: recorded")
    for name in before.keys() - {"engine", *methods.names()}:
        del found[name]
        said.append(f"{name}: is gone")
    if said:
        kept = [name for name in sorted(found) if name != "engine"]
        ordered = {name: found[name] for name in [*kept, "engine"]}
        path.write_text(json.dumps(ordered, indent=1) + "\n")
    return said


if __name__ == "__main__":
    print(*(update(RECORDED, sys.argv[1:]) or ["nothing has changed"]), sep="\n")
