"""Studies of a search: what they choose, what they never see, and that they go on."""

from __future__ import annotations

import copy
import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import engine as factory

from cyclery.common.errors import UserError
from cyclery.common.signals import Stopped
from cyclery.engine import study as studies
from cyclery.engine.cohort import drain
from cyclery.engine.train import Trainer
from cyclery.records import trial_selection

Json = dict[str, Any]
RATES = (0.01, 1e-6, 0.03, 2e-6, 0.1, 0.3)


def study_job(rates: tuple[float, ...] = RATES, epochs: int = 4, **changes: Any) -> Json:
    """Return a study of learning rates, halved after one epoch and after two."""
    given = factory.settings(epochs=epochs, evaluations=epochs, **changes)
    trials = [
        {"values": {"lr": rate}, "schedules": {**given["schedules"], "lr": rate}} for rate in rates
    ]
    given |= {"study": {"trials": trials, "grace_epochs": 1, "reduction": 2, "last": 2}}
    return factory.job(given, kind="study")


def train(root: Path, job: Json, **changes: Any) -> Any:
    [record] = factory.trainer(root, **changes).train([job])
    return record


def numbers(record: Any) -> Json:
    """Return all of a study's record that must not depend on when it was trained."""
    names = ("trials", "chosen", "images", "views", "forwards", "updates", "inputs", "status")
    return {name: record[name] for name in names}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(tmp_path_factory.mktemp("study"), study_job())


def test_trials_are_runs_that_stop_where_others_are_better(done: Any) -> None:
    ended = [(trial["epochs"], trial["ended"]) for trial in done["trials"]]
    assert ended[0] == (4, "finished") and ended[1] == (1, "pruned")
    assert sum(epochs == 4 for epochs, _ in ended) >= 3
    plain = factory.train(factory.settings(epochs=4, evaluations=4, lr=RATES[0]))
    curve = plain.curve["val_accuracy"]
    expected = [np.mean(curve[max(0, k - 1) : k + 1]) for k in range(4)]
    assert done["trials"][0]["metric"] == pytest.approx(expected, abs=1e-12)
    steps = sum(trial["epochs"] for trial in done["trials"]) * 4
    assert (done["updates"], done["images"]) == (steps, 50 * steps)


def test_the_best_metric_at_a_trials_end_is_chosen(done: Any) -> None:
    ends = [trial["metric"][-1] for trial in done["trials"]]
    assert done["chosen"] == int(np.argmax(ends))


def trial(*metric: float, ended: str = "finished") -> Any:
    return {"values": {}, "epochs": len(metric), "ended": ended, "metric": list(metric)}


def test_of_equal_trials_the_first_and_never_one_that_diverged() -> None:
    best = trial_selection.best_metric
    assert best([trial(0.1), trial(0.9, 0.5), trial(0.2, 0.5)]) == 1
    assert best([trial(0.9, ended="diverged"), trial(0.3, ended="pruned"), trial(0.2)]) == 1
    assert best([trial(0.9, ended="diverged"), trial(ended="diverged")]) is None


def test_a_trial_that_diverges_fails_alone(tmp_path: Path) -> None:
    record = train(tmp_path, study_job((1e30, 0.1), epochs=2))
    assert [t["ended"] for t in record["trials"]] == ["diverged", "finished"]
    assert (record["status"], record["chosen"]) == ("done", 1)


def test_where_all_diverge_the_values_as_declared_stand(tmp_path: Path) -> None:
    study = study_job((1e30, 1e31), epochs=2)
    run = searched_run(study)
    found = factory.trainer(tmp_path).train([study, run])
    assert found[0]["chosen"] is None
    assert found[1]["inputs"]["tuned"] == {}
    assert found[1]["settings"]["schedules"] == run["settings"]["schedules"]


def searched_run(study: Json, **changes: Any) -> Json:
    """Return a run that takes what a study chooses."""
    settings = {**factory.settings(epochs=2, lr=0.123, **changes), "searched": study["key"]}
    trials = [{"factors": t["values"], "runs": [], "schedules": t["schedules"]}
              for t in study["settings"]["study"]["trials"]]  # fmt: skip
    return factory.job(settings, study_run=study["key"], trials=trials)


def test_runs_take_what_was_chosen_and_follow_another_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_job()
    run = searched_run(study)
    trainer = factory.trainer(tmp_path)
    record, first = trainer.train([study, run])
    chosen = study["settings"]["study"]["trials"][record["chosen"]]
    assert first["inputs"]["tuned"] == chosen["values"]
    assert first["settings"]["schedules"] == chosen["schedules"]
    # The same choice again: nothing is trained.
    trainer.store.write(study["key"], {**record, "seconds": 1.0, "commit": "other"})
    trainer.train([study, run])
    assert not trainer.trained
    trainer.store.write(study["key"], {**record, "chosen": 1})
    trainer.train([study, run])
    assert list(trainer.trained) == [run["key"]]
    assert trainer.trained[run["key"]]["inputs"]["tuned"] == {"lr": RATES[1]}


def test_a_run_without_its_study_is_refused(tmp_path: Path) -> None:
    study = study_job()
    with pytest.raises(UserError, match=r"its search \(run \w+\) is not in the run store; run it"):
        factory.trainer(tmp_path).train([searched_run(study)])


# Test samples.


