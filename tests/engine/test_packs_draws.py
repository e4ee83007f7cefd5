"""Draws inside of steps that are stacked: every run has the numbers that it has alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import component, packs
from factories import engine as factory
from factories import method as method_factory
from factories.small_paper import Killed, killed_after
from factories.threads import one_thread

from cyclery.engine.packs import Pack

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
write = pytest.fixture(method_factory.written)

SEMI: Json = {"split": {"labels": 60, "unlabelled": "all"}, "epoch_images": 60, "mu": 2,
              "batch": 20}  # fmt: skip
NOISY: Json = {"model_settings": {"hidden": [32, 32], "dropout": 0.3}}
PROGRAMS: dict[str, tuple[str, Json, Json]] = {
    "mixup": ("kd", {"mixup": 1.0, "hard": 0.0}, {}),
    "mixup of both": ("kd", {"mixup": 0.4, "hard": 0.0, "inputs": "both"}, SEMI),
    "permuted": ("kd", {"targets": "permuted"}, {}),
    "mixmatch": ("mixmatch", {}, SEMI),
    "dropout": ("supervised", {}, NOISY),
    "mixup and dropout": ("kd", {"mixup": 1.0, "hard": 0.0}, NOISY),
    "dropout of the average": ("mean_teacher", {}, {**SEMI, **NOISY}),
}
# Variants that take seconds each, of what others here or in test_packs.py show, too.
SLOW = ("mixup of both", "mixmatch", "mixup and dropout")


def settings(method: str = "odd", count: int = 5, **more: Any) -> list[Json]:
    """Return settings of runs that differ in seed, rate, temperature and length."""
    return [
        factory.settings(
            method, seed=seed,
            **{"epochs": 2 + seed % 3, "lr": 0.01 * (1 + seed % 5), "epoch_images": 150, **more},
        )
        for seed in range(count)
    ]  # fmt: skip


def assert_independent(every: list[Json], *widths: int) -> None:
    """Fail unless runs are stacked, the same at every width and place, and as eager ones draw."""
    alone = [packs.bits(run) for run in packs.beside(every, packs.Widths(1))]
    for width in widths:
        stack = packs.Widths(width)
        turned = packs.beside(every[::-1], stack)[::-1]
        assert stack.refusals == {} and max(stack.seen) == width
        for place, run in enumerate(turned):
            assert packs.differing(alone[place], packs.bits(run)) == [], (width, place)
    eager = packs.bits(packs.alone(every[1]))
    assert eager["curve"]["train_loss"] == pytest.approx(alone[1]["curve"]["train_loss"], rel=1e-3)
    for name in ("method", "network", "average"):
        assert eager[f"{name}_generator"].equal(alone[1][f"{name}_generator"])


@pytest.mark.parametrize(
    "program", [pytest.param(p, marks=[pytest.mark.slow] * (p in SLOW)) for p in PROGRAMS]
)
def test_bits_depend_on_neither_width_nor_place(program: str) -> None:
    method, chosen, others = PROGRAMS[program]
    widths = (2, 7, 16) if program == "permuted" else (2, 7)
    assert_independent(settings(method, widths[-1], method_settings=chosen, **others), *widths)


# A number [] that is drawn, of this size or with these parameters.
FORMS = {
    "rand": "torch.rand(len(z), generator=generator, device=z.device).mean()",
    "rand of a shape": "torch.rand(z.shape, generator=generator)[0, 0]",
    "rand by name":
        "torch.rand(size=(3, 2), generator=generator, dtype=torch.float64)[0, 0].float()",
    "rand of one": "torch.rand((), generator=generator) + torch.rand(size=(), generator=generator)",
    "randn": "torch.randn(3, 2, generator=generator).sum()",
    "randint": "torch.randint(2, 9, (4,), generator=generator).float().mean()",
    "randperm": "torch.randperm(9, generator=generator)[0].float()",
    "normal": "torch.normal(0.0, 2.0, (3,), generator=generator).sum()",
    "normal about what a run has": "torch.normal(z.detach(), 1.0, generator=generator).mean()",
    "normal of a spread by name":
        "torch.normal(mean=torch.zeros(1), std=row['temperature'], generator=generator)[0]",
    "gamma of a quantity":
        "torch._standard_gamma(row['temperature'].expand(2, 5), generator=generator).mean()",
    "bernoulli": "torch.bernoulli(z.detach().softmax(1), generator=generator).mean()",
    "multinomial": "torch.multinomial(z.detach().softmax(1), 2, generator=generator)[0, 1].float()",
    "empty": "torch.empty(3).normal_(generator=generator).sum()",
    "empty like": "torch.empty_like(z).uniform_(-1, 1, generator=generator).mean()",
    "new empty": "z.new_empty(4).exponential_(2.0, generator=generator).mean()",
    "into what a run has": "z.detach().clone().bernoulli_(0.5, generator=generator).mean()",
    "with parameters":
        "torch.empty(z.shape).bernoulli_(z.detach().softmax(1), generator=generator).mean()",
    "kept in what was filled": "filled(torch.empty(3), generator)",
}  # fmt: skip
FILLED = """

