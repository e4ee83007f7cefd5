"""Runs beside one another in packs: faults, hooks, kills and what is refused, by the trainer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from factories import component, packs
from factories import engine as factory
from factories import method as method_factory
from factories.small_paper import Killed, killed_after
from factories.threads import one_thread

from cyclery.common.errors import UserError

Json = dict[str, Any]
_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


write = pytest.fixture(method_factory.written)


def jobs(count: int = 5, method: str = "supervised", **more: Any) -> list[Json]:
    """Return jobs of one program that differ in seed, rate and length."""
    return [
        factory.job(
            factory.settings(method, seed=seed, epochs=2 + seed % 3, lr=0.02 + 0.01 * seed, **more),
            keep=True,
            label=f"one/main/{method} s{seed}",
        )
        for seed in range(count)
    ]


def records(root: Path, wanted: list[Json], **how: Any) -> list[Json]:
    return [factory.figures(record) for record in factory.trainer(root, **how).train(wanted)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Json]:
    """Return the records of jobs that were trained one by one."""
    root = tmp_path_factory.mktemp("alone")
    return [records(root / job["key"], [job], pack=1)[0] for job in jobs()]


@pytest.mark.parametrize("pack", [1, 4, 16])
@pytest.mark.parametrize("workers", [1, 2])
def test_records_are_the_same_however_runs_are_packed(
    expected: list[Json], tmp_path: Path, pack: int, workers: int
) -> None:
    assert records(tmp_path, jobs(), pack=pack, workers=workers) == expected


def test_the_seconds_of_a_pack_add_up_to_its_time(tmp_path: Path) -> None:
    began = time.monotonic()
    found = factory.trainer(tmp_path, pack=16).train(jobs(8, epoch_images=2000))
    took = time.monotonic() - began
    assert max(record["cohort"] for record in found) > 2
    assert 0.3 * took < sum(record["seconds"] for record in found) <= took


def test_a_run_that_diverges_leaves_the_others_alone_and_its_place_is_taken(
    expected: list[Json], tmp_path: Path
) -> None:
    wild = [factory.job(factory.settings(seed=9, epochs=4, lr=rate)) for rate in (1e6, 1e30)]
    every = jobs()
    found = records(tmp_path, [every[0], wild[0], *every[1:3], wild[1], *every[3:]], pack=3)
    assert [found[place]["status"] for place in (1, 4)] == ["diverged", "diverged"]
    assert [found[place] for place in (0, 2, 3, 5, 6)] == expected


HOOK = """