def test_a_study_holds_no_test_sample() -> None:
    given: Any = study_job()["settings"]
    whole = factory.data()
    held = studies.without_test(whole, given["split"], given["seed"])
    parts, expected = (d.split(given["split"], given["seed"]) for d in (held, whole))
    assert parts["test"].size == 0 and expected["test"].size == 300
    test = torch.from_numpy(expected["test"])
    assert (held.images[test] == 0).all() and (held.labels[test] == -1).all()
    for part in ("train", "validation"):
        assert parts[part].tolist() == expected[part].tolist()
        assert (held.images[parts[part]] == whole.images[expected[part]]).all()
    noisy = {**given["split"], "noise": {"kind": "symmetric", "rate": 0.3, "validation": False}}
    trained = held.trained_on(noisy, given["seed"], parts)
    assert (trained.labels[test] == -1).all() and trained.true is not None
    assert (trained.true[test] == -1).all()


def outcome(root: Path, job: Json, data: Any) -> Json:
    """Return the numbers of a study on a dataset."""
    store = factory.trainer(root).store
    inputs: Any = {"dataset": "", "parents": {}, "range": None}
    task = studies.studied(job, inputs, data, factory.CPU, store, 1e9)  # type: ignore[arg-type]
    found: Any = drain(task)
    return {name: found[name] for name in ("trials", "chosen")}


def poisoned(job: Json) -> Any:
    """Return the digits with other test samples: noise for images, other labels."""
    data = factory.data()
    test = torch.from_numpy(data.split(job["settings"]["split"], job["settings"]["seed"])["test"])
    images = data.images.clone()
    images[test] = torch.randint(0, 16, images[test].shape, dtype=images.dtype)
    return replace(data, images=images)


def test_other_test_samples_change_no_study(tmp_path: Path) -> None:
    job = study_job()
    whole = outcome(tmp_path / "a", job, factory.data())
    assert outcome(tmp_path / "b", job, poisoned(job)) == whole


def test_a_leak_of_test_samples_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A study that is handed the whole data, and chooses by what it sees of the test samples.
    job = study_job()
    with monkeypatch.context() as patch:
        patch.setattr(studies, "without_test", lambda data, split, seed: data)
        patch.setattr(studies, "METRIC", "test_accuracy")
        leaked = outcome(tmp_path / "a", job, factory.data())
        assert outcome(tmp_path / "b", job, poisoned(job)) != leaked
    # Without test samples in its data there is nothing that such a choice could read.
    with monkeypatch.context() as patch:
        patch.setattr(studies, "METRIC", "test_accuracy")
        with pytest.raises(Exception, match="KeyError: 'test_accuracy'"):
            outcome(tmp_path / "c", job, factory.data())


# Going on.


def stop_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Let studies be told to stop after so many epochs of their trials, with their state kept."""
    count = iter(range(10**6))
    asked: list[bool] = []

    def asked_to_stop() -> bool:
        if next(count) >= epochs:
            asked.append(True)
        return bool(asked)

    def stop_if_asked() -> None:
        if asked:
            raise Stopped

    monkeypatch.setattr(studies, "asked_to_stop", asked_to_stop)
    monkeypatch.setattr(studies, "stop_if_asked", stop_if_asked)


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the job of a study that was stopped after four epochs."""
    job = study_job()
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stopped):
            train(folder, job)
    return job


def test_a_study_that_is_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Any
) -> None:
    epochs, stops = 0, 0
    while True:
        with monkeypatch.context() as patch:
            stop_after(patch, epochs)
            try:
                found = train(tmp_path, study_job())
                break
            except Stopped:
                stops += 1
                epochs = 1  # at least one epoch each time
    assert stops > 3 and numbers(found) == numbers(done)
    folder = factory.trainer(tmp_path).store.folder(found["key"])
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "record.json"]


def test_a_killed_study_goes_on_to_the_same_bits(tmp_path: Path, done: Any) -> None:
    job = study_job()
    (tmp_path / "jobs.json").write_text(json.dumps([job]))
    path = factory.trainer(tmp_path).store.study(job["key"])
    with factory.forked_until_the_end(train, tmp_path, job) as process:
        factory.wait_for(lambda: path.exists() or not process.is_alive(), seconds=60)
        process.kill()
        process.join()
    assert len(json.loads(path.read_text())["trials"]) < len(RATES)
    assert numbers(train(tmp_path, job)) == numbers(done)


def test_ended_trials_that_were_altered_are_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job = stopped(tmp_path, monkeypatch)
    path = factory.trainer(tmp_path).store.study(job["key"])
    kept = json.loads(path.read_text())
    changed = copy.deepcopy(kept)
    changed["trials"][0]["metric"][-1] = 1.0
    path.write_text(json.dumps(changed))
    with caplog.at_level(logging.WARNING):
        assert numbers(train(tmp_path, job)) == numbers(done)
    assert "the ended trials cannot be used" in caplog.text
    assert path.with_name("study.json.damaged").exists()


def test_what_was_kept_with_other_inputs_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Any
) -> None:
    job = stopped(tmp_path, monkeypatch)
    began = time.monotonic()
    store = factory.trainer(tmp_path).store
    kept = studies.Kept(store, job["key"], "another stamp", "a study", 1e9)
    kept.read()
    assert kept.trials == [] and kept.seconds == 0 and time.monotonic() >= began


def test_studies_share_a_job_with_runs(tmp_path: Path, done: Any) -> None:
    jobs = [study_job(), factory.job(factory.settings()), study_job(seed=1)]
    trainer: Trainer = factory.trainer(tmp_path, workers=2)
    found: Any = trainer.train(jobs)
    assert [record["kind"] for record in found] == ["study", "run", "study"]
    assert numbers(found[0]) == numbers(done) != numbers(found[2])
