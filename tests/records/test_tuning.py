"""Tuning is fair: equal trials for every arm, chosen on validation and seeds of their own."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories import evidence as reports
from factories import project as projects
from factories.jobs import part_jobs
from factories.page import unpacked

from cyclery.common.signals import Stopped
from cyclery.config.load import load
from cyclery.engine.train import Trainer
from cyclery.plan.graph import Plan
from cyclery.plan.job_specs import shard_jobs, source_jobs
from cyclery.plan.project_checks import check
from cyclery.records import trial_selection
from cyclery.report import contents
from cyclery.report.build import build
from cyclery.report.model import complete

Json = dict[str, Any]
FACTORS = [0.25, 1, 4]


def project(root: Path, tune: Json | None = None, **tier: Any) -> Plan:
    given, paper = copy.deepcopy(projects.TIER), copy.deepcopy(projects.PAPER)
    given |= {"tuning": True, "tuning_seeds": 2, **tier}
    paper["experiments"]["main"]["tune"] = tune or {"lr": FACTORS}
    paper["experiments"]["plain"] = {
        "title": "plain", "tiers": {"smoke": {}}, "arms": {"as-is": {"lr": 0.05}},
    }  # fmt: skip
    projects.write(root, given, paper, {"tier": "smoke", "device": "cpu"})
    return check(load(root, {}))


def trainer(root: Path, **changes: Any) -> Trainer:
    return factory.trainer(root / "results/store", **changes)


def trained(root: Path, plan: Plan) -> Trainer:
    """Train a part as its jobs do, one shard after the other."""
    made = trainer(root)
    for shard in plan.closure("one"):
        made.train(shard_jobs(shard), source_jobs(shard))
    return made


def rewrite(made: Trainer, key: str, final: Json, status: str = "done") -> None:
    """Give a run's record other figures, whole and sealed."""
    record = made.store.read(key)
    assert record is not None
    changed = {**record, "status": status, "final": {**record["final"], **final}}
    made.store.write(key, {name: value for name, value in changed.items() if name != "sha256"})


def finals(plan: Plan, arm: str = "plain") -> list[Json]:
    [shard] = (s for s in plan.closure("one") if s.level == 1)
    return [job for job in shard_jobs(shard) if f"/{arm} s" in job["label"]]


def test_every_arm_has_the_same_trials_on_seeds_of_their_own(tmp_path: Path) -> None:
    plan = project(tmp_path)
    first, second = (plan.arm("one", "main", name) for name in ("plain", "fast"))
    for arm in (first, second):
        assert [t.arm.factors for t in arm.trials] == [{"lr": f} for f in FACTORS]
        assert {t.at for t in arm.trials} == {trial_selection.seeds(2)}
    labels = [job["label"] for job in part_jobs(plan, "one")]
    seeds = {label.rpartition(" s")[2] for label in labels if "~" in label}
    own = {label.rpartition(" s")[2] for label in labels if "~" not in label}
    assert seeds == {"1000000", "1000001"} and own == {"0", "1"}
    # Nothing of a run but its own experiment's tuning changes its key.
    assert plan.arm("one", "plain", "as-is").trials == ()
    untuned = project(tmp_path, tuning=False)
    assert untuned.arm("one", "plain", "as-is").digest == plan.arm("one", "plain", "as-is").digest
    assert untuned.arm("one", "main", "plain").digest != first.digest
    assert untuned.arm("one", "main", "plain").digest == first.trials[1].arm.digest


def test_more_seeds_add_no_trial_and_other_trials_are_another_run(tmp_path: Path) -> None:
    before = {job["key"] for job in part_jobs(project(tmp_path), "one")}
    more = part_jobs(project(tmp_path, seeds=7), "one")
    assert before < {job["key"] for job in more}
    assert not [j for j in more if "~" in j["label"] and j["key"] not in before]
    other = part_jobs(project(tmp_path, {"lr": [0.5, 1, 4]}), "one")
    assert not {j["key"] for j in finals(project(tmp_path))} & {j["key"] for j in other}
    with_more = project(tmp_path, tuning_seeds=3)
    assert not {j["key"] for j in finals(with_more)} & before


