"""The trainer on chains and range tests: their order, and what makes a child stale or stops it."""

from __future__ import annotations

import math

import pytest
from factories import engine as factory
from factories.trainer import chain, keys, note_trained, range_job, ranged_job

from cyclery.common.errors import UserError
from cyclery.engine.lookup import needs

trained = pytest.fixture(note_trained)

# Python 3.12 and later warn of forking beside threads; numpy may have some that sleep.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_list_may_hold_parents_and_range_tests_in_any_order(tmp_path, workers, trained):
    tests = [range_job(0), range_job(1)]
    jobs = [*chain()[::-1], ranged_job(tests), *tests]
    records = factory.trainer(tmp_path, workers=workers).train(jobs)
    assert keys(*records) == keys(*jobs)
    assert sorted(trained()) == sorted(keys(*jobs))
    assert records[0]["inputs"]["parents"]["start"][0]["sha256"] == records[1]["checkpoint_sha256"]
    bounds = [test["bounds"] for test in records[4:]]
    found = records[3]["inputs"]["range"]
    for name in ("base", "max"):
        expected = math.sqrt(bounds[0][name] * bounds[1][name])
        assert found[name] == pytest.approx(expected)


def test_another_checkpoint_of_the_parent_makes_a_child_stale(tmp_path, trained):
    parent, child, grandchild = chain()
    trainer = factory.trainer(tmp_path)
    first = trainer.train([parent, child, grandchild])
    trained()
    # The same parent, trained elsewhere: other last bits.
    other = factory.trainer(tmp_path / "elsewhere")
    (record,) = other.train([factory.job(factory.settings(seed=2), keep=True)])
    path = trainer.store.checkpoint(parent["key"])
    path.write_bytes(other.store.checkpoint(record["key"]).read_bytes())
    digest = record["checkpoint_sha256"]
    trainer.store.write(parent["key"], {**first[0], "checkpoint_sha256": digest})
    trained()
    second = trainer.train([grandchild, child, parent])[::-1]
    assert trained() == keys(child, grandchild)
    assert second[1]["inputs"]["parents"]["start"][0]["sha256"] == digest
    assert second[1]["checkpoint_sha256"] != first[1]["checkpoint_sha256"]


def test_a_lost_parent_is_trained_again_and_its_children_are_not(tmp_path, trained):
    jobs = chain()
    trainer = factory.trainer(tmp_path)
    first = trainer.train(jobs)
    trained()
    trainer.store.checkpoint(jobs[0]["key"]).unlink()
    second = trainer.train(jobs)
    assert trained() == keys(jobs[0])
    assert second[1:] == first[1:]
    # The same where the record is gone too.
    for path in trainer.store.folder(jobs[0]["key"]).iterdir():
        path.unlink()
    assert trainer.train(jobs)[1:] == first[1:]
    assert trained() == keys(jobs[0])


def test_a_missing_parent_is_named(tmp_path):
    parent, child, _ = chain()
    trainer = factory.trainer(tmp_path)
    with pytest.raises(UserError, match=r"its parent 'start' .* has no finished checkpoint"):
        trainer.train([child])
    trainer.train([{**parent, "keep": False}])
    with pytest.raises(UserError, match="train it first"):
        trainer.train([child])


def test_a_missing_range_test_is_named(tmp_path):
    tests = [range_job(0), range_job(1)]
    trainer = factory.trainer(tmp_path)
    trainer.train(tests[:1])
    with pytest.raises(UserError, match=f"range test .run {tests[1]['key']}. is not in the run"):
        trainer.train([ranged_job(tests)])


def test_a_jobs_needs_are_its_parents_and_range_tests():
    parent, child, _ = chain()
    assert needs(parent) == set()
    assert needs(child) == {parent["key"]}
    assert needs(ranged_job([range_job()])) == {range_job()["key"]}
