"""Probes of runs: what they record, before any job and at the end, and what they leave alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import component, small_paper
from factories import engine as factory
from factories.component import Write
from factories.method import text
from factories.threads import one_thread
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from cyclery import methods, models
from cyclery.common.errors import UserError
from cyclery.engine.failures import Diverged
from cyclery.engine.run import Run

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Write]:
    """Return what writes a method's file."""
    with component.written(methods, tmp_path_factory.mktemp("methods")) as writer:
        yield writer


def planned(root: Path, arms: Json, **base: Any) -> Any:
    """Return a plan whose claim is about what every run has."""
    claim = {"experiment": "main", "arm": next(iter(arms)), "against": {"constant": 0},
             "metric": "seconds", "lower_is_better": False}  # fmt: skip
    return small_paper.planned(root, arms, [claim], **base)


def probed(root: Path, probes: Json, **arm: Any) -> Any:
    split = {"test": 200, "validation": 100, "per_class": 10, "unlabelled": None}
    method = {"name": "simclr", "output": 16}
    given: Json = {"method": method, "split": split, "probes": probes, **arm}
    return planned(root, {"encoder": given})


@pytest.fixture(scope="module")
def linear(write: Write, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Json]:
    root = tmp_path_factory.mktemp("linear")
    plan = probed(root, {"h": {"name": "linear", "l2": [0.1]},
                         "z": {"name": "linear", "l2": [0.1], "of": "z"}})  # fmt: skip
    return plan, small_paper.trained(root, plan)["encoder"]


def test_probes_are_figures_of_the_record_and_no_part_of_its_time(
    linear: tuple[Any, Json],
) -> None:
    from sklearn.linear_model import LogisticRegression

    plan, record = linear
    final = record["final"]
    assert {"test_h_accuracy", "val_h_accuracy", "test_z_accuracy"} <= final.keys()
    assert final["test_h_accuracy"] != final["test_z_accuracy"]
    assert record["probing_seconds"] > 0 and record["seconds"] > 0
    assert "test_accuracy" not in final
    json.loads(json.dumps(record, allow_nan=False))
    # On features of the same run, trained by hand.
    [job] = small_paper.jobs(plan)
    run = factory.train(job["settings"])
    found = {part: run.evaluator.features(run.ids[part])["z"].numpy() for part in ("train", "test")}
    labels = {part: run.data.labels[run.ids[part]].numpy() for part in found}
    assert found["train"].shape == (100, 16)
    fitted = LogisticRegression(max_iter=5000).fit(found["train"], labels["train"])
    score = fitted.score(found["test"], labels["test"])
    # Another strength of the penalty, so only about the same.
    assert final["test_z_accuracy"] == pytest.approx(score, abs=0.12)


def test_probes_are_the_same_bits_with_one_worker_and_with_two(
    linear: tuple[Any, Json], tmp_path: Path
) -> None:
    plan, record = linear
    again = small_paper.trained(tmp_path, plan, workers=2)["encoder"]
    assert factory.figures(again) == factory.figures(record)


def test_a_probe_changes_the_key_of_its_run_and_no_bit_of_it(
    linear: tuple[Any, Json], tmp_path: Path
) -> None:
    plan, record = linear
    plain = probed(tmp_path, {})
    [job], [other] = small_paper.jobs(plan), small_paper.jobs(plain)
    assert job["key"] != other["key"]
    assert {k: v for k, v in job["settings"].items() if k != "probes"} == other["settings"]
    [unprobed] = factory.trainer(tmp_path / "store").train([other])
    assert unprobed["curve"] == record["curve"]  # type: ignore[typeddict-item]


def test_nearest_neighbours_are_those_of_scikit_learn(write: Write, tmp_path: Path) -> None:
    plan = probed(tmp_path, {"near": {"name": "nearest", "k": 1}})
    record = small_paper.trained(tmp_path, plan)["encoder"]
    [job] = small_paper.jobs(plan)
    run = factory.train(job["settings"])
    x = {
        part: nn.functional.normalize(run.evaluator.features(run.ids[part])["features"]).numpy()
        for part in ("train", "test")
    }
    y = {part: run.data.labels[run.ids[part]].numpy() for part in x}
    score = KNeighborsClassifier(1).fit(x["train"], y["train"]).score(x["test"], y["test"])
    assert record["final"]["test_near_accuracy"] == pytest.approx(score, abs=0.006)