def events(settings, clock):
    return [clock.updates // 3, clock.updates // 2]


def event(models, moment, settings):
    if moment.update and settings.smoothing:
        raise ValueError("boom")
"""


def test_a_run_that_fails_in_a_hook_leaves_the_others_alone(
    write: component.Write, tmp_path: Path
) -> None:
    write("shaky", method_factory.text(more=HOOK))
    every = jobs(4, "shaky")
    alone = [records(tmp_path / job["key"], [job])[0] for job in every]
    bad = factory.job(
        factory.settings("shaky", seed=8, epochs=3, method_settings={"smoothing": 0.5}),
        label="one/main/shaky s8",
    )
    trainer = factory.trainer(tmp_path / "beside", pack=3)
    with pytest.raises(UserError, match=r"1 of 5 runs failed.*\n.*s8: ValueError: boom"):
        trainer.train([*every[:2], bad, *every[2:]])
    assert [factory.figures(trainer.trained[job["key"]]) for job in every] == alone


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_pack_that_is_killed_goes_on_and_ends_the_same(
    expected: list[Json], tmp_path: Path, epochs: int
) -> None:
    """Runs are then at other epochs than one another, in packs of other widths."""
    with killed_after(epochs), pytest.raises(Killed):
        factory.trainer(tmp_path, resume_seconds=0.0, pack=2).train(jobs())
    assert records(tmp_path, jobs()[::-1], pack=4) == expected[::-1]


def test_a_process_that_is_killed_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    wanted = jobs(4, epoch_images=4000)
    whole = records(tmp_path / "whole", wanted)
    process = factory.start(wanted, tmp_path, "--resume-seconds", "0")
    store = factory.trainer(tmp_path / "store").store
    try:
        factory.wait_for(lambda: any(store.resume(job["key"]).exists() for job in wanted), 60)
    finally:
        process.kill()
        process.communicate()
    assert not all(store.read(job["key"]) for job in wanted)
    assert records(tmp_path / "store", wanted, pack=3) == whole


# What is not stacked.

REFUSED = {
    "a number read": "if loss_of_before(z) > 1e9: z = z + 1",
    "a list": "z = z + 0 * z.detach().sum().tolist()",
    "a draw": "z = z + 0 * torch.zeros(1).normal_(generator=generator)",
    "a constant that takes a run's number": "z = z * torch.ones(10).add_(row['temperature'])",
    "data": "z = z.clone(); z.data.mul_(0.5)",
    "a curve": "z = z + 0.1 * torch.sigmoid(z)",
    "a power": "z = z + 0.1 * z.abs().pow(1.7)",
}
READS = """

def loss_of_before(z):
    return float(z.detach().sum())
"""


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_stacked_trains_as_before(
    what: str, write: component.Write, tmp_path: Path
) -> None:
    write("odd", method_factory.text(before=REFUSED[what], more=READS))
    every = [job["settings"] for job in jobs(3, "odd")]
    stack = packs.Widths(3)
    found = packs.beside(every, stack)
    assert list(stack.refusals) == ["odd"] and stack.seen == []
    for settings, run in zip(every, found, strict=True):
        assert packs.differing(packs.bits(packs.alone(settings)), packs.bits(run)) == []


STACKED = {
    "a choice of Python's": "z = torch.where(torch.tensor(settings.smoothing == 0.0), z, -z)",
    "a constant": "z = z * torch.tensor([2.0] * 10).add_(1.0)",
    "in place": "z = z.clone(); z[:, 0] += 1; z.mul_(row['temperature'])",
    "no gradient": "z = z.detach() + models['main'].head(models['main'].features(batch.x))",
    "a number of the update": "z = z * (1 + row['lr'].exp())",
}


@pytest.mark.parametrize("what", STACKED)
def test_what_can_be_stacked_is_the_same_at_any_width(
    what: str, write: component.Write, tmp_path: Path
) -> None:
    write("odd", method_factory.text(before=STACKED[what]))
    every = [job["settings"] for job in jobs(4, "odd")]
    alone = packs.beside(every, packs.Widths(1))
    stack = packs.Widths(3)
    for one, other in zip(alone, packs.beside(every, stack), strict=True):
        assert packs.differing(packs.bits(one), packs.bits(other)) == []
    assert stack.refusals == {} and max(stack.seen) == 3
    eager = packs.alone(every[1])
    assert eager.curve["train_loss"] == pytest.approx(alone[1].curve["train_loss"], rel=1e-4)


def test_a_step_that_counts_its_calls_is_found_out(write: component.Write, tmp_path: Path) -> None:
    count = "models['main'].n = n = getattr(models['main'], 'n', 0) + 1; z = z / n"
    write("odd", method_factory.text(before=count))
    assert "something else the second time" in packs.refusal(jobs(1, "odd")[0]["settings"])


def test_a_mistake_of_a_method_is_the_same_message(write: component.Write, tmp_path: Path) -> None:
    write("odd", method_factory.text(before="raise ValueError('not so')"))
    with pytest.raises(UserError) as found:
        factory.trainer(tmp_path).train(jobs(2, "odd"))
    assert str(found.value).count("ValueError: not so") == 1
    write("odd", method_factory.text(before="import numpy; numpy.random.rand()"))
    with pytest.raises(UserError, match=r"draws|drew"):
        factory.trainer(tmp_path).train(jobs(1, "odd"))


MOMENTS = """

def events(settings, clock):
    return [0, clock.updates // 3, clock.updates // 2, clock.updates - 1]


def event(models, moment, settings):
    with torch.no_grad():
        models["main"].head.weight.mul_(0.5)
        for buffer in models["main"].buffers():
            buffer.zero_()
"""


def test_hooks_at_the_start_and_within_an_epoch_change_their_run_alone(
    write: component.Write, tmp_path: Path
) -> None:
    write("odd", method_factory.text(more=MOMENTS))
    every = [job["settings"] for job in jobs(4, "odd")]
    alone = packs.beside(every, packs.Widths(1))
    stack = packs.Widths(4)
    for one, other in zip(alone, packs.beside(every, stack), strict=True):
        assert packs.differing(packs.bits(one), packs.bits(other)) == []
    assert stack.refusals == {} and max(stack.seen) > 1
    eager = packs.alone(every[1])
    assert eager.curve["train_loss"] == pytest.approx(alone[1].curve["train_loss"], rel=1e-4)


NUMBER = """

def begin(models, samples, settings):
    models["main"].scale = next(models["main"].parameters()).detach().sum(){}
"""


@pytest.mark.parametrize("end", ["", ".item()", ".numpy()"])
def test_what_a_hook_leaves_beside_the_state_is_its_runs_own(
    end: str, write: component.Write, tmp_path: Path
) -> None:
    more = NUMBER.format(end)
    write("odd", method_factory.text(before="z = z * float(models['main'].scale)", more=more))
    every = [job["settings"] for job in jobs(3, "odd")]
    alone = packs.beside(every, packs.Widths(1))
    for one, other in zip(alone, packs.beside(every, packs.Widths(3)), strict=True):
        assert packs.differing(packs.bits(one), packs.bits(other)) == []
