"""What runs measure besides accuracy by their methods, and what is evaluated and handed on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from factories import engine as factory
from factories.threads import one_thread
from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.engine.failures import Diverged
from cyclery.engine.hooks import Measured
from cyclery.engine.teachers import teacher

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]


def measuring(monkeypatch: pytest.MonkeyPatch, evaluate: Any, *names: str, **hooks: Any) -> None:
    factory.use_method(
        monkeypatch, measures=lambda settings: names or ("test_own_accuracy",),
        evaluate=evaluate, **hooks,
    )  # fmt: skip


# Figures of a method.


def test_figures_of_a_method_are_curves_on_the_way_and_figures_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, bool]] = []

    def evaluate(models: Any, measured: Measured, settings: Any) -> dict[str, float]:
        seen.append((measured.update, measured.last))
        ids = measured.pool("test")
        logits = measured.outputs(models["main"], ids)
        right = (logits.argmax(1) == measured.labels(ids)).double().mean()
        return {"test_own_accuracy": float(right)}

    measuring(monkeypatch, evaluate)
    run = factory.train(factory.settings(epochs=4, evaluations=2, ema_decay=0.5))
    final = run.final()
    assert seen == [(8, False), (16, False), (16, True)]
    assert run.curve["test_own_accuracy"] == run.curve["test_accuracy"]
    assert final["test_own_accuracy"] == final["test_accuracy"]
    assert final["test_nll"] != final["raw_test_nll"]


def test_to_evaluate_changes_nothing_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass of the network itself, in training mode, would move batch norm's statistics."""
    settings = factory.settings(epochs=3, ema_decay=0.5)
    plain = factory.train(settings)

    def evaluate(models: Any, measured: Measured, settings: Any) -> dict[str, float]:
        images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        found = models["main"](images)
        assert not found.requires_grad and not models["main"].training
        return {"test_own_accuracy": float(found.argmax(1).double().mean() / 10)}

    measuring(monkeypatch, evaluate)
    run = factory.train(settings)
    state, expected = run.state(), plain.state()
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert all(run.curve[name] == values for name, values in plain.curve.items())


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"test_fine_accuracy": 0.5}, "returns 'test_fine_accuracy', which `measures` does not de"),
        ({"test_own_accuracy": "high"}, "must return numbers .found 'high' as 'test_own_accuracy'"),
        ({"test_own_accuracy": torch.tensor(0.5)}, "must return numbers .found tensor"),
        ({"test_own_accuracy": True}, "must return numbers .found True"),
        ({"test_own_accuracy": None}, "must return numbers .found None"),
        (0.5, "must return a dict .found 0.5"),
    ],
)
def test_what_evaluate_returns_wrongly_is_one_message(
    found: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, lambda *given: found)
    with pytest.raises(UserError, match=f"method: `evaluate` of 'supervised' {said}"):
        factory.train(factory.settings(epochs=1))


def test_a_figure_that_is_not_finite_ends_a_run_on_its_way_and_is_none_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measuring(monkeypatch, lambda models, measured, settings: {"test_own_accuracy": math.inf})
    with pytest.raises(Diverged) as diverged:
        factory.train(factory.settings(epochs=2, evaluations=2))
    assert diverged.value.update == 3
    last: Any = lambda models, measured, settings: (  # noqa: E731
        {"test_own_accuracy": math.inf} if measured.last else {}
    )
    measuring(monkeypatch, last)
    run = factory.train(factory.settings(epochs=2))
    assert run.final()["test_own_accuracy"] is None and "test_own_accuracy" not in run.curve


def test_a_curve_with_gaps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(
        monkeypatch,
        lambda models, measured, settings: (
            {} if measured.update == 8 else {"test_own_accuracy": 0.5}
        ),
    )
    with pytest.raises(UserError, match="returns 'test_own_accuracy' at some evaluations on the"):
        factory.train(factory.settings(epochs=3, evaluations=3))