def test_runs_take_what_validation_chose_and_test_figures_choose_nothing(tmp_path: Path) -> None:
    plan = project(tmp_path)
    made = trained(tmp_path, plan)
    [job, _] = finals(plan)
    trials = plan.arm("one", "main", "plain").trials
    keys = [[t.arm.key(seed) for seed in t.at] for t in trials]
    means = [sum(made.store.read(k)["final"]["val_accuracy"] for k in ks) / 2 for ks in keys]
    expected = {"lr": FACTORS[means.index(max(means))]}
    record = made.lookup.finished(job)
    assert record is not None and record["inputs"]["tuned"] == expected
    chosen = next(t.arm for t in trials if t.arm.factors == expected)
    assert record["settings"]["schedules"] == chosen.settings["schedules"]
    # The numbers are those of the chosen setting on the arm's own seed.
    again = trainer(tmp_path / "again")
    plain = {**job, "key": "ab" * 12, "settings": chosen.run(0)}
    del plain["trials"]
    assert again.train([plain])[0]["final"] == record["final"]
    # Test figures of the trials, however good, move nothing.
    before = record["sha256"]
    for place, ks in enumerate(keys):
        for key in ks:
            rewrite(made, key, {"test_accuracy": 1.0 - place / 10, "test_nll": place})
    made.train([job])
    assert made.trained == {} and made.store.read(job["key"])["sha256"] == before
    # Validation figures do: exactly the arm's own runs are trained again.
    loser = (means.index(max(means)) + 1) % 3
    for key in keys[loser]:
        rewrite(made, key, {"val_accuracy": 1.0})
    made.train([*finals(plan), *finals(plan, "fast")])
    assert made.trained.keys() == {j["key"] for j in finals(plan)}
    assert made.store.read(job["key"])["inputs"]["tuned"] == {"lr": FACTORS[loser]}


def test_a_diverged_trial_is_not_chosen_and_without_any_the_values_stay(tmp_path: Path) -> None:
    plan = project(tmp_path, {"lr": [1, 1e12]})
    made = trained(tmp_path, plan)
    arm = plan.arm("one", "main", "plain")
    assert (
        made.store.read(arm.trials[1].arm.key(trial_selection.FIRST_SEED))["status"] == "diverged"
    )
    [job, _] = finals(plan)
    assert made.lookup.inputs(job)["tuned"] == {"lr": 1}
    # Diverged for one seed only, with the best figure for the other.
    rewrite(made, arm.trials[1].arm.key(trial_selection.FIRST_SEED), {"val_accuracy": 1.0})
    made.lookup.forget()
    assert made.lookup.inputs(job)["tuned"] == {"lr": 1}
    for seed in trial_selection.seeds(2):
        rewrite(made, arm.trials[0].arm.key(seed), {"val_accuracy": None})
    made.lookup.forget()
    assert made.lookup.inputs(job)["tuned"] == {"lr": 1}


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.9"])
def test_a_figure_that_is_no_number_leaves_its_trial_out(value: object) -> None:
    good = {"kind": "run", "status": "done", "final": {"val_accuracy": 0.5}}
    bad = {"kind": "run", "status": "done", "final": {"val_accuracy": value}}
    outcomes = [
        trial_selection.outcome([good, bad]),
        trial_selection.outcome([good, good]),
        trial_selection.outcome([]),
    ]
    assert [found["val_accuracy"] for found in outcomes] == [None, 0.5, None]
    assert trial_selection.best([{"lr": 1}, {"lr": 2}, {"lr": 3}], outcomes) == 1
    assert trial_selection.best([{"lr": 3}, {"lr": 1}], [outcomes[0], outcomes[2]]) == 1
    assert trial_selection.best([{"lr": 3}, {"lr": 1}], [outcomes[1], outcomes[1]]) == 0
    assert trial_selection.outcome([good, None])["val_accuracy"] is None


def test_a_missing_trial_is_named_and_a_lost_one_trained_again(tmp_path: Path) -> None:
    plan = project(tmp_path)
    made = trained(tmp_path, plan)
    [job, _] = finals(plan)
    lost = plan.arm("one", "main", "plain").trials[0].arm.key(trial_selection.FIRST_SEED)
    before = {key: made.store.read(key) for key in (lost, job["key"])}
    for key in before:
        (made.store.folder(key) / "record.json").unlink()
    with pytest.raises(Exception, match="its tuning lacks 1 of 6 runs"):
        trainer(tmp_path).train([job])
    [shard] = (s for s in plan.closure("one") if s.level == 1)
    records = trainer(tmp_path).train([job], source_jobs(shard))
    assert factory.figures(records[0]) == factory.figures(before[job["key"]])
    assert factory.figures(made.store.read(lost)) == factory.figures(before[lost])
    # All is there: nothing is trained.
    whole = trainer(tmp_path)
    whole.train(part_jobs(plan, "one"))
    assert whole.trained == {}


