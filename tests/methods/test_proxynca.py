"""ProxyNCA and ProxyNCA++: their losses, proxies, batches, rates and bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import small_paper
from factories.threads import one_thread
from sklearn.neighbors import NearestNeighbors

from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.methods import proxynca
from cyclery.models import build, settings_type

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

SPLIT: Json = {"test": 100, "validation": 50, "per_class": 30, "unlabelled": "rest",
               "open_set": {"classes": [0, 1, 2, 3, 4], "pool": 250,
                            "contamination": 1}}  # fmt: skip
ORIGINAL: Json = {"form": "original", "scale": 1.0, "norm": False}


def parts(classes: int = 5, width: int = 12, batch: int = 20) -> tuple[torch.Tensor, ...]:
    """Return embeddings [B, D], proxies [C, D] and classes [B]."""
    draws = torch.Generator().manual_seed(0)
    e, proxies = (torch.randn(n, width, generator=draws) for n in (batch, classes))
    return e, proxies, torch.arange(batch) % classes


def begun(**method: Any) -> Run:
    """Return a run of the method before its first update."""
    return factory.begun(factory.settings("proxynca", method_settings=method))


def moved(given: Json) -> dict[str, torch.Tensor]:
    """Return how far the first update moves every parameter."""
    run = factory.begun(given)
    before = {name: p.detach().clone() for name, p in run.flat.params.items()}
    run.step(20)
    return {name: p.detach() - before[name] for name, p in run.flat.params.items()}


# The loss.


def test_the_loss_is_a_cross_entropy_of_cosines_at_a_low_temperature() -> None:
    run = begun()
    batch = run._batch(20, None)
    loss, logs = factory.stepped(run, batch)
    models: Any = run.models
    x = models["embedding"](models["main"].features(batch.x))
    cosine = F.normalize(x) @ F.normalize(models["proxies"].weight).T
    torch.testing.assert_close(loss, F.cross_entropy(18 * cosine, batch.y), rtol=1e-5, atol=0)
    assert not logs


def test_the_loss_is_that_of_pytorch_metric_learning() -> None:
    from pytorch_metric_learning.losses import ProxyNCALoss

    e, proxies, y = parts()
    # Its scale is the square of the paper's.
    theirs = ProxyNCALoss(num_classes=5, embedding_size=12, softmax_scale=9)
    with torch.no_grad():
        theirs.proxies.copy_(proxies)
    e.requires_grad_()
    own = proxynca.loss(proxynca.distances(e, proxies, 3.0), y, "probability")
    other = theirs(e, y)
    torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)
    [one], [two] = (torch.autograd.grad(each, e) for each in (own, other))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_original_form_leaves_the_proxy_of_the_class_out_of_the_sum(scale: float) -> None:
    e, proxies, y = parts()
    found = []
    for own, label in zip(e.double(), y.tolist(), strict=True):
        d = [(scale * (own / own.norm() - f / f.norm())).square().sum() for f in proxies.double()]
        others = sum(torch.exp(-each) for c, each in enumerate(d) if c != label)
        found.append(d[label] + torch.log(torch.as_tensor(others)))
    loss = proxynca.loss(proxynca.distances(e, proxies, scale), y, "original")
    assert float(loss) == pytest.approx(float(torch.stack(found).mean()), rel=1e-5)
    # The probability has one more term in the sum.
    other = proxynca.loss(proxynca.distances(e, proxies, scale), y, "probability")
    assert float(other) > max(float(loss), 0.0)


def test_gradients_are_those_of_differences_by_both_forms() -> None:
    e, proxies, y = (each.double() if each.is_floating_point() else each for each in parts())
    for form in ("probability", "original"):

        def loss(e: torch.Tensor, proxies: torch.Tensor, form: Any = form) -> torch.Tensor:
            x, f = 2 * F.normalize(e), 2 * F.normalize(proxies)
            return proxynca.loss((x[:, None] - f).square().sum(2), y, form)

        assert torch.autograd.gradcheck(loss, (e.requires_grad_(), proxies.requires_grad_()))


def test_features_are_embeddings_as_they_are_and_the_nearest_proxy_is_the_class() -> None:
    run = begun()
    models: Any = run.models
    x = run._batch(20, None).x
    for model in models.values():
        model.eval()
    v = models["main"].features(x)
    found = proxynca.features(models, x, run.method_settings)
    expected = models["embedding"][1](F.layer_norm(v, v.shape[1:]))
    torch.testing.assert_close(found["features"], expected)
    torch.testing.assert_close(found["network"], v)
    assert not torch.allclose(expected.norm(dim=1), torch.ones(20), atol=0.1)
    near = torch.cdist(F.normalize(expected), F.normalize(models["proxies"].weight)).argmin(1)
    assert torch.equal(proxynca.predict(models, x, run.method_settings).argmax(1), near)


def test_proxies_begin_as_in_the_program_and_the_norm_can_be_left_out() -> None:
    torch.manual_seed(0)
    made: Any = proxynca.parts(64, 500, None, norm=True)
    assert float(made["proxies"].weight.detach().std()) == pytest.approx(1 / 8, rel=0.02)
    assert not [*made["embedding"][0].parameters()]
    plain: Any = proxynca.parts(64, 5, 7, norm=False)
    assert [type(layer).__name__ for layer in plain["embedding"]] == ["Linear"]
    assert plain["proxies"].weight.shape == (5, 7)


# Batches, rates, bounds.


def test_a_batch_has_as_many_samples_of_each_of_a_few_classes() -> None:
    run = factory.begun(factory.settings("proxynca", method_settings={"classes": 5}, batch=20))
    for _ in range(2):
        batch = run._batch(20, None)
        counts = np.bincount(batch.y, minlength=10)
        assert sorted(counts.tolist()) == [0] * 5 + [4] * 5 and len(set(batch.ids.tolist())) == 20


def test_proxies_move_at_a_rate_of_their_own() -> None:
    given = factory.settings("proxynca", lr=0.05, optimiser="adam", optimiser_settings={"eps": 1.0})
    slow, fast = moved(given), moved({**given, "rates": {"proxies": 100.0}})
    for name, change in fast.items():
        factor = 100 if name == "proxies.weight" else 1
        torch.testing.assert_close(change, factor * slow[name], atol=1e-5, rtol=1e-3)
    assert slow["proxies.weight"].any() and slow["embedding.1.weight"].any()


def test_bounds_on_gradients_hold_for_the_network_and_not_for_the_proxies() -> None:
    given = factory.settings("proxynca", lr=1.0, momentum=0.0, weight_decay=0.0)
    bound = 1e-3
    plain = moved(given)
    held = moved({**given, "clip_values": {"features": bound, "embedding": bound}})
    assert torch.equal(held["proxies.weight"], plain["proxies.weight"])
    clipped = 0
    for name in held.keys() - {"proxies.weight"}:
        torch.testing.assert_close(
            held[name], plain[name].clamp(-bound, bound), atol=1e-6, rtol=1e-3
        )
        clipped += int((plain[name].abs() > bound).sum())
    assert clipped > 100


def test_the_network_below_the_embedding_waits_while_the_warm_up_lasts() -> None:
    stages = [{"schedule": 0, "fraction": 0.5}, {"schedule": 1}]
    warm = {"kind": "staged", "stages": stages}
    given = factory.settings("proxynca", backbone=warm, weight_decay=0.0, epochs=2)
    run = factory.run(given)
    before = {name: p.detach().clone() for name, p in run.flat.params.items()}
    for still in (True, False):
        run.train_epoch()
        for name, p in run.flat.params.items():
            kept = torch.equal(p.detach(), before[name])
            # The network's own head is not used.
            below = name.startswith("main.") and still
            assert kept == (below or name.startswith("main.head.")), name
    usual = factory.train(factory.settings("proxynca", epochs=2))
    share = factory.train(factory.settings("proxynca", epochs=2, backbone=1.0))
    assert torch.equal(usual.flat.data, share.flat.data)


# The maximum over pixels.


@pytest.mark.parametrize("name", ["small_cnn", "wrn"])
def test_features_are_the_largest_values_of_the_last_maps(name: str) -> None:
    nets = {}
    chosen: Json = {"depth": 10, "width": 1} if name == "wrn" else {"width": 4}
    for pooling in ("average", "max"):
        torch.manual_seed(0)
        net: Any = build(name, {**chosen, "pooling": pooling}, (1, 8, 8), 10).eval()
        maps: list[torch.Tensor] = []
        net.body[-1].register_forward_pre_hook(lambda _, x, maps=maps: maps.append(x[0]))
        nets[pooling] = net.features(torch.randn(3, 1, 8, 8)), maps
    for pooling, (found, [maps]) in nets.items():
        flat = maps.flatten(2)
        expected = flat.max(2).values if pooling == "max" else flat.mean(2)
        torch.testing.assert_close(found, expected)
    # Run keys of the average stay as they were.
    assert "pooling" not in settings_type(name)().resolved()
    assert settings_type(name)(pooling="max").resolved()["pooling"] == "max"


# Unseen classes.


def recall(root: Path, arms: Json, **base: Any) -> dict[str, Json]:
    """Return the final figures of runs that retrieve digits 5 to 9, by arm."""
    probes = {"near": {"name": "retrieval", "k": [1], "unseen": True}}
    base = {"split": SPLIT, "probes": probes, "evaluations": 1, **base}
    plan = small_paper.planned(root, arms, **base)
    return {name: record["final"] for name, record in small_paper.trained(root, plan).items()}


def test_retrieval_is_measured_on_classes_that_were_not_trained(tmp_path: Path) -> None:
    probes = {"near": {"name": "retrieval", "k": [1], "unseen": True}}
    arms = {"proxies": {"method": "proxynca"}}
    plan = small_paper.planned(tmp_path, arms, split=SPLIT, probes=probes)
    record = small_paper.trained(tmp_path, plan)["proxies"]
    run = small_paper.run(plan, "proxies", done=True)
    unseen = run.ids["unlabelled"]
    assert len(unseen) == 250 and (run.data.labels[unseen] == -1).all()
    own = factory.data().labels[unseen].numpy()
    assert set(own.tolist()) == {5, 6, 7, 8, 9}
    x = run.evaluator.features(unseen)["features"].numpy()
    _, near = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x)
    expected = np.mean(own[near[:, 1]] == own)
    assert record["final"]["unlabelled_near_recall_at_1"] == pytest.approx(expected, abs=1e-9)
    assert run.models["proxies"].weight.shape == (5, 32)


def test_unseen_digits_are_found_better_than_untrained_and_than_by_the_original(
    tmp_path: Path,
) -> None:
    base: Json = {
        "model": {"name": "bn_mlp", "hidden": [64]}, "epochs": 20, "weight_decay": 0.0,
        "optimiser": {"name": "adam", "eps": 1.0}, "lr": {"kind": "constant", "value": 0.01},
    }  # fmt: skip
    found: dict[str, list[float]] = {}
    for seed in (1, 2, 3):
        arms = {
            "full": {"method": {"name": "proxynca", "embedding": 8}},
            "original": {"method": {"name": "proxynca", "embedding": 8, **ORIGINAL}},
            "untrained": {"method": {"name": "proxynca", "embedding": 8}, "epochs": 1, "lr": 0},
        }
        for arm in arms.values():
            arm["draw"] = f"seed-{seed}"
        for name, final in recall(tmp_path / str(seed), arms, **base).items():
            found.setdefault(name, []).append(final["unlabelled_near_recall_at_1"])
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    assert mean["full"] > mean["original"] + 0.02, mean
    assert mean["full"] > mean["untrained"] + 0.02, mean


def test_more_classes_in_a_batch_than_there_are_is_one_message() -> None:
    split = {**SPLIT, "labels": None, "open_set": {"classes": [0, 1, 2]}, "unlabelled": None}
    with pytest.raises(UserError, match="takes samples of 9 classes"):
        factory.begun(factory.settings("proxynca", method_settings={"classes": 9}, split=split))