def test_a_run_that_goes_on_has_no_gap_either(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = factory.settings(epochs=2, evaluations=2)
    measuring(monkeypatch, lambda models, measured, settings: {"test_own_accuracy": 0.5})
    half = factory.run(settings)
    half.train_epoch()
    half.evaluate_on_the_way()
    measuring(monkeypatch, lambda models, measured, settings: {})
    rest = factory.run(settings)
    rest.load_state(half.state(), half.epoch, half.curve)
    with pytest.raises(UserError, match="returns 'test_own_accuracy' at some evaluations on the"):
        factory.finish(rest)


def test_to_evaluate_draws_from_no_global_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(models: Any, measured: Measured, settings: Any) -> dict[str, float]:
        return {"test_own_accuracy": float(np.random.rand())}

    measuring(monkeypatch, evaluate)
    with pytest.raises(UserError, match=r"draws from numpy's global generator in its `evaluate`"):
        factory.train(factory.settings(epochs=1))


def test_features_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(models: Any, measured: Measured, settings: Any) -> dict[str, float]:
        found = measured.features("test")
        assert found.shape == (300, 32) and found.dtype == torch.float32
        return {"test_own_accuracy": float(measured.features("test", "z").mean())}

    measuring(monkeypatch, evaluate)
    with pytest.raises(UserError, match="method: no features 'z'; there are features"):
        factory.train(factory.settings(epochs=1))


# What is evaluated and handed on.


def heads(settings: Any, made: Any) -> dict[str, nn.Module]:
    return {"second": nn.Linear(made.width, made.classes), "lost": nn.Linear(2, 2)}


def by_second(models: Any, x: Tensor, settings: Any) -> Tensor:
    logits: Tensor = models["second"](models["main"].features(x))
    return logits


def learning(models: Any, batch: Any, *rest: Any) -> Any:
    z = by_second(models, batch.x, None)
    return nn.functional.cross_entropy(z, batch.y) + models["lost"].weight.sum() * 0, {}


def two_heads(monkeypatch: pytest.MonkeyPatch, **hooks: Any) -> None:
    given: Json = {"modules": heads, "predict": by_second, "step": learning,
                   "keeps": lambda settings: ("second",)}  # fmt: skip
    factory.use_method(monkeypatch, **{**given, **hooks})


@pytest.mark.parametrize("averages", [True, False])
def test_what_predict_says_is_evaluated_handed_on_and_what_children_see(
    averages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_heads(monkeypatch, averages=lambda settings: averages)
    run = factory.train(factory.settings(epochs=3, ema_decay=0.8))
    final, models = run.final(), run.models
    main, second = (
        (models["ema"], models["ema.second"]) if averages else (models["main"], models["second"])
    )
    ids = run.ids["test"]
    x = run.plain(run.data.images[ids])
    with torch.no_grad():
        main.eval(), second.eval()
        logits = second(main.features(x))
        assert final["test_accuracy"] == pytest.approx(
            float((logits.argmax(1) == run.data.labels[ids]).double().mean())
        )
        given = run.weights()
        assert torch.equal(given["second/weight"], second.weight)
        assert torch.equal(given["head.weight"], main.head.weight)
        assert not any(name.startswith("lost") for name in given)
        seen = teacher("teacher", [factory.trained(run)], (1, 8, 8))
        torch.testing.assert_close(seen(x), logits.log_softmax(1))
        torch.testing.assert_close(seen.features(x), main.features(x))
        torch.testing.assert_close(seen.parts["second"](seen.features(x)), logits)
    assert set(seen.parts) == {"main", "second"}
    assert not any(module.training for module in seen.modules())


def test_a_child_of_what_does_not_keep_its_modules_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    two_heads(monkeypatch, keeps=lambda settings: (),
              features=lambda models, x, settings: {"features": models["second"](x)})  # fmt: skip
    run = factory.run(factory.settings())
    seen = teacher("teacher", [factory.trained(run)], (1, 8, 8))
    for hook, asked in (("predict", seen), ("features", seen.features)):
        with pytest.raises(UserError, match=f"`{hook}` of 'supervised' takes the module 'second'"):
            asked(torch.rand(2, 1, 8, 8))


def test_what_a_parent_has_not_is_named() -> None:
    runs = [factory.untrained(name) for name in ("one", "two")]
    alone, several = (teacher("teacher", each, (1, 8, 8)) for each in (runs[:1], runs))
    x = torch.rand(2, 1, 8, 8)
    with pytest.raises(UserError, match="a parent has no features 'z'; it has features"):
        alone.features(x, "z")
    for asked in (lambda: several.features(x), lambda: several.parts):
        with pytest.raises(UserError, match="a parent of 2 runs has no features or parts of one"):
            asked()


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        (None, "dict of torch modules by name .found None"),
        ({"a": 1}, r"dict of torch modules by name .found \{'a': 1\}"),
        ({"main": nn.Linear(2, 2)}, "other than ema, features, head, main .found 'main'"),
        ({"a/b": nn.Linear(2, 2)}, "names as Python has them, .* .found 'a/b'"),
    ],
)
def test_modules_have_names_of_their_own(
    modules: Any, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory.use_method(monkeypatch, modules=lambda settings, made: modules)
    with pytest.raises(UserError, match=f"^method: `modules` of 'supervised' must .*{found}"):
        factory.run(factory.settings())


@pytest.mark.parametrize(
    ("predict", "found"),
    [
        (lambda models, x, settings: None, "NoneType"),
        (lambda models, x, settings: models["main"](x)[:, :3], r"\[\d+, 3\]"),
    ],
)
def test_what_predict_returns_are_logits_of_every_class(
    predict: Any, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory.use_method(monkeypatch, predict=predict)
    with pytest.raises(UserError, match=rf"`predict` of .* logits \[\d+, 10\], .*found {found}"):
        factory.run(factory.settings()).evaluate("validation")


def test_forward_passes_are_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    factory.use_method(monkeypatch, forwards=lambda settings, images: None)
    with pytest.raises(UserError, match=r"`forwards` of 'supervised' must return a number of"):
        factory.train(factory.settings(epochs=1)).spent()


def test_modules_that_are_kept_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    two_heads(monkeypatch, keeps=lambda settings: ("projector",))
    with pytest.raises(UserError, match="`keeps` of 'supervised' has 'projector', which `modules`"):
        factory.run(factory.settings())


def test_nothing_is_measured_of_a_head_that_nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    factory.use_method(monkeypatch, classifies=lambda settings: False)
    run = factory.train(factory.settings(epochs=2, split={"labels": None, "per_class": 20}))
    assert run.final() == {"train_class_count": [20] * 10}
    assert set(run.curve) == {"epoch", "eval_epoch", "train_loss"}
    assert run.curve["eval_epoch"] == [1, 2]


@pytest.mark.parametrize("at", ["on the way", "at the end"])
def test_weights_that_are_not_finite_are_seen_without_a_head(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last update no loss is seen any more, and here no accuracy either."""
    factory.use_method(monkeypatch, classifies=lambda settings: False)
    run = factory.run(factory.settings(epochs=2, evaluations=1))
    run.train_epoch()
    run.train_epoch()
    run.flat.data[3] = math.nan
    with pytest.raises(Diverged) as diverged:
        run.evaluate_on_the_way() if at == "on the way" else run.final()
    assert diverged.value.update == run.updates - 1
