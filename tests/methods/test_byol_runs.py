"""BYOL trained on digits: what is handed on, what is measured, and when it collapses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import byol as small
from factories import engine as factory
from factories import small_paper
from factories.replay import Recorder
from factories.threads import one_thread

from cyclery.authoring.try_methods import try_methods
from cyclery.engine.stream import Data
from cyclery.methods import byol
from cyclery.methods._contrastive import spread

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
Json = dict[str, Any]

T: list[Json] = [
    {"op": "random_resized_crop", "area": [0.4, 1.0]},
    {"op": "colour_jitter", "form": "byol"},
    {"op": "gaussian_blur", "kernel": 0.4, "p": 1.0},
]
T_PRIME: list[Json] = [*T[:2], {"op": "solarise", "p": 0.2}]
FEW: Json = {"test": 200, "validation": 100, "per_class": 4, "unlabelled": "all"}
METHOD: Json = {"name": "byol", **small.HEADS, "pool": "unlabelled", "views": "asymmetric"}
ENCODER: Json = {
    "method": METHOD, "split": FEW, "epoch_images": 400, "views": {"t": T, "t_prime": T_PRIME},
    "ema_decay": {"kind": "cosine", "peak": 0.9, "end": 1}, "ema_buffers": "own",
    "optimiser": {"name": "lars", "variant": "byol", "eta": 0.02},
    "lr": {"kind": "cosine", "peak": 1, "warmup_epochs": 1}, "weight_decay": 1e-6,
    "probes": {"h": {"name": "linear", "l2": [0.01]}, "z": {"name": "linear", "of": "z"}},
}  # fmt: skip
CHILD: Json = {
    "parents": {"encoder": "encoder"}, "split": FEW, "epoch_images": 40,
    "init": {"from": "encoder", "parts": ["features"]}, "frozen": ["features"],
}  # fmt: skip
ARMS: Json = {
    "encoder": ENCODER,
    "forms": {**ENCODER, "rates": {"predictor": 10}, "method": {
        **METHOD, "target_init": "other", "chunk": 10, "beta": 0.5, "head_norm": "group_ws"}},
    "linear": CHILD,
}  # fmt: skip
CLAIMS: list[Json] = [
    {"experiment": "main", "arm": "encoder", "against": {"constant": 0.5},
     "metric": "test_collapse"},
    {"experiment": "main", "arm": "encoder", "against": "forms", "metric": "test_effective_rank"},
]  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small_paper.planned(tmp_path_factory.mktemp("byol"), ARMS, CLAIMS)


def test_the_online_network_is_evaluated_and_handed_on_with_its_projector(plan: Any) -> None:
    run = small_paper.run(plan, "encoder", done=True)
    kept, online = run.weights(), run.models["main"].state_dict()
    assert all(torch.equal(kept[name], online[name]) for name in online)
    assert not torch.equal(kept["body.1.weight"], run.models["ema"].state_dict()["body.1.weight"])
    own = run.models["projector"].state_dict()
    assert {name: value for name, value in kept.items() if "/" in name}.keys() == {
        f"projector/{name}" for name in own
    }
    child = small_paper.run(plan, "linear")
    assert torch.equal(child.models["main"].state_dict()["body.1.weight"], kept["body.1.weight"])
    x = torch.randn(3, 1, 8, 8)
    found = byol.features(run.models, x, run.method_settings)
    torch.testing.assert_close(found["z"], run.models["projector"](found["features"]))


def test_it_resumes_as_it_went_on_and_its_indicators_are_figures(plan: Any, tmp_path: Path) -> None:
    whole = small_paper.trained(tmp_path / "whole", plan)
    again = small_paper.resumed(tmp_path / "again", plan)
    for arm, record in whole.items():
        assert record["status"] == "done"
        assert factory.figures(record) == factory.figures(again[arm]), arm
    record = whole["encoder"]
    assert 0.3 < record["final"]["test_collapse"] < 1.1
    assert 1 < record["final"]["test_effective_rank"] <= 16
    for name in ("test_collapse", "test_effective_rank"):
        assert len(record["curve"][name]) == len(record["curve"]["eval_epoch"])
    assert {"train_collapse", "train_target_collapse"} <= record["curve"].keys()
    assert set(record["final"]).isdisjoint({"test_accuracy", "val_accuracy"})


def test_a_captured_run_computes_what_an_eager_one_does(plan: Any) -> None:
    """With the stand-in for CUDA graphs: what a step decides on the host is decided for ever."""
    for arm in ("encoder", "forms"):
        recorder = Recorder()
        eager = small_paper.run(plan, arm, done=True)
        again = small_paper.run(plan, arm, done=True, recorder=recorder)
        assert recorder.replays >= again.updates
        state = again.state()
        for key, value in eager.state().items():
            assert torch.equal(value, state[key]), (arm, key)
        assert again.curve == eager.curve


def test_it_keeps_the_rules_of_methods(plan: Any) -> None:
    assert "all are good" in try_methods(plan)


def test_no_label_is_looked_at(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_paper.run(plan, "encoder", done=True)
    honest = Data.trained_on

    def wrong(data: Data, settings: Any, seed: int, ids: Any) -> Data:
        found = honest(data, settings, seed, ids)
        return replace(found, labels=(found.labels + 1).remainder(10))

    monkeypatch.setattr(Data, "trained_on", wrong)
    blind = small_paper.run(plan, "encoder", done=True)
    assert torch.equal(run.flat.data, blind.flat.data)


def test_indicators_of_spread_and_of_collapse() -> None:
    drawn = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert float(spread(drawn)) == pytest.approx(1, abs=0.02)
    assert float(byol.effective_rank(drawn)) == pytest.approx(16, rel=0.01)
    # Lengths do not matter, directions do.
    point = drawn[:1].expand(100, 16) * (0.1 + torch.rand(100, 1))
    assert float(spread(point)) < 1e-3
    assert float(byol.effective_rank(point)) == pytest.approx(1, abs=1e-3)
    plane = torch.cat([drawn[:, :2], torch.zeros(4000, 14)], 1)
    assert float(byol.effective_rank(plane)) == pytest.approx(2, rel=0.01)


# Of table 5b without negatives: target and predictor, and what of them there is in each cell.
CELLS = {
    "both": {},
    "no predictor": {"predictor": "none"},
    "no target": {"target": "online"},
    "neither": {"predictor": "none", "target": "online"},
}


@pytest.mark.slow
def test_three_of_the_four_cells_without_negatives_collapse_and_none_with_them() -> None:
    """BYOL-6, by the indicator: a probe of the digits hardly sees it."""
    more: Json = {
        "model_settings": {"hidden": [64]}, "split": {"labels": None, "per_class": None},
        "epoch_images": 1280, "batch": 128, "epochs": 15, "augment": (), "evaluations": 1,
        "lr": {"kind": "cosine", "peak": 0.1},
    }  # fmt: skip

    def collapse(beta: float, cell: Json) -> float:
        decay = {"ema_decay": 0.99} if cell.get("target") != "online" else {}
        given = small.settings(beta=beta, more={**more, **decay}, **cell)
        return factory.train(given).final()["test_collapse"]

    without = {name: collapse(0.0, cell) for name, cell in CELLS.items()}
    with_ = {name: collapse(1.0, cell) for name, cell in CELLS.items()}
    assert without.pop("both") > 0.6 and max(without.values()) < 0.4, without
    assert min(with_.values()) > 0.6, with_
