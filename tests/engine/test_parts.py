"""Parts of networks: what starts, what is trained at which rate, and what stays as it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories import network as networks
from factories.checkout import ROOT
from factories.component import written
from factories.method import text
from factories.parents import parent_of
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery import methods, models
from cyclery.common.errors import UserError
from cyclery.engine import made
from cyclery.engine.hooks import Moment
from cyclery.engine.made import head_name, layout
from cyclery.engine.parts import within
from cyclery.engine.run import Run
from cyclery.engine.teachers import Trained
from cyclery.models import heads

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]
HEADLESS: Json = {"init": "start", "init_share": 1.0, "init_parts": ["features"]}
PROJECTOR = """
    def modules(settings, made):
        from torch import nn
        return {"projector": nn.Sequential(nn.Linear(made.width, 6), nn.BatchNorm1d(6),
                                           nn.ReLU(), nn.Linear(6, 4))}


    def keeps(settings):
        return ("projector",)
"""


@pytest.fixture(scope="module", autouse=True)
def projecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Add a method that trains a projector beside the network, and hands it on."""
    before = 'q = models["projector"](models["main"].features(batch.x))'
    with written(methods, tmp_path_factory.mktemp("methods")) as write:
        write("projecting", text(before, "loss + 0.1 * q.square().mean(), {}", PROJECTOR))
        yield "projecting"


def begun(parents: list[Trained] | None = None, *, more: Json | None = None, **changes: Any) -> Run:
    """Return a run at its start, of a network with batch norm."""
    parent = parents or [parent_of("small_cnn")]
    given = factory.settings(**{"model": "small_cnn", "weight_decay": 1e-2, **changes})
    return factory.run({**given, **(more or {})}, parents={"start": parent})


def state(run: Run, name: str = "main") -> dict[str, Tensor]:
    return {key: value.clone() for key, value in run.models[name].state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor], head: bool = False) -> dict[str, bool]:
    """Return by name what is the same to the bit, of the head or of the rest."""
    return {k: torch.equal(v, other[k]) for k, v in one.items() if k.startswith("head") == head}


@pytest.mark.parametrize(
    ("name", "part", "inside"),
    [
        ("main.body.0.weight", "features", True),
        ("main.head.weight", "features", False),
        ("main.head.weight", "head", True),
        ("main.header.weight", "head", False),
        ("main.header.weight", "features", True),
        ("main", "features", False),
        ("projector.0.weight", "features", False),
        ("projector.0.weight", "head", False),
        ("projector.0.weight", "projector", True),
        ("projector.0.weight", "projector.0", True),
        ("projector.01.weight", "projector.0", False),
        ("main.body.0.weight", "body.0", True),
        ("main.body.0.weight", "main.body", True),
        ("main.body.0.weight", "0", False),
        ("head.weight", "head", True),
        ("main.body.0.weight", "", True),
    ],
)
def test_what_lies_in_a_part(name: str, part: str, inside: bool) -> None:
    assert within(name, part) == inside


@pytest.mark.parametrize("name", models.names())
def test_features_and_head_divide_every_network(name: str) -> None:
    shape, settings = networks.shape_of(name), networks.SMALL.get(name, {})
    net = networks.small(name, shape)
    head = head_name({"name": name, "settings": settings}, shape, 10)
    names = [f"main.{key}" for key in net.state_dict()]
    features, own = ({key for key in names if within(key, part, head)} for part in
                     ("features", "head"))  # fmt: skip
    assert features | own == set(names) and not features & own
    # Biases and weights of the one layer that gives logits.
    assert own and all(net.state_dict()[key.removeprefix("main.")].shape[0] == 10 for key in own)


# Starts.


def test_a_start_without_the_head_draws_that_anew() -> None:
    fresh, parent = begun(), parent_of("small_cnn")
    found = state(begun(more=HEADLESS))
    assert all(equal(found, parent.weights).values())
    assert not any(equal(found, parent.weights, head=True).values())
    # It is the very head of a run that starts from nothing.
    assert all(equal(found, state(fresh), head=True).values())


