"""Resume points: a run that goes on is the run that was never stopped; a bad file does no harm."""

from __future__ import annotations

import json
import pickle
import random
import shutil

import pytest
import safetensors.torch
import torch
from factories import engine as factory
from torch import nn

from cyclery import methods, models, optim
from cyclery.common.errors import UserError
from cyclery.common.seals import file_sha256
from cyclery.engine.checkpoint import load_weights, read_state, save_state, save_weights
from cyclery.records.run_store import Store

NETWORKS = {
    "dropout": factory.settings(model="wrn", epochs=4, evaluations=3),
    "stochastic depth": factory.settings(model="stochastic_depth", epochs=4, evaluations=3),
    "dual selective kernel": factory.settings(
        "dual_selective_kernel",
        model="resnet_b",
        model_settings={"depth": 8, "widths": [8, 8, 8, 8], "blocks": "dual_selective_kernel"},
        epochs=4,
        evaluations=3,
    ),
    "dampening": factory.settings(
        optimiser_settings={"nesterov": False, "dampening": 0.5}, epochs=4, evaluations=3
    ),
    "small cnn": factory.everything("supervised", model="small_cnn", epochs=4),
}
OPTIMISERS = {
    name: factory.settings(optimiser=name, lr=0.01, epochs=4, evaluations=3)
    for name in optim.names()
}
ALIGNED = {"alignment": "average", "target": "soft"}
METHODS = {f"method {name}": factory.everything(name) for name in methods.names()}
METHODS["alignment"] = factory.everything("fixmatch", method_settings=ALIGNED)
METHODS["ctaugment"] = factory.everything(
    "fixmatch", method_settings={"prediction_view": "ctaugment"}
)
METHODS["history of labels"] = factory.everything(
    "remixmatch", method_settings={"alignment": "history", "views": 1, "statistics": "all"}
)
# Stages of two epochs and a half; and the best of five epochs.
METHODS["stages, layer by layer"] = factory.everything(
    "reinit",
    method_settings={"reset": "layerwise", "distil": True},
    model_settings={"hidden": [32, 16]},
)
METHODS["early stopping"] = factory.everything(
    "reinit", method_settings={"stages": 1, "early_stopping": True}
)
LEVELS = {"hierarchy": [[0, 1, 2, 2, 1, 2, 0, 1, 0, 0]], "coarse": [40], "labels": 60}
for core in ("mixmatch", "fixmatch"):
    METHODS[f"levels, {core}"] = factory.everything(
        "hiermatch",
        method_settings={"core": core, "levels": 2, "pools": "levels"},
        split=LEVELS,
        threshold=factory.cycle(0.1, 0.2),
    )
CASES = METHODS | NETWORKS | OPTIMISERS


def assert_same(run, other):
    assert torch.equal(run.flat.data, other.flat.data)
    for name, value in other.weights().items():
        assert torch.equal(run.weights()[name], value), name
    assert run.curve == other.curve
    assert run.final() == other.final()


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
def test_a_resumed_run_equals_one_that_was_never_stopped(settings, tmp_path):
    whole = factory.train(settings)
    store, path = Store(tmp_path), tmp_path / "resume.safetensors"
    run = factory.run(settings)
    # Stopped after every epoch: a new process each time, whose generators have been used.
    while not run.finished:
        run.train_epoch()
        run.evaluate_on_the_way()
        save_state(run, path, "stamp", 1.5)
        torch.manual_seed(123)
        torch.rand(7)
        run = factory.run(settings)
        point = read_state(path, "stamp", store)
        assert point.seconds == 1.5
        run.load_state(point.state, point.epoch, point.curve)
    assert_same(run, whole)


def test_a_network_that_draws_from_torchs_own_generator_is_refused(monkeypatch):
    """Its noise would depend on the runs beside it, and would not be resumed."""
    build = models.build
    monkeypatch.setattr(models, "build", lambda *given: nn.Sequential(nn.Dropout(), build(*given)))
    with pytest.raises(ValueError, match="Dropout"):
        factory.run(factory.settings())


def test_the_state_holds_what_the_rest_of_the_run_needs(tmp_path):
    """A run that is not given the state goes on differently: the test above can fail."""
    falling = {"kind": "cosine", "peak": 0.1}
    settings = factory.settings(model="wrn", epochs=2, lr=falling, split={"labels": 50}, batch=25)
    whole, run = factory.train(settings), factory.run(settings)
    run.train_epoch()
    state = run.state()
    for forgotten in state:
        other = factory.run(settings)
        fresh = other.state()
        other.load_state({**state, forgotten: fresh[forgotten]}, 1, {**run.curve})
        if torch.equal(fresh[forgotten], state[forgotten]):
            continue
        factory.finish(other)
        same = all(torch.equal(v, whole.weights()[k]) for k, v in other.weights().items())
        assert not same, forgotten


# Bad files.


@pytest.fixture
def job():
    return factory.job(factory.everything("supervised"), keep=True)


def half_trained(root, job):
    """Leave the resume point of the last epoch but one, as a killed job does; return its path."""
    trainer = factory.trainer(root, resume_seconds=0.0)
    path = trainer.store.resume(job["key"])
    shutil.rmtree(path.parent, ignore_errors=True)
    content = {}
    write = Store.write

    def keep(self, key, record):
        content["point"] = path.read_bytes()
        return write(self, key, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "write", keep)
        trainer.train([job])
    (path.parent / "record.json").unlink()
    trainer.store.checkpoint(job["key"]).unlink()
    path.write_bytes(content["point"])
    return path


def retrained(root, job):
    (record,) = factory.trainer(root).train([job])
    return factory.figures(record)