def test_a_tuned_run_resumes_with_its_own_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = project(tmp_path)
    made = trained(tmp_path, plan)
    [job, _] = finals(plan)
    expected = made.store.read(job["key"])
    (made.store.folder(job["key"]) / "record.json").unlink()
    for _ in range(2):  # an epoch each, and then the rest
        asked: list[int] = []

        def stop(asked: list[int] = asked) -> None:
            asked.append(1)
            if len(asked) > 1:  # not before the run has begun
                raise Stopped

        with monkeypatch.context() as patch, pytest.raises(Stopped):
            patch.setattr("cyclery.engine.train.stop_if_asked", stop)
            trainer(tmp_path, resume_seconds=0).train([job])
        assert made.store.resume(job["key"]).exists()
    record = trainer(tmp_path).train([job])[0]
    assert expected is not None and factory.figures(record) == factory.figures(expected)


def test_evidence_and_report_have_trials_choice_and_curve(tmp_path: Path) -> None:
    from cyclery.evidence.assemble import gather

    plan = project(tmp_path)
    made = trained(tmp_path, plan)
    folder = tmp_path / "results/smoke"
    for shard in plan.closure("one"):
        path = folder / f"records/{shard.id}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        records = [made.store.read(arm.key(seed)) for arm, seed in shard.runs]
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    gather(plan, "one", folder / "evidence/one.json", folder / "tables/one.csv")
    found = json.loads((folder / "evidence/one.json").read_bytes())
    main, plain = found["experiments"]
    assert plain["arms"][0]["tuned"] is None
    for arm in main["arms"]:
        tuned = arm["tuned"]
        assert len(tuned["trials"]) == 3 and tuned["seeds"] == [1_000_000, 1_000_001]
        assert tuned["metric"] == "val_accuracy" and not tuned["fallback"]
        assert arm["metrics"]["test_accuracy"]["seeds"] == [0, 1]
        best = max(tuned["trials"], key=lambda trial: trial["val_accuracy"])
        assert best["factors"] == tuned["chosen"]
        assert all(len(trial["values"]) == 2 for trial in tuned["trials"])
        record = made.store.read(arm["keys"][0])
        assert record is not None and record["inputs"]["tuned"] == tuned["chosen"]
    # Trials are in no table of runs.
    assert "1000000" not in (folder / "tables/one.csv").read_text()
    assert found["provenance"]["seeds"] == [0, 1]
    text = unpacked(build([found], tmp_path / "report", "smoke").read_text())
    assert text.count("best of 3 trials on validation") == 2
    assert "main: trials of tuning" in text and "Tuning: no trials in these runs" in text
    assert (tmp_path / "report/tables/one-main-trials.tex").exists()


def test_an_arm_left_untuned_beside_tuned_ones_is_marked() -> None:
    tried = [{"factors": {"lr": 0.5}, "val_accuracy": None, "values": [], "diverged": 2},
             {"factors": {"lr": 1}, "val_accuracy": None, "values": [], "diverged": 1}]  # fmt: skip
    tuned = {"metric": "val_accuracy", "trials": tried, "chosen": {"lr": 1}, "seeds": [7, 8, 9],
             "fallback": True}  # fmt: skip
    part = reports.evidence(1, 2, 3)[0]
    part["experiments"][0]["arms"][0]["tuned"] = tuned
    experiment = complete(part)["experiments"][0]
    notes = " ".join(contents.arms("s", experiment, [], []).notes)
    assert contents.tuning(experiment["arms"]).endswith("B: untuned, values as declared.")
    assert "no trial was finite, as declared" in notes
    table = contents.trials("s", experiment, [])
    assert table is not None and len(table.rows) == 2
    assert [cell for row in table.rows for cell in row if cell == "chosen"] == ["chosen"]
