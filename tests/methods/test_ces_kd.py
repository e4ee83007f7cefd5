"""CES-KD/op: strata of difficulty, who teaches whom and when, and what remembers it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import engine as factory
from factories.replay import NoWaiting, Recorder
from torch import Tensor, nn

from cyclery import methods, models, schedules
from cyclery.common.errors import UserError
from cyclery.engine.run import Beginning, Run
from cyclery.engine.stream import Batch
from cyclery.engine.teachers import Teacher, Trained
from cyclery.methods import ces_kd, kd

B, K, N = 8, 4, 40
EXPERTS = 3
NAMES = [f"expert-{number}" for number in range(1, EXPERTS + 1)]
FOLDS = [f"fold-{fold}" for fold in range(5)]
# Every path through the step.
PATHS = [
    *[{"assignment": a, "unlocking": u} for a, u in product(
        ("curriculum", "random", "reversed"), ("gradual", "static", "easy_first"))],
    {"assignment": "single", "expert": 2}, {"assignment": "mean"}, {"assignment": "all"},
]  # fmt: skip
each_path = pytest.mark.parametrize("given", PATHS, ids=lambda given: " ".join(
    str(value) for value in given.values()))  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for their threads
    yield
    torch.set_num_threads(before)


# Strata.


def by_numpy(difficulty: np.ndarray, count: int) -> np.ndarray:
    """Return the strata of the card's independent check."""
    found = np.empty(len(difficulty), dtype=int)
    for stratum, ids in enumerate(np.array_split(np.argsort(difficulty, kind="stable"), count)):
        found[ids] = stratum
    return found


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("total", [60, 61, 62, 63, 64, 200])
def test_strata_are_quantiles_as_numpy_cuts_them(total, count):
    # Few values, so that many are equal.
    difficulty = np.random.default_rng(total + count).integers(0, 25, total).astype(float)
    found = ces_kd.quantiles(torch.tensor(difficulty), count).numpy()
    expected = by_numpy(difficulty, count)
    order = np.argsort(difficulty, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    ends = [np.searchsorted(strata[order], range(1, count)) for strata in (found, expected)]
    # Up to one element at the edges, where the total cannot be divided.
    assert abs(ends[0] - ends[1]).max() <= (1 if total % count else 0)
    sizes = np.bincount(found, minlength=count)
    assert sizes.max() - sizes.min() <= 1
    ranks = np.argsort(order)
    np.testing.assert_array_equal(found, [math.floor(count * rank / total) for rank in ranks])


def test_of_equal_difficulties_the_earlier_sample_is_the_easier_one():
    found = ces_kd.quantiles(torch.zeros(10), 3).tolist()
    assert found == sorted(found)


class Planted:
    """What a method begins with: made-up answers of parents, and who was trained on what."""

    def __init__(self, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.ids = torch.randperm(3 * N, generator=g)[:N]
        self.y = torch.randint(K, (N,), generator=g)
        self.said: dict[str, Tensor] = {}
        self.left: dict[str, Tensor] = {}
        self.seed = 0

    def answers(self, name: str) -> Tensor:
        return self.said[name]

    def left_out(self, name: str) -> Tensor:
        return self.left[name]

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(hash((self.seed, len(purpose))) % 2**31)

    def answer(self, name: str, seed: int) -> Tensor:
        """Let a parent answer something."""
        z = 2 * torch.randn(N, K, generator=torch.Generator().manual_seed(seed))
        self.said[name] = z.log_softmax(1)
        return self.said[name]

    def loss(self, name: str) -> np.ndarray:
        return F.nll_loss(self.said[name], self.y, reduction="none").numpy()


def begun(samples: Planted, **given: Any) -> np.ndarray:
    """Return the strata of the samples, and check that nobody else has any."""
    settings = ces_kd.Settings(**given)
    nets = ces_kd.modules(settings, nn.Identity(), K, 3 * N)
    memory = nets["curriculum"].get_buffer("strata")
    assert memory.shape == (3 * N,) and not memory.any()
    ces_kd.begin(nets, samples, settings)
    others = torch.ones(3 * N, dtype=torch.bool)
    others[samples.ids] = False
    assert not memory[others].any()
    return memory[samples.ids].numpy()


def folded() -> Planted:
    """Return samples whose difficulty only the network of their own fold knows."""
    samples = Planted()
    fold = torch.randperm(N, generator=torch.Generator().manual_seed(9)) % 5
    for number, name in enumerate(FOLDS):
        samples.answer(name, 20 + number)
        samples.left[name] = fold == number
    return samples


@pytest.mark.parametrize("experts", [2, 4, 5])
def test_the_losses_of_one_network_rank_the_samples(experts):
    samples = Planted()
    for number in range(1, experts + 1):
        samples.answer(f"expert-{number}", number)
    samples.answer("student", 77)
    for difficulty, name in (("teacher_loss", f"expert-{experts}"), ("student_loss", "student")):
        found = begun(samples, difficulty=difficulty, experts=experts)
        np.testing.assert_array_equal(found, by_numpy(samples.loss(name), experts))


def test_the_loss_of_the_network_that_did_not_see_a_sample_ranks_it():
    samples = folded()
    expected = np.stack([samples.loss(name) for name in FOLDS])
    left = np.stack([samples.left[name].numpy() for name in FOLDS])
    assert (left.sum(0) == 1).all()
    difficulty = expected.T[left.T]
    found = begun(samples, experts=4)
    np.testing.assert_array_equal(found, by_numpy(difficulty, 4))
    # Whatever the others say: a network that saw a sample has no say.
    for name in FOLDS:
        samples.said[name] = torch.where(samples.left[name][:, None], samples.said[name], math.nan)
    np.testing.assert_array_equal(begun(samples, experts=4), found)


def test_the_first_expert_that_is_right_is_the_stratum():
    samples = Planted()
    for number in range(1, 4):
        samples.answer(f"expert-{number}", number)
    found = begun(samples, difficulty="first_correct", experts=3)
    right = [(samples.said[name].argmax(1) == samples.y).tolist() for name in NAMES]
    expected = [
        next((stratum for stratum, ok in enumerate(column) if ok), 2)
        for column in zip(*right, strict=True)
    ]
    assert found.tolist() == expected
    # Some are right only later, and some never.
    assert len(set(expected)) == 3 and any(not any(column) for column in zip(*right, strict=True))


@pytest.mark.parametrize("difficulty", ["cv_loss", "first_correct"])
def test_the_controls_keep_how_many_samples_an_expert_has(difficulty):
    samples = folded()
    for number in range(1, 4):
        samples.answer(f"expert-{number}", number)
    found = {
        assignment: begun(samples, difficulty=difficulty, assignment=assignment)
        for assignment in ("curriculum", "random", "reversed")
    }
    sizes = {name: np.bincount(strata, minlength=3).tolist() for name, strata in found.items()}
    assert sizes["random"] == sizes["curriculum"]
    assert sizes["reversed"] == sizes["curriculum"][::-1]
    np.testing.assert_array_equal(found["reversed"], 2 - found["curriculum"])
    assert (found["random"] != found["curriculum"]).any()
    # Drawn once, by the run's generator.
    again = begun(samples, difficulty=difficulty, assignment="random")
    np.testing.assert_array_equal(again, found["random"])
    samples.seed = 1
    assert (begun(samples, difficulty=difficulty, assignment="random") != found["random"]).any()


def test_folds_that_leave_a_sample_to_nobody_are_refused():
    samples = folded()
    samples.left[FOLDS[3]] = torch.zeros(N, dtype=torch.bool)
    with pytest.raises(UserError, match=r"^parents: the folds leave some .* out of none"):
        begun(samples)


def test_what_needs_no_strata_remembers_none():
    for assignment in ("single", "mean", "all"):
        settings = ces_kd.Settings(assignment=assignment)
        assert ces_kd.modules(settings, nn.Identity(), K, 10) == {}
        ces_kd.begin({}, object(), settings)


def test_each_setting_needs_its_own_parents():
    def needed(**given: Any) -> tuple[str, ...]:
        return ces_kd.parents(ces_kd.Settings(**given))

    assert needed() == (*NAMES, *FOLDS)
    assert needed(experts=2) == ("expert-1", "expert-2", *FOLDS)
    assert needed(difficulty="teacher_loss") == tuple(NAMES)
    assert needed(difficulty="first_correct", assignment="random") == tuple(NAMES)
    assert needed(difficulty="student_loss", assignment="reversed") == (*NAMES, "student")
    assert needed(assignment="single", expert=2) == ("expert-2",)
    assert needed(assignment="mean") == needed(assignment="all") == tuple(NAMES)
    with pytest.raises(UserError, match=r"^expert: must be at most 3, .* \(found 4\)"):
        ces_kd.Settings(expert=4)


# When an expert begins to teach.


@pytest.mark.parametrize("experts", [2, 3, 4, 7])
@pytest.mark.parametrize("rho", ["1/2", "1", "1/4", "3/10", "2/3"])
def test_experts_are_unlocked_by_the_cards_formula(rho, experts):
    method = methods.load("ces_kd")
    settings = ces_kd.Settings(experts=experts, rho=float(Fraction(rho)))
    for epochs in (1, 2, 3, 5, 10, 17, 60, 240):
        clock, _ = schedules.clock_for(np.full(epochs, 10), 35)
        spec = schedules.normalise(method.settings_type().progress)
        progress = torch.tensor(schedules.column(spec, clock), dtype=torch.float32)
        found = ces_kd.unlocked_experts(progress, settings).tolist()
        expected = [
            min(experts, 1 + math.floor(experts * (k - 1) / (Fraction(rho) * epochs)))
            for k in range(1, epochs + 1)
        ]
        assert found[::3] == found[1::3] == found[2::3] == expected
    static = replace(settings, unlocking="static")
    assert set(ces_kd.unlocked_experts(progress, static).tolist()) == {experts}


@pytest.mark.parametrize("experts", [2, 3, 4, 7])
@pytest.mark.parametrize("rho", ["1/2", "1", "3/10"])
def test_all_experts_teach_after_the_share_that_the_setting_says(rho, experts):
    """Of n turns that make up rho of the run, the last expert's begins with the last one."""
    settings = ces_kd.Settings(experts=experts, rho=float(Fraction(rho)))
    share = Fraction(rho) * (experts - 1) / experts
    doc = ces_kd.Settings.__dataclass_fields__["rho"].metadata["doc"]
    assert "all are unlocked after rho (n - 1) / n" in doc
    updates = 4200
    done = torch.arange(updates) / updates
    unlocked = ces_kd.unlocked_experts(done, settings)
    first = int((unlocked == experts).nonzero()[0])
    assert first / updates == pytest.approx(float(share), abs=1.5 / updates)


# A step.


class Head(nn.Module):
    """A linear network on images."""

    def __init__(self, seed: int, spread: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(16, K)
        self.linear.weight.data.mul_(spread)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def case(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(B, 1, 4, 4, generator=g), torch.randint(K, (B,), generator=g)
    return Batch((x,), y, torch.randperm(N, generator=g)[:B])


def experts(count: int = EXPERTS) -> dict[str, Teacher]:
    return {f"expert-{n}": Teacher([Head(10 + n, spread=5.0)]) for n in range(1, count + 1)}


def step(
    strata: Tensor | None, given: dict[str, Any] | None = None, progress: float = 1.0, **row: float
) -> tuple[Tensor, dict[str, Tensor], nn.Module]:
    """Make one step backward; return its loss and logs, and the network with its gradient."""
    settings, net = ces_kd.Settings(**(given or {})), Head(0)
    nets = {"main": net, **experts(), **ces_kd.modules(settings, net, K, N)}
    if strata is not None:
        nets["curriculum"].get_buffer("strata").copy_(strata)
    values = {"temperature": 3.0, "soft": 0.7, "progress": progress, **row}
    values = {name: torch.tensor(value) for name, value in values.items()}
    loss, logs = ces_kd.step(nets, case(), values, settings, torch.Generator())
    loss.backward()
    if strata is not None:
        assert torch.equal(nets["curriculum"].get_buffer("strata"), strata)
    return loss.detach(), {name: value.detach() for name, value in logs.items()}, net


def by_kd(teacher: nn.Module) -> tuple[float, Tensor]:
    """Return the loss of plain distillation from one teacher, and its gradient."""
    net, row = Head(0), {"temperature": torch.tensor(3.0), "soft": torch.tensor(0.7)}
    nets = {"main": net, "teacher": teacher}
    loss, _ = kd.step(nets, case(), row, kd.Settings(), torch.Generator())
    loss.backward()
    return loss.item(), net.linear.weight.grad


def of_samples(net: nn.Module, expert: nn.Module, t: float = 3.0) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and the divergence of each sample, by torch's own functions."""
    batch = case()
    z = net(batch.x)
    losses = F.kl_div((z / t).log_softmax(1), (expert(batch.x) / t).softmax(1), reduction="none")
    return F.cross_entropy(z, batch.y, reduction="none"), losses.sum(1) * t**2


@pytest.mark.parametrize("number", [1, 2, 3])
def test_where_all_have_one_expert_it_is_distillation_from_that_one(number):
    loss, gradient = by_kd(experts()[f"expert-{number}"])
    strata = torch.full((N,), number - 1)
    for given, known in (
        ({"unlocking": "static"}, strata),
        ({"unlocking": "gradual"}, strata),
        ({"unlocking": "easy_first"}, strata),
        ({"assignment": "single", "expert": number}, None),
    ):
        found, logs, net = step(known, given)
        assert found.item() == pytest.approx(loss, rel=1e-6)
        torch.testing.assert_close(net.linear.weight.grad, gradient, rtol=1e-5, atol=1e-7)
        assert logs["expert"] == number


def test_the_mean_of_all_is_distillation_from_an_ensemble():
    members = [teacher.members[0] for teacher in experts().values()]
    loss, gradient = by_kd(Teacher(members))
    found, _, net = step(None, {"assignment": "mean"})
    assert found.item() == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(net.linear.weight.grad, gradient, rtol=1e-5, atol=1e-7)


def test_all_is_the_mean_of_the_losses_to_every_expert():
    single = [by_kd(expert) for expert in experts().values()]
    found, _, net = step(None, {"assignment": "all"})
    assert found.item() == pytest.approx(np.mean([loss for loss, _ in single]), rel=1e-6)
    mean = torch.stack([gradient for _, gradient in single]).mean(0)
    torch.testing.assert_close(net.linear.weight.grad, mean, rtol=1e-5, atol=1e-7)


def strata_of() -> Tensor:
    """Return strata in which the batch has every one, the last of them twice."""
    strata = torch.zeros(N, dtype=torch.int64)
    strata[case().ids] = torch.tensor([2, 0, 1, 2, 0, 1, 2, 2])
    return strata


@pytest.mark.parametrize(("progress", "unlocked"), [(0.0, 1), (0.2, 2), (0.34, 3), (1.0, 3)])
@pytest.mark.parametrize("unlocking", ["gradual", "static", "easy_first"])
def test_each_sample_has_the_expert_of_its_stratum_as_far_as_it_is_unlocked(
    unlocking, progress, unlocked
):
    found, logs, net = step(strata_of(), {"unlocking": unlocking}, progress=progress)
    twin = Head(0)
    hard, _ = of_samples(twin, experts()["expert-1"])
    each = torch.stack([of_samples(twin, expert)[1] for expert in experts().values()])
    allowed = EXPERTS if unlocking == "static" else unlocked
    expected, numbers = [], []
    for place, stratum in enumerate(strata_of()[case().ids].tolist()):
        used = min(stratum, allowed - 1)
        numbers.append(used + 1)
        locked = unlocking == "easy_first" and stratum >= allowed
        soft = 0.0 if locked else 0.7
        expected.append((1 - soft) * hard[place] + soft * each[used, place])
    total = torch.stack(expected).mean()
    total.backward()
    assert found.item() == pytest.approx(total.item(), rel=1e-5)
    torch.testing.assert_close(net.linear.weight.grad, twin.linear.weight.grad)
    assert logs["expert"].item() == pytest.approx(np.mean(numbers))
    assert logs["loss_hard"].item() == pytest.approx(hard.mean().item(), rel=1e-5)


OTHER = {"expert": 2, "difficulty": "teacher_loss", "unlocking": "easy_first", "rho": 0.9}


@each_path
def test_what_is_ignored_changes_nothing_and_all_else_does(given):
    """Neither the parents, nor the strata, nor the loss of a step."""
    settings = ces_kd.Settings(**given)
    ignored = set(ces_kd.ignored(settings))
    assert ignored <= {*OTHER, "progress"} - set(given)
    samples = folded()
    samples.answer(NAMES[-1], 30)

    def effects(progress: float = 0.2, **changes: Any) -> list[Any]:
        chosen = {**given, **changes}
        known = settings.by_stratum
        loss, *_ = step(strata_of() if known else None, chosen, progress)
        strata = begun(samples, **chosen).tolist() if known else None
        return [float(loss), ces_kd.parents(ces_kd.Settings(**chosen)), strata]

    plain = effects()
    for name in OTHER.keys() - given.keys():
        assert (effects(**{name: OTHER[name]}) == plain) == (name in ignored), name
    assert (effects(progress=1.0) == plain) == ("progress" in ignored)


def test_what_is_not_unlocked_learns_from_its_label_alone():
    strata = torch.full((N,), 2)
    found, _, net = step(strata, {"unlocking": "easy_first"}, progress=0.0)
    twin, batch = Head(0), case()
    loss = F.cross_entropy(twin(batch.x), batch.y)
    loss.backward()
    assert found.item() == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(net.linear.weight.grad, twin.linear.weight.grad)


def test_experts_see_the_very_tensor_of_the_student_and_get_no_gradient():
    settings, net = ces_kd.Settings(), Head(0)
    nets = {"main": net, **experts(), **ces_kd.modules(settings, net, K, N)}
    seen: list[Tensor] = []
    for each in (net, *experts_of(nets)):
        each.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    row = {name: torch.tensor(0.5) for name in ("temperature", "soft", "progress")}
    ces_kd.step(nets, case(), row, settings, torch.Generator())[0].backward()
    assert len(seen) == 1 + EXPERTS and all(each is seen[0] for each in seen)
    assert all(p.grad is None for each in experts_of(nets) for p in each.parameters())


def experts_of(nets: dict[str, nn.Module]) -> list[nn.Module]:
    return [nets[name] for name in NAMES]


@each_path
def test_a_step_never_waits_and_keeps_every_log_a_scalar(given):
    settings, net = ces_kd.Settings(**given), Head(0)
    nets = {"main": net, **experts(), **ces_kd.modules(settings, net, K, N)}
    row = {name: torch.tensor(0.5) for name in ("temperature", "soft", "progress")}
    with NoWaiting():
        loss, logs = ces_kd.step(nets, case(), row, settings, torch.Generator())
        loss.backward()
    assert set(logs) == {"loss_hard", "loss_soft", "expert"}
    assert all(value.shape == () and value.isfinite() for value in (loss, *logs.values()))


# Whole runs.


@cache
def folds() -> tuple[dict[str, Trained], dict[str, set[int]]]:
    """Return networks that each left a fold out, and the samples that each was trained on."""
    found, marks = {}, {}
    for number, name in enumerate(FOLDS):
        split = {"folds": 5, "fold": number}
        # Batches that divide the rows: every one of them is seen.
        run = factory.run(factory.settings(split=split, epochs=1, batch=20))
        seen: set[int] = set()
        made = run._batch

        def batch(*given: Any, made: Any = made, seen: set[int] = seen) -> Batch:
            found = made(*given)
            seen.update(found.ids.tolist())
            return found

        run._batch = batch
        factory.finish(run)
        found[name], marks[name] = factory.trained(run), seen
    return found, marks


def parents() -> dict[str, list[Trained]]:
    return {name: [trained] for name, trained in folds()[0].items()}


def settings(given: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return factory.settings("ces_kd", method_settings=given or {}, **changes)


def strata(run: Run) -> Tensor:
    return run.models["curriculum"].get_buffer("strata")


def test_only_networks_that_did_not_see_a_sample_measure_its_difficulty(monkeypatch):
    """They are trained, and what they were trained on is noted as it happens."""
    _, marks = folds()
    plain = factory.run(factory.settings())
    ids = plain.ids["train"].tolist()
    assert all(len(seen) == 160 and seen <= set(ids) for seen in marks.values())
    assert all(sum(i in seen for seen in marks.values()) == 4 for i in ids)
    difficulty = dict(zip(ids, np.random.default_rng(0).permutation(len(ids)), strict=True))

    def answers(self: Beginning, name: str) -> Tensor:
        said = [math.nan if i in marks[name] else -float(difficulty[i]) for i in self.ids.tolist()]
        return torch.tensor(said)[:, None].expand(-1, 10)

    monkeypatch.setattr(Beginning, "answers", answers)
    run = factory.run(settings({"experts": 4}), parents=parents())
    expected = by_numpy(np.array([difficulty[i] for i in ids], dtype=float), 4)
    assert strata(run)[ids].tolist() == expected.tolist()


def test_the_difficulty_is_the_held_out_loss_on_images_that_are_not_augmented():
    trained, marks = folds()
    run = factory.run(settings({"experts": 5}, augment=({"op": "cutout", "size": 5},)),
                      parents=parents())  # fmt: skip
    ids, data = run.ids["train"], factory.data()
    losses = torch.full((len(ids),), math.nan, dtype=torch.float64)
    manifest = data.manifest
    mean, std = (torch.tensor(manifest[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    x = (data.images[ids].float() / manifest["max_value"] - mean) / std
    for name, parent in trained.items():
        net = models.build("bn_mlp", {"hidden": [32]}, (1, 8, 8), 10)
        net.load_state_dict(parent.weights)
        net.eval()
        out = torch.tensor([i not in marks[name] for i in ids.tolist()])
        with torch.no_grad():
            each = F.cross_entropy(net(x), data.labels[ids], reduction="none").double()
        losses[out] = each[out]
    assert strata(run)[ids].tolist() == by_numpy(losses.numpy(), 5).tolist()
    assert all(net.training for net in run.networks.models.values())


def test_folds_that_are_none_are_one_clear_message():
    whole = factory.untrained("expert-1")
    with pytest.raises(UserError, match=r"^parents: the folds leave .* `folds: 5` and `fold` 0"):
        factory.run(settings(), parents={name: [whole] for name in FOLDS})
    twice = {**parents(), "fold-1": parents()["fold-0"]}
    with pytest.raises(UserError, match="the folds leave some training samples"):
        factory.run(settings(), parents=twice)


def test_a_random_assignment_is_the_seeds_alone():
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        run = factory.run(settings({"assignment": "random"}, seed=seed,
                                   split={"choose": "first"}))  # fmt: skip
        found.append(strata(run)[run.ids["train"]])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("changes", [{}, {"epoch_images": 330, "batch": 60}])
def test_each_sample_keeps_its_stratum_whatever_the_order(monkeypatch, changes):
    declared, seen = methods.load("ces_kd"), []

    def step(models, batch, row, chosen, generator):
        loss, logs = declared.step(models, batch, row, chosen, generator)
        unlocked = ces_kd.unlocked_experts(row["progress"], chosen).item()
        seen.append((batch.ids.tolist(), unlocked, logs["expert"].item()))
        return loss, logs

    monkeypatch.setattr(methods, "load", lambda name: replace(declared, step=step))
    run = factory.run(settings(epochs=6, **changes), parents=parents())
    first = strata(run).clone()
    factory.finish(run)
    assert torch.equal(strata(run), first) and len(first) == len(factory.data().labels)
    by_id = dict(enumerate(first.tolist()))
    for ids, unlocked, expert in seen:
        experts = [min(by_id[i], unlocked - 1) + 1 for i in ids]
        assert expert == pytest.approx(np.mean(experts))
    assert {unlocked for _, unlocked, _ in seen} == {1, 2, 3}
    orders = {tuple(ids) for ids, *_ in seen}
    assert len(orders) == len(seen)


@pytest.mark.parametrize("given", [{}, {"unlocking": "easy_first", "assignment": "random"}])
def test_a_resumed_run_remembers_the_strata(monkeypatch, given):
    wanted = settings(given, epochs=4)
    whole, half = (factory.run(wanted, parents=parents()) for _ in range(2))
    factory.finish(whole)
    for _ in range(2):
        half.train_epoch()
        half.evaluate_on_the_way()
    state, name = half.state(), "buffer.curriculum.strata"
    assert state[name].any()
    # What is measured anew at the start does not matter: it is what was saved that counts.
    declared = methods.load("ces_kd")
    monkeypatch.setattr(methods, "load", lambda name: replace(declared, begin=lambda *given: None))
    for forgotten in (False, True):
        rest = factory.run(wanted, parents=parents())
        assert not strata(rest).any()
        taken = {**state, name: torch.zeros_like(state[name])} if forgotten else state
        rest.load_state(taken, 2, {key: list(values) for key, values in half.curve.items()})
        factory.finish(rest)
        same = all(torch.equal(v, rest.state()[k]) for k, v in whole.state().items())
        assert same != forgotten
        assert (rest.curve == whole.curve) != forgotten


@each_path
def test_a_replayed_run_equals_an_eager_one(given):
    wanted = factory.everything(
        "ces_kd", method_settings=given, epochs=3, soft=factory.cycle(1.0, 0.3),
        progress={"kind": "linear", "start": 0.0, "end": 1.0, "clock": "epoch"},
    )  # fmt: skip
    eager = factory.train(wanted, parents=parents())
    replayed = factory.train(wanted, parents=parents(), recorder=Recorder())
    first, second = eager.state(), replayed.state()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert eager.curve == replayed.curve
    # The memory is neither averaged nor part of the network that is kept.
    assert "ema.curriculum" not in eager.models
    assert not any("strata" in name for name in eager.weights())


def test_it_says_that_it_is_the_projects_own():
    method = methods.load("ces_kd")
    assert method.title == "CES-KD/op" and method.own_definition
    assert method.quantities == ("temperature", "soft", "progress") and method.capture
    assert ces_kd.Settings() == ces_kd.Settings(
        temperature=4.0, soft=0.9, experts=3, difficulty="cv_loss", assignment="curriculum",
        unlocking="gradual", rho=0.5,
    )  # fmt: skip
