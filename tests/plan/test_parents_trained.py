"""Parents are trained before their children and once; lost ones again, and who follows then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories.jobs import part_jobs
from factories.parents import CHAIN, RULES, TEACHER, arm, note_trained, of, planned, student
from factories.threads import one_thread
from torch import Tensor

from cyclery.engine.run import Run
from cyclery.engine.train import Trainer
from cyclery.plan.job_specs import shard_jobs, source_jobs

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
trained = pytest.fixture(note_trained)

Json = dict[str, Any]


def test_a_chain_of_three_stages_is_trained_parents_once(
    tmp_path: Path, trained: list[str]
) -> None:
    plan = planned(tmp_path, CHAIN)
    jobs, trainer = part_jobs(plan, "one"), factory.trainer(tmp_path / "store")
    records = {job["label"]: r for job, r in zip(jobs, trainer.train(jobs), strict=True)}
    assert len(trained) == len(set(trained)) == 2 * 8
    assert all(record["status"] == "done" for record in records.values())
    for child, parent in (("small", "assistant"), ("smallest", "small")):
        for seed in (0, 1):
            [used] = records[f"one/students/{child} s{seed}"]["inputs"]["parents"]["teacher"]
            above = records[f"one/students/{parent} s{seed}"]
            assert used == {"key": above["key"], "sha256": above["checkpoint_sha256"]}
    # One shard after another, as jobs of their own would: nothing is left to train.
    trained.clear()
    for shard in plan.closure("one"):
        trainer.train(shard_jobs(shard), source_jobs(shard))
    assert trained == []
    # A child alone has its whole line trained, and nothing besides.
    alone = factory.trainer(tmp_path / "alone")
    [wanted] = of(jobs, "students/smallest s1")
    [record] = alone.train([wanted], [job for job in jobs if job is not wanted])
    line = ("teachers/teacher", "students/assistant", "students/small", "students/smallest")
    assert trained == [f"{name} s1" for name in line]
    assert factory.figures(record) == factory.figures(records[wanted["label"]])


def test_only_a_changed_assistant_and_its_descendants_are_trained(
    tmp_path: Path, trained: list[str]
) -> None:
    trainer = factory.trainer(tmp_path / "store")
    trainer.train(part_jobs(planned(tmp_path, CHAIN), "one"))
    trained.clear()
    changed = {**CHAIN, "assistant": student(TEACHER, lr=0.16)}
    trainer.train(part_jobs(planned(tmp_path, changed), "one"))
    assert sorted(trained) == sorted(
        f"students/{name} s{seed}"
        for name in ("assistant", "small", "smallest", "copy")
        for seed in (0, 1)
    )


def test_an_ensemble_of_five_and_three_generations(tmp_path: Path, trained: list[str]) -> None:
    arms = {
        "three": RULES["members"],
        "born": student(TEACHER),
        "again": student("born"),
        "thrice": student("again"),
        "ensemble": student("pool5", {"members": 5}),
        "pool5": {"lr": 0.3, "split": {"share": 5}},
        # The same pool for another student: it is trained once.
        "beside": {**RULES["members"], "method": {"name": "kd", "soft": 0.5}},
    }
    plan = planned(tmp_path, arms)
    jobs, trainer = part_jobs(plan, "one"), factory.trainer(tmp_path / "store")
    records = {job["label"]: r for job, r in zip(jobs, trainer.train(jobs), strict=True)}
    # pool: seeds 0 to 5 of three members each, pool5: 0 to 9; the others two seeds each.
    assert len(trained) == len(set(trained)) == 6 + 10 + 2 * (2 + 6)
    for seed in (0, 1):
        used = records[f"one/students/ensemble s{seed}"]["inputs"]["parents"]["teacher"]
        pool = [records[f"one/students/pool5 s{5 * seed + m}"] for m in range(5)]
        assert [each["key"] for each in used] == [record["key"] for record in pool]
        assert [each["sha256"] for each in used] == [r["checkpoint_sha256"] for r in pool]
    assert [arm(plan, name).level for name in ("born", "again", "thrice")] == [1, 2, 3]
    final = records["one/students/thrice s0"]["final"]
    assert {"test_agreement", "test_kl", "val_agreement", "train_kl"} <= final.keys()


def lose(trainer: Trainer, job: Json) -> None:
    for path in trainer.store.folder(job["key"]).iterdir():
        path.unlink()


def test_a_lost_assistant_is_trained_again_and_its_descendants_stand(
    tmp_path: Path, trained: list[str]
) -> None:
    jobs = part_jobs(planned(tmp_path, CHAIN, seeds=1), "one")
    trainer = factory.trainer(tmp_path / "store")
    first = trainer.train(jobs)
    [assistant] = of(jobs, "students/assistant s0")
    content = trainer.store.checkpoint(assistant["key"]).read_bytes()
    lose(trainer, assistant)
    trained.clear()
    again = trainer.train(jobs)
    assert trained == ["students/assistant s0"]
    assert trainer.store.checkpoint(assistant["key"]).read_bytes() == content
    assert list(map(factory.figures, again)) == list(map(factory.figures, first))


def test_exactly_the_descendants_follow_where_a_lost_assistant_comes_back_as_another(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine, whose last bits differ."""
    jobs = part_jobs(planned(tmp_path, CHAIN, seeds=1), "one")
    trainer = factory.trainer(tmp_path / "store")
    trainer.train(jobs)
    [assistant] = of(jobs, "students/assistant s0")
    lose(trainer, assistant)
    trained.clear()
    inner = Run.weights

    def weights(self: Run) -> dict[str, Tensor]:
        found = inner(self)
        if self.settings == assistant["settings"]:
            found["head.bias"] += 1e-6
        return found

    monkeypatch.setattr(Run, "weights", weights)
    trainer.train(jobs)
    descendants = [f"students/{name} s0" for name in ("small", "smallest", "copy")]
    assert trained[0] == "students/assistant s0" and sorted(trained[1:]) == sorted(descendants)
    trained.clear()
    trainer.train(jobs)
    assert trained == []


