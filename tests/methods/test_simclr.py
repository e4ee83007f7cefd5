"""SimCLR: one pass, gradients where they belong, switches, and the rate of its recipe."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import batches
from factories import engine as factory
from factories.threads import one_thread

from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.methods import simclr

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]
STRONG = ({"op": "random_resized_crop", "area": [0.3, 1.0]}, {"op": "colour_jitter"},
          {"op": "solarise", "threshold": 0.0, "p": 0.2})  # fmt: skip


def made(**given: Any) -> Run:
    """Return a new run of SimCLR on digits; what is no quantity and no recipe is the method's."""
    names = ("temperature", "margin", "lr", "optimiser", "optimiser_settings", "epochs")
    more = {name: given.pop(name) for name in names if name in given}
    return factory.run(factory.settings("simclr", method_settings=given, strong=STRONG, **more))


def begun(**given: Any) -> Run:
    """Return one before its first update."""
    run = made(**given)
    run.begin_epoch()
    return run


def test_both_views_pass_at_once_and_the_loss_is_of_directions_of_z() -> None:
    run = begun(output=16, temperature=0.3)
    batch = run._batch(40, None)
    nets = copy.deepcopy(run.models)
    passes: list[int] = []
    run.models["main"].register_forward_pre_hook(lambda *_: passes.append(-1))
    run.models["main"].get_submodule("body").register_forward_pre_hook(
        lambda _, x: passes.append(len(x[0]))
    )
    found, logs = factory.stepped(run, batch)
    assert passes == [80]  # once, and no logits
    z = nets["projector"](nets["main"].features(torch.cat(batch["pairs"].views)))  # type: ignore[operator]
    assert z.shape == (80, 16)
    s = F.normalize(z) @ F.normalize(z).T / 0.3
    expected = F.cross_entropy(s.fill_diagonal_(float("-inf")), torch.arange(80).roll(40))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(logs) == {"contrastive_accuracy", "contrastive_entropy", "collapse"}
    assert not any(value.requires_grad for value in logs.values())


def test_the_views_are_two_draws_of_one_distribution() -> None:
    batch = begun()._batch(40, None)["pairs"]
    first, second = batch.views
    assert first.shape == second.shape == (40, 1, 8, 8) and not torch.equal(first, second)


def test_gradients_reach_all_but_the_head() -> None:
    run = begun()
    factory.stepped(run)[0].backward()
    without = {
        f"{name}.{key}"
        for name, module in run.models.items()
        for key, p in module.named_parameters()
        if p.grad is None or not p.grad.any()
    }
    # The offset of z's batch norm is frozen at zero.
    assert without == {"main.head.weight", "main.head.bias", "projector.4.bias"}


def test_labels_change_nothing() -> None:
    run = begun()
    batch = run._batch(40, None)
    loss = factory.stepped(run, batch)[0]
    batch["pairs"].y.copy_(batch["pairs"].y.flip(0))
    assert torch.equal(factory.stepped(run, batch)[0], loss)


SWITCHES: dict[str, Json] = {
    "temperature": {"temperature": 0.1},
    "logistic": {"loss": "nt_logistic"},
    "logistic, other margin": {"loss": "nt_logistic", "margin": 1.0},
    "logistic, semi-hard": {"loss": "nt_logistic", "mining": "semi_hard"},
    "logistic, semi-hard, other margin": {
        "loss": "nt_logistic", "mining": "semi_hard", "margin": 0.02},
    "margin": {"loss": "margin"},
    "margin, semi-hard": {"loss": "margin", "mining": "semi_hard"},
    "other view's negatives": {"negatives": "other"},
    "no norm": {"normalise": False},
    "sum": {"loss_scale": "sum"},
    "linear head": {"head": "linear"},
    "no head": {"head": "none"},
    "three layers": {"layers": 3},
    "hidden units": {"hidden": 8},
    "length of z": {"output": 8},
    "length of features": {"output": None},
    "no norm inside": {"hidden_norm": False},
    "affine": {"output_norm": "affine"},
    "no norm outside": {"output_norm": "none"},
    "torch's weights": {"weights_std": None},
}  # fmt: skip


def after_two_updates(given: Json) -> tuple[float, ...]:
    run = begun(**given)
    losses = []
    for _ in range(2):
        losses.append(factory.stepped(run)[0].item())
        run.step(40)
    return tuple(losses)