def test_a_start_with_a_part_of_the_network_leaves_the_rest_new() -> None:
    parent, fresh = parent_of("small_cnn").weights, state(begun())
    found = state(begun(more={**HEADLESS, "init_parts": ["body.0", "head"]}))
    for name, value in found.items():
        taken = name.startswith(("body.0.", "head."))
        assert torch.equal(value, parent[name] if taken else fresh[name]), name


def test_a_child_may_have_another_number_of_classes() -> None:
    parent = parent_of("small_cnn")
    net = models.build("small_cnn", parent.settings["model"]["settings"], (1, 8, 8), 4)
    other = Trained(parent.settings, dict(net.state_dict()), 4)
    run = begun([other], more=HEADLESS)
    assert all(equal(state(run), other.weights).values())
    assert run.models["main"].head.weight.shape == (10, run.models["main"].width)
    factory.finish(run)
    assert run.curve["train_loss"][-1] < run.curve["train_loss"][0]
    with pytest.raises(UserError, match=r"^init\.parts: the parent's 'head' is not .*main\.head"):
        begun([other], more={**HEADLESS, "init_parts": ["head"]})


def test_modules_of_a_method_are_handed_on(projecting: str) -> None:
    parent = factory.trained(factory.train(factory.settings(projecting, model="small_cnn")))
    given = factory.settings(projecting, model="small_cnn", seed=7)
    fresh = factory.run(given)
    taken = {**HEADLESS, "init_parts": ["features", "projector.0"]}
    run = factory.run({**given, **taken}, parents={"start": [parent]})
    assert all(equal(state(run), parent.main).values())
    for name, value in state(run, "projector").items():
        of_parent = name.startswith("0.")
        expected = parent.of("projector")[name] if of_parent else state(fresh, "projector")[name]
        assert torch.equal(value, expected), name
    whole = factory.run(
        {**given, **taken, "init_parts": ["projector"]}, parents={"start": [parent]}
    )
    assert all(equal(state(whole, "projector"), parent.of("projector")).values())
    assert not any(v for k, v in equal(state(whole), parent.main).items() if k.endswith("weight"))
    with pytest.raises(UserError, match=r"^init\.parts: nothing in this run is 'projector'"):
        begun([parent], more={**HEADLESS, "init_parts": ["features", "projector"]})
    without = [parent_of("small_cnn")]
    with pytest.raises(UserError, match=r"^init\.parts: the parent's 'projector' is not the same"):
        factory.run({**given, **taken, "init_parts": ["projector"]}, parents={"start": without})


# Frozen parts.


@pytest.mark.parametrize("buffers", ["shared", "average"])
def test_frozen_features_stay_as_they_are_to_the_bit(buffers: str) -> None:
    run = begun(more={**HEADLESS, "frozen": ["features"]}, ema_decay=0.9, ema_buffers=buffers,
                clip_norm=1.0)  # fmt: skip
    parent, start = parent_of("small_cnn"), state(run)
    assert set(run.flat.params) == {"main.head.weight", "main.head.bias"}
    factory.finish(run)
    for found in (state(run), state(run, "ema"), run.weights()):
        assert all(equal(found, parent.weights).values())
        assert not any(equal(found, start, head=True).values())
    assert any(key.endswith("running_mean") for key in start)
    for name, parameter in run.models["main"].named_parameters():
        assert (parameter.grad is not None) == name.startswith("head"), name
    assert run.curve["train_loss"][-1] < run.curve["train_loss"][0]


@pytest.mark.parametrize("average", ["main", "ema"])
def test_frozen_parts_are_in_evaluation_mode_and_others_are_not(average: str) -> None:
    run = begun(more={**HEADLESS, "frozen": ["body.0", "body.1"]}, ema_decay=0.9)
    assert isinstance(run.models["main"].get_submodule("body.1"), nn.BatchNorm2d)
    factory.finish(run)
    modes = {name: module.training for name, module in run.models[average].named_modules()}
    assert {name for name, mode in modes.items() if not mode} == {"body.0", "body.1"}


def test_an_average_with_statistics_of_its_own_measures_none_of_a_frozen_part() -> None:
    parent = parent_of("small_cnn")
    given = factory.settings("mean_teacher", model="small_cnn", ema_buffers="own")
    ends = []
    for frozen in ({}, {"frozen": ["features"]}):
        run = factory.run({**given, **HEADLESS, **frozen}, parents={"start": [parent]})
        factory.finish(run)
        ends.append(equal(state(run, "ema"), parent.weights))
    assert all(ends[1].values()) and not ends[0]["body.1.running_mean"]


