"""Chains through Snakemake: who is trained, what is exported, and what follows a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from factories.graph import Copy

KD = {"name": "kd", "temperature": 2}
SMALL = {"name": "bn_mlp", "hidden": [8]}
ARMS: dict[str, Any] = {
    "teacher": {},
    "assistant": {"model": {"hidden": [12]}, "method": KD, "parents": {"teacher": "teacher"}},
    "student": {"model": SMALL, "method": KD, "parents": {"teacher": "assistant"}},
    "alone": {"model": SMALL},
    # Three generations of one network, each drawn anew.
    "second": {"method": KD, "draw": "second", "parents": {"teacher": "teacher"}},
    "third": {"method": KD, "draw": "third", "parents": {"teacher": "second"}},
    # Five members share the split of the student that they teach.
    "member": {"split": {"share": 5}},
    "many": {
        "method": KD,
        "draw": "many",
        "parents": {"teacher": {"arm": "member", "seeds": {"members": 5}}},
    },
}


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    made = Copy(tmp_path)
    made.paper["experiments"] = {"main": {"title": "main", "tiers": {"smoke": {}}, "arms": ARMS}}
    claim = {"statement": "teaching helps", "comparisons": [
        {"experiment": "main", "arm": "student", "against": "alone"},
        {"experiment": "main", "arm": "student", "against": "alone", "metric": "test_nll",
         "lower_is_better": True},
    ]}  # fmt: skip
    made.paper["claims"] = {"T-1": claim}
    made.save()
    return made


def checkpoints(copy: Copy) -> dict[str, bytes]:
    folder = copy.root / "results/smoke/checkpoints"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def jobs(said: str) -> int:
    """Return how many jobs Snakemake ran."""
    return said.count("Finished jobid")


@pytest.mark.slow
def test_chains_run_from_configuration_alone_and_their_weights_come_back(copy: Copy) -> None:
    copy.snakemake("tiny", "checkpoints")
    # Eight arms of two seeds; the members have five seeds for each of two, of which two are the
    # arm's own.
    assert copy.trained() == 7 * 2 + 10
    record = copy.evidence()["T-1"]
    assert record["n"] == 2
    before = checkpoints(copy)
    parents = {"teacher": 2, "assistant": 2, "second": 2, "member": 10}
    assert list(before) == sorted(
        f"tiny.main.{arm}.s{seed}.safetensors" for arm, n in parents.items() for seed in range(n)
    )
    figures = copy.figures()

    # An export that is lost comes back from the store: one job, nothing is trained.
    lost = "tiny.main.assistant.s1.safetensors"
    exported = copy.root / "results/smoke/checkpoints" / lost
    exported.unlink()
    copy.forget_logs()
    said = copy.snakemake("checkpoints")
    assert checkpoints(copy) == before and copy.trained() == 0
    assert "rule checkpoint:" in said and jobs(said) == 2  # the export, and the target itself

    # With its entry in the store lost too it is trained again, to the same bytes: none follows.
    key = next(
        record["key"]
        for record in map(json.loads, _lines(copy, "L1"))
        if record["settings"]["model"]["settings"]["hidden"] == [12]
        and record["settings"]["seed"] == 1
    )
    for path in (copy.root / "results/store" / key[:2] / key).iterdir():
        path.unlink()
    exported.unlink()
    copy.snakemake("checkpoints")
    assert copy.trained() == 1
    assert checkpoints(copy) == before and copy.figures() == figures
    copy.forget_logs()
    copy.snakemake("tiny")
    assert copy.trained() == 0

    # Where it comes back with other bytes, as on another machine, its descendants follow.
    method = copy.root / "src/cyclery/methods/kd.py"
    method.write_text(
        method.read_text().replace("return hard * loss_hard", "return 1.1 * loss_hard")
    )
    for path in (copy.root / "results/store" / key[:2] / key).iterdir():
        path.unlink()
    exported.unlink()
    copy.forget_logs()
    copy.snakemake("checkpoints")
    after = checkpoints(copy)
    assert copy.trained() == 1
    assert [name for name in before if before[name] != after[name]] == [lost]
    copy.forget_logs()
    copy.snakemake("tiny")
    assert copy.trained() == 1  # the student of that seed
    assert "Nothing to be done" in copy.snakemake("tiny")


@pytest.mark.slow
def test_a_parent_that_comes_back_with_other_weights_is_followed_in_every_experiment(
    copy: Copy,
) -> None:
    # Two experiments, whose shards both list the teacher that their students share.
    arms = {name: {"method": KD, "lr": rate, "parents": {"teacher": "first/teacher"}}
            for name, rate in (("low", 0.05), ("high", 0.2))}  # fmt: skip
    experiment = {"title": "main", "tiers": {"smoke": {}}}
    copy.tier["shard_by"] = "experiment"
    copy.paper["experiments"] = {
        "first": {**experiment, "arms": {"teacher": {}, "low": arms["low"]}},
        "second": {**experiment, "arms": {"high": arms["high"], "alone": {"lr": 0.2}}},
    }
    copy.paper["claims"] = {"T-1": {"statement": "teaching helps", "comparisons": [
        {"experiment": "second", "arm": "high", "against": "alone"}]}}  # fmt: skip
    copy.save()
    copy.snakemake("tiny", "checkpoints")
    assert copy.trained() == 4 * 2
    before = checkpoints(copy)
    [lost, _] = before

    # As on another machine: the same recipe, other bytes.
    method = copy.root / "src/cyclery/methods/supervised.py"
    text = method.read_text()
    changed = text.replace("return F.cross_entropy(", "return 1.1 * F.cross_entropy(")
    assert changed != text
    method.write_text(changed)
    key = json.loads(copy.records("tiny.first", "L0").splitlines()[0])["key"]
    for path in (copy.root / "results/store" / key[:2] / key).iterdir():
        path.unlink()
    (copy.root / "results/smoke/checkpoints" / lost).unlink()
    copy.forget_logs()
    copy.snakemake("checkpoints")
    assert copy.trained() == 1
    assert checkpoints(copy)[lost] != before[lost]
    copy.forget_logs()
    copy.snakemake("tiny")
    # Of that seed, the student of either experiment.
    assert copy.trained() == 2
    assert "Nothing to be done" in copy.snakemake("tiny")


def _lines(copy: Copy, level: str) -> list[str]:
    return copy.records("tiny", level).splitlines()


@pytest.mark.slow
def test_a_changed_assistant_trains_itself_and_its_descendants_at_once(copy: Copy) -> None:
    copy.snakemake("tiny")
    before = copy.figures()
    arms = copy.paper["experiments"]["main"]["arms"]
    arms["assistant"] = {**arms["assistant"], "lr": 0.05}
    copy.save()
    copy.forget_logs()
    copy.snakemake("tiny")
    # Assistant and student, two seeds each; counted as runs, for jobs are repeated more often.
    assert copy.trained() == 4
    assert {key: copy.figures()[key] for key in before} == before
    said = copy.snakemake("tiny")
    assert "Nothing to be done" in said
