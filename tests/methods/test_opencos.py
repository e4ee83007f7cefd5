"""OpenCoS: what is found before training, and what each part of the loss trains."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import opencos
from factories.opencos import CORES, OFF
from factories.threads import one_thread
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.engine.run import Run
from cyclery.methods import _open_set
from cyclery.methods import opencos as method

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


@pytest.fixture(scope="module")
def run() -> Run:
    return opencos.run(opencos.settings())


def pools(run: Run) -> dict[str, set[int]]:
    """Return the samples of each stream."""
    return {name: set(feed.ids.tolist()) for name, feed in run.feeds.items()}


def scores(run: Run) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the cosines [N, K] of labelled samples and of the pool, by the parent's network."""
    parent, data = opencos.encoder(), factory.data()
    # A new run, whose weights become the parent's.
    nets = Run(parent.settings, data, factory.CPU).models
    nets["main"].load_state_dict(parent.main)
    nets["projector"].load_state_dict(parent.of("projector"))
    pixels = data.images.float() / data.manifest["max_value"]
    mean, std = (torch.tensor(data.manifest[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        main, projector = nets["main"].eval(), nets["projector"].eval()
        z = projector(main.features((pixels - mean) / std)).numpy()  # type: ignore[operator]
    ids, y = run.ids["train"].numpy(), run.data.labels.numpy()
    centres = np.stack([z[ids[y[ids] == c]].mean(0) for c in range(6)])
    return tuple(
        cosine_similarity(z[rows], centres) for rows in (ids, run.ids["unlabelled"].numpy())
    )


def test_the_pools_are_those_of_a_detection_made_by_hand(run: Run) -> None:
    own, near = (each.max(1) for each in scores(run))
    inside = near > own.mean() - 2 * own.std(ddof=1)
    pool, found = run.ids["unlabelled"].numpy(), pools(run)
    assert found["unlabelled"] == set(pool[inside].tolist())
    assert found["outside"] == set(pool[~inside].tolist())
    assert found["unlabelled"] and found["outside"]
    labelled = set(run.ids["train"].tolist())
    assert not (found["unlabelled"] | found["outside"]) & labelled
    added = found["labelled"] - labelled
    assert len(added) == inside.sum() // 10 and added < found["unlabelled"]


def test_soft_labels_are_cosines_at_a_temperature(run: Run) -> None:
    _, near = scores(run)
    soft = run.models["memory"].get_buffer("soft")[run.ids["unlabelled"]]
    expected = torch.from_numpy(near / 0.1).softmax(1)
    torch.testing.assert_close(soft.double(), expected.double(), atol=1e-4, rtol=1e-3)
    warm = opencos.run(opencos.settings(chosen={"soft_temperature": 1.0}))
    others = warm.models["memory"].get_buffer("soft")[run.ids["unlabelled"]]
    assert others.amax(1).mean() < soft.amax(1).mean()


def test_added_samples_are_the_surest_of_a_linear_classifier_on_the_parents_features(
    run: Run,
) -> None:
    teacher, pool = run.models["encoder"], run.ids["unlabelled"]
    train = run.ids["train"]
    own, far = (run.evaluator.outputs(teacher.features, ids).double() for ids in (train, pool))  # type: ignore[arg-type]
    weight, bias = _open_set.linear(own, run.data.labels[train], 6)
    sure, found = (far @ weight.T + bias).softmax(1).max(1)
    given = run.models["memory"].get_buffer("labels")[pool]
    inside = torch.isin(pool, run.feeds["unlabelled"].ids)
    added = given >= 0
    assert sure[added].min() >= sure[inside & ~added].max()
    assert torch.equal(given[added], found[added])
    run.begin_epoch()
    feed = run.feeds["labelled"]
    assert torch.equal(feed._labels[pool[added]], found[added])
    assert torch.equal(feed._labels[train], run.data.labels[train])


def test_labelled_batches_have_each_class_as_often() -> None:
    run = opencos.run(opencos.settings(chosen={"confident": 0.5}, epoch_images=2000))
    feed = run.feeds["labelled"]
    feed.begin_epoch(20)
    counts = feed._labels[feed.ids].bincount()
    assert counts.max() > 1.3 * counts.min(), "the pool itself is balanced, so nothing is shown"
    drawn = feed._labels[feed._order].bincount(minlength=6)
    # Of 2,000 draws: 333 of each class, with a deviation of 17.
    assert (drawn - 2000 / 6).abs().max() < 4 * 17
    # Within a class each sample is as likely: its copies differ by chance alone.
    kept = opencos.run(
        opencos.settings(chosen={"confident": 0.5, "balanced": False}, epoch_images=2000)
    ).feeds["labelled"]
    kept.begin_epoch(20)
    shares = kept._labels[kept._order].bincount() / 2000
    assert torch.allclose(shares, counts / counts.sum(), atol=0.02)


def test_norms_of_its_own_start_as_the_parents_and_the_rest_is_shared(run: Run) -> None:
    main, aux = (run.models[name].state_dict() for name in ("main", "auxiliary"))
    apart = {name for name in main if main[name].data_ptr() != aux[name].data_ptr()}
    assert apart == {name for name in main if name.startswith("body.2.")}
    for name in apart:
        assert torch.equal(main[name], aux[name])
        assert torch.equal(main[name], opencos.encoder().main[name])


def step(run: Run) -> tuple[Any, Tensor, dict[str, Tensor]]:
    """Make a step without an update; return its batch, loss and logs."""
    run.begin_epoch()
    batch = run._batch(20, None)
    found = run.method.step(
        run.models, batch, run.table.row(run.update), run.method_settings, run.generators["method"]
    )
    return batch, *found


def test_each_pass_moves_the_statistics_of_its_own_norms() -> None:
    run = opencos.run(opencos.settings())
    before = copy.deepcopy(run.models["main"].state_dict())
    run.begin_epoch()
    batch = run._batch(20, None)
    twin = copy.deepcopy(run.models["main"])
    outside = method._outside_loss(run.models, batch["outside"], run.method_settings)
    main, aux = (run.models[name].state_dict() for name in ("main", "auxiliary"))
    assert all(torch.equal(main[name], before[name]) for name in main), "main ones stay"
    twin(batch["outside"].x)
    for name, value in twin.named_buffers():
        assert torch.equal(aux[name], value), name
    still = copy.deepcopy(aux)
    method._fixmatch_losses(run.models, batch, run.table.row(run.update), torch.Generator())
    aux = run.models["auxiliary"].state_dict()
    assert all(torch.equal(aux[name], still[name]) for name in aux), "auxiliary ones stay"
    assert not torch.equal(run.models["main"].state_dict()["body.2.running_mean"],
                           before["body.2.running_mean"])  # fmt: skip
    # No gradient to the norms that are evaluated, and one to what is shared.
    norm, shared = (run.models["main"].get_parameter(n) for n in ("body.2.weight", "body.1.weight"))
    none, some = torch.autograd.grad(outside, [norm, shared], allow_unused=True)
    assert none is None and bool(some.any())


@pytest.mark.parametrize("kind", ["soft", "uniform"])
def test_the_loss_is_that_of_the_core_and_half_a_cross_entropy_outside(kind: str) -> None:
    given = opencos.settings(chosen={"outside": kind}, weight=0.7, threshold=0.3)
    run, twin = opencos.run(given), opencos.run(given)
    batch, loss, logs = step(run)
    nets = {name: net.train() for name, net in twin.models.items()}
    x, (weak, strong) = batch.x, batch.unlabelled.views
    z = nets["main"](torch.cat([x, weak, strong]))
    z_x, z_w, z_s = z.split([20, 40, 40])
    sure, label = z_w.softmax(1).max(1)
    core = F.cross_entropy(z_x, batch.y)
    core = core + 0.7 * (F.cross_entropy(z_s, label, reduction="none") * (sure >= 0.3)).mean()
    logits = nets["auxiliary"](batch["outside"].x)
    soft = twin.models["memory"].get_buffer("soft")[batch["outside"].ids]
    q = soft if kind == "soft" else torch.full_like(soft, 1 / 6)
    # Soft cross-entropy written out.
    outside = -(q * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, core + 0.5 * outside)
    torch.testing.assert_close(logs["loss_outside"], outside)
    assert float((sure >= 0.3).float().mean()) not in (0.0, 1.0)


def test_without_anything_outside_its_loss_is_nought() -> None:
    # No sample is 9 deviations below the mean.
    run = opencos.run(opencos.settings(chosen={"deviations": 9.0}))
    found = pools(run)
    assert found["unlabelled"] == found["outside"] == set(run.ids["unlabelled"].tolist())
    _, loss, logs = step(run)
    assert float(logs["loss_outside"].detach()) == 0
    loss.backward()
    expected = logs["loss_labelled"] + logs["loss_unlabelled"]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))
    norms = run.models["auxiliary"].get_parameter("body.2.weight").grad
    assert norms is not None and not norms.any()


def test_an_empty_pool_is_one_message() -> None:
    # With one label for a class, each is its own prototype: all score 1, so does the threshold.
    alone = opencos.settings(split={"per_class": 1})
    with pytest.raises(UserError) as refused:
        opencos.run(alone)
    text = str(refused.value)
    assert text.startswith(
        "method.deviations: finds no in-class sample in the pool of 400 (found 2"
    )
    assert "a threshold of 1.0000; the highest score is 0.9" in text
    assert text.endswith("raise it, or set the method's `scores: left_out`.")
    left = opencos.run({**alone, "method": {**alone["method"], "settings": {
        **alone["method"]["settings"], "scores": "left_out"}}})  # fmt: skip
    assert len(left.feeds["unlabelled"].ids) > 0
    # The encoder is that of another pool.
    unknown = opencos.settings(contamination=1.0, chosen={"filter": "oracle"})
    message = r"method.filter: oracle leaves the core no sample \(found a pool of 400\); let"
    with pytest.raises(UserError, match=message):
        factory.run(unknown, parents={"encoder": [opencos.encoder()]})


def test_a_network_without_batch_norm_has_no_norms_of_its_own() -> None:
    given = opencos.settings()
    given |= {
        "init": None,
        "model": {"name": "small_cnn", "settings": {"width": 4, "norm": "group"}},
    }
    del given["init_parts"]
    with pytest.raises(UserError) as refused:
        factory.run(given)
    assert str(refused.value) == (
        "method.auxiliary: must be false for a network without batch norm (found true); or choose "
        "another network."
    )


def test_the_oracle_has_the_samples_that_are_in_class() -> None:
    run = opencos.run(opencos.settings(chosen={"filter": "oracle"}))
    pool, found = run.ids["unlabelled"], pools(run)
    known = run.data.labels[pool] >= 0
    assert found["unlabelled"] == set(pool[known].tolist())
    assert found["outside"] == set(pool[~known].tolist())
    assert found["labelled"] - set(run.ids["train"].tolist()) < found["unlabelled"]


def test_a_threshold_of_left_out_scores_is_lower() -> None:
    plain, left = (
        opencos.run(opencos.settings(split={"per_class": 4}, chosen={"scores": kind}))
        for kind in ("plain", "left_out")
    )
    limits = plain.models["memory"].get_buffer("threshold")
    assert limits[1] < limits[0]
    assert torch.equal(limits, left.models["memory"].get_buffer("threshold"))
    assert pools(plain)["unlabelled"] < pools(left)["unlabelled"]


def test_its_figures_are_those_of_the_score(run: Run) -> None:
    done = opencos.trained(opencos.settings(epochs=1))
    final = done.final()
    _, near = scores(done)
    pool = done.ids["unlabelled"]
    labels = done.data.labels[pool].numpy()
    known = labels >= 0
    assert final["unlabelled_auroc"] == pytest.approx(roc_auc_score(known, near.max(1)), abs=1e-4)
    taken = np.isin(pool.numpy(), list(pools(done)["unlabelled"]))
    assert final["unlabelled_tpr"] == pytest.approx(taken[known].mean())
    assert final["unlabelled_tnr"] == pytest.approx(1 - taken[~known].mean())
    given = done.models["memory"].get_buffer("labels")[pool].numpy()
    right = (given == labels)[given >= 0]
    assert final["unlabelled_confident_accuracy"] == pytest.approx(right.mean())
    with torch.no_grad():
        net = done.networks.evaluated[0]["main"].eval()
        sure = done.evaluator.outputs(net, pool).softmax(1).amax(1)
    assert final["unlabelled_confidence_auroc"] == pytest.approx(roc_auc_score(known, sure))
    linear = done.models["memory"].get_buffer("linear")[pool]
    assert final["unlabelled_linear_auroc"] == pytest.approx(roc_auc_score(known, linear))
    assert {"test_accuracy", "raw_test_accuracy"} <= final.keys()
    assert set(done.method.measures(done.method_settings)) <= final.keys()
    # Detection measures nothing where nothing is unknown, but for the share of known ones.
    closed = opencos.trained(opencos.settings(contamination=0.0, epochs=1)).final()
    assert "unlabelled_tpr" in closed
    assert not {"unlabelled_auroc", "unlabelled_tnr", "unlabelled_confidence_auroc"} & closed.keys()


@pytest.mark.parametrize("core", CORES)
def test_what_is_said_of_no_effect_has_none(core: str) -> None:
    assert method.ignored(method.Settings(core=core)) == (  # type: ignore[arg-type]
        {"threshold": "core: remixmatch"}
        if core == "remixmatch"
        else dict.fromkeys(("temperature", "alpha"), "core: fixmatch")
    )
    off = method.Settings(core=core, **OFF)  # type: ignore[arg-type]
    assert method.parents(off) == () and method.parents(method.Settings()) == ("encoder",)
    assert set(method.ignored(off)) >= {
        "soft_temperature", "outside_weight", "auxiliary", "deviations", "scores"
    }  # fmt: skip


def test_images_that_are_guessed_pass_once_more() -> None:
    images = {"labelled": 32, "unlabelled": 64, "outside": 32}
    assert method.forwards(method.Settings(), images) == 128 + 32
    assert method.forwards(method.Settings(core="fixmatch"), images) == 128