def probing(monkeypatch: pytest.MonkeyPatch, **probe: Any) -> Run:
    from cyclery.probes import resolve

    of = probe.pop("of", "features")
    resolved = {**resolve("linear", {"l2": (0.1,)}), "of": of}
    return factory.run({**factory.settings(epochs=1), "probes": {"h": resolved}})


def test_features_of_a_probe_that_are_not_there_are_named_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match=r"probes.h.of: the method 'supervised' has no features 'z"):
        probing(monkeypatch, of="z").prepare()
    factory.use_method(
        monkeypatch, features=lambda models, x, settings: {"features": x.mean(1), "z": x}
    )
    with pytest.raises(UserError, match=r"'z' must be a vector for each sample .*\[2, 1, 8, 8\]"):
        probing(monkeypatch, of="z").prepare()


def test_too_few_labels_of_a_class_are_named_before_training() -> None:
    from cyclery.probes import resolve

    probe = {**resolve("nearest", {"k": 1, "per_class": 5}), "of": "features"}
    settings = factory.settings(epochs=1)
    rare: Json = {"kind": "long_tail", "ratio": 0.1}
    split = {**settings["split"], "labels": None, "per_class": 30, "imbalance": rare}
    run = factory.run({**settings, "split": split, "probes": {"h": probe}})
    with pytest.raises(UserError, match=r"^probes\.h\.per_class: must be at most 3, for the trai"):
        run.prepare()


def test_features_that_are_not_finite_are_a_run_that_diverged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = probing(monkeypatch)
    factory.finish(run)
    assert run.measuring.probes()["test_h_accuracy"] > 0.1  # type: ignore[operator]
    run.flat.data.fill_(1e30)
    with pytest.raises(Diverged):
        run.measuring.probes()


def test_a_run_whose_features_are_not_finite_has_no_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    factory.use_method(
        monkeypatch, features=lambda models, x, settings: {"features": x.flatten(1) / 0}
    )
    settings = probing(monkeypatch).settings
    [record] = factory.trainer(tmp_path).train([factory.job(dict(settings), keep=True)])
    assert record["status"] == "diverged" and record["final"] == {}  # type: ignore[typeddict-item]
    assert record["diverged_step"] == 3 and "probing_seconds" not in record  # type: ignore[typeddict-item]
    assert "checkpoint_sha256" not in record


@pytest.mark.parametrize(
    ("probes", "arm", "said"),
    [
        (
            {"h": {"name": "linear"}},
            {"split": {"test": 200, "validation": 0, "per_class": 10}},
            "probes.h: the probe linear needs samples of the part validation",
        ),
        ({"h": {"name": "lienar"}}, {}, "Did you mean 'linear'"),
        ({"h": {"name": "linear", "l3": 1}}, {}, "unknown key 'l3'"),
        ({"H": {"name": "linear"}}, {}, "a label must be a small letter"),
    ],
)
def test_a_probe_that_cannot_be_is_one_message_before_any_job(
    probes: Json, arm: Json, said: str, write: Write, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        probed(tmp_path, probes, **arm)
    assert said in str(error.value) and str(error.value).count("\n") == 0


def test_a_network_without_features_has_no_probe(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.settings_type("bn_mlp"), "FEATURES", False)
    with pytest.raises(UserError, match="probes: the network 'bn_mlp' has no features before a"):
        probed(tmp_path, {"h": {"name": "linear"}})


def test_a_record_with_a_figure_that_is_not_defined_is_valid_json(
    write: Write, tmp_path: Path
) -> None:
    more = """
    def measures(settings):
        return ("test_odd_accuracy", "train_fit_accuracy")

    def evaluate(models, measured, settings):
        fit = {"train_fit_accuracy": 0.25 + measured.update / 1000}
        return {**fit, "test_odd_accuracy": float("nan")} if measured.last else fit
    """
    write("odd", text(more=more))
    plan = planned(tmp_path, {"odd": {"method": "odd"}}, epochs=4, evaluations=2)
    record = small_paper.trained(tmp_path, plan)["odd"]
    assert record["final"]["test_odd_accuracy"] is None
    assert json.loads(json.dumps(record, allow_nan=False))["status"] == "done"
    # A curve of the training samples has its own epochs, fewer than those of what steps log.
    from cyclery.records.metrics import curve, value

    assert curve(record, "train_fit_accuracy")[0] == [2, 4]
    assert value(record, "train_fit_accuracy@0.5") == record["curve"]["train_fit_accuracy"][0]
    assert len(curve(record, "train_loss")[0]) == 4
