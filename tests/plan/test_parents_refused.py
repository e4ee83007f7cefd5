"""Parents that do not fit are refused in one message: their networks, checkpoints and folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories.jobs import part_jobs
from factories.parents import TEACHER, of, parent_of, planned, student
from factories.threads import one_thread

from cyclery.common.errors import UserError
from cyclery.common.seals import file_sha256
from cyclery.engine.checkpoint import save_weights
from cyclery.engine.packs import Pack
from cyclery.engine.run import Run
from cyclery.engine.teachers import Trained, teacher
from cyclery.engine.train import Trainer

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

Json = dict[str, Any]


def test_weights_of_another_network_are_named() -> None:
    parent = parent_of("small_cnn")
    with pytest.raises(UserError, match=r"^init: the parent's weights do not fit .*first: "):
        factory.run({**factory.settings(), "init": "start", "init_share": 1.0},
                    parents={"start": [parent]})  # fmt: skip
    foreign = Trained(factory.settings(), parent.weights, 10)
    with pytest.raises(UserError, match=r"^parents\.teacher: the checkpoint has .* bn_mlp"):
        teacher("teacher", [foreign], (1, 8, 8))


def taught(tmp_path: Path, **arms: Json) -> tuple[Trainer, list[Json], list[Json]]:
    """Return a trainer that has trained the parents of seed 0, their jobs and their children's."""
    plan = planned(tmp_path, arms or {"small": student(TEACHER)}, seeds=1)
    jobs = part_jobs(plan, "one.students")
    children = [job for job in jobs if job["settings"]["parents"]]
    parents = [job for job in jobs if job not in children]
    trainer = factory.trainer(tmp_path / "store")
    trainer.train(parents)
    return trainer, parents, children


