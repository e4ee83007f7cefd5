"""SimCLR's chain: what children take, what stays frozen, and what no run may look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories import small_paper
from factories.threads import one_thread

from cyclery.common.errors import UserError

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]
LINEAR: Json = {"name": "linear", "l2": [0.01]}
FEW: Json = {"test": 200, "validation": 100, "per_class": 4, "unlabelled": "all"}
ENCODER: Json = {
    "method": {"name": "simclr", "pool": "unlabelled", "output": 16}, "split": FEW,
    "epoch_images": 400, "probes": {"h": LINEAR, "z": {**LINEAR, "of": "z"}},
}  # fmt: skip
CHILD: Json = {"parents": {"encoder": "encoder"}, "split": FEW, "epoch_images": 40,
               "init": {"from": "encoder", "parts": ["features"]}}  # fmt: skip
ARMS: Json = {
    "encoder": ENCODER,
    "untrained": {**ENCODER, "lr": 0, "epochs": 1, "evaluations": 1},
    "linear": {**CHILD, "frozen": ["features"]},
    "tuned": {**CHILD, "init": {**CHILD["init"], "head": "fresh"}, "rates": {"head": 10}},
    "projected": {
        **CHILD, "method": {"name": "simclr", "output": 16, "pool": "unlabelled"},
        "init": {"from": "encoder", "parts": ["features", "projector"]}, "epoch_images": 400,
    },
    "scratch": {"split": FEW, "epoch_images": 40},
}  # fmt: skip
CLAIMS: list[Json] = [
    {"experiment": "main", "arm": "encoder", "against": "encoder", "metric": "test_h_accuracy",
     "against_metric": "test_z_accuracy"},
    {"experiment": "main", "arm": "encoder", "against": {"constant": 5},
     "metric": "train_contrastive_accuracy@1"},
]  # fmt: skip
TUNED: Json = {"experiment": "main", "arm": "tuned", "against": "scratch"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small_paper.planned(tmp_path_factory.mktemp("simclr"), ARMS, CLAIMS)


def test_a_chain_resumes_as_it_went_on(plan: Any, tmp_path: Path) -> None:
    whole = small_paper.trained(tmp_path / "whole", plan)
    again = small_paper.resumed(tmp_path / "again", plan)
    for arm, record in whole.items():
        assert record["status"] == "done"
        assert factory.figures(record) == factory.figures(again[arm]), arm


def test_linear_evaluation_trains_the_head_alone(plan: Any) -> None:
    encoder = small_paper.run(plan, "encoder", done=True).models["main"].state_dict()
    linear = small_paper.run(plan, "linear")
    head = linear.models["main"].head.weight.detach().clone()  # type: ignore[union-attr]
    for _ in range(3):
        linear.train_epoch()
    for name, value in linear.models["main"].state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(value, encoder[name]), name
    assert not torch.equal(linear.models["main"].head.weight, head)  # type: ignore[union-attr]


def test_tuning_begins_with_the_features_and_a_head_of_its_own(plan: Any) -> None:
    encoder = small_paper.run(plan, "encoder", done=True).models["main"].state_dict()
    scratch, tuned = (small_paper.run(plan, arm).models["main"] for arm in ("scratch", "tuned"))
    for name, value in tuned.state_dict().items():
        source = scratch.state_dict() if name.startswith("head") else encoder
        assert torch.equal(value, source[name]), name


def test_the_projector_is_handed_on(plan: Any) -> None:
    encoder, child = small_paper.run(plan, "encoder", done=True), small_paper.run(plan, "projected")
    for name, value in encoder.models["projector"].state_dict().items():
        assert torch.equal(child.models["projector"].state_dict()[name], value), name


def test_a_rate_of_zero_leaves_weights_and_measures_statistics(plan: Any) -> None:
    """The floor of probes: as it is drawn, with batch norm that has seen the views."""
    before, after = (
        small_paper.run(plan, "untrained"),
        small_paper.run(plan, "untrained", done=True),
    )
    assert torch.equal(before.flat.data, after.flat.data)
    norms = [run.models["main"].get_buffer("body.2.running_var") for run in (before, after)]
    assert not torch.equal(*norms)


def test_what_looks_like_the_newcomers_chain_is_refused(tmp_path: Path) -> None:
    def said(arms: Json, *claims: Json) -> str:
        with pytest.raises(UserError) as refused:
            small_paper.planned(tmp_path, arms, list(claims) or None)
        return str(refused.value)

    # A head that nothing has trained, or that has seen labels which the child has not.
    assert "arms.tuned.init: one/main/encoder trains no head" in said(
        {**ARMS, "tuned": {**CHILD, "init": "encoder"}}
    )
    labels = {"split": {**FEW, "per_class": 30}, "epoch_images": 40}
    assert "one/main/all learnt from other labels (split.per_class 30, this arm 4)" in said(
        {**ARMS, "all": labels,
         "tuned": {**CHILD, "parents": {"encoder": "all"}, "init": "encoder"}}
    )  # fmt: skip
    # Images of pretraining: 3 epochs of 400, in two views each, before 3 of 40.
    counted = "of which {} by the runs that it starts from, scratch 120)"
    assert f"(tuned 1,320, {counted.format('1,200')}" in said(ARMS, TUNED)
    assert f"(tuned 2,520, {counted.format('2,400')}" in said(ARMS, {**TUNED, "equal": "views"})
    # Figures that there are not.
    wrong = {"experiment": "main", "arm": "encoder", "against": "untrained"}
    assert "its method, simclr, trains no head; measure its features by `probes`" in said(
        ARMS, wrong
    )
    assert "test_h_accuracy" in said(ARMS, {**wrong, "metric": "test_q_accuracy"})
    assert small_paper.planned(tmp_path, ARMS, [{**TUNED, "unequal_budget": "pretraining is free"}])


def test_no_hidden_label_is_looked_at(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small_paper.assert_no_hidden_label_trains(plan, "tuned", monkeypatch)


def test_four_labels_of_a_class_go_further_with_learnt_features(tmp_path: Path) -> None:
    """The probe that shows it on digits, with the untrained network as a floor."""
    encoder = {**ARMS["encoder"], "epoch_images": 1200, "batch": 200, "epochs": 12,
               "evaluations": 1, "model": {"name": "small_cnn", "width": 16}, "augment": [],
               "strong": [{"op": "random_resized_crop", "area": [0.3, 1.0]}],
               "lr": {"kind": "cosine", "peak": 0.3}}  # fmt: skip
    arms = {"encoder": encoder, "untrained": {**encoder, "lr": 0, "epochs": 1}}
    plan = small_paper.planned(tmp_path, arms, None)
    found = small_paper.trained(tmp_path / "runs", plan)
    few, floor = (found[name]["final"]["test_h_accuracy"] for name in ("encoder", "untrained"))
    assert few > floor + 0.05, (few, floor)
