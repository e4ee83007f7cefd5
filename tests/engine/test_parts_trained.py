"""Parts of a parent from the run store: of another dataset, and with modules of a method."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import engine as factory
from factories.component import written
from factories.method import text
from factories.threads import one_thread

from cyclery import methods
from cyclery.engine.checkpoint import load_weights

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]
PROJECTOR = """
    def modules(settings, made):
        from torch import nn
        return {"projector": nn.Linear(made.width, 4)}


    def keeps(settings):
        return ("projector",)


    def classifies(settings):
        return False
"""


@pytest.fixture(scope="module", autouse=True)
def projecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = 'q = models["projector"](models["main"].features(batch.x))'
    with written(methods, tmp_path_factory.mktemp("methods")) as write:
        write("projecting", text(before, "q.square().mean() + 0 * loss, {}", PROJECTOR))
        yield


def test_a_pretrained_network_of_another_dataset_is_evaluated_and_goes_on(tmp_path: Path) -> None:
    trainer = factory.trainer(tmp_path / "store")
    # The digits under another name, which is all that the store sees of a dataset.
    trainer.manifests["figures"] = factory.manifest()
    given = factory.settings("projecting", weight_decay=1e-2)
    given["dataset"] = {**given["dataset"], "name": "figures"}
    first = factory.job(given, keep=True)
    [pretrained] = trainer.train([first])
    assert "test_accuracy" not in pretrained["final"]

    start: Json = {"init": "start", "init_share": 1.0, "parents": {"start": [first["key"]]}}
    linear = factory.job({**factory.settings(weight_decay=1e-2, ema_decay=0.5), **start,
                          "init_parts": ["features"], "frozen": ["features"]},
                         keep=True)  # fmt: skip
    again = factory.job({**factory.settings("projecting", weight_decay=1e-2), **start,
                         "init_parts": ["features", "projector"], "frozen": ["projector"],
                         "rates": {"features": 0.5}}, keep=True)  # fmt: skip
    records = trainer.train([linear, again])
    assert records[0]["final"]["test_accuracy"] > 0.2
    jobs, made = [first, linear, again], [pretrained, *records]
    weights = {
        job["key"]: load_weights(trainer.store.checkpoint(job["key"]), record["checkpoint_sha256"])
        for job, record in zip(jobs, made, strict=True)
    }
    for name, value in weights[first["key"]].items():
        if name.startswith("projector/"):
            assert torch.equal(weights[again["key"]][name], value), name
        elif not name.startswith("head."):
            assert torch.equal(weights[linear["key"]][name], value), name
    assert not any(name.startswith("projector/") for name in weights[linear["key"]])
