"""The trainer: what is trained and what is not, beside whom, after what went wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from factories import engine as factory
from factories.trainer import keys, note_trained, varied

from cyclery.common.errors import UserError
from cyclery.common.seals import is_sealed
from cyclery.engine import machine
from cyclery.engine.execution import Execution
from cyclery.engine.train import Trainer
from cyclery.records.shard_files import write_records

trained = pytest.fixture(note_trained)

# Python 3.12 and later warn of forking beside threads; numpy may have some that sleep.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


# Neighbours.


def test_results_do_not_depend_on_neighbours(tmp_path):
    jobs = varied()
    alone = [factory.trainer(tmp_path / f"alone{i}").train([job])[0] for i, job in enumerate(jobs)]
    expected = [factory.figures(record) for record in alone]
    assert all(record["final"]["test_accuracy"] > 0.1 for record in alone)
    for name, workers, order in (
        ("together", 1, jobs), ("two workers", 2, jobs), ("reversed", 1, jobs[::-1]),
        ("reversed, two workers", 2, jobs[::-1]),
    ):  # fmt: skip
        records = factory.trainer(tmp_path / name, workers=workers).train(order)
        found = {record["key"]: factory.figures(record) for record in records}
        assert [found[job["key"]] for job in jobs] == expected, name


def test_a_record_holds_what_the_report_reads(tmp_path):
    job = factory.job(factory.settings(), keep=True)
    trainer = factory.trainer(tmp_path, commit="abc")
    (record,) = trainer.train([job])
    assert is_sealed(record)
    assert record == trainer.store.read(job["key"])
    assert record["settings"] == job["settings"]
    assert (record["schema"], record["status"], record["commit"]) == (1, "done", "abc")
    assert (record["images"], record["updates"]) == (600, 12)
    assert record["seconds"] > 0
    assert record["images_per_second"] == pytest.approx(600 / record["seconds"])
    assert set(record["versions"]) == {"cyclery", "numpy", "python", "torch"}
    manifest = json.loads(factory.manifest().read_text())
    assert record["inputs"]["dataset"] == manifest["content_sha256"]
    assert len(record["final"]["test_class_accuracy"]) == 10
    assert not trainer.store.resume(job["key"]).exists()


# What is trained again, and what is not.


def test_finished_runs_are_not_trained_again(tmp_path, trained):
    jobs = varied()
    first = factory.trainer(tmp_path).train(jobs[:2])
    assert sorted(trained()) == sorted(keys(*jobs[:2]))
    again = factory.trainer(tmp_path).train([jobs[2], jobs[1], jobs[0], jobs[1]])
    assert trained() == keys(jobs[2])
    assert [again[2], again[1], again[3]] == [first[0], first[1], first[1]]
    factory.trainer(tmp_path, workers=2).train(jobs[:3])
    assert trained() == []


def test_looking_up_finished_runs_needs_no_torch(tmp_path):
    jobs = varied()[:2]
    factory.trainer(tmp_path / "store").train(jobs)
    code = (
        "import sys; from factories import train_jobs; code = train_jobs.main(); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    places = [Path(sys.modules["cyclery"].__file__ or "").parents[1], Path(__file__).parents[1]]
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "jobs.json", "--store", tmp_path / "store",
         "--data", factory.manifest().parent],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}, check=True,
    )  # fmt: skip


def test_a_checkpoint_has_the_same_bytes_when_its_run_is_trained_again(tmp_path, trained):
    job = factory.job(factory.settings(model="wrn"), keep=True)
    trainer = factory.trainer(tmp_path)
    (first,) = trainer.train([job])
    path = trainer.store.checkpoint(job["key"])
    content = path.read_bytes()
    path.unlink()
    (second,) = trainer.train([job])
    assert trained() == keys(job, job)
    assert path.read_bytes() == content
    assert factory.figures(second) == factory.figures(first)


def test_a_run_whose_weights_are_wanted_later_is_trained_again(tmp_path, trained):
    job = factory.job(factory.settings())
    trainer = factory.trainer(tmp_path)
    (first,) = trainer.train([job])
    assert not trainer.store.checkpoint(job["key"]).exists()
    (second,) = trainer.train([{**job, "keep": True}])
    assert trained() == keys(job, job)
    assert trainer.store.checkpoint(job["key"]).exists()
    assert (second["curve"], second["final"]) == (first["curve"], first["final"])


def test_a_damaged_record_is_set_aside_and_trained_again(tmp_path, trained, caplog):
    job = factory.job(factory.settings())
    trainer = factory.trainer(tmp_path)
    (first,) = trainer.train([job])
    path = trainer.store.folder(job["key"]) / "record.json"
    path.write_text(path.read_text().replace('"test_accuracy": 0.', '"test_accuracy": 0.9'))
    (second,) = trainer.train([job])
    assert trained() == keys(job, job)
    assert factory.figures(second) == factory.figures(first)
    assert path.with_name("record.json.damaged").exists()
    assert "cut or altered" in caplog.text


# Inputs.


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cyclery prepare digits"), ("{", "cyclery prepare digits"),
     ('{"identity": "x", "content_sha256": "y"}', "was prepared from other files")],
)  # fmt: skip
def test_a_bad_manifest_is_named_with_the_remedy(tmp_path, content, message):
    path, job = tmp_path / "digits.json", factory.job(factory.settings())
    if content:
        path.write_text(content)
    trainer = Trainer(factory.trainer(tmp_path).store, {"digits": path}, Execution(device="cpu"))
    with pytest.raises(UserError, match=message) as caught:
        trainer.lookup.inputs(job)
    assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="prepare the dataset") as caught:
        trainer.train([job])
    assert str(path) in str(caught.value)


# Divergence.


def test_a_diverged_run_is_recorded_and_the_others_go_on(tmp_path, trained):
    wild = factory.job(factory.settings(lr=1e6, epochs=20), keep=True)
    start = {"init": "start", "init_share": 1.0, "parents": {"start": [wild["key"]]}}
    settings = factory.settings() | start
    child, tame = factory.job(settings), factory.job(factory.settings())
    trainer = factory.trainer(tmp_path)
    records = trainer.train([wild, child, tame])
    assert [record["status"] for record in records] == ["diverged", "diverged", "done"]
    found = records[0]
    assert 0 < found["diverged_step"] < 80
    assert found["final"] == {}
    assert 0 < found["updates"] < 80
    assert found["images"] == 50 * found["updates"]
    assert records[1]["updates"] == 0
    assert not trainer.store.checkpoint(wild["key"]).exists()
    # Finite JSON only, and no second try.
    json.dumps(records, allow_nan=False)
    assert sorted(trained()) == sorted(keys(wild, tame))
    assert trainer.train([wild, child, tame]) == records
    assert trained() == []


# Small things.


def test_a_job_that_finds_all_its_runs_removes_the_mark_of_one_that_was_killed(tmp_path):
    jobs, mark = varied()[:1], tmp_path / "progress.json"
    trainer = factory.trainer(tmp_path / "store", progress=mark, job="records/one/L0-0000")
    trainer.train(jobs)
    assert not mark.exists()
    mark.write_text("{}")
    trainer.train(jobs)
    assert not mark.exists()


def test_records_are_written_one_a_line(tmp_path):
    write_records(tmp_path / "records.jsonl", [{"a": 1}, {"b": [0.5]}])
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"b": [0.5]}]


def test_a_gpu_that_is_not_there_is_named(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="torch sees no GPU"):
        factory.trainer(tmp_path, device="cuda").train([factory.job(factory.settings())])


def test_a_network_that_cannot_be_compiled_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fails(run: Any, size: int) -> None:
        raise TorchDynamoException("Cannot find a working triton installation.\nMore")

    monkeypatch.setattr("cyclery.engine.run.Run.step", fails)
    job = factory.job({**factory.settings(), "compile": True})
    with pytest.raises(UserError, match=r"compile is true.*working triton installation\. Mend"):
        factory.trainer(tmp_path).train([job])
    # Where nothing is compiled it is a defect, and told as one.
    with pytest.raises(UserError, match="TorchDynamoException: Cannot find"):
        factory.trainer(tmp_path).train([factory.job(factory.settings(model="small_cnn"))])


def test_bf16_on_a_cpu_without_it_is_one_message_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "computes_bf16", lambda: False)
    jobs = [factory.job(factory.settings(seed=seed) | {"precision": "bf16"}) for seed in range(3)]
    trainer = factory.trainer(tmp_path)
    with pytest.raises(UserError, match=r"precision: bf16 needs .*; set `precision: fp32`") as seen:
        trainer.train(jobs)
    assert machine.cpu_name() in str(seen.value)
    assert f"(3 runs want it, such as {jobs[0]['label']})" in str(seen.value)
    assert not trainer.trained
    monkeypatch.setattr(machine, "computes_bf16", lambda: True)
    [record] = trainer.train(jobs[:1])
    assert record["status"] == "done"