def test_a_whole_resume_point_is_used(tmp_path, job, caplog):
    (expected,) = factory.trainer(tmp_path / "a").train([job])
    half_trained(tmp_path / "b", job)
    with caplog.at_level("INFO", "cyclery"):
        assert retrained(tmp_path / "b", job) == factory.figures(expected)
    assert "resumed after epoch 4" in caplog.text
    assert not factory.trainer(tmp_path / "b").store.resume(job["key"]).exists()


def flip(content, place, bit=0):
    """Return the bytes with one bit turned."""
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "cut by one": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "other weight": lambda content: flip(content, len(content) - 2000),
    "other curve": lambda content: content.replace(b'train_loss\\": [', b'train_loss\\": [1', 1),
    "pickle": lambda content: pickle.dumps({"weights": [1, 2, 3]}),
    "torch pickle": lambda content: b"PK\x03\x04" + content,
    "other tensors": lambda content: safetensors.torch.save({"flat": torch.zeros(3)}),
    "text": lambda content: b"{}",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_resume_point_is_set_aside_and_changes_no_number(damage, tmp_path, job, caplog):
    (expected,) = factory.trainer(tmp_path / "a").train([job])
    path = half_trained(tmp_path / "b", job)
    content = damage(path.read_bytes())
    assert content != path.read_bytes()
    path.write_bytes(content)
    assert retrained(tmp_path / "b", job) == factory.figures(expected)
    assert "the resume point cannot be used" in caplog.text
    assert path.with_name("resume.safetensors.damaged").read_bytes() == content


def test_any_flipped_bit_is_noticed(tmp_path, job):
    path = half_trained(tmp_path, job)
    content, store = path.read_bytes(), Store(tmp_path)
    stamp = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert read_state(path, stamp["stamp"], store) is not None
    generator = random.Random(0)
    header = 8 + int.from_bytes(content[:8], "little")
    places = [generator.randrange(len(content)) for _ in range(150)]
    for place in [*places, *(generator.randrange(header) for _ in range(250))]:
        flipped = flip(content, place, generator.randrange(8))
        path.write_bytes(flipped)
        found = read_state(path, stamp["stamp"], store)
        if found is not None:  # a space became another blank: the same content
            original = json.loads(content[8:header])
            assert json.loads(flipped[8:header]) == original, place


def test_a_resume_point_of_another_run_is_not_used(tmp_path, job):
    (expected,) = factory.trainer(tmp_path / "a").train([job])
    other = factory.job(factory.everything("supervised", seed=1), keep=True)
    foreign = half_trained(tmp_path / "b", other).read_bytes()
    path = factory.trainer(tmp_path / "b").store.resume(job["key"])
    path.parent.mkdir(parents=True)
    path.write_bytes(foreign)
    assert retrained(tmp_path / "b", job) == factory.figures(expected)


def test_a_resume_point_from_other_inputs_is_not_used(tmp_path):
    """The same key, but another parent: its weights changed since the point was made."""
    parents = [factory.job(factory.settings(seed=s), keep=True) for s in (0, 1)]
    settings = {
        **factory.settings(),
        "init": "start",
        "init_share": 1.0,
        "parents": {"start": [parents[0]["key"]]},
    }
    child = factory.job(settings, keep=True)
    fresh = factory.trainer(tmp_path / "a")
    fresh.train([parents[0], child])
    half_trained(tmp_path / "a", child)
    # Another run's weights under the parent's key, with a record that vouches for them.
    (other,) = fresh.train([parents[1]])
    store = fresh.store
    store.checkpoint(parents[0]["key"]).write_bytes(
        store.checkpoint(parents[1]["key"]).read_bytes()
    )
    store.write(parents[0]["key"], other)
    found = retrained(tmp_path / "a", child)
    assert found["inputs"]["parents"]["start"][0]["sha256"] == other["checkpoint_sha256"]
    clean = factory.trainer(tmp_path / "b")
    clean.train([parents[0]])
    clean.store.checkpoint(parents[0]["key"]).write_bytes(
        store.checkpoint(parents[1]["key"]).read_bytes()
    )
    clean.store.write(parents[0]["key"], other)
    assert retrained(tmp_path / "b", child) == found


# Checkpoints.


def test_weights_survive_and_their_bytes_do_not_vary(tmp_path):
    weights = factory.train(factory.settings(epochs=1)).weights()
    save_weights(weights, tmp_path / "a")
    save_weights(dict(reversed(weights.items())), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = load_weights(tmp_path / "a", file_sha256(tmp_path / "b"))
    assert all(torch.equal(found[name], value) for name, value in weights.items())


class Malice:
    """Unpickling it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_a_checkpoints_clothes_is_refused_and_not_run(tmp_path):
    trap = tmp_path / "trap"
    (tmp_path / "plain").write_bytes(pickle.dumps(Malice(trap)))
    torch.save({"weights": Malice(trap)}, tmp_path / "torch")
    for name in ("plain", "torch"):
        with pytest.raises(UserError, match="not a complete safetensors file"):
            load_weights(tmp_path / name)
        assert read_state(tmp_path / name, "stamp", Store(tmp_path)) is None
        assert not (tmp_path / name).exists()
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "not the one that its record"),
        (lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]), "not the one"),
    ],
)
def test_a_bad_checkpoint_is_named_with_the_remedy(change, message, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_weights(factory.run(factory.settings()).weights(), path)
    digest = file_sha256(path)
    change(path)
    with pytest.raises(UserError, match=message) as caught:
        load_weights(path, digest)
    assert str(path) in str(caught.value)