def test_a_frozen_head_lets_gradients_through() -> None:
    run = begun(more={"frozen": ["head"]})
    start = state(run)
    factory.finish(run)
    assert all(equal(state(run), start, head=True).values())
    moved = equal(state(run), start)
    assert not any(same for name, same in moved.items() if name.endswith("weight"))


def test_a_frozen_module_of_a_method_is_handed_on_as_it_was(projecting: str) -> None:
    given = factory.settings(projecting, model="small_cnn", weight_decay=1e-2, ema_decay=0.5)
    run = factory.run({**given, "frozen": ["projector.0", "projector.1"]})
    start = run.weights()
    factory.finish(run)
    for name, value in run.weights().items():
        fixed = name.startswith(("projector/0.", "projector/1."))
        assert torch.equal(value, start[name]) == fixed, name


def test_a_network_that_is_wholly_frozen_beside_a_module_is_averaged_as_it_is(
    projecting: str,
) -> None:
    given = factory.settings(projecting, model="small_cnn", ema_decay=0.5)
    run = factory.run({**given, "frozen": ["features", "head"]})
    start = state(run)
    factory.finish(run)
    for name in ("main", "ema"):
        assert all(torch.equal(value, start[key]) for key, value in state(run, name).items())
    assert {name.partition(".")[0] for name in run.flat.params} == {"projector"}