def test_every_switch_computes_something_else() -> None:
    found = {name: after_two_updates(given) for name, given in SWITCHES.items()}
    found["default"] = after_two_updates({})
    # A margin is nothing to a loss that has none.
    assert found.pop("logistic, other margin") == found["logistic"]
    assert len(set(found.values())) == len(found)
    assert found["sum"][0] == pytest.approx(2 * found["default"][0], rel=1e-6)
    used = {key for given in SWITCHES.values() for key in given} | {"pool"}
    assert used == {field.name for field in fields(simclr.Settings)}


def test_settings_that_nothing_reads_are_named() -> None:
    for given in SWITCHES.values():
        static = {k: v for k, v in given.items() if k not in ("temperature", "margin")}
        settings, ignored = simclr.Settings(**static), simclr.ignored(simclr.Settings(**static))
        base = after_two_updates(given)
        norm = {"scale": "affine"}.get(settings.output_norm, "scale")
        others = {"temperature": 0.9, "margin": 0.9, "layers": 4, "hidden": 24, "output": 24,
                  "hidden_norm": not settings.hidden_norm, "output_norm": norm,
                  "weights_std": 0.5}  # fmt: skip
        for name in ignored:
            assert after_two_updates({**given, name: others[name]}) == base, (given, name)


def test_semi_hard_negatives_are_not_of_nt_xent() -> None:
    with pytest.raises(UserError, match="mining: must be all with loss: nt_xent"):
        simclr.Settings(mining="semi_hard")


# The recipe of the paper: LARS, warm-up from zero, cosine.
RECIPE: Json = {"optimiser": "lars", "epochs": 6,
                "lr": {"kind": "cosine", "peak": 2.0, "warmup_epochs": 2}}  # fmt: skip


def test_the_rate_starts_at_zero_and_follows_torchs_schedulers() -> None:
    run = begun(**RECIPE)
    rates = run.table.columns["lr"].tolist()
    warm = 2 * (len(rates) // 6)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    # LinearLR takes no start of 0; the value at its end is what counts.
    schedulers = [
        torch.optim.lr_scheduler.LinearLR(optimiser, 1e-12, 1.0, warm),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(rates) - warm),
    ]
    chain = torch.optim.lr_scheduler.SequentialLR(optimiser, schedulers, [warm])
    expected = []
    for _ in rates:
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        chain.step()
    assert rates[0] == 0 and max(rates) == 2.0
    assert rates == pytest.approx(expected, abs=1e-9)
    before = run.flat.data.clone()
    run.step(50)
    assert torch.equal(run.flat.data, before)


def test_whose_lars_it_is_matters_under_a_changing_rate_alone() -> None:
    def moved(variant: str, lr: Any) -> torch.Tensor:
        run = made(**{**RECIPE, "lr": lr, "optimiser_settings": {"variant": variant}})
        before = run.flat.data.clone()
        for _ in range(4):
            run.train_epoch()
        return run.flat.data - before

    first, second = (moved(variant, RECIPE["lr"]) for variant in ("simclr", "byol"))
    assert (first - second).norm() > 0.05 * first.norm()
    first, second = (moved(variant, 1.0) for variant in ("simclr", "byol"))
    assert (first - second).norm() < 1e-3 * first.norm()


def test_the_scale_of_the_loss_matters_to_lars_for_biases_and_norms_alone() -> None:
    moves = []
    for scale in ("mean", "sum"):
        run = begun(**{**RECIPE, "lr": 0.1}, loss_scale=scale)
        before = {name: p.detach().clone() for name, p in run.flat.params.items()}
        run.step(50)
        moves.append({name: p - before[name] for name, p in run.flat.params.items()})
    for name, move in moves[0].items():
        if move.any():
            factor = 1 if move.ndim > 1 else 2
            torch.testing.assert_close(moves[1][name], factor * move, rtol=1e-2, atol=1e-6)


def test_h_and_z_are_features_by_name() -> None:
    run = begun(output=16)
    x = batches.seen(begun(epochs=1))[0]["pairs"].x
    found = run.networks.features({k: m.eval() for k, m in run.models.items()}, x)
    assert found["features"].shape == (50, 32) and found["z"].shape == (50, 16)
    assert torch.equal(found["z"], run.models["projector"](found["features"]))


def test_views_of_an_image_come_to_find_each_other() -> None:
    """What it learns in a few epochs: the loss falls, and z does not collapse."""
    crop = ({"op": "random_resized_crop", "area": [0.6, 1.0]},)
    curve = factory.train(
        factory.settings("simclr", strong=crop, augment=(), epochs=20, split={"labels": 600})
    ).curve
    found = curve["train_contrastive_accuracy"]
    assert found[-1] > 2 * found[0]
    assert curve["train_loss"][-1] < curve["train_loss"][0] - 0.4
    assert 0.8 < curve["train_collapse"][-1] < 1.1