def filled(x, generator):
    x.normal_(generator=generator)
    return x.sum()
"""


@pytest.mark.parametrize("form", FORMS)
def test_a_run_draws_what_it_draws_alone(form: str, write: component.Write) -> None:
    drawn = f"drawn = {FORMS[form]}; z = z * (1 + 0.1 * drawn)"
    write("odd", method_factory.text(drawn, "loss, {'drawn': drawn}", FILLED))
    every = settings(count=4, temperature=factory.cycle(1.0, 1.5))
    assert_independent(every, 3)
    curves = [run.curve["train_drawn"] for run in packs.beside(every, packs.Widths(4))]
    # Other runs, other numbers; and the same as without a stack.
    assert len({tuple(curve) for curve in curves}) == len(every)
    assert packs.alone(every[2]).curve["train_drawn"] == pytest.approx(curves[2], rel=1e-2)


SHARED = "into a tensor that its runs share; draw into one of `torch.empty`"
UNSEEN = "a step draws random numbers that runs cannot draw each for itself"
REFUSED = {
    "torch.zeros(3).normal_(generator=generator).sum()": SHARED,
    "torch.vmap(lambda x: torch.rand((), generator=generator) + x, randomness='different')"
    "(z.detach())[0, 0]": "inside of a `vmap` of its own",
    "torch.nn.init.normal_(torch.empty(3), generator=generator).sum()": UNSEEN,
    "torch.rand(3, out=torch.zeros(3), generator=generator).sum()": "into what `out=` names",
    "torch.rand(3).sum()": UNSEEN,
    "torch.empty(4, 3).t().normal_(generator=generator)[0].sum()": "that is not contiguous",
    "torch.empty(2, 3, 4, 4, memory_format=torch.channels_last)"
    ".normal_(generator=generator)[:, 0].sum()": "that is not contiguous",
}


@pytest.mark.parametrize("form", REFUSED)
def test_a_draw_that_is_no_runs_own_is_refused(form: str, write: component.Write) -> None:
    write("odd", method_factory.text(f"z = z * (1 + {form})"))
    assert REFUSED[form] in packs.refusal(settings()[0])


def test_a_generator_that_is_seeded_in_a_step_is_found_out(write: component.Write) -> None:
    write("odd", method_factory.text("generator.manual_seed(1)"))
    assert packs.refusal(settings()[0]) == UNSEEN


@pytest.mark.parametrize("form", ["torch.rand(3, generator=generator).sum()", *REFUSED])
def test_a_trial_leaves_the_generators_as_they_were(form: str, write: component.Write) -> None:
    write("odd", method_factory.text(f"z = z * (1 + {form})"))
    run = packs.made(settings(**NOISY)[0], packs.Widths())
    run.begin_epoch()
    torch.manual_seed(3)
    before = {name: x.get_state() for name, x in run.generators.items()}
    try:
        Pack([run]).try_()
    except Exception as error:
        assert form in REFUSED, error
    for name, drawn in run.generators.items():
        assert drawn.get_state().equal(before[name]), name


# By the trainer. The share is that of mixup, from a Beta.
MIXED = """
first, second = torch._standard_gamma(row["temperature"].repeat(2), generator=generator).unbind()
    order = torch.rand(len(z), generator=generator, device=z.device).argsort()
    z = z.index_select(0, order).lerp(z, first / (first + second))