def test_linear_evaluation_is_logistic_regression_on_fixed_features() -> None:
    """A plain loop over features that are computed once, with torch's own optimiser."""
    more = {**HEADLESS, "frozen": ["features"]}
    chosen: Json = {"augment": (), "lr": 0.05, "weight_decay": 1e-2,
                    "optimiser_settings": {"nesterov": False}}  # fmt: skip
    run, other = begun(more=more, **chosen), begun(more=more, **chosen)
    net = other.models["main"]
    with torch.no_grad():
        features = nn.Module.eval(net).features(other.plain(other.data.images))
    head = nn.Linear(net.width, 10)
    head.load_state_dict(net.head.state_dict())
    groups = [{"params": [head.weight], "weight_decay": 1e-2}, {"params": [head.bias]}]
    sgd = torch.optim.SGD(groups, 0.05, 0.9)
    for epoch in range(3):
        other.epoch = epoch
        other.begin_epoch()
        for _ in range(len(other.ids["train"]) // 50):
            batch = other._batch(50, None)
            sgd.zero_grad()
            F.cross_entropy(head(features[batch.ids]), batch.y).backward()
            sgd.step()
    factory.finish(run)
    torch.testing.assert_close(run.models["main"].head.weight, head.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.models["main"].head.bias, head.bias, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        expected = (head(features).argmax(1) == other.data.labels)[other.ids["test"]]
    assert run.final()["test_accuracy"] == pytest.approx(float(expected.float().mean()))


# Rates.


def test_a_part_of_another_rate_moves_by_its_factor_and_the_inner_part_counts() -> None:
    rates = {"features": 0.1, "body.0": 1.0, "head": 10.0}
    starts, ends = [], []
    for more in ({}, {"rates": rates}):
        run = begun(more=more, epochs=1, clip_norm=1.0)
        starts.append(state(run))
        run.begin_epoch()
        run.step(50)
        ends.append(state(run))
    assert starts[0].keys() == starts[1].keys()
    for name, start in starts[0].items():
        if "running" in name or "batches" in name:
            continue
        factor = 10.0 if name.startswith("head") else 1.0 if name.startswith("body.0.") else 0.1
        moved, expected = ends[1][name] - start, factor * (ends[0][name] - start)
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)
        assert factor != 1 or torch.equal(ends[0][name], ends[1][name])


def test_parts_resume_as_they_went_on(projecting: str) -> None:
    parent = factory.trained(factory.train(factory.settings(projecting, model="small_cnn")))
    given = factory.everything(projecting, model="small_cnn", optimiser="adam")
    given |= {**HEADLESS, "init_parts": ["features", "projector"], "frozen": ["body.0"],
              "rates": {"head": 3.0, "projector": 0.3}}  # fmt: skip

    def new() -> Run:
        return factory.run(given, parents={"start": [parent]})

    whole, half, rest = new(), new(), new()
    factory.finish(whole)
    for _ in range(2):
        half.train_epoch()
        half.evaluate_on_the_way()
    rest.load_state(half.state(), 2, {key: list(v) for key, v in half.curve.items()})
    factory.finish(rest)
    for name, value in whole.state().items():
        assert torch.equal(value, rest.state()[name]), name
    assert whole.curve == rest.curve
    frozen = [name for name in whole.state() if name.startswith("frozen.main.body.0.")]
    assert frozen and all(torch.equal(whole.state()[n], new().state()[n]) for n in frozen)


# Hooks, other networks, refusals.


def test_an_optimiser_forgets_the_part_that_is_named() -> None:
    run = begun()
    factory.finish(run)
    Moment(run._inside).forget(["head"])
    buffer = run.flat.views(run.optimiser.state()["momentum_buffer"])
    for name, value in buffer.items():
        assert value.any() != name.startswith("main.head."), name
    Moment(run._inside).forget(["features"])
    assert not any(value.any() for value in buffer.values())


def test_the_head_of_another_packages_network_is_its_last_linear_layer(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    foreign = """
        \"\"\"A network that is no Classifier.\"\"\"
        from dataclasses import dataclass
        from cyclery.models import ModelSettings

        @dataclass(frozen=True)
        class Settings(ModelSettings):
            \"\"\"None.\"\"\"

        def build(settings, shape, classes):
            from torch import nn
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, classes))
    """
    with written(models, tmp_path_factory.mktemp("models")) as write:
        write("foreign", foreign)
        for head in ({}, {"head": {"name": heads.DEFAULT, "settings": {}}}):
            given = {**factory.settings(model="foreign"), **head}
            run = factory.run({**given, "frozen": ["features"]})
            assert set(run.flat.params) == {"main.3.weight", "main.3.bias"}


def test_networks_that_need_numbers_of_tensors_are_known_as_well(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    reading = """
        def modules(settings, made):
            from torch import nn, ones
            return {"extra": nn.Linear(int(ones(3).sum()), 2)}
    """
    with written(methods, tmp_path_factory.mktemp("methods")) as write:
        write("reading", text(more=reading))
        before = torch.random.get_rng_state()
        found = layout(factory.settings("reading"), (1, 8, 8), 10)
        assert torch.equal(before, torch.random.get_rng_state())
        assert found.shapes["extra.weight"] == (2, 3) and "extra.weight" in found.trained


@pytest.mark.parametrize("method", ["byol", "proxynca", "remixmatch"])
def test_what_a_plan_knows_is_of_the_networks_that_train(method: str) -> None:
    settings = factory.settings(method, model="small_cnn")
    nets = nn.ModuleDict(made.networks(settings, (1, 8, 8), 10))
    shapes = {name: tuple(tensor.shape) for name, tensor in nets.state_dict().items()}
    assert layout(settings, (1, 8, 8), 10).shapes == shapes


def test_networks_of_a_plan_are_made_without_torchs_compiler() -> None:
    """Each command that plans would wait a second for it."""
    script = (
        "import sys; from pathlib import Path; from cyclery.config.load import load; "
        "from cyclery.plan.project_checks import check; "
        f"check(load(Path({str(ROOT)!r}), {{'tier': 'laptop'}})); "
        "assert 'torch' in sys.modules; print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"frozen": ["features", "head"]}, r"^frozen: nothing is left to train; freeze fewer"),
        ({"frozen": ["stem"]}, r"^frozen: nothing here is 'stem' or in it\..* body\.0,"),
        ({"frozen": ["bod"]}, r"Did you mean 'body'\?"),
        ({"rates": {"tail": 2.0}}, r"^rates: nothing here is 'tail' or in it\."),
        ({"rates": {"body": 2.0, "features": 1.0}}, r"^rates: '(body|features)' and .* overlap,"),
    ],
)
def test_a_part_that_is_not_there_is_named(more: Json, message: str) -> None:
    with pytest.raises(UserError, match=message):
        begun(more=more)