def test_of_an_ensemble_only_the_lost_member_is_trained_again(
    tmp_path: Path, trained: list[str]
) -> None:
    jobs = part_jobs(planned(tmp_path, {"five": RULES["members"]}), "one")
    trainer = factory.trainer(tmp_path / "store")
    first = trainer.train(jobs)
    child, member = of(jobs, "students/five s1", "teachers/pool s4")
    for job in (child, member):
        lose(trainer, job)
    trained.clear()
    [record] = trainer.train([child], [job for job in jobs if job is not child])
    assert trained == ["teachers/pool s4", "students/five s1"]
    assert factory.figures(record) == factory.figures(first[jobs.index(child)])


def test_a_student_of_a_member_that_diverged_is_not_trained(
    tmp_path: Path, trained: list[str]
) -> None:
    jobs = part_jobs(planned(tmp_path, {"five": RULES["members"]}), "one")
    trainer = factory.trainer(tmp_path / "store")
    trainer.train(jobs)
    [member] = of(jobs, "teachers/pool s4")
    record = trainer.store.read(member["key"])
    trainer.store.write(member["key"], {**record, "status": "diverged", "diverged_step": 3})
    trained.clear()
    again = {job["label"]: r for job, r in zip(jobs, trainer.train(jobs), strict=True)}
    assert trained == []
    assert again["one/students/five s1"]["status"] == "diverged"
    assert again["one/students/five s0"]["status"] == "done"


def test_experts_and_folds_train_from_configuration_alone(
    tmp_path: Path, trained: list[str]
) -> None:
    folds = {f"out{fold}": {"split": {"folds": 5, "fold": fold}, "batch": 40} for fold in range(5)}
    parents = {f"fold-{fold}": f"out{fold}" for fold in range(5)}
    parents |= {"expert-1": "assistant", "expert-2": TEACHER, "reference": TEACHER}
    arms = {**folds, "assistant": student(TEACHER)}
    for assignment in ("curriculum", "random", "reversed"):
        method = {"name": "ces_kd", "experts": 2, "assignment": assignment}
        arms[assignment] = {"method": method, "parents": parents}
    plan = planned(tmp_path, arms)
    jobs = part_jobs(plan, "one.students")
    records = factory.trainer(tmp_path / "store").train(jobs)
    assert len(trained) == len(set(trained)) == 2 * (1 + 1 + 5 + 1 + 3)
    assert {record["status"] for record in records} == {"done"}
    found = {job["label"]: r for job, r in zip(jobs, records, strict=True)}
    final = found["one/students/curriculum s1"]["final"]
    assert 0 < final["test_agreement"] <= 1


def test_voters_have_parts_of_their_own_of_what_their_student_never_sees(tmp_path: Path) -> None:
    parts = {"labels": 60, "folds": 3, "part": "seed", "share": 3}
    asking = {
        "method": {"name": "private_supervised", "queries": 40, "answer_noise": 0.1},
        "split": {"labels": 60, "unlabelled": "rest"}, "batch": 20, "epoch_images": 60,
        "parents": {"teachers": {"arm": "voters", "seeds": {"members": 3}}},
    }  # fmt: skip
    plan = planned(tmp_path, {"voters": {"split": parts, "batch": 20}, "asking": asking})
    jobs = part_jobs(plan, "one.students")
    trainer = factory.trainer(tmp_path / "store")
    found = {job["label"]: r for job, r in zip(jobs, trainer.train(jobs), strict=True)}
    settings = {job["label"]: job["settings"] for job in jobs}
    for seed in (0, 1):
        name = f"one/students/asking s{seed}"
        own = factory.data().split(settings[name]["split"], seed)
        taught = [
            factory.data().split(settings[f"one/students/voters s{each}"]["split"], each)["train"]
            for each in range(3 * seed, 3 * seed + 3)
        ]
        # All private samples, each once.
        assert sorted(x for ids in taught for x in ids.tolist()) == own["train"].tolist()
        assert not set(own["train"]) & {*own["unlabelled"], *own["test"], *own["validation"]}
        assert [len(ids) for ids in taught] == [20, 20, 20]
        final = found[name]["final"]
        assert final["train_answers"] == 40 and final["train_epsilon"] > 0
        assert len(found[name]["inputs"]["parents"]["teachers"]) == 3