"""


def jobs(count: int = 5, **more: Any) -> list[Json]:
    return [
        factory.job(given, keep=True, label=f"one/main/odd s{given['seed']}")
        for given in settings(count=count, **{**NOISY, **more})
    ]


def records(root: Path, wanted: list[Json], **how: Any) -> list[Json]:
    return [factory.figures(record) for record in factory.trainer(root, **how).train(wanted)]


@pytest.fixture
def expected(write: component.Write, tmp_path: Path) -> list[Json]:
    """Write the method; return the records of jobs that were trained one by one."""
    write("odd", method_factory.text(MIXED.strip()))
    return [records(tmp_path / job["key"], [job], pack=1)[0] for job in jobs()]


def test_places_that_are_left_are_taken_by_runs_with_draws_of_their_own(
    expected: list[Json], tmp_path: Path
) -> None:
    """And a neighbour that diverges changes nothing."""
    given = settings(count=1, epochs=6, **NOISY)[0]
    wild = [factory.job({**given, "seed": 9, "schedules": {**given["schedules"], "lr": rate}})
            for rate in (1e12, 1e30)]  # fmt: skip
    every = jobs()
    found = records(tmp_path, [every[0], wild[0], *every[1:3], wild[1], *every[3:]], pack=3)
    assert [found[place]["status"] for place in (1, 4)] == ["diverged", "diverged"]
    assert [found[place] for place in (0, 2, 3, 5, 6)] == expected


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_pack_that_is_killed_goes_on_with_the_same_draws(
    epochs: int, expected: list[Json], tmp_path: Path
) -> None:
    with killed_after(epochs), pytest.raises(Killed):
        factory.trainer(tmp_path, resume_seconds=0.0, pack=2).train(jobs())
    assert records(tmp_path, jobs()[::-1], pack=4) == expected[::-1]


# What a step differentiates itself.
INWARD = """

def inward(net, x, d):
    from cyclery.methods._gradients import by_input
    from cyclery.models.layers import statistics_kept

    with torch.no_grad(), statistics_kept(net):
        p = net(x).softmax(1)
    return by_input(net, lambda d: F.kl_div(
        net(x + 0.1 * d).log_softmax(1), p, reduction="batchmean"), d)
"""


@pytest.mark.parametrize("more", [{}, NOISY], ids=["plain", "dropout"])
def test_a_gradient_by_the_input_is_the_runs_own(more: Json, write: component.Write) -> None:
    """As VAT takes it: of a divergence, at a random direction, where batch norm is in between."""
    step = (
        "net, d = models['main'], torch.randn(batch.x.shape, generator=generator)\n"
        "    g = inward(net, batch.x, d)\n"
        "    z = z + net(batch.x + g.sign()).float()"
    )
    write("odd", method_factory.text(step, more=INWARD))
    assert_independent(settings(**more), 2, 5)


PRIVATE = """
from cyclery.methods import Gradients
from cyclery.methods._gradients import per_example


def modules(settings, made):
    return {"plain": torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))}


def predict(models, x, settings):
    return models["plain"](x)


def private(net, batch, generator):
    def cross_entropy(call, x, y):
        return F.cross_entropy(call(x[None]), y[None])

    every, losses = per_example(net, cross_entropy, batch.x, batch.y)
    norm = torch.stack([g.flatten(1).square().sum(1) for g in every.values()]).sum(0).sqrt()
    found = {}
    for name, g in every.items():
        clipped = (g.flatten(1) / norm.clamp_min(1.0)[:, None]).sum(0).view(g.shape[1:])
        noise = torch.randn(clipped.shape, generator=generator, device=clipped.device)
        found[f"plain.{name}"] = (clipped + noise) / len(batch.y)
    return Gradients(losses.mean(), found)
"""


def test_gradients_of_every_example_with_noise_are_the_runs_own(write: component.Write) -> None:
    """As DP-SGD has them."""
    step = "return private(models['plain'], batch, generator), {}"
    write("odd", method_factory.text(step, more=PRIVATE))
    assert_independent(settings(), 2, 5)