def refused(trainer: Trainer, child: Json, message: str, updates: list[int]) -> None:
    with pytest.raises(UserError, match=message) as caught:
        trainer.train([child])
    assert "\n" not in str(caught.value)
    assert updates == [] and trainer.store.read(child["key"]) is None


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note every update that is made from here on."""
    made: list[int] = []
    inner = Run.step
    monkeypatch.setattr(Run, "step", lambda self, size: made.append(size) or inner(self, size))
    train = Pack.train

    def packed(self: Pack, size: int, starts: Sequence[int], updates: int) -> Any:
        made.extend([size] * updates)
        return train(self, size, starts, updates)

    monkeypatch.setattr(Pack, "train", packed)
    return made


def test_a_checkpoint_that_is_not_the_teachers_is_one_message_before_any_update(
    tmp_path: Path, updates: list[int]
) -> None:
    trainer, parents, [child] = taught(tmp_path)
    [parent] = of(parents, "teachers/teacher s0")
    record, path = trainer.store.read(parent["key"]), trainer.store.checkpoint(parent["key"])
    content = path.read_bytes()
    updates.clear()

    # Another file in its place.
    path.write_bytes(content[:-4] + b"\0\0\0\1")
    refused(trainer, child, rf"{path}: the checkpoint is not the one .* record describes", updates)

    # No file, and nobody to train it again.
    path.unlink()
    refused(trainer, child, rf"{path}: the checkpoint is missing; train its run again", updates)

    # That of another network, with a record that says so.
    save_weights(parent_of("small_cnn").weights, path)
    trainer.store.write(parent["key"], {**record, "checkpoint_sha256": file_sha256(path)})
    message = r"^one/students/small s0: parents\.teacher: the checkpoint has other weights than"
    refused(trainer, child, message, updates)

    # No safetensors at all.
    path.write_bytes(b"PK\3\4")
    trainer.store.write(parent["key"], {**record, "checkpoint_sha256": file_sha256(path)})
    refused(trainer, child, rf"{path}: not a complete safetensors file", updates)

    path.write_bytes(content)
    trainer.store.write(parent["key"], record)
    [found] = trainer.train([child])
    assert found["status"] == "done" and updates == [50] * 4


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([{}] * 5, r"parents\.fold-0: must leave out .* has split folds null, fold null"),
        ([{"folds": 5, "fold": n % 4} for n in range(5)],
         r"parents\.fold-4: must leave out .* \(one/students/out4 has split folds 5, fold 0\)"),
        ([{"folds": 6, "fold": n} for n in range(5)],
         r"parents\.fold-0: .* one of 5, .* folds 6, fold 0\); set split\.folds 5 .* 0 to 4"),
        ([{"folds": 5, "fold": n, "labels": 80} for n in range(5)],
         r"parents\.fold-0: one/students/out0 has split\.labels 80, this arm 100; both must"),
    ],
    ids=["none", "one twice", "of another number", "of other samples"],
)  # fmt: skip
def test_folds_that_do_not_leave_each_sample_to_one_are_refused(
    splits: list[Json], message: str, tmp_path: Path
) -> None:
    parents = {f"fold-{n}": f"out{n}" for n in range(5)} | dict.fromkeys(
        ("expert-1", "expert-2"), TEACHER
    )
    arms = {f"out{n}": {"split": each, "batch": 40} for n, each in enumerate(splits)}
    arms["curriculum"] = {"method": {"name": "ces_kd", "experts": 2}, "parents": parents}
    with pytest.raises(UserError, match=rf"experiments\.students\.arms\.curriculum\.{message}"):
        planned(tmp_path, arms)
    # Whose part is whose does not matter.
    good = {f"out{n}": {"split": {"folds": 5, "fold": 4 - n}, "batch": 40} for n in range(5)}
    planned(tmp_path, {**arms, **good})


VOTERS: Json = {"split": {"labels": 60, "folds": 3, "part": "seed", "share": 3}, "batch": 20}
ASKING: Json = {
    "method": "private_supervised", "split": {"labels": 60, "unlabelled": "rest"}, "batch": 20,
    "epoch_images": 60, "parents": {"teachers": {"arm": "voters", "seeds": {"members": 3}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("voters", "asking", "message"),
    [
        ({"split": {"labels": 60, "share": 3}}, {}, r"has split folds null, part null, and 3 of"),
        ({"split": {**VOTERS["split"], "part": 1}}, {}, r"has split folds 3, part 1, and 3 of"),
        ({"split": {**VOTERS["split"], "folds": 6}, "batch": 10}, {}, r"folds 6, part seed, and 3"),
        (
            {"split": {**VOTERS["split"], "share": 1}},
            {"parents": {"teachers": "voters"}},
            r"and 1 of its runs are taken\); set `folds: M`, `part: seed`, `share: M` there, and",
        ),
        (
            {"split": {**VOTERS["split"], "labels": 90}},
            {},
            r"one/students/voters has split\.labels 90, this arm 60; both must divide the same",
        ),
    ],
    ids=["whole", "one part", "of another number", "not members", "of other samples"],
)
def test_voters_that_have_no_part_of_their_own_are_refused(
    voters: Json, asking: Json, message: str, tmp_path: Path
) -> None:
    arms = {"voters": {**VOTERS, **voters}, "asking": {**ASKING, **asking}}
    with pytest.raises(UserError, match=rf"arms\.asking\.parents\.teachers: .*{message}"):
        planned(tmp_path, arms)
    planned(tmp_path, {"voters": VOTERS, "asking": ASKING})


def test_what_has_seen_all_labels_may_reach_neither_voters_nor_who_asks_them(
    tmp_path: Path,
) -> None:
    whole: Json = {"split": {"labels": 60}, "batch": 20}
    shared: Json = {"split": {"labels": 60, "share": 3}, "batch": 20}
    taught = {**VOTERS, "method": "kd", "parents": {"teacher": "shared"}}
    begun = {**ASKING, "init": "start", "parents": {**ASKING["parents"], "start": "whole"}}
    own: Json = {"whole": whole, "shared": shared}
    for arms, message in (
        ({**own, "voters": taught, "asking": ASKING},
         r"teachers: one/students/voters votes, so .* \(found one/students/shared\); train voters"),
        ({**own, "voters": VOTERS, "asking": begun},
         r"start: one/students/whole is used beside votes, so .* \(found one/students/whole\)"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=rf"arms\.asking\.parents\.{message}"):
            planned(tmp_path, arms)
    # What a run is compared with tells it nothing.
    compared = {**ASKING, "parents": {**ASKING["parents"], "reference": "whole"}}
    planned(tmp_path, {**own, "voters": VOTERS, "asking": compared})


def test_voters_are_asked_about_unlabelled_samples(tmp_path: Path) -> None:
    asking = {**ASKING, "split": {"labels": 60}}
    with pytest.raises(UserError, match=r"asking\.split\.unlabelled: must be all or rest, for"):
        planned(tmp_path, {"voters": VOTERS, "asking": asking})
