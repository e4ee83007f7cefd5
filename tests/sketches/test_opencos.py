"""OpenCoS' sketch: what is found inside and outside, and what of the network learns from it."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import sketches
from factories.cards_self_supervised import CARDS, CLAIMS
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity

from cyclery.engine.run import Run


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sketches.planned(tmp_path_factory.mktemp("opencos"), CARDS["opencos"], CLAIMS["opencos"])


@pytest.fixture(scope="module")
def run(plan: Any) -> Run:
    return sketches.run(plan, "opencos")


def scores(plan: Any, run: Run) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the cosines [N, K] of labelled samples and of the pool, by the parent's network."""
    parent, data = sketches.run(plan, "encoder", done=True), factory.data()
    nets = [parent.models[name].eval() for name in ("main", "projector")]
    pixels = data.images.float() / data.manifest["max_value"]
    mean, std = (torch.tensor(data.manifest[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        z = nets[1](nets[0].features((pixels - mean) / std)).numpy()  # type: ignore[operator]
    ids, y = run.ids["train"].numpy(), run.data.labels.numpy()
    centres = np.stack([z[ids[y[ids] == c]].mean(0) for c in range(6)])
    return tuple(
        cosine_similarity(z[rows], centres) for rows in (ids, run.ids["unlabelled"].numpy())
    )


def test_the_pools_are_those_of_a_detection_made_by_hand(plan: Any, run: Run) -> None:
    own, near = (each.max(1) for each in scores(plan, run))
    inside = near > own.mean() - 2 * own.std(ddof=1)
    pool = run.ids["unlabelled"].numpy()
    found = {name: set(feed.ids.tolist()) for name, feed in run.feeds.items()}
    assert found["inside"] == set(pool[inside].tolist())
    assert found["outside"] == set(pool[~inside].tolist())
    assert found["inside"] and found["outside"] and not found["inside"] & found["outside"]
    assert not (found["inside"] | found["outside"]) & set(run.ids["train"].tolist())
    best = set(pool[np.argsort(-near)[: inside.sum() // 10]].tolist())
    assert found["plus"] == best | set(run.ids["train"].tolist())
    assert best <= found["inside"]


def test_added_samples_have_the_labels_that_were_found_and_classes_are_balanced(
    plan: Any, run: Run
) -> None:
    _, near = scores(plan, run)
    true, pool = run.data.labels, run.ids["unlabelled"].tolist()
    given = dict(zip(pool, near.argmax(1), strict=True))
    known, feed = set(run.ids["train"].tolist()), run.feeds["plus"]
    drawn = []
    for update in range(40):
        if update % 5 == 0:
            feed.begin_epoch(20)
        samples = feed.samples(20, None, torch.contiguous_format)
        for i, label in zip(samples.ids.tolist(), samples.y.tolist(), strict=True):
            assert label == (true[i] if i in known else given[i])
        drawn += samples.y.tolist()
    labels = [given.get(i, int(true[i])) for i in feed.ids.tolist()]
    assert len(set(np.bincount(labels))) > 1, "the pool itself is balanced, so nothing is shown"
    # Of 800 draws of six classes: 133 each, with a deviation of 11.
    assert np.abs(np.bincount(drawn, minlength=6) - 800 / 6).max() < 4 * 11


def test_what_is_outside_has_norms_of_its_own_and_shares_the_rest(plan: Any) -> None:
    run = sketches.run(plan, "opencos")
    main, aux = (run.models[name].state_dict() for name in ("main", "aux"))
    norms = {name for name in main if name.startswith("body.2")}
    assert {n for n in main if main[n].data_ptr() != aux[n].data_ptr()} == norms
    before = copy.deepcopy(main)
    run.train_epoch()
    for name in norms:
        # Each has an update of its own at every step, and begins as the parent's.
        if name.endswith("num_batches_tracked"):
            assert main[name] == aux[name] == before[name] + run.table.steps[0]
        else:
            values = [before[name], main[name], aux[name]]
            assert not any(torch.equal(a, b) for a, b in itertools.combinations(values, 2)), name
    assert not torch.equal(main["body.1.weight"], before["body.1.weight"])
    assert torch.equal(main["body.1.weight"], aux["body.1.weight"])
    again = sketches.run(plan, "opencos")
    again.load_state(run.state(), 1, run.curve)
    state = again.models["aux"].state_dict()
    assert state["body.1.weight"].data_ptr() == again.models["main"].get_parameter(
        "body.1.weight"
    ).data_ptr()  # fmt: skip
    assert all(torch.equal(state[name], aux[name]) for name in aux)


def test_soft_labels_train_no_norm_of_the_network_that_is_evaluated(plan: Any) -> None:
    run = sketches.run(plan, "opencos")
    run.begin_epoch()
    outside = run._batch(20, None)["outside"]
    soft = (run.models["memory"](outside.ids) / 0.1).softmax(1)
    loss = F.cross_entropy(run.models["aux"](outside.x), soft)
    norm, shared = (run.models["main"].get_parameter(n) for n in ("body.2.weight", "body.1.weight"))
    none, some = torch.autograd.grad(loss, [norm, shared], allow_unused=True)
    assert none is None and some is not None and bool(some.any())


def test_the_figure_is_the_auroc_of_the_score(plan: Any, run: Run, tmp_path: Any) -> None:
    _, near = scores(plan, run)
    known = run.data.labels[run.ids["unlabelled"]].numpy() >= 0
    assert known.mean() == pytest.approx(0.5)
    records = sketches.trained(tmp_path, plan)
    expected = roc_auc_score(known, near.max(1))
    assert records["opencos"]["final"]["unlabelled_auroc"] == pytest.approx(expected, abs=1e-3)
    # The parent's own probe has the labelled samples in its pool as well.
    probed = records["encoder"]["final"]["unlabelled_open_auroc"]
    assert probed == pytest.approx(expected, abs=0.1) and probed > 0.6
