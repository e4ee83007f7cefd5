"""Packs of runs with streams, frozen parts, rates and probes of all kinds."""

from __future__ import annotations

from typing import Any

import pytest
from factories import component, packs
from factories import engine as factory
from factories import method as method_factory
from factories.threads import one_thread

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


write = pytest.fixture(method_factory.written)


def assert_independent(every: list[Json], make: packs.Make = packs.made) -> None:
    """Fail unless runs are stacked, the same alone and beside others, and as eager ones."""
    alone = [packs.bits(run) for run in packs.beside(every, packs.Widths(1), make)]
    stack = packs.Widths(3)
    for one, other in zip(alone, packs.beside(every, stack, make), strict=True):
        assert packs.differing(one, packs.bits(other)) == []
    assert stack.refusals == {} and max(stack.seen) == 3
    eager = packs.alone(every[1], make)
    assert eager.curve["train_loss"] == pytest.approx(alone[1]["curve"]["train_loss"], rel=1e-4)


def settings(method: str = "supervised", **more: Any) -> list[Json]:
    return [
        factory.settings(method, seed=seed, lr=0.02 + 0.02 * seed, epochs=3 + seed % 2, **more)
        for seed in range(4)
    ]


STREAMS = {
    "poisson": 'Stream(("weak",), sampler="poisson")',
    "balanced": 'Stream(("weak",), sampler="balanced")',
    "two of one pool": 'Stream(("weak",)), "other": Stream(("plain", "weak"), times=2)',
}
OF_STREAMS = """
from cyclery.methods import Stream


def streams(settings):
    return {{"labelled": {}}}
"""
MASKED = """batch = batch
    mask = batch.streams["labelled"].mask
    if mask is not None:
        loss = (F.cross_entropy(z, batch.y, reduction="none") * mask).sum()
        return loss / batch.streams["labelled"].expected, {}
    if "other" in batch.streams:
        z = z + models["main"](batch.streams["other"].views[1]).mean()"""


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_of_every_kind(kind: str, write: component.Write) -> None:
    more = OF_STREAMS.format(STREAMS[kind])
    write("odd", method_factory.text(before=MASKED, more=more))
    assert_independent(settings("odd"))


@pytest.mark.parametrize("frozen", [["features"], ["head"], ["body.1"]])
def test_frozen_parts(frozen: list[str]) -> None:
    averaged = {"ema_decay": 0.9, "ema_buffers": "average"}
    assert_independent([{**given, "frozen": frozen} for given in settings(**averaged)])


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "lars"])
def test_rates_of_parts(optimiser: str) -> None:
    every = settings(optimiser=optimiser)
    assert_independent([{**given, "rates": {"head": 10.0, "body.1": 0.5}} for given in every])


@pytest.mark.parametrize("program", ["supervised", "mean_teacher"])
def test_probes(program: str) -> None:
    probes = {"near": {"name": "nearest", "k": [1, 5]}}
    every = [{**given, "probes": probes} for given in settings(program)]
    assert_independent(every)


SHARED = """

def modules(settings, made):
    import torch
    one = torch.nn.Module()
    one.register_buffer("count", torch.zeros(3, dtype=torch.int64))
    two = torch.nn.Module()
    two.register_buffer("again", one.count)
    tied = torch.nn.Linear(made.classes, made.classes, bias=False)
    other = torch.nn.Linear(made.classes, made.classes, bias=False)
    other.weight = tied.weight
    one.tied, two.other = tied, other
    return {"one": one, "two": two}
"""
USES = """models["one"].count.add_(1); models["two"].again[0].add_(batch.y[0])
    z = models["two"].other(models["one"].tied(z)) + z"""


def test_a_shared_buffer_of_integers_and_tied_parameters(write: component.Write) -> None:
    write("odd", method_factory.text(before=USES, more=SHARED))
    every = settings("odd")
    assert_independent(every)
    [run] = packs.beside(every[:1], packs.Widths(1))
    assert run.models["one"].count.tolist()[1] == run.updates
    assert run.models["two"].again is run.models["one"].count


IDLE = """

def modules(settings, made):
    return {"idle": torch.nn.Linear(3, 2, bias=False)}
"""


def test_a_parameter_without_gradient_does_not_move(write: component.Write) -> None:
    idle = (
        "\ndef modules(settings, made):\n    return {'idle': torch.nn.Linear(3, 2, bias=False)}\n"
    )
    write("odd", method_factory.text(more=idle))
    every = settings("odd", weight_decay=0.0)
    assert_independent(every)
    one, two = (packs.beside(every[:1], packs.Widths(1))[0] for _ in range(2))
    fresh = packs.made(every[0], None)
    assert one.models["idle"].weight.equal(fresh.models["idle"].weight)
    assert packs.differing(packs.bits(one), packs.bits(two)) == []
